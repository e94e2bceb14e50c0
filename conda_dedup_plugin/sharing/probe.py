"""What a device can do, found out without writing to it."""

from __future__ import annotations

import errno
import os
import struct

from ..model import Device
from .linux import DEFAULT_LINK_LIMIT, LINK_LIMITS, REMOTE, file_system, ioctl

FIDEDUPERANGE = 0xC0189436
#: struct file_dedupe_range and one struct file_dedupe_range_info
DEDUPE_HEADER = struct.Struct("=QQHHI")
DEDUPE_INFO = struct.Struct("=qQQiI")
_NO_HARDLINKS = frozenset({"fat", "exfat"})


def probe(descriptor: int) -> Device:
    """Find out what the device of the regular file open as ``descriptor`` can do.

    A file is asked to be de-duplicated against itself at the same place: a device that can reflink
    calls that invalid, any other calls the request unsupported; nothing is changed.
    """
    stat = os.fstat(descriptor)
    kind = file_system(descriptor)
    overlay = kind == "overlay"
    dedupes = False if overlay else _can_dedupe(descriptor, stat.st_blksize)
    return Device(
        number=stat.st_dev,
        file_system=kind,
        reflink=dedupes is True,
        certain=dedupes is not None,
        hardlink=kind not in _NO_HARDLINKS,
        overlay=overlay,
        remote=kind in REMOTE,
        link_limit=LINK_LIMITS.get(kind, DEFAULT_LINK_LIMIT),
    )


def _can_dedupe(descriptor: int, length: int) -> bool | None:
    """Whether the device can reflink; None where this file does not tell, not being ours."""
    buffer = bytearray(DEDUPE_HEADER.pack(0, length, 1, 0, 0) + DEDUPE_INFO.pack(descriptor, 0, 0, 0, 0))
    try:
        ioctl(descriptor, FIDEDUPERANGE, buffer)
    except OSError:
        return False
    status: int = DEDUPE_INFO.unpack_from(buffer, DEDUPE_HEADER.size)[3]
    if status in (-errno.EPERM, -errno.EACCES):
        return None
    return status in (0, -errno.EINVAL)
