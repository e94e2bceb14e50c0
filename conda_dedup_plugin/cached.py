"""Packages and tarballs in caches of conda's kind that no environment uses, with what they hold."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from msgspec import Struct

from .archives import SUFFIXES
from .layouts import own_bytes
from .model import Manager
from .records.conda_meta import read_dists
from .trees import is_package
from .unused import is_used

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .inventory import Inventory
    from .model import Inode, Tree


class Cached(Struct, frozen=True):
    """What of one kind a cache holds for nobody: paths, and the disk bytes that go with all of them.

    ``kept``: how many of them conda takes for used. ``others``: how many paths besides conda would remove,
    because it does not know of an environment that has copies, or removes all tarballs.
    """

    cache: Tree
    paths: tuple[str, ...]
    bytes_freed: int
    kept: int = 0
    others: int = 0


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
    found_packages, found_tarballs = [], []
    for index, found in sorted(packages.items()):
        root = scope.trees[index].root
        found = {name: inodes for name, inodes in sorted(found.items()) if is_package(f"{root}/{name}")}
        linked = {name for name, inodes in found.items() if any(inode.nlink > 1 for inode in inodes)}
        idle = {
            name: inodes
            for name, inodes in found.items()
            if not _stems(index, name, inodes) & recorded
            and not any(is_used(inventory, inode) for inode in inodes)
        }
        others = len(found.keys() - idle.keys() - linked)
        found_packages.append(_cached(inventory, index, idle, len(idle.keys() & linked), others))
    for index, found in sorted(tarballs.items()):
        idle = {name: inodes for name, inodes in sorted(found.items()) if _stem(name) not in recorded}
        found_tarballs.append(_cached(inventory, index, idle, 0, len(found) - len(idle)))
    return [one for one in found_packages if one.paths], [one for one in found_tarballs if one.paths]


def _stems(index: int, package: str, inodes: Iterable[Inode]) -> set[str]:
    """Return what a package may be called in a record: rattler adds to the names of its directories."""
    names = (name for inode in inodes for name in inode.names if name.tree == index)
    inside = (name for name in names if name.path.startswith(f"{package}/"))
    return {package, *(str(name.claim.dist) for name in inside if name.claim is not None)}


def _stem(name: str) -> str:
    return next(name[: -len(suffix)] for suffix in SUFFIXES if name.endswith(suffix))


def _cached(
    inventory: Inventory, index: int, found: dict[str, list[Inode]], kept: int, others: int
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
    return Cached(cache, tuple(f"{cache.root}/{name}" for name in found), freed, kept, others)
