"""The laboratory itself: what the other tests build on is true."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from conda_dedup_plugin.demo.distributions import SITE_PACKAGES
from conda_dedup_plugin.demo.packages import PLACEHOLDER
from tests.lab import channel as contents
from tests.lab.invariants import (
    assert_unchanged,
    content_duplicates,
    directories,
    du,
    free_bytes,
    snapshot,
)
from tests.lab.mounts import REFLINK_KINDS, mounted_file_system

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import MakeLab
    from tests.lab.world import CondaLab

FICLONE = 0x40049409
EVERYTHING = ("numpy", "msgspec", "pure-noarch", "prefixed", "two-builds", "same-library", "settings", "pip")
PROGRAM = (
    "import sys, numpy, msgspec, pure_noarch.module_3 as m; assert numpy.ones(3).sum() == 3; "
    "assert msgspec.json.decode(b'[1]') == [1]; assert m.function_1(1); "
    "assert numpy.__file__.startswith(sys.prefix); "
    "print(sys.prefix)"
)


def records(prefix: Path) -> dict[str, dict[str, Any]]:
    """conda-meta by package name."""
    found = [json.loads(path.read_text()) for path in (prefix / "conda-meta").glob("*.json")]
    return {record["name"]: record for record in found}


def assert_works(lab: CondaLab, prefix: Path) -> None:
    """The environment's Python, commands and patched files are its own."""
    assert lab.python_in(prefix, "-c", PROGRAM).stdout.strip() == str(prefix)
    assert lab.run(prefix / "bin/pure-noarch").stdout.strip() == str(prefix)
    assert lab.run(prefix / contents.PREFIXED_TEXT).stdout.strip() == str(prefix)
    binary = (prefix / contents.PREFIXED_BINARY).read_bytes()
    assert str(prefix).encode() + b"/share/terminfo\0" in binary
    assert PLACEHOLDER.encode() not in binary
    for record in records(prefix).values():
        missing = [path for path in record["files"] if not os.path.lexists(prefix / path)]
        assert not missing


@pytest.mark.integration
def test_conda_environments(conda_lab: MakeLab) -> None:
    lab = conda_lab()
    one, two = (lab.create(name, *EVERYTHING) for name in ("one", "two"))
    for prefix in (one, two):
        assert_works(lab, prefix)
    assert one.as_posix() in lab.environments_txt.read_text()
    listed = json.loads(lab.conda("list", "--name", "one", "--json").stdout)
    assert {package["name"] for package in listed} == {*EVERYTHING, "python"}

    found = records(one)
    assert found["two-builds"]["build"] == "1"
    assert set(found["two-builds"]["files"]) == set(contents.TWO_BUILDS)
    noarch = found["pure-noarch"]["files"]
    # METADATA, WHEEL, INSTALLER, entry_points.txt, RECORD and one command
    assert len(noarch) == 2 * (contents.NOARCH_MODULES + 1) + 6
    compiled = [one / path for path in noarch if path.endswith(".pyc") and "module_" in path]
    assert len(compiled) == contents.NOARCH_MODULES
    assert all(path.stat().st_size > 4096 for path in compiled)

    # conda linked what it could, and only that
    for path, same in [
        (contents.TWO_BUILDS[0], True),
        (contents.SAME_LIBRARY[0], True),
        (contents.CONFIG_FILE, True),
        (contents.NO_LINK_FILE, False),
        (contents.PREFIXED_BINARY, False),
    ]:
        assert os.path.samefile(one / path, two / path) is same, path
    assert content_duplicates([one, two, *lab.pkgs_dirs]) > 0


@pytest.mark.integration
def test_conda_on_another_device_copies(conda_lab: MakeLab, shm_dir: Path) -> None:
    lab = conda_lab(envs_dir=shm_dir / "envs")
    one, two = (lab.create(name, "msgspec") for name in ("one", "two"))
    library = SITE_PACKAGES + "/msgspec"
    assert one.stat().st_dev != lab.root.stat().st_dev
    assert content_duplicates([one / library, two / library]) * 2 == du(one / library, two / library) - (
        du(*[path for prefix in (one, two) for path in (prefix / library).rglob("*") if small(path)])
    )


def small(path: Path) -> bool:
    return path.is_file() and path.stat().st_size < 4096


@pytest.mark.integration
def test_rattler_environments(conda_lab: MakeLab) -> None:
    lab = conda_lab()
    one, two = (lab.rattler(lab.root / name, *EVERYTHING) for name in ("one", "two"))
    for prefix in (one, two):
        assert_works(lab, prefix)
    assert not lab.environments_txt.exists()
    assert (lab.rattler_cache / "pkgs/two-builds-1.0-1").is_dir()
    assert len(records(one)) == len(EVERYTHING) + 1


@pytest.mark.integration
def test_the_other_build_clone_and_remove(conda_lab: MakeLab) -> None:
    lab = conda_lab()
    one = lab.create("one", "two-builds=1.0=0")
    lab.conda("create", "--name", "two", "--clone", "one")
    before = snapshot(lab.env_path("two"))
    lab.conda("install", "--name", "one", "two-builds=1.0=1")
    assert records(one)["two-builds"]["build"] == "1"
    agree = [path for path in contents.TWO_BUILDS if path not in contents.TWO_BUILDS_DIFFER]
    for path in contents.TWO_BUILDS:
        same = (one / path).read_bytes() == (lab.env_path("two") / path).read_bytes()
        assert same is (path in agree)
    assert_unchanged(before, snapshot(lab.env_path("two")))
    lab.conda("remove", "--name", "one", "--all")
    assert not (one / "conda-meta").exists()


@pytest.mark.integration
def test_pip_section(conda_lab: MakeLab) -> None:
    lab = conda_lab()
    file = lab.root / "environment.yml"
    wanted = ["python", "pip", {"pip": ["pure-wheel", "msgspec"]}]
    file.write_text(json.dumps({"name": "piped", "dependencies": wanted}))
    lab.conda("env", "create", "--file", file)
    prefix = lab.env_path("piped")
    assert lab.run(prefix / "bin/pure-wheel").stdout.strip() == str(prefix)
    record = next((prefix / SITE_PACKAGES).glob("msgspec-*.dist-info/RECORD"))
    assert ".so,sha256=" in record.read_text()
    assert record.with_name("INSTALLER").read_text().strip() == "pip"


@pytest.mark.integration
def test_nothing_of_the_user_is_read(conda_lab: MakeLab) -> None:
    lab = conda_lab()
    info = json.loads(lab.conda("info", "--json").stdout)
    assert info["root_prefix"] == str(lab.python.parents[1])
    assert info["pkgs_dirs"] == [str(lab.root / "pkgs")]
    assert info["envs_dirs"][0] == str(lab.root / "envs")
    assert info["offline"] is True
    assert all(url.startswith(lab.channel.url) for url in info["channels"])
    assert lab.conda("create", "--name", "x", "no-such-package", check=False).returncode == 1


@pytest.mark.integration
def test_the_plugin_is_there_only_where_asked_for(conda_lab: MakeLab) -> None:
    find = "import importlib.metadata as m; print([e.value for e in m.entry_points(group='conda')])"
    ours = "conda_dedup_plugin.plugin"
    bare, full = conda_lab("bare"), conda_lab("full", with_plugin=True)
    assert bare.python != full.python
    assert ours not in bare.run(bare.python, "-c", find).stdout
    assert ours in full.run(full.python, "-c", find).stdout
    code = "import conda_dedup_plugin as p, msgspec, filelock, rich; print(p.__file__)"
    # the installed one, not this working tree
    assert full.run(full.python, "-c", code).stdout.startswith(str(full.python.parents[1]))
    for lab in (bare, full):
        base = json.loads(lab.conda("info", "--json", env={"CONDA_NO_PLUGINS": "true"}).stdout)["root_prefix"]
        assert base == str(lab.python.parents[1])


def test_invariants_see_what_they_should(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).write_bytes(b"x" * 8192)
    os.link(tmp_path / "a", tmp_path / "d")
    (tmp_path / "link").symlink_to("a")
    before = snapshot(tmp_path)
    assert set(before) == {str(tmp_path / name) for name in ("a", "b", "c", "d", "link")}
    assert content_duplicates([tmp_path]) == 2 * before[str(tmp_path / "a")].disk_bytes
    assert content_duplicates([tmp_path], accept=lambda path, found: not path.endswith("c")) == 8192
    assert du(tmp_path) == 3 * 8192 + before[str(tmp_path / "link")].disk_bytes
    assert directories(tmp_path) == {str(tmp_path)}

    # sharing, as such, changes nothing
    os.unlink(tmp_path / "b")
    os.link(tmp_path / "a", tmp_path / "b")
    os.utime(tmp_path / "b", ns=(0, before[str(tmp_path / "b")].mtime_ns + 1))
    with pytest.raises(AssertionError, match="mtime_ns"):
        assert_unchanged(before, snapshot(tmp_path))
    assert_unchanged(before, snapshot(tmp_path), allow_mtime=lambda path: True)
    (tmp_path / "a").write_bytes(b"y" * 8192)
    with pytest.raises(AssertionError, match="content"):
        assert_unchanged(before, snapshot(tmp_path), allow_mtime=lambda path: True)
    (tmp_path / "a").unlink()
    with pytest.raises(AssertionError, match="gone"):
        assert_unchanged(before, snapshot(tmp_path))


def test_file_systems_are_what_they_are_called(device_dir: Path, device_kind: str) -> None:
    import fcntl

    size = 8 << 20
    (tmp := device_dir / "one").write_bytes(os.urandom(size))
    free = free_bytes(device_dir)
    with tmp.open("rb") as source, (device_dir / "two").open("wb") as target:
        if device_kind in REFLINK_KINDS:
            fcntl.ioctl(target.fileno(), FICLONE, source.fileno())
            used = 0
        else:
            with pytest.raises(OSError, match="not supported"):
                fcntl.ioctl(target.fileno(), FICLONE, source.fileno())
            target.write(os.urandom(size))
            used = size
    assert abs(free - free_bytes(device_dir) - used) < 1 << 20


@pytest.mark.filesystems
def test_file_systems_are_unmounted(tmp_path: Path, mounted: Callable[..., Path]) -> None:
    mounted("tmpfs")  # skips where nothing can be mounted
    with pytest.raises(RuntimeError), mounted_file_system("tmpfs", tmp_path, 1 << 20) as point:
        assert point.is_mount()
        raise RuntimeError
    assert not point.is_mount()
