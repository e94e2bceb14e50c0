"""What Windows does for :mod:`.system` with open files and devices, as :mod:`.linux` does for Linux."""

from __future__ import annotations

import ctypes
import errno
import os

from ..model import Device, Layout, Reason
from . import windows_calls as calls
from . import windows_types as types
from .outcome import SkipError
from .windows_errors import ERROR_HANDLE_EOF, ERROR_MORE_DATA

#: The names of file systems that are always remote; those of others are asked for by handle.
REMOTE: frozenset[str] = frozenset({"csvfs"})
LINK_LIMITS = {"ntfs": 1_023, "refs": 1_000_000}
DEFAULT_LINK_LIMIT = 1_023
_ANSWER = 64 * 1024


def is_gone(descriptor: int) -> bool:
    """Whether an open file has no name any more."""
    found = types.StandardInfo()
    calls.query(calls.handle_of(descriptor), types.STANDARD_INFO, found)
    return bool(found.DeletePending) or found.NumberOfLinks == 0


def copy_metadata(source: int, stat: os.stat_result, target: int) -> None:
    """Give ``target``, which is open to write, the attributes of ``source``, and who may do what with it.

    Its bytes are on the device then: once it is open for reading alone, that cannot be had any more.
    """
    first, second = calls.handle_of(source), calls.handle_of(target)
    wanted = calls.security_of(first, types.DACL)
    if wanted != calls.security_of(second, types.DACL):
        calls.set_security(second, types.DACL, wanted)
        if wanted != calls.security_of(second, types.DACL):
            raise SkipError(Reason.OTHER_XATTRS)
    attributes = types.copied_attributes(calls.attributes_of_handle(first))
    os.fsync(target)
    calls.set_basic(second, types.BasicInfo(FileAttributes=attributes))


def attributes_of(descriptor: int) -> bytes:
    """Return FILE_ATTRIBUTE_*, but for what backups set, owner and rights as a comparable value."""
    handle = calls.handle_of(descriptor)
    attributes = calls.attributes_of_handle(handle) & ~types.NOT_COMPARED
    return b"%x " % attributes + calls.security_of(handle, types.OWNER_GROUP_AND_DACL)


def is_bare(path: str) -> bool:
    """Whether it is known without opening it that a file has no attributes whatever: it never is."""
    return False


def has_capabilities(attributes: bytes) -> bool:
    """Say no: there are none here."""
    return False


def refused(stat: os.stat_result) -> Reason | None:
    """Say that nothing is refused by its flags alone."""
    return None


def file_system(descriptor: int) -> str:
    """Name the type of file system that the open file lies on."""
    return calls.volume_of(descriptor)[0]


def capabilities(descriptor: int) -> Device:
    """Tell what the device of the open file can do."""
    number = os.fstat(descriptor).st_dev
    kind, flags = calls.volume_of(descriptor)
    remote = calls.is_remote(descriptor)
    return Device(
        number=number,
        file_system=kind,
        reflink=bool(flags & types.SUPPORTS_BLOCK_REFCOUNTING) and not remote,
        hardlink=bool(flags & types.SUPPORTS_HARD_LINKS),
        remote=remote,
        link_limit=LINK_LIMITS.get(kind, DEFAULT_LINK_LIMIT),
        pool=str(number),
        blocks=False,
    )


def layout(descriptor: int) -> Layout | None:
    """Return where the bytes of an open file lie; None where the file system does not tell."""
    handle = calls.handle_of(descriptor)
    answers: list[bytes] = []
    start, code = 0, ERROR_MORE_DATA
    while code == ERROR_MORE_DATA:
        request = start.to_bytes(8, "little")
        code, answer = calls.control(handle, types.FSCTL_GET_RETRIEVAL_POINTERS, request, _ANSWER)
        if code == ERROR_HANDLE_EOF:
            break  # kept inside the metadata
        if code not in (0, ERROR_MORE_DATA):
            return None
        answers.append(answer)
        start = types.next_cluster(answer)
    return types.layout_of_pointers(answers, calls.full_size(handle).cluster)


def ioctl(descriptor: int, request: int, buffer: bytearray) -> None:
    """Say that none of Linux's requests exists."""
    raise OSError(errno.ENOTTY, os.strerror(errno.ENOTTY))


def sync_file_system(descriptor: int) -> None:
    """Make everything on the volume durable if we may: without an administrator's rights nobody can."""
    kernel = calls.library("kernel32")
    drive = calls.path_of(descriptor).removeprefix("\\\\?\\")[:2]
    handle = kernel.CreateFileW(f"\\\\.\\{drive}", types.WRITE, types.SHARE_ALL, None, 3, 0, None)
    if handle is not None and handle != ctypes.c_void_p(-1).value:
        kernel.FlushFileBuffers(ctypes.c_void_p(handle))
        calls.close_handle(handle)


def flush(descriptor: int) -> None:
    """Have the bytes of a file that is open for writing on the device."""
    os.fsync(descriptor)


def free_bytes(directory: str) -> int:
    """Return how many bytes may be written to the device of a directory."""
    found = ctypes.c_uint64()
    kernel = calls.library("kernel32")
    calls.check(kernel.GetDiskFreeSpaceExW(directory, ctypes.byref(found), None, None), directory)
    return found.value


def process_started(pid: int) -> str:
    """Return when a process began; empty if there is none, or it is over."""
    kernel = calls.library("kernel32")
    handle = kernel.OpenProcess(types.QUERY_LIMITED_INFORMATION, False, pid)
    if not handle:
        return ""
    times, code = (ctypes.c_uint64 * 4)(), ctypes.c_uint32()
    places = [ctypes.byref(times, 8 * index) for index in range(4)]
    try:
        calls.check(kernel.GetProcessTimes(ctypes.c_void_p(handle), *places))
        calls.check(kernel.GetExitCodeProcess(ctypes.c_void_p(handle), ctypes.byref(code)))
    finally:
        calls.close_handle(handle)
    return f"windows/{pid}/{times[0]}" if code.value == types.STILL_ACTIVE else ""


def cluster_of(descriptor: int) -> int:
    """Return the bytes of a cluster on the device of an open file."""
    return calls.full_size(calls.handle_of(descriptor)).cluster


def duplicate_extents(source: int, target: int, size: int, cluster: int) -> None:
    """Have the ``size`` bytes of ``target``, open to write, where those of ``source`` are."""
    for offset, length in types.shared_ranges(size, cluster):
        request = types.DuplicateExtents(calls.handle_of(source), offset, offset, length)
        code, _ = calls.control(
            calls.handle_of(target), types.FSCTL_DUPLICATE_EXTENTS_TO_FILE, bytes(request)
        )
        if code:
            raise calls.error(code)
