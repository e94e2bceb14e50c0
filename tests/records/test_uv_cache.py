"""uv's cache: unpacked wheels with their own RECORDs, found and read, and never taken for conda's."""

from __future__ import annotations

import base64
import hashlib
import os
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from packaging.tags import parse_tag

from conda_dedup_plugin.demo.wheels import dist_info, distribution_wheel
from conda_dedup_plugin.environments import Request, find
from conda_dedup_plugin.errors import UsageError
from conda_dedup_plugin.inventory import scan
from conda_dedup_plugin.model import Hazard, Manager, Scope, Tree, TreeKind
from conda_dedup_plugin.records import Records, read_claims, reading
from conda_dedup_plugin.records.pip_record import read_wheels
from conda_dedup_plugin.unused import find_unused
from tests.lab import needs
from tests.lab.conda_wheel import importable
from tests.lab.forge import noise
from tests.lab.invariants import assert_unchanged, directories, snapshot
from tests.records.test_conda_meta import sha256
from tests.test_environments import cache as conda_cache
from tests.test_environments import home, roots
from tests.test_report import World

__all__ = ["home"]

LIBRARY = noise("library", 50_000)
FILES = {"tiny/__init__.py": b"", "tiny/_tiny.abi3.so": LIBRARY, "tiny/text.txt": b"t" * 5000}


def unpack(archives: Path, key: str, files: Mapping[str, bytes] = FILES, name: str = "tiny-1.0") -> Path:
    """Put a wheel of ``files`` into uv's cache, as uv has it there."""
    for path, data in {**files, **dist_info(*name.split("-"), files)}.items():
        target = archives / key / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    return archives / key


def read(archives: Path) -> Records:
    return read_claims(Tree(str(archives), TreeKind.CACHE, Manager.UV, "uv"))


# -- records ----------------------------------------------------------------------------------------------


def test_every_file_of_a_wheel_has_a_claim(tmp_path: Path) -> None:
    wheel = distribution_wheel(tmp_path, "msgspec")
    archive = tmp_path / "archive-v0/JcaxAPcXHhI4DSn4"
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(archive)
        said = packed.read(next(name for name in packed.namelist() if name.endswith("/WHEEL"))).decode()
    tags = {tag for line in said.splitlines() if line.startswith("Tag: ") for tag in parse_tag(line[5:])}
    found = read(archive.parent)
    assert found.warnings == []
    files = {str(path.relative_to(archive.parent)): path for path in archive.rglob("*") if path.is_file()}
    assert found.claims.keys() == files.keys()
    assert any(path.endswith(".so") for path in files)
    for path, claim in found.claims.items():
        assert claim.path == path.removeprefix("JcaxAPcXHhI4DSn4/")
        assert claim.pip and not claim.prefixed
        assert (claim.dist.name, claim.dist.subdir, claim.dist.digest) == ("msgspec", "pypi", "")
        assert tags == parse_tag(claim.dist.build)
        if not path.endswith("/RECORD"):
            assert (claim.sha256, claim.size) == (sha256(files[path]), files[path].stat().st_size)


def test_wheels_are_told_apart_by_their_directory(tmp_path: Path) -> None:
    for key, name in (("one", "tiny-1.0"), ("two", "tiny-2.0")):
        unpack(tmp_path, key, name=name)
    dists = {path: str(claim.dist.version) for path, claim in read(tmp_path).claims.items()}
    assert dists["one/tiny/__init__.py"] == "1.0"
    assert dists["two/tiny/__init__.py"] == "2.0"


def test_what_is_in_the_wheel_besides_its_modules(tmp_path: Path) -> None:
    unpack(tmp_path, "a", {"tiny-1.0.data/scripts/tool": b"#!python\n", "libs.libs/libx.so.1": LIBRARY})
    assert {"a/tiny-1.0.data/scripts/tool", "a/libs.libs/libx.so.1"} < read(tmp_path).claims.keys()


@pytest.mark.parametrize("record", [b"a" * 200_000, None], ids=["damaged", "a link"])
def test_a_damaged_record_costs_a_warning_and_its_own_wheel(tmp_path: Path, record: bytes | None) -> None:
    unpack(tmp_path, "good")
    path = unpack(tmp_path, "bad") / "tiny-1.0.dist-info/RECORD"
    path.unlink()
    if record is None:
        path.symlink_to(tmp_path / "good/tiny-1.0.dist-info/RECORD")
    else:
        path.write_bytes(record)
    found = read(tmp_path)
    assert len(found.warnings) == 1 and str(path) in found.warnings[0]
    assert found.claims and all(claim.startswith("good/") for claim in found.claims)


def test_a_record_that_is_too_big(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unpack(tmp_path, "a")
    monkeypatch.setattr(reading, "MOST_BYTES", 100)
    found = read(tmp_path)
    assert found.claims == {}
    assert len(found.warnings) == 1


@pytest.mark.parametrize("odd", ["../good/tiny/text.txt", "/etc/passwd", "tiny/../../good/x", ".."])
def test_no_wheel_speaks_of_another(tmp_path: Path, odd: str) -> None:
    unpack(tmp_path, "good")
    path = unpack(tmp_path, "bad", {"x.py": b""}) / "tiny-1.0.dist-info/RECORD"
    path.write_text(f"x.py,,\n{odd},,\n")
    found = read(tmp_path)
    assert len(found.warnings) == 1 and str(path) in found.warnings[0]
    assert {claim for claim in found.claims if not claim.startswith("good/")} == {"bad/x.py"}
    assert found.claims["good/tiny/text.txt"].size == 5000


def test_nothing_is_read_through_a_link(tmp_path: Path) -> None:
    unpack(tmp_path / "elsewhere", "a")
    archives = tmp_path / "archive-v0"
    archives.mkdir()
    (archives / "a").symlink_to(tmp_path / "elsewhere/a")
    (archives / "b").mkdir()
    (archives / "b/tiny-1.0.dist-info").symlink_to(tmp_path / "elsewhere/a/tiny-1.0.dist-info")
    assert read(archives) == Records()
    assert find(Request(pkgs_dirs=(str(archives),), discover=False)).trees == ()


def test_an_environment_in_the_cache(tmp_path: Path) -> None:
    """``uv tool run`` leaves its virtual environments among the wheels."""
    kept = tmp_path / "stXWkjupiTVaIuaB"
    unpack(kept / "lib/python3.11", "site-packages")
    assert read(tmp_path) == Records()
    (kept / "pyvenv.cfg").touch()
    claims = read(tmp_path).claims
    assert len(claims) == 6
    assert claims["stXWkjupiTVaIuaB/lib/python3.11/site-packages/tiny/_tiny.abi3.so"].size == len(LIBRARY)


# -- where it is ------------------------------------------------------------------------------------------


def only(scope: Scope) -> Tree:
    (tree,) = scope.trees
    return tree


def test_discovered_where_uv_has_it(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    default = unpack(home / ".cache/uv/archive-v0", "a").parent
    tree = only(find(Request()))
    assert (tree.root, tree.kind, tree.manager) == (str(default), TreeKind.CACHE, Manager.UV)
    assert tree.name == "uv/archive-v0"
    assert tree.selected and not tree.is_conda_cache
    xdg = unpack(tmp_path / "xdg/uv/archive-v0", "a").parent
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert only(find(Request())).root == str(xdg)
    chosen = unpack(tmp_path / "mine/archive-v1", "a").parent
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "mine"))
    assert only(find(Request())).root == str(chosen)


def test_a_cache_without_wheels_is_none(home: Path) -> None:
    uv = home / ".cache/uv"
    (uv / "archive-v0/abc").mkdir(parents=True)
    (uv / "archive-v0/file-1.dist-info").touch()
    unpack(uv / "wheels-v7", "a")
    unpack(uv / "archive-vX", "a")
    assert find(Request()) == Scope(())


def test_named_and_searched(home: Path, tmp_path: Path) -> None:
    uv = tmp_path / "uv"
    (uv / "wheels-v7").mkdir(parents=True)
    (uv / "CACHEDIR.TAG").touch()
    old, new = (str(unpack(uv / name, "a").parent) for name in ("archive-v0", "archive-v1"))
    assert roots(find(Request(pkgs_dirs=(str(uv),)))) == [old, new]
    assert roots(find(Request(pkgs_dirs=(old,)))) == [old]
    scope = find(Request(search=(str(tmp_path),)))
    assert roots(scope) == [old, new]
    assert {tree.manager for tree in scope.trees} == {Manager.UV}
    (tmp_path / "link").symlink_to(uv)
    assert roots(find(Request(pkgs_dirs=(str(tmp_path / "link"),)))) == [old, new]
    with pytest.raises(UsageError):
        find(Request(prefixes=(old,)))


def test_never_taken_for_condas(home: Path) -> None:
    """A wheel may have what an extracted package has."""
    uv = home / ".cache/uv/archive-v0"
    files = {**FILES, "info/index.json": b'{"name": "x", "version": "1"}', "info/paths.json": b"{}"}
    unpack(uv, "tiny-1.0-0", files)
    for request in (Request(), Request(pkgs_dirs=(str(uv),)), Request(search=(str(home),))):
        tree = only(find(request))
        assert (tree.root, tree.manager) == (str(uv), Manager.UV)
        assert all(claim.pip for claim in read_claims(tree).claims.values())


def test_condas_cache_by_that_name_is_condas(home: Path) -> None:
    root = Path(conda_cache(home / "archive-v0"))
    unpack(root, "wheel")
    assert only(find(Request(pkgs_dirs=(str(root),)))).manager is Manager.CONDA


# -- what is done with it ---------------------------------------------------------------------------------


def test_what_is_counted(tmp_path: Path) -> None:
    unpack(tmp_path / "archive-v0", "a")
    scope = find(Request(pkgs_dirs=(str(tmp_path),), discover=False))
    inventory = scan(scope, 4096)
    hazards = {name.path: inode.hazard for inode in inventory.inodes.values() for name in inode.names}
    assert hazards == {"a/tiny/_tiny.abi3.so": Hazard.NATIVE, "a/tiny/text.txt": Hazard.UNTRACKED}
    assert inventory.warnings == []
    assert inventory.totals.unrecorded_bytes == 0


def test_clean_leaves_it_alone(tmp_path: Path) -> None:
    """Of conda's cache, packages of which all names are known and none is used would go."""
    uv = tmp_path / "archive-v0"
    files = {**FILES, "info/index.json": b"{}"}
    packages = [unpack(uv, key, files) for key in ("a", "b")]
    (packages[1] / "tiny/_tiny.abi3.so").unlink()
    os.link(packages[0] / "tiny/_tiny.abi3.so", packages[1] / "tiny/_tiny.abi3.so")
    scope = find(Request(pkgs_dirs=(str(uv),), discover=False))
    assert find_unused(scan(scope, 0)) == []
    (uv / "urls.txt").touch()
    scope = find(Request(pkgs_dirs=(str(uv),), discover=False))
    assert len(find_unused(scan(scope, 0))) == 2, "the measure is no good"


@pytest.mark.integration
def test_environments_share_with_the_cache(tmp_path: Path) -> None:
    """Two virtual environments by pip get the inode that uv's cache has of the same wheel."""
    needs("needs pip", importable("pip"))
    world = World(tmp_path / "world", tmp_path / "home")
    wheel = distribution_wheel(tmp_path, "msgspec")
    archives = world.home / "cache/uv/archive-v0"
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(archives / "JcaxAPcXHhI4DSn4")
    one, two = (install(world.root / name, wheel) for name in ("one", "two"))
    (cached,) = archives.rglob("*.so")
    libraries = [next(venv.rglob("*.so")) for venv in (one, two)]
    before, folders = snapshot(archives, one, two), directories(archives, one, two)
    named = ("-p", one, "-p", two)
    report = world.json("report", *named)
    assert report["warnings"] == []
    assert report["caches"] == []
    assert report["totals"]["freeable_bytes"] == sum(path.stat().st_blocks * 512 for path in libraries)
    world.json("apply", "--yes", "--method", "hardlink", *named)
    assert all(os.path.samefile(cached, path) for path in libraries)
    assert before[str(cached)].inode == cached.stat().st_ino
    assert_unchanged(before, snapshot(archives, one, two), allow_mtime=lambda path: path.endswith(".so"))
    assert directories(archives, one, two) == folders
    for venv in (one, two):
        run = [venv / "bin/python", "-BIc", "import msgspec; print(msgspec.json.decode(b'[1]'))"]
        assert subprocess.run(run, check=True, capture_output=True, text=True).stdout == "[1]\n"
    dist = next(claim.dist for claim in read(archives).claims.values())
    assert dist in {claim.dist for claim in read_wheels(str(one), {}).claims.values()}
    assert world.json("verify", *named)["damaged"] == []
    world.json("undo", "--yes", *named)
    assert not any(os.path.samefile(cached, path) for path in libraries)
    assert_unchanged(before, snapshot(archives, one, two))


def install(venv: Path, *wheels: Path) -> Path:
    """Make a virtual environment and have pip install ``wheels`` into it."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    pip_install(venv, *wheels)
    return venv


def pip_install(venv: Path, *words: object) -> None:
    """Run our pip's ``install`` for an environment."""
    command = [sys.executable, "-m", "pip", "--python", venv / "bin/python", "install", "--no-index"]
    options = ["--no-deps", "--disable-pip-version-check", "--quiet"]
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "PYTHON"))}
    subprocess.run([*command, *options, *words], env=environ, check=True, capture_output=True)


def test_a_donor_of_what_a_command_brings(tmp_path: Path) -> None:
    """A copy out of uv's cache, as on another day or with UV_LINK_MODE=copy, becomes a link to it."""
    world = World(tmp_path / "world", tmp_path / "home")
    library = noise("library", 30_000)
    digest = base64.urlsafe_b64encode(hashlib.sha256(library).digest()).rstrip(b"=").decode()
    record = f"pkg/lib.so,sha256={digest},{len(library)}\npkg-1.0.dist-info/RECORD,,\n"
    cache = world.root / "uv/archive-v0/abc"
    site = world.root / "venv/lib/python3.11/site-packages"
    code = (
        "import pathlib, shutil, sys; site = pathlib.Path(sys.argv[2]); site.mkdir(parents=True);"
        "(site.parents[2] / 'pyvenv.cfg').touch(); shutil.copytree(sys.argv[1], site, dirs_exist_ok=True);"
        "(site / 'new').touch()"
    )
    for path, content in {
        "pkg/lib.so": library,
        "pkg-1.0.dist-info/RECORD": record.encode(),
        "pkg-1.0.dist-info/WHEEL": b"Tag: py3-none-any\n",
    }.items():
        (cache / path).parent.mkdir(parents=True, exist_ok=True)
        (cache / path).write_bytes(content)
    done = world.run("run", *world.search, "--", sys.executable, "-c", code, cache, site)
    assert "1 file of env 'world/venv' now shared" in done.stderr
    assert (site / "pkg/lib.so").samefile(cache / "pkg/lib.so")
