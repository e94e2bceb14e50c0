"""Which inode is each name on disk, now: one walk of every tree, inode-centred.

Directories are opened one below the other without following symbolic links, so that a walk never
leaves its tree, whatever its owner does meanwhile.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .environments import is_package_cache
from .model import STAGING_PREFIX, Hazard, Inode, InodeKey, Name, Totals, TreeTotals
from .policy import hazard_of
from .progress import Progress
from .records import read_claims
from .sharing.opening import open_root

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from .model import Claim, Dist, Scope, Tree

_DIRECTORY = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0)


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
            counter.tree(index, _walk(tree, roots, inventory.warnings), records.claims)
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
        counter.tree(index, _listed(tree, paths), claims)
    counter.finish()
    return inventory


def _listed(tree: Tree, paths: Iterable[str]) -> Iterator[tuple[str, os.stat_result]]:
    for path in paths:
        try:
            stat = os.lstat(f"{tree.root}/{path}")
        except OSError:
            continue
        if (stat.st_mode & 0o170000) == 0o100000:
            yield path, stat


def _walk(tree: Tree, roots: set[str], warnings: list[str]) -> Iterator[tuple[str, os.stat_result]]:
    """Yield every regular file of ``tree``, depth first, with at most one descriptor a level open."""
    try:
        descriptor = open_root(tree.root, _DIRECTORY)
    except OSError as exc:
        warnings.append(_unreadable(tree.root, exc))
        return
    #: (open directory, its path with a slash, names of its directories still to be seen)
    levels: list[tuple[int, str, list[str]]] = []
    try:
        levels.append((descriptor, "", []))
        yield from _files(tree, descriptor, "", levels[-1][2], warnings)
        while levels:
            parent, below, pending = levels[-1]
            if not pending:
                os.close(parent)
                levels.pop()
                continue
            name = pending.pop()
            path = below + name
            if f"{tree.root}/{path}" in roots or (not below and _is_foreign(tree, name)):
                continue
            try:
                descriptor = os.open(name, _DIRECTORY, dir_fd=parent)
            except FileNotFoundError:
                continue
            except OSError as exc:
                warnings.append(_unreadable(f"{tree.root}/{path}", exc))
                continue
            levels.append((descriptor, path + "/", []))
            yield from _files(tree, descriptor, path + "/", levels[-1][2], warnings)
    finally:
        for descriptor, _, _ in levels:
            os.close(descriptor)


def _files(
    tree: Tree, descriptor: int, below: str, directories: list[str], warnings: list[str]
) -> Iterator[tuple[str, os.stat_result]]:
    """Yield the regular files of one open directory; its directories go to ``directories``.

    An environment inside another one is none of its files.
    """
    try:
        with os.scandir(descriptor) as scanned:
            entries = list(scanned)
    except OSError as exc:
        warnings.append(_unreadable(f"{tree.root}/{below}", exc))
        return
    if below and not tree.is_cache and any(entry.name == "conda-meta" for entry in entries):
        return
    for entry in entries:
        try:
            if entry.is_file(follow_symlinks=False):
                yield below + entry.name, entry.stat(follow_symlinks=False)
            elif entry.is_dir(follow_symlinks=False):
                directories.append(entry.name)
        except FileNotFoundError:
            continue
        except OSError as exc:
            # a directory that may be listed and not entered
            warnings.append(_unreadable(f"{tree.root}/{below}", exc))
            return


def _unreadable(path: str, error: OSError) -> str:
    return f"{path!r} cannot be read ({error.strerror}); it is left out"


def _is_foreign(tree: Tree, name: str) -> bool:
    """Whether the child ``name`` of the root is no part of the tree: our staging, a base's cache."""
    if name.startswith(STAGING_PREFIX):
        return True
    return not tree.is_cache and name == "pkgs" and is_package_cache(f"{tree.root}/{name}")
