"""What groups come to for one tree at a time, beyond what a report says: for its page. Pure."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import astuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .model import Inode
    from .plan import Group, Share


class Split(Struct):
    """Bytes of one tree.

    ``held`` stay there though they are duplicates; of these and of the freeable ones, the private ones are
    in no other tree. ``lent`` are in no other tree now, and will be when all is shared.
    """

    held: int = 0
    held_private: int = 0
    freeable_private: int = 0
    lent: int = 0

    def add(self, other: Split) -> None:
        """Add another one."""
        self.held, self.held_private, self.freeable_private, self.lent = (
            one + more for one, more in zip(astuple(self), astuple(other), strict=True)
        )


class Detail:
    """Of each tree, by its index, how its bytes are split."""

    def __init__(self) -> None:
        self.trees: dict[int, Split] = defaultdict(Split)

    def take(self, group: Group, selected: Sequence[bool]) -> None:
        """Add a group, to the trees that are ``selected``: a duplicate to the first that has it."""
        for share in group.shares:
            owner = _owner((share.duplicate,), selected)
            if owner is not None and _home(share.duplicate) == owner:
                self.trees[owner].freeable_private += share.freed_bytes
        for held in group.held:
            owner = _owner(held.inodes, selected)
            if owner is None:
                continue
            split = self.trees[owner]
            split.held += held.bytes
            if all(_home(inode) == owner for inode in held.inodes):
                split.held_private += held.bytes
        for home, size in _lent(group.shares):
            if selected[home]:
                self.trees[home].lent += size

    def merge(self, other: Detail) -> None:
        """Add all of another one."""
        for index, split in other.trees.items():
            self.trees[index].add(split)


def _owner(inodes: Iterable[Inode], selected: Sequence[bool]) -> int | None:
    return next((name.tree for inode in inodes for name in inode.names if selected[name.tree]), None)


def _home(inode: Inode) -> int | None:
    """The tree that has every name of an inode; None: there is more than one, or a name elsewhere."""
    home = inode.names[0].tree
    everywhere = len(inode.names) == inode.nlink and all(name.tree == home for name in inode.names)
    return home if everywhere else None


def _lent(shares: Iterable[Share]) -> Iterable[tuple[int, int]]:
    """Yield the tree and the bytes of each keeper that comes to be in a second tree."""
    found: dict[int, tuple[int, int]] = {}
    for share in shares:
        home = _home(share.keeper)
        if home is not None and any(name.tree != home for name in share.duplicate.names):
            _, size = found.get(id(share.keeper), (home, 0))
            found[id(share.keeper)] = home, max(size, share.freed_bytes)
    return found.values()
