"""What the device says of a directory, asked without the code that plans: bytes on disk, and contents."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from ..layouts import disk_bytes_of
from ..sharing.extents import layout_of
from ..sharing.probe import probe
from ..sharing.system import sync_file_system

if TYPE_CHECKING:
    from collections.abc import Iterator


def disk_bytes(root: Path) -> int:
    """Return the bytes on disk of everything below ``root``, as ``du`` counts: each inode once.

    Where files can share extents, ``du`` counts those for every file; here each place of the device counts
    once.
    """
    total = 0
    places: list[tuple[int, int]] = []
    seen: set[tuple[int, int]] = set()
    for path, found in _everything(root):
        if (found.st_dev, found.st_ino) in seen:
            continue
        seen.add((found.st_dev, found.st_ino))
        extents = _extents(path) if stat.S_ISREG(found.st_mode) and disk_bytes_of(found) else []
        places += extents
        total += 0 if extents else disk_bytes_of(found)
    end = 0
    for start, stop in sorted(places):
        total += max(0, stop - max(start, end))
        end = max(end, stop)
    return total


def contents(root: Path) -> dict[str, str]:
    """Return the sha256 of every regular file below ``root``, and where every symbolic link leads."""
    found = {}
    for path, state in _everything(root):
        if stat.S_ISREG(state.st_mode):
            found[path] = _sha256(path)
        elif stat.S_ISLNK(state.st_mode):
            found[path] = str(Path(path).readlink())
    return found


def settle(root: Path) -> None:
    """Have the file system of a directory written: until then it is not sure what a file will take.

    ext4 counts what is to be written, and finds out later that a file in many pieces takes a block more.
    """
    with tempfile.TemporaryFile(dir=root) as file:
        sync_file_system(file.fileno())


def is_overlay(folder: Path) -> bool:
    """Whether a directory lies on an overlay, as most do in a container."""
    marker = folder / "overlay"
    with marker.open("xb") as file:
        overlay = probe(file.fileno()).overlay
    marker.unlink()
    return overlay


def _everything(root: Path) -> Iterator[tuple[str, os.stat_result]]:
    yield str(root), root.lstat()
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = f"{folder}/{name}"
            yield path, os.lstat(path)


def _extents(path: str) -> list[tuple[int, int]]:
    """Where on the device a file's bytes lie, if it can be told and other files may lie there, too."""
    with open(path, "rb") as file:
        layout = layout_of(file.fileno()) if probe(file.fileno()).reflink else None
    if layout is None or not layout.exact:
        return []
    return [(physical, physical + length) for _, physical, length, _ in layout.extents]


def _sha256(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
