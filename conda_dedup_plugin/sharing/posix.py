"""Files and directories by descriptor, as POSIX has it: what Linux and macOS have in common.

A name is always one component below an open directory, and never followed if it is a symbolic link.
"""

from __future__ import annotations

import errno
import os
import stat as stat_module
import sys
from typing import TYPE_CHECKING

from ..model import Reason
from .outcome import ChangedError, SkipError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..model import InodeKey

assert sys.platform != "win32"

#: On Linux a directory may be used by those who may not list it.
_SEARCH = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | getattr(os, "O_PATH", 0)
_LIST = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
#: Whatever else reads a longer path could not.
_LONGEST_PATH = 4096

lstat = os.lstat
pread = os.pread
pwrite = os.pwrite


def scan(directory: int) -> list[os.DirEntry[str]]:
    """Return what a directory opened with ``listed`` holds."""
    with os.scandir(directory) as scanned:
        return list(scanned)


def user() -> int:
    """Who works here, as :attr:`.PlanOptions.euid` wants it."""
    return os.geteuid()


def open_root(root: str, listed: bool = False) -> int:
    """Open the directory at a real path; no component of it may have become a symbolic link since.

    Whoever owns a directory above a tree could otherwise have us work anywhere, under the tree's name.
    """
    if len(os.fsencode(root)) >= _LONGEST_PATH:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), root)
    found = os.open("/", _SEARCH)
    names = [name for name in root.split("/") if name]
    for index, name in enumerate(names, 1):
        try:
            below = open_directory(name, found, listed and index == len(names))
        finally:
            os.close(found)
        found = below
    return found


def open_directory(name: str, parent: int, listed: bool = False) -> int:
    """Open a directory, to work below it or, with ``listed``, to list and lock it as well."""
    return os.open(name, _LIST if listed else _SEARCH, dir_fd=parent)


def open_entry(name: str, directory: int) -> int:
    """Open what may be a file for reading, without waiting for anybody."""
    return os.open(name, _READ, dir_fd=directory)


def open_file(name: str, directory: int, key: InodeKey) -> int:
    """Open ``name`` for reading if it is the regular file ``key``; raise ChangedError if it is not.

    A fifo or a device is opened only if it came there in between, and then without waiting.
    """
    _expect(stat_at(name, directory), key, name)
    descriptor = open_entry(name, directory)
    try:
        _expect(os.fstat(descriptor), key, name)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _expect(stat: os.stat_result, key: InodeKey, name: str) -> None:
    if not stat_module.S_ISREG(stat.st_mode) or (stat.st_dev, stat.st_ino) != key:
        raise ChangedError(name)


def create(name: str, directory: int) -> int:
    """Make an empty file that nobody else can open, and open it to read and write."""
    return os.open(name, _CREATE, 0o600, dir_fd=directory)


def stat_at(name: str, directory: int) -> os.stat_result:
    """Return what ``name`` stands for now."""
    return os.stat(name, dir_fd=directory, follow_symlinks=False)


def entry_stat(entry: os.DirEntry[str], directory: int) -> os.stat_result:
    """Return the same of what :func:`scan` gave for ``directory``."""
    return entry.stat(follow_symlinks=False)


def names_in(directory: int) -> list[str]:
    """List an open directory, also one that was not opened for that."""
    listed = os.open(".", _LIST, dir_fd=directory)
    try:
        return os.listdir(listed)
    finally:
        os.close(listed)


def make_directory(name: str, directory: int) -> None:
    """Make a directory for ourselves alone."""
    os.mkdir(name, 0o700, dir_fd=directory)


def remove_directory(name: str, directory: int) -> None:
    """Remove an empty directory."""
    os.rmdir(name, dir_fd=directory)


def unlink(name: str, directory: int) -> None:
    """Remove a name that is no directory's."""
    os.unlink(name, dir_fd=directory)


def rename(source: str, source_directory: int, target: str, target_directory: int) -> None:
    """Give what ``source`` stands for the name ``target`` instead, whatever that stood for."""
    os.rename(source, target, src_dir_fd=source_directory, dst_dir_fd=target_directory)


def link(source: str, source_directory: int, target: str, target_directory: int) -> None:
    """Give what ``source`` stands for the further name ``target``."""
    os.link(
        source, target,
        src_dir_fd=source_directory, dst_dir_fd=target_directory, follow_symlinks=False,
    )  # fmt: skip


def is_private(directory: int) -> bool:
    """Whether an open directory is ours, and nobody else gets into it."""
    stat = os.fstat(directory)
    return stat.st_uid == os.geteuid() and not stat.st_mode & 0o077


def is_gone(descriptor: int) -> bool:
    """Whether an open file has no name any more."""
    return os.fstat(descriptor).st_nlink == 0


def set_times(descriptor: int, accessed_ns: int, modified_ns: int) -> None:
    """Set the times of an open file."""
    os.utime(descriptor, ns=(accessed_ns, modified_ns))


def data_of(descriptor: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of what is no hole."""
    end = 0
    while end < size:
        try:
            start = os.lseek(descriptor, end, os.SEEK_DATA)
            end = min(os.lseek(descriptor, start, os.SEEK_HOLE), size)
        except OSError as exc:
            if exc.errno == errno.ENXIO:
                return  # a hole up to the end
            start, end = end, size  # a file system that cannot tell
        yield start, end


def give_owner(stat: os.stat_result, target: int) -> None:
    """Give an open file the owner that ``stat`` tells. SkipError: that may not be."""
    now = os.fstat(target)
    if (now.st_uid, now.st_gid) != (stat.st_uid, stat.st_gid):
        try:
            os.fchown(target, stat.st_uid, stat.st_gid)
        except PermissionError as exc:
            raise SkipError(Reason.OTHER_OWNER) from exc


def free_bytes(directory: str) -> int:
    """Return how many bytes may be written to the device of a directory."""
    numbers = os.statvfs(directory)
    return (numbers.f_bavail if os.geteuid() else numbers.f_bfree) * numbers.f_frsize
