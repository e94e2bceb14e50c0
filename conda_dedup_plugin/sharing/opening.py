"""Opening a planned file, and no other: component by component, never through a symbolic link."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from ..model import SETID_BITS
from .outcome import ChangedError
from .system import attributes_of, has_capabilities, open_directory, open_file, open_root

if sys.platform == "linux":
    from .linux import open_seen
else:

    def open_seen(name: str, directory: int, key: InodeKey) -> tuple[int, os.stat_result]:
        """Open a file as :func:`open_file` does, and tell what it is like."""
        descriptor = open_file(name, directory, key)
        return descriptor, os.fstat(descriptor)


if TYPE_CHECKING:
    from types import TracebackType

    from ..model import Inode, InodeKey, Scope


class Directories:
    """Directories of trees, opened once and kept until closed.

    Every component is opened below its parent with O_NOFOLLOW, so that no link leads out of the tree.
    """

    #: More open directories than this are closed before the next one is opened.
    MOST = 256
    #: No package has files so many directories deep.
    DEEPEST = 200

    def __init__(self) -> None:
        self._open: dict[tuple[str, str], int] = {}

    def __enter__(self) -> Directories:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._open)

    def close(self) -> None:
        """Close all of them."""
        while self._open:
            os.close(self._open.popitem()[1])

    def trim(self) -> None:
        """Close all if they have become many; only between two files."""
        if len(self._open) > self.MOST:
            self.close()

    def root(self, root: str) -> int:
        """Open the root of a tree (itself no link; its parents are the user's business)."""
        return self._get(root, "")

    def parent(self, root: str, path: str) -> tuple[int, str]:
        """Return the open parent directory of ``path`` below ``root``, and the last component."""
        directory, _, name = path.rpartition("/")
        if name in ("", ".", ".."):
            raise ChangedError(path)
        return self._get(root, directory), name

    def _get(self, root: str, directory: str) -> int:
        found = self._open.get((root, directory))
        if found is not None:
            return found
        found = self._open.get((root, ""))
        if found is None:
            found = self._open[(root, "")] = open_root(root)
        parts = directory.split("/") if directory else []
        if len(parts) > self.DEEPEST:
            raise ChangedError(directory)
        for depth, name in enumerate(parts, 1):
            if name in ("", ".", ".."):
                raise ChangedError(directory)
            path = "/".join(parts[:depth])
            below = self._open.get((root, path))
            if below is None:
                below = open_directory(name, found)
                self._open[(root, path)] = below
            found = below
        return found


def open_name(directory: int, name: str, key: InodeKey) -> int:
    """Open ``name`` for reading if it is the regular file ``key``; raise ChangedError if it is not."""
    return open_file(name, directory, key)


def open_inode(scope: Scope, inode: Inode, directories: Directories | None = None) -> int:
    """Open ``inode`` for reading by the first of its names that still leads to it."""
    if directories is None:
        with Directories() as own:
            return open_inode(scope, inode, own)
    return see_inode(scope, inode, directories)[0]


def see_inode(scope: Scope, inode: Inode, directories: Directories) -> tuple[int, os.stat_result]:
    """Open ``inode`` as :func:`open_inode` does, and tell what it was like then."""
    error: OSError | None = None
    for name in inode.names:
        try:
            directory, last = directories.parent(scope.trees[name.tree].root, name.path)
            return open_seen(last, directory, inode.key)
        except OSError as exc:
            error = exc
    raise error or ChangedError("no name")


def xattrs_of(descriptor: int) -> bytes:
    """Return all extended attributes (ACLs, labels and capabilities among them) as one comparable value."""
    return attributes_of(descriptor)


def is_privileged(stat: os.stat_result, attributes: bytes) -> bool:
    """Whether a file is setuid or setgid, or has file capabilities, by all its extended attributes."""
    return bool(stat.st_mode & SETID_BITS) or has_capabilities(attributes)


def as_planned(stat: os.stat_result, inode: Inode) -> bool:
    """Whether an open inode is what the plan speaks of: identity, size, mtime, mode, owner.

    Its ctime is no part of it: sharing itself changes that of a keeper.
    """
    return (
        (stat.st_dev, stat.st_ino) == inode.key
        and stat.st_size == inode.size
        and stat.st_mtime_ns == inode.mtime_ns
        and stat.st_mode == inode.mode
        and (stat.st_uid, stat.st_gid) == (inode.uid, inode.gid)
    )


def untouched(before: os.stat_result, after: os.stat_result) -> bool:
    """Whether nobody changed a file between two looks at the same descriptor."""
    return (before.st_size, before.st_mtime_ns, before.st_ctime_ns) == (
        after.st_size,
        after.st_mtime_ns,
        after.st_ctime_ns,
    )
