"""``verify``: what was changed in place is found, with everybody who shares it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from conda_dedup_plugin import verify as verify_module
from conda_dedup_plugin.model import Scope
from conda_dedup_plugin.verify import verify
from tests.lab import needs
from tests.lab.forge import digest, noise
from tests.test_inventory import as_nobody, world_readable  # noqa: F401
from tests.test_manners import add_wheel
from tests.test_report import DIST, EVIL, World

LIB = "lib/libx.so"
DATA = noise("library", 60_000)
WHEEL = "lib/python3.11/site-packages/"


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "world", tmp_path / "home")


def share(world: World, *more: str) -> None:
    world.run("apply", "--yes", *more, *world.search)


def pair(world: World, files: dict[str, bytes] | None = None) -> tuple[Path, Path]:
    """Two environments that share everything they have."""
    files = {LIB: DATA} if files is None else files
    one, two = (world.forge.environment(name, {DIST: files}) for name in ("one", "two"))
    share(world)
    for path in files:
        assert os.path.samefile(one / path, two / path)
    return one, two


def edit(path: Path, content: bytes = b"EDITED", keep_mtime: bool = False) -> bytes:
    """Write over the beginning of a file, in place; returns all of it."""
    before = path.stat()
    with open(path, "r+b") as stream:
        stream.write(content)
    if keep_mtime:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_ino == before.st_ino
    return path.read_bytes()


def named(document: dict[str, Any]) -> list[list[str]]:
    return [sorted(damage["names"]) for damage in document["damaged"]]


def paths(*found: Path) -> list[str]:
    return sorted(map(str, found))


# -- what is found ----------------------------------------------------------------------------------------


def test_healthy(world: World) -> None:
    pair(world, {LIB: DATA, "lib/y.so": noise("y", 5000)})
    document = world.json("verify", *world.search)
    assert document == {
        "schema": 1,
        "verified": {"inodes": 2, "bytes": 65_000, "unknown": 0},
        "damaged": [],
        "warnings": [],
    }
    done = world.run("verify", *world.search)
    assert done.stdout == "2 files that are shared, 65.0 kB, are what the records say.\n"
    done = world.run("verify", "--quick", *world.search)
    assert done.stdout == "What the journal knows is as it was noted.\n"


def _same_size(path: Path) -> None:
    edit(path)


def _same_size_and_mtime(path: Path) -> None:
    edit(path, keep_mtime=True)


def _longer(path: Path) -> None:
    with open(path, "ab") as stream:
        stream.write(b"more")


def _shorter(path: Path) -> None:
    os.truncate(path, 100)


@pytest.mark.parametrize(
    ("change", "way"),
    [
        (_same_size, "one"),
        (_same_size, "cache"),
        (_same_size_and_mtime, "two"),
        (_same_size_and_mtime, "cache"),
        (_longer, "two"),
        (_shorter, "cache"),
    ],
)
def test_an_edit_is_found_through_whichever_name(world: World, change: Any, way: str) -> None:
    cache = world.forge.cache({DIST: {LIB: DATA}})
    one, two = (world.forge.environment(name, {DIST: {LIB: DATA}}) for name in ("one", "two"))
    share(world)
    cached = cache / "a-1-0" / LIB
    names = {"one": one / LIB, "two": two / LIB, "cache": cached}
    assert len({path.stat().st_ino for path in names.values()}) == 1
    change(names[way])
    document = world.json("verify", *world.search, code=1)
    (damage,) = document["damaged"]
    expected = damage.pop("expected")
    assert damage == {
        "names": [str(cached), str(one / LIB), str(two / LIB)],
        "environments": ["one", "two"],
        "caches": [str(cache)],
        "names_outside": 0,
        "sha256": hashlib.sha256(cached.read_bytes()).hexdigest(),
    }
    assert expected == [
        {"path": path, "package": "a-1-0", "sha256": digest(DATA)} for path in damage["names"]
    ]
    quick = world.json("verify", "--quick", *world.search, code=0 if change is _same_size_and_mtime else 1)
    assert quick["verified"] == {"inodes": 0, "bytes": 0, "unknown": 0}
    assert named(quick) == ([] if change is _same_size_and_mtime else [sorted(damage["names"])])
    assert all(found["sha256"] is None for found in quick["damaged"])


def test_a_file_of_a_wheel(world: World) -> None:
    files = {"w/ext.so": noise("ext", 9000), "w/other.so": noise("other", 9000)}
    one, two = (world.forge.environment(name, {}) for name in ("one", "two"))
    for prefix in (one, two):
        add_wheel(prefix, "w", files)
    share(world)
    path = WHEEL + "w/ext.so"
    assert os.path.samefile(one / path, two / path)
    edit(one / path, keep_mtime=True)
    document = world.json("verify", *world.search, code=1)
    assert named(document) == [paths(one / path, two / path)]
    assert {(said["package"], said["sha256"]) for said in document["damaged"][0]["expected"]} == {
        ("w-1.0", digest(files["w/ext.so"]))
    }


def without_digest(prefix: Path, path: str) -> None:
    """As conda records bytecode that it compiled: the path alone."""
    record = prefix / "conda-meta/a-1-0.json"
    said = json.loads(record.read_text())
    for entry in said["paths_data"]["paths"]:
        if entry["_path"] == path:
            for key in ("sha256", "sha256_in_prefix", "size_in_bytes"):
                del entry[key]
    record.write_text(json.dumps(said))


def test_bytecode_without_a_digest_goes_by_the_journal(world: World) -> None:
    path = WHEEL + "a/__pycache__/m.cpython-311.pyc"
    files = {LIB: DATA, path: noise("pyc", 7000)}
    one, two = (world.forge.environment(name, {DIST: files}) for name in ("one", "two"))
    for prefix in (one, two):
        without_digest(prefix, path)
    share(world)
    assert os.path.samefile(one / path, two / path)
    healthy = world.json("verify", *world.search)
    assert healthy["verified"] == {"inodes": 1, "bytes": len(DATA), "unknown": 1}
    edit(two / path)
    document = world.json("verify", *world.search, code=1)
    assert named(document) == [paths(one / path, two / path)]
    (damage,) = document["damaged"]
    assert damage["sha256"] is None
    assert {said["sha256"] for said in damage["expected"]} == {None}
    assert "was changed since it was shared" in world.run("verify", *world.search, code=1).stdout


def test_several_damaged_groups(world: World) -> None:
    files = {f"lib/{name}.so": noise(name, 9000) for name in "abcde"}
    one, two = pair(world, files)
    for name, prefix in (("a", one), ("c", two), ("e", one)):
        edit(prefix / f"lib/{name}.so")
    document = world.json("verify", *world.search, code=1)
    assert sorted(named(document)) == [
        paths(one / f"lib/{name}.so", two / f"lib/{name}.so") for name in "ace"
    ]
    assert document["verified"]["inodes"] == 5
    assert "3 files damaged;" in world.run("verify", *world.search, code=1).stdout


def test_a_touched_file_is_only_noticed_at_a_quick_look(world: World) -> None:
    one, two = pair(world)
    os.utime(one / LIB)
    assert world.json("verify", *world.search)["damaged"] == []
    assert named(world.json("verify", "--quick", *world.search, code=1)) == [paths(one / LIB, two / LIB)]


def test_what_nobody_shares_is_none_of_it(world: World) -> None:
    """Whose own file it is may do with it what he likes."""
    one, _ = pair(world)
    alone = world.forge.environment("alone", {("b", "1", "0"): {"lib/b.so": noise("b", 9000)}})
    edit(alone / "lib/b.so")
    (one / "lib/copy.so").write_bytes(b"x" * 5000)
    assert world.json("verify", *world.search)["verified"]["inodes"] == 1


# -- who is named ---------------------------------------------------------------------------------------


def test_names_outside_the_scan_are_counted(world: World, tmp_path: Path) -> None:
    one, two = pair(world)
    for name in ("outside", "outside-too"):
        os.link(one / LIB, tmp_path / name)
    edit(tmp_path / "outside")
    document = world.json("verify", *world.search, code=1)
    assert named(document) == [paths(one / LIB, two / LIB)]
    assert document["damaged"][0]["names_outside"] == 2
    assert "  and 2 more outside the scan\n" in world.run("verify", *world.search, code=1).stdout


def register(world: World) -> None:
    (world.home / ".conda").mkdir(exist_ok=True)
    lines = (f"{tree.root}\n" for tree in world.forge.trees if not tree.is_cache)
    (world.home / ".conda/environments.txt").write_text("".join(lines))


@pytest.mark.parametrize("by", ["prefix", "name"])
def test_an_environment_that_is_not_selected_is_named(world: World, by: str) -> None:
    one, two = pair(world, {LIB: DATA, "lib/y.so": noise("y", 9000)})
    others = {("b", "1", "0"): {"lib/z.so": noise("z", 9000)}}
    three, four = (world.forge.environment(name, others) for name in ("three", "four"))
    share(world)
    register(world)
    edit(one / LIB)
    edit(three / "lib/z.so")
    words = ("--prefix", str(two)) if by == "prefix" else ("--name", "two")
    document = world.json("verify", *words, code=1)
    assert named(document) == [paths(one / LIB, two / LIB)]
    assert document["damaged"][0]["environments"] == ["one", "two"]
    assert document["verified"]["inodes"] == 2
    assert f"  {one / LIB}  (environment one)\n" in world.run("verify", *words, code=1).stdout
    # what only others share is theirs
    assert os.path.samefile(three / "lib/z.so", four / "lib/z.so")
    assert named(world.json("verify", "--name", "four", code=1)) == [
        paths(three / "lib/z.so", four / "lib/z.so")
    ]


# -- what cannot be told --------------------------------------------------------------------------------


def test_what_cannot_be_read_is_a_warning(world: World) -> None:
    one, two = pair(world, {LIB: DATA, "lib/y.so": noise("y", 9000)})
    needs("root, to become somebody else", os.geteuid() == 0)
    scope = world.forge.scope()
    edit(one / "lib/y.so")
    os.chmod(one / LIB, 0)
    readable = Path(world.root).parent
    modes = {folder: folder.stat().st_mode for folder in (readable, *readable.parents) if folder != Path("/")}
    try:
        for folder in modes:
            os.chmod(folder, 0o755)
        found = as_nobody(lambda: _summary(scope))
    finally:
        for folder, mode in modes.items():
            os.chmod(folder, mode & 0o7777)
    damaged, warnings = found
    assert damaged == [paths(one / "lib/y.so", two / "lib/y.so")]
    assert len(warnings) == 1
    assert str(one / LIB) in warnings[0]
    assert "Permission denied" in warnings[0]


def _summary(scope: Scope) -> tuple[list[list[str]], list[str]]:
    found = verify(scope, None)
    trees = found.inventory.scope
    return [sorted(trees.paths_of(damage.inode)) for damage in found.damages], found.warnings


def test_a_file_that_is_changed_while_it_is_read(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of one content and half of another is the digest of neither."""
    one, _ = pair(world)
    read = verify_module.digest_of

    def meanwhile(descriptor: int) -> bytes:
        found = read(descriptor)
        edit(one / LIB)
        return found[::-1]

    monkeypatch.setattr(verify_module, "digest_of", meanwhile)
    damaged, warnings = _summary(world.forge.scope())
    assert damaged == []
    assert len(warnings) == 1
    assert "changed while it was read" in warnings[0]


@pytest.mark.parametrize("words", [["--quick"], ["--repair", "--yes"], ["--repair", "--dry-run"]])
def test_without_a_journal_contents_are_verified_all_the_same(world: World, words: list[str]) -> None:
    one, two = pair(world)
    edited = edit(one / LIB)
    world.extra["XDG_STATE_HOME"] = os.devnull
    document = world.json("verify", *world.search, code=1)
    assert named(document) == [paths(one / LIB, two / LIB)]
    (warning,) = document["warnings"]
    assert "/dev/null/conda-dedup" in warning
    failed = world.json("verify", *words, *world.search, code=1)
    assert set(failed) == {"schema", "error", "hint"}
    assert (two / LIB).read_bytes() == edited


# -- what is printed --------------------------------------------------------------------------------------


def test_no_name_moves_the_cursor(world: World) -> None:
    path = f"lib/{EVIL}.so"
    one, two = (world.forge.environment(name, {DIST: {path: DATA}}) for name in (EVIL, "[red]two"))
    share(world)
    assert os.path.samefile(one / path, two / path)
    edit(one / path)
    done = world.run("verify", *world.search, code=1)
    assert done.stdout.count("\n") == 4, done.stdout
    for word in (*"\x1b\x07\r", "\u202e", "\x9b"):
        assert word not in done.stdout + done.stderr
    assert "evil\\x1b[2J\\x07\\n\\r\\u202e\\x9bmore" in done.stdout
    assert "(environment [red]two)" in done.stdout
    shutil.rmtree(two / "lib")
    assert world.run("verify", *world.search).stdout.startswith("0 files")


def test_quiet(world: World) -> None:
    one, _ = pair(world)
    done = world.run("verify", "-q", *world.search)
    assert (done.stdout, done.stderr) == ("", "")
    os.utime(one / LIB)
    assert world.run("verify", "-q", *world.search).stdout == ""
    edit(one / LIB)
    assert str(one / LIB) in world.run("verify", "-q", *world.search, code=1).stdout


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--keep-edit", "{one}"], 2, "--repair"),
        (["--repair", "--yes", "--keep-edit", "{sound}"], 2, "no damaged file"),
        (["--repair", "--yes", "--keep-edit", "/nowhere/at/all"], 2, "no damaged file"),
        (["--repair", "--yes", "--keep-edit", ""], 2, "no damaged file"),
        (["--repair"], 1, "--yes"),
        (["--repair", "--quiet"], 1, "--yes"),
        (["--repair", "--bogus"], 2, "--bogus"),
        (["--prefix", "/nowhere"], 2, "/nowhere"),
        (["--name", "nope"], 2, "nope"),
    ],
)
def test_words_that_make_no_sense_change_nothing(
    world: World, words: list[str], code: int, said: str
) -> None:
    one, two = pair(world, {LIB: DATA, "lib/y.so": noise("y", 9000)})
    edited = edit(one / LIB)
    given = [word.format(one=one / LIB, sound=one / "lib/y.so") for word in words]
    done = world.run("verify", *given, *world.search, code=code)
    assert said in done.stderr
    document = world.json("verify", *given, *world.search, code=code)
    assert set(document) == {"schema", "error", "hint"}
    assert (one / LIB).read_bytes() == edited
    assert os.path.samefile(one / LIB, two / LIB)
