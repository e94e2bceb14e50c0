"""Ten real environments of every making: all they hold twice is found, told and, where safe, shared."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from conda_dedup_plugin.demo.distributions import SITE_PACKAGES
from tests.conftest import MakeLab
from tests.lab.invariants import State, assert_unchanged, content_duplicates, directories, du, snapshot
from tests.lab.world import CondaLab
from tests.test_apply import dedup, shareable
from tests.test_lab import EVERYTHING, PROGRAM
from tests.test_report import check_schema

MIB = 1 << 20
WHEELS = ("numpy", "msgspec", "pure-wheel")


def make_ten(lab: CondaLab, memory: Path) -> list[Path]:
    """The environments: by conda, pip and rattler, linked, copied, cloned and on two devices."""
    prefixes = [lab.create("linked", *EVERYTHING)]
    lab.conda("create", "--name", "copied", "--copy", *EVERYTHING)
    lab.conda("create", "--name", "older", "two-builds=1.0=0", "same-library", "settings", "pip", "--copy")
    prefixes += [lab.env_path("copied"), lab.env_path("older")]
    for name in ("pip-one", "pip-two"):
        prefix = lab.create(name, "pip")
        lab.pip(prefix, "install", *WHEELS)
        prefixes.append(prefix)
    lab.conda("create", "--name", "cloned", "--clone", "pip-one")
    prefixes.append(lab.env_path("cloned"))
    prefixes += [lab.rattler(lab.root / name, *EVERYTHING) for name in ("rattler-one", "rattler-two")]
    for name in ("memory-one", "memory-two"):
        prefixes.append(memory / name)
        lab.conda("create", "--prefix", prefixes[-1], "numpy", "two-builds", "pip")
    # what somebody put there
    for prefix in prefixes[:2]:
        (prefix / "share/models").mkdir(parents=True)
        (prefix / "share/models/model.bin").write_bytes(bytes(range(256)) * 1000)
    return prefixes


def held_twice(states: dict[str, State], kept: Callable[[Iterable[int]], int] = max) -> int:
    """Disk bytes of every inode but one for each content, on whichever device.

    Copies may take a block more or less: how the device had room for them. ``kept``: which of them is no
    duplicate.
    """
    inodes: dict[str, dict[tuple[int, int], int]] = defaultdict(dict)
    for path, state in states.items():
        if state.size >= 4096 and shareable(path, os.lstat(path)):
            inodes[state.content][state.device, state.inode] = state.disk_bytes
    return sum(sum(found.values()) - kept(found.values()) for found in inodes.values())


def check_sums(document: dict[str, Any]) -> None:
    """Every byte has a cause, and every one that stays has a reason."""
    check_schema(document)
    totals, causes = document["totals"], document["by_cause"].values()
    for key in ("duplicate_bytes", "freeable_bytes", "held_bytes", "freeable_inodes"):
        assert totals[key] == sum(cause[key] for cause in causes)


@pytest.mark.integration
def test_ten_environments(conda_lab: MakeLab, shm_dir: Path, tmp_path: Path) -> None:
    lab = conda_lab()
    prefixes = make_ten(lab, shm_dir)
    assert len(prefixes) == 10
    trees = [*prefixes, lab.pkgs_dirs[0], lab.rattler_cache / "pkgs"]
    search = ("--no-discover", "--search", lab.root, "--search", shm_dir)
    os.sync()  # what is still to be written has no blocks yet
    report = dedup(lab, tmp_path, "report", "--deep", *search)
    check_sums(report)
    totals = report["totals"]
    assert report["warnings"] == []
    assert {tree["prefix"] for tree in report["environments"] + report["caches"]} == {
        str(tree) for tree in trees
    }

    before, folders = snapshot(*trees), directories(*trees)
    expected = held_twice(before)
    assert 0.995 * expected <= totals["duplicate_bytes"] <= held_twice(before, kept=min)
    on_one_device = content_duplicates(trees, accept=shareable)
    elsewhere = {found["reason"]: found["bytes"] for found in report["held"]}["other device"]
    assert totals["duplicate_bytes"] - elsewhere == pytest.approx(on_one_device, rel=0.005)
    assert elsewhere > MIB
    assert totals["freeable_bytes"] > 100 * MIB
    real = {cause for cause, found in report["by_cause"].items() if found["duplicate_bytes"]}
    assert real >= {"pip", "copy", "other_device", "clone", "within_package", "other_cache", "untracked"}
    # what was read before is known, and says the same
    again = dedup(lab, tmp_path, "report", "--deep", *search)
    assert {**again, "walked": ""} == {**report, "walked": ""}

    used = du(*trees)
    done = dedup(lab, tmp_path, "apply", "--yes", *search)
    assert done["failed"] == done["skipped"] == []
    assert done["planned"] == totals
    assert done["done"]["bytes_freed"] == totals["freeable_bytes"]
    assert done["done"]["inodes_freed"] == totals["freeable_inodes"]
    after = snapshot(*trees)
    native = (".so", ".pyc", ".a")
    assert_unchanged(
        before,
        after,
        allow_mtime=lambda path: path.endswith(native) or ".so." in path or "/bin/" in path,
    )
    assert directories(*trees) == folders
    if "reflink" not in done["done"]["by_method"]:
        assert used - du(*trees) == totals["freeable_bytes"]

    left = dedup(lab, tmp_path, "report", "--deep", *search)
    check_sums(left)
    assert left["totals"]["freeable_bytes"] == left["totals"]["freeable_inodes"] == 0
    assert left["totals"]["held_bytes"] == totals["held_bytes"]
    assert {found["reason"] for found in left["held"]} <= {
        "other device",
        "cache name",
        "loader identity",
        "may be changed in place",
        "not a package's file",
        "patched with the prefix",
        "two text or data files of one environment",
        "neither in a cache nor the same file of the same package",
        "other modification time",
        "other mode",
    }
    assert dedup(lab, tmp_path, "report", "--deep", *search)["totals"] == left["totals"]
    for prefix in (prefixes[0], prefixes[1], prefixes[6]):
        assert lab.python_in(prefix, "-B", "-c", PROGRAM).stdout.strip() == str(prefix)
    for prefix in prefixes[3:6]:
        lab.python_in(prefix, "-B", "-c", "import numpy, msgspec; assert numpy.ones(3).sum() == 3")


@pytest.mark.integration
def test_two_environments_of_pip_cost_little_more_than_one(conda_lab: MakeLab, tmp_path: Path) -> None:
    lab = conda_lab()
    prefixes = []
    for name in ("one", "two"):
        prefixes.append(lab.create(name, "pip"))
        lab.pip(prefixes[-1], "install", *WHEELS)
    one, two = (prefix / SITE_PACKAGES / "numpy" for prefix in prefixes)
    before, cost = snapshot(*prefixes), du(prefixes[0])
    assert du(*prefixes) > 1.8 * cost
    words = ("--normalize-bytecode", "--hardlink-untracked", "--no-discover", "--search", lab.root)
    done = dedup(lab, tmp_path, "apply", "--yes", *words)
    assert done["failed"] == done["skipped"] == []
    assert du(*prefixes) < 1.15 * cost
    assert du(prefixes[0]) <= cost
    python = [path for path in before if path.endswith((".py", ".pyc"))]
    assert_unchanged(
        {path: state for path, state in before.items() if path not in python or path.endswith(".py")},
        {path: state for path, state in snapshot(*prefixes).items() if not path.endswith(".pyc")},
        allow_mtime=lambda path: True,
    )
    shared = [path for path in two.rglob("*.so") if os.path.samefile(path, one / path.relative_to(two))]
    assert len(shared) == len([*one.rglob("*.so")]) > 10
    text = [path for path in two.rglob("*.py") if path.stat().st_size >= 4096]
    apart = [path for path in text if not os.path.samefile(path, one / path.relative_to(two))]
    assert len(text) > 50
    assert apart == []
    # bytecode is as good as it was: nobody writes it anew
    states = {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in two.rglob("*.pyc")}
    for prefix in prefixes:
        lab.python_in(prefix, "-c", "import numpy, msgspec, pure_wheel; assert numpy.ones(3).sum() == 3")
    assert {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in two.rglob("*.pyc")} == states
    again = dedup(lab, tmp_path, "apply", "--yes", *words)
    assert again["done"]["inodes"] == again["planned"]["freeable_bytes"] == 0
