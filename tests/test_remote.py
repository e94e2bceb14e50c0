"""File systems that another machine may write to as well: one by FUSE stands for all of them."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from tests.lab.invariants import assert_unchanged, du, snapshot
from tests.lab.mounts import mirrored
from tests.test_report import World, twins

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.filesystems


@pytest.fixture
def far(tmp_path: Path) -> Iterator[tuple[World, Path]]:
    """A world that is on a file system by FUSE, and the folder where its files really are."""
    behind, point = tmp_path / "behind", tmp_path / "world"
    behind.mkdir()
    with mirrored(behind, point):
        yield World(point, tmp_path / "home"), behind


def test_what_was_freed_is_what_was_freed(far: tuple[World, Path]) -> None:
    world, behind = far
    twins(world)
    before, held = snapshot(world.root), du(behind)
    planned = world.json("report", *world.search)
    applied = world.json("apply", "--yes", *world.search)["done"]
    assert applied["inodes"] == 2
    assert applied["bytes_freed"] == planned["totals"]["freeable_bytes"] > 0
    assert held - du(behind) == applied["bytes_freed"]
    assert_unchanged(before, snapshot(world.root))
    assert world.json("report", *world.search)["totals"]["freeable_bytes"] == 0
    world.json("undo", "--yes")
    assert_unchanged(before, snapshot(world.root))
    assert du(behind) == held


def test_what_was_changed_lately_is_left_alone(far: tuple[World, Path]) -> None:
    world, _ = far
    twins(world)
    now = time.time() + 3
    for name in ("one", "two"):
        os.utime(world.root / "envs" / name / "lib/libx.so", (now, now))
    document = world.json("apply", "--yes", *world.search)
    left = {skipped["reason"]: skipped["inodes"] for skipped in document["skipped"]}
    assert left == {"changed less than 5 s ago on a network file system": 1}


def test_status_says_what_is_not_seen(far: tuple[World, Path]) -> None:
    world, _ = far
    twins(world)
    told = world.run("status", *world.search).stdout
    assert "(fuse)" in told and "writers on other machines are not seen" in told
