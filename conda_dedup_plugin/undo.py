"""Taking back what was shared: is there room, and private copies again."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

from . import history, state
from .apply import Applied
from .errors import DedupError
from .journal import NoJournal
from .model import Reason
from .progress import Progress
from .sharing.outcome import Outcome
from .sharing.private import Privatizer
from .sharing.system import free_bytes
from .sharing.whole import Unsharer
from .undoing import Undoing, plan_all_links, plan_undo

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .journal import Journal
    from .model import Inode

__all__ = ["Undoing", "check_room", "plan_all_links", "plan_undo", "undo"]

#: What directory entries and the journal may want besides the copies, in bytes and as a part of them.
_SPARE = 1024 * 1024
_SPARE_PART = 50
#: The journal is told of so many changes at a time.
_MOST = 200


def check_room(undoing: Undoing) -> None:
    """Raise DedupError unless every device has room for all copies."""
    from rich.filesize import decimal

    needed: dict[int, int] = defaultdict(int)
    where: dict[int, str] = {}
    for inode in undoing.inodes:
        needed[inode.key.device] += inode.disk_bytes
        where.setdefault(inode.key.device, undoing.scope.paths_of(inode)[0])
    for device, size in needed.items():
        with suppress(OSError):
            free = free_bytes(os.path.dirname(where[device]))
            wanted = size + size // _SPARE_PART + _SPARE
            if wanted > free:
                raise DedupError(
                    f"There is no room for all copies: the device of {where[device]!r} has "
                    f"{decimal(free)} free, and {decimal(wanted)} are needed.",
                    "Nothing was changed; make room, or undo environment by environment with --name.",
                )


def undo(undoing: Undoing, journal: Journal, command: str, progress: Progress | None = None) -> Applied:
    """Give every name its copy. ``command`` is noted in the journal.

    DedupError: there is no room; StateError: the journal cannot be written to. What is done is complete.
    """
    check_room(undoing)
    applied = Applied()
    scope = undoing.scope
    undone = list(undoing.stale)
    with ExitStack() as stack:
        roots = {tree.root for inode in undoing.inodes for tree in scope.trees_of(inode)}
        locked = state.lock_all(stack, roots, not isinstance(journal, NoJournal))
        applied.run = journal.begin(command)
        total = sum(inode.size for inode in undoing.inodes)
        advance = stack.enter_context((progress or Progress()).stage("Copying", total))
        for outcome in _outcomes(undoing, journal, locked):
            inode = outcome.duplicate
            advance(inode.size)
            applied.add(outcome, inode.disk_bytes, scope.paths_of(inode)[0])
            if outcome.method is not None:
                undone += undoing.entries.get(id(inode), [])
                _note_earlier(undoing, journal, inode)
            if len(undone) >= _MOST:
                history.taken_back(journal, undone)
                undone = []
        history.taken_back(journal, undone)
        journal.finish()
        history.compact(journal, time.time())
    return applied


def _note_earlier(undoing: Undoing, journal: Journal, inode: Inode) -> None:
    """Note the new inode of names that an earlier run had given the one before: it can be undone as well."""
    for name in inode.names:
        place = (undoing.scope.trees[name.tree].root, name.path)
        if place in undoing.earlier:
            history.note_move(journal, place, undoing.earlier[place].change.keeper)


def _outcomes(undoing: Undoing, journal: Journal, locked: set[str]) -> Iterator[Outcome]:
    def free(inode: Inode) -> bool:
        return all(tree.root not in locked for tree in undoing.scope.trees_of(inode))

    for inode in undoing.inodes:
        if not free(inode):
            yield Outcome(inode, reason=Reason.LOCKED)
    with Unsharer(undoing.scope, journal) as unsharer:
        yield from unsharer.run(inode for inode in undoing.unshared if free(inode))
    with Privatizer(undoing.scope, journal) as privatizer:
        yield from privatizer.run(copy for copy in undoing.copies if free(copy.duplicate))
