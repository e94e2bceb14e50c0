"""Taking back what was shared: what of it there is, whether there is room, and private copies again."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from . import history, state
from .apply import Applied
from .errors import DedupError
from .journal import NoJournal
from .model import Inode, Manager, Method, Name, Reason, Scope, Tree, TreeKind
from .sharing.extents import layout_of
from .sharing.opening import open_inode
from .sharing.outcome import Outcome
from .sharing.private import Copy, Privatizer
from .sharing.unshare import Unsharer

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from .inventory import Inventory
    from .journal import Journal
    from .model import InodeKey
    from .sharing.change import Entry

#: What directory entries and the journal may want besides the copies, in bytes and as a part of them.
_SPARE = 1024 * 1024
_SPARE_PART = 50
#: The journal is told of so many changes at a time.
_MOST = 200


@dataclass(slots=True)
class Undoing:
    """What is to be taken back: names that get a copy, inodes that get extents of their own.

    ``entries`` are the changes in the journal that are so undone, by the task's ``id()``; ``edited`` counts
    inodes that were written to since they were shared.
    """

    scope: Scope
    copies: list[Copy] = field(default_factory=list)
    unshared: list[Inode] = field(default_factory=list)
    entries: dict[int, list[Entry]] = field(default_factory=dict)
    edited: int = 0
    #: What is in the journal and was undone by others, or by a run that was killed.
    stale: list[Entry] = field(default_factory=list)

    @property
    def inodes(self) -> list[Inode]:
        """The inodes that are shared now, a time for each copy."""
        return [*(copy.duplicate for copy in self.copies), *self.unshared]

    @property
    def bytes_needed(self) -> int:
        """Disk bytes that the copies take."""
        return sum(inode.disk_bytes for inode in self.inodes)


def plan_undo(journal: Journal, roots: Collection[str] | None = None, run: str | None = None) -> Undoing:
    """Find what was shared below ``roots`` (None: anywhere), by one run or any, and still is."""
    entries = [entry for entry in history.shared(journal) if roots is None or entry.change.root in roots]
    places = sorted({entry.change.root for entry in entries})
    undoing = Undoing(_scope_of(places))
    index = {root: number for number, root in enumerate(places)}
    groups: dict[tuple[InodeKey, int], list[list[Entry]]] = defaultdict(list)
    inodes: dict[InodeKey, Inode] = {}
    copied = set()
    for (root, path), chain in history.chains(entries).items():
        if run is not None and all(entry.run != run for entry in chain):
            continue
        inode = _lstat(f"{root}/{path}")
        if inode is None or (inode.nlink == 1 and _edited(inode, chain[0])):
            continue  # the number of the keeper, and somebody else's file
        copied.add((root, path))
        inodes.setdefault(inode.key, inode)
        groups[inode.key, chain[-1].change.old.number].append(chain)
    for (key, _), members in groups.items():
        undoing.edited += _edited(inodes[key], members[0][0])
        undoing.copies.append(_copy(inodes[key], members, index))
        undoing.entries[id(undoing.copies[-1].duplicate)] = [entry for chain in members for entry in chain]
    _add_reflinks(undoing, entries, run, index, copied)
    undoing.stale += [entry for entry in history.stale(entries) if run in (None, entry.run)]
    return undoing


def _copy(inode: Inode, members: list[list[Entry]], index: dict[str, int]) -> Copy:
    """Names that were of one inode before they were given this one get one inode together again."""
    newest, oldest = members[0][0], members[0][-1].change
    own = inode.alone()
    for chain in members:
        own.names.append(Name(index[chain[0].change.root], chain[0].change.path, None))
    return Copy(own, inode.mtime_ns if _edited(inode, newest) else oldest.mtime_ns)


def _edited(inode: Inode, newest: Entry) -> bool:
    change = newest.change
    return (inode.size, inode.mtime_ns) != (change.size, change.keeper_mtime_ns)


def _add_reflinks(
    undoing: Undoing,
    entries: Iterable[Entry],
    run: str | None,
    index: dict[str, int],
    copied: Collection[tuple[str, str]],
) -> None:
    found: dict[InodeKey, Inode] = {}
    for entry in entries:
        change = entry.change
        if change.method is not Method.REFLINK or (change.root, change.path) in copied:
            continue
        inode = _lstat(f"{change.root}/{change.path}")
        if inode is None or inode.key.number != change.old.number or run not in (None, entry.run):
            continue
        if inode.key not in found:
            inode.names.append(Name(index[change.root], change.path, None))
            shares = _shares_extents(undoing.scope, inode)
            if shares is False:
                undoing.stale.append(entry)
            if not shares:
                continue
            found[inode.key] = inode
            undoing.unshared.append(inode)
        undoing.entries.setdefault(id(found[inode.key]), []).append(entry)


def _shares_extents(scope: Scope, inode: Inode) -> bool | None:
    """Whether it shares any extents; None: the file system cannot tell."""
    try:
        descriptor = open_inode(scope, inode)
    except OSError:
        return True  # undoing it says what is wrong
    try:
        layout = layout_of(descriptor)
        return None if layout is None else layout.shared
    finally:
        os.close(descriptor)


def plan_all_links(inventory: Inventory, journal: Journal) -> Undoing:
    """Find every inode with names in the selected environments and elsewhere: each gets a copy of it.

    Where such names are all there are, the first environment keeps the inode.
    """
    scope = inventory.scope
    undoing = Undoing(scope)
    chains = history.chains(history.shared(journal))
    for inode in inventory.inodes.values():
        trees: dict[int, list[Name]] = defaultdict(list)
        for name in inode.names:
            if scope.trees[name.tree].selected and not scope.trees[name.tree].is_cache:
                trees[name.tree].append(name)
        if inode.nlink == 1 or inode.privileged:
            continue
        copies = list(trees.values())
        if sum(map(len, copies)) == inode.nlink:
            copies = copies[1:]
        for names in copies:
            own = inode.alone()
            own.names = names
            undoing.copies.append(Copy(own, inode.mtime_ns))
            places = [(scope.trees[name.tree].root, name.path) for name in names]
            undoing.entries[id(own)] = [entry for place in places for entry in chains.get(place, [])]
    return undoing


def _scope_of(roots: Iterable[str]) -> Scope:
    return Scope(
        tuple(
            Tree(root, TreeKind.ENVIRONMENT, Manager.CONDA, os.path.basename(root) or root) for root in roots
        )
    )


def _lstat(path: str) -> Inode | None:
    try:
        return Inode.of(os.lstat(path))
    except (OSError, ValueError):
        return None


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
            numbers = os.statvfs(os.path.dirname(where[device]))
            blocks = numbers.f_bavail if os.geteuid() else numbers.f_bfree
            free = blocks * numbers.f_frsize
            wanted = size + size // _SPARE_PART + _SPARE
            if wanted > free:
                raise DedupError(
                    f"There is no room for all copies: the device of {where[device]!r} has "
                    f"{decimal(free)} free, and {decimal(wanted)} are needed.",
                    "Nothing was changed; make room, or undo environment by environment with --name.",
                )


def undo(undoing: Undoing, journal: Journal, command: str) -> Applied:
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
        for outcome in _outcomes(undoing, journal, locked):
            inode = outcome.duplicate
            applied.add(outcome, inode.disk_bytes, scope.paths_of(inode)[0])
            if outcome.method is not None:
                undone += undoing.entries.get(id(inode), [])
            if len(undone) >= _MOST:
                history.taken_back(journal, undone)
                undone = []
        history.taken_back(journal, undone)
        journal.finish()
        history.compact(journal, time.time())
    return applied


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
