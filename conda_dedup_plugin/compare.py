"""What came into an environment, and environments side by side, by their explicit specs.

Who holds the same build of the same package tells where the same files are, without a global index:
at the same path in the package.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from .changes import came
from .errors import DedupError
from .files import read_regular
from .model import Manager
from .records.conda_meta import read_dists, read_record
from .records.package_cache import read_package
from .records.pip_record import dist_infos, read_pip_record
from .records.uv_cache import uv_wheels

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from .changes import Changed
    from .model import Claim, Scope, Tree
    from .plan import Share

#: So many environments that hold the same build are asked for its files; one with a file is enough.
MOST_DONORS = 4
#: No record of a package is bigger.
_RECORD_BYTES = 256 * 1024 * 1024
_RECORD_OF_WHEEL = re.compile(rb'"([^"\\]+\.dist-info/RECORD)"')
_SHARED_OBJECT = (".so", ".dylib", ".dll", ".pyd")


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which files of pip's are looked at: shared objects, and besides text and data, or bytecode."""

    text: bool = False
    bytecode: bool = False

    def has(self, path: str, claim: Claim) -> bool:
        """Whether a file is one of them."""
        if claim.sha256 is None:
            return self.bytecode and path.endswith(".pyc")
        return self.text or path.endswith(_SHARED_OBJECT) or ".so." in path


@dataclass(slots=True)
class Listing:
    """For each index of a tree the paths worth a look, with what records say of them."""

    trees: dict[int, dict[str, Claim]] = field(default_factory=dict)

    def add(self, tree: int, claims: Mapping[str, Claim]) -> None:
        """Add paths of one tree."""
        self.trees.setdefault(tree, {}).update(claims)


class Neighbours:
    """The trees on one device that may hold what an environment holds."""

    def __init__(self, trees: Sequence[Tree], own: int, wanted: Wanted) -> None:
        self._trees = trees
        self._wanted = wanted
        device = _device(trees[own].root)
        near = [index for index, tree in enumerate(trees) if index != own and _device(tree.root) == device]
        self._uv_caches = [index for index in near if trees[index].manager is Manager.UV]
        self._caches = [index for index in near if trees[index].is_cache and index not in self._uv_caches]
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

    def _dists_of(self, index: int) -> dict[str, Path]:
        if index not in self._dists:
            self._dists[index] = read_dists(self._trees[index].root)
        return self._dists[index]

    def _wheels_of(self, index: int) -> dict[tuple[str, str], Path]:
        if index not in self._wheels:
            tree = self._trees[index]
            if tree.manager is Manager.UV:
                self._wheels[index] = {wheel: Path(path) for wheel, path in uv_wheels(tree.root).items()}
            else:
                self._wheels[index] = dist_infos(tree.root)
        return self._wheels[index]


@dataclass(slots=True)
class Looked:
    """What was listed of an environment: whose each file is, and what is left for later.

    A conda package is meant by its name-version-build, pip's by the name of its ``.dist-info``.
    """

    listing: Listing = field(default_factory=Listing)
    dist_of: dict[str, str] = field(default_factory=dict)
    wheel_of: dict[str, str] = field(default_factory=dict)
    dists: set[str] = field(default_factory=set)
    wheels: set[str] = field(default_factory=set)

    def put_off(self, own: int, shares: Iterable[Share]) -> None:
        """Leave for later what is to be shared then."""
        for path in (name.path for share in shares for name in share.duplicate.names if name.tree == own):
            if path in self.wheel_of:
                self.wheels.add(self.wheel_of[path])
            elif path in self.dist_of:
                self.dists.add(self.dist_of[path])


def look(
    scope: Scope,
    own: int,
    changed: Changed,
    min_size: int,
    is_over: Callable[[], bool],
    wanted: Wanted = Wanted(),
) -> Looked:
    """List the files of what came into an environment, and where those it holds alone may be as well.

    ``wanted`` says which of pip's. Once the time ``is_over`` and a file was found, the rest is left for
    later.
    """
    root = scope.trees[own].root
    looked = Looked()
    neighbours = Neighbours(scope.trees, own, wanted)
    paths = read_dists(root)
    for stem in sorted(changed.dists & paths.keys()):
        if looked.dist_of and is_over():
            looked.dists.add(stem)
            continue
        try:
            _, claims = read_record(paths[stem])
        except DedupError:
            continue  # the report says what is wrong with it
        alone = _held_alone(root, claims, min_size)
        if alone:
            looked.listing.add(own, claims)
            looked.dist_of |= dict.fromkeys(alone, stem)
            neighbours.same_package(stem, alone, looked.listing)
    owned: set[str] | None = None
    for wheel, record in dist_infos(root).items():
        info = record.parent.name
        if came(record) < changed.since and info not in changed.wheels:
            continue
        if (looked.dist_of or looked.wheel_of) and is_over():
            looked.wheels.add(info)
            continue
        claims = wheel_files(record, root, wanted)
        alone = _held_alone(root, claims, min_size)
        if not alone:
            continue
        owned = _owned_by_conda(paths.values()) if owned is None else owned
        if _relative(record, root) not in owned:
            looked.listing.add(own, claims)
            looked.wheel_of |= dict.fromkeys(alone, info)
            neighbours.same_wheel(wheel, claims, looked.listing)
    return looked


def _owned_by_conda(records: Iterable[Path]) -> set[str]:
    """Return which wheels' RECORDs conda brought, by path in the environment."""
    owned: set[str] = set()
    for path in records:
        try:
            content = read_regular(os.fspath(path), _RECORD_BYTES)
        except OSError:
            continue
        owned.update(os.fsdecode(found) for found in _RECORD_OF_WHEEL.findall(content))
    return owned


def _relative(path: os.PathLike[str], root: str) -> str:
    return os.fspath(path)[len(root) + 1 :].replace(os.sep, "/")


def _held_alone(root: str, claims: Mapping[str, Claim], min_size: int) -> dict[str, Claim]:
    """Return the claims of files that are big enough and no hard links, as most of what conda installs is."""
    alone = {}
    for path, claim in claims.items():
        try:
            stat = os.lstat(f"{root}/{path}")
        except OSError:
            continue
        if stat.st_nlink == 1 and stat.st_size >= min_size:
            alone[path] = claim
    return alone


def wheel_files(record: Path, root: str, wanted: Wanted) -> dict[str, Claim]:
    """Return what pip's record says of the files that are wanted; nothing if it cannot be read."""
    try:
        _, claims = read_pip_record(record, root)
    except DedupError:
        return {}
    return {path: claim for path, claim in claims.items() if wanted.has(path, claim)}


def _device(path: str) -> int:
    try:
        return os.stat(path).st_dev
    except OSError:
        return -1
