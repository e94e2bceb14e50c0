"""Where file systems are mounted, as the kernel tells."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

_ESCAPED = re.compile(rb"\\([0-7]{3})")


def mount_points() -> list[str]:
    """Return every mount point that this process sees; ``/`` alone if the kernel does not tell."""
    found = {"/"}
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
            fields = line.split(b" ")
            if len(fields) > 4:
                point = _ESCAPED.sub(lambda match: bytes([int(match[1], 8) & 0xFF]), fields[4])
                found.add(os.fsdecode(point))
    return sorted(found)


def mount_point_of(path: str, points: list[str]) -> str:
    """Return the mount point, among ``points``, of what is mounted where a real path lies."""
    return max((point for point in points if is_below(path, point)), key=len, default="/")


def is_below(path: str, directory: str) -> bool:
    """Whether a path is a directory, or below it."""
    return f"{path}/".startswith(f"{directory.rstrip('/')}/")
