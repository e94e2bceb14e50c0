"""Where the bytes of a file lie on its device: FS_IOC_FIEMAP."""

from __future__ import annotations

import errno
import struct
import sys
from typing import TYPE_CHECKING

from ..layouts import append
from ..model import Extent, Layout
from .system import ioctl

if sys.platform != "linux":
    from .system import layout

if TYPE_CHECKING:
    from collections.abc import Iterator

_FIEMAP = 0xC020660B
#: _IOR('f', 1, long), though it is an int that is written
_FS_IOC_GETFLAGS = 0x80006601 | struct.calcsize("l") << 16
_NOCOW = 0x00800000
_HEADER = struct.Struct("=QQIIII")
_EXTENT = struct.Struct("=QQQQQIIII")
#: So many extents are asked for at first, which is all that most files have; then so many at once.
_FIRST = 16
_MOST = 512
_SYNC = 0x1
_LAST = 0x1
#: unknown place, still to be written, inline, packed with others: no physical place of its own
_INEXACT = 0x2 | 0x4 | 0x100 | 0x200 | 0x400
_ENCODED = 0x8
_SHARED = 0x2000


def is_nodatacow(descriptor: int) -> bool:
    """Whether the file open as ``descriptor`` is never copied on write, and shares with no other that is."""
    buffer = bytearray(struct.calcsize("l"))
    try:
        ioctl(descriptor, _FS_IOC_GETFLAGS, buffer)
    except OSError:
        return False
    return bool(int.from_bytes(buffer[:4], sys.byteorder) & _NOCOW)


def layout_of(descriptor: int) -> Layout | None:
    """Return the extents of the file open as ``descriptor``; None where the file system does not tell.

    What is still to be written is written first. What is kept inside the metadata has no extent.
    """
    if sys.platform == "linux":
        return _layout(descriptor)
    else:
        return layout(descriptor)


def _layout(descriptor: int) -> Layout | None:
    extents: list[Extent] = []
    own: list[Extent] = []
    shared, exact = False, True
    try:
        for logical, physical, length, flags in _extents(descriptor):
            if flags & _INEXACT:
                exact = False
                continue
            found = Extent(logical, physical, length, bool(flags & _ENCODED))
            append(extents, found)
            if flags & _SHARED:
                shared = True
            else:
                append(own, found)
    except OSError as exc:
        if exc.errno in (errno.ENOTTY, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
            return None
        raise
    return Layout(tuple(extents), shared, exact, tuple(own) if shared else ())


def _extents(descriptor: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield (logical, physical, length, flags)."""
    start, most = 0, _FIRST
    while True:
        buffer = bytearray(_HEADER.size + most * _EXTENT.size)
        _HEADER.pack_into(buffer, 0, start, 2**64 - 1 - start, _SYNC, 0, most, 0)
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
        most = _MOST
