"""What interrupted runs left in trees, and which of it can go without losing anything."""

from __future__ import annotations

import os
import stat as stat_module
from contextlib import suppress
from typing import TYPE_CHECKING

from msgspec import Struct

from . import state
from .errors import StateError
from .model import NO_USER, STAGING_PREFIX, InodeKey
from .sharing.compare import same_bytes
from .sharing.opening import Directories, open_inode, open_name
from .sharing.system import remove_directory, stat_at, unlink, user

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from .inventory import Inventory
    from .model import Inode, Scope


class Leftover(Struct, frozen=True):
    """A name of ours that a run left behind: ``path`` in the tree at ``root``, a directory or a file."""

    root: str
    path: str
    directory: bool
    size: int

    def __str__(self) -> str:
        return f"{self.root}/{self.path}"


def find_leftovers(scope: Scope) -> list[Leftover]:
    """Return what our runs left in the selected trees, the content of a directory before itself."""
    roots = {tree.root for tree in scope.trees}
    return [left for tree in scope.trees if tree.selected for left in _below(tree.root, roots)]


def _below(root: str, roots: Collection[str]) -> Iterator[Leftover]:
    """Yield those of one tree; what is in a tree inside it is that one's, and so is its lock."""
    for folder, folders, names in os.walk(root):
        below = folder[len(root) + 1 :].replace(os.sep, "/")
        for name in [*folders, *names]:
            if name.startswith(STAGING_PREFIX):
                yield from _leftover(root, f"{below}/{name}".lstrip("/"))
        folders[:] = [
            name
            for name in folders
            if not name.startswith(STAGING_PREFIX) and f"{folder}/{name}".replace(os.sep, "/") not in roots
        ]


def _leftover(root: str, path: str) -> Iterator[Leftover]:
    with suppress(OSError):
        stat = os.lstat(f"{root}/{path}")
        directory = stat_module.S_ISDIR(stat.st_mode)
        if directory:
            for name in sorted(os.listdir(f"{root}/{path}")):
                yield from _leftover(root, f"{path}/{name}")
        yield Leftover(root, path, directory, 0 if directory else stat.st_size)


def remove_leftovers(leftovers: Sequence[Leftover], inventory: Inventory) -> tuple[list[Leftover], list[str]]:
    """Remove what holds nothing of its own; returns what is gone, and a sentence for what is not.

    A file goes only if its inode has another name, or another file in scope holds the same bytes; a
    directory only when it is empty. Trees that a run is working on are left to it.
    """
    gone: list[Leftover] = []
    notes: list[str] = []
    with Directories() as directories:
        for root in dict.fromkeys(left.root for left in leftovers):
            here = [left for left in leftovers if left.root == root]
            try:
                with state.lock(root) as ours:
                    if ours:
                        _remove_all(here, inventory, directories, gone, notes)
                    else:
                        notes.append(f"{root!r} is left alone: another run is working on it")
            except StateError as exc:
                notes.append(f"{root!r} is left alone: {exc}")
    return gone, notes


def _remove_all(
    leftovers: Sequence[Leftover],
    inventory: Inventory,
    directories: Directories,
    gone: list[Leftover],
    notes: list[str],
) -> None:
    for left in leftovers:
        try:
            kept = _remove(left, inventory, directories)
        except OSError as exc:
            kept = exc.strerror or str(exc)
        if kept:
            notes.append(f"{str(left)!r} stays: {kept}")
        else:
            gone.append(left)


def _remove(left: Leftover, inventory: Inventory, directories: Directories) -> str:
    """Remove one; returns why it stays, if it does."""
    directory, name = directories.parent(left.root, left.path)
    stat = stat_at(name, directory)
    if user() not in (NO_USER, stat.st_uid):
        return "it belongs to another user"
    if left.directory:
        with suppress(OSError):
            remove_directory(name, directory)
            return ""
        return "it is not empty"
    if not stat_module.S_ISREG(stat.st_mode):
        return "it is no regular file"
    if stat.st_nlink == 1:
        key = InodeKey(stat.st_dev, stat.st_ino)
        descriptor = open_name(directory, name, key)
        try:
            if not _is_held(descriptor, stat.st_size, key, inventory):
                return "no other file has its content; compare it with its neighbour, then remove one of them"
        finally:
            os.close(descriptor)
    unlink(name, directory)
    return ""


def _is_held(descriptor: int, size: int, key: InodeKey, inventory: Inventory) -> bool:
    """Whether another file in scope has the same bytes."""
    if size == 0:
        return True
    return any(
        _same(descriptor, inode, inventory.scope)
        for inode in inventory.inodes.values()
        if inode.size == size and inode.key != key
    )


def _same(descriptor: int, inode: Inode, scope: Scope) -> bool:
    try:
        other = open_inode(scope, inode)
    except OSError:
        return False
    try:
        return os.fstat(other).st_size == inode.size and same_bytes(descriptor, other, inode.size)
    except OSError:
        return False
    finally:
        os.close(other)
