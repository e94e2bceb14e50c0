"""Private copies: names of an inode that others share too are exchanged for names of a copy of its own.

The same protocol as for sharing, with the copy in the keeper's place: a writer who has the shared inode
open, or comes before the exchange, keeps it.
"""

from __future__ import annotations

import abc
import contextlib
import os
from typing import TYPE_CHECKING

from msgspec import Struct

from ..layouts import disk_bytes_of
from ..model import Inode, Method, Reason
from . import leases
from .batches import READ_BEFORE_LEASE, Batches
from .compare import same_bytes
from .copying import copy_bytes, digest_of
from .job import Job, OpenFile, TaskT
from .opening import as_planned, is_privileged, open_inode, open_name, untouched, xattrs_of
from .outcome import SkipError
from .system import copy_metadata, is_gone, set_times

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..journal import Journal
    from ..model import InodeKey, Scope, Source
    from .change import Bytecode
    from .staging import Staging


class Copy(Struct, frozen=True):
    """Give these names of an inode (all that ``duplicate`` has) an inode of their own, with this mtime (ns).

    ``write`` and ``sha256`` (raw) are for a repair: what writes the right content to a descriptor, and the
    digest of that; without them the copy has the bytes that are there. With a ``source``, it is bytecode
    that goes back to what it was, and its source to the time that it had.
    """

    duplicate: Inode
    mtime_ns: int
    write: Callable[[int], None] | None = None
    sha256: bytes = b""
    source: Source | None = None
    bytecode: Bytecode | None = None


class _Made(Struct):
    """A copy under its own name in staging, which goes again when others have its names."""

    staging: Staging
    name: str
    key: InodeKey


class Replacer(Batches[TaskT]):
    """Gives the names of an inode to a new one that is made in staging, with the same metadata."""

    def __init__(self, scope: Scope, journal: Journal, method: Method) -> None:
        super().__init__(scope, journal, method)
        self._made: list[_Made] = []

    def _prepare(self, task: TaskT) -> Job[TaskT]:
        """Open, check, lease and copy it; raise OSError (SkipError with the reason) if it may not be."""
        descriptor = open_inode(self._scope, task.duplicate, self._directories)
        old = OpenFile(task.duplicate, descriptor, os.fstat(descriptor))
        try:
            self._check(task, old)
            self._sync_once(old)
            self._lease(old)
            if old.stat.st_size >= READ_BEFORE_LEASE:
                leases.give_back(descriptor)  # nobody is to wait for that
            job = Job(task, old, old)
            self._add_source(job)
            self._add_swaps(job)
            job.keeper = self._copy(task, old, job.swaps[0].staging)
            self._lease(old, job.keeper)
            if not untouched(old.stat, os.fstat(descriptor)):
                raise SkipError(Reason.CHANGED)
        except BaseException:
            os.close(descriptor)
            raise
        return job

    def _check(self, task: TaskT, old: OpenFile) -> None:
        """Raise SkipError if it may not be."""
        if not as_planned(old.stat, old.inode):
            raise SkipError(Reason.CHANGED)
        if is_privileged(old.stat, xattrs_of(old.descriptor)):
            raise SkipError(Reason.SETID)

    def _copy(self, task: TaskT, old: OpenFile, staging: Staging) -> OpenFile:
        """Make the new one in staging, whole and with all its metadata, and open it for reading."""
        name, key = self._make(task, old, staging)
        descriptor = open_name(staging.descriptor, name, key)
        stat = os.fstat(descriptor)
        self._keepers[key] = OpenFile(Inode.of(stat), descriptor, stat)
        return self._keepers[key]

    @abc.abstractmethod
    def _make(self, task: TaskT, old: OpenFile, staging: Staging) -> tuple[str, InodeKey]:
        """Make the new one and :meth:`_note` it as soon as it is there; return its name and inode."""

    def _note(self, staging: Staging, name: str, key: InodeKey) -> None:
        """Have the name of a new one go again at the end of the batch, when others have its names."""
        self._made.append(_Made(staging, name, key))

    def _close(self) -> None:
        while self._made:
            made = self._made.pop()
            with contextlib.suppress(OSError):
                made.staging.drop(made.name, made.key)
        super()._close()


class Privatizer(Replacer[Copy]):
    """Makes private copies, for one run: to undo what was shared, or to repair. Use as a context manager."""

    def __init__(self, scope: Scope, journal: Journal, method: Method = Method.COPY) -> None:
        super().__init__(scope, journal, method)

    def _prepare(self, task: Copy) -> Job[Copy]:
        job = super()._prepare(task)
        job.bytecode = task.bytecode
        return job

    def _make(self, task: Copy, old: OpenFile, staging: Staging) -> tuple[str, InodeKey]:
        name, writable, key = staging.new_file()
        self._note(staging, name, key)
        try:
            if task.write is None:
                copy_bytes(old.descriptor, writable)
                if not same_bytes(old.descriptor, writable, old.stat.st_size):
                    raise SkipError(Reason.CHANGED)
            else:
                task.write(writable)
                if digest_of(writable) != task.sha256:
                    raise SkipError(Reason.DIFFERENT)
            copy_metadata(old.descriptor, old.stat, writable)
            set_times(writable, old.stat.st_atime_ns, task.mtime_ns)
        finally:
            os.close(writable)
        return name, key

    def _freed(self, job: Job[Copy]) -> int:
        gone = is_gone(job.old.descriptor)
        return 0 if gone else -disk_bytes_of(os.fstat(job.keeper.descriptor))
