"""Which inode is each name on disk, now: one walk of every tree, inode-centred."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .model import Hazard, Inode, InodeKey, Name, Totals, TreeTotals
from .policy import hazard_of
from .progress import Progress
from .records import read_claims
from .walking import listed_files, walk

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping

    from .model import Claim, Dist, Scope


@dataclass(slots=True)
class Inventory:
    """What the trees of a scope hold.

    ``inodes`` has those of at least the minimal size with every name seen; ``trees[i]`` counts tree
    ``i`` of the scope; ``totals`` and ``by_class`` count the selected trees together.
    """

    scope: Scope
    inodes: dict[InodeKey, Inode] = field(default_factory=dict)
    trees: list[TreeTotals] = field(default_factory=list)
    totals: Totals = field(default_factory=Totals)
    by_class: dict[Hazard, Totals] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    #: For each tree the paths that pip took from conda: (conda's package, pip's).
    clobbered: dict[int, dict[str, tuple[Dist, Dist]]] = field(default_factory=dict)


@dataclass(slots=True)
class _Shared:
    """An inode with several names, while they are being counted."""

    disk_bytes: int
    hazard: Hazard
    recorded: bool


class _Counter:
    """Counts files into an inventory, tree by tree."""

    def __init__(self, inventory: Inventory, min_size: int) -> None:
        self._inventory = inventory
        self._min_size = min_size
        self._shared: dict[InodeKey, _Shared] = {}

    def tree(
        self, index: int, files: Iterable[tuple[str, os.stat_result]], claims: Mapping[str, Claim]
    ) -> None:
        """Count all ``files`` (path in the tree, lstat) of the tree at ``index``."""
        inventory = self._inventory
        tree = inventory.scope.trees[index]
        counted = inventory.trees[index]
        here: Counter[InodeKey] = Counter()
        links: dict[InodeKey, tuple[int, int]] = {}
        for path, stat in files:
            key = InodeKey(stat.st_dev, stat.st_ino)
            disk = stat.st_blocks * 512
            claim = claims.get(path)
            hazard = hazard_of(path, claim)
            counted.files += 1
            counted.apparent_bytes += stat.st_size
            if stat.st_nlink == 1:
                counted.inodes += 1
                counted.disk_bytes += disk
                counted.private_bytes += disk
            else:
                here[key] += 1
                links[key] = (stat.st_nlink, disk)
            if tree.selected:
                self._total(key, stat, hazard, claim is not None)
            if stat.st_size >= self._min_size and (tree.is_cache or not path.startswith("conda-meta/")):
                self._keep(key, stat, Name(index, path, claim), hazard)
        for key, names in here.items():
            nlink, disk = links[key]
            counted.inodes += 1
            counted.disk_bytes += disk
            if names == nlink:
                counted.private_bytes += disk

    def _total(self, key: InodeKey, stat: os.stat_result, hazard: Hazard, recorded: bool) -> None:
        disk = stat.st_blocks * 512
        if stat.st_nlink > 1:
            shared = self._shared.get(key)
            if shared is not None:
                shared.recorded |= recorded
                for totals in self._totals(shared.hazard):
                    totals.files += 1
                    totals.apparent_bytes += stat.st_size
                return
            self._shared[key] = _Shared(disk, hazard, recorded)
        for totals in self._totals(hazard):
            totals.files += 1
            totals.inodes += 1
            totals.apparent_bytes += stat.st_size
            totals.disk_bytes += disk
            if stat.st_nlink == 1 and not recorded:
                totals.unrecorded_bytes += disk

    def _totals(self, hazard: Hazard) -> tuple[Totals, Totals]:
        return self._inventory.totals, self._inventory.by_class.setdefault(hazard, Totals())

    def _keep(self, key: InodeKey, stat: os.stat_result, name: Name, hazard: Hazard) -> None:
        inode = self._inventory.inodes.get(key)
        if inode is None:
            inode = Inode.of(stat)
            self._inventory.inodes[key] = inode
        inode.names.append(name)
        inode.hazard = max(inode.hazard, hazard)

    def finish(self) -> None:
        """Add what is known only when every name was seen."""
        for shared in self._shared.values():
            if not shared.recorded:
                for totals in self._totals(shared.hazard):
                    totals.unrecorded_bytes += shared.disk_bytes


def scan(scope: Scope, min_size: int, progress: Progress | None = None) -> Inventory:
    """Walk every tree of ``scope`` and read its records.

    ``min_size`` in bytes: smaller files are counted, but no candidates. What cannot be read costs a
    warning.
    """
    inventory = Inventory(scope, trees=[TreeTotals() for _ in scope.trees])
    counter = _Counter(inventory, min_size)
    roots = {tree.root for tree in scope.trees}
    with (progress or Progress()).stage("Looking at every file", len(scope.trees)) as advance:
        for index, tree in enumerate(scope.trees):
            records = read_claims(tree)
            inventory.warnings += records.warnings
            if records.clobbered and tree.selected:
                inventory.clobbered[index] = records.clobbered
            counter.tree(index, walk(tree, roots, inventory.warnings), records.claims)
            advance(1)
    counter.finish()
    return inventory


def scan_listed(scope: Scope, listed: Mapping[int, Mapping[str, Claim]], min_size: int) -> Inventory:
    """Look at nothing but the listed paths: for each index of a tree, path in it and claim.

    A path that does not exist, is no regular file, or lies in a tree inside the tree, is left out.
    """
    inventory = Inventory(scope, trees=[TreeTotals() for _ in scope.trees])
    counter = _Counter(inventory, min_size)
    for index, claims in listed.items():
        tree = scope.trees[index]
        inside = tuple(
            other.root[len(tree.root) + 1 :] + "/"
            for other in scope.trees
            if other.root.startswith(tree.root + "/")
        )
        paths = (path for path in claims if not path.startswith(inside))
        counter.tree(index, listed_files(tree, paths), claims)
    counter.finish()
    return inventory
