"""Package caches that hold what another cache holds as well, and what dropping them would free. Pure."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .layouts import own_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .inventory import Inventory
    from .model import Inode, InodeKey

#: What tells one build of a package: rattler's caches do not say from which archive.
_Build = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RedundantCache:
    """A cache of which ``shared`` packages are in the cache ``other`` too, of ``packages`` in all.

    ``bytes_freed`` on disk go with those packages at once; ``bytes_after`` more by the next ``apply``, when
    environments that use them can take the other cache's files.
    """

    cache: str
    other: str
    packages: int
    shared: int
    bytes_freed: int
    bytes_after: int


def redundant_caches(inventory: Inventory, twins: Mapping[InodeKey, set[int]]) -> list[RedundantCache]:
    """Return for every two caches with packages in common the one that frees more when it is dropped.

    ``twins``: for each inode the caches that hold its bytes in another inode on the same device.
    """
    scope = inventory.scope
    trees = {index for index, tree in enumerate(scope.trees) if tree.is_cache}
    if len(trees) < 2:
        return []
    builds: dict[int, set[_Build]] = defaultdict(set)
    own: dict[tuple[int, _Build], list[Inode]] = defaultdict(list)
    for inode in inventory.inodes_of(trees):
        for tree, build in _builds(inventory, inode):
            builds[tree].add(build)
            own[tree, build].append(inode)
    found = []
    caches = sorted(builds)
    for number, one in enumerate(caches):
        for other in caches[number + 1 :]:
            common = builds[one] & builds[other]
            if not common:
                continue
            offers = []
            for drop, keep in ((one, other), (other, one)):
                if scope.trees[drop].selected:
                    inodes = {inode.key: inode for build in common for inode in own[drop, build]}
                    freed, after = _gain(inodes.values(), drop, keep, twins)
                    offers.append((freed + after, freed, after, drop, keep))
            if offers and max(offers)[0] > 0:
                _, freed, after, drop, keep = max(offers)
                roots = (scope.trees[drop].root, scope.trees[keep].root)
                found.append(RedundantCache(*roots, len(builds[drop]), len(common), freed, after))
    return sorted(found, key=lambda cache: -(cache.bytes_freed + cache.bytes_after))


def _builds(inventory: Inventory, inode: Inode) -> set[tuple[int, _Build]]:
    trees = inventory.scope.trees
    return {
        (name.tree, name.claim.dist[:4])
        for name in inode.names
        if name.claim is not None and trees[name.tree].is_cache
    }


def _gain(
    inodes: Iterable[Inode], drop: int, keep: int, twins: Mapping[InodeKey, set[int]]
) -> tuple[int, int]:
    freed = after = 0
    for inode in inodes:
        others = [name for name in inode.names if name.tree != drop]
        if inode.nlink == len(inode.names) and not others:
            freed += own_bytes(inode)
        elif keep in twins.get(inode.key, ()) and inode.nlink == len(inode.names):
            after += own_bytes(inode)
    return freed, after
