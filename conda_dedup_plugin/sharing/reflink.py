"""Whole-file reflinks: the kernel locks both files, compares them and shares their extents.

Inode, mode, mtime and names stay as they are; no bytes change whatever happens (ioctl_fideduperange(2)).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ..layouts import common_bytes, packed_bytes, total
from ..model import Layout, Method, Reason
from .change import Change
from .extents import layout_of
from .opening import Directories, as_planned, open_inode
from .outcome import Outcome, SkipError, outcome_of_error, reason_of
from .probe import DEDUPE_HEADER, DEDUPE_INFO, FIDEDUPERANGE
from .system import ioctl

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ..journal import Journal
    from ..model import Inode, Scope
    from ..plan import Share

_CHUNK = 16 * 1024 * 1024
_DIFFERS = 1
#: Results are written to the journal so many at a time.
_MOST = 200


class Reflinker:
    """Shares inodes by reflinks, for one run. Use as a context manager."""

    method = Method.REFLINK

    def __init__(self, scope: Scope, journal: Journal) -> None:
        self._scope = scope
        self._journal = journal
        self._directories = Directories()
        self._keeper: tuple[Inode, int] | None = None
        self._done: list[tuple[Change, int]] = []

    def __enter__(self) -> Reflinker:
        return self

    def __exit__(self, *exception: object) -> None:
        self._close_keeper()
        self._directories.close()
        self._write()

    def run(self, shares: Iterable[Share]) -> Iterator[Outcome]:
        """Share them one by one and tell what came of each. One that fails stops no other."""
        for share in shares:
            try:
                yield self._share(share)
            except OSError as exc:
                yield outcome_of_error(share.duplicate, exc)
            self._directories.trim()
            if len(self._done) >= _MOST:
                self._write()

    def _share(self, share: Share) -> Outcome:
        keeper = self._open_keeper(share.keeper)
        descriptor = self._open_duplicate(share.duplicate)
        try:
            stat = os.fstat(descriptor)
            if not as_planned(stat, share.duplicate):
                raise SkipError(Reason.CHANGED)
            before = layout_of(descriptor)
            if before is None:
                raise SkipError(Reason.UNSUPPORTED)
            self._give(share, keeper, descriptor, stat, before)
            after, keeps = layout_of(descriptor), layout_of(keeper)
            if after is None or keeps is None:
                raise SkipError(Reason.NOT_SHARED)
            freed = self._freed(share, before, after, keeps)
        finally:
            os.close(descriptor)
        self._done.append((self._change(share), freed))
        return Outcome(share.duplicate, self.method, freed, extents=(len(before.extents), len(after.extents)))

    def _open_duplicate(self, inode: Inode) -> int:
        return open_inode(self._scope, inode, self._directories)

    def _give(self, share: Share, keeper: int, duplicate: int, stat: os.stat_result, before: Layout) -> None:
        """Share what is to be shared; ``stat`` is how the duplicate was opened, ``before`` where it lies."""
        dedupe(keeper, duplicate, share.duplicate.size)

    def _freed(self, share: Share, before: Layout, after: Layout, keeper: Layout) -> int:
        """Return the disk bytes gained, going by where both lie now: "same" proves nothing for a tail.

        What other inodes held as well is gained when the last of them gives it up.
        """
        if after.extents != keeper.extents and common_bytes(after, keeper) == 0:
            raise SkipError(Reason.NOT_SHARED)
        return packed_bytes(share.duplicate, moved_bytes(before, after))

    def _open_keeper(self, inode: Inode) -> int:
        if self._keeper is None or self._keeper[0] is not inode:
            self._close_keeper()
            try:
                descriptor = open_inode(self._scope, inode, self._directories)
            except OSError as exc:
                raise SkipError(Reason.KEEPER_GONE) from exc
            self._keeper = (inode, descriptor)
        descriptor = self._keeper[1]
        if os.fstat(descriptor).st_size != inode.size:
            raise SkipError(Reason.CHANGED)
        return descriptor

    def _close_keeper(self) -> None:
        if self._keeper is not None:
            os.close(self._keeper[1])
            self._keeper = None

    def _change(self, share: Share) -> Change:
        name = share.duplicate.names[0]
        root = self._scope.trees[name.tree].root
        return Change.of(self.method, root, name.path, "", share.duplicate, share.keeper)

    def _write(self) -> None:
        if self._done:
            changes, freed = zip(*self._done, strict=True)
            self._done = []
            self._journal.done(changes, freed)


def dedupe(keeper: int, duplicate: int, size: int, offset: int = 0) -> None:
    """Ask the kernel to share ``size`` bytes; SkipError if they differ, OSError if it will not."""
    end = offset + size
    while offset < end:
        length = min(_CHUNK, end - offset)
        buffer = bytearray(
            DEDUPE_HEADER.pack(offset, length, 1, 0, 0) + DEDUPE_INFO.pack(duplicate, offset, 0, 0, 0)
        )
        ioctl(keeper, FIDEDUPERANGE, buffer)
        _, _, shared, status, _ = DEDUPE_INFO.unpack_from(buffer, DEDUPE_HEADER.size)
        if status == _DIFFERS:
            raise SkipError(Reason.DIFFERENT)
        if status < 0:
            error = OSError(-status, os.strerror(-status))
            if reason_of(error) is Reason.IMMUTABLE:
                raise SkipError(Reason.NO_ACCESS)
            raise error
        if shared == 0:
            raise SkipError(Reason.NOT_SHARED)
        offset += min(shared, length)


def moved_bytes(before: Layout, after: Layout) -> int:
    """Return how many bytes of what a file held alone it no longer holds."""
    return total(before.unshared) - common_bytes(Layout(before.unshared, shared=False, exact=True), after)
