"""Names are exchanged for names of other inodes in small batches, each journalled, durable and settled.

The order of the steps is what keeps every byte; see the comments. Nothing is ever deleted by name
alone, and at no moment does a path not exist.
"""

from __future__ import annotations

import abc
import errno
import os
import sys
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

from ..model import Reason
from . import leases
from .closing import Closer
from .durability import make_durable
from .exchanges import Exchanger
from .interrupts import deferred_interrupts
from .job import Job, OpenFile, TaskT, changes, results
from .outcome import Outcome, SkipError, outcome_of_error
from .sources import OpenSource
from .staging import Swap
from .stagings import Stagings
from .system import flush

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from typing_extensions import Self

    from ..journal import Journal
    from ..model import InodeKey, Method, Scope

#: A writer that meets a lease waits for the rest of the batch: so many names, so many seconds.
MOST_NAMES = 200
LONGEST_SECONDS = 0.05
#: A batch ends when it holds more open files and directories, at the latest a third of what may be open.
#: Those that the last two have replaced may still be open besides: half of each, at most.
MOST_DESCRIPTORS = 1000
#: Files from here on are read once before anybody could be kept waiting.
READ_BEFORE_LEASE = 4 * 1024 * 1024


class Batches(Exchanger[TaskT]):
    """Exchanges the names of one inode after the other, for one run. Use as a context manager."""

    def __init__(self, scope: Scope, journal: Journal, method: Method) -> None:
        super().__init__(method)
        self._scope = scope
        self._journal = journal
        self._stagings = Stagings(journal, self._directories)
        self._keepers: dict[InodeKey, OpenFile] = {}
        self._synced: set[int] = set()
        self._batch: list[Job[TaskT]] = []
        self._most_descriptors = _most_descriptors()
        #: The sources of the bytecode in the batch.
        self._sources: dict[InodeKey, OpenSource] = {}
        self._closer = Closer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._close()
        self._closer.wait()
        self._stagings.close()
        self._directories.close()

    def run(self, tasks: Iterable[TaskT]) -> Iterator[Outcome]:
        """Do them, batch by batch, and tell what came of each. One that fails stops no other."""
        waiting = iter(tasks)
        again: deque[TaskT] = deque()
        names = 0
        began = 0.0
        while (task := again.popleft() if again else next(waiting, None)) is not None:
            big = task.duplicate.size >= READ_BEFORE_LEASE
            full = names >= MOST_NAMES or self._descriptors() > self._most_descriptors
            late = time.monotonic() - began > LONGEST_SECONDS
            if self._batch and (big or full or late) and not self._goes_with_last(task):
                yield from self._flush(again)
                names = 0
            try:
                job = self._prepare(task)
            except OSError as exc:
                outcome = outcome_of_error(task.duplicate, exc)
                if task.source is not None:
                    self._spoiled.add(task.source.inode.key)
                if not self._batch:
                    self._close()  # the keeper's lease, before anybody waits for us
                yield outcome
            else:
                if not self._batch:
                    began = time.monotonic()
                self._batch.append(job)
                names += len(job.swaps)
        yield from self._flush(again)
        if again:
            yield from self.run(list(again))

    def _descriptors(self) -> int:
        files = len(self._keepers) + len(self._batch) + len(self._sources)
        return files + len(self._directories) + len(self._stagings)

    def _goes_with_last(self, task: TaskT) -> bool:
        """Whether it is bytecode of the same source as the last one in the batch."""
        last = self._batch[-1].source
        return last is not None and task.source is not None and last.inode.key == task.source.inode.key

    @abc.abstractmethod
    def _prepare(self, task: TaskT) -> Job[TaskT]:
        """Open, check and lease what is to be exchanged.

        OSError (SkipError with the reason): it may not be.
        """

    # -- for those who prepare ----------------------------------------------------------------------

    def _sync_once(self, file: OpenFile) -> None:
        """Sync a device before the first lease on it, so that the one in a batch is short."""
        if file.inode.key.device not in self._synced:
            try:
                make_durable(file.descriptor, file.inode.key.device)
            except OSError as exc:
                if exc.errno != errno.ENOSYS:
                    raise
            self._synced.add(file.inode.key.device)

    def _add_swaps(self, job: Job[TaskT]) -> None:
        inode = job.task.duplicate
        for name in inode.names:
            root = self._scope.trees[name.tree].root
            directory, last = self._directories.parent(root, name.path)
            staging = self._stagings.near(root, name.path, inode.key.device)
            job.swaps.append(Swap(root, name.path, directory, last, staging, staging.new_name()))

    def _add_source(self, job: Job[TaskT]) -> None:
        """Open and lease the source that the job's bytecode is of, once for all of its jobs."""
        source = job.task.source
        if source is None:
            return
        if source.inode.key in self._spoiled:
            raise SkipError(Reason.BYTECODE)
        found = self._sources.get(source.inode.key)
        if found is None:
            found = OpenSource(self._scope, source, self._directories)
            self._sources[source.inode.key] = found
        elif found.mtime_ns != source.mtime_ns:
            raise SkipError(Reason.BYTECODE)
        job.source = found

    # -- the batch ----------------------------------------------------------------------------------

    def _flush(self, again: deque[TaskT]) -> list[Outcome]:
        """Journal, sync, exchange, look again, clean up; the leases are given back at the end.

        Tasks that want another keeper, their own being full, go to ``again``.
        """
        jobs = list(self._batch)
        if not jobs:
            self._close()
            return []
        sources = list(self._sources.values())
        with deferred_interrupts():
            try:
                self._intend(jobs, sources)
                self._make_durable(jobs)
                self._each(self._exchange, jobs)
                self._each(self._settle, jobs)
                for source in sources:
                    self._settle_source(source, [job for job in jobs if job.source is source])
                # an old time and new bytecode are not to outlive a loss of power
                for source in {source.inode.key.device: source for source in sources}.values():
                    with suppress(OSError):
                        make_durable(source.descriptor, source.inode.key.device)
                self._each(self._drop_old, jobs)
                self._journal.resolve(
                    [result for job in jobs for result in results(job)]
                    + [(source.number, "dropped", 0) for source in sources if source.resolved]
                )
            finally:
                self._close()
        again.extend(job.task for job in jobs if job.again)
        return [job.outcome for job in jobs if job.outcome is not None]

    def _intend(self, jobs: list[Job[TaskT]], sources: list[OpenSource]) -> None:
        wanted = [source.change() for source in sources]
        wanted += [change for job in jobs for change in changes(job, self._method)]
        numbers = iter(self._journal.intend(wanted))
        for source in sources:
            source.number = next(numbers)
        for job in jobs:
            job.numbers = [next(numbers) for _ in job.swaps]

    def _each(self, step: Callable[[Job[TaskT]], None], jobs: list[Job[TaskT]]) -> None:
        for job in jobs:
            if job.outcome is None and not job.again:
                self._try(step, job)

    def _make_durable(self, batch: list[Job[TaskT]]) -> None:
        """The keepers' bytes must be on the device before a durable name may point to them."""
        for device in {job.old.inode.key.device for job in batch}:
            jobs = [job for job in batch if job.old.inode.key.device == device]
            try:
                make_durable(jobs[0].keeper.descriptor, device)
            except OSError as exc:
                if exc.errno == errno.ENOSYS:
                    for descriptor in {job.keeper.descriptor for job in jobs}:
                        flush(descriptor)
                    continue
                for job in jobs:
                    job.outcome = outcome_of_error(job.old.inode, exc)

    def _close(self) -> None:
        """Close everything of the batch; with the descriptors go the leases."""
        while self._keepers:
            os.close(self._keepers.popitem()[1].descriptor)
        while self._sources:
            self._sources.popitem()[1].close()
        replaced = []
        while self._batch:
            job = self._batch.pop()
            if job.outcome is not None and job.outcome.method is not None:
                leases.give_back(job.old.descriptor)  # nobody is to wait until the device has freed it
                replaced.append(job.old.descriptor)
            else:
                job.close()
        self._closer.close(replaced)
        self._directories.trim()


def _most_descriptors() -> int:
    """A third of what may be open, for others in this process want some too."""
    if sys.platform == "win32":
        return MOST_DESCRIPTORS
    else:
        import resource

        return min(MOST_DESCRIPTORS, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 3)
