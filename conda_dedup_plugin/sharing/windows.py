"""What Windows does for :mod:`.system` with names: that of :mod:`.posix`, by handles and not ``dir_fd``.

Files are opened so that nobody may write to them while they are open here, and not at all if somebody has
them open for that: this is what leases are elsewhere.
"""

from __future__ import annotations

import errno
import os
import stat as stat_module
from typing import TYPE_CHECKING

from ..model import NO_USER
from . import windows_calls as calls
from . import windows_types as types
from .outcome import ChangedError
from .windows_errors import ERROR_ACCESS_DENIED, UNKNOWN_CALL

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..model import InodeKey


def user() -> int:
    """Say that files have no owner that could be compared."""
    return NO_USER


def open_root(root: str, listed: bool = False) -> int:
    """Open the directory at a real path, component by component."""
    volume, names = types.components(root)
    found = calls.descriptor_of(_directory(types.native_path(volume), None, listed and not names))
    for index, name in enumerate(names, 1):
        try:
            below = open_directory(name, found, listed and index == len(names))
        finally:
            os.close(found)
        found = below
    return found


def open_directory(name: str, parent: int, listed: bool = False) -> int:
    """Open a directory below another one, to work below it or, with ``listed``, in it as well."""
    return calls.descriptor_of(_directory(name, parent, listed))


def _directory(name: str, parent: int | None, listed: bool) -> int:
    access = types.LIST_AND_TRAVERSE if listed else types.READ_ATTRIBUTES
    return calls.open_native(name, parent, access, types.SHARE_ALL, types.DIRECTORY_FILE)


def open_entry(name: str, directory: int) -> int:
    """Open a file only to look at it: others may write to it."""
    return calls.descriptor_of(
        calls.open_native(name, directory, types.READ, types.SHARE_ALL, types.NON_DIRECTORY_FILE)
    )


def open_file(name: str, directory: int, key: InodeKey, writable: bool = False) -> int:
    """Open ``name`` if it is the regular file ``key``; raise ChangedError if it is not.

    OSError with ``EAGAIN``: somebody has it open for writing. Nobody can open it so until it is closed.
    """
    wanted = types.READ | types.WRITE if writable else types.READ | types.WRITE_ATTRIBUTES
    try:
        handle = calls.open_native(name, directory, wanted, types.SHARE_NO_WRITE, types.NON_DIRECTORY_FILE)
    except PermissionError:
        if writable:
            raise
        handle = calls.open_native(
            name, directory, types.READ, types.SHARE_NO_WRITE, types.NON_DIRECTORY_FILE
        )
    descriptor = calls.descriptor_of(handle, writable)
    stat = os.fstat(descriptor)
    if not stat_module.S_ISREG(stat.st_mode) or (stat.st_dev, stat.st_ino) != key:
        os.close(descriptor)
        raise ChangedError(name)
    return descriptor


def create(name: str, directory: int) -> int:
    """Make an empty file and open it to read and write, and to say who may do what with it."""
    access = types.READ | types.WRITE | types.WRITE_DACL
    options = types.NON_DIRECTORY_FILE
    handle = calls.open_native(name, directory, access, types.SHARE_NO_WRITE, options, types.CREATE)
    return calls.descriptor_of(handle, writable=True)


def stat_at(name: str, directory: int) -> os.stat_result:
    """Return what ``name`` stands for now; a reparse point is an error."""
    descriptor = calls.descriptor_of(
        calls.open_native(name, directory, types.READ_ATTRIBUTES, types.SHARE_ALL, 0)
    )
    try:
        return os.fstat(descriptor)
    finally:
        os.close(descriptor)


def scan(directory: int) -> list[os.DirEntry[str]]:
    """Return what an open directory holds, by its path."""
    with os.scandir(calls.path_of(directory)) as scanned:
        return list(scanned)


def entry_stat(entry: os.DirEntry[str], directory: int) -> os.stat_result:
    """Return what is there now; a directory knows neither the number nor the names of a file."""
    return stat_at(entry.name, directory)


def lstat(path: str) -> os.stat_result:
    """Return what a path stands for, just as :func:`stat_at` would: ``os.lstat`` makes some executable."""
    directory, _, name = path.replace("\\", "/").rpartition("/")
    parent = calls.descriptor_of(_directory(types.native_path(f"{directory}/"), None, listed=False))
    try:
        return stat_at(name, parent)
    finally:
        os.close(parent)


def names_in(directory: int) -> list[str]:
    """List an open directory, by its path."""
    return os.listdir(calls.path_of(directory))


def make_directory(name: str, directory: int) -> None:
    """Make a directory, with the rights that its parent gives."""
    calls.close_handle(
        calls.open_native(
            name, directory, types.LIST_AND_TRAVERSE, types.SHARE_ALL, types.DIRECTORY_FILE, types.CREATE
        )
    )


def _remove(name: str, directory: int, options: int) -> None:
    handle = calls.open_native(name, directory, types.DELETE, types.SHARE_ALL, options)
    try:
        content = types.DISPOSE_POSIX.to_bytes(4, "little")
        code = calls.set_information(handle, types.DISPOSITION_INFORMATION_EX, content)
        if code in UNKNOWN_CALL:
            code = calls.set_information(handle, types.DISPOSITION_INFORMATION, b"\1")
        if code:
            raise calls.error(code, name)
    finally:
        calls.close_handle(handle)


def remove_directory(name: str, directory: int) -> None:
    """Remove an empty directory."""
    _remove(name, directory, types.DIRECTORY_FILE)


def unlink(name: str, directory: int) -> None:
    """Remove a name that is no directory's."""
    _remove(name, directory, types.NON_DIRECTORY_FILE)


def rename(source: str, source_directory: int, target: str, target_directory: int) -> None:
    """Give what ``source`` stands for the name ``target`` instead, whatever that stood for.

    OSError with ``ETXTBSY``: that is in use, as a library that is loaded is.
    """
    handle = calls.open_native(source, source_directory, types.DELETE, types.SHARE_ALL, 0)
    try:
        place = calls.handle_of(target_directory)
        content = types.named(place, target, types.RENAME_POSIX)
        code = calls.set_information(handle, types.RENAME_INFORMATION_EX, content)
        if code in UNKNOWN_CALL:
            code = calls.set_information(handle, types.RENAME_INFORMATION, types.named(place, target, 1))
        if code == ERROR_ACCESS_DENIED:
            raise OSError(errno.ETXTBSY, os.strerror(errno.ETXTBSY), target)
        if code:
            raise calls.error(code, target)
    finally:
        calls.close_handle(handle)


def link(source: str, source_directory: int, target: str, target_directory: int) -> None:
    """Give what ``source`` stands for the further name ``target``."""
    handle = calls.open_native(
        source, source_directory, types.READ_ATTRIBUTES | types.WRITE_ATTRIBUTES, types.SHARE_ALL, 0
    )
    try:
        _link(handle, target_directory, target)
    finally:
        calls.close_handle(handle)


def link_descriptor(descriptor: int, directory: int, name: str) -> None:
    """Give the file open as ``descriptor`` a further name in ``directory``."""
    _link(calls.handle_of(descriptor), directory, name)


def _link(handle: int, directory: int, name: str) -> None:
    content = types.named(calls.handle_of(directory), name, 0)
    code = calls.set_information(handle, types.LINK_INFORMATION, content)
    if code:
        raise calls.error(code, name)


def exchange(first_dir: int, first: str, second_dir: int, second: str) -> None:
    """Say that two names cannot be exchanged in one step."""
    raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))


def is_private(directory: int) -> bool:
    """Take it as it is: who else gets in is told by the rights that it has from its parent."""
    return True


def pread(descriptor: int, length: int, offset: int) -> bytes:
    """Read at a place; a descriptor is used by one thread at a time."""
    os.lseek(descriptor, offset, os.SEEK_SET)
    return os.read(descriptor, length)


def pwrite(descriptor: int, content: bytes, offset: int) -> int:
    """Write at a place."""
    os.lseek(descriptor, offset, os.SEEK_SET)
    return os.write(descriptor, content)


def data_of(descriptor: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of all of it: holes are not told."""
    if size:
        yield 0, size


def set_times(descriptor: int, accessed_ns: int, modified_ns: int) -> None:
    """Set the times of an open file."""
    info = types.BasicInfo(
        LastAccessTime=types.file_time(accessed_ns), LastWriteTime=types.file_time(modified_ns)
    )
    calls.set_basic(calls.handle_of(descriptor), info)
