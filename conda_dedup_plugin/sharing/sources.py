"""The source of bytecode: its modification time goes with the bytecode, all of it or none.

CPython takes a ``.pyc`` as valid when its header has the mtime and the size of the ``.py``. So the headers
of what lies there are the truth: whatever happens, the source ends with the time that they speak of.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from .. import pyc
from ..model import Inode, InodeKey, Method, Reason
from . import leases
from .change import Change
from .leases import Lease
from .opening import as_planned, open_inode, open_name
from .outcome import SkipError
from .system import names_in, pread, set_times, stat_at

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..model import Scope, Source
    from .opening import Directories

_CACHE = "__pycache__"


class OpenSource:
    """One ``.py``, open and leased for a batch, with the time that it is to get."""

    def __init__(self, scope: Scope, source: Source, directories: Directories) -> None:
        self.inode = source.inode
        self.mtime_ns = source.mtime_ns
        name = source.inode.names[0]
        self.root = scope.trees[name.tree].root
        self.path = name.path
        #: What was written down before it gets its time has this number in the journal.
        self.number = 0
        #: The change of its time is over, or taken back.
        self.resolved = False
        self.descriptor = open_inode(scope, source.inode, directories)
        try:
            stat = os.fstat(self.descriptor)
            if not as_planned(stat, self.inode):
                raise SkipError(Reason.CHANGED)
            if self.mtime_ns != self.inode.mtime_ns and stat.st_nlink != 1:
                raise SkipError(Reason.NAMES_OUTSIDE)
            if leases.take(self.descriptor) is Lease.BUSY:
                raise SkipError(Reason.BUSY)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close it; with the descriptor goes the lease."""
        os.close(self.descriptor)

    def change(self) -> Change:
        """What is written down before it gets its time."""
        given = Inode.of(os.fstat(self.descriptor))
        given.mtime_ns = self.mtime_ns
        return Change.of(Method.RETIME, self.root, self.path, "", self.inode, given)

    def begin(self) -> None:
        """Give it its time; SkipError: somebody writes to it. Done twice it does no more."""
        if self.is_written():
            raise SkipError(Reason.BUSY)
        stat = os.fstat(self.descriptor)
        if stat.st_mtime_ns != self.mtime_ns:
            set_times(self.descriptor, stat.st_atime_ns, self.mtime_ns)

    def is_written(self) -> bool:
        """Whether somebody wrote to it since it was opened, or is about to."""
        if leases.take(self.descriptor) is Lease.BUSY:
            return True
        stat = os.fstat(self.descriptor)
        return stat.st_size != self.inode.size or stat.st_mtime_ns not in (self.mtime_ns, self.inode.mtime_ns)

    def finish(self, directories: Directories) -> None:
        """See that it ends with the time that its bytecode speaks of."""
        _settle(self.change(), self.descriptor, directories)
        self.resolved = True


def settle_time(change: Change, directories: Directories) -> str:
    """See to a source that a killed run may have given another time; returns the state to note."""
    directory, name = directories.parent(change.root, change.path)
    stat = stat_at(name, directory)
    if stat.st_ino == change.old.number:
        descriptor = open_name(directory, name, InodeKey(stat.st_dev, stat.st_ino))
        try:
            _settle(change, descriptor, directories)
        finally:
            os.close(descriptor)
    return "dropped"


def _settle(change: Change, descriptor: int, directories: Directories) -> None:
    """Of the two times that a source may have, give it that for which more of its bytecode is valid."""
    stat = os.fstat(descriptor)
    times = (change.mtime_ns, change.keeper_mtime_ns)
    if stat.st_size != change.size or stat.st_mtime_ns not in times or stat.st_nlink != 1:
        return  # somebody wrote to it since
    headers = list(_headers(change, directories))
    # the first of equals: the time that it had
    best = max(times, key=lambda time: sum(header.fits(time, stat.st_size) for header in headers))
    if best != stat.st_mtime_ns:
        set_times(descriptor, stat.st_atime_ns, best)


def _headers(change: Change, directories: Directories) -> Iterable[pyc.Header]:
    below, _, source = change.path.rpartition("/")
    cache = f"{below}/{_CACHE}" if below else _CACHE
    for name, descriptor in compiled_of(change.root, cache, source, directories):
        content = pread(descriptor, pyc.HEADER.size + 1, 0)
        os.close(descriptor)
        header = pyc.Header.of(content)
        if header is not None and pyc.source_of(f"{cache}/{name}") is not None:
            yield header


def compiled_of(root: str, cache: str, source: str, directories: Directories) -> Iterable[tuple[str, int]]:
    """Yield (name, descriptor) of every regular file in ``cache`` that is compiled from ``source``."""
    try:
        directory, _ = directories.parent(root, f"{cache}/x")
        names = sorted(names_in(directory))
    except FileNotFoundError:
        return
    for name in names:
        if not pyc.is_compiled_of(name, source):
            continue
        try:
            stat = stat_at(name, directory)
            yield name, open_name(directory, name, InodeKey(stat.st_dev, stat.st_ino))
        except OSError:
            continue  # gone meanwhile, or nothing that Python would read
