"""What came into an environment: its files, and where those that it holds alone may be as well."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .compare import Listing, Neighbours, Wanted, wheel_files
from .errors import DedupError
from .files import came, read_regular
from .records.conda_meta import read_dists, read_record
from .records.pip_record import dist_infos

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from .changes import Changed
    from .model import Claim, Scope
    from .plan import Share

#: No record of a package is bigger.
_RECORD_BYTES = 256 * 1024 * 1024
_RECORD_OF_WHEEL = re.compile(rb'"([^"\\]+\.dist-info/RECORD)"')


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
