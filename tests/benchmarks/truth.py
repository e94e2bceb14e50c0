"""What is there really twice, found by reading everything: each inode once, by content."""

from __future__ import annotations

import hashlib
import os
import stat
from collections import Counter, defaultdict
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

#: Smaller files share nothing worth it, and ours leaves them alone.
MIN_SIZE = 4096
_CHUNK = 1 << 20


@dataclass
class Truth:
    """Of a tree; bytes of duplicates are those of all inodes of a content but one (the greatest on disk)."""

    #: every name of anything, directories too
    paths: int = 0
    files: int = 0
    inodes: int = 0
    environments: int = 0
    apparent_bytes: int = 0
    disk_bytes: int = 0
    #: by length, of files of every size
    duplicate_bytes: int = 0
    #: by length, of files of MIN_SIZE and more
    duplicate_bytes_4k: int = 0
    #: on disk, of files of MIN_SIZE and more
    duplicate_disk_bytes_4k: int = 0


def truth_of(root: Path) -> Truth:
    """Read the tree (at least every file that is as long as another)."""
    truth = Truth()
    found = _inodes(root, truth)
    lengths = Counter(status.st_size for _, status in found)
    asked = [(path, status) for path, status in found if status.st_size and lengths[status.st_size] > 1]
    with ProcessPoolExecutor() as pool:
        digests = list(pool.map(digest, [path for path, _ in asked], chunksize=200))
    groups: dict[bytes, list[os.stat_result]] = defaultdict(list)
    for (_, status), content in zip(asked, digests, strict=True):
        groups[content].append(status)
    for group in groups.values():
        group.sort(key=lambda status: -status.st_blocks)
        for status in group[1:]:
            truth.duplicate_bytes += status.st_size
            if status.st_size >= MIN_SIZE:
                truth.duplicate_bytes_4k += status.st_size
                truth.duplicate_disk_bytes_4k += status.st_blocks * 512
    return truth


def _inodes(root: Path, truth: Truth) -> list[tuple[str, os.stat_result]]:
    """Every regular file's inode with one of its names."""
    seen: dict[tuple[int, int], tuple[str, os.stat_result]] = {}
    pending = [os.fspath(root)]
    while pending:
        folder = pending.pop()
        if folder.endswith("/conda-meta"):
            truth.environments += 1
        with os.scandir(folder) as entries:
            for entry in entries:
                truth.paths += 1
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode):
                    pending.append(entry.path)
                elif stat.S_ISREG(status.st_mode):
                    truth.files += 1
                    truth.apparent_bytes += status.st_size
                    seen.setdefault((status.st_dev, status.st_ino), (entry.path, status))
    truth.inodes = len(seen)
    truth.disk_bytes = sum(status.st_blocks * 512 for _, status in seen.values())
    return list(seen.values())


def digest(path: str) -> bytes:
    """Of the content."""
    found = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        for chunk in iter(partial(file.read, _CHUNK), b""):
            found.update(chunk)
    return found.digest()
