"""Readers of what others wrote: anything at all is data or a warning with the path, never another error."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from conda_dedup_plugin import pending, settings
from conda_dedup_plugin.condarc import load_condarc
from conda_dedup_plugin.discovery_roots import known_roots
from conda_dedup_plugin.environments import Request, find
from conda_dedup_plugin.errors import StateError
from conda_dedup_plugin.journal import Journal
from conda_dedup_plugin.model import InodeKey, Manager, Method, Tree, TreeKind
from conda_dedup_plugin.records import read_claims
from conda_dedup_plugin.records.conda_meta import read_dists, read_record
from conda_dedup_plugin.records.package_cache import read_package
from conda_dedup_plugin.records.pip_record import dist_infos, read_pip_record
from conda_dedup_plugin.records.reading import RecordError
from conda_dedup_plugin.sharing.change import Change
from conda_dedup_plugin.sharing.recovery import recover
from tests.lab.forge import Forge, digest, noise
from tests.records.test_conda_meta import check_claims

if TYPE_CHECKING:
    from collections.abc import Iterator

EXAMPLES = [
    pytest.param(60, id="few"),
    pytest.param(5000, id="many", marks=pytest.mark.soak),
]

# -- what is nearly as it should be -----------------------------------------------------------------------

TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|-?\d[\d.eE+-]*|true|false|null')
#: What may stand where a value was, in JSON (and mostly in YAML) or not quite.
ODD = [
    b"NaN", b"-Infinity", b"1e999", b"-0", b"9" * 30, b"9" * 5000, b"-" + b"9" * 400, b"0." + b"1" * 400,
    b"9223372036854775808", b"18446744073709551616", b"true", b"null", b'""', b"[]", b"{}", b"[null]",
    b'"\\ud800"', b'"\\udcff\\ud800"', b'"\\u0000"', b'"\\ud83d\\ude00"', b'"\xff\xfe"', b'"\xed\xa0\x80"',
    b'"../x"', b'"/etc/passwd"', b'"a//b"', b'"a/../../b"', b'"."', b'"a/"', b'"./a"', b'"~"', b'"$HOME"',
    b"[" * 3000, b"[" * 3000 + b"]" * 3000, b'{"a":' * 3000, b'{"_path": {"_path": "x"}}', b'["a", 1, null]',
    b'"' + b"x" * 5000 + b'"', b'"' + b"a/" * 5000 + b'"', b'"\\"', b"'", b",", b"}", b"]", b"/* */",
    b'"' + b"0" * 64 + b'"', b'"' + b" 0" * 32 + b'"', b'"' + "٣".encode() * 64 + b'"',
]  # fmt: skip


@st.composite
def damaged(draw: st.DrawFn, valid: bytes, odd: tuple[bytes, ...] = tuple(ODD)) -> bytes:
    """A valid document with other values, keys twice, pieces missing, bytes thrown in, or cut off."""
    content = valid
    for _ in range(draw(st.integers(0, 3))):
        tokens = list(TOKEN.finditer(content))
        if not tokens:
            break
        start, end = draw(st.sampled_from(tokens)).span()
        content = content[:start] + draw(st.sampled_from(odd) | st.binary(max_size=6)) + content[end:]
    keys = list(re.finditer(rb'\{("[^"]*")', content))
    if keys and draw(st.booleans()):
        chosen = draw(st.sampled_from(keys))
        twice = chosen.group(1) + b":" + draw(st.sampled_from(odd)) + b","
        content = content[: chosen.start() + 1] + twice + content[chosen.start() + 1 :]
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(content)))
        content = content[:at] + draw(st.binary(max_size=6)) + content[at + draw(st.integers(0, 6)) :]
    if draw(st.booleans()):
        content = content[: draw(st.integers(0, len(content)))]
    return content


#: YAML takes its time.
SHORT = tuple(odd for odd in ODD if len(odd) < 500)


def anything(valid: bytes) -> st.SearchStrategy[bytes]:
    return damaged(valid) | st.binary(max_size=300)


def fuzz(examples: int, **strategies: st.SearchStrategy[bytes]):
    """The decorators of every test here."""

    def decorate(function):
        return hypothesis_settings(
            max_examples=examples,
            deadline=None,
            derandomize=examples < 100,
            database=None,
            suppress_health_check=list(HealthCheck),
        )(given(**strategies)(function))

    return decorate


# -- records ----------------------------------------------------------------------------------------------

A, B = digest(b"a"), digest(b"b")
CONDA_META = json.dumps(
    {
        "name": "a", "version": "1", "build": "0", "subdir": "noarch", "noarch": "python", "sha256": A,
        "md5": "x", "channel": {"name": "c"},
        "files": ["lib/x.so", "lib/python3.12/site-packages/y.py", "bin/z"],
        "paths_data": {"paths_version": 1, "paths": [
            {"_path": "lib/x.so", "path_type": "hardlink", "sha256": A, "sha256_in_prefix": B,
             "size_in_bytes": 7, "prefix_placeholder": "/p", "no_link": True},
            {"_path": "site-packages/y.py", "original_path": "y", "sha256": A, "size_in_bytes": 1},
            {"_path": "bin/z", "path_type": "unix_python_entry_point"}]},
    }
).encode()  # fmt: skip
INDEX = b'{"name": "a", "version": "1", "build": "0", "subdir": "linux-64", "build_number": 0}'
REPODATA = json.dumps({"name": "a", "sha256": A, "md5": "x", "channel": "c", "subdir": "noarch"}).encode()
PATHS = json.dumps(
    {"paths": [{"_path": path, "sha256": A, "size_in_bytes": 3, "no_link": False} for path in ("lib/x", "y")]}
).encode()
LIST = b"lib/x.so\nlib/y\ninfo/index.json\n../z\n/a\n"
DIGEST = b"sha256=ypeBEsobvcr6wjGzmiPcTaeG7_gUfE5yuYB3ha_uSLs"
RECORD = b"x/a.py," + DIGEST + b',7\n"x/b,c.py",' + DIGEST + b",1\n../../../bin/d,,\nx-1.dist-info/RECORD,,\n"


@pytest.fixture
def environment(tmp_path: Path) -> Tree:
    """An environment with a sound record (``sound``) besides what is damaged."""
    env = Forge(tmp_path).environment("e", {("sound", "1", "0"): {"lib/s.so": noise("s", 10)}})
    (env / "lib/python3.12/site-packages/x-1.dist-info").mkdir(parents=True)
    return Tree(str(env), TreeKind.ENVIRONMENT, Manager.CONDA, "e")


def check_records(tree: Tree, broken: list[Path], sound: str, said: dict[str, object]) -> None:
    """A warning for each record that says nothing, which names it; what the sound one says is there."""
    records = read_claims(tree)
    check_claims(records.claims)
    for path in broken:
        named = [warning for warning in records.warnings if str(path) in warning]
        assert len(named) == 1, records.warnings
        assert len(named[0]) < 2000
    assert len(records.warnings) <= 2
    assert all(any(place in warning for place in (tree.root,)) for warning in records.warnings)
    assert sound in records.claims
    assert said.keys() <= records.claims.keys()


@pytest.mark.parametrize("examples", EXAMPLES)
def test_records_of_an_environment(environment: Tree, examples: int) -> None:
    meta = Path(environment.root, "conda-meta/a-1-0.json")
    record = Path(environment.root, "lib/python3.12/site-packages/x-1.dist-info/RECORD")

    @fuzz(examples * 3, one=anything(CONDA_META), other=anything(RECORD) | st.just(RECORD + b"x" * 140_000))
    def law(one: bytes, other: bytes) -> None:
        meta.write_bytes(one)
        record.write_bytes(other)
        broken, said = [], {}
        for path, read in (
            (meta, lambda: read_record(meta)),
            (record, lambda: read_pip_record(record, environment.root)),
        ):
            try:
                _, claims = read()
            except RecordError as exc:
                assert str(path) in str(exc)
                broken.append(path)
            else:
                check_claims(claims)
                said |= claims
        check_records(environment, broken, "lib/s.so", said)
        assert set(read_dists(environment.root)) == {"a-1-0", "sound-1-0"}
        assert set(dist_infos(environment.root)) == {("x", "1")}

    law()


@pytest.mark.parametrize("examples", EXAMPLES)
def test_records_of_a_cache(tmp_path: Path, examples: int) -> None:
    cache = Forge(tmp_path).cache({("sound", "1", "0"): {"lib/s.so": noise("s", 10)}})
    info = cache / "a-1-0/info"
    info.mkdir(parents=True)
    tree = Tree(str(cache), TreeKind.CACHE, Manager.CONDA, "pkgs")
    contents = {
        "index.json": st.just(INDEX) | anything(INDEX),
        "paths.json": st.just(b"") | st.just(PATHS) | anything(PATHS),
        "repodata_record.json": st.just(b"") | st.just(REPODATA) | anything(REPODATA),
        "files": anything(LIST),
    }

    @fuzz(examples * 3, drawn=st.fixed_dictionaries(contents))
    def law(drawn: dict[str, bytes]) -> None:
        for name, content in drawn.items():
            (info / name).unlink(missing_ok=True)
            if content or name == "index.json":
                (info / name).write_bytes(content)
        broken, said = [], {}
        try:
            _, claims = read_package(info.parent)
        except RecordError as exc:
            broken = [info]
            assert str(info) in str(exc)
        else:
            check_claims(claims)
            said = {f"a-1-0/{path}": claim for path, claim in claims.items()}
        check_records(tree, broken, "sound-1-0/lib/s.so", said)

    law()


# -- settings and places ----------------------------------------------------------------------------------

CONDARC = b"""# a comment
channels: [a, b]
always_copy: false
pkgs_dirs:
  - /pkgs
  - ~/pkgs
envs_dirs: ["/envs", 'relative']
plugins: {"dedup_auto": true, "dedup_method": "auto", "dedup_min_size": 4096}
"""
YAML_ODD = [
    b"&a",
    b"*a",
    b"? ",
    b"- ",
    b"|",
    b"!!python/object:x",
    b"!!set",
    b"<<: *a",
    b"\t",
    b"2020-99-99",
    b"0x",
    b"~",
]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home directory in which nothing of the real one is seen."""
    for name in list(os.environ):
        if name.startswith(("CONDA", "MAMBA", "RATTLER", "PIXI", "MAGIC", "XDG_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "home/.conda").mkdir(parents=True)
    return tmp_path / "home"


@pytest.mark.parametrize("examples", EXAMPLES)
def test_condarc(home: Path, examples: int) -> None:
    file = home / ".condarc"

    pieces = st.lists(st.sampled_from([*YAML_ODD, *SHORT]), max_size=10).map(b" ".join)

    @fuzz(examples, content=damaged(CONDARC, SHORT) | st.binary(max_size=300) | pieces)
    def law(content: bytes) -> None:
        file.write_bytes(content)
        condarc = load_condarc()
        broken = [warning for warning in condarc.warnings if str(file) in warning]
        assert [str(file)] * (not broken) == [path for path, _ in condarc.files if path == str(file)]
        assert all(len(warning) < 2000 and "\n" not in warning for warning in condarc.warnings)
        found = settings.load()
        assert set(broken) <= set(found.warnings)
        assert type(found.auto) is bool and type(found.min_size) is int and found.min_size >= 0
        assert settings.always_copy() in (True, False)
        roots = known_roots()
        assert set(broken) <= set(roots.warnings)
        for path in (*roots.envs_dirs, *roots.pkgs_dirs, *roots.bases, *roots.prefixes):
            assert os.path.isabs(path) and "\0" not in path

    law()


@pytest.mark.parametrize("examples", EXAMPLES)
def test_lists_of_environments(home: Path, examples: int) -> None:
    env = home / "env"
    (env / "conda-meta").mkdir(parents=True)
    valid = f"{env}\n/nowhere/é\n\n  {env} \nrelative\n".encode()
    pieces = st.lists(
        st.sampled_from([b"\n", b"\r", b"\0", b"/", b"/a\0", b"..", b"~", b"$HOME", b"\xff", b"\x0c"])
    ).map(b"".join)
    inserted = st.tuples(anything(valid), pieces).map(b"\n".join)

    @fuzz(
        examples,
        content=anything(valid) | inserted,
        history=anything(b"==> 2024 <==\n# cmd: /x/mamba create\n"),
    )
    def law(content: bytes, history: bytes) -> None:
        (home / ".conda/environments.txt").write_bytes(content)
        (env / "conda-meta/history").write_bytes(history)
        for path in known_roots().prefixes:
            assert os.path.isabs(path) and "\0" not in path
        scope = find(Request(prefixes=(str(env),)))
        assert [tree.root for tree in scope.trees if tree.selected] == [str(env)]
        assert {tree.manager for tree in scope.trees if tree.root == str(env)} <= {
            Manager.CONDA,
            Manager.MAMBA,
        }
        assert all(os.path.isabs(tree.root) for tree in scope.trees)

    law()


# -- state ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("examples", EXAMPLES)
def test_what_is_remembered(home: Path, examples: int) -> None:
    env = home / "env"
    (env / "conda-meta").mkdir(parents=True)
    pending.note(str(env), ["a-1-0", "b-2-0"])
    (file,) = (home.parent / "state").rglob("check.json")
    check = json.loads(file.read_bytes())
    check["pending"]["process"] = "boot/1/2"
    valid = json.dumps({**check, "checked": 1.5, "result": {"files": 1, "bytes_freed": 2}}).encode()

    moved = valid.replace(str(env).encode(), b"tmp/elsewhere")

    @fuzz(examples, content=anything(valid) | st.just(moved))
    def law(content: bytes) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        found = pending.read(str(env))
        assert isinstance(found, pending.Check)
        pending.is_somebody_elses(str(env), 1.0)
        for check in pending.remembered():
            if check.pending is not None and check.pending.is_free:
                assert isinstance(check.prefix, str) and isinstance(check.pending, pending.Pending)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        # whatever was there, what is announced now is remembered
        pending.note(str(env), ["new-1-0"])
        work = pending.read(str(env)).pending
        assert work is not None and "new-1-0" in work.linked
        pending.done(str(env), ["x"], pending.Result(0, 0))
        assert pending.read(str(env)).pending is None

    law()


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Path]:
    """A journal with a change that was done, one that was not, and staging, of a process that is gone."""
    file = tmp_path / "journal.sqlite"
    book = Journal.open(file)
    book.begin("x")
    root = str(tmp_path / "env")
    os.mkdir(root)
    key = InodeKey(1, 2)
    changes = [
        Change(Method.HARDLINK, root, f"lib/{number}.so", f".conda-dedup-{book.run}/{book.run}-{number}", key,
               1, 2, 0o644, 0, 0, key, 3)
        for number in range(3)
    ]  # fmt: skip
    numbers = book.intend(changes)
    book.resolve([(numbers[0], "done", 10)])
    book.staging(root, f".conda-dedup-{book.run}")
    book.close()
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE run SET process = 'boot/1/2'")
        connection.execute("PRAGMA journal_mode=DELETE")
    connection.close()
    yield file


@pytest.mark.parametrize("examples", EXAMPLES)
def test_a_damaged_journal(home: Path, journal: Path, tmp_path: Path, examples: int) -> None:
    """StateError or not, nothing is made, changed or deleted by what it says, and no other error comes."""
    valid = journal.read_bytes()
    victim = tmp_path / "env/lib/0.so"
    victim.parent.mkdir()
    victim.write_bytes(b"victim")
    here = tmp_path / "damaged"
    at = st.integers(0, len(valid) - 1)
    # what SQLite quotes in its message need be no text
    names = [(match.end(), b"\x80") for match in re.finditer(b"CREATE (?:TABLE|INDEX)", valid)]
    piece = st.tuples(at, st.binary(min_size=1, max_size=8)) | st.sampled_from(names)
    patches = st.lists(piece, min_size=1, max_size=6)

    @fuzz(examples, patch=patches, cut=st.none() | at, whole=st.none() | st.binary(max_size=300))
    def law(patch: list[tuple[int, bytes]], cut: int | None, whole: bytes | None) -> None:
        content = bytearray(valid)
        for place, piece in patch:
            content[place : place + len(piece)] = piece
        shutil.rmtree(here, ignore_errors=True)
        here.mkdir()
        (here / "journal.sqlite").write_bytes(bytes(content[:cut]) if whole is None else whole)
        try:
            book = Journal.open(here / "journal.sqlite", patience=0.1)
        except StateError as exc:
            assert "journal" in str(exc)
            return
        try:
            recover(book)
            book.begin("next")
            book.finish()
        except StateError as exc:
            assert "journal" in str(exc)
        finally:
            book.close()
        assert [path.name for path in (tmp_path / "env").rglob("*")] == ["lib", "0.so"]
        assert victim.read_bytes() == b"victim"

    law()


VALUES = (
    st.none() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text(max_size=9) | st.binary(max_size=9)
)
COLUMNS = [
    "state",
    "method",
    "root",
    "path",
    "staged",
    "old_device",
    "old_number",
    "size",
    "mode",
    "keeper_number",
]


@pytest.mark.parametrize("examples", EXAMPLES)
def test_a_journal_with_odd_values(home: Path, journal: Path, tmp_path: Path, examples: int) -> None:
    """A sound file in which another program, or a later version, has written something else."""
    odd = st.sampled_from(
        [b"", b"/", b"..", b"../..", b"a/../../b", b"x" * 5000, b"\0", "x", "intent", "-1", "9" * 30]
    )
    edits = st.lists(st.tuples(st.sampled_from(COLUMNS), VALUES | odd), min_size=1, max_size=3)
    copy = tmp_path / "copy.sqlite"

    @fuzz(examples, edits=edits, staging=VALUES | odd)
    def law(edits, staging) -> None:
        shutil.copyfile(journal, copy)
        connection = sqlite3.connect(copy)
        with connection:
            for column, value in edits:
                try:
                    connection.execute(f"UPDATE change SET {column} = ? WHERE state = 'intent'", (value,))
                except (sqlite3.IntegrityError, UnicodeEncodeError):
                    continue
            with contextlib.suppress(sqlite3.IntegrityError, UnicodeEncodeError):
                connection.execute("UPDATE staging SET path = ?", (staging,))
        connection.close()
        try:
            book = Journal.open(copy, patience=0.1)
        except StateError:
            return
        try:
            recover(book)
        except StateError as exc:
            assert "journal" in str(exc)
        finally:
            book.close()

    law()
