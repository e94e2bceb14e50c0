"""What groups come to, added up while they are planned: parts can be put together in any order. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from .detail import Detail
from .layouts import own_bytes
from .model import Hazard, Totals
from .plan import LARGEST, PAGE_LARGEST, Plan, add_to

if TYPE_CHECKING:
    from .inventory import Inventory
    from .listing import Build
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
        #: what each tree could free by itself, in bytes: without what takes other trees as well
        self.alone: Counter[int] = Counter()
        self._selected = [tree.selected for tree in scope.trees]
        self._caches = {index for index, tree in enumerate(scope.trees) if tree.is_cache}
        #: by cache, build and another cache on the same device: the bytes of files that environments have
        #: names of, too, and that the other cache has as well
        self.twins: dict[tuple[int, Build, int], int] = defaultdict(int)

    def take(self, group: Group) -> None:
        """Add a group."""
        self.plan.add(group)
        if self.detail is not None:
            self.detail.take(group, self._selected)
        add_to(group, self._totals, self._by_class)
        for share in group.shares:
            owner = next(name.tree for name in share.duplicate.names if self._selected[name.tree])
            self._trees[owner].add_share(share.freed_bytes, share.freed_inodes)
            if all(name.tree == owner for name in share.duplicate.names):
                self.alone[owner] += share.freed_bytes
        if len(self._caches) > 1:
            self._find_twins(group)

    def _find_twins(self, group: Group) -> None:
        inodes = group.inodes
        caches = [{name.tree for name in inode.names} & self._caches for inode in inodes]
        for place, inode in enumerate(inodes):
            trees = {name.tree for name in inode.names}
            if not caches[place] or len(trees) < 2 or inode.nlink > len(inode.names):
                continue
            keep: set[int] = set()
            for other, found in zip(inodes, caches, strict=True):
                if found and other.key != inode.key and other.key.device == inode.key.device:
                    keep |= found
            builds = {
                (name.tree, name.claim.dist[:4])
                for name in inode.names
                if name.claim is not None and name.tree in self._caches
            }
            for tree, build in builds:
                for cache in keep - {tree}:
                    self.twins[tree, build, cache] += own_bytes(inode)

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
        self.alone.update(other.alone)
        for key, size in other.twins.items():
            self.twins[key] += size

    def add_to(self, inventory: Inventory) -> None:
        """Add what the groups come to to what an inventory has counted."""
        inventory.totals.add(self._totals)
        for hazard, totals in self._by_class.items():
            inventory.by_class.setdefault(hazard, Totals()).add(totals)
        for tree, totals in self._trees.items():
            inventory.trees[tree].freeable_bytes += totals.freeable_bytes
            inventory.trees[tree].freeable_inodes += totals.freeable_inodes
