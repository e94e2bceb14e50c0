"""Where the names of one inode meet in front of a loader. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .policy import loader_sensitive

if TYPE_CHECKING:
    from .model import Inode, InodeKey, Scope

#: Where two names of one inode meet in front of a loader: an environment, or one package of a cache.
Place = tuple[int, str]


class Places:
    """At which places an inode has (or will have) names, and whether a loader is sensitive to them."""

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self._at: dict[InodeKey, dict[Place, bool]] = {}
        self._links: dict[InodeKey, int] = {}

    def _of(self, inode: Inode) -> dict[Place, bool]:
        places: dict[Place, bool] = {}
        for name in inode.names:
            inside = name.path.split("/", 1)[0] if self._scope.trees[name.tree].is_cache else ""
            place = (name.tree, inside)
            places[place] = places.get(place, False) or loader_sensitive(name.path)
        return places

    def add(self, keeper: Inode) -> None:
        """Note the names of a keeper."""
        self._at[keeper.key] = self._of(keeper)
        self._links[keeper.key] = keeper.nlink

    def link(self, duplicate: Inode, keeper: Inode) -> None:
        """Note that the names of ``duplicate`` will be the keeper's."""
        at = self._at[keeper.key]
        for place, sensitive in self._of(duplicate).items():
            at[place] = at.get(place, False) or sensitive
        self._links[keeper.key] += len(duplicate.names)

    def conflict(self, duplicate: Inode, keeper: Inode) -> bool:
        """Whether linking would let a loader find one file where it found two."""
        at = self._at[keeper.key]
        return any(
            place in at and (sensitive or at[place]) for place, sensitive in self._of(duplicate).items()
        )

    def meet(self, duplicate: Inode, keeper: Inode) -> bool:
        """Whether one environment, or one package of a cache, would have both as one file."""
        return not self._at[keeper.key].keys().isdisjoint(self._of(duplicate))

    def links(self, keeper: Inode) -> int:
        """How many names the keeper will have by now."""
        return self._links[keeper.key]
