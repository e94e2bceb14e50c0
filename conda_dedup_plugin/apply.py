"""Doing what a plan says, one inode at a time; what could not be done is counted, with its reason."""

from __future__ import annotations

import gc
import time
from collections import Counter
from contextlib import ExitStack
from typing import TYPE_CHECKING

from msgspec import Struct, field
from msgspec.structs import replace

from . import history, state
from .journal import PATIENCE, Journal, NoJournal
from .model import Method, Reason
from .progress import Progress
from .sharing.blocks import BlockSharer
from .sharing.bytecode import BytecodeLinker
from .sharing.hardlink import Hardlinker
from .sharing.outcome import Outcome
from .sharing.recovery import recover
from .sharing.whole import Reflinker

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Mapping

    from .engine import Analysis
    from .model import Inode, InodeKey
    from .plan import Share

#: In the place of a modification time: the source did not get the one that was planned.
_STAYED = -1


class Applied(Struct):
    """What was done. ``by_method`` and ``skipped`` give (inodes, bytes); ``failed`` (path, error)."""

    run: str = ""
    inodes: int = 0
    names: int = 0
    bytes_freed: int = 0
    inodes_freed: int = 0
    by_method: dict[Method, tuple[int, int]] = field(default_factory=dict)
    skipped: dict[Reason, tuple[int, int]] = field(default_factory=dict)
    failed: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    #: Files of which blocks were shared: (path, pieces on the device before and after, bytes freed).
    pieces: list[tuple[str, int, int, int]] = field(default_factory=list)
    #: What was not begun, for the time was over.
    put_off: list[Share] = field(default_factory=list)

    @property
    def later(self) -> int:
        """How many inodes were not looked at, for the time was over."""
        return len(self.put_off)

    def join(self, other: Applied) -> None:
        """Add what another run did."""
        self.inodes += other.inodes
        self.names += other.names
        self.bytes_freed += other.bytes_freed
        self.inodes_freed += other.inodes_freed
        for method, (inodes, size) in other.by_method.items():
            known = self.by_method.get(method, (0, 0))
            self.by_method[method] = (known[0] + inodes, known[1] + size)
        for reason, (inodes, size) in other.skipped.items():
            known = self.skipped.get(reason, (0, 0))
            self.skipped[reason] = (known[0] + inodes, known[1] + size)
        self.failed += other.failed
        self.notes += other.notes
        self.pieces += other.pieces

    def add(self, outcome: Outcome, planned: int, path: str) -> None:
        """Count what came of one inode, of which ``path`` is a name; ``planned``: the bytes it was about."""
        if outcome.method is not None:
            self.inodes += 1
            self.names += len(outcome.duplicate.names)
            self.bytes_freed += outcome.bytes_freed
            self.inodes_freed += outcome.method is Method.HARDLINK
            if outcome.method is Method.BLOCKS and outcome.extents is not None:
                self.pieces.append((path, *outcome.extents, outcome.bytes_freed))
            inodes, size = self.by_method.get(outcome.method, (0, 0))
            self.by_method[outcome.method] = (inodes + 1, size + outcome.bytes_freed)
        elif outcome.reason is not None:
            inodes, size = self.skipped.get(outcome.reason, (0, 0))
            self.skipped[outcome.reason] = (inodes + 1, size + planned)
            if outcome.detail:
                self.notes.append(f"{path!r}: {outcome.reason.value}: {outcome.detail!r}")
        else:
            self.failed.append((path, outcome.error))


def apply_plan(
    analysis: Analysis,
    command: str,
    journal: bool = True,
    patience: float = PATIENCE,
    until: float | None = None,
    progress: Progress | None = None,
) -> Applied:
    """Do what the plan says. ``command`` is noted in the journal.

    ``patience``: how many seconds another process that writes to the journal is waited for. ``until``:
    when, on the clock ``time.monotonic``, nothing more is begun, provided that something was shared.

    StateError: the journal cannot be used, and ``journal`` does not say to do without; nothing has
    been changed then, or what has been is complete.
    """
    book = Journal.open(patience=patience) if journal else NoJournal()
    if not journal:
        from .recall import forget

        forget()  # reports learn from the journal that extents are shared
    applied = Applied()
    gc.freeze()  # the analysis stays until the end: nothing is gained by searching it again and again
    try:
        with ExitStack() as stack:
            if journal:
                applied.notes += recover(book)
            trees = (analysis.scope.trees_of(share.duplicate) for share in analysis.plan.shares)
            locked = state.lock_all(stack, {tree.root for found in trees for tree in found}, journal)
            applied.run = book.begin(command)
            total = sum(share.duplicate.size for share in analysis.plan.shares)
            with (progress or Progress()).stage("Sharing", total) as advance:
                for share, outcome in _share(analysis, book, locked, applied, until):
                    applied.add(outcome, share.freed_bytes, analysis.scope.paths_of(share.duplicate)[0])
                    advance(share.duplicate.size)
            book.finish()
            history.compact(book, time.time())
    finally:
        gc.unfreeze()
        book.close()
    return applied


def _share(
    analysis: Analysis, journal: Journal, locked: set[str], applied: Applied, until: float | None
) -> Iterator[tuple[Share, Outcome]]:
    ready = []
    for share in analysis.plan.shares:
        if any(tree.root in locked for tree in analysis.scope.trees_of(share.duplicate)):
            yield share, Outcome(share.duplicate, reason=Reason.LOCKED)
        else:
            ready.append(share)
    shares = {share.duplicate.key: share for share in ready}
    retimed = yield from _share_bytecode(analysis, journal, ready, applied, until)
    ready = [share for share in ready if share.source is None]
    for share in [share for share in ready if retimed.get(share.duplicate.key) == _STAYED]:
        yield share, Outcome(share.duplicate, reason=Reason.CHANGED)
    ready = [_with_time(share, retimed) for share in ready if retimed.get(share.duplicate.key) != _STAYED]
    counts = Counter(share.method for share in ready)
    if counts[Method.BLOCKS]:
        with BlockSharer(analysis.scope, journal, analysis.devices) as blocks:
            yield from _outcomes(shares, blocks.run(_in_time(_by(Method.BLOCKS, ready), applied, until)))
    if counts[Method.REFLINK]:
        with Reflinker(analysis.scope, journal) as reflinker:
            yield from _outcomes(shares, reflinker.run(_in_time(_by(Method.REFLINK, ready), applied, until)))
    if counts[Method.HARDLINK]:
        with Hardlinker(analysis.scope, journal, analysis.devices) as hardlinker:
            yield from _outcomes(
                shares, hardlinker.run(_in_time(_by(Method.HARDLINK, ready), applied, until))
            )


def _share_bytecode(
    analysis: Analysis, journal: Journal, ready: Iterable[Share], applied: Applied, until: float | None
) -> Generator[tuple[Share, Outcome], None, dict[InodeKey, int]]:
    """Share bytecode; returns the time (ns) that every source got, or that it stayed as it was."""
    bytecode = {share.duplicate.key: share for share in ready if share.source is not None}
    retimed = {share.source.inode.key: _STAYED for share in bytecode.values() if share.source is not None}
    if not bytecode:
        return retimed
    # what is compiled from one source goes together
    ordered = sorted(
        bytecode.values(), key=lambda share: share.source.inode.key if share.source else share.duplicate.key
    )
    with BytecodeLinker(analysis.scope, journal, analysis.devices) as linker:
        for outcome in linker.run(_in_time(ordered, applied, until)):
            share = bytecode[outcome.duplicate.key]
            if outcome.method is not None and share.source is not None:
                retimed[share.source.inode.key] = share.source.mtime_ns
            yield share, outcome
    return retimed


def _with_time(share: Share, retimed: Mapping[InodeKey, int]) -> Share:
    """Return a share as it is after the bytecode was shared: a source may have another time."""

    def now(inode: Inode) -> Inode:
        return replace(inode, mtime_ns=retimed[inode.key]) if inode.key in retimed else inode

    if share.duplicate.key not in retimed and share.keeper.key not in retimed:
        return share
    return replace(share, duplicate=now(share.duplicate), keeper=now(share.keeper))


def _by(method: Method, shares: Iterable[Share]) -> Iterator[Share]:
    return (share for share in shares if share.method is method)


def _in_time(shares: Iterable[Share], applied: Applied, until: float | None) -> Iterator[Share]:
    """Hand out shares until the time is over and at least one was successful; put off the others.

    The bytecode of one source is not parted.
    """
    source = None
    for share in shares:
        same = share.source is not None and share.source.inode.key == source
        if until is not None and applied.inodes and not same and time.monotonic() >= until:
            applied.put_off.append(share)
            continue
        source = share.source.inode.key if share.source is not None else None
        yield share


def _outcomes(shares: dict[InodeKey, Share], outcomes: Iterable[Outcome]) -> Iterator[tuple[Share, Outcome]]:
    """Pair what came with what was planned.

    Where inodes share their extents, nothing is gained by the last of them if another one stayed.
    """
    stayed = set()
    for outcome in outcomes:
        layout = outcome.duplicate.layout
        if outcome.method is None:
            stayed.add(layout)
        elif outcome.method is Method.HARDLINK and layout is not None and layout in stayed:
            outcome = replace(outcome, bytes_freed=0)
        yield shares[outcome.duplicate.key], outcome
