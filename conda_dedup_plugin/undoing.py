"""What of the past is to be taken back: names that get a copy, inodes that get extents of their own."""

from __future__ import annotations

import os
from collections import defaultdict
from typing import TYPE_CHECKING

from msgspec import Struct, field

from . import history
from .model import Inode, InodeKey, Manager, Name, Scope, Source, Tree, TreeKind
from .sharing.bytecode import restored
from .sharing.extents import layout_of
from .sharing.opening import open_inode
from .sharing.private import Copy
from .sharing.system import lstat
from .sharing.whole import TELLS_SHARED

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from .inventory import Inventory
    from .journal import Journal
    from .sharing.change import Bytecode, Change, Entry


class Undoing(Struct):
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
    #: Bytecode whose source is a hard link still: it can be undone when that is no more.
    deferred: list[Inode] = field(default_factory=list)
    #: What had made a place (root, path) a hard link before the run that is undone, and does so again.
    earlier: dict[tuple[str, str], Entry] = field(default_factory=dict)

    @property
    def inodes(self) -> list[Inode]:
        """The inodes that are shared now, a time for each copy."""
        return [*(copy.duplicate for copy in self.copies), *self.unshared, *self.deferred]

    @property
    def bytes_needed(self) -> int:
        """Disk bytes that the copies take."""
        return sum(inode.disk_bytes for inode in self.inodes)


def plan_undo(
    journal: Journal, roots: Collection[str] | None = None, run: str | None = None, last: bool = False
) -> Undoing:
    """Find what was shared below ``roots`` (None: anywhere), by one run or any, and still is.

    Bytecode whose source is still a hard link is deferred; when this is the ``last`` plan it gets a copy of
    what it is now.
    """
    entries = [entry for entry in history.shared(journal) if roots is None or entry.change.root in roots]
    places = sorted({entry.change.root for entry in entries})
    undoing = Undoing(_scope_of(places))
    index = {root: number for number, root in enumerate(places)}
    groups: dict[tuple[InodeKey, str, int], list[list[Entry]]] = defaultdict(list)
    inodes: dict[InodeKey, Inode] = {}
    copied = set()
    linked = history.chains(entries)
    for (root, path), chain in linked.items():
        undone, earlier = _split(chain, run)
        inode = _lstat(f"{root}/{path}")
        if (
            not undone
            or inode is None
            or (inode.nlink == 1 and not chain[0].change.keeper_is_as_noted(inode))
        ):
            continue  # the number of the keeper, and somebody else's file
        copied.add((root, path))
        inodes.setdefault(inode.key, inode)
        groups[inode.key, undone[-1].run, undone[-1].change.old.number].append(undone)
        if earlier:
            undoing.earlier[root, path] = earlier[0]
    for (key, _, _), members in groups.items():
        undoing.edited += not members[0][0].change.keeper_is_as_noted(inodes[key])
        if not last and _waits_for_source(members[0]):
            own = inodes[key].alone()
            own.names = [Name(index[chain[0].change.root], chain[0].change.path, None) for chain in members]
            undoing.deferred.append(own)
            continue
        undoing.copies.append(_copy(undoing.scope, inodes[key], members, index))
        undoing.entries[id(undoing.copies[-1].duplicate)] = [entry for chain in members for entry in chain]
    # what is compiled from one source goes back together
    undoing.copies.sort(key=lambda copy: copy.source.inode.key if copy.source else InodeKey(-1, -1))
    _add_reflinks(undoing, entries, run, index, copied)
    undoing.stale += [entry for entry in history.stale(entries, linked) if run in (None, entry.run)]
    return undoing


def _split(chain: list[Entry], run: str | None) -> tuple[list[Entry], list[Entry]]:
    """Part what made a name a hard link: up to a run (None: all of it), and what was before."""
    if run is None:
        return chain, []
    count = max((number for number, entry in enumerate(chain, 1) if entry.run == run), default=0)
    return chain[:count], chain[count:]


def _copy(scope: Scope, inode: Inode, members: list[list[Entry]], index: dict[str, int]) -> Copy:
    """Names that were of one inode before they were given this one get one inode together again."""
    newest, oldest = members[0][0].change, members[0][-1].change
    own = inode.alone()
    for chain in members:
        own.names.append(Name(index[chain[0].change.root], chain[0].change.path, None))
    if not newest.keeper_is_as_noted(inode):
        return Copy(own, inode.mtime_ns)
    compiled = _compiled(members[0])
    if compiled is None:
        return Copy(own, oldest.mtime_ns)
    return _bytecode(scope, own, oldest, compiled)


def _compiled(chain: Sequence[Entry]) -> Bytecode | None:
    """What the oldest change that normalised bytecode wrote down of it."""
    return next((entry.change.bytecode for entry in reversed(chain) if entry.change.bytecode), None)


def _waits_for_source(chain: Sequence[Entry]) -> bool:
    """Whether its source is a hard link, which would take others along to its old time."""
    compiled = _compiled(chain)
    found = _lstat(f"{chain[0].change.root}/{compiled.source}") if compiled is not None else None
    return found is not None and compiled is not None and _is_held(found, compiled)


def _is_held(source: Inode, bytecode: Bytecode) -> bool:
    return source.nlink > 1 and bytecode.before != bytecode.given


def _bytecode(scope: Scope, own: Inode, oldest: Change, bytecode: Bytecode) -> Copy:
    """Bytecode gets back what it was, if its source can get back the time that it had."""
    found = _lstat(f"{oldest.root}/{bytecode.source}")
    if found is None or found.mtime_ns != bytecode.given or _is_held(found, bytecode):
        return Copy(own, own.mtime_ns)
    found.names.append(Name(own.names[0].tree, bytecode.source, None))
    write = restored(scope, own, bytecode)
    if write is None:
        return Copy(own, own.mtime_ns)
    source = Source(found, bytecode.before)
    return Copy(own, oldest.mtime_ns, write, bytecode.sha256, source, bytecode)


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
        if not change.method.shares_extents or change.replaced or (change.root, change.path) in copied:
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
    if not TELLS_SHARED:
        return True  # it was given the bytes of another one, and is the same inode still
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
        return Inode.of(lstat(path))
    except (OSError, ValueError):
        return None
