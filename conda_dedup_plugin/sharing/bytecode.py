"""Bytecode of the same source in two environments: the keeper's for both, and the source's time with it."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

from .. import pyc
from ..model import Reason
from .change import Bytecode
from .compare import same_bytes
from .copying import digest_of, write_at
from .hardlink import Hardlinker
from .opening import as_planned, open_inode, untouched
from .outcome import SkipError
from .system import pread

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..model import Inode, Scope
    from ..plan import Share
    from .job import Job

#: No bytecode is bigger.
MOST_BYTES = 64 * 1024 * 1024


class BytecodeLinker(Hardlinker):
    """Shares bytecode that differs in the path and the time of its source alone, for one run."""

    def _prove(self, job: Job[Share]) -> None:
        """Lease all, and see that it is the same code, each valid for its own source, and equal sources."""
        source = job.task.source
        if source is None or source.keeper is None:
            raise SkipError(Reason.BYTECODE)
        self._lease(job.old, job.keeper)
        path = source.inode.names[0].path
        old, keeper = taken_apart(job.old.descriptor, path), taken_apart(job.keeper.descriptor, path)
        if not old.header.fits(source.inode.mtime_ns, source.inode.size):
            raise SkipError(Reason.STALE)
        if not keeper.header.fits(source.mtime_ns, source.keeper.size):
            raise SkipError(Reason.STALE)
        if old.identity != keeper.identity:
            raise SkipError(Reason.DIFFERENT)
        self._add_source(job)
        self._compare_sources(job, source.keeper)
        for one in (job.old, job.keeper):
            if not untouched(one.stat, os.fstat(one.descriptor)):
                raise SkipError(Reason.CHANGED)
        job.bytecode = Bytecode(
            filename=old.filename or b"",
            sha256=digest_of(job.old.descriptor),
            source=path,
            before=source.inode.mtime_ns,
            given=source.mtime_ns,
        )

    def _compare_sources(self, job: Job[Share], keeper: Inode) -> None:
        source = job.source
        if source is None or source.inode.key == keeper.key:
            return
        descriptor = open_inode(self._scope, keeper, self._directories)
        try:
            if not as_planned(os.fstat(descriptor), keeper):
                raise SkipError(Reason.CHANGED)
            if keeper.size != source.inode.size or not same_bytes(source.descriptor, descriptor, keeper.size):
                raise SkipError(Reason.DIFFERENT)
        finally:
            os.close(descriptor)


def taken_apart(descriptor: int, source: str) -> pyc.Code:
    """Read compiled code and take it apart; SkipError: that cannot be done."""
    size = os.fstat(descriptor).st_size
    code = pyc.take_apart(pread(descriptor, size, 0), source) if size <= MOST_BYTES else None
    if code is None:
        raise SkipError(Reason.BYTECODE)
    return code


def restored(scope: Scope, inode: Inode, bytecode: Bytecode) -> Callable[[int], None] | None:
    """Return what writes the bytecode there was before it was shared; None: it cannot be had any more."""

    def content() -> bytes:
        descriptor = open_inode(scope, inode)
        try:
            return taken_apart(descriptor, bytecode.source).written(bytecode.filename, bytecode.before)
        finally:
            os.close(descriptor)

    def write(target: int) -> None:
        write_at(target, content(), 0)

    try:
        return write if hashlib.sha256(content()).digest() == bytecode.sha256 else None
    except OSError:
        return None
