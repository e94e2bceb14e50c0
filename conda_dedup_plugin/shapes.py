"""Groups that are alike in all that a plan asks about are planned alike: once, and then by that model. Pure.

Environments hold the same packages, so that thousands of groups differ in their bytes alone.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import count
from typing import TYPE_CHECKING

from .layouts import BLOCK, own_bytes
from .plan import Group, Held, Share
from .policy import loader_sensitive

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .model import Cause, Claim, Hazard, Inode, Method, Reason, Scope

#: So many models are kept.
_MOST = 4_000
#: What a loader may be asked for by its path, besides ``.so`` with a version.
_LOADED = (".dylib", ".dll", ".pyd")
Shape = tuple[object, ...]


class _Model:
    """What was planned for the first group of its kind, by the places of inodes in their order."""

    def __init__(self, group: Group, ranked: Sequence[Inode]) -> None:
        places = {id(inode): place for place, inode in enumerate(ranked)}
        self._keeper = places[id(group.keeper)]
        self._shares: list[tuple[int, int, Method, Hazard, Cause]] = [
            (places[id(one.duplicate)], places[id(one.keeper)], one.method, one.hazard, one.cause)
            for one in group.shares
        ]
        self._held: list[tuple[int, Reason, Cause]] = [
            (places[id(held.inodes[0])], held.reason, held.cause) for held in group.held
        ]

    def group(self, ranked: Sequence[Inode]) -> Group:
        """Return the same for other inodes."""
        group = Group(ranked[self._keeper])
        for place, keeper, method, hazard, cause in self._shares:
            inode = ranked[place]
            group.shares.append(Share(inode, ranked[keeper], method, hazard, own_bytes(inode), cause=cause))
        for place, reason, cause in self._held:
            group.held.append(Held((ranked[place],), reason, ranked[place].disk_bytes, cause))
        return group


class Shapes:
    """Plans groups by ``plan``, which is given inodes in the order of their rank, each kind once."""

    def __init__(self, scope: Scope, plan: Callable[[Sequence[Inode]], Group]) -> None:
        self._is_cache = [tree.is_cache for tree in scope.trees]
        self._plan = plan
        self._models: dict[Shape, _Model] = {}

    def group(self, ranked: Sequence[Inode]) -> Group:
        """Return what is planned; the inodes have no known extents, and their devices room for all names."""
        shape = self._shape(ranked)
        model = self._models.get(shape)
        if model is not None:
            return model.group(ranked)
        group = self._plan(ranked)
        if len(self._models) >= _MOST:
            self._models.clear()
        self._models[shape] = _Model(group, ranked)
        return group

    def _shape(self, ranked: Sequence[Inode]) -> Shape:
        """Return all that a plan asks about; what it only compares stands as the number of its first one."""
        numbers: defaultdict[object, int] = defaultdict(count().__next__)
        paths: dict[str, Shape] = {}
        claims: dict[int, int] = {}  # by id, and they live longer than this
        shape: list[object] = []
        for inode in ranked:
            shape += (
                inode.key.device,
                inode.nlink > len(inode.names),
                inode.mode,
                inode.uid,
                inode.gid,
                inode.hazard,
                inode.capabilities,
                inode.xattrs,
                inode.size < BLOCK,
                inode.disk_bytes == 0,
                numbers[inode.mtime_ns],
            )
            for tree, path, claim in inode.names:
                at = paths.get(path)
                if at is None:
                    at = paths[path] = (*_of_path(path), len(paths))
                inside = numbers[tree, path[: path.find("/")]] if self._is_cache[tree] else None
                said = None if claim is None else claims.get(id(claim))
                more = None
                if claim is not None and said is None:
                    said = claims[id(claim)] = len(claims)
                    more = _of_claim(claim, numbers)
                shape.append((tree, at, inside, said, more))
            shape.append(None)
        return tuple(shape)


def _of_path(path: str) -> tuple[bool, bool]:
    last = path[path.rfind("/") + 1 :]
    sensitive = (".so" in last or last.endswith(_LOADED)) and loader_sensitive(path)
    return sensitive, last.endswith(".py")


def _of_claim(claim: Claim, numbers: defaultdict[object, int]) -> Shape:
    dist = claim.dist
    return (
        claim.pip,
        numbers[dist],
        numbers[dist[:4]],
        numbers[dist.identity],
        numbers[dist, claim.path],
        numbers[dist[:4], claim.path],
        numbers[dist.identity, claim.path],
    )
