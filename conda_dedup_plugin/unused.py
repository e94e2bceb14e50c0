"""Cached packages that no environment uses, although hard links among caches make conda think so."""

from __future__ import annotations

import os
from collections import defaultdict
from typing import TYPE_CHECKING

from msgspec import Struct

from .layouts import own_bytes
from .records.conda_meta import read_dists
from .sharing.opening import Directories
from .sharing.system import open_directory, remove_directory, scan, unlink

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .inventory import Inventory
    from .model import Inode


class Unused(Struct, frozen=True):
    """An extracted package in a conda cache; ``bytes_freed`` on disk if all that are listed go."""

    path: str
    bytes_freed: int


def find_unused(inventory: Inventory) -> list[Unused]:
    """Return the packages of the selected conda caches that nothing uses but conda would keep.

    ``conda clean --packages`` keeps a package of which any file has several names. It is unused all the
    same if every one of those names is known, none is in an environment under this package's name, and
    no environment has a record of it. The inventory must know every environment, and every size of file.
    """
    scope = inventory.scope
    recorded = {stem for tree in scope.trees if not tree.is_cache for stem in read_dists(tree.root)}
    packages: dict[str, list[Inode]] = defaultdict(list)
    for inode in inventory.inodes.values():
        for root, package in {_package(inventory, name.tree, name.path) for name in inode.names}:
            if root:
                packages[f"{root}/{package}"].append(inode)
    found = {}
    for path, inodes in packages.items():
        if os.path.basename(path) in recorded or not os.path.lexists(f"{path}/info/index.json"):
            continue
        if any(inode.nlink > 1 for inode in inodes) and not any(
            is_used(inventory, inode) for inode in inodes
        ):
            found[path] = inodes
    return [Unused(path, size) for path, size in sorted(_freed(inventory, found).items())]


def _package(inventory: Inventory, tree: int, path: str) -> tuple[str, str]:
    """Return (cache, package) of a name in a selected conda cache, else two empty ones."""
    cache = inventory.scope.trees[tree]
    if not cache.is_conda_cache or not cache.selected or "/" not in path:
        return "", ""
    return cache.root, path.split("/")[0]


def is_used(inventory: Inventory, inode: Inode) -> bool:
    """Whether an inode has a name that nobody knows of, or one in an environment that no record explains.

    One that a record explains is of another package: of this one there is no record.
    """
    if len(inode.names) < inode.nlink:
        return True
    trees = inventory.scope.trees
    return any(not trees[name.tree].is_cache and name.claim is None for name in inode.names)


def _freed(inventory: Inventory, found: dict[str, list[Inode]]) -> dict[str, int]:
    """Share out the disk bytes of every inode of which all names go, each inode once."""
    freed = dict.fromkeys(found, 0)
    counted = set()
    for path, inodes in found.items():
        for inode in inodes:
            places = [_package(inventory, name.tree, name.path) for name in inode.names]
            if inode.key not in counted and all(f"{root}/{name}" in found for root, name in places):
                counted.add(inode.key)
                freed[path] += own_bytes(inode)
    return freed


def remove_unused(unused: Sequence[Unused]) -> tuple[list[Unused], list[str]]:
    """Remove packages; returns those that are gone, and a sentence for each that could not be removed."""
    gone, notes = [], []
    for package in unused:
        try:
            _remove(package.path)
        except OSError as exc:
            notes.append(f"{package.path!r} could not be removed: {exc.strerror or exc}")
        else:
            gone.append(package)
    return gone, notes


def _remove(path: str) -> None:
    """Remove a directory with all that is in it, never through a symbolic link."""
    cache, _, package = path.rpartition("/")
    with Directories() as directories:
        parent, name = directories.parent(cache, package)
        _empty(open_directory(name, parent, listed=True))
        remove_directory(name, parent)


def _empty(directory: int) -> None:
    """Remove all that is in an open directory, and close it."""
    try:
        for entry in scan(directory):
            if entry.is_dir(follow_symlinks=False):
                _empty(open_directory(entry.name, directory, listed=True))
                remove_directory(entry.name, directory)
            else:
                unlink(entry.name, directory)
    finally:
        os.close(directory)
