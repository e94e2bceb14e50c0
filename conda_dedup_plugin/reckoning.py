"""What groups come to, added up while they are planned: parts can be put together in any order. Pure."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from .detail import Detail
from .model import Hazard, InodeKey, Totals
from .plan import LARGEST, PAGE_LARGEST, Plan, add_to

if TYPE_CHECKING:
    from .inventory import Inventory
    from .model import Device, Scope
    from .plan import Group


class Reckoning:
    """A plan, and what it comes to for everything, for each hazard class and for each tree.

    ``start``: so many groups come before its first one. Not ``whole``: the groups themselves are not kept.
    ``detailed``: with what a page says besides.
    """

    def __init__(self, scope: Scope, whole: bool, start: int = 0, detailed: bool = False) -> None:
        self.plan = Plan(whole=whole, start=start, many=PAGE_LARGEST if detailed else LARGEST)
        self.detail = Detail() if detailed else None
        self.devices: dict[int, Device] = {}
        self._totals = Totals()
        self._by_class: dict[Hazard, Totals] = {}
        self._trees: dict[int, Totals] = defaultdict(Totals)
        self._selected = [tree.selected for tree in scope.trees]
        self._caches = {index for index, tree in enumerate(scope.trees) if tree.is_cache}
        #: for each inode the caches that hold its bytes in another inode on the same device
        self.twins: dict[InodeKey, set[int]] = defaultdict(set)

    def take(self, group: Group) -> None:
        """Add a group."""
        self.plan.add(group)
        if self.detail is not None:
            self.detail.take(group, self._selected)
        add_to(group, self._totals, self._by_class)
        for share in group.shares:
            owner = next(name.tree for name in share.duplicate.names if self._selected[name.tree])
            self._trees[owner].add_share(share.freed_bytes, share.freed_inodes)
        if len(self._caches) > 1:
            self._find_twins(group)

    def _find_twins(self, group: Group) -> None:
        inodes = group.inodes
        caches = {inode.key: {name.tree for name in inode.names} & self._caches for inode in inodes}
        for inode in inodes:
            for key, found in caches.items():
                if found and key != inode.key and key.device == inode.key.device:
                    self.twins[inode.key] |= found

    def merge(self, other: Reckoning) -> None:
        """Add all of another one."""
        self.plan.merge(other.plan)
        if self.detail is not None and other.detail is not None:
            self.detail.merge(other.detail)
        self.devices.update(other.devices)
        self._totals.add(other._totals)
        for hazard, totals in other._by_class.items():
            self._by_class.setdefault(hazard, Totals()).add(totals)
        for tree, totals in other._trees.items():
            self._trees[tree].add(totals)
        for key, found in other.twins.items():
            self.twins[key] |= found

    def add_to(self, inventory: Inventory) -> None:
        """Add what the groups come to to what an inventory has counted."""
        inventory.totals.add(self._totals)
        for hazard, totals in self._by_class.items():
            inventory.by_class.setdefault(hazard, Totals()).add(totals)
        for tree, totals in self._trees.items():
            inventory.trees[tree].freeable_bytes += totals.freeable_bytes
            inventory.trees[tree].freeable_inodes += totals.freeable_inodes
