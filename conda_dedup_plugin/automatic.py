"""The run after a conda command: only what the command changed is looked at, and only it is changed."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from . import pending
from .apply import apply_plan
from .compare import Listing, Neighbours, shared_objects
from .engine import analyse_inventory
from .environments import Request, find, is_environment
from .errors import DedupError
from .inventory import scan_listed
from .model import Scope
from .plan import PlanOptions
from .records.conda_meta import read_dists, read_record
from .records.pip_record import dist_infos, site_packages

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from .model import Tree
    from .settings import Settings

#: A file system may stamp files with the time of the last tick: so many seconds before the clock says.
_CLOCK_SLACK = 0.05


@dataclass(frozen=True, slots=True)
class Shared:
    """What a run did for one environment."""

    name: str
    names: int
    bytes_freed: int
    failed: int
    seconds: float


@dataclass(frozen=True, slots=True)
class _Changed:
    """An environment that a command changed: its conda packages (name-version-build) and pip's new ones."""

    dists: frozenset[str]
    since: float


def share_changed(
    settings: Settings,
    began: float,
    transactions: Mapping[str, set[tuple[str, str, str]]],
    command: str,
    always_copy: bool,
) -> Iterator[Shared]:
    """Share what changed since ``began`` (seconds since the epoch), environment by environment.

    ``transactions`` are those of this process, as conda told them. Yields only what was shared, or
    failed.
    """
    own = [prefix for prefix in transactions if is_environment(os.path.realpath(prefix))]
    scope = find(Request(prefixes=tuple(own)))
    indices = {tree.root: index for index, tree in enumerate(scope.trees) if not tree.is_cache}
    for root, changed in _changed(scope, began, transactions).items():
        if root not in indices:
            continue
        start = time.monotonic()
        analysis_scope = _only(scope, indices[root])
        listing = _listing(analysis_scope, indices[root], changed, settings.min_size)
        options = PlanOptions(
            method=settings.method,
            euid=os.geteuid(),
            reflink_only=always_copy,
            fresh_since_ns=int(changed.since * 1e9),
        )
        inventory = scan_listed(analysis_scope, listing.trees, settings.min_size)
        analysis = analyse_inventory(inventory, options)
        result = pending.Result(0, 0)
        if analysis.plan.shares:
            applied = apply_plan(analysis, f"conda {command}")
            result = pending.Result(applied.names, applied.bytes_freed, len(applied.failed))
        pending.done(root, sorted(read_dists(root)), result)
        if result.files or result.failed:
            yield Shared(
                name=scope.trees[indices[root]].name,
                names=result.files,
                bytes_freed=result.bytes_freed,
                failed=result.failed,
                seconds=time.monotonic() - start,
            )


def _only(scope: Scope, index: int) -> Scope:
    """The same trees, of which only one may be changed."""
    trees = (replace(tree, selected=number == index) for number, tree in enumerate(scope.trees))
    return Scope(tuple(trees))


# -- what changed -------------------------------------------------------------------------------------


def _changed(
    scope: Scope, began: float, transactions: Mapping[str, set[tuple[str, str, str]]]
) -> dict[str, _Changed]:
    """Return the changed environments by their real path.

    From conda's own word, from what other processes left pending, and, for what neither tells (pip, an
    old conda), from time stamps.
    """
    since = began - _CLOCK_SLACK
    found: dict[str, _Changed] = {}
    for prefix, left in pending.left_behind():
        found[prefix] = _Changed(frozenset(left.linked), left.noted - _CLOCK_SLACK)
    for tree in scope.trees:
        if not tree.is_cache and began and _touched(tree, since):
            stems = (stem for stem, path in read_dists(tree.root).items() if _mtime(path) >= since)
            found[tree.root] = _merge(found.get(tree.root), _Changed(frozenset(stems), since))
    for prefix, dists in transactions.items():
        linked = frozenset("-".join(dist) for dist in dists)
        root = os.path.realpath(prefix)
        found[root] = _merge(found.get(root), _Changed(linked, since))
    return found


def _merge(one: _Changed | None, other: _Changed) -> _Changed:
    if one is None:
        return other
    return _Changed(one.dists | other.dists, min(one.since, other.since))


def _touched(tree: Tree, since: float) -> bool:
    """Whether conda or pip was at work in an environment."""
    if _mtime(f"{tree.root}/conda-meta/history") >= since:
        return True
    return any(_mtime(path) >= since for path in site_packages(tree.root))


def _came(path: str | os.PathLike[str]) -> float:
    """When a file came into its place, or was last changed there: copying may keep mtimes."""
    try:
        return os.stat(path).st_ctime
    except OSError:
        return 0.0


def _mtime(path: str | os.PathLike[str]) -> float:
    try:
        return os.stat(path).st_mtime
    except OSError:
        return 0.0


# -- what to look at ----------------------------------------------------------------------------------


def _listing(scope: Scope, own: int, changed: _Changed, min_size: int) -> Listing:
    """List the files that an environment got and holds alone, and where else they may be."""
    root = scope.trees[own].root
    listing = Listing()
    neighbours = Neighbours(scope.trees, own)
    paths = read_dists(root)
    owned: set[str] = set()
    for stem in sorted(changed.dists & paths.keys()):
        try:
            _, claims = read_record(paths[stem])
        except DedupError:
            continue  # the report says what is wrong with it
        owned.update(path for path in claims if path.endswith(".dist-info/RECORD"))
        alone = {path: claim for path, claim in claims.items() if _held_alone(root, path, min_size)}
        if alone:
            listing.add(own, alone)
            neighbours.same_package(stem, alone, listing)
    for wheel, record in dist_infos(root).items():
        if _came(record) < changed.since or _relative(record, root) in owned:
            continue
        claims = shared_objects(record, root)
        alone = {path: claim for path, claim in claims.items() if _held_alone(root, path, min_size)}
        if alone:
            listing.add(own, alone)
            neighbours.same_wheel(wheel, listing)
    return listing


def _relative(path: os.PathLike[str], root: str) -> str:
    return os.fspath(path)[len(root) + 1 :].replace(os.sep, "/")


def _held_alone(root: str, path: str, min_size: int) -> bool:
    """Whether a file is big enough and is no hard link already, as most of what conda installs is."""
    try:
        stat = os.lstat(f"{root}/{path}")
    except OSError:
        return False
    return stat.st_nlink == 1 and stat.st_size >= min_size
