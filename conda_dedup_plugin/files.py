"""Files that anybody may have put there: neither a pipe nor a bomb stops us. And when they came there."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

#: Binary, and nobody is waited for.
READ = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
#: A file system may stamp files with the time of the last tick: so many seconds before the clock says.
CLOCK_SLACK = 0.05


def read_regular(path: str, most: int, *, follow: bool = False, whole: bool = False) -> bytes:
    """Return at most ``most`` bytes of a regular file, without ever waiting for one to write to it.

    OSError: it cannot be read, or it is no regular file (``EINVAL``; a symbolic link too, unless
    ``follow``), or with ``whole`` it is bigger (``EFBIG``).
    """
    descriptor = os.open(path, READ if follow else READ | _NO_LINK)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "it is no regular file", path)
        if whole and found.st_size > most:
            raise OSError(errno.EFBIG, f"it has {found.st_size} bytes, which none of its kind has", path)
        with open(descriptor, "rb", closefd=False) as stream:
            return stream.read(min(most, found.st_size + 1))  # it makes room for what it is asked for
    finally:
        os.close(descriptor)


def existing_parent(path: str) -> str:
    """Return the path, or the nearest one above it that there is."""
    whole = Path.cwd() / path
    return os.fspath(next((each for each in (whole, *whole.parents) if os.path.lexists(each)), whole))


def real_path(path: str) -> str:
    """Return the path without any link in it, with ``/`` between its components on every system."""
    return os.path.realpath(path).replace(os.sep, "/")


def modified(path: str | os.PathLike[str]) -> float:
    """When a file was last changed, in seconds since the epoch; 0 if there is none."""
    try:
        return os.stat(path).st_mtime
    except OSError:
        return 0.0


def came(path: str | os.PathLike[str]) -> float:
    """When a file came into its place, or was last changed there: copying may keep mtimes."""
    try:
        return os.stat(path).st_ctime
    except OSError:
        return 0.0
