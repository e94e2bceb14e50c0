"""Where the bytes of a file lie on its device: FS_IOC_FIEMAP."""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING

from ..model import Layout
from .linux import ioctl

if TYPE_CHECKING:
    from collections.abc import Iterator

_FIEMAP = 0xC020660B
_HEADER = struct.Struct("=QQIIII")
_EXTENT = struct.Struct("=QQQQQIIII")
_MOST = 512
_SYNC = 0x1
_LAST = 0x1
#: unknown place, still to be written, inline, packed with others: no physical place of its own
_INEXACT = 0x2 | 0x4 | 0x100 | 0x200 | 0x400
_SHARED = 0x2000


def layout_of(descriptor: int) -> Layout | None:
    """Return the extents of the file open as ``descriptor``; None where the file system does not tell.

    Neighbouring extents are merged, for XFS splits one where part of it is shared.
    """
    extents: list[tuple[int, int, int]] = []
    shared, exact = False, True
    try:
        for logical, physical, length, flags in _extents(descriptor):
            shared |= bool(flags & _SHARED)
            exact &= not flags & _INEXACT
            if extents:
                before, place, size = extents[-1]
                if (before + size, place + size) == (logical, physical):
                    extents[-1] = (before, place, size + length)
                    continue
            extents.append((logical, physical, length))
    except OSError as exc:
        if exc.errno in (errno.ENOTTY, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
            return None
        raise
    return Layout(tuple(extents), shared, exact)


def _extents(descriptor: int) -> Iterator[tuple[int, int, int, int]]:
    start = 0
    while True:
        buffer = bytearray(_HEADER.size + _MOST * _EXTENT.size)
        _HEADER.pack_into(buffer, 0, start, 2**64 - 1 - start, _SYNC, 0, _MOST, 0)
        ioctl(descriptor, _FIEMAP, buffer)
        mapped = _HEADER.unpack_from(buffer, 0)[3]
        for index in range(mapped):
            logical, physical, length, _, _, flags, *_ = _EXTENT.unpack_from(
                buffer, _HEADER.size + index * _EXTENT.size
            )
            yield logical, physical, length, flags
            if flags & _LAST:
                return
            start = logical + length
        if not mapped:
            return


def common_bytes(first: Layout, second: Layout) -> int:
    """Return how many bytes of two files lie at the same place of the device."""
    places = sorted(
        (physical, physical + length, physical - logical) for logical, physical, length in first.extents
    )
    total = 0
    for logical, physical, length in second.extents:
        for start, end, offset in places:
            if offset == physical - logical:
                total += max(0, min(end, physical + length) - max(start, physical))
    return total
