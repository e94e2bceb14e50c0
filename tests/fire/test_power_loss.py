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
from conda_dedup_plugin.undo import plan_undo, undo
from tests.lab.forge import Forge, noise
from tests.lab.mounts import mounted_file_system
from tests.lab.steps import count_steps, run_with

MIB = 1 << 20
SIZES = {"ext4": 64 * MIB, "btrfs": 128 * MIB, "xfs": 320 * MIB}
KINDS = [
    ("ext4", MethodChoice.HARDLINK),
    ("btrfs", MethodChoice.HARDLINK),
    ("btrfs", MethodChoice.REFLINK),
    ("xfs", MethodChoice.HARDLINK),
    ("xfs", MethodChoice.REFLINK),
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


class World:
    """Two environments that are on the device for sure, and a cache that was written just now."""

    def __init__(self, root: Path, method: MethodChoice) -> None:
        self._method = method
        self.forge = Forge(root)
        self.forge.environment("one", {DIST: FILES})
        self.forge.environment("two", {DIST: FILES})
        sync(root)
        self.forge.cache({DIST: FILES})

    def apply(self) -> None:
        applied = apply_plan(analyse(self.forge.scope(), PlanOptions(method=self._method)), "test")
        assert applied.names == 2 * len(FILES)

    def undo(self) -> None:
        journal = Journal.open()
        try:
            done = undo(plan_undo(journal, {tree.root for tree in self.forge.trees}), journal, "test")
            assert done.names == 2 * len(FILES)
        finally:
            journal.close()


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
def test_no_path_is_empty_or_wrong(tmp_path, shm_dir, what, kind, method, moments):
    """The device is copied at so many steps, as it would be had the power failed there."""
    images = tmp_path / "images"
    images.mkdir()
    with mounted_file_system(kind, shm_dir, SIZES[kind]) as point:

        def operation_on(name: str) -> Callable[[], None]:
            world = World(point / name, method)
            if what == "undo":
                world.apply()
                sync(point)
            return getattr(world, what)

        def copy(step: int) -> None:
            commit(kind, point)
            device = shm_dir / f"{kind}.img"
            subprocess.run(["cp", "--sparse=always", device, images / f"{step:06}.img"], check=True)

        count = count_steps(operation_on("first"))  # another world like it
        steps = {1 + (number * count) // moments for number in range(moments)}
        run_with(operation_on("world"), steps, copy)
    found = sorted(images.iterdir())
    assert len(found) > moments * 0.7, "too few steps were reached"
    place = tmp_path / "anew"
    place.mkdir()
    bad = {}
    for image in found:
        with mounted_image(image, place) as anew:
            bad[image.name] = wrong(anew / "world")
        image.unlink()
    assert not any(bad.values()), bad
