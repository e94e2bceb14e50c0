"""Two near-identical environments with a real CPython, OpenSSL and ncurses, where files can share blocks."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from typing import TYPE_CHECKING, Any, Literal

import pytest

from conda_dedup_plugin.sharing.extents import layout_of
from tests.lab.channel import PREFIXED_BINARY
from tests.lab.invariants import assert_unchanged, free_bytes, snapshot
from tests.lab.mounts import REFLINK_KINDS
from tests.lab.real_packages import PYTHON
from tests.lab.real_pair import make_pair
from tests.lab.world import CondaLab
from tests.test_apply import MIB, dedup
from tests.test_lab import EVERYTHING
from tests.test_real_prefixes import ASK

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import MakeLab
    from tests.lab.channel import TestChannel

pytestmark = [pytest.mark.integration, pytest.mark.filesystems]

#: What every package manager writes anew for an environment, and nobody may share.
OWN = ("conda-meta/",)
#: Packages of which files are patched, or there twice in one.
NOT_AS_THEY_ARE = {"prefixed", "same-library", "pip"}
#: The size of an inode of XFS, unless it was made otherwise.
XFS_INODE = 512


def places(prefix: Path) -> set[tuple[int, int]]:
    """Where the blocks of an environment's files lie on the device, each of 4 KiB; read independently."""
    found: set[tuple[int, int]] = set()
    seen = set()
    for folder, _, names in os.walk(prefix):
        for name in names:
            path = os.path.join(folder, name)
            stat = os.lstat(path)
            if os.path.islink(path) or f"{prefix}/conda-meta" in path or stat.st_ino in seen:
                continue
            seen.add(stat.st_ino)
            with open(path, "rb") as file:
                layout = layout_of(file.fileno())
            assert layout is not None
            for extent in layout.extents:
                if extent.encoded:
                    found.add((extent.physical, extent.length))
                else:
                    found.update((extent.physical + at, 4096) for at in range(0, extent.length, 4096))
    return found


def used(device: Path, kind: str) -> int:
    """Bytes of data that the file system says are in use, without directories and tables of inodes."""
    os.sync()
    if not kind.startswith("btrfs"):
        stat = os.statvfs(device)
        folders = sum(os.lstat(folder).st_blocks * 512 for folder, _, _ in os.walk(device))
        inodes = (stat.f_files - stat.f_ffree) * XFS_INODE
        return (stat.f_blocks - stat.f_bfree) * stat.f_frsize - folders - inodes
    done = subprocess.run(
        ["btrfs", "filesystem", "df", "--raw", device], check=True, capture_output=True, text=True
    )
    return int(done.stdout.splitlines()[0].rpartition("used=")[2])


def contents(tree: Path) -> set[tuple[str, str]]:
    """What each file of a tree holds, by its digest."""
    return {(path, state.content) for path, state in snapshot(tree).items()}


@pytest.mark.parametrize("kind", REFLINK_KINDS)
@pytest.mark.parametrize("manager", ["conda", "rattler"])
def test_the_second_costs_next_to_nothing(
    mounted: Callable[..., Path],
    conda_python: Path,
    real_channel: TestChannel,
    tmp_path: Path,
    kind: str,
    manager: Literal["conda", "rattler"],
) -> None:
    device = mounted(kind)
    root = device / manager
    before_all = used(device, kind)
    pair = make_pair(root, conda_python, real_channel, manager)
    lab, first, second, cache = pair.lab, pair.short, pair.long, pair.cache
    search = ("--no-discover", "-p", first, "-p", second, "--pkgs-dir", cache)
    os.sync()
    report = dedup(lab, tmp_path, "report", *search)
    if manager == "rattler":
        assert report["by_cause"]["copy"]["duplicate_bytes"] == 0  # it has reflinked them
    free, before = free_bytes(device), snapshot(first, second)
    done = dedup(lab, tmp_path, "apply", "--yes", *search)
    assert done["failed"] == done["skipped"] == []
    assert done["done"]["by_method"]["blocks"]["inodes"] >= 8
    after = snapshot(first, second)
    assert_unchanged(before, after)
    assert {state.inode for state in before.values()} == {state.inode for state in after.values()}
    gained = free_bytes(device) - free
    # what is compressed is estimated, and never more is claimed than is gained
    assert gained >= done["done"]["bytes_freed"] * 0.995
    if kind != "btrfs-zstd":
        assert gained == pytest.approx(done["done"]["bytes_freed"], rel=0.005)

    own, all_of_it = places(second) - places(first) - places(cache), places(first)
    assert sum(size for _, size in own) < 0.02 * sum(size for _, size in all_of_it)
    totals = dedup(lab, tmp_path, "report", *search)["totals"]
    assert totals["duplicate_bytes"] == 0
    # nothing else lies there but the laboratory's few files
    for name in ("home", "tmp"):
        shutil.rmtree(lab.root / name)
        (lab.root / name).mkdir()
    whole = used(device, kind) - before_all
    assert totals["disk_bytes"] == pytest.approx(whole, rel=0.01)

    for prefix in (first, second):
        said = json.loads(lab.run(prefix / "bin/python", "-B", "-c", ASK).stdout)
        assert said["prefix"] == str(prefix)
        if manager == "conda":
            checked = lab.conda("doctor", "--prefix", prefix, "--verbose").stdout
            for what in ("altered", "missing"):
                assert f"There are no packages with {what} files" in checked
    library = f"lib/libpython{PYTHON}.so.1.0"
    kept, original = (second / library).read_bytes(), contents(cache)
    with (first / library).open("r+b") as file:
        file.seek(MIB)
        file.write(bytes(10_000))
    assert (second / library).read_bytes() == kept
    assert contents(cache) == original
    shutil.rmtree(first)
    said = json.loads(lab.run(second / "bin/python", "-B", "-c", ASK).stdout)
    assert said["prefix"] == str(second)
    assert contents(cache) == original
    shutil.rmtree(root)


@pytest.mark.parametrize("kind", REFLINK_KINDS)
def test_fresh_environments_of_rattler_hold_nothing_twice(
    mounted: Callable[..., Path], conda_python: Path, channel: TestChannel, tmp_path: Path, kind: str
) -> None:
    """rattler reflinks what it installs: no inode is like another, and no byte is there twice."""
    lab = CondaLab(mounted(kind) / "fresh", conda_python, channel)
    prefixes = [lab.root / name for name in ("one", "two")]
    for prefix in prefixes:
        lab.rattler(prefix, *(set(EVERYTHING) - NOT_AS_THEY_ARE))
    search = ("--no-discover", *(word for prefix in prefixes for word in ("-p", prefix)))
    search = (*search, "--pkgs-dir", lab.rattler_cache / "pkgs")
    report: dict[str, Any] = dedup(lab, tmp_path, "report", "--deep", *search)
    assert report["totals"]["duplicate_bytes"] == 0
    assert report["totals"]["apparent_bytes"] > 2 * report["totals"]["disk_bytes"]
    assert dedup(lab, tmp_path, "apply", "--yes", *search)["done"]["inodes"] == 0
    shutil.rmtree(lab.root)


@pytest.mark.parametrize("kind", REFLINK_KINDS)
def test_what_conda_patches_is_shared_by_itself(
    mounted: Callable[..., Path], conda_lab: MakeLab, kind: str
) -> None:
    """The automatic run finds the original in the cache, and each environment runs its own."""
    root = mounted(kind) / "automatic"
    root.mkdir()
    lab = conda_lab(root=root, with_plugin=True)
    for name in ("one", "another-one"):
        said = lab.conda("create", "--name", name, "prefixed").stderr
        assert "freed" in said
        binary = lab.env_path(name) / PREFIXED_BINARY
        assert str(lab.env_path(name)).encode() in binary.read_bytes()
        (original,) = lab.pkgs_dirs[0].glob(f"prefixed-*/{PREFIXED_BINARY}")
        own = places(lab.env_path(name)) - places(lab.pkgs_dirs[0])
        # what differs, and a script
        assert sum(size for _, size in own) < 0.2 * original.stat().st_size
    shutil.rmtree(root)
