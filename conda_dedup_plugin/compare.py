"""Environments side by side, by their explicit specs: who holds the same build of the same package.

That tells where the same files are, without a global index: at the same path in the package.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import DedupError
from .records.conda_meta import read_dists, read_record
from .records.package_cache import read_package
from .records.pip_record import dist_infos, read_pip_record

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .model import Claim, Tree

#: So many environments that hold the same build are asked for its files; one with a file is enough.
MOST_DONORS = 4
_SHARED_OBJECT = (".so", ".dylib", ".dll", ".pyd")


@dataclass(slots=True)
class Listing:
    """For each index of a tree the paths worth a look, with what records say of them."""

    trees: dict[int, dict[str, Claim]] = field(default_factory=dict)

    def add(self, tree: int, claims: Mapping[str, Claim]) -> None:
        """Add paths of one tree."""
        self.trees.setdefault(tree, {}).update(claims)


class Neighbours:
    """The trees on one device that may hold what an environment holds."""

    def __init__(self, trees: Sequence[Tree], own: int) -> None:
        self._trees = trees
        device = _device(trees[own].root)
        near = [index for index, tree in enumerate(trees) if index != own and _device(tree.root) == device]
        self._caches = [index for index in near if trees[index].is_cache]
        self._environments = [index for index in near if not trees[index].is_cache]
        self._dists: dict[int, dict[str, Path]] = {}
        self._wheels: dict[int, dict[tuple[str, str], Path]] = {}

    def same_package(self, stem: str, wanted: Mapping[str, Claim], listing: Listing) -> None:
        """List where else the files of one conda package are, ``stem`` being its name-version-build.

        ``wanted`` are the paths an environment holds alone. A cache that has the package is asked first;
        what no cache holds (bytecode, say) is looked for in environments with the same build.
        """
        left = dict(wanted)
        for cache in self._caches:
            self._from_cache(cache, stem, left, listing)
        if not left:
            return
        dist = next(iter(wanted.values())).dist
        asked = 0
        for index in self._environments:
            path = self._dists_of(index).get(stem)
            if path is None or asked >= MOST_DONORS:
                continue
            try:
                other, claims = read_record(path)
            except DedupError:
                continue
            if other.identity == dist.identity:
                asked += 1
                listing.add(index, {path: claims[path] for path in left if path in claims})

    def _from_cache(self, cache: int, stem: str, left: dict[str, Claim], listing: Listing) -> None:
        directory = f"{self._trees[cache].root}/{stem}"
        if not os.path.isdir(f"{directory}/info"):
            return
        try:
            dist, claims = read_package(Path(directory))
        except DedupError:
            return
        found: dict[str, Claim] = {}
        for path, claim in list(left.items()):
            original = claims.get(claim.path)
            if original is None or original.sha256 is None or claim.dist.name != dist.name:
                continue
            if original.sha256 == claim.sha256 and os.path.lexists(f"{directory}/{claim.path}"):
                found[f"{stem}/{claim.path}"] = original
                del left[path]
        listing.add(cache, found)

    def same_wheel(self, wheel: tuple[str, str], listing: Listing) -> None:
        """List the shared objects of one pip package, by (name, version), in the other environments."""
        asked = 0
        for index in self._environments:
            record = self._wheels_of(index).get(wheel)
            if record is not None and asked < MOST_DONORS:
                asked += 1
                listing.add(index, shared_objects(record, self._trees[index].root))

    def _dists_of(self, index: int) -> dict[str, Path]:
        if index not in self._dists:
            self._dists[index] = read_dists(self._trees[index].root)
        return self._dists[index]

    def _wheels_of(self, index: int) -> dict[tuple[str, str], Path]:
        if index not in self._wheels:
            self._wheels[index] = dist_infos(self._trees[index].root)
        return self._wheels[index]


def shared_objects(record: Path, root: str) -> dict[str, Claim]:
    """Return what pip's record says of the shared objects it installed; nothing if it cannot be read."""
    try:
        _, claims = read_pip_record(record, root)
    except DedupError:
        return {}
    return {
        path: claim
        for path, claim in claims.items()
        if claim.sha256 is not None and (path.endswith(_SHARED_OBJECT) or ".so." in path)
    }


def _device(path: str) -> int:
    try:
        return os.stat(path).st_dev
    except OSError:
        return -1
