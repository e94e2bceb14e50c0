"""Names of one inode on their way to another one: exchanged, looked at again, and given back or dropped.

Nothing is ever deleted by name alone, and at no moment does a path not exist.
"""

from __future__ import annotations

import abc
import errno
from contextlib import suppress
from typing import TYPE_CHECKING, Generic

from ..model import Reason
from . import leases
from .job import Job, OpenFile, TaskT, changed, is_old, written
from .leases import Lease
from .opening import Directories
from .outcome import Outcome, SkipError, outcome_of_error
from .system import link_descriptor, stat_at

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..model import Inode, InodeKey, Method
    from .sources import OpenSource
    from .staging import Swap


class Exchanger(abc.ABC, Generic[TaskT]):
    """The steps of one job, each of which leaves every path with its content."""

    def __init__(self, method: Method) -> None:
        self._method = method
        self._directories = Directories()
        #: Keepers that can have no more names, and who keeps in their place.
        self._successors: dict[InodeKey, Inode] = {}
        #: Sources of which some bytecode could not be prepared.
        self._spoiled: set[InodeKey] = set()

    @abc.abstractmethod
    def _freed(self, job: Job[TaskT]) -> int:
        """Return the bytes gained by a job that is done."""

    def _lease(self, *files: OpenFile) -> None:
        for one in files:
            if leases.take(one.descriptor) is Lease.BUSY:
                raise SkipError(Reason.BUSY)
        if not leases.EXIST and any(map(changed, files)):
            raise SkipError(Reason.CHANGED)

    def _try(self, step: Callable[[Job[TaskT]], None], job: Job[TaskT]) -> None:
        """Do one step for one job. If even that fails which cleans up, its intents stay for the next run."""
        try:
            step(job)
        except OSError as exc:
            job.unresolved = True
            job.outcome = Outcome(job.old.inode, error=str(exc))

    def _exchange(self, job: Job[TaskT]) -> None:
        """Exchange every name; if one cannot be, those that were are exchanged back."""
        if job.keeper.inode.key in self._successors:
            job.again = True
            return
        try:
            if job.source is not None:
                job.source.begin()
            for swap in job.swaps:
                self._exchange_name(job, swap)
        except OSError as exc:
            job.outcome = outcome_of_error(job.old.inode, exc)
            self._restore(job)

    def _exchange_name(self, job: Job[TaskT], swap: Swap) -> None:
        old, keeper = job.old, job.keeper
        try:
            link_descriptor(keeper.descriptor, swap.staging.descriptor, swap.staged)
        except OSError as exc:
            if exc.errno == errno.EMLINK:
                # the next ones of the same content get this duplicate as their keeper
                self._successors[keeper.inode.key] = old.inode
            raise
        if not swap.staging.holds(swap.staged, keeper.inode.key):
            swap.staging.drop_symlink(swap.staged)  # BeeGFS makes one instead of a hard link
            raise SkipError(Reason.UNSUPPORTED)
        try:
            # once a first name is the keeper's, a writer who comes by it may wait for the keeper's lease
            self._lease(*((old, keeper) if swap is job.swaps[0] else (old,)))
            swap.expect(old.inode.key)
            swap.exchange(old.descriptor)
        except OSError:
            swap.staging.drop(swap.staged, keeper.inode.key)
            raise
        if not is_old(stat_at(swap.staged, swap.staging.descriptor), old):
            # somebody put another file there at the last moment, or changed the mode of the old one
            raise SkipError(Reason.CHANGED)

    def _settle(self, job: Job[TaskT]) -> None:
        """Ask the old inode's lease alone whether a writer had it meanwhile; if so, give it its names back.

        The keeper's lease says nothing here: who opens a target now writes to the keeper, as through
        any hard link, and exchanging back would lose that.
        """
        if written(job.old):
            job.outcome = Outcome(job.old.inode, reason=Reason.BUSY)
            self._restore(job)

    def _settle_source(self, source: OpenSource, jobs: list[Job[TaskT]]) -> None:
        """Have all bytecode of a source exchanged or none, and see that its time is that of its bytecode."""
        spoiled = source.inode.key in self._spoiled or source.is_written()
        if spoiled or any(job.outcome is not None or job.again for job in jobs):
            for job in jobs:
                job.again = False
                if job.outcome is None:
                    job.outcome = Outcome(job.old.inode, reason=Reason.BYTECODE)
                    self._try(self._restore, job)
        with suppress(OSError):  # then its intent stays, and the next run sees to it
            source.finish(self._directories)

    def _restore(self, job: Job[TaskT]) -> None:
        """Exchange back what was exchanged; what somebody else put there stays there.

        If somebody may have come to the keeper by one of the names, none is given back: the old inode
        is dropped, or kept beside its target if it was written to as well.
        """
        exchanged = [swap for swap in reversed(job.swaps) if swap.exchanged]
        if exchanged and written(job.keeper):
            old = job.old
            kept = [
                swap.keep_beside()
                for swap in exchanged
                if written(old) or not swap.staging.drop(swap.staged, old.inode.key)
            ]
        else:
            kept = [swap.exchange_back(job.keeper.inode.key, job.old.inode.key) for swap in exchanged]
            # somebody may have come to the keeper by a name just before that was given back
            came = bool(exchanged) and written(job.keeper)
            for swap in exchanged:
                if came and swap.staging.holds(swap.staged, job.keeper.inode.key):
                    kept.append(swap.keep_beside())
                else:
                    swap.staging.drop(swap.staged, job.keeper.inode.key)
        if any(kept):
            detail = ", ".join(filter(None, kept))
            job.outcome = Outcome(job.old.inode, reason=Reason.CONFLICT, detail=detail)

    def _drop_old(self, job: Job[TaskT]) -> None:
        for swap in job.swaps:
            swap.staging.drop(swap.staged, job.old.inode.key)
        job.outcome = Outcome(job.old.inode, self._method, self._freed(job))
