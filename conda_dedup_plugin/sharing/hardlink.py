"""Hard links: every name of a duplicate inode is exchanged for a name of its keeper, in small batches.

The order of the steps is what keeps every byte; see the comments. Nothing is ever deleted by name
alone, and at no moment does a path not exist.
"""

from __future__ import annotations

import errno
import os
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

from ..model import SETID_BITS, STAGING_PREFIX, Inode, InodeKey, Method, Reason
from . import leases
from .compare import same_bytes
from .interrupts import deferred_interrupts
from .job import Job, OpenFile, changes, is_old, results, written
from .leases import Lease
from .linux import link_descriptor, sync_file_system
from .opening import Directories, as_planned, open_inode, untouched, xattrs_of
from .outcome import Outcome, SkipError, outcome_of_error
from .staging import Staging, Swap

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from ..journal import Journal
    from ..model import Device, Scope
    from ..plan import Share

#: A writer that meets a lease waits for the rest of the batch: so many names, so many seconds.
MOST_NAMES = 200
LONGEST_SECONDS = 0.05
#: A batch ends when it holds more open files and directories, at the latest a third of what may be open.
MOST_DESCRIPTORS = 1000
#: Files from here on are compared once before anybody could be kept waiting.
COMPARE_BEFORE_LEASE = 4 * 1024 * 1024
#: On network file systems leases mean nothing; what was changed so lately is left alone.
YOUNG_NS = 5 * 10**9


class Hardlinker:
    """Shares inodes by hard links, for one run. Use as a context manager."""

    def __init__(self, scope: Scope, journal: Journal, devices: Mapping[int, Device]) -> None:
        self._scope = scope
        self._journal = journal
        self._devices = devices
        self._directories = Directories()
        self._stagings: dict[tuple[str, str], Staging] = {}
        self._keepers: dict[InodeKey, OpenFile] = {}
        self._synced: set[int] = set()
        self._batch: list[Job] = []
        self._most_descriptors = _most_descriptors()
        #: Keepers that can have no more names, and who keeps in their place.
        self._successors: dict[InodeKey, Inode] = {}

    def __enter__(self) -> Hardlinker:
        return self

    def __exit__(self, *exception: object) -> None:
        self._close()
        for staging in self._stagings.values():
            staging.close(self._directories)
        self._directories.close()

    def run(self, shares: Iterable[Share]) -> Iterator[Outcome]:
        """Share them, batch by batch, and tell what came of each. One that fails stops no other."""
        waiting = iter(shares)
        again: deque[Share] = deque()
        names = 0
        began = 0.0
        while (share := again.popleft() if again else next(waiting, None)) is not None:
            big = share.duplicate.size >= COMPARE_BEFORE_LEASE
            if self._batch and (big or names >= MOST_NAMES or time.monotonic() - began > LONGEST_SECONDS):
                yield from self._flush(again)
                names = 0
            try:
                job = self._prepare(share)
            except OSError as exc:
                outcome = outcome_of_error(share.duplicate, exc)
                if not self._batch:
                    self._close()  # the keeper's lease, before anybody waits for us
                yield outcome
            else:
                if not self._batch:
                    began = time.monotonic()
                self._batch.append(job)
                names += len(job.swaps)
            if self._batch and self._descriptors() > self._most_descriptors:
                yield from self._flush(again)
                names = 0
        yield from self._flush(again)
        if again:
            yield from self.run(list(again))

    def _descriptors(self) -> int:
        return len(self._keepers) + len(self._batch) + len(self._directories) + len(self._stagings)

    # -- before anything changes -------------------------------------------------------------------

    def _prepare(self, share: Share) -> Job:
        """Open, check, lease and compare both; raise OSError (SkipError with the reason) if it may not be."""
        planned = share.keeper
        while planned.key in self._successors:
            planned = self._successors[planned.key]
        keeper = self._open_keeper(planned)
        descriptor = open_inode(self._scope, share.duplicate, self._directories)
        job = Job(share, OpenFile(share.duplicate, descriptor, os.fstat(descriptor)), keeper)
        try:
            self._check(job.old, keeper)
            self._sync_once(keeper)
            self._add_swaps(job)
            self._prove(job.old, keeper)
        except BaseException:
            job.close()
            raise
        return job

    def _sync_once(self, keeper: OpenFile) -> None:
        """Sync a device before the first lease on it, so that the one in a batch is short."""
        if keeper.inode.key.device not in self._synced:
            self._synced.add(keeper.inode.key.device)
            with suppress(OSError):
                sync_file_system(keeper.descriptor)

    def _open_keeper(self, inode: Inode) -> OpenFile:
        found = self._keepers.get(inode.key)
        if found is None:
            try:
                descriptor = open_inode(self._scope, inode, self._directories)
            except OSError as exc:
                if exc.errno in (errno.EMFILE, errno.ENFILE):
                    raise
                raise SkipError(Reason.KEEPER_GONE) from exc
            found = self._keepers[inode.key] = OpenFile(inode, descriptor, os.fstat(descriptor))
        return found

    def _check(self, old: OpenFile, keeper: OpenFile) -> None:
        """Both are as planned, and alike in everything that a hard link makes common."""
        if not as_planned(old.stat, old.inode) or not as_planned(keeper.stat, keeper.inode):
            raise SkipError(Reason.CHANGED)
        if old.stat.st_nlink != len(old.inode.names):
            raise SkipError(Reason.NAMES_OUTSIDE)
        if (old.stat.st_uid, old.stat.st_gid) != (keeper.stat.st_uid, keeper.stat.st_gid):
            raise SkipError(Reason.OTHER_OWNER)
        if old.stat.st_mode != keeper.stat.st_mode:
            raise SkipError(Reason.OTHER_MODE)
        attributes = xattrs_of(old.descriptor)
        if attributes != xattrs_of(keeper.descriptor):
            raise SkipError(Reason.OTHER_XATTRS)
        if old.stat.st_mode & SETID_BITS or b"security.capability" in attributes:
            raise SkipError(Reason.SETID)
        if self._devices[old.inode.key.device].remote:
            youngest = time.time_ns() - YOUNG_NS
            if max(old.stat.st_mtime_ns, keeper.stat.st_mtime_ns) > youngest:
                raise SkipError(Reason.TOO_YOUNG)

    def _prove(self, old: OpenFile, keeper: OpenFile) -> None:
        """Lease both and compare their bytes; big ones before, so that no writer waits for that."""
        size = old.stat.st_size
        big = size >= COMPARE_BEFORE_LEASE
        if big:
            # nobody may be writing through a mapping made earlier: such writes leave no trace in mtime
            self._lease(old, keeper)
            for one in (old, keeper):
                leases.give_back(one.descriptor)
            if not same_bytes(old.descriptor, keeper.descriptor, size):
                raise SkipError(Reason.DIFFERENT)
        self._lease(old, keeper)
        if not big and not same_bytes(old.descriptor, keeper.descriptor, size):
            raise SkipError(Reason.DIFFERENT)
        for one in (old, keeper):
            if not untouched(one.stat, os.fstat(one.descriptor)):
                raise SkipError(Reason.CHANGED)

    def _lease(self, *files: OpenFile) -> None:
        if any(leases.take(one.descriptor) is Lease.BUSY for one in files):
            raise SkipError(Reason.BUSY)

    def _add_swaps(self, job: Job) -> None:
        inode = job.share.duplicate
        for name in inode.names:
            root = self._scope.trees[name.tree].root
            directory, last = self._directories.parent(root, name.path)
            staging = self._staging(root, "")
            if staging.device != inode.key.device:
                staging = self._staging(root, name.path.rpartition("/")[0])
            job.swaps.append(Swap(root, name.path, directory, last, staging, staging.new_name()))

    def _staging(self, root: str, below: str) -> Staging:
        found = self._stagings.get((root, below))
        if found is None:
            self._journal.staging(root, f"{below}/{STAGING_PREFIX}{self._journal.run}".lstrip("/"))
            found = Staging.make(self._journal.run, root, below, self._directories)
            self._stagings[(root, below)] = found
        return found

    # -- the batch ----------------------------------------------------------------------------------

    def _flush(self, again: deque[Share]) -> list[Outcome]:
        """Journal, sync, exchange, look again, clean up; the leases are given back at the end.

        Shares that want another keeper, their own being full, go to ``again``.
        """
        jobs = list(self._batch)
        if not jobs:
            self._close()
            return []
        with deferred_interrupts():
            try:
                numbers = iter(self._journal.intend([c for job in jobs for c in changes(job)]))
                for job in jobs:
                    job.numbers = [next(numbers) for _ in job.swaps]
                self._make_durable(jobs)
                for step in (self._exchange, self._settle, self._drop_old):
                    for job in jobs:
                        if job.outcome is None and not job.again:
                            self._try(step, job)
                self._journal.resolve([result for job in jobs for result in results(job)])
            finally:
                self._close()
        again.extend(job.share for job in jobs if job.again)
        return [job.outcome for job in jobs if job.outcome is not None]

    def _try(self, step: Callable[[Job], None], job: Job) -> None:
        """Do one step for one job. If even that fails which cleans up, its intents stay for the next run."""
        try:
            step(job)
        except OSError as exc:
            job.unresolved = True
            job.outcome = Outcome(job.old.inode, error=str(exc))

    def _make_durable(self, batch: list[Job]) -> None:
        """The keepers' bytes must be on the device before a durable name may point to them."""
        for device in {job.old.inode.key.device for job in batch}:
            jobs = [job for job in batch if job.old.inode.key.device == device]
            try:
                sync_file_system(jobs[0].keeper.descriptor)
            except OSError as exc:
                if exc.errno == errno.ENOSYS:
                    for descriptor in {job.keeper.descriptor for job in jobs}:
                        os.fsync(descriptor)
                    continue
                for job in jobs:
                    job.outcome = outcome_of_error(job.old.inode, exc)

    def _exchange(self, job: Job) -> None:
        """Exchange every name; if one cannot be, those that were are exchanged back."""
        if job.keeper.inode.key in self._successors:
            job.again = True
            return
        try:
            for swap in job.swaps:
                self._exchange_name(job, swap)
        except OSError as exc:
            job.outcome = outcome_of_error(job.old.inode, exc)
            self._restore(job)

    def _exchange_name(self, job: Job, swap: Swap) -> None:
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
        if not is_old(os.stat(swap.staged, dir_fd=swap.staging.descriptor, follow_symlinks=False), old):
            # somebody put another file there at the last moment, or changed the mode of the old one
            raise SkipError(Reason.CHANGED)

    def _settle(self, job: Job) -> None:
        """Ask the old inode's lease alone whether a writer had it meanwhile; if so, give it its names back.

        The keeper's lease says nothing here: who opens a target now writes to the keeper, as through
        any hard link, and exchanging back would lose that.
        """
        if written(job.old):
            job.outcome = Outcome(job.old.inode, reason=Reason.BUSY)
            self._restore(job)

    def _restore(self, job: Job) -> None:
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
        if any(kept):
            detail = ", ".join(filter(None, kept))
            job.outcome = Outcome(job.old.inode, reason=Reason.CONFLICT, detail=detail)

    def _drop_old(self, job: Job) -> None:
        for swap in job.swaps:
            swap.staging.drop(swap.staged, job.old.inode.key)
        gone = os.fstat(job.old.descriptor).st_nlink == 0
        freed = job.share.freed_bytes if gone else 0
        job.outcome = Outcome(job.old.inode, Method.HARDLINK, freed)

    def _close(self) -> None:
        """Close everything of the batch; with the descriptors go the leases."""
        while self._batch:
            self._batch.pop().close()
        while self._keepers:
            os.close(self._keepers.popitem()[1].descriptor)
        self._directories.trim()


def _most_descriptors() -> int:
    """A third of what may be open, for others in this process want some too."""
    try:
        import resource
    except ImportError:
        return MOST_DESCRIPTORS
    return min(MOST_DESCRIPTORS, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 3)
