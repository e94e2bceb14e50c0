"""A second inode with the bytes and the metadata of a first one."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat as stat_module
from typing import TYPE_CHECKING

from ..model import Reason
from .opening import xattrs_of
from .outcome import SkipError

if TYPE_CHECKING:
    from collections.abc import Iterator

_CHUNK = 1024 * 1024


def copy_bytes(source: int, target: int) -> None:
    """Write the content of one open file to another, empty one; what is a hole stays one.

    By reading and writing: what the kernel copies by itself shares extents again.
    """
    size = os.fstat(source).st_size
    for start, end in _data(source, size):
        copy_range(source, target, start, end - start)
    os.ftruncate(target, size)


def copy_range(source: int, target: int, offset: int, length: int) -> None:
    """Write ``length`` bytes of one open file to the same place of another. SkipError: it is shorter."""
    end = offset + length
    while offset < end:
        chunk = os.pread(source, min(_CHUNK, end - offset), offset)
        if not chunk:
            raise SkipError(Reason.CHANGED)
        write_at(target, chunk, offset)
        offset += len(chunk)


def write_at(descriptor: int, content: bytes, offset: int) -> None:
    """Write all of it."""
    while content:
        written = os.pwrite(descriptor, content, offset)
        offset += written
        content = content[written:]


def _data(descriptor: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of what is no hole."""
    end = 0
    while end < size:
        try:
            start = os.lseek(descriptor, end, os.SEEK_DATA)
            end = min(os.lseek(descriptor, start, os.SEEK_HOLE), size)
        except OSError as exc:
            if exc.errno == errno.ENXIO:
                return  # a hole up to the end
            start, end = end, size  # a file system that cannot tell
        yield start, end


def digest_of(descriptor: int) -> bytes:
    """Return the raw sha256 of an open file."""
    digest = hashlib.sha256()
    offset = 0
    while chunk := os.pread(descriptor, _CHUNK, offset):
        digest.update(chunk)
        offset += len(chunk)
    return digest.digest()


def copy_metadata(source: int, stat: os.stat_result, target: int) -> None:
    """Give ``target`` the owner, mode and extended attributes of ``source``.

    SkipError: they cannot be given to it, as when the file is another user's.
    """
    now = os.fstat(target)
    if (now.st_uid, now.st_gid) != (stat.st_uid, stat.st_gid):
        try:
            os.fchown(target, stat.st_uid, stat.st_gid)
        except PermissionError as exc:
            raise SkipError(Reason.OTHER_OWNER) from exc
    wanted = xattrs_of(source)
    if wanted != xattrs_of(target):
        _copy_xattrs(source, target)
    os.fchmod(target, stat_module.S_IMODE(stat.st_mode))
    if wanted != xattrs_of(target):
        raise SkipError(Reason.OTHER_XATTRS)


def _copy_xattrs(source: int, target: int) -> None:
    """Copy what may be copied; the target may have some from its directory (a default ACL, a label)."""
    names = set(os.listxattr(source))
    for name in set(os.listxattr(target)) - names:
        with contextlib.suppress(OSError):
            os.removexattr(target, name)
    for name in names:
        with contextlib.suppress(OSError):
            os.setxattr(target, name, os.getxattr(source, name))
