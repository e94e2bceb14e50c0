"""Whole-file reflinks on ReFS: the duplicate gets the clusters of its keeper, and stays the inode it is.

Unlike Linux, Windows does not compare what it shares. So both are open here, in a way that nobody can
write to them, while they are compared and shared: see :mod:`.windows`.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ..model import Reason
from .compare import same_bytes
from .extents import layout_of
from .opening import as_planned, untouched
from .outcome import Outcome, SkipError
from .reflink import Reflinker
from .system import set_times
from .windows import open_file
from .windows_devices import cluster_of, duplicate_extents

if TYPE_CHECKING:
    from ..model import Inode
    from ..plan import Share


class Duplicator(Reflinker):
    """Shares inodes by block cloning, for one run. Use as a context manager."""

    def _share(self, share: Share) -> Outcome:
        keeper = self._open_keeper(share.keeper)
        if not as_planned(os.fstat(keeper), share.keeper):
            raise SkipError(Reason.CHANGED)
        descriptor = self._open_writable(share.duplicate)
        try:
            stat = os.fstat(descriptor)
            if not as_planned(stat, share.duplicate):
                raise SkipError(Reason.CHANGED)
            before = layout_of(descriptor)
            if before is None:
                raise SkipError(Reason.UNSUPPORTED)
            if not same_bytes(keeper, descriptor, stat.st_size):
                raise SkipError(Reason.DIFFERENT)
            if not untouched(stat, os.fstat(descriptor)):
                raise SkipError(Reason.CHANGED)
            duplicate_extents(keeper, descriptor, stat.st_size, cluster_of(descriptor))
            set_times(descriptor, stat.st_atime_ns, stat.st_mtime_ns)
            after, keeps = layout_of(descriptor), layout_of(keeper)
            if after is None or keeps is None:
                raise SkipError(Reason.NOT_SHARED)
            freed = self._freed(share, before, after, keeps)
        finally:
            os.close(descriptor)
        self._done.append((self._change(share), freed))
        return Outcome(share.duplicate, self.method, freed, extents=(len(before.extents), len(after.extents)))

    def _open_writable(self, inode: Inode) -> int:
        name = inode.names[0]
        directory, last = self._directories.parent(self._scope.trees[name.tree].root, name.path)
        return open_file(last, directory, inode.key, writable=True)
