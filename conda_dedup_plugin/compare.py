"""Environments side by side, by their explicit specs: who holds the same build of the same package.

That tells where the same files are, without a global index: at the same path in the package.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct, field

from .errors import DedupError
from .model import Manager
from .records.conda_meta import read_record
from .records.contents import installed_stems
from .records.heads import read_names
from .records.package_cache import read_package
from .records.pip_record import dist_infos, read_pip_record
from .records.uv_cache import uv_wheels
from .sharing.probe import file_system_at
from .sharing.system import lstat

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .model import Claim, Dist, Tree

#: So many environments that hold the same build are asked for its files; one with a file that is shared is
#: enough.
MOST_DONORS = 4
#: A file with so many names may soon have as many as its file system allows.
_MANY_NAMES = 1000
_SHARED_OBJECT = (".so", ".dylib", ".dll", ".pyd")


class Wanted(Struct, frozen=True):
    """Which files of pip's are looked at: shared objects, and besides text and data, or bytecode."""

    text: bool = False
    bytecode: bool = False

    def has(self, path: str, claim: Claim) -> bool:
        """Whether a file is one of them."""
        if claim.sha256 is None:
            return self.bytecode and path.endswith(".pyc")
        return self.text or path.endswith(_SHARED_OBJECT) or ".so." in path


class Listing(Struct):
    """For each index of a tree the paths worth a look, with what records say of them."""

    trees: dict[int, dict[str, Claim]] = field(default_factory=dict)

    def add(self, tree: int, claims: Mapping[str, Claim]) -> None:
        """Add paths of one tree."""
        self.trees.setdefault(tree, {}).update(claims)


class Neighbours:
    """The trees on one file system that may hold what an environment holds."""

    def __init__(self, trees: Sequence[Tree], own: int, wanted: Wanted) -> None:
        self._trees = trees
        self._root = trees[own].root
        self._wanted = wanted
        device = file_system_at(trees[own].root)
        self._owner = _owner(trees[own].root)
        near = [
            index for index, tree in enumerate(trees) if index != own and file_system_at(tree.root) == device
        ]
        self._uv_caches = [index for index in near if trees[index].manager is Manager.UV]
        self._caches = [index for index in near if trees[index].is_cache and index not in self._uv_caches]
        self._environments = [index for index in near if not trees[index].is_cache]
        self._stems: dict[int, frozenset[str]] = {}
        self._wheels: dict[int, dict[tuple[str, str], Path]] = {}

    def same_package(self, stem: str, wanted: Mapping[str, Claim], listing: Listing) -> None:
        """List where else the files of one conda package are, ``stem`` being its name-version-build.

        ``wanted`` are the paths an environment holds alone. A cache that has the package is asked first;
        what no cache holds (bytecode, say), or only one of another owner, to whose files nothing can be
        hard-linked, is looked for in environments with the same build.
        """
        left = dict(wanted)
        for cache in self._caches:
            self._from_cache(cache, stem, left, listing)
        if not left:
            return
        dist = next(iter(wanted.values())).dist
        asked = 0
        for index in self._environments:
            if not left or asked >= MOST_DONORS:
                return
            if stem not in self._stems_of(index):
                continue
            found = self._from_environment(index, stem, dist, left)
            if found is not None:
                asked += 1
                listing.add(index, found)
                left = self._without(left, index, found)

    def _from_environment(
        self, index: int, stem: str, dist: Dist, left: Mapping[str, Claim]
    ) -> dict[str, Claim] | None:
        """Return what an environment has of a package; None if it has another one of that name."""
        record = f"{self._trees[index].root}/conda-meta/{stem}.json"
        try:
            if all(_is_bytecode(path, claim) for path, claim in left.items()):
                # of which a record says no more than that it is there
                other, paths, _ = read_names(record)
                found = {path: left[path]._replace(dist=other) for path in left.keys() & paths}
            else:
                other, claims = read_record(Path(record))
                found = {path: claims[path] for path in left if path in claims}
        except DedupError:
            return None
        return found if other.identity == dist.identity else None

    def _without(self, left: Mapping[str, Claim], index: int, found: Mapping[str, Claim]) -> dict[str, Claim]:
        """Return what is still to be found: what others share already is asked for no more."""
        root = self._trees[index].root
        return {
            path: claim
            for path, claim in left.items()
            if path not in found
            or found[path].sha256 != claim.sha256
            or not _is_alike(f"{self._root}/{path}", f"{root}/{path}")
        }

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
            # of what was patched many blocks are equal
            alike = claim.prefixed or original.sha256 == claim.sha256
            owner = _owner(f"{directory}/{claim.path}") if alike else None
            if owner is not None:
                found[f"{stem}/{claim.path}"] = original
                if owner == self._owner:
                    del left[path]
        listing.add(cache, found)

    def same_wheel(self, wheel: tuple[str, str], own: Mapping[str, Claim], listing: Listing) -> None:
        """List where else the files of one pip package are, by (name, version), that ``own`` lists here.

        uv's cache is asked first, then environments that have the same wheel: with the same tags.
        """
        dist = next(iter(own.values())).dist
        asked = 0
        for index in (*self._uv_caches, *self._environments):
            record = self._wheels_of(index).get(wheel)
            if record is None or asked >= MOST_DONORS:
                continue
            claims = wheel_files(record, self._trees[index].root, self._wanted)
            if claims and next(iter(claims.values())).dist.identity == dist.identity:
                asked += 1
                listing.add(index, claims)

    def _stems_of(self, index: int) -> frozenset[str]:
        if index not in self._stems:
            self._stems[index] = installed_stems(self._trees[index].root)
        return self._stems[index]

    def _wheels_of(self, index: int) -> dict[tuple[str, str], Path]:
        if index not in self._wheels:
            tree = self._trees[index]
            if tree.manager is Manager.UV:
                self._wheels[index] = {wheel: Path(path) for wheel, path in uv_wheels(tree.root).items()}
            else:
                self._wheels[index] = dist_infos(tree.root)
        return self._wheels[index]


def _is_bytecode(path: str, claim: Claim) -> bool:
    """Whether a package manager compiled a file where it is."""
    return claim.sha256 is None and not claim.prefixed and not claim.no_link and path.endswith(".pyc")


def _is_alike(own: str, other: str) -> bool:
    """Whether two files may have the same bytes and one inode, and the other one is shared already."""
    try:
        one, two = lstat(own), lstat(other)
    except OSError:
        return False
    alike = (one.st_dev, one.st_mode, one.st_uid, one.st_gid, one.st_size)
    if alike != (two.st_dev, two.st_mode, two.st_uid, two.st_gid, two.st_size):
        return False
    return 1 < two.st_nlink < _MANY_NAMES


def _owner(path: str) -> tuple[int, int] | None:
    """Return the user and the group of what is at a path; None if nothing is."""
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_uid, found.st_gid


def wheel_files(record: Path, root: str, wanted: Wanted) -> dict[str, Claim]:
    """Return what pip's record says of the files that are wanted; nothing if it cannot be read."""
    try:
        _, claims = read_pip_record(record, root)
    except DedupError:
        return {}
    return {path: claim for path, claim in claims.items() if wanted.has(path, claim)}
