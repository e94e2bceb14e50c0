"""The run after a conda command: only what the command changed is looked at, and only it is changed."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from . import pending
from .apply import apply_plan
from .changes import CLOCK_SLACK, Changed, Command, came, changed_environments
from .compare import Listing, Neighbours, shared_objects
from .engine import analyse_inventory
from .environments import Request, find, is_environment
from .errors import DedupError
from .inventory import scan_listed
from .model import Reason, Scope
from .plan import PlanOptions
from .records.conda_meta import read_dists, read_record
from .records.pip_record import dist_infos

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from .model import Claim
    from .settings import Settings

__all__ = ["Command", "Shared", "share_changed"]

#: So many seconds a conda command waits for another process that writes to the journal.
_PATIENCE = 0.2


@dataclass(frozen=True, slots=True)
class Shared:
    """What a run did for one environment; ``bytes_freed`` in bytes, ``names`` counts files."""

    name: str
    names: int
    bytes_freed: int
    failed: int
    seconds: float
    #: What else the user should know, a sentence each.
    notes: tuple[str, ...] = ()


def share_changed(settings: Settings, command: Command) -> Iterator[Shared]:
    """Share what a command brought, environment by environment; yields what was shared, or failed."""
    own = (os.path.realpath(prefix) for prefix in command.transactions)
    scope = find(Request(prefixes=tuple(prefix for prefix in own if is_environment(prefix))))
    indices = {tree.root: index for index, tree in enumerate(scope.trees) if not tree.is_cache}
    for root, changed in changed_environments(scope, command).items():
        if root in indices:
            shared = _share(settings, command, _only(scope, indices[root]), indices[root], changed)
            if shared.names or shared.failed or shared.notes:
                yield shared


def _only(scope: Scope, index: int) -> Scope:
    """The same trees, of which only one may be changed."""
    return Scope(tuple(replace(tree, selected=number == index) for number, tree in enumerate(scope.trees)))


def _share(settings: Settings, command: Command, scope: Scope, index: int, changed: Changed) -> Shared:
    """Share what came into the environment at ``index``, and remember it."""
    start = time.monotonic()
    root = scope.trees[index].root
    min_size = max(settings.min_size, 1)  # empty files are never shared
    listing = _listing(scope, index, changed, min_size)
    options = PlanOptions(
        method=settings.method,
        euid=os.geteuid(),
        reflink_only=changed.copies,
        # on an overlay, what an earlier command left may lie in a lower layer
        fresh_since_ns=int((command.began - CLOCK_SLACK) * 1e9),
    )
    analysis = analyse_inventory(scan_listed(scope, listing.trees, min_size), options)
    result = pending.Result(0, 0)
    notes: list[str] = []
    if analysis.plan.shares:
        applied = apply_plan(analysis, f"conda {command.name}", patience=_PATIENCE)
        result = pending.Result(applied.names, applied.bytes_freed, len(applied.failed))
        notes = applied.notes
        if Reason.LOCKED in applied.skipped:
            pending.note(root, changed.dists, changed.copies, changed.since + CLOCK_SLACK)
            return Shared(scope.trees[index].name, 0, 0, 0, 0.0, tuple(applied.notes))
    pending.done(root, sorted(read_dists(root)), result)
    seconds = time.monotonic() - start
    name = scope.trees[index].name
    return Shared(name, result.files, result.bytes_freed, result.failed, seconds, tuple(notes))


def _listing(scope: Scope, own: int, changed: Changed, min_size: int) -> Listing:
    """List the files of what came into an environment, and where those it holds alone may be as well."""
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
        alone = _held_alone(root, claims, min_size)
        if alone:
            listing.add(own, claims)
            neighbours.same_package(stem, alone, listing)
    for wheel, record in dist_infos(root).items():
        if came(record) < changed.since or _relative(record, root) in owned:
            continue
        claims = shared_objects(record, root)
        if _held_alone(root, claims, min_size):
            listing.add(own, claims)
            neighbours.same_wheel(wheel, listing)
    return listing


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
