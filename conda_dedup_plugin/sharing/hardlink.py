"""Hard links: every name of a duplicate inode is exchanged for a name of its keeper."""

from __future__ import annotations

import errno
import os
import time
from typing import TYPE_CHECKING

from ..model import Method, Reason
from . import leases
from .batches import READ_BEFORE_LEASE, Batches
from .compare import same_bytes
from .job import Job, OpenFile
from .opening import as_planned, is_privileged, see_inode, untouched, xattrs_of
from .outcome import SkipError
from .system import is_gone

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..journal import Journal
    from ..model import Device, Inode, Scope
    from ..plan import Share

#: On network file systems leases mean nothing; what was changed so lately is left alone.
YOUNG_NS = 5 * 10**9


class Hardlinker(Batches["Share"]):
    """Shares inodes by hard links, for one run. Use as a context manager."""

    def __init__(self, scope: Scope, journal: Journal, devices: Mapping[int, Device]) -> None:
        super().__init__(scope, journal, Method.HARDLINK)
        self._devices = devices

    def _prepare(self, task: Share) -> Job[Share]:
        """Open, check, lease and compare both; raise OSError (SkipError with the reason) if it may not be."""
        planned = task.keeper
        while planned.key in self._successors:
            planned = self._successors[planned.key]
        keeper = self._open_keeper(planned)
        descriptor, stat = see_inode(self._scope, task.duplicate, self._directories)
        job = Job(task, OpenFile(task.duplicate, descriptor, stat), keeper)
        try:
            self._check(job.old, keeper)
            self._sync_once(keeper)
            self._add_swaps(job)
            self._prove(job)
        except BaseException:
            job.close()
            raise
        return job

    def _open_keeper(self, inode: Inode) -> OpenFile:
        found = self._keepers.get(inode.key)
        if found is None:
            try:
                descriptor, stat = see_inode(self._scope, inode, self._directories)
            except OSError as exc:
                if exc.errno in (errno.EMFILE, errno.ENFILE):
                    raise
                raise SkipError(Reason.KEEPER_GONE) from exc
            found = self._keepers[inode.key] = OpenFile(inode, descriptor, stat)
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
        if is_privileged(old.stat, attributes):
            raise SkipError(Reason.SETID)
        if self._devices[old.inode.key.device].remote:
            youngest = time.time_ns() - YOUNG_NS
            if max(old.stat.st_mtime_ns, keeper.stat.st_mtime_ns) > youngest:
                raise SkipError(Reason.TOO_YOUNG)

    def _prove(self, job: Job[Share]) -> None:
        """Lease both and compare their bytes; big ones before, so that no writer waits for that."""
        old, keeper = job.old, job.keeper
        size = old.stat.st_size
        big = size >= READ_BEFORE_LEASE
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

    def _freed(self, job: Job[Share]) -> int:
        if self._devices[job.old.inode.key.device].remote:
            # an open file may be hidden there instead of removed; every name it had was among these
            gone = not any(swap.staging.holds(swap.staged, job.old.inode.key) for swap in job.swaps)
        else:
            gone = is_gone(job.old.descriptor)
        return job.task.freed_bytes if gone else 0
