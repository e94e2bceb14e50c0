"""One inode whose names are to be exchanged: what is open for it, its names, what came of it."""

from __future__ import annotations

import os
import stat as stat_module
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from msgspec import Struct, field

from ..model import Reason
from . import leases
from .change import Change
from .leases import Lease
from .opening import as_planned

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..model import Inode, Method, Source
    from .change import Bytecode
    from .outcome import Outcome
    from .sources import OpenSource
    from .staging import Swap


class OpenFile(Struct):
    """An inode open for reading, as it was when it was opened."""

    inode: Inode
    descriptor: int
    stat: os.stat_result


class Task(Protocol):
    """What is to be done to one inode."""

    @property
    def duplicate(self) -> Inode:
        """The inode, with those of its names that another one is to get."""

    @property
    def source(self) -> Source | None:
        """The source of bytecode, whose time is to go with it."""


TaskT = TypeVar("TaskT", bound=Task)


class Job(Struct, Generic[TaskT]):
    """One inode on its way: from its names ``old`` goes, and ``keeper`` comes."""

    task: TaskT
    old: OpenFile
    keeper: OpenFile
    swaps: list[Swap] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    outcome: Outcome | None = None
    #: Its keeper can have no more names: to be done again with another one.
    again: bool = False
    #: What came of it is not known for sure; its intents stay open.
    unresolved: bool = False
    #: Of bytecode: its source, which other jobs may have too, and what is written down of it.
    source: OpenSource | None = None
    bytecode: Bytecode | None = None

    def close(self) -> None:
        """Close what was opened for this inode; with its descriptor goes its lease."""
        os.close(self.old.descriptor)


def written(file: OpenFile) -> bool:
    """Whether somebody wrote to a file since it was opened here, has it open for that, or waits to."""
    if leases.take(file.descriptor) is Lease.BUSY:
        return True
    return changed(file)


def changed(file: OpenFile) -> bool:
    """Whether a file has another size or time than when it was opened here."""
    now = os.fstat(file.descriptor)
    return (now.st_size, now.st_mtime_ns) != (file.stat.st_size, file.stat.st_mtime_ns)


def is_old(stat: os.stat_result, old: OpenFile) -> bool:
    """Whether what came out of a target is the old inode as it was planned."""
    return as_planned(stat, old.inode) and stat_module.S_ISREG(stat.st_mode)


def changes(job: Job[TaskT], method: Method) -> Iterator[Change]:
    """Yield what is written down before the exchange, a change for each name."""
    for swap in job.swaps:
        staged = f"{swap.staging.path}/{swap.staged}"
        old, keeper = job.old.inode, job.keeper.inode
        yield Change.of(method, swap.root, swap.path, staged, old, keeper, job.bytecode)


def results(job: Job[TaskT]) -> Iterator[tuple[int, str, int]]:
    """Yield what is written down afterwards: (number, state, bytes freed) of each change."""
    outcome = job.outcome
    if job.unresolved:
        return
    for index, number in enumerate(job.numbers):
        if outcome is not None and outcome.method is not None:
            yield number, "done", outcome.bytes_freed if index == 0 else 0
        else:
            conflict = outcome is not None and outcome.reason is Reason.CONFLICT
            yield number, "conflict" if conflict else "dropped", 0
