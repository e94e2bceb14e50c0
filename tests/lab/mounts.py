"""File systems of their own for tests: an image file, or memory, mounted in a temporary directory."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.lab import needs

if TYPE_CHECKING:
    from collections.abc import Iterator

_MKFS = {
    "ext4": ("mkfs.ext4", "-q", "-F"),
    "btrfs": ("mkfs.btrfs", "-q", "-f"),
    "btrfs-zstd": ("mkfs.btrfs", "-q", "-f"),
    "xfs": ("mkfs.xfs", "-q", "-f", "-m", "reflink=1"),
    "xfs-noreflink": ("mkfs.xfs", "-q", "-f", "-m", "reflink=0"),
}
KINDS = (*_MKFS, "tmpfs")
_OPTIONS = {"btrfs-zstd": ",compress=zstd:1"}
#: Of these, those whose files can share extents.
REFLINK_KINDS = ("btrfs", "btrfs-zstd", "xfs")


@contextmanager
def mounted_file_system(kind: str, folder: Path, size: int) -> Iterator[Path]:
    """A fresh file system of ``kind`` and ``size`` bytes, mounted below ``folder`` within the block."""
    needs("mounting needs root", os.geteuid() == 0)
    folder.mkdir(parents=True, exist_ok=True)
    point = folder / kind
    point.mkdir()
    if kind == "tmpfs":
        options = ["-t", "tmpfs", "-o", f"size={size},mode=0755", "tmpfs"]
    else:
        image = _make_image(kind, folder / f"{kind}.img", size)
        options = ["-o", f"loop{_OPTIONS.get(kind, '')}", str(image)]
    done = subprocess.run(["mount", *options, str(point)], capture_output=True, text=True, check=False)
    needs(f"cannot mount {kind}: {done.stderr.strip()}", done.returncode == 0)
    try:
        yield point
    finally:
        _unmount(point)


@contextmanager
def mirrored(folder: Path, point: Path) -> Iterator[None]:
    """``folder`` once more at ``point``, through a program (FUSE), within the block."""
    needs("needs bindfs", shutil.which("bindfs"))
    if not Path("/dev/fuse").exists():
        pytest.skip("the kernel has no FUSE")
    point.mkdir()
    done = subprocess.run(["bindfs", str(folder), str(point)], capture_output=True, text=True, check=False)
    needs(f"cannot mount by FUSE: {done.stderr.strip()}", done.returncode == 0)
    try:
        yield
    finally:
        _unmount(point)


def _make_image(kind: str, image: Path, size: int) -> Path:
    program, *options = _MKFS[kind]
    needs(f"needs {program}", shutil.which(program))
    with image.open("wb") as file:
        file.truncate(size)
    subprocess.run([program, *options, str(image)], capture_output=True, check=True)
    return image


def _unmount(point: Path) -> None:
    done = subprocess.run(["umount", str(point)], capture_output=True, check=False)
    if done.returncode:
        subprocess.run(["umount", "--lazy", str(point)], check=True)
