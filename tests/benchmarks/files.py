"""Writing many files fast."""

from __future__ import annotations

import os
from pathlib import Path

_made: set[str] = set()


def parent(path: Path | str) -> None:
    """Make the folder that a file is in."""
    folder = os.path.dirname(path)
    if folder not in _made:
        os.makedirs(folder, exist_ok=True)
        _made.add(folder)


def copy(source: Path | str, target: Path | str, mtime: float, *, executable: bool = False) -> None:
    """An inode of its own with the same bytes."""
    parent(target)
    reading = os.open(source, os.O_RDONLY)
    try:
        writing = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o755 if executable else 0o644)
        try:
            left = os.fstat(reading).st_size
            while left > 0:
                left -= os.copy_file_range(reading, writing, left)
            os.utime(writing, (mtime, mtime))
        finally:
            os.close(writing)
    finally:
        os.close(reading)


def write(path: Path | str, content: bytes, mtime: float, *, executable: bool = False) -> None:
    """A file with this content."""
    parent(path)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o755 if executable else 0o644)
    with open(descriptor, "wb") as file:
        file.write(content)
    os.utime(path, (mtime, mtime))


def link(source: Path | str, target: Path | str) -> None:
    """Another name of the same inode."""
    parent(target)
    os.link(source, target)
