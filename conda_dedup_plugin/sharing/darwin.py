"""What is macOS's own: clones, exchange, attributes, and where bytes lie; by way of libSystem."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import functools
import os
import sys
from typing import Any

from ..model import Device, Layout, Reason
from . import darwin_types as types
from . import posix
from .outcome import ChangedError, SkipError

assert sys.platform != "win32"

#: File systems on which another machine may write.
REMOTE = frozenset({"nfs", "smbfs", "afpfs", "webdav", "macfuse", "osxfuse", "fuse-t"})
LINK_LIMITS = {"apfs": 32_767, "hfs": 32_767}
DEFAULT_LINK_LIMIT = 32_000
_NO_HARDLINKS = frozenset({"msdos", "exfat"})
#: Who made a file, as the system notes it by itself; nobody can copy it.
_NOTED_BY_SYSTEM = frozenset({b"com.apple.provenance", b"com.apple.lastuseddate#PS"})


@functools.cache
def _libc() -> Any:
    return ctypes.CDLL(None, use_errno=True)


def _failed(path: str = "") -> OSError:
    code = ctypes.get_errno()
    return OSError(code, os.strerror(code), path or None)


def _call(name: str, *args: object) -> int:
    function = getattr(_libc(), name, None)
    if function is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), name)
    function.restype = ctypes.c_ssize_t if name.endswith("xattr") else ctypes.c_int
    result = int(function(*args))
    if result < 0:
        raise _failed()
    return result


def exchange(first_dir: int, first: str, second_dir: int, second: str) -> None:
    """Swap what two names stand for, in one step: ``renameatx_np(RENAME_SWAP)``."""
    _call(
        "renameatx_np", first_dir, os.fsencode(first), second_dir, os.fsencode(second),
        ctypes.c_uint(types.RENAME_SWAP),
    )  # fmt: skip


def clone(descriptor: int, name: str, directory: int) -> None:
    """Make a new file that has its bytes where an open one has them: ``fclonefileat``."""
    _call(
        "fclonefileat", descriptor, directory, os.fsencode(name),
        ctypes.c_uint32(types.CLONE_NOFOLLOW | types.CLONE_NOOWNERCOPY),
    )  # fmt: skip


def sync_file_system(descriptor: int) -> None:
    """Say that there is no such call: every keeper is flushed by itself."""
    raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))


def flush(descriptor: int) -> None:
    """Have the bytes of an open file on the device before anything that is written later."""
    for command in (types.F_BARRIERFSYNC, types.F_FULLFSYNC):
        try:
            fcntl.fcntl(descriptor, command)
            return
        except OSError as exc:
            if exc.errno not in (errno.ENOTSUP, errno.ENOTTY, errno.EINVAL):
                raise
    os.fsync(descriptor)


def file_system(descriptor: int) -> str:
    """Name the type of file system that the open file lies on."""
    found = types.StatFs()
    # on x86_64 the plain name means a structure with 32-bit inode numbers
    name = "fstatfs$INODE64" if hasattr(_libc(), "fstatfs$INODE64") else "fstatfs"
    _call(name, descriptor, ctypes.byref(found))
    return bytes(found.f_fstypename).decode("ascii", "replace")


def capabilities(descriptor: int) -> Device:
    """Tell what the device of the open file can do."""
    number = os.fstat(descriptor).st_dev
    kind = file_system(descriptor)
    return Device(
        number=number,
        file_system=kind,
        reflink=kind == "apfs",
        hardlink=kind not in _NO_HARDLINKS,
        remote=kind in REMOTE,
        link_limit=LINK_LIMITS.get(kind, DEFAULT_LINK_LIMIT),
        pool=str(number),
        in_place=False,
        blocks=False,
    )


def layout(descriptor: int) -> Layout | None:
    """Return where the bytes of an open file lie; None where the file system does not tell.

    What has no place yet is written first.
    """
    size = os.fstat(descriptor).st_size
    try:
        runs = _runs(descriptor, size)
        if not runs or any(place < 0 for _, place, _ in runs):
            os.fsync(descriptor)
            runs = _runs(descriptor, size)
    except OSError as exc:
        if exc.errno in (errno.ENOTTY, errno.ENOTSUP, errno.EINVAL, errno.ERANGE):
            return None
        raise
    return types.layout_of_runs(runs)


def _runs(descriptor: int, size: int) -> list[tuple[int, int, int]]:
    """Return (logical, physical, length); none if the system does not go on."""
    runs: list[tuple[int, int, int]] = []
    offset = 0
    while offset < size:
        asked = types.LOG2PHYS.pack(0, size - offset, offset)
        _, length, place = types.LOG2PHYS.unpack(fcntl.fcntl(descriptor, types.F_LOG2PHYS_EXT, asked))
        if length <= 0:
            return []
        runs.append((offset, place, length))
        offset += length
    return runs


def link_descriptor(descriptor: int, directory: int, name: str) -> None:
    """Give the inode open as ``descriptor`` a further name in ``directory``, which is ours alone.

    There is no way to do so by descriptor: it is done by a path of it, and looked at afterwards.
    """
    path = fcntl.fcntl(descriptor, types.F_GETPATH, bytes(types.MAXPATHLEN)).split(b"\0", 1)[0]
    os.link(os.fsdecode(path), name, dst_dir_fd=directory, follow_symlinks=False)
    found, wanted = os.stat(name, dir_fd=directory, follow_symlinks=False), os.fstat(descriptor)
    if (found.st_dev, found.st_ino) != (wanted.st_dev, wanted.st_ino):
        posix.unlink(name, directory)
        raise ChangedError(os.fsdecode(path))


def ioctl(descriptor: int, request: int, buffer: bytearray) -> None:
    """Say that none of Linux's requests exists."""
    raise OSError(errno.ENOTTY, os.strerror(errno.ENOTTY))


def attributes_of(descriptor: int) -> bytes:
    """Return flags, ACL and extended attributes (signatures among them) as one comparable value."""
    flags = types.kept_flags(getattr(os.fstat(descriptor), "st_flags", 0))
    found = [b"flags=%x" % flags] if flags else []
    acl = _acl(descriptor)
    if acl:
        found.append(b"acl=" + acl)
    try:
        names = _attribute_names(descriptor)
    except OSError as exc:
        if exc.errno not in (errno.ENOTSUP, errno.EPERM):
            raise
        names = []
    found += [name + b"=" + _attribute(descriptor, name) for name in names if name not in _NOTED_BY_SYSTEM]
    return b"\0".join(found)


def _attribute_names(descriptor: int) -> list[bytes]:
    size = _call("flistxattr", descriptor, None, ctypes.c_size_t(0), 0)
    buffer = ctypes.create_string_buffer(size or 1)
    size = _call("flistxattr", descriptor, buffer, ctypes.c_size_t(size), 0)
    return sorted(name for name in buffer.raw[:size].split(b"\0") if name)


def _attribute(descriptor: int, name: bytes) -> bytes:
    size = _call("fgetxattr", descriptor, name, None, ctypes.c_size_t(0), ctypes.c_uint32(0), 0)
    buffer = ctypes.create_string_buffer(size or 1)
    size = _call("fgetxattr", descriptor, name, buffer, ctypes.c_size_t(size), ctypes.c_uint32(0), 0)
    return buffer.raw[:size]


def _acl(descriptor: int) -> bytes:
    """Return the ACL as text, empty if there is none."""
    libc = _libc()
    libc.acl_get_fd_np.restype = libc.acl_to_text.restype = ctypes.c_void_p
    acl = libc.acl_get_fd_np(descriptor, types.ACL_TYPE_EXTENDED)
    if not acl:
        return b""
    text = libc.acl_to_text(ctypes.c_void_p(acl), None)
    try:
        return ctypes.string_at(text) if text else b""
    finally:
        for allocated in filter(None, (text, acl)):
            libc.acl_free(ctypes.c_void_p(allocated))


def is_bare(path: str) -> bool:
    """Whether it is known without opening it that a file has no attributes whatever: it never is."""
    return False


def has_capabilities(attributes: bytes) -> bool:
    """Say no: there are none here."""
    return False


def copy_metadata(source: int, stat: os.stat_result, target: int) -> None:
    """Give ``target`` the owner, mode, times, flags, ACL and attributes of ``source``: ``fcopyfile``."""
    posix.give_owner(stat, target)
    _call("fcopyfile", source, target, None, ctypes.c_uint32(types.COPYFILE_METADATA))
    if attributes_of(source) != attributes_of(target):
        raise SkipError(Reason.OTHER_XATTRS)
    if os.fstat(target).st_mode != stat.st_mode:
        raise SkipError(Reason.OTHER_MODE)


def refused(stat: os.stat_result) -> Reason | None:
    """Why a file may not be shared, going by its flags; None: it may."""
    return types.refused_flags(getattr(stat, "st_flags", 0))


def process_started(pid: int) -> str:
    """Return when a process began, and since which start of the machine; empty if there is none."""
    info = types.BsdInfo()
    size = ctypes.sizeof(info)
    told = _libc().proc_pidinfo(
        pid, types.PROC_PIDTBSDINFO, ctypes.c_uint64(0), ctypes.byref(info), ctypes.c_int(size)
    )
    if told != size or info.pbi_status == types.SZOMB:
        return ""
    boot = ctypes.create_string_buffer(64)
    length = ctypes.c_size_t(len(boot))
    _call("sysctlbyname", b"kern.bootsessionuuid", boot, ctypes.byref(length), None, ctypes.c_size_t(0))
    return f"{boot.value.decode()}/{pid}/{info.pbi_start_tvsec}.{info.pbi_start_tvusec}"
