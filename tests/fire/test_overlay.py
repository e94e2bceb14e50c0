"""Overlay file systems, as containers have them: what lies in a lower layer stays there."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from msgspec.structs import replace

from conda_dedup_plugin.apply import Applied, apply_plan
from conda_dedup_plugin.engine import Analysis, analyse
from conda_dedup_plugin.model import MethodChoice, Reason
from conda_dedup_plugin.plan import PlanOptions
from conda_dedup_plugin.sharing import leases
from tests.fire.test_errors import leftovers, mount
from tests.lab.forge import Forge, noise
from tests.lab.invariants import assert_unchanged, directories, du, snapshot
from tests.test_report import World

pytestmark = pytest.mark.filesystems

DIST = ("a", "1", "0")
FILES = {f"lib/lib{number}.so": noise(f"library {number}", 100_000) for number in range(6)}


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@dataclass
class Overlay:
    """A lower layer, an upper layer, and what they look like together."""

    lower: Path
    upper: Path
    merged: Path

    def uppermost(self) -> list[str]:
        """The files that lie in the upper layer."""
        return sorted(
            str(path.relative_to(self.upper)) for path in self.upper.rglob("*") if not path.is_dir()
        )


@pytest.fixture(params=["one file system", "two file systems"])
def layers(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """Directories for the layers: numbers of devices and inodes depend on where these lie."""
    with contextlib.ExitStack() as stack:
        one = stack.enter_context(mount(tmp_path / "m1", "-t", "tmpfs", "-o", "size=64m,mode=0755", "tmpfs"))
        two = one
        if request.param == "two file systems":
            two = stack.enter_context(
                mount(tmp_path / "m2", "-t", "tmpfs", "-o", "size=64m,mode=0755", "tmpfs")
            )
        yield one, two


@contextlib.contextmanager
def overlay(layers: tuple[Path, Path], merged: Path, *names: str) -> Iterator[Overlay]:
    """An overlay whose lower layer has the environments ``names``; they are as good as a real image's."""
    below, above = layers
    lower, upper, work = below / "lower", above / "upper", above / "work"
    for folder in (lower, upper, work):
        folder.mkdir()
    forge = Forge(lower)
    for name in names:
        forge.environment(name, {DIST: FILES})
    options = f"lowerdir={lower},upperdir={upper},workdir={work}"
    with mount(merged, "-t", "overlay", "-o", options, "overlay"):
        yield Overlay(lower, upper, merged)


def forged(made: Overlay, *below: str, above: tuple[str, ...] = ()) -> Forge:
    """The environments of the lower layer by their paths in the overlay, and new ones, which are upper."""
    forge = Forge(made.merged)
    other = Forge(made.lower)
    for name in below:
        prefix = made.lower / "envs" / name
        assert prefix.is_dir()
        other.environment(name, {})
    forge.trees = [
        replace(tree, root=tree.root.replace(str(made.lower), str(made.merged))) for tree in other.trees
    ]
    for name in above:
        forge.environment(name, {DIST: FILES})
    return forge


def plan(forge: Forge, same_layer: bool = False, method: MethodChoice = MethodChoice.AUTO) -> Analysis:
    return analyse(forge.scope(), PlanOptions(same_layer=same_layer, method=method))


def skipped(applied: Applied) -> dict[Reason, int]:
    return {reason: inodes for reason, (inodes, _) in applied.skipped.items()}


@pytest.mark.parametrize("method", list(MethodChoice))
def test_environments_of_the_lower_layer(layers, tmp_path: Path, method: MethodChoice) -> None:
    """They are held, with the reason, and nothing at all comes into the upper layer."""
    with overlay(layers, tmp_path / "merged", "one", "two") as made:
        forge = forged(made, "one", "two")
        before, folders = snapshot(made.merged), directories(made.merged)
        analysis = plan(forge, method=method)
        assert analysis.plan.shares == []
        ((reason, (_, inodes)),) = analysis.plan.held_by_reason().items()
        assert inodes == len(FILES)
        assert reason is (Reason.NO_REFLINK if method is MethodChoice.REFLINK else Reason.OVERLAY)
        assert analysis.inventory.totals.freeable_bytes == 0
        applied = apply_plan(analysis, "test")
        assert (applied.inodes, applied.skipped, applied.failed) == (0, {}, [])
        assert list(made.upper.iterdir()) == []
        assert snapshot(made.merged) == before
        assert directories(made.merged) == folders


def test_the_command_line_on_the_lower_layer(layers, tmp_path: Path) -> None:
    with overlay(layers, tmp_path / "merged", "one", "two") as made:
        world = World(made.merged, tmp_path / "home")
        words = ("--no-discover", "-p", made.merged / "envs/one", "-p", made.merged / "envs/two")
        report = world.json("report", *words)
        (held,) = report["held"]
        assert (held["reason"], held["inodes"]) == (Reason.OVERLAY.value, len(FILES))
        document = world.json("apply", "--yes", *words)
        assert document["done"]["inodes"] == 0
        assert document["skipped"] == document["failed"] == []
        assert list(made.upper.iterdir()) == []


def test_environments_of_the_upper_layer(layers, tmp_path: Path) -> None:
    """As in a container build: who says so gets them shared, and the upper layer shrinks by as much."""
    with overlay(layers, tmp_path / "merged") as made:
        forge = forged(made, above=("one", "two"))
        before, folders = snapshot(made.merged), directories(made.merged)
        assert set(plan(forge).plan.held_by_reason()) == {Reason.OVERLAY}
        used = du(made.upper)
        applied = apply_plan(plan(forge, same_layer=True), "test")
        assert (applied.skipped, applied.failed) == ({}, [])
        assert applied.inodes == len(FILES)
        assert applied.bytes_freed == used - du(made.upper) > len(FILES) * 100_000
        assert_unchanged(before, snapshot(made.merged))
        assert directories(made.merged) == folders
        assert leftovers(made.upper) == []
        for path in FILES:
            assert os.lstat(made.upper / "envs/one" / path).st_nlink == 2
        assert plan(forge, same_layer=True).plan.shares == []


def test_what_was_written_since_a_command_began(layers, tmp_path: Path) -> None:
    """What conda has just installed lies in the upper layer, what was there before may not."""
    with overlay(layers, tmp_path / "merged", "old") as made:
        began = max(os.lstat(path).st_ctime_ns for path in made.lower.rglob("*.so")) + 1
        probe = made.merged / "clock"
        while True:  # until the clock of the file system goes on
            probe.touch()
            if os.lstat(probe).st_ctime_ns > began:
                break
        probe.unlink()
        forge = forged(made, "old", above=("new", "newer"))
        before = snapshot(made.merged)
        used, there = du(made.upper), made.uppermost()
        analysis = analyse(forge.scope(), PlanOptions(fresh_since_ns=began))
        applied = apply_plan(analysis, "test")
        assert (applied.skipped, applied.failed) == ({}, [])
        assert applied.inodes == len(FILES)
        assert applied.bytes_freed == used - du(made.upper) > 0
        assert made.uppermost() == there
        assert not any("old" in path for path in there)
        assert_unchanged(before, snapshot(made.merged))
        assert leftovers(made.merged) == []


def test_one_copy_in_each_layer(layers, tmp_path: Path) -> None:
    """Held; also when the user says that all is in one layer, nothing is lost, left or claimed."""
    with overlay(layers, tmp_path / "merged", "low") as made:
        forge = forged(made, "low", above=("high",))
        before, folders = snapshot(made.merged), directories(made.merged)
        there, used = made.uppermost(), du(made.upper)
        analysis = plan(forge)
        assert analysis.plan.shares == []
        assert set(analysis.plan.held_by_reason()) <= {Reason.OVERLAY, Reason.OTHER_DEVICE}
        apply_plan(analysis, "test")
        assert made.uppermost() == there
        assert snapshot(made.merged) == before

        applied = apply_plan(plan(forge, same_layer=True), "test")
        assert applied.failed == []
        assert_unchanged(before, snapshot(made.merged))
        assert directories(made.merged) == folders
        assert leftovers(made.merged) == []
        assert leftovers(made.upper) == []
        assert du(made.upper) <= used + len(FILES) * 102_400


def test_who_wrongly_says_that_all_is_in_one_layer(layers, tmp_path: Path) -> None:
    """Both copies lie in the lower layer: nothing is lost, and no more than one of each is copied up."""
    with overlay(layers, tmp_path / "merged", "one", "two") as made:
        forge = forged(made, "one", "two")
        before, folders = snapshot(made.merged), directories(made.merged)
        applied = apply_plan(plan(forge, same_layer=True), "test")
        assert applied.failed == []
        assert_unchanged(before, snapshot(made.merged))
        assert directories(made.merged) == folders
        assert leftovers(made.merged) == leftovers(made.upper) == []
        assert du(made.upper) <= len(FILES) * 102_400
        assert plan(forge, same_layer=True).plan.shares == []


WRITER = """
import mmap, sys
with open(sys.argv[1], "r+b") as stream:
    mapped = mmap.mmap(stream.fileno(), 0)
    if sys.argv[2] == "mapped":
        stream.close()
    print("ready", flush=True)
    sys.stdin.readline()
    mapped[:6] = b"edited"
    mapped.flush()
"""


@pytest.mark.parametrize("how", ["open", "mapped"])
def test_a_file_that_somebody_writes_to(layers, tmp_path: Path, how: str) -> None:
    """Leases on an overlay know of whoever has a file open, or mapped, for writing."""
    with overlay(layers, tmp_path / "merged") as made:
        forge = forged(made, above=("one", "two"))
        before = snapshot(made.merged)
        analysis = plan(forge, same_layer=True)
        share = analysis.plan.shares[2]
        (target,) = analysis.scope.paths_of(share.duplicate)
        (keeper,) = analysis.scope.paths_of(share.keeper)
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, target, how],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "ready\n"
            if how == "mapped" and lease_on(target) is leases.Lease.HELD:
                pytest.skip("overlays of this kernel do not tell of mappings")
            applied = apply_plan(analysis, "test")
        finally:
            writer.communicate("\n")
        assert skipped(applied) == {Reason.BUSY: 1}
        assert applied.inodes == len(FILES) - 1
        assert Path(target).read_bytes().startswith(b"edited")
        after = snapshot(made.merged)
        assert after[keeper] == before[keeper]
        assert after[target].inode == before[target].inode
        for files in (before, after):
            del files[target]
        assert_unchanged(before, after)
        assert leftovers(made.merged) == []


def lease_on(path: str) -> leases.Lease:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return leases.take(descriptor)
    finally:
        os.close(descriptor)


def test_a_layer_that_is_read_only(layers, tmp_path: Path) -> None:
    """An overlay without an upper layer: nothing can be done, and that is said."""
    below, _ = layers
    forge = Forge(below / "lower")
    for name in ("one", "two"):
        forge.environment(name, {DIST: FILES})
    shutil.copytree(below / "lower/envs/one", below / "lower2/envs/three")
    options = f"lowerdir={below / 'lower2'}:{below / 'lower'}"
    with mount(tmp_path / "merged", "-t", "overlay", "-o", options, "overlay") as merged:
        trees = [
            replace(tree, root=tree.root.replace(str(below / "lower"), str(merged))) for tree in forge.trees
        ]
        forge.trees = trees
        before = snapshot(merged)
        assert plan(forge).plan.shares == []
        applied = apply_plan(plan(forge, same_layer=True), "test")
        assert skipped(applied) == {Reason.READ_ONLY: len(FILES)}
        assert applied.failed == []
        assert snapshot(merged) == before
