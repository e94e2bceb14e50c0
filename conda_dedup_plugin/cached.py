"""Packages and tarballs in caches of conda's kind that no environment uses, with what they hold."""

from __future__ import annotations

import os
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .archives import SUFFIXES
from .layouts import own_bytes
from .model import Manager
from .records.conda_meta import read_dists
from .unused import is_used

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .inventory import Inventory
    from .model import Inode, Tree


@dataclass(frozen=True, slots=True)
class Cached:
    """What of one kind a cache holds for nobody: paths, and the disk bytes that go with all of them.

    ``kept``: those of the paths that conda takes for used. ``bytes_all``: what goes when all tarballs go,
    used or not; 0 for packages.
    """

    cache: Tree
    paths: tuple[str, ...]
    bytes_freed: int
    bytes_all: int = 0
    kept: frozenset[str] = frozenset()


def find_cached(inventory: Inventory) -> tuple[list[Cached], list[Cached]]:
    """Return packages and tarballs that no environment has, for each selected cache.

    A package is used if an environment has a record of it, or a file of it that no record explains. The
    inventory must know every environment, and every size of file.
    """
    scope = inventory.scope
    recorded = {stem for tree in scope.trees if not tree.is_cache for stem in read_dists(tree.root)}
    packages: dict[int, dict[str, list[Inode]]] = defaultdict(lambda: defaultdict(list))
    tarballs: dict[int, dict[str, list[Inode]]] = defaultdict(lambda: defaultdict(list))
    for inode in inventory.inodes.values():
        places = {(name.tree, *name.path.partition("/")[:2]) for name in inode.names}
        for index, first, below in places:
            tree = scope.trees[index]
            if not tree.is_cache or not tree.selected or tree.manager is Manager.UV:
                continue
            if below:
                packages[index][first].append(inode)
            elif first.endswith(SUFFIXES):
                tarballs[index][first].append(inode)
    unused = {
        index: {
            name: inodes
            for name, inodes in sorted(found.items())
            if not _stems(index, name, inodes) & recorded
            and os.path.lexists(f"{scope.trees[index].root}/{name}/info/index.json")
            and not any(is_used(inventory, inode) for inode in inodes)
        }
        for index, found in sorted(packages.items())
    }
    whole = [
        _cached(inventory, index, found, {name for name in found if any(i.nlink > 1 for i in found[name])})
        for index, found in unused.items()
        if found
    ]
    files = []
    for index, every in sorted(tarballs.items()):
        idle = {name: inodes for name, inodes in sorted(every.items()) if _stem(name) not in recorded}
        if idle:
            one, other = _cached(inventory, index, idle), _cached(inventory, index, every)
            files.append(Cached(one.cache, one.paths, one.bytes_freed, other.bytes_freed))
    return whole, files


def _stems(index: int, package: str, inodes: Iterable[Inode]) -> set[str]:
    """Return what a package may be called in a record: rattler adds to the names of its directories."""
    names = (name for inode in inodes for name in inode.names if name.tree == index)
    inside = (name for name in names if name.path.startswith(f"{package}/"))
    return {package, *(str(name.claim.dist) for name in inside if name.claim is not None)}


def _stem(name: str) -> str:
    return next(name[: -len(suffix)] for suffix in SUFFIXES if name.endswith(suffix))


def _cached(
    inventory: Inventory, index: int, found: dict[str, list[Inode]], kept: set[str] | None = None
) -> Cached:
    """Add up the inodes of which every name goes."""
    cache = inventory.scope.trees[index]
    inodes = {inode.key: inode for each in found.values() for inode in each}
    freed = sum(
        own_bytes(inode)
        for inode in inodes.values()
        if len(inode.names) == inode.nlink
        and all(name.tree == index and name.path.partition("/")[0] in found for name in inode.names)
    )
    paths = tuple(f"{cache.root}/{name}" for name in found)
    return Cached(cache, paths, freed, 0, frozenset(f"{cache.root}/{name}" for name in kept or ()))
