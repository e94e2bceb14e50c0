"""What a device can do, found out without writing to it."""

from __future__ import annotations

import contextlib
import errno
import os
import stat as stat_module
import struct
import sys
import uuid

from ..layouts import BLOCK
from ..model import Device
from .system import DEFAULT_LINK_LIMIT, LINK_LIMITS, REMOTE, file_system, ioctl

if sys.platform != "linux":
    from .system import capabilities

FIDEDUPERANGE = 0xC0189436
#: struct file_dedupe_range and one struct file_dedupe_range_info
DEDUPE_HEADER = struct.Struct("=QQHHI")
DEDUPE_INFO = struct.Struct("=qQQiI")
#: BTRFS_IOC_FS_INFO, struct btrfs_ioctl_fs_info_args, and where the UUID is in it (linux/btrfs.h)
_FS_INFO = 0x8400941F
_FS_INFO_SIZE = 1024
_FS_INFO_UUID = slice(16, 32)
_NO_HARDLINKS = frozenset({"fat", "exfat"})


def probe(descriptor: int) -> Device:
    """Find out what the device of the regular file open as ``descriptor`` can do.

    A directory tells all but whether it can reflink. A file is asked to be de-duplicated against itself at
    the same place: a device that can reflink calls that invalid, any other calls the request unsupported;
    nothing is changed.
    """
    if sys.platform != "linux":
        return capabilities(descriptor)
    else:
        stat = os.fstat(descriptor)
        kind = file_system(descriptor)
        overlay = kind == "overlay"
        length = min(stat.st_blksize, stat.st_size) if stat_module.S_ISREG(stat.st_mode) else 0
        dedupes = False if overlay else _can_dedupe(descriptor, length)
        return Device(
            number=stat.st_dev,
            file_system=kind,
            reflink=dedupes is True,
            certain=dedupes is not None,
            hardlink=kind not in _NO_HARDLINKS,
            overlay=overlay,
            remote=kind in REMOTE,
            link_limit=LINK_LIMITS.get(kind, DEFAULT_LINK_LIMIT),
            pool=file_system_id(descriptor),
            block_size=max(os.fstatvfs(descriptor).f_bsize, BLOCK) if dedupes else BLOCK,
        )


def file_system_id(descriptor: int) -> str:
    """Name the file system that an open file or directory lies on, within which extents can be shared.

    The subvolumes of btrfs have device numbers of their own, and one UUID.
    """
    if file_system(descriptor) == "btrfs":
        buffer = bytearray(_FS_INFO_SIZE)
        with contextlib.suppress(OSError):
            ioctl(descriptor, _FS_INFO, buffer)
            return f"btrfs {uuid.UUID(bytes=bytes(buffer[_FS_INFO_UUID]))}"
    return str(os.fstat(descriptor).st_dev)


def file_system_at(path: str) -> str | None:
    """Name the file system that a directory lies on, as :func:`file_system_id`; None: it is not there."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        return file_system_id(descriptor)
    finally:
        os.close(descriptor)


def _can_dedupe(descriptor: int, length: int) -> bool | None:
    """Whether the device can reflink; None where this file does not tell, not being ours, or empty."""
    if length == 0:
        return None
    buffer = bytearray(DEDUPE_HEADER.pack(0, length, 1, 0, 0) + DEDUPE_INFO.pack(descriptor, 0, 0, 0, 0))
    try:
        ioctl(descriptor, FIDEDUPERANGE, buffer)
    except OSError:
        return False
    status: int = DEDUPE_INFO.unpack_from(buffer, DEDUPE_HEADER.size)[3]
    if status in (-errno.EPERM, -errno.EACCES):
        return None
    return status in (0, -errno.EINVAL)
