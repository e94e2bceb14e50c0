"""Records of package caches: real ones of conda and rattler, legacy ones, and damaged ones."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conda_dedup_plugin.model import Claim, Dist, Manager, Tree, TreeKind
from conda_dedup_plugin.records import RecordError, Records, read_claims, reading
from conda_dedup_plugin.records.package_cache import package_dirs, read_cache, read_package
from tests.lab import channel as contents
from tests.lab.forge import Forge, digest
from tests.records.test_conda_meta import OUTSIDE, A, check_claims, mutated, path
from tests.test_inventory import as_nobody, world_readable
from tests.test_lab import EVERYTHING


@pytest.fixture(scope="module", params=["conda", "rattler"])
def cache(request, tmp_path_factory, channel, conda_python) -> Path:
    from tests.lab.world import CondaLab

    lab = CondaLab(tmp_path_factory.mktemp("cache") / "lab", conda_python, channel)
    if request.param == "conda":
        lab.create("one", *EVERYTHING)
        return lab.pkgs_dirs[0]
    lab.rattler(lab.root / "env", *EVERYTHING)
    return lab.rattler_cache / "pkgs"


@pytest.mark.integration
class TestRealCaches:
    def test_every_file_of_a_package_has_a_claim(self, cache: Path) -> None:
        found = read_cache(str(cache))
        assert found.warnings == []
        assert {claim.dist.name for claim in found.claims.values()} == {*EVERYTHING, "python"}
        on_disk = {
            str(file.relative_to(cache))
            for package in cache.iterdir()
            if (package / "info").is_dir()
            for file in package.rglob("*")
            if file.is_file() and not file.is_symlink() and file.relative_to(package).parts[0] != "info"
        }
        assert on_disk == found.claims.keys()

    def test_claims_are_true(self, cache: Path) -> None:
        for where, claim in read_cache(str(cache)).claims.items():
            content = (cache / where).read_bytes()
            assert claim.sha256 == hashlib.sha256(content).digest()
            assert claim.size == len(content)
            assert where == f"{claim.dist}/{claim.path}"
            # nothing is patched in a cache
            assert not claim.prefixed and not claim.pip

    def test_no_link(self, cache: Path) -> None:
        claims = read_cache(str(cache)).claims
        assert [claim.path for claim in claims.values() if claim.no_link] == [contents.NO_LINK_FILE]

    def test_dists(self, cache: Path) -> None:
        directories = package_dirs(str(cache))
        assert len(directories) == len(EVERYTHING) + 1
        for name, directory in directories.items():
            dist, _ = read_package(directory)
            assert str(dist) == name
            written = directory / "info/repodata_record.json"
            # rattler writes none
            assert written.exists() == ("rattler" not in cache.parent.name)
            known = json.loads(written.read_text()) if written.exists() else {"sha256": "", "channel": ""}
            assert (dist.digest, dist.channel) == (known["sha256"], known["channel"])
            assert dist.subdir == json.loads((directory / "info/index.json").read_text())["subdir"]


# -- odd records --------------------------------------------------------------------------------------

INDEX = {"name": "a", "version": "1", "build": "0", "subdir": "linux-64"}


def package(cache: Path, name: str = "a-1-0", **files: object) -> Path:
    """An extracted package with ``info/`` of raw bytes or JSON; ``paths_json`` is ``info/paths.json``."""
    (info := cache / name / "info").mkdir(parents=True, exist_ok=True)
    files.setdefault("index_json", INDEX)
    for file, content in files.items():
        raw = content if isinstance(content, bytes) else json.dumps(content).encode()
        (info / file.replace("_json", ".json")).write_bytes(raw)
    return cache / name


def said(*paths: dict[str, Any]) -> dict[str, Any]:
    return {"paths": list(paths), "paths_version": 1}


def read(cache: Path) -> Records:
    return read_claims(Tree(str(cache), TreeKind.CACHE, Manager.CONDA, "pkgs"))


@pytest.mark.parametrize("odd", OUTSIDE)
def test_paths_outside_are_left_out(tmp_path: Path, odd: str) -> None:
    package(tmp_path, paths_json=said(path("lib/x"), path(odd)))
    found = read(tmp_path)
    assert set(found.claims) == {"a-1-0/lib/x"}
    assert len(found.warnings) == 1 and "a-1-0" in found.warnings[0]


BOMB = b"[" * 200_000 + b"]" * 200_000
DAMAGED = [
    {"index_json": b""},
    {"index_json": b"[]"},
    {"index_json": {"name": "a"}},
    {"index_json": {"name": None, "version": "1"}},
    {"index_json": b'{"name": "\\ud800", "version": "1"}'},
    {"index_json": BOMB},
    {"paths_json": b""},
    {"paths_json": {"paths": 1}},
    {"paths_json": {"paths": [1]}},
    {"paths_json": {"paths": [{"path": "x"}]}},
    {"paths_json": b'{"paths": [], "x": ' + BOMB + b"}"},
    {"paths_json": b'{"paths": [{"_path": "x", "size_in_bytes": ' + b"9" * 5000 + b"}]}"},
    {"paths_json": b"\xff"},
    {"repodata_record_json": b"{"},
    {"repodata_record_json": {"sha256": 1}},
    {"repodata_record_json": b'{"channel": ' + BOMB + b"}"},
]


@pytest.mark.parametrize("files", DAMAGED, ids=lambda files: repr(files)[:60])
def test_a_damaged_package_is_one_warning(tmp_path: Path, files: dict[str, object]) -> None:
    package(tmp_path, "b-1-0", paths_json=said(path("lib/x")))
    damaged = package(tmp_path, **{"paths_json": said(path("y")), **files})
    with pytest.raises(RecordError, match="a-1-0"):
        read_package(damaged)
    found = read(tmp_path)
    assert set(found.claims) == {"b-1-0/lib/x"}
    assert len(found.warnings) == 1 and "a-1-0" in found.warnings[0]


def test_legacy_packages(tmp_path: Path) -> None:
    """What conda-build 2 made: ``files``, ``no_link``, ``has_prefix`` and no digests."""
    files = b"lib/x\nbin/y\n\n  share/a b  \r\n../z\n\xff\n"
    package(tmp_path, files=files, no_link=b"bin/y\nnone\n")
    found = read(tmp_path)
    assert set(found.claims) == {f"a-1-0/{name}" for name in ("lib/x", "bin/y", "share/a b", "\udcff")}
    assert {claim.path for claim in found.claims.values() if claim.no_link} == {"bin/y"}
    assert all(claim.sha256 is None and claim.size == -1 for claim in found.claims.values())
    assert len(found.warnings) == 1
    package(tmp_path, "b-1-0")
    assert read(tmp_path).claims == found.claims


@pytest.mark.parametrize("break_", ["\x0b", "\x0c", "\x1c", "\x85", "\u2028"])
def test_only_newlines_end_a_line_of_a_legacy_list(tmp_path: Path, break_: str) -> None:
    name = f"share/a{break_}b"
    package(tmp_path, files=f"{name}\nlib/x\n".encode())
    assert set(read(tmp_path).claims) == {f"a-1-0/{name}", "a-1-0/lib/x"}


def test_links_and_directories_have_no_claims(tmp_path: Path) -> None:
    package(tmp_path, paths_json=said(path("l", path_type="softlink"), path("d", path_type="directory")))
    assert read(tmp_path) == Records()


@pytest.mark.parametrize("sha256", ["", "zz" * 32, A[:-1], ("ab " * 22)[:64]])
def test_what_is_no_sha256_is_none(tmp_path: Path, sha256: str) -> None:
    package(tmp_path, paths_json=said(path("x", sha256=sha256)))
    assert read(tmp_path).claims["a-1-0/x"].sha256 is None


def test_which_directories_are_packages(tmp_path: Path) -> None:
    package(tmp_path)
    (tmp_path / "b-1-0/info").mkdir(parents=True)
    (tmp_path / "urls.txt").touch()
    (tmp_path / "c-1-0").symlink_to("a-1-0")
    (tmp_path / "cache").mkdir()
    assert set(package_dirs(str(tmp_path))) == {"a-1-0"}
    assert package_dirs(str(tmp_path / "nowhere")) == {}
    assert package_dirs(str(tmp_path / "urls.txt")) == {}


@pytest.mark.parametrize("file", ["index.json", "paths.json", "repodata_record.json", "files", "no_link"])
@pytest.mark.parametrize("kind", ["link", "fifo", "directory"])
def test_records_that_are_no_files(tmp_path: Path, file: str, kind: str) -> None:
    package(tmp_path, "b-1-0", paths_json=said(path("lib/x")))
    directory = package(tmp_path)
    odd = directory / "info" / file
    odd.unlink(missing_ok=True)
    if kind == "link":
        (tmp_path / "outside").write_text(json.dumps({**INDEX, **said()}))
        odd.symlink_to(tmp_path / "outside")
    elif kind == "fifo":
        os.mkfifo(odd)
    else:
        odd.mkdir()
    with pytest.raises(RecordError, match=file):
        read_package(directory)
    found = read(tmp_path)
    assert set(found.claims) == {"b-1-0/lib/x"}
    assert len(found.warnings) == 1


def test_records_that_are_too_big(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = package(tmp_path, paths_json=said(path("lib/x"), path("lib/y")))
    size = (directory / "info/paths.json").stat().st_size
    monkeypatch.setattr(reading, "MOST_BYTES", size - 1)
    with pytest.raises(RecordError, match=r"paths\.json"):
        read_package(directory)
    monkeypatch.setattr(reading, "MOST_BYTES", size)
    assert len(read(tmp_path).claims) == 2


def test_what_may_not_be_read() -> None:
    with world_readable() as folder:
        package(folder, "b-1-0", paths_json=said(path("lib/x")))
        (package(folder, paths_json=said(path("y"))) / "info/paths.json").chmod(0)
        (package(folder, "c-1-0") / "info").chmod(0)
        found = as_nobody(lambda: read(folder))
        assert set(found.claims) == {"b-1-0/lib/x"}
        assert found.warnings == [f"{f'{folder}/a-1-0/info/paths.json'!r} cannot be read: Permission denied."]
        folder.chmod(0)
        assert as_nobody(lambda: read(folder)) == Records()


def test_the_forge_speaks_as_real_caches_do(tmp_path: Path) -> None:
    cache = Forge(tmp_path).cache({("a", "1", "0"): {"lib/x": b"x" * 10}})
    claim = read(cache).claims["a-1-0/lib/x"]
    assert (claim.sha256, claim.size) == (bytes.fromhex(digest(b"x" * 10)), 10)


# -- any bytes ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("fuzzed")


ANY = st.binary(max_size=200)


@settings(deadline=None, max_examples=300)
@given(
    index=ANY | mutated(INDEX),
    paths=st.none() | ANY | mutated(said(path("lib/x", no_link=True), path("y"))),
    repodata=st.none() | ANY | mutated({**INDEX, "sha256": A, "md5": "x", "channel": "c"}),
    files=ANY | st.just(b"x\ny\n"),
)
def test_any_bytes_are_claims_or_a_record_error(
    fuzzed: Path, index: bytes, paths: bytes | None, repodata: bytes | None, files: bytes
) -> None:
    directory = package(fuzzed, index_json=index, files=files, no_link=files)
    for name, content in (("paths.json", paths), ("repodata_record.json", repodata)):
        (directory / "info" / name).unlink(missing_ok=True)
        if content is not None:
            (directory / "info" / name).write_bytes(content)
    try:
        _, claims = read_package(directory)
    except RecordError:
        assert len(read(fuzzed).warnings) == 1
    else:
        check_claims(claims)
        assert len(read(fuzzed).claims) == len(claims)


def test_nothing_is_said_of_info_and_nothing_is_patched(tmp_path: Path) -> None:
    patched = path("bin/x", prefix_placeholder="/opt/h_env", file_mode="text", no_link=True)
    package(tmp_path, paths_json=said(patched, path("info/test/x"), path("informal")))
    claims = read(tmp_path).claims
    assert set(claims) == {"a-1-0/bin/x", "a-1-0/informal"}
    claim = claims["a-1-0/bin/x"]
    assert claim == (claim.dist, "bin/x", bytes.fromhex(A), 1, False, True, False)
    package(tmp_path, "b-1-0", files=b"bin/x\ninfo/index.json\n", no_softlink=b"bin/x\n")
    assert read_package(tmp_path / "b-1-0")[1] == {
        "bin/x": Claim(Dist("a", "1", "0", "linux-64", ""), "bin/x", no_link=True)
    }


def test_the_digest_of_the_archive(tmp_path: Path) -> None:
    for known, digest_ in (({"sha256": A, "md5": "m"}, A), ({"md5": "m"}, "m"), ({}, "")):
        package(tmp_path, repodata_record_json={**INDEX, "channel": "conda-forge", **known})
        assert read_package(tmp_path / "a-1-0")[0] == ("a", "1", "0", "linux-64", digest_, "conda-forge")
