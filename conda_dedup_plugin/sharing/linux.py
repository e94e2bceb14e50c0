"""What is Linux's own: system calls that Python's ``os`` lacks, by way of the C library, leases, attributes.

Where a call does not exist (an old C library) it raises OSError with ``ENOSYS``.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import functools
import os
import stat as stat_module
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..model import Reason
from . import posix
from .outcome import ChangedError, SkipError

if TYPE_CHECKING:
    from ..model import InodeKey

assert sys.platform == "linux"

_RENAME_EXCHANGE = 2
#: statfs(2), f_type; from linux/magic.h and the file systems' own headers.
_FILE_SYSTEMS = {
    0xEF53: "ext4",
    0x9123683E: "btrfs",
    0x58465342: "xfs",
    0x01021994: "tmpfs",
    0x794C7630: "overlay",
    0x2FC12FC1: "zfs",
    0xCA451A4E: "bcachefs",
    0xF2F52010: "f2fs",
    0x6969: "nfs",
    0x0BD00BD0: "lustre",
    0x65735546: "fuse",
    0x19830326: "beegfs",
    0x01021997: "9p",
    0xFF534D42: "cifs",
    0xFE534D42: "smb2",
    0x517B: "smb",
    0x00C36400: "ceph",
    0x47504653: "gpfs",
    0x4D44: "fat",
    0x2011BAB0: "exfat",
    0x5346544E: "ntfs",
    0x7366746E: "ntfs3",
}
#: File systems on which another machine may write; leases mean nothing there.
REMOTE = frozenset({"nfs", "lustre", "fuse", "beegfs", "9p", "cifs", "smb2", "smb", "ceph", "gpfs"})
#: The most names an inode may have, where it is less than, or known better than, ext4's.
LINK_LIMITS = {"ext4": 65_000, "ntfs": 1_023, "ntfs3": 1_023, "btrfs": 65_535}
DEFAULT_LINK_LIMIT = 32_000
#: Whether they exchange two names in one step; of the others it is not known, or depends on what is behind.
_EXCHANGES = {
    **dict.fromkeys(("ext4", "btrfs", "xfs", "tmpfs", "overlay", "f2fs", "bcachefs"), True),
    **dict.fromkeys(("nfs", "9p", "cifs", "smb2", "smb", "ceph", "exfat", "ntfs", "ntfs3"), False),
}
_PATH = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
_READ_UNNOTED = _READ | os.O_NOATIME
_CAPABILITIES = b"security.capability"

flush = os.fsync


@functools.cache
def _libc() -> Any:
    return ctypes.CDLL(None, use_errno=True)


@functools.cache
def _function(name: str) -> Any:
    return getattr(_libc(), name, None)


def _call(name: str, *args: object) -> int:
    function = _function(name)
    if function is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), name)
    result: int = function(*args)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def exchange(first_dir: int, first: str, second_dir: int, second: str) -> None:
    """Swap what two names stand for, in one step: ``renameat2(RENAME_EXCHANGE)``."""
    _call(
        "renameat2", first_dir, os.fsencode(first), second_dir, os.fsencode(second), _RENAME_EXCHANGE
    )  # fmt: skip


def can_exchange(directory: int) -> bool | None:
    """Whether names can be exchanged in an open directory; None where nothing tells but doing it.

    The kernel is asked to exchange a name that does not exist with itself, which does nothing: whether it
    knows of that at all. It looks for the name before it asks the file system, whose kind must tell the rest.
    """
    name = f".conda-dedup-{uuid.uuid4().hex}"
    try:
        exchange(directory, name, directory, name)
    except OSError as exc:
        if exc.errno in (errno.ENOSYS, errno.EINVAL):
            return False
    return _EXCHANGES.get(file_system(directory))


def sync_file_system(descriptor: int) -> None:
    """Make everything written to the file system of ``descriptor`` durable: ``syncfs``.

    Raises OSError when something written there earlier was lost.
    """
    _call("syncfs", descriptor)


def file_system(descriptor: int) -> str:
    """Name the type of file system that the open file lies on; its number in hex if unknown."""
    buffer = ctypes.create_string_buffer(256)
    _call("fstatfs", descriptor, buffer)
    magic = ctypes.c_long.from_buffer(buffer).value & 0xFFFFFFFF
    return _FILE_SYSTEMS.get(magic, hex(magic))


def link_descriptor(descriptor: int, directory: int, name: str) -> None:
    """Give the inode open as ``descriptor`` a further name in ``directory``.

    By descriptor, so that nobody can put another file in its place. Both directory arguments make
    Python call ``linkat`` with AT_SYMLINK_FOLLOW, which /proc needs.
    """
    os.link(f"/proc/self/fd/{descriptor}", name, src_dir_fd=directory, dst_dir_fd=directory)


def ioctl(descriptor: int, request: int, buffer: bytearray) -> None:
    """Call ``ioctl``, the answer in ``buffer``."""
    fcntl.ioctl(descriptor, request, buffer)


def open_file(name: str, directory: int, key: InodeKey) -> int:
    """Open ``name`` for reading if it is the regular file ``key``; raise ChangedError if it is not."""
    return open_seen(name, directory, key)[0]


def open_seen(name: str, directory: int, key: InodeKey) -> tuple[int, os.stat_result]:
    """Do the same, and tell what the inode was like right before it was opened.

    Neither a fifo nor a device is ever opened for reading: the name is first opened as a mere path.
    """
    path = os.open(name, _PATH, dir_fd=directory)
    try:
        stat = os.fstat(path)
        if not stat_module.S_ISREG(stat.st_mode) or (stat.st_dev, stat.st_ino) != key:
            raise ChangedError(name)
        try:
            return os.open(f"/proc/self/fd/{path}", _READ_UNNOTED), stat
        except PermissionError:
            return os.open(f"/proc/self/fd/{path}", _READ), stat
    finally:
        os.close(path)


def attributes_of(descriptor: int) -> bytes:
    """Return all extended attributes (ACLs, labels and capabilities among them) as one comparable value."""
    try:
        names = sorted(os.listxattr(descriptor))
    except OSError as exc:
        if exc.errno in (errno.ENOTSUP, errno.ENOSYS):
            return b""
        raise
    if not names:
        return b""
    return b"\0".join(os.fsencode(name) + b"=" + os.getxattr(descriptor, name) for name in names)


def is_bare(path: str) -> bool:
    """Whether it is known without opening it that a file has no extended attributes whatever."""
    try:
        return not os.listxattr(path, follow_symlinks=False)
    except OSError as exc:
        return exc.errno in (errno.ENOTSUP, errno.ENOSYS)


def has_capabilities(attributes: bytes) -> bool:
    """Whether a file with these attributes gives who runs it more than others may."""
    return _CAPABILITIES in attributes


def copy_metadata(source: int, stat: os.stat_result, target: int) -> None:
    """Give ``target`` the owner, mode and extended attributes of ``source``.

    SkipError: they cannot be given to it, as when the file is another user's.
    """
    posix.give_owner(stat, target)
    wanted = attributes_of(source)
    if wanted != attributes_of(target):
        _copy_attributes(source, target)
    os.fchmod(target, stat_module.S_IMODE(stat.st_mode))
    if wanted != attributes_of(target):
        raise SkipError(Reason.OTHER_XATTRS)


def _copy_attributes(source: int, target: int) -> None:
    """Copy what may be copied; the target may have some from its directory (a default ACL, a label)."""
    names = set(os.listxattr(source))
    for name in set(os.listxattr(target)) - names:
        with contextlib.suppress(OSError):
            os.removexattr(target, name)
    for name in names:
        with contextlib.suppress(OSError):
            os.setxattr(target, name, os.getxattr(source, name))


def refused(stat: os.stat_result) -> Reason | None:
    """Why a file may not be shared by what only this system knows of it; None: it may."""
    return None


def process_started(pid: int) -> str:
    """Return when a process began, and since which start of the machine; empty if there is none.

    Also empty if it is dead, and nobody has waited for it yet.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
    # the name of the program, in parentheses, may hold blanks; the start time is the 22nd field
    fields = stat.rpartition(b")")[2].split()
    return "" if fields[0] in (b"Z", b"X") else f"{boot}/{pid}/{fields[19].decode()}"
