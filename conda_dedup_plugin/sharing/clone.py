"""Reflinks where the kernel cannot share in place (APFS): a clone of the keeper takes the duplicate's names.

The same protocol as for private copies; the clone has the metadata of the duplicate, and its bytes are
compared with it before its names are exchanged.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from ..model import Inode, InodeKey, Method, Reason
from . import darwin
from .compare import same_bytes
from .opening import as_planned, is_privileged, open_inode, open_name, xattrs_of
from .outcome import SkipError
from .private import Replacer
from .staging import COPY_SUFFIX
from .system import copy_metadata, is_gone, refused, set_times, stat_at

if TYPE_CHECKING:
    from ..journal import Journal
    from ..model import Scope
    from ..plan import Share
    from .job import Job, OpenFile
    from .staging import Staging


assert sys.platform != "win32"


class Cloner(Replacer["Share"]):
    """Shares inodes by clones, for one run. Use as a context manager."""

    def __init__(self, scope: Scope, journal: Journal) -> None:
        super().__init__(scope, journal, Method.REFLINK)
        self._source: tuple[Inode, int] | None = None

    def __exit__(self, *exception: object) -> None:
        super().__exit__(*exception)
        self._close_source()

    def _check(self, task: Share, old: OpenFile) -> None:
        super()._check(task, old)
        if old.stat.st_nlink != len(old.inode.names):
            raise SkipError(Reason.NAMES_OUTSIDE)
        reason = refused(old.stat)
        if reason is not None:
            raise SkipError(reason)

    def _make(self, task: Share, old: OpenFile, staging: Staging) -> tuple[str, InodeKey]:
        keeper = self._open_source(task.keeper)
        name = staging.new_name() + COPY_SUFFIX
        darwin.clone(keeper, name, staging.descriptor)
        stat = stat_at(name, staging.descriptor)
        key = InodeKey(stat.st_dev, stat.st_ino)
        self._note(staging, name, key)
        made = open_name(staging.descriptor, name, key)
        try:
            os.fchmod(made, 0o600)  # whoever may only read the keeper could not give its clone attributes
            if stat.st_size != old.stat.st_size or not same_bytes(old.descriptor, made, stat.st_size):
                raise SkipError(Reason.DIFFERENT)
            copy_metadata(old.descriptor, old.stat, made)
            set_times(made, old.stat.st_atime_ns, old.stat.st_mtime_ns)
        finally:
            os.close(made)
        return name, key

    def _open_source(self, inode: Inode) -> int:
        """Open the file that is cloned; it stays open for those that get the same bytes."""
        if self._source is None or self._source[0].key != inode.key:
            self._close_source()
            try:
                self._source = (inode, open_inode(self._scope, inode, self._directories))
            except OSError as exc:
                raise SkipError(Reason.KEEPER_GONE) from exc
        descriptor = self._source[1]
        stat = os.fstat(descriptor)
        if not as_planned(stat, inode):
            raise SkipError(Reason.CHANGED)
        if is_privileged(stat, xattrs_of(descriptor)) or refused(stat) is not None:
            raise SkipError(Reason.KEEPER_GONE)
        return descriptor

    def _close_source(self) -> None:
        if self._source is not None:
            os.close(self._source[1])
            self._source = None

    def _freed(self, job: Job[Share]) -> int:
        gone = is_gone(job.old.descriptor)
        return job.task.freed_bytes if gone else 0
