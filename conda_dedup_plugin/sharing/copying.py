"""A second inode with the bytes of a first one."""

from __future__ import annotations

import hashlib
import os

from ..model import Reason
from .outcome import SkipError
from .system import data_of, pread, pwrite

_CHUNK = 1024 * 1024


def copy_bytes(source: int, target: int) -> None:
    """Write the content of one open file to another, empty one; what is a hole stays one.

    By reading and writing: what the kernel copies by itself shares extents again.
    """
    size = os.fstat(source).st_size
    for start, end in data_of(source, size):
        copy_range(source, target, start, end - start)
    os.ftruncate(target, size)


def copy_range(source: int, target: int, offset: int, length: int) -> None:
    """Write ``length`` bytes of one open file to the same place of another. SkipError: it is shorter."""
    end = offset + length
    while offset < end:
        chunk = pread(source, min(_CHUNK, end - offset), offset)
        if not chunk:
            raise SkipError(Reason.CHANGED)
        write_at(target, chunk, offset)
        offset += len(chunk)


def write_at(descriptor: int, content: bytes, offset: int) -> None:
    """Write all of it."""
    while content:
        written = pwrite(descriptor, content, offset)
        offset += written
        content = content[written:]


def digest_of(descriptor: int) -> bytes:
    """Return the raw sha256 of an open file."""
    digest = hashlib.sha256()
    offset = 0
    while chunk := pread(descriptor, _CHUNK, offset):
        digest.update(chunk)
        offset += len(chunk)
    return digest.digest()
