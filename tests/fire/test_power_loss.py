"""Power loss: what is on the device at any moment of an apply and of an undo, mounted anew and compared."""

from __future__ import annotations

import fcntl
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from conda_dedup_plugin.apply import apply_plan
from conda_dedup_plugin.engine import analyse
from conda_dedup_plugin.journal import Journal
from conda_dedup_plugin.model import MethodChoice
from conda_dedup_plugin.plan import PlanOptions
from conda_dedup_plugin.sharing import batches as batches_module
from conda_dedup_plugin.sharing.recovery import recover
from conda_dedup_plugin.undo import plan_undo, undo
from tests.lab.forge import Forge, noise
from tests.lab.mounts import mounted_file_system
from tests.lab.shares import leftovers
from tests.lab.steps import count_steps, run_with

MIB = 1 << 20
SIZES = {"ext4": 64 * MIB, "btrfs": 128 * MIB, "xfs": 320 * MIB, "xfs-noreflink": 320 * MIB}
KINDS = [
    ("ext4", MethodChoice.HARDLINK),
    ("btrfs", MethodChoice.HARDLINK),
    ("btrfs", MethodChoice.REFLINK),
    ("xfs", MethodChoice.HARDLINK),
    ("xfs", MethodChoice.REFLINK),
    ("xfs-noreflink", MethodChoice.HARDLINK),
]
DIST = ("a", "1", "0")
FILES = {f"lib/lib{number}.so": noise(f"library {number}", 40_000) for number in range(4)}

#: btrfs: begin to commit a transaction, and wait for it.
_START_SYNC = 0x80089418
_WAIT_SYNC = 0x40089416

pytestmark = pytest.mark.filesystems


@pytest.fixture(autouse=True)
def small_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(batches_module, "MOST_NAMES", 3)
    monkeypatch.setattr(batches_module, "LONGEST_SECONDS", 600)
    # an early sync, so that the one in the batch is short; that one alone must do
    monkeypatch.setattr(batches_module.Batches, "_sync_once", lambda self, file: None)


class World:
    """Two environments that are on the device for sure, and a cache that was written just now."""

    def __init__(self, root: Path, method: MethodChoice) -> None:
        self._method = method
        self.forge = Forge(root)
        self.forge.environment("one", {DIST: FILES})
        self.forge.environment("two", {DIST: FILES})
        sync(root)
        self._cache = self.forge.cache({DIST: FILES}) / "-".join(DIST)

    def apply(self) -> None:
        analysis = analyse(self.forge.scope(), PlanOptions(method=self._method))
        for path, data in FILES.items():
            rewrite(self._cache / path, data)  # asking for extents had written them to the device
        applied = apply_plan(analysis, "test")
        assert applied.names == 2 * len(FILES)

    def undo(self) -> None:
        journal = Journal.open()
        try:
            done = undo(plan_undo(journal, {tree.root for tree in self.forge.trees}), journal, "test")
            assert done.names == 2 * len(FILES)
        finally:
            journal.close()


def written(point: Path) -> list[str]:
    """How often and how much has been written to the device at a mount point, and is being written."""
    number = os.stat(point / "unrelated").st_dev
    if os.major(number) == 0:  # btrfs shows a number of its own
        source = subprocess.run(
            ["findmnt", "-no", "SOURCE", point], capture_output=True, text=True, check=True
        ).stdout.strip()
        number = os.stat(source).st_rdev
    fields = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}/stat").read_text().split()
    return [fields[4], fields[6], fields[8]]


def rewrite(path: Path, data: bytes) -> None:
    """Write the same bytes to new blocks, as a program that restores the mtime does; no sync."""
    before = os.stat(path)
    punch = ["fallocate", "--punch-hole", "--offset", "0", "--length", str(len(data)), str(path)]
    subprocess.run(punch, check=True)
    with open(path, "r+b") as file:
        file.write(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def sync(root: Path) -> None:
    subprocess.run(["sync", "-f", str(root)], check=True)


def wrong(root: Path) -> list[str]:
    """Paths of the two environments that are missing, empty or have another content."""
    found = []
    for name in ("one", "two"):
        for path, data in FILES.items():
            file = root / "envs" / name / path
            if not file.is_file() or file.read_bytes() != data:
                found.append(f"{name}/{path}")
    return found


def commit(kind: str, point: Path) -> None:
    """Have the file system write down its directories, as it does by itself now and then; no contents."""
    with open(point / "unrelated", "w") as file:
        file.write("x")
        file.flush()
        os.fsync(file.fileno())  # takes every earlier change of a directory with it, but not on btrfs
        if kind == "btrfs":
            transaction = fcntl.ioctl(file.fileno(), _START_SYNC, bytes(8))
            fcntl.ioctl(file.fileno(), _WAIT_SYNC, transaction)


@contextmanager
def mounted_image(image: Path, point: Path) -> Iterator[Path]:
    """The file system of an image, its log replayed."""
    subprocess.run(["mount", "-o", "loop", str(image), str(point)], check=True, capture_output=True)
    try:
        yield point
    finally:
        subprocess.run(["umount", str(point)], check=True)


@pytest.mark.parametrize("moments", [8, pytest.param(60, marks=pytest.mark.soak)])
@pytest.mark.parametrize(("kind", "method"), KINDS, ids=[f"{kind}-{how.value}" for kind, how in KINDS])
@pytest.mark.parametrize("what", ["apply", "undo"])
def test_no_path_is_empty_or_wrong(tmp_path, shm_dir, monkeypatch, what, kind, method, moments):
    """The device is copied at so many steps, as it would be had the power failed there."""
    images = tmp_path / "images"
    images.mkdir()
    with mounted_file_system(kind, shm_dir, SIZES[kind]) as point:
        monkeypatch.setenv("XDG_STATE_HOME", str(point / "state"))
        (point / "state").mkdir()

        def operation_on(name: str) -> Callable[[], None]:
            world = World(point / name, method)
            if what == "undo":
                world.apply()
                sync(point)
            return getattr(world, what)

        def copy(step: int) -> None:
            commit(kind, point)
            device = shm_dir / f"{kind}.img"
            image = images / f"{step:06}.img"
            before = None
            while before != written(point):  # the kernel may write of itself in the middle of a copy
                before = written(point)
                subprocess.run(["cp", "--sparse=always", device, image], check=True)

        count = count_steps(operation_on("first"))  # another world like it
        steps = {1 + (number * count) // moments for number in range(moments)}
        run_with(operation_on("world"), steps, copy)
    found = sorted(images.iterdir())
    assert len(found) > moments * 0.7, "too few steps were reached"
    bad = {}
    for image in found:
        with mounted_image(image, point) as anew:  # at the same place, so that the journal speaks of it
            bad[image.name] = wrong(anew / "world")
            journal = Journal.open()
            try:
                recover(journal)
                open_ones = [*journal.open_intents(), *journal.left_stagings()]
            finally:
                journal.close()
            bad[image.name] += [*map(str, open_ones), *leftovers(anew / "world"), *wrong(anew / "world")]
        image.unlink()
    assert not any(bad.values()), bad
