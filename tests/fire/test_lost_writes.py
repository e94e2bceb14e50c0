"""Something that was written to a file system was lost on the way to the device: nothing is shared there."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from conda_dedup_plugin.apply import Applied, apply_plan
from conda_dedup_plugin.engine import analyse
from conda_dedup_plugin.plan import PlanOptions
from conda_dedup_plugin.sharing import durability
from tests.lab.forge import Forge, noise
from tests.lab.invariants import assert_unchanged, snapshot
from tests.lab.mounts import mounted_file_system
from tests.lab.shares import leftovers

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.filesystems

MIB = 1 << 20
DIST = ("a", "1", "0")
FILES = {f"lib/lib{number}.so": noise(f"library {number}", 8192) for number in range(3)}


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(durability, "_lost", {})


@pytest.fixture
def promised(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 MiB on a device that has a quarter of it, as a thin volume may."""
    with (
        mounted_file_system("tmpfs", tmp_path / "device", 16 * MIB) as device,
        mounted_file_system("ext4", device, 64 * MIB) as point,
    ):
        yield point


def apply(forge: Forge) -> Applied:
    return apply_plan(analyse(forge.scope(), PlanOptions(euid=os.geteuid())), "test")


def test_nothing_is_shared_where_writes_were_lost(promised: Path) -> None:
    forge = Forge(promised)
    for name in ("one", "two"):
        forge.environment(name, {DIST: FILES})
    os.sync()
    before = snapshot(promised / "envs")
    with open(promised / "much", "wb") as file:
        file.write(b"x" * 40 * MIB)
    for _ in range(2):  # the kernel tells of it once
        applied = apply(forge)
        assert applied.names == 0
        assert len(applied.failed) + sum(count for count, _ in applied.skipped.values()) == len(FILES)
        assert durability._lost  # EIO, ENOSPC, or EROFS if the file system gave up
        assert_unchanged(before, snapshot(promised / "envs"))
        assert not leftovers(promised)


def test_what_was_written_beside_the_work_counts_as_well(promised: Path) -> None:
    forge = Forge(promised)
    for name in ("one", "two"):
        forge.environment(name, {DIST: FILES})
    os.sync()
    with open(promised / "much", "wb") as file:
        file.write(b"x" * 40 * MIB)
    durability.begin(f"{promised}/envs/one/lib/lib0.so")
    end = time.monotonic() + 60
    while not durability._lost and time.monotonic() < end:
        os.sched_yield()
    assert durability._lost and apply(forge).names == 0
