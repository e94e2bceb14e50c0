"""A package that carries the same library twice, as Mojo's does: every environment need have it but once."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from conda_dedup_plugin.demo.distributions import SITE_PACKAGES
from conda_dedup_plugin.demo.packages import Entry, index_channel, make_package
from conda_dedup_plugin.demo.wheels import installed_files
from tests.lab.channel import TestChannel, noise
from tests.lab.conda_wheel import once
from tests.lab.invariants import assert_unchanged, directories, du, free_bytes, snapshot
from tests.lab.mounts import REFLINK_KINDS
from tests.lab.world import CondaLab
from tests.test_apply import dedup

MIB = 1 << 20
NAME = "x.cpython-311-x86_64-linux-gnu.so"
#: A library that the dynamic linker finds by its name, and a module that Python finds by its path.
LIBRARY = ("lib/libdoubled.so", f"{SITE_PACKAGES}/doubled/lib/libdoubled.so")
MODULE = (f"lib/doubled/{NAME}", f"{SITE_PACKAGES}/doubled/{NAME}")
#: Whole blocks on every file system.
LIBRARY_SIZE, MODULE_SIZE = 4 * MIB, 2 * MIB


@pytest.fixture(scope="session")
def doubled_channel(run_dir: Path, channel: TestChannel) -> TestChannel:
    """A channel of one package. (That there is the standard one tells that packages can be made.)"""
    folder = run_dir / "channel-doubled"
    once(folder, lambda: _make(folder))
    return TestChannel(folder)


def _make(folder: Path) -> None:
    made = TestChannel(folder)
    numpy = installed_files("numpy")
    library = min((data for path, data in numpy.items() if path.startswith("numpy.libs/")), key=len)
    module = next(data for path, data in installed_files("msgspec").items() if path.endswith(".so"))
    # what comes after the sections of a library is nothing to a loader
    library += noise(70, LIBRARY_SIZE - len(library))
    module += noise(71, MODULE_SIZE - len(module))
    files: dict[str, Entry | bytes] = {path: Entry(library, executable=True) for path in LIBRARY}
    files |= {path: Entry(module, executable=True) for path in MODULE}
    make_package(made.packages, "doubled", "1.0", "0", files)
    index_channel(made.packages)
    made.wheels.mkdir()


@dataclass
class Doubled:
    """A laboratory with that channel, and one environment."""

    lab: CondaLab
    state: Path

    def run(self, *words: object) -> dict[str, Any]:
        return dedup(self.lab, self.state, *words, "--no-discover", "--search", self.lab.root)

    def loads(self, prefix: Path, *paths: str) -> None:
        """Every path is a library that can be loaded, and with both names in one process too."""
        code = "import ctypes, sys; print(len([ctypes.CDLL(path) for path in sys.argv[1:]]))"
        for words in (*[[path] for path in paths], paths):
            done = self.lab.run(sys.executable, "-c", code, *[prefix / path for path in words])
            assert done.stdout.split() == [str(len(words))]


def same(prefix: Path, paths: tuple[str, str]) -> bool:
    return os.path.samefile(prefix / paths[0], prefix / paths[1])


def held(document: dict[str, Any]) -> dict[str, int]:
    return {found["reason"]: found["bytes"] for found in document["held"]}


@pytest.fixture
def doubled(conda_python: Path, doubled_channel: TestChannel, tmp_path: Path) -> Doubled:
    return Doubled(CondaLab(tmp_path / "lab", conda_python, doubled_channel), tmp_path / "state")


def check_rattlers(doubled: Doubled, kind: str = "") -> None:
    """Two environments and the cache of rattler: all lose what is doubled. ``kind``: of the file system."""
    lab = doubled.lab
    one, two = (lab.rattler(lab.root / name, "doubled") for name in ("one", "two"))
    package = lab.rattler_cache / "pkgs/doubled-1.0-0"
    trees = (one, two, lab.rattler_cache / "pkgs")
    by_reflink = kind in REFLINK_KINDS
    method = () if kind else ("--method", "hardlink")
    report = doubled.run("report", *method)
    found = report["by_cause"]["within_package"]
    modules = found["held_bytes"] if not by_reflink else 0
    assert {tree["prefix"]: tree["manager"] for tree in report["caches"]} == {str(trees[2]): "rattler"}
    before, folders, used = snapshot(*trees), directories(*trees), du(one)
    free = free_bytes(lab.root) if kind else 0
    done = doubled.run("apply", "--yes", *method)
    assert done["failed"] == done["skipped"] == []
    assert_unchanged(before, snapshot(*trees), allow_mtime=lambda path: not by_reflink and ".so" in path)
    assert directories(*trees) == folders
    if kind:  # nobody else writes there
        assert free_bytes(lab.root) - free == pytest.approx(done["done"]["bytes_freed"], abs=MIB // 4)
    if by_reflink:
        assert set(done["done"]["by_method"]) == {"reflink"}
        size = LIBRARY_SIZE + MODULE_SIZE
        freed = done["done"]["bytes_freed"]
        assert freed == size or (kind == "btrfs-zstd" and freed < size)
    else:
        # rattler linked both environments to its cache: what is doubled was there once more, for all three
        assert set(done["done"]["by_method"]) == {"hardlink"}
        assert (done["done"]["inodes"], done["done"]["inodes_freed"]) == (1, 1)
        assert done["done"]["bytes_freed"] == used - du(one) == LIBRARY_SIZE
        for root in (one, two, package):
            assert same(root, LIBRARY)
            assert not same(root, MODULE)
        assert held(report) == {"loader identity": MODULE_SIZE}
        assert modules == MODULE_SIZE
    after = doubled.run("report", *method)
    assert after["totals"]["freeable_bytes"] == 0
    assert held(after) == ({} if by_reflink else {"loader identity": MODULE_SIZE})
    for prefix in (one, two):
        doubled.loads(prefix, *LIBRARY)
    # another environment made of the cache is as small
    assert du(lab.rattler(lab.root / "three", "doubled")) == du(one)


def test_rattlers_cache_is_shared(doubled: Doubled) -> None:
    check_rattlers(doubled)


def test_rattlers_cache_on_every_file_system(
    conda_python: Path, doubled_channel: TestChannel, device_dir: Path, device_kind: str, tmp_path: Path
) -> None:
    lab = CondaLab(device_dir / "lab", conda_python, doubled_channel)
    check_rattlers(Doubled(lab, tmp_path / "state"), device_kind)


@pytest.mark.integration
def test_condas_cache_waits_for_a_word(doubled: Doubled) -> None:
    prefix = doubled.lab.create("one", "doubled")
    package = doubled.lab.pkgs_dirs[0] / "doubled-1.0-0"
    assert os.path.samefile(prefix / LIBRARY[0], package / LIBRARY[0])
    report = doubled.run("report", "--method", "hardlink")
    assert report["totals"]["freeable_bytes"] == 0
    assert held(report) == {"cache name": LIBRARY_SIZE + MODULE_SIZE}
    assert report["by_cause"]["within_package"]["held_bytes"] == LIBRARY_SIZE + MODULE_SIZE
    before, used = snapshot(prefix, package), du(prefix)
    assert doubled.run("apply", "--yes", "--method", "hardlink")["done"]["inodes"] == 0
    assert snapshot(prefix, package) == before

    done = doubled.run("apply", "--yes", "--method", "hardlink", "--include-cache")["done"]
    assert done["bytes_freed"] == used - du(prefix) == LIBRARY_SIZE
    assert_unchanged(before, snapshot(prefix, package), allow_mtime=lambda path: path.endswith(".so"))
    assert same(prefix, LIBRARY) and same(package, LIBRARY)
    assert not same(prefix, MODULE)
    report = doubled.run("report", "--method", "hardlink", "--include-cache")
    assert held(report) == {"loader identity": MODULE_SIZE}
    doubled.loads(prefix, *LIBRARY)


@pytest.mark.integration
def test_what_conda_copied(doubled: Doubled) -> None:
    """Alone it loses what is doubled; beside its cache it need have nothing of its own, but the module."""
    lab = doubled.lab
    lab.conda("create", "--name", "one", "--copy", "doubled")
    prefix = lab.env_path("one")
    assert not os.path.samefile(prefix / LIBRARY[0], lab.pkgs_dirs[0] / "doubled-1.0-0" / LIBRARY[0])
    alone = ("--method", "hardlink", "--no-discover", "--prefix", prefix)
    report = dedup(lab, doubled.state, "report", *alone)
    assert report["totals"]["freeable_bytes"] == LIBRARY_SIZE
    assert held(report) == {"loader identity": MODULE_SIZE}
    before, used = snapshot(prefix), du(prefix)
    done = dedup(lab, doubled.state, "apply", "--yes", *alone)["done"]
    assert done["bytes_freed"] == used - du(prefix) == LIBRARY_SIZE
    assert_unchanged(before, snapshot(prefix), allow_mtime=lambda path: path.endswith(".so"))
    assert same(prefix, LIBRARY) and not same(prefix, MODULE)
    doubled.loads(prefix, *LIBRARY)

    both = ("--method", "hardlink", "--no-discover", "--search", lab.root)
    done = dedup(lab, doubled.state, "apply", "--yes", *both)["done"]
    assert done["bytes_freed"] == LIBRARY_SIZE + 2 * MODULE_SIZE
    cache = lab.pkgs_dirs[0] / "doubled-1.0-0"
    assert os.path.samefile(prefix / LIBRARY[0], cache / LIBRARY[0])
    assert [os.path.samefile(prefix / path, cache / path) for path in MODULE] == [True, True]
    assert_unchanged(before, snapshot(prefix), allow_mtime=lambda path: path.endswith(".so"))
    doubled.loads(prefix, *LIBRARY)
    # conda's record is still true
    (record,) = (prefix / "conda-meta").glob("doubled-*.json")
    assert {said["_path"] for said in json.loads(record.read_text())["paths_data"]["paths"]} == {
        *LIBRARY,
        *MODULE,
    }
    assert dedup(lab, doubled.state, "verify", *both[2:])["damaged"] == []
