"""Whole-file reflinks on ReFS, and back: an inode gets the clusters of another one, and stays what it is.

Unlike Linux, Windows does not compare what it shares. So both are open here, in a way that nobody can
write to them, while they are compared and shared: see :mod:`.windows`.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ..model import Method, Reason
from .change import Change
from .compare import same_bytes
from .copying import copy_bytes
from .opening import as_planned, untouched
from .outcome import Outcome, SkipError
from .reflink import Reflinker
from .system import set_times
from .unshare import Unsharer
from .windows import open_file
from .windows_devices import cluster_of, duplicate_extents

if TYPE_CHECKING:
    from ..model import Inode, Layout, Scope
    from ..plan import Share
    from .opening import Directories


class Duplicator(Reflinker):
    """Shares inodes by block cloning, for one run. Use as a context manager."""

    def _open_keeper(self, inode: Inode) -> int:
        descriptor = super()._open_keeper(inode)
        if not as_planned(os.fstat(descriptor), inode):
            raise SkipError(Reason.CHANGED)
        return descriptor

    def _open_duplicate(self, inode: Inode) -> int:
        return _open_writable(self._scope, self._directories, inode)

    def _give(self, share: Share, keeper: int, duplicate: int, stat: os.stat_result, before: Layout) -> None:
        _give(keeper, duplicate, stat)


class ClusterUnsharer(Unsharer):
    """Gives inodes clusters of their own, for one run. Use as a context manager."""

    def _unshare(self, inode: Inode) -> Outcome:
        descriptor = _open_writable(self._scope, self._directories, inode)
        try:
            stat = os.fstat(descriptor)
            name = inode.names[0]
            root = self._scope.trees[name.tree].root
            staging = self._stagings.near(root, name.path, inode.key.device)
            with staging.scratch() as copy:
                copy_bytes(descriptor, copy)
                os.fsync(copy)
                _give(copy, descriptor, stat)
        finally:
            os.close(descriptor)
        change = Change.of(Method.COPY, root, name.path, "", inode, inode)
        self._done.append((change, -inode.disk_bytes))
        return Outcome(inode, Method.COPY, -inode.disk_bytes)


def _open_writable(scope: Scope, directories: Directories, inode: Inode) -> int:
    name = inode.names[0]
    directory, last = directories.parent(scope.trees[name.tree].root, name.path)
    return open_file(last, directory, inode.key, writable=True)


def _give(source: int, target: int, stat: os.stat_result) -> None:
    """Have the bytes of ``target``, which had ``stat`` when it was opened, where those of ``source`` are.

    SkipError: they are not the same bytes.
    """
    if not same_bytes(source, target, stat.st_size):
        raise SkipError(Reason.DIFFERENT)
    if not untouched(stat, os.fstat(target)):
        raise SkipError(Reason.CHANGED)
    duplicate_extents(source, target, stat.st_size, cluster_of(target))
    set_times(target, stat.st_atime_ns, stat.st_mtime_ns)
