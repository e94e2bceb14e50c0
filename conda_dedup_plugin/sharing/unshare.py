"""Taking a reflink back: an inode gets extents of its own again, in place.

The kernel itself compares and exchanges the extents, so no content can change whatever happens.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ..layouts import CompressedSizes
from ..model import Layout, Method, Reason
from .change import Change
from .copying import copy_bytes
from .extents import layout_of
from .opening import Directories, open_inode
from .outcome import Outcome, SkipError, outcome_of_error
from .reflink import dedupe
from .stagings import Stagings

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ..journal import Journal
    from ..model import Inode, Scope

#: Results are written to the journal so many at a time.
_MOST = 200


class Unsharer:
    """Gives inodes extents of their own, for one run. Use as a context manager."""

    def __init__(self, scope: Scope, journal: Journal) -> None:
        self._scope = scope
        self._journal = journal
        self._directories = Directories()
        self._stagings = Stagings(journal, self._directories)
        self._done: list[tuple[Change, int]] = []

    def __enter__(self) -> Unsharer:
        return self

    def __exit__(self, *exception: object) -> None:
        self._stagings.close()
        self._directories.close()
        self._write()

    def run(self, inodes: Iterable[Inode]) -> Iterator[Outcome]:
        """Do them one by one and tell what came of each. One that fails stops no other."""
        for inode in inodes:
            try:
                yield self._unshare(inode)
            except OSError as exc:
                yield outcome_of_error(inode, exc)
            self._directories.trim()
            if len(self._done) >= _MOST:
                self._write()

    def _unshare(self, inode: Inode) -> Outcome:
        descriptor = open_inode(self._scope, inode, self._directories)
        try:
            layout = layout_of(descriptor)
            if layout is None or not layout.shared:
                return Outcome(inode, Method.COPY)
            name = inode.names[0]
            root = self._scope.trees[name.tree].root
            staging = self._stagings.near(root, name.path, inode.key.device)
            with staging.scratch() as copy:
                copy_bytes(descriptor, copy)
                os.fsync(copy)
                dedupe(copy, descriptor, os.fstat(copy).st_size)
                now, own = layout_of(descriptor), layout_of(copy)
        finally:
            os.close(descriptor)
        if now is None or own is None or now.extents != own.extents:
            raise SkipError(Reason.NOT_SHARED)
        sizes = CompressedSizes()
        sizes.add("", own)
        sizes.add("", layout)
        before = Layout(layout.unshared, shared=False, exact=True)
        taken = sizes.disk_bytes("", own) - sizes.disk_bytes("", before)
        change = Change.of(Method.COPY, root, name.path, "", inode, inode)
        self._done.append((change, -taken))
        return Outcome(inode, Method.COPY, -taken)

    def _write(self) -> None:
        if self._done:
            changes, freed = zip(*self._done, strict=True)
            self._done = []
            self._journal.done(changes, freed)
