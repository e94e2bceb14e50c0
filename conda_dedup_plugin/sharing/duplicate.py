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
from .extents import layout_of
from .opening import as_planned, untouched
from .outcome import Outcome, SkipError
from .reflink import Reflinker
from .system import set_times
from .unshare import Unsharer
from .windows import open_file
from .windows_devices import cluster_of, duplicate_extents

if TYPE_CHECKING:
    from ..model import Inode, Scope
    from ..plan import Share
    from .opening import Directories


class Duplicator(Reflinker):
    """Shares inodes by block cloning, for one run. Use as a context manager."""

    def _share(self, share: Share) -> Outcome:
        keeper = self._open_keeper(share.keeper)
        if not as_planned(os.fstat(keeper), share.keeper):
            raise SkipError(Reason.CHANGED)
        descriptor = _open_writable(self._scope, self._directories, share.duplicate)
        try:
            stat = os.fstat(descriptor)
            if not as_planned(stat, share.duplicate):
                raise SkipError(Reason.CHANGED)
            before = layout_of(descriptor)
            if before is None:
                raise SkipError(Reason.UNSUPPORTED)
            _give(keeper, descriptor, stat)
            after, keeps = layout_of(descriptor), layout_of(keeper)
            if after is None or keeps is None:
                raise SkipError(Reason.NOT_SHARED)
            freed = self._freed(share, before, after, keeps)
        finally:
            os.close(descriptor)
        self._done.append((self._change(share), freed))
        return Outcome(share.duplicate, self.method, freed, extents=(len(before.extents), len(after.extents)))


class ClusterUnsharer(Unsharer):
    """Gives inodes clusters of their own, for one run. Use as a context manager."""

    def _unshare(self, inode: Inode) -> Outcome:
        descriptor = _open_writable(self._scope, self._directories, inode)
        try:
            stat = os.fstat(descriptor)
            name = inode.names[0]
            root = self._scope.trees[name.tree].root
            staging = self._stagings.near(root, name.path, inode.key.device)
            made, copy, key = staging.new_file()
            try:
                copy_bytes(descriptor, copy)
                os.fsync(copy)
                _give(copy, descriptor, stat)
            finally:
                os.close(copy)
                staging.drop(made, key)
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
