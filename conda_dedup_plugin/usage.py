"""When an environment was last used: the access times of files that only its own programs read.

Programs of its own are executables in ``bin`` and bytecode, as long as no other environment and no cache
has the same inode: a patched ``bin/python`` is such a file. Making an environment counts as a use.
"""

from __future__ import annotations

import os
import stat as stat_module
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from .sharing.system import REMOTE, file_system, open_root
from .sites import directories, site_packages

if TYPE_CHECKING:
    from collections.abc import Iterator

DAY = 86_400
_NOATIME = getattr(os, "ST_NOATIME", 0) | getattr(os, "ST_RDONLY", 0)
_RELATIME = getattr(os, "ST_RELATIME", 0)


class Usage(NamedTuple):
    """``last``: seconds since 1970, or None and ``unknown`` says why.

    ``grain``: by so many seconds it may have been later.
    """

    last: float | None
    grain: int = 0
    unknown: str = ""

    def unused(self, days: int, now: float) -> bool:
        """Whether it is sure that there was no use for so many days."""
        return self.last is not None and now - self.last - self.grain > days * DAY


def last_use(root: str) -> Usage:
    """Return when a program of the environment at ``root`` was last read."""
    if sys.platform != "linux":
        return Usage(None, unknown="this system does not say whether it keeps access times")
    else:
        try:
            descriptor = open_root(root)
        except OSError as exc:
            return Usage(None, unknown=f"it cannot be looked at ({exc.strerror})")
        try:
            flags, kind = os.fstatvfs(descriptor).f_flag, file_system(descriptor)
        finally:
            os.close(descriptor)
        if flags & _NOATIME:
            return Usage(None, unknown="its file system keeps no access times (noatime, or read-only)")
        if kind in REMOTE or kind == "overlay":
            return Usage(None, unknown=f"access times on {kind} say nothing")
        last = max(_access_times(root), default=None)
        if last is None:
            return Usage(None, unknown="it has no program of its own that it does not share")
        return Usage(last, DAY if flags & _RELATIME else 0)


def _access_times(root: str) -> Iterator[float]:
    yield from _private(f"{root}/bin", 0o111, "")
    for site in site_packages(root):
        library = site.rpartition("/")[0]
        yield from _private(f"{library}/__pycache__", 0, ".pyc")
        for package in directories(site):
            inside = "" if package == "__pycache__" else "/__pycache__"
            yield from _private(f"{site}/{package}{inside}", 0, ".pyc")


def _private(directory: str, mode: int, suffix: str) -> Iterator[float]:
    """Yield the access times of the files in a directory that have but one name."""
    for entry in _entries(directory):
        with suppress(OSError):
            stat = entry.stat(follow_symlinks=False)
            regular = stat_module.S_ISREG(stat.st_mode) and entry.name.endswith(suffix)
            if regular and stat.st_nlink == 1 and stat.st_size and stat.st_mode & mode == mode:
                yield stat.st_atime


def _entries(directory: str) -> list[os.DirEntry[str]]:
    """Return what is in a directory; nothing if it is none or a link."""
    with suppress(OSError):
        if stat_module.S_ISLNK(os.lstat(directory).st_mode):
            return []
        with os.scandir(directory) as entries:
            return list(entries)
    return []
