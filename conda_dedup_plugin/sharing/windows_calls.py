"""The calls to Windows itself: handles are opened below open directories, never through reparse points.

Importable anywhere; called elsewhere it raises OSError with ``ENOSYS``.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import sys
from typing import Any

from . import windows_types as types
from .windows_errors import errno_of

_BINARY = getattr(os, "O_BINARY", 0) | getattr(os, "O_NOINHERIT", 0)
_PATH_LENGTH = 32_768


@functools.cache
def library(name: str) -> Any:
    """Return a library of the system, its functions typed where a handle comes back."""
    if sys.platform == "win32":
        found = ctypes.WinDLL(name, use_last_error=True)
        if name == "ntdll":
            found.RtlNtStatusToDosError.restype = ctypes.c_ulong
        elif name == "kernel32":
            found.OpenProcess.restype = ctypes.c_void_p
            found.CreateFileW.restype = ctypes.c_void_p
        return found
    else:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), name)


def handle_of(descriptor: int) -> int:
    """Return the handle of an open descriptor."""
    if sys.platform == "win32":
        import msvcrt

        return msvcrt.get_osfhandle(descriptor)
    else:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))


def descriptor_of(handle: int, writable: bool = False) -> int:
    """Return a descriptor that owns a handle."""
    if sys.platform == "win32":
        import msvcrt

        try:
            return msvcrt.open_osfhandle(handle, _BINARY | (os.O_RDWR if writable else os.O_RDONLY))
        except BaseException:
            close_handle(handle)
            raise
    else:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))


def close_handle(handle: int) -> None:
    """Close a handle that no descriptor owns."""
    library("kernel32").CloseHandle(ctypes.c_void_p(handle))


def error(code: int, path: str = "") -> OSError:
    """Return the error that a code of Windows means."""
    number = errno_of(code)
    return OSError(number, f"{os.strerror(number)} (Windows error {code})", path or None)


def last_code() -> int:
    """Return the code of the call that just failed."""
    if sys.platform == "win32":
        return ctypes.get_last_error()
    else:
        return 0


def check(succeeded: object, path: str = "") -> None:
    """Raise OSError for what the call before this one said, unless it succeeded."""
    if not succeeded:
        raise error(last_code(), path)


def status_code(status: int) -> int:
    """Return the Windows error of what a native call returned; 0: it succeeded."""
    if status >= 0:
        return 0
    return int(library("ntdll").RtlNtStatusToDosError(ctypes.c_long(status)))


def open_native(
    name: str,
    directory: int | None,
    access: int,
    share: int,
    options: int,
    disposition: int = types.OPEN,
) -> int:
    """Open, or make, one name below an open directory (a descriptor; None: ``name`` is a native path).

    Returns a handle. OSError with ``ELOOP``: it is a reparse point.
    """
    text = types.UnicodeString(0, 0, name)
    text.Length = text.MaximumLength = len(name.encode("utf-16-le", "surrogatepass"))
    attributes = types.ObjectAttributes(
        ctypes.sizeof(types.ObjectAttributes),
        None if directory is None else handle_of(directory),
        ctypes.pointer(text),
        types.CASE_INSENSITIVE,
    )
    handle, block = ctypes.c_void_p(), types.IoStatusBlock()
    status = library("ntdll").NtCreateFile(
        ctypes.byref(handle), ctypes.c_uint32(access | types.SYNCHRONIZE), ctypes.byref(attributes),
        ctypes.byref(block), None, types.ATTRIBUTE_NORMAL, share, disposition,
        options | types.SYNCHRONOUS | types.OPEN_REPARSE_POINT, None, 0,
    )  # fmt: skip
    code = status_code(status)
    if code:
        raise error(code, name)
    opened = handle.value or 0
    try:
        if attributes_of_handle(opened) & types.ATTRIBUTE_REPARSE_POINT:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), name)
    except BaseException:
        close_handle(opened)
        raise
    return opened


def query(handle: int, kind: int, found: ctypes.Structure) -> None:
    """Ask GetFileInformationByHandleEx."""
    check(
        library("kernel32").GetFileInformationByHandleEx(
            ctypes.c_void_p(handle), kind, ctypes.byref(found), ctypes.sizeof(found)
        )
    )


def attributes_of_handle(handle: int) -> int:
    """Return the FILE_ATTRIBUTE_* of an open file."""
    found = types.AttributeTagInfo()
    query(handle, types.ATTRIBUTE_TAG_INFO, found)
    return int(found.FileAttributes)


def security_of(handle: int, parts: int) -> bytes:
    """Return parts of the security descriptor of an open file, self-relative."""
    advapi, size = library("advapi32"), ctypes.c_uint32()
    advapi.GetKernelObjectSecurity(ctypes.c_void_p(handle), parts, None, 0, ctypes.byref(size))
    buffer = ctypes.create_string_buffer(size.value or 1)
    check(
        advapi.GetKernelObjectSecurity(ctypes.c_void_p(handle), parts, buffer, size.value, ctypes.byref(size))
    )
    return buffer.raw[: size.value]


def set_security(handle: int, parts: int, descriptor: bytes) -> None:
    """Set parts of the security descriptor of an open file."""
    check(library("advapi32").SetKernelObjectSecurity(ctypes.c_void_p(handle), parts, descriptor))


def set_basic(handle: int, info: types.BasicInfo) -> None:
    """Set those times and attributes of an open file that are not 0."""
    check(
        library("kernel32").SetFileInformationByHandle(
            ctypes.c_void_p(handle), types.BASIC_INFO, ctypes.byref(info), ctypes.sizeof(info)
        )
    )


def set_information(handle: int, kind: int, content: bytes) -> int:
    """Call NtSetInformationFile; returns the Windows error, 0: it succeeded."""
    block = types.IoStatusBlock()
    status = library("ntdll").NtSetInformationFile(
        ctypes.c_void_p(handle), ctypes.byref(block), content, len(content), kind
    )
    return status_code(status)


def full_size(handle: int) -> types.FullSize:
    """Return the size of a cluster, and how many are free."""
    block, found = types.IoStatusBlock(), types.FullSize()
    status = library("ntdll").NtQueryVolumeInformationFile(
        ctypes.c_void_p(handle), ctypes.byref(block), ctypes.byref(found), ctypes.sizeof(found),
        types.FULL_SIZE_INFORMATION,
    )  # fmt: skip
    code = status_code(status)
    if code:
        raise error(code)
    return found


def control(handle: int, request: int, content: bytes, answer: int = 0) -> tuple[int, bytes]:
    """Call DeviceIoControl; returns the Windows error (0: it succeeded) and the answer."""
    buffer = ctypes.create_string_buffer(answer or 1)
    size = ctypes.c_uint32()
    succeeded = library("kernel32").DeviceIoControl(
        ctypes.c_void_p(handle), request, content, len(content), buffer if answer else None, answer,
        ctypes.byref(size), None,
    )  # fmt: skip
    return (0 if succeeded else last_code()), buffer.raw[: size.value]


def path_of(descriptor: int) -> str:
    """Return the path of what is open."""
    buffer = ctypes.create_unicode_buffer(_PATH_LENGTH)
    check(
        library("kernel32").GetFinalPathNameByHandleW(
            ctypes.c_void_p(handle_of(descriptor)), buffer, _PATH_LENGTH, 0
        )
    )
    return buffer.value


def volume_of(descriptor: int) -> tuple[str, int]:
    """Return the name of the file system, in lower case, and its flags."""
    name, flags = ctypes.create_unicode_buffer(64), ctypes.c_uint32()
    check(
        library("kernel32").GetVolumeInformationByHandleW(
            ctypes.c_void_p(handle_of(descriptor)), None, 0, None, None, ctypes.byref(flags), name, 64
        )
    )
    return name.value.lower(), flags.value


def is_remote(descriptor: int) -> bool:
    """Whether an open file lies on another machine."""
    buffer = ctypes.create_string_buffer(types.REMOTE_PROTOCOL_SIZE)
    return bool(
        library("kernel32").GetFileInformationByHandleEx(
            ctypes.c_void_p(handle_of(descriptor)), types.REMOTE_PROTOCOL_INFO, buffer, len(buffer)
        )
    )
