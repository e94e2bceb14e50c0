"""Package caches that hold what another cache holds as well, and what dropping them would free. Pure."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .inventory import Inventory
    from .listing import Build


class RedundantCache(Struct, frozen=True):
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


def redundant_caches(
    inventory: Inventory, twins: Mapping[tuple[int, Build, int], int]
) -> list[RedundantCache]:
    """Return for every two caches with packages in common the one that frees more when it is dropped.

    ``twins``: by cache, build and another cache the bytes that go when that one's files are taken instead.
    """
    trees, builds = inventory.scope.trees, inventory.builds
    found = []
    for one, other in combinations(sorted(builds), 2):
        common = builds[one].keys() & builds[other].keys()
        offers = []
        for drop, keep in ((one, other), (other, one)):
            if trees[drop].selected and common:
                freed = sum(builds[drop][build] for build in common)
                after = sum(twins.get((drop, build, keep), 0) for build in common)
                offers.append((freed + after, freed, after, drop, keep))
        if offers and max(offers)[0] > 0:
            _, freed, after, drop, keep = max(offers)
            roots = (trees[drop].root, trees[keep].root)
            found.append(RedundantCache(*roots, len(builds[drop]), len(common), freed, after))
    return sorted(found, key=lambda cache: -(cache.bytes_freed + cache.bytes_after))
