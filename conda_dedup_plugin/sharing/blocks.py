"""Equal blocks of files that differ elsewhere: the kernel compares and shares run by run.

Where a file system keeps an extent as long as any byte of it is in use (btrfs), what differs moves to extents
of its own, or else nothing would be freed. No bytes of any file change, whatever happens.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ..layouts import packed_bytes, total
from ..model import Extent, Layout, Method, Reason
from .copying import copy_range
from .outcome import SkipError
from .reflink import Reflinker, dedupe, moved_bytes
from .stagings import Stagings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..journal import Journal
    from ..model import Device, Inode, Scope
    from ..plan import Share


class BlockSharer(Reflinker):
    """Shares runs of blocks, for one run of ours. Use as a context manager."""

    method = Method.BLOCKS

    def __init__(self, scope: Scope, journal: Journal, devices: Mapping[int, Device]) -> None:
        super().__init__(scope, journal)
        self._devices = devices
        self._stagings = Stagings(journal, self._directories)

    def __exit__(self, *exception: object) -> None:
        self._stagings.close()
        super().__exit__(*exception)

    def _give(self, share: Share, keeper: int, duplicate: int, stat: os.stat_result, before: Layout) -> None:
        pins = self._devices[share.duplicate.key.device].pins_extents
        rest = _outside(before.unshared, share.runs, share.duplicate.size) if pins else []
        if rest:
            self._move(share.duplicate, duplicate, rest)
        for offset, length in share.runs:
            dedupe(keeper, duplicate, length, offset)

    def _freed(self, share: Share, before: Layout, after: Layout, keeper: Layout) -> int:
        moved = moved_bytes(before, after)
        if moved <= 0:
            raise SkipError(Reason.NOT_SHARED)
        freed = packed_bytes(share.duplicate, moved)
        if not self._devices[share.duplicate.key.device].pins_extents:
            return freed
        if moved < total(before.unshared):
            return 0  # what is left of the old extents keeps all of them
        return max(0, freed - total(after.unshared))

    def _move(self, inode: Inode, descriptor: int, rest: Sequence[tuple[int, int]]) -> None:
        """Give runs of a file extents of their own, by way of a file in staging."""
        name = inode.names[0]
        root = self._scope.trees[name.tree].root
        staging = self._stagings.near(root, name.path, inode.key.device)
        with staging.scratch() as copy:
            for offset, length in rest:
                copy_range(descriptor, copy, offset, length)
            os.ftruncate(copy, inode.size)
            os.fsync(copy)
            for offset, length in rest:
                dedupe(copy, descriptor, length, offset)


def _outside(extents: Sequence[Extent], runs: Sequence[tuple[int, int]], size: int) -> list[tuple[int, int]]:
    """Return what of extents lies in none of the runs, as (offset, length), up to the size of the file."""
    rest = []
    for extent in extents:
        start, end = extent.logical, min(extent.logical + extent.length, size)
        for offset, length in runs:
            if offset < end and offset + length > start:  # it may go on from extent to extent
                if offset > start:
                    rest.append((start, offset - start))
                start = offset + length
        if start < end:
            rest.append((start, end - start))
    return rest
