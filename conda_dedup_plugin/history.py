"""What the journal tells of the past: its runs, what they shared that still is, and what may be forgotten."""

from __future__ import annotations

import os
from collections import defaultdict
from contextlib import suppress
from typing import TYPE_CHECKING

from msgspec import Struct

from .errors import StateError
from .model import InodeKey, Method
from .rows import entry_of
from .state import is_running

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from .journal import Journal
    from .sharing.change import Entry

#: With more changes than this in the journal, those that say nothing any more are looked for.
MOST_CHANGES = 20_000
#: So many runs of which nothing can be taken back any more are still shown.
MOST_RUNS = 500
#: What was shared in a tree that is not there (not mounted, say) is remembered for so many seconds.
REMEMBER_GONE = 180 * 24 * 3600.0
_SHARING = (Method.HARDLINK.value, Method.REFLINK.value, Method.BLOCKS.value)
_ANY_SHARING = f"method IN ({', '.join('?' * len(_SHARING))})"


class Run(Struct, frozen=True):
    """One run: ``started`` and ``finished`` in seconds since the epoch (None: it was interrupted, or runs).

    ``names`` counts the files it shared or gave a copy, ``bytes_freed`` is negative for what copies took;
    ``undoable`` counts those files that its journal could still take back, ``undone`` those taken back.
    """

    id: str
    command: str
    version: str
    started: float
    finished: float | None
    running: bool
    names: int
    bytes_freed: int
    undoable: int
    undone: int


def runs(journal: Journal) -> list[Run]:
    """Return every run that is remembered, the newest first."""
    rows = journal.read(
        "SELECT run.id, command, version, started, finished, process, run.names, run.bytes_freed, undone,"
        " COUNT(change.id), COALESCE(SUM(change.bytes_freed), 0)"
        " FROM run LEFT JOIN change ON change.run = run.id AND change.state = 'done'"
        f" AND change.{_ANY_SHARING}"
        " GROUP BY run.id ORDER BY started DESC",
        _SHARING,
    )
    found = []
    for number, command, version, started, finished, process, names, freed, undone, left, left_freed in rows:
        if finished is None:  # it never came to count itself
            names, freed = left + undone, left_freed
        running = finished is None and is_running(process)
        found.append(Run(number, command, version, started, finished, running, names, freed, left, undone))
    return found


def shared(journal: Journal) -> list[Entry]:
    """Return what was shared and never taken back, the newest first."""
    rows = journal.read(
        f"SELECT * FROM change WHERE state = 'done' AND {_ANY_SHARING} ORDER BY id DESC", _SHARING
    )
    return [entry_of(row) for row in rows]


def taken_back(journal: Journal, entries: Iterable[Entry]) -> None:
    """Forget what was shared and is no more, and count it for its run."""
    numbers = [(entry.number,) for entry in entries]
    journal.write(
        "UPDATE run SET undone = undone + 1 WHERE id = (SELECT run FROM change WHERE id = ?)", numbers
    )
    journal.write("DELETE FROM change WHERE id = ?", numbers)


def chains(entries: Sequence[Entry]) -> dict[tuple[str, str], list[Entry]]:
    """Return for each place (root, path) that is still a hard link what made it so, the newest first.

    A name may have been given from keeper to keeper; the chain goes back as far as each old inode is the
    keeper of the change before.
    """
    places: dict[tuple[str, str], list[Entry]] = defaultdict(list)
    for entry in entries:
        if entry.change.replaced:
            places[entry.change.root, entry.change.path].append(entry)
    found = {}
    for place, changes in places.items():
        chain: list[Entry] = []
        wanted = _number("/".join(place))
        for entry in changes:
            if entry.change.keeper.number == wanted:
                chain.append(entry)
                wanted = entry.change.old.number
        if chain:
            found[place] = chain
    return found


def _number(path: str) -> int:
    """Return the inode number of a path, -1 if there is nothing."""
    try:
        return os.lstat(path).st_ino
    except (OSError, ValueError):
        return -1


def compact(journal: Journal, now: float) -> None:
    """Forget what can tell nothing any more, once the journal has become big. ``now`` in seconds.

    That is what was taken back by others: a name that stands for another inode now, or for none. What
    cannot be forgotten just now is so later.
    """
    with suppress(StateError):
        count, left = journal.read(
            "SELECT (SELECT COUNT(*) FROM change), (SELECT COALESCE(MAX(changes), 0) FROM compaction)"
        )[0]
        if count > max(MOST_CHANGES, 2 * left):
            _forget_stale(journal, now)
            journal.write("DELETE FROM compaction", [()])
            journal.write("INSERT INTO compaction SELECT COUNT(*) FROM change", [()])
            journal.shrink()
        journal.write(
            "DELETE FROM run WHERE id NOT IN (SELECT run FROM change UNION SELECT run FROM staging)"
            " AND id NOT IN (SELECT id FROM run ORDER BY started DESC LIMIT ?)",
            [(MOST_RUNS,)],
        )


def note_move(journal: Journal, place: tuple[str, str], old: InodeKey) -> None:
    """Note the inode that a name (root, path) has now instead of ``old``.

    Who removed or replaced it meanwhile has taken back himself what made it a hard link.
    """
    with suppress(OSError):
        now = os.lstat("/".join(place))
        journal.moved(place, old, InodeKey(now.st_dev, now.st_ino), now.st_mtime_ns)


def stale(entries: Sequence[Entry], linked: Mapping[tuple[str, str], list[Entry]]) -> list[Entry]:
    """Return what is shared no more: the name stands for another inode now, or for none.

    ``linked`` are the :func:`chains` of ``entries``.

    What is in a tree that is not there is none of it: that may be mounted again.
    """
    there = {root: os.path.isdir(root) for root in {entry.change.root for entry in entries}}
    alive = {entry.number for chain in linked.values() for entry in chain}
    return [
        entry
        for entry in entries
        if there[entry.change.root] and entry.number not in alive and not _is_reflinked(entry)
    ]


def _is_reflinked(entry: Entry) -> bool:
    change = entry.change
    return change.method.shares_extents and _number(f"{change.root}/{change.path}") == change.old.number


def _forget_stale(journal: Journal, now: float) -> None:
    entries = shared(journal)
    gone = {entry.number for entry in stale(entries, chains(entries))}
    started = dict(journal.read("SELECT id, started FROM run"))
    for entry in entries:
        if now - started.get(entry.run, 0.0) > REMEMBER_GONE and not os.path.isdir(entry.change.root):
            gone.add(entry.number)
    journal.write("DELETE FROM change WHERE id = ?", [(number,) for number in sorted(gone)])
    journal.forget_copies()
