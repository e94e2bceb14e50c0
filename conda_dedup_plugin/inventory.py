"""Which inode is each name on disk, now: one walk of every tree, inode-centred."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .counting import FileCounter
from .layouts import CompressedSizes
from .model import Hazard, Inode, InodeKey, Totals, TreeTotals
from .physical import Layouts
from .progress import Progress
from .records import read_claims
from .walking import listed_files, walk

if TYPE_CHECKING:
    from collections.abc import Mapping

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
    sizes: CompressedSizes = field(default_factory=CompressedSizes)


def scan(scope: Scope, min_size: int, progress: Progress | None = None) -> Inventory:
    """Walk every tree of ``scope`` and read its records.

    ``min_size`` in bytes: smaller files are counted, but no candidates. What cannot be read costs a
    warning.
    """
    inventory = Inventory(scope, trees=[TreeTotals() for _ in scope.trees])
    counter = FileCounter(inventory, min_size, Layouts())
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
    inventory.sizes = counter.sizes
    return inventory


def scan_listed(scope: Scope, listed: Mapping[int, Mapping[str, Claim]], min_size: int) -> Inventory:
    """Look at nothing but the listed paths: for each index of a tree, path in it and claim.

    A path that does not exist, is no regular file, or lies in a tree inside the tree, is left out.
    """
    inventory = Inventory(scope, trees=[TreeTotals() for _ in scope.trees])
    counter = FileCounter(inventory, min_size)
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
