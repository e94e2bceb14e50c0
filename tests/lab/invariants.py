"""What must hold before and after sharing, judged from the file system alone: none of the code under test."""

from __future__ import annotations

import ctypes
import hashlib
import os
import stat
import time
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    Root = str | os.PathLike[str]


class State(NamedTuple):
    """One name on disk. ``content`` is the sha256 of a regular file, ``-> target`` of a symbolic link."""

    content: str
    size: int
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    xattrs: tuple[tuple[str, bytes], ...]
    device: int
    inode: int
    nlink: int
    disk_bytes: int


#: What no sharing may change. Inode, number of names and blocks are what sharing is about.
_KEPT = ("content", "size", "mode", "uid", "gid", "mtime_ns", "xattrs")


def snapshot(*roots: Root) -> dict[str, State]:
    """Every regular file and symbolic link below ``roots``, by path."""
    return {path: _state(path, found) for path, found in _files(roots)}


def directories(*roots: Root) -> set[str]:
    """Every directory below ``roots``, them included: nothing may be left behind."""
    return {folder for root in roots for folder, _, _ in os.walk(root)}


def assert_unchanged(
    before: Mapping[str, State],
    after: Mapping[str, State],
    allow_mtime: Callable[[str], bool] = lambda path: False,
) -> None:
    """The same paths, bytes and metadata; modification times may differ where ``allow_mtime(path)``."""
    gone, new = sorted(before.keys() - after.keys()), sorted(after.keys() - before.keys())
    assert not gone, f"{len(gone)} files are gone: {gone[:5]}"
    assert not new, f"{len(new)} files are new: {new[:5]}"
    wrong = []
    for path, old in before.items():
        fields = [name for name in _KEPT if getattr(old, name) != getattr(after[path], name)]
        if fields == ["mtime_ns"] and allow_mtime(path):
            continue
        wrong += [
            f"{path}: {name} {getattr(old, name)!r} -> {getattr(after[path], name)!r}" for name in fields
        ]
    assert not wrong, "\n".join([f"{len(wrong)} differences", *wrong[:20]])


def du(*paths: Root) -> int:
    """Disk bytes of all files below ``paths``, or of a path itself, every inode once; no directories."""
    inodes = {(found.st_dev, found.st_ino): found.st_blocks * 512 for _, found in _files(paths)}
    return sum(inodes.values())


def free_bytes(mount_point: Path) -> int:
    """Free bytes of a file system, when everything is written and deferred freeing has come to rest."""
    previous = -1
    for _ in range(100):
        _syncfs(mount_point)
        numbers = os.statvfs(mount_point)
        current = numbers.f_bfree * numbers.f_frsize
        if current == previous:
            return current
        previous = current
        time.sleep(0.05)
    raise AssertionError(f"{mount_point}: free space does not come to rest")


def content_duplicates(
    roots: list[Root] | tuple[Root, ...],
    min_size: int = 4096,
    accept: Callable[[str, os.stat_result], bool] = lambda path, found: True,
) -> int:
    """Disk bytes of regular files below ``roots`` whose content another inode of the device holds already.

    Every inode counts once, the first of each content not at all; an inode is looked at if one of its names
    is accepted. Shared extents are not known here.
    """
    inodes: dict[tuple[int, int], tuple[str, int]] = {}
    for path, found in _files(roots):
        if not stat.S_ISREG(found.st_mode) or found.st_size < min_size or not accept(path, found):
            continue
        inodes.setdefault((found.st_dev, found.st_ino), (path, found.st_blocks * 512))
    seen = set()
    duplicate = 0
    for (device, _), (path, disk_bytes) in inodes.items():
        content = (device, _sha256(path))
        if content in seen:
            duplicate += disk_bytes
        seen.add(content)
    return duplicate


def _files(roots: tuple[Root, ...] | list[Root]) -> Iterator[tuple[str, os.stat_result]]:
    """Every file below ``roots`` that is no directory, in a stable order."""
    for root in roots:
        if not os.path.isdir(root) or os.path.islink(root):
            yield os.fspath(root), os.lstat(root)
        for folder, subfolders, names in os.walk(root):
            subfolders.sort()
            links = [name for name in subfolders if os.path.islink(os.path.join(folder, name))]
            for name in sorted([*names, *links]):
                path = os.path.join(folder, name)
                yield path, os.lstat(path)


def _state(path: str, found: os.stat_result) -> State:
    if stat.S_ISLNK(found.st_mode):
        content = f"-> {os.readlink(path)}"
    elif stat.S_ISREG(found.st_mode):
        content = _sha256(path)
    else:
        content = f"special {stat.S_IFMT(found.st_mode):o}"
    return State(
        content,
        found.st_size,
        stat.S_IMODE(found.st_mode),
        found.st_uid,
        found.st_gid,
        found.st_mtime_ns,
        _xattrs(path),
        found.st_dev,
        found.st_ino,
        found.st_nlink,
        found.st_blocks * 512,
    )


def _xattrs(path: str) -> tuple[tuple[str, bytes], ...]:
    try:
        names = os.listxattr(path, follow_symlinks=False)
    except OSError:
        return ()  # a file system without
    return tuple((name, os.getxattr(path, name, follow_symlinks=False)) for name in sorted(names))


def _sha256(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _syncfs(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(descriptor):
            raise OSError(ctypes.get_errno(), "syncfs", str(path))
    finally:
        os.close(descriptor)
