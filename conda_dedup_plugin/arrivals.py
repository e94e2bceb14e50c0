"""What came into an environment: its files, and where those that it holds alone may be as well."""

from __future__ import annotations

import os
import re
import stat
from typing import TYPE_CHECKING

from msgspec import Struct, field

from .compare import Listing, Neighbours, Wanted, wheel_files
from .errors import DedupError
from .files import came, read_regular
from .model import Claim
from .records.conda_meta import read_dists, read_record
from .records.heads import read_names
from .records.pip_record import dist_infos
from .records.reading import below_root
from .sharing.system import lstat

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from .changes import Changed
    from .model import Scope
    from .plan import Share

#: No record of a package is bigger.
_RECORD_BYTES = 256 * 1024 * 1024
_RECORD = ".dist-info/RECORD"
_RECORD_OF_WHEEL = re.compile(rb'"([^"\\]+\.dist-info/RECORD)"')


class Looked(Struct):
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
    wanted: Wanted,
) -> Looked:
    """List the files of what came into an environment, and where those it holds alone may be as well.

    ``wanted`` says which of pip's. Once the time ``is_over`` and a file was found, the rest is left for
    later.
    """
    root = scope.trees[own].root
    looked = Looked()
    neighbours = Neighbours(scope.trees, own, wanted)
    paths = read_dists(root)
    others: dict[str, Claim] = {}
    brought: set[str] = set()
    for stem in sorted(changed.dists & paths.keys()):
        if looked.dist_of and is_over():
            looked.dists.add(stem)
            continue
        try:
            alone, claims, names = _brought(root, paths[stem], min_size)
        except DedupError:
            continue  # the report says what is wrong with it
        brought.update(name for name in names if name.endswith(_RECORD))
        if alone:
            looked.listing.add(own, alone)
            others |= claims
            looked.dist_of |= dict.fromkeys(alone, stem)
            neighbours.same_package(stem, alone, looked.listing)
    # what the same packages hold twice
    digests = {claim.sha256 for claim in looked.listing.trees.get(own, {}).values()} - {None}
    looked.listing.add(own, {path: claim for path, claim in others.items() if claim.sha256 in digests})
    owned: set[str] | None = None
    for wheel, record in dist_infos(root).items():
        info = record.parent.name
        if came(record) < changed.since and info not in changed.wheels:
            continue
        if _relative(record, root) in brought:
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


def _brought(
    root: str, record: Path, min_size: int
) -> tuple[dict[str, Claim], dict[str, Claim], frozenset[str]]:
    """Return the claims of what a package brought that is held alone, of all it brought, and all names.

    Mostly that is nothing, or what was compiled, of which a record says no more than that it is there:
    then the claims of the rest are not read.
    """
    dist, names, compiled = read_names(os.fspath(record))
    alone = _alone(root, names, min_size)
    if names and not alone:
        return {}, {}, names
    if compiled and names and all(path.endswith(".pyc") for path in alone):
        claims, _ = below_root({path: Claim(dist, path) for path in sorted(alone)})
        return claims, {}, names
    _, claims = read_record(record)
    return _held_alone(root, claims, min_size), claims, names


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
    alone = _alone(root, claims, min_size)
    return {path: claim for path, claim in claims.items() if path in alone}


def _alone(root: str, paths: Iterable[str], min_size: int) -> set[str]:
    """Return which of the files are big enough and no hard links."""
    alone = set()
    for path in paths:
        try:
            found = lstat(f"{root}/{path}")
        except OSError:
            continue
        if found.st_nlink == 1 and found.st_size >= min_size and stat.S_ISREG(found.st_mode):
            alone.add(path)
    return alone
