"""Doing what a plan says, one inode at a time; what could not be done is counted, with its reason."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from . import history, state
from .journal import PATIENCE, Journal, NoJournal
from .model import Method, Reason
from .sharing.hardlink import Hardlinker
from .sharing.outcome import Outcome
from .sharing.recovery import recover
from .sharing.reflink import Reflinker

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .engine import Analysis
    from .model import InodeKey
    from .plan import Share


@dataclass(slots=True)
class Applied:
    """What was done. ``by_method`` and ``skipped`` give (inodes, bytes); ``failed`` (path, error)."""

    run: str = ""
    inodes: int = 0
    names: int = 0
    bytes_freed: int = 0
    by_method: dict[Method, tuple[int, int]] = field(default_factory=dict)
    skipped: dict[Reason, tuple[int, int]] = field(default_factory=dict)
    failed: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, outcome: Outcome, planned: int, path: str) -> None:
        """Count what came of one inode, of which ``path`` is a name; ``planned``: the bytes it was about."""
        if outcome.method is not None:
            self.inodes += 1
            self.names += len(outcome.duplicate.names)
            self.bytes_freed += outcome.bytes_freed
            inodes, size = self.by_method.get(outcome.method, (0, 0))
            self.by_method[outcome.method] = (inodes + 1, size + outcome.bytes_freed)
        elif outcome.reason is not None:
            inodes, size = self.skipped.get(outcome.reason, (0, 0))
            self.skipped[outcome.reason] = (inodes + 1, size + planned)
            if outcome.detail:
                self.notes.append(f"{path!r}: {outcome.reason.value}: {outcome.detail!r}")
        else:
            self.failed.append((path, outcome.error))


def apply_plan(analysis: Analysis, command: str, journal: bool = True, patience: float = PATIENCE) -> Applied:
    """Do what the plan says. ``command`` is noted in the journal.

    ``patience``: how many seconds another process that writes to the journal is waited for.

    StateError: the journal cannot be used, and ``journal`` does not say to do without; nothing has
    been changed then, or what has been is complete.
    """
    book = Journal.open(patience=patience) if journal else NoJournal()
    applied = Applied()
    try:
        with ExitStack() as stack:
            if journal:
                applied.notes += recover(book)
            trees = (analysis.scope.trees_of(share.duplicate) for share in analysis.plan.shares)
            locked = state.lock_all(stack, {tree.root for found in trees for tree in found}, journal)
            applied.run = book.begin(command)
            for share, outcome in _share(analysis, book, locked):
                applied.add(outcome, share.freed_bytes, analysis.scope.paths_of(share.duplicate)[0])
            book.finish()
            history.compact(book, time.time())
    finally:
        book.close()
    return applied


def _share(analysis: Analysis, journal: Journal, locked: set[str]) -> Iterator[tuple[Share, Outcome]]:
    ready = []
    for share in analysis.plan.shares:
        if any(tree.root in locked for tree in analysis.scope.trees_of(share.duplicate)):
            yield share, Outcome(share.duplicate, reason=Reason.LOCKED)
        else:
            ready.append(share)
    shares = {share.duplicate.key: share for share in ready}
    counts = Counter(share.method for share in ready)
    if counts[Method.REFLINK]:
        with Reflinker(analysis.scope, journal) as reflinker:
            yield from _outcomes(shares, reflinker.run(_by(Method.REFLINK, ready)))
    if counts[Method.HARDLINK]:
        with Hardlinker(analysis.scope, journal, analysis.devices) as hardlinker:
            yield from _outcomes(shares, hardlinker.run(_by(Method.HARDLINK, ready)))


def _by(method: Method, shares: Iterable[Share]) -> Iterator[Share]:
    return (share for share in shares if share.method is method)


def _outcomes(shares: dict[InodeKey, Share], outcomes: Iterable[Outcome]) -> Iterator[tuple[Share, Outcome]]:
    """Pair what came with what was planned.

    Where inodes share their extents, nothing is gained by the last of them if another one stayed.
    """
    stayed = set()
    for outcome in outcomes:
        layout = outcome.duplicate.layout
        if outcome.method is None:
            stayed.add(layout)
        elif layout is not None and layout in stayed:
            outcome = replace(outcome, bytes_freed=0)
        yield shares[outcome.duplicate.key], outcome
