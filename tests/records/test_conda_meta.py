"""conda-meta in conda's and in rattler's dialect, from real environments, and in no dialect at all."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conda_dedup_plugin.model import Claim, Dist, Manager, Tree, TreeKind
from conda_dedup_plugin.records import RecordError, Records, read_claims, reading
from conda_dedup_plugin.records.conda_meta import read_dists, read_environment, read_record
from tests.lab import channel as contents
from tests.lab.forge import digest
from tests.test_inventory import as_nobody, world_readable
from tests.test_lab import EVERYTHING


@dataclass(frozen=True)
class Real:
    """An environment that a real package manager made, and the cache it came from."""

    prefix: Path
    cache: Path
    records: dict[str, dict[str, Any]]
    claims: dict[str, Claim]


@pytest.fixture(scope="module")
def lab(tmp_path_factory, channel, conda_python):
    from tests.lab.world import CondaLab

    return CondaLab(tmp_path_factory.mktemp("meta") / "lab", conda_python, channel)


def look(prefix: Path, cache: Path) -> Real:
    records = [json.loads(path.read_text()) for path in (prefix / "conda-meta").glob("*.json")]
    found = read_environment(str(prefix))
    assert found.warnings == []
    return Real(prefix, cache, {record["name"]: record for record in records}, found.claims)


@pytest.fixture(scope="module", params=["conda", "rattler"])
def real(request, lab) -> Real:
    if request.param == "conda":
        return look(lab.create("one", *EVERYTHING), lab.pkgs_dirs[0])
    return look(lab.rattler(lab.root / "rattler-env", *EVERYTHING), lab.rattler_cache / "pkgs")


def sha256(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()


@pytest.mark.integration
class TestRealEnvironments:
    def test_every_regular_file_of_a_record_has_a_claim(self, real: Real) -> None:
        listed = {path for record in real.records.values() for path in record["files"]}
        # conda follows an absolute link of a package: what was a link in it is a copy of something foreign
        listed -= {
            said["_path"]
            for record in real.records.values()
            for said in record["paths_data"]["paths"]
            if said["path_type"] == "softlink"
        }
        regular = {
            path
            for path in listed
            if (real.prefix / path).is_file() and not (real.prefix / path).is_symlink()
        }
        assert len(regular) > 300
        assert regular <= real.claims.keys()
        assert all(os.path.lexists(real.prefix / path) for path in real.claims)
        assert not [path for path in real.claims if (real.prefix / path).is_symlink()]

    def test_claimed_digests_and_sizes_are_those_of_the_files(self, real: Real) -> None:
        claimed = {path: claim for path, claim in real.claims.items() if claim.sha256 is not None}
        assert {path: claim.sha256 for path, claim in claimed.items()} == {
            path: sha256(real.prefix / path) for path in claimed
        }
        sizes = {path: claim.size for path, claim in real.claims.items() if claim.size >= 0}
        assert sizes == {path: (real.prefix / path).stat().st_size for path in sizes}
        assert len(sizes) > 250
        # nothing but what was made in the environment goes without a digest
        without = real.claims.keys() - claimed.keys()
        assert all(path.endswith(".pyc") or real.claims[path].prefixed for path in without)

    def test_what_is_patched(self, real: Real) -> None:
        patched = {path for path, claim in real.claims.items() if claim.prefixed}
        assert {contents.PREFIXED_BINARY, contents.PREFIXED_TEXT, "bin/pure-noarch"} <= patched
        holding = {
            path
            for path in real.claims
            if str(real.prefix).encode() in (real.prefix / path).read_bytes() and not path.endswith(".pyc")
        }
        assert holding <= patched
        for path in (contents.PREFIXED_BINARY, contents.PREFIXED_TEXT):
            assert real.claims[path].sha256 == sha256(real.prefix / path)
            assert real.claims[path].size == -1
        plain = (contents.CONFIG_FILE, contents.SAME_LIBRARY[0], contents.TWO_BUILDS[0])
        assert not patched.intersection(plain)
        assert not any(path.endswith((".py", ".pyc", ".so")) for path in patched - {contents.PREFIXED_BINARY})

    def test_no_link(self, real: Real) -> None:
        assert {path for path, claim in real.claims.items() if claim.no_link} == {contents.NO_LINK_FILE}

    def test_bytecode_of_noarch_packages(self, real: Real) -> None:
        compiled = {
            path: claim
            for path, claim in real.claims.items()
            if path.endswith(".pyc") and claim.dist.name == "pure-noarch"
        }
        # rattler compiles none
        assert len(compiled) == (contents.NOARCH_MODULES + 1 if "rattler" not in real.prefix.name else 0)
        for path, claim in compiled.items():
            assert not claim.prefixed
            assert claim.path == path
            assert claim.sha256 in (None, sha256(real.prefix / path))

    def test_the_path_of_a_claim_is_that_in_the_cache(self, real: Real) -> None:
        noarch = 0
        for path, claim in real.claims.items():
            if claim.dist.name == "pure-noarch" and (path.endswith(".pyc") or claim.prefixed):
                continue
            original = real.cache / str(claim.dist) / claim.path
            assert original.is_file(), path
            if not claim.prefixed and claim.sha256 is not None:
                assert sha256(original) == claim.sha256
            noarch += claim.path.startswith("site-packages/")
        assert noarch > contents.NOARCH_MODULES

    def test_dists(self, real: Real) -> None:
        assert set(real.records) == {*EVERYTHING, "python"}
        for stem, path in read_dists(str(real.prefix)).items():
            dist, claims = read_record(path)
            record = real.records[dist.name]
            assert stem == str(dist) == f"{record['name']}-{record['version']}-{record['build']}"
            assert dist.digest == record["sha256"]
            assert dist.subdir == record["subdir"]
            assert {claim.dist for claim in claims.values()} <= {dist}


@pytest.mark.integration
def test_both_dialects_say_the_same(lab) -> None:
    one = look(lab.create("same-one", *EVERYTHING), lab.pkgs_dirs[0])
    two = look(lab.rattler(lab.root / "same-two", *EVERYTHING), lab.rattler_cache / "pkgs")

    def said(real: Real, where) -> dict[str, object]:
        return {path: where(claim) for path, claim in real.claims.items() if not path.endswith(".pyc")}

    # conda writes a RECORD of its own into a noarch package's dist-info; the entry points differ in text
    for where in (
        lambda claim: (claim.dist.identity, claim.path, claim.prefixed, claim.no_link),
        lambda claim: None if claim.prefixed else (claim.sha256, claim.size),
    ):
        assert said(one, where) == said(two, where)


# -- the dialects, one package in each ------------------------------------------------------------------

A = digest(b"a")
B = digest(b"b")
#: What conda 26.7.1, conda 24.7.1 and rattler (py-rattler 0.28) wrote of one package, less what nobody reads,
#: and what mamba writes going by its source.
SITE = "lib/python3.11/site-packages/"
ORIGINAL = {
    "bin/.tiny-post-link.sh": "1" * 64,
    "python-scripts/plain": "2" * 64,
    "python-scripts/script": "3" * 64,
    "share/site-packages/b.txt": "4" * 64,
    "share/tiny/a.txt": "5" * 64,
    "site-packages/tiny/__init__.py": "6" * 64,
    "site-packages/tiny/bin/x": "7" * 64,
}
INSTALLED = {
    "bin/.tiny-post-link.sh": "bin/.tiny-post-link.sh",
    "bin/plain": "python-scripts/plain",
    "bin/script": "python-scripts/script",
    "share/site-packages/b.txt": "share/site-packages/b.txt",
    "share/tiny/a.txt": "share/tiny/a.txt",
    SITE + "tiny/__init__.py": "site-packages/tiny/__init__.py",
    SITE + "tiny/bin/x": "site-packages/tiny/bin/x",
}
PYC = SITE + "tiny/__pycache__/__init__.cpython-311.pyc"
PATCHED = "8" * 64


def in_dialect(dialect: str) -> dict[str, Any]:
    said: list[dict[str, Any]] = []
    for where, source in INSTALLED.items():
        of_conda = dialect.startswith("conda")
        one = {"_path": source if of_conda else where, "path_type": "hardlink", "size_in_bytes": 269}
        one["sha256"] = ORIGINAL[source]
        if where == "bin/script":
            one |= {"file_mode": "text", "prefix_placeholder": "/opt/h_env", "sha256_in_prefix": PATCHED}
            if dialect == "mamba":
                del one["file_mode"], one["prefix_placeholder"]
            if dialect == "rattler":
                one["size_in_bytes"] = 27
        elif dialect != "rattler":
            one["sha256_in_prefix"] = one["sha256"]
        if where == "share/tiny/a.txt":
            one["no_link"] = True
        said.append(one)
    said.append({"_path": "share/tiny/l", "path_type": "softlink", "sha256": A, "size_in_bytes": 0})
    made = {PYC: "pyc_file", "bin/tiny": "unix_python_entry_point"}
    if dialect == "rattler":
        del made[PYC]
    for where, kind in made.items():
        one = {"_path": where, "path_type": kind}
        if dialect == "conda 26":
            one["size_in_bytes"] = 220
        if dialect == "rattler":
            one |= {"sha256": B, "size_in_bytes": 212}
        said.append(one)
    return record(
        name="tiny",
        noarch="python",
        subdir="noarch",
        channel="conda-forge",
        md5="0" * 32,
        sha256=A,
        files=[*INSTALLED, "share/tiny/l", *made],
        paths_data={"paths_version": 1, "paths": said},
    )


@pytest.mark.parametrize("dialect", ["conda 24", "conda 26", "mamba", "rattler"])
def test_every_dialect_says_the_same(tmp_path: Path, dialect: str) -> None:
    dist, claims = read_record(write(tmp_path, in_dialect(dialect)))
    assert dist == ("tiny", "1", "0", "noarch", A, "conda-forge")
    entry_point, bytecode = claims.pop("bin/tiny"), claims.pop(PYC, None)
    assert entry_point.path == "bin/tiny" and entry_point.prefixed and entry_point.size == -1
    assert entry_point.sha256 == (bytes.fromhex(B) if dialect == "rattler" else None)
    if dialect != "rattler":
        assert bytecode is not None
        assert bytecode[1:] == (PYC, None, 220 if dialect == "conda 26" else -1, False, False, False)
    assert {where: claim.path for where, claim in claims.items()} == INSTALLED
    script = claims.pop("bin/script")
    assert script[2:] == (bytes.fromhex(PATCHED), -1, True, False, False)
    for claim in claims.values():
        no_link = claim.path == "share/tiny/a.txt"
        assert claim == Claim(dist, claim.path, bytes.fromhex(ORIGINAL[claim.path]), 269, False, no_link)
        assert claim.dist is dist


def test_a_file_that_rattler_moved_aside(tmp_path: Path) -> None:
    moved = path("__clobbers__/a/lib/x", original_path="lib/x")
    write(tmp_path, paths(moved, files=["__clobbers__/a/lib/x"]))
    assert {where: claim.path for where, claim in read(tmp_path).claims.items()} == {
        "__clobbers__/a/lib/x": "lib/x"
    }
    moved = path("__clobbers__/a/" + SITE + "x.py", original_path=SITE + "x.py")
    write(tmp_path, paths(moved, files=["__clobbers__/a/" + SITE + "x.py"], noarch="python"))
    assert [claim.path for claim in read(tmp_path).claims.values()] == ["site-packages/x.py"]


def test_of_a_path_of_two_packages_no_content_is_known(tmp_path: Path) -> None:
    """With conda either may have won."""
    write(tmp_path, paths(path("lib/x"), path("lib/same"), path("etc/y", no_link=True)))
    other = paths(path("lib/x", sha256=B, size_in_bytes=2), path("lib/same"), path("etc/y"), name="b")
    write(tmp_path, other, "b-1-0.json")
    found = read(tmp_path).claims
    assert (found["lib/x"].sha256, found["lib/x"].size) == (None, -1)
    assert (found["lib/same"].sha256, found["lib/same"].size) == (bytes.fromhex(A), 1)
    assert found["etc/y"].no_link


# -- odd records --------------------------------------------------------------------------------------


def record(**fields: Any) -> dict[str, Any]:
    return {"name": "a", "version": "1", "build": "0", **fields}


def path(where: str, **fields: Any) -> dict[str, Any]:
    return {"_path": where, "path_type": "hardlink", "sha256": A, "size_in_bytes": 1, **fields}


def write(folder: Path, content: object, name: str = "a-1-0.json") -> Path:
    """Put a record, or raw bytes, into the environment ``folder``."""
    target = folder / "conda-meta" / name
    target.parent.mkdir(exist_ok=True)
    raw = isinstance(content, bytes)
    target.write_bytes(content if raw else json.dumps(content).encode())  # type: ignore[arg-type]
    return target


def paths(*said: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return record(paths_data={"paths": list(said), "paths_version": 1}, **fields)


def read(folder: Path) -> Records:
    return read_claims(Tree(str(folder), TreeKind.ENVIRONMENT, Manager.CONDA, "env"))


OUTSIDE = [
    "../x",
    "a/../../x",
    "/etc/passwd",
    "a\0b",
    "",
    ".",
    "a/..",
    "//x",
    "..",
]
UNTIDY = {
    "./x": "x",
    "a//b": "a/b",
    "a/": "a",
    "a/./b": "a/b",
    "a/../b": "b",
    "a/.": "a",
    "./../env/..": None,
}


@pytest.mark.parametrize("odd", OUTSIDE)
def test_paths_outside_are_left_out(tmp_path: Path, odd: str) -> None:
    write(tmp_path, paths(path("lib/x"), path(odd), files=["lib/x", odd]))
    found = read(tmp_path)
    assert set(found.claims) == {"lib/x"}
    assert len(found.warnings) == 1
    assert "1 paths outside" in found.warnings[0] and "a-1-0.json" in found.warnings[0]


@pytest.mark.parametrize(("odd", "tidy"), UNTIDY.items())
def test_paths_are_normalised(tmp_path: Path, odd: str, tidy: str | None) -> None:
    write(tmp_path, paths(path("lib/.x"), path(odd), files=["lib/.x", odd]))
    found = read(tmp_path)
    assert {where: claim.path for where, claim in found.claims.items()} == {
        where: where for where in ("lib/.x", tidy) if where
    }
    assert len(found.warnings) == (tidy is None)


@pytest.mark.parametrize(
    "odd", ["a\\b", "a\nb", "\x1b[2J", "é/ü", "a b", "...", "..x/..y", "a" * 5000, "-n", "\u202e"]
)
def test_odd_names_are_names(tmp_path: Path, odd: str) -> None:
    write(tmp_path, paths(path(odd)))
    assert read(tmp_path) == Records({odd: read(tmp_path).claims[odd]}, [])


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b'{"name": "a"}',
        b'{"name": "a", "version": "1"',
        b'{"name": "a", "version": "1"} x',
        b'{"name": 1, "version": "1"}',
        b'{"name": "a", "version": "1", "files": {}}',
        b'{"name": "a", "version": "1", "files": [1]}',
        b'{"name": "a", "version": "1", "files": [null]}',
        b'{"name": "a", "version": "1", "files": ["\xff"]}',
        b'{"name": "a", "version": "1", "files": ["\\ud800"]}',
        b'{"name": "a", "version": "1", "files": ["\\udcff"]}',
        b'{"name": "a", "version": "1", "paths_data": []}',
        b'{"name": "a", "version": "1", "paths_data": {"paths": {}}}',
        b'{"name": "a", "version": "1", "paths_data": {"paths": [{}]}}',
        b'{"name": "a", "version": "1", "paths_data": {"paths": [{"_path": null}]}}',
        b'{"name": "a", "version": "1", "paths_data": {"paths": [{"_path": "x", "sha256": 7}]}}',
        b'{"name": "a", "version": "1", "paths_data": {"paths": [{"_path": "x", "size_in_bytes": "1"}]}}',
        b'{"name": "a", "version": "1", "paths_data": {"paths": [{"_path": "x", "size_in_bytes": 1.5}]}}',
        b'{"name": "a", "version": "1", "paths_data": {"paths": [{"_path": "x", "no_link": 1}]}}',
        b'{"name": "a", "version": "1", "channel": ' + b"9" * 5000 + b"}",
        b'{"name": "a", "version": "1", "channel": 1e999999}',
        b'{"name": "a", "version": "1", "channel": ' + b"[" * 200_000 + b"]" * 200_000 + b"}",
        b'{"name": "a", "version": "1", "unknown": ' + b'{"a":' * 200_000 + b"1" + b"}" * 200_001,
        b"[" * 1_000_000,
        b"\xff\xfe{\x00}\x00",
        b"\0" * 4096,
    ],
    ids=lambda content: repr(content[:70]),
)
def test_a_damaged_record_is_one_warning(tmp_path: Path, content: bytes) -> None:
    bad = write(tmp_path, content, "bad-1-0.json")
    write(tmp_path, paths(path("lib/x")))
    with pytest.raises(RecordError, match=r"bad-1-0\.json"):
        read_record(bad)
    found = read(tmp_path)
    assert set(found.claims) == {"lib/x"}
    assert len(found.warnings) == 1
    assert "bad-1-0.json" in found.warnings[0]
    assert len(found.warnings[0]) < 1000


@pytest.mark.parametrize(
    "sha256",
    ["", "zz" * 32, A[:-1], A + "0", A[:62], f" {A[1:]}", ("ab " * 22)[:64], "é" * 64, "\u0661" * 64],
)
def test_what_is_no_sha256_is_none(tmp_path: Path, sha256: str) -> None:
    write(tmp_path, paths(path("x", sha256=sha256), path("y", sha256_in_prefix=sha256)))
    found = read(tmp_path).claims
    assert found["x"].sha256 is None
    assert found["y"].sha256 in (None, bytes.fromhex(A))


def test_digests_of_any_case(tmp_path: Path) -> None:
    write(tmp_path, paths(path("x", sha256=A.upper())))
    assert read(tmp_path).claims["x"].sha256 == bytes.fromhex(A)


def test_the_digest_in_the_prefix_counts(tmp_path: Path) -> None:
    write(
        tmp_path,
        paths(
            path("x", sha256_in_prefix=B), path("y", prefix_placeholder="/p"), path("z", sha256_in_prefix=A)
        ),
    )
    found = read(tmp_path).claims
    assert found["x"][2:5] == (bytes.fromhex(B), -1, True)
    assert (found["y"].size, found["y"].prefixed) == (-1, True)
    assert found["z"][2:5] == (bytes.fromhex(A), 1, False)


@pytest.mark.parametrize("size", [-1, -5, 2**63, 10**30])
def test_no_size_that_no_file_has(tmp_path: Path, size: int) -> None:
    write(tmp_path, paths(path("x", size_in_bytes=size)))
    try:
        _, claims = read_record(tmp_path / "conda-meta/a-1-0.json")
    except RecordError:
        return
    assert claims["x"].size < 0 or claims["x"].size == size


@pytest.mark.parametrize("without", [record(), record(paths_data=None), record(paths_data={}), paths()])
def test_without_paths_data_nothing_is_known_but_the_names(tmp_path: Path, without: dict[str, Any]) -> None:
    write(tmp_path, {**without, "files": ["lib/x", "lib/x.pyc"]})
    found = read(tmp_path)
    assert found.warnings == []
    # it may be patched; nothing says so
    assert found.claims["lib/x"][1:] == ("lib/x", None, -1, True, False, False)
    assert found.claims["lib/x.pyc"][1:] == ("lib/x.pyc", None, -1, False, False, False)


def test_links_and_directories_have_no_claims(tmp_path: Path) -> None:
    write(
        tmp_path,
        paths(
            path("l", path_type="softlink"),
            path("d", path_type="directory"),
            path("x"),
            files=["l", "d", "x"],
        ),
    )
    assert set(read(tmp_path).claims) == {"x"}


def test_a_later_key_wins_and_unknown_ones_are_passed_over(tmp_path: Path) -> None:
    twice = b'{"name": "z", "name": "a", "version": "1", "new": {"x": [1]}, "paths_data": null,'
    twice += b' "paths_data": {"paths": [{"_path": "x", "_path": "y", "new": []}], "new": 1}}'
    dist, claims = read_record(write(tmp_path, twice))
    assert dist.name == "a"
    assert set(claims) == {"y"}


@pytest.mark.parametrize("channel", [None, 1, {"name": "x"}, ["y"]])
def test_any_channel(tmp_path: Path, channel: object) -> None:
    dist, _ = read_record(write(tmp_path, record(channel=channel)))
    assert dist.channel == ""


@pytest.mark.parametrize(
    ("package", "installed"),
    [
        ("site-packages/a/x.py", "lib/python3.13t/site-packages/a/x.py"),
        ("site-packages/a/x.py", "Lib/site-packages/a/x.py"),
        ("site-packages/a/x.py", "lib/pypy3.9/site-packages/a/x.py"),
        ("python-scripts/x", "bin/x"),
        ("share/site-packages/x", "share/site-packages/x"),
    ],
)
def test_paths_of_noarch_packages(tmp_path: Path, package: str, installed: str) -> None:
    # something else that is called so, and comes first
    other = "etc/site-packages/z.txt"
    conda = paths(path(other), path(package), files=[other, installed], noarch="python")
    write(tmp_path, conda)
    assert {where: claim.path for where, claim in read(tmp_path).claims.items()} == {
        other: other,
        installed: package,
    }
    if not package.startswith("python-scripts"):
        write(tmp_path, paths(path(other), path(installed), files=[other, installed], noarch="python"))
        assert {where: claim.path for where, claim in read(tmp_path).claims.items()} == {
            other: other,
            installed: package,
        }


def test_python_packages_of_a_platform_keep_their_paths(tmp_path: Path) -> None:
    where = "lib/python3.11/site-packages/x.py"
    for noarch in (None, "generic", False):
        write(tmp_path, paths(path(where), files=[where], noarch=noarch))
        assert read(tmp_path).claims[where].path == where


# -- odd files ----------------------------------------------------------------------------------------


def test_a_link_as_record_is_not_followed(tmp_path: Path) -> None:
    target = write(tmp_path, paths(path("lib/x")))
    os.rename(target, tmp_path / "elsewhere.json")
    target.symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(RecordError, match=r"a-1-0\.json"):
        read_record(target)
    assert read(tmp_path).claims == {}


@pytest.mark.parametrize("kind", ["fifo", "directory", "dangling", "socket"])
def test_a_record_that_is_no_file_does_not_block(tmp_path: Path, kind: str) -> None:
    import socket

    (tmp_path / "conda-meta").mkdir()
    odd = tmp_path / "conda-meta/a-1-0.json"
    if kind == "fifo":
        os.mkfifo(odd)
    elif kind == "directory":
        odd.mkdir()
    elif kind == "dangling":
        odd.symlink_to("nowhere")
    else:
        socket.socket(socket.AF_UNIX).bind(os.path.relpath(odd))
    found = read(tmp_path)
    assert found.claims == {}
    assert len(found.warnings) == 1 and "a-1-0.json" in found.warnings[0]


def test_a_record_that_is_too_big(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = write(tmp_path, paths(path("lib/x")))
    size = target.stat().st_size
    monkeypatch.setattr(reading, "MOST_BYTES", size)
    assert read(tmp_path).warnings == []
    monkeypatch.setattr(reading, "MOST_BYTES", size - 1)
    with pytest.raises(RecordError, match=f"{size} bytes"):
        read_record(target)
    assert read(tmp_path).claims == {}


def test_a_huge_sparse_record_is_not_read(tmp_path: Path) -> None:
    target = write(tmp_path, b"")
    os.truncate(target, 1 << 40)
    with pytest.raises(RecordError, match="1099511627776 bytes"):
        read_record(target)


def test_what_may_not_be_read() -> None:
    with world_readable() as folder:
        closed = write(folder, paths(path("lib/x")))
        write(folder, paths(path("lib/y")), "b-1-0.json")
        closed.chmod(0)
        found = as_nobody(lambda: read(folder))
        assert set(found.claims) == {"lib/y"}
        assert found.warnings == [f"{str(closed)!r} cannot be read: Permission denied."]
        (folder / "conda-meta").chmod(0)
        assert as_nobody(lambda: read(folder)).claims == {}


def test_no_environment_at_all(tmp_path: Path) -> None:
    assert read(tmp_path / "nowhere") == Records()
    (tmp_path / "conda-meta").write_text("a file")
    assert read(tmp_path) == Records()


def test_other_files_in_conda_meta_are_no_records(tmp_path: Path) -> None:
    for name in ("history", "pixi", "frozen", "state", "x.json.tmp"):
        write(tmp_path, b"\xff", name)
    assert read(tmp_path) == Records()


# -- any bytes ----------------------------------------------------------------------------------------

VALID = paths(
    path("lib/x", sha256_in_prefix=B, prefix_placeholder="/p", no_link=True),
    path("site-packages/y.py"),
    path("bin/z", path_type="unix_python_entry_point"),
    files=["lib/x", "lib/python3.11/site-packages/y.py", "bin/z"],
    noarch="python",
    channel="c",
    subdir="noarch",
    sha256=A,
    md5="x",
)
NAMES = st.sampled_from(
    ["name", "_path", "files", "paths_data", "paths", "sha256", "size_in_bytes", "noarch", "channel", "x"]
)
TEXTS = st.text(st.characters(codec=None, exclude_categories=[]), max_size=8) | st.sampled_from(
    [*OUTSIDE, A, "site-packages/", "bin/x", "lib/site-packages/"]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES | TEXTS, inner, max_size=4),
    max_leaves=8,
)


def places(value: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where in a JSON value something can be replaced."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [above] * bool(above) + [place for key, item in inner for place in places(item, (*above, key))]


@st.composite
def mutated(draw: st.DrawFn, valid: Any) -> bytes:
    """JSON that is nearly as it should be: some values replaced, then some bytes."""
    value = json.loads(json.dumps(valid))
    for place in draw(st.lists(st.sampled_from(places(valid)), max_size=3)):
        inner = value
        try:
            for key in place[:-1]:
                inner = inner[key]
            inner[place[-1]] = draw(JSON)
        except (TypeError, KeyError, IndexError):
            continue
    raw = json.dumps(value, ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass")
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(raw)))
        raw = raw[:at] + draw(st.binary(max_size=6)) + raw[at + draw(st.integers(0, 6)) :]
    return raw


def check_claims(claims: dict[str, Claim]) -> None:
    """What every reader of records promises, whatever it read."""
    for where, claim in claims.items():
        assert where and not where.startswith("/") and "\0" not in where
        assert not {"", ".", ".."}.intersection(where.split("/"))
        os.fsencode(where)
        assert claim.sha256 is None or len(claim.sha256) == 32
        hash(claim)


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("fuzzed")


@settings(deadline=None, max_examples=300)
@given(content=st.binary(max_size=300) | mutated(VALID))
def test_any_bytes_are_claims_or_a_record_error(fuzzed: Path, content: bytes) -> None:
    target = write(fuzzed, content)
    try:
        _, claims = read_record(target)
    except RecordError as exc:
        assert "a-1-0.json" in str(exc)
        assert len(read(fuzzed).warnings) == 1
    else:
        check_claims(claims)
        assert read(fuzzed).claims == claims


@settings(deadline=None)
@given(st.lists(st.text("a./\0\n", max_size=6), max_size=6))
def test_one_look_at_all_paths_finds_what_a_look_at_each_does(some: list[str]) -> None:
    dist = Dist("a", "1", "0", "", "")
    claims = {where: Claim(dist, where) for where in some}
    kept, dropped = reading.below_root(claims)
    each = [reading.normalised(where) for where in claims]
    assert set(kept) == {where for where in each if where is not None}
    assert dropped == each.count(None)
    assert all(claim.path == where for where, claim in kept.items())
    check_claims(kept)
