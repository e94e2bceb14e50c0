"""The run after a command: only what the command changed is looked at, and only it is changed."""

from __future__ import annotations

import shlex
import time
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from . import pending
from .apply import apply_plan
from .arrivals import look
from .changes import Changed, Command, changed_environments, touched_environments
from .compare import Wanted
from .engine import analyse_inventory
from .environments import Request, find
from .explicit import specs_of
from .files import CLOCK_SLACK, real_path
from .inventory import scan_listed
from .model import Reason, Scope
from .plan import PlanOptions
from .sharing import durability
from .sharing.system import user
from .trees import is_environment, is_virtual_environment

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from .model import Tree
    from .settings import Settings

__all__ = ["Command", "Shared", "everything", "lines", "share_changed", "share_touched", "snapshot_changed"]

#: So many seconds a command waits for another process that writes to the journal.
_PATIENCE = 0.2
#: So many environments are named where work was put off.
_MOST_NAMED = 3


class Shared(Struct, frozen=True):
    """What a run did for one environment; ``bytes_freed`` in bytes, ``names`` counts files."""

    name: str
    names: int
    bytes_freed: int
    failed: int
    seconds: float
    #: What else the user should know, a sentence each.
    notes: tuple[str, ...] = ()
    #: Whether something is left, for the time was over.
    unfinished: bool = False

    def __bool__(self) -> bool:
        """Whether there is anything to tell."""
        return bool(self.names or self.failed or self.notes or self.unfinished)


class Run(Struct, frozen=True):
    """What the work on every environment has in common.

    ``began``: the command, in seconds since the epoch; ``until``: the end of the time, on the clock
    ``time.monotonic``.
    """

    settings: Settings
    label: str
    began: float
    until: float

    @property
    def is_over(self) -> bool:
        return time.monotonic() >= self.until


def share_changed(settings: Settings, command: Command) -> Iterator[Shared]:
    """Share what a command of conda brought, environment by environment; yields what was shared, or failed.

    The time for it is ``settings.auto_budget``; what is not begun then stays pending.
    """
    run = Run(settings, f"conda {command.name}", command.began, time.monotonic() + settings.auto_budget)
    scope = everything(command.transactions)
    yield from share_all(run, scope, changed_environments(scope, command))


def share_touched(
    settings: Settings, scope: Scope, since: float, name: str, copies: bool = False
) -> Iterator[Shared]:
    """Do the same for any command that began at ``since``, in the selected environments of ``scope``.

    ``name`` is noted in the journal; ``copies``: the user asks for independent files.
    """
    run = Run(settings, name, since, time.monotonic() + settings.auto_budget)
    yield from share_all(run, scope, touched_environments(scope, since, copies))


def snapshot_changed(settings: Settings, command: Command) -> Iterator[str]:
    """Write snapshots of what a command of conda changed, and nothing else; yields what to tell."""
    scope = everything(command.transactions)
    trees = {tree.root: tree for tree in scope.trees if not tree.is_cache}
    for root in changed_environments(scope, command).keys() & trees.keys():
        yield from _keep(settings, trees[root])


def everything(more: Iterable[str] = ()) -> Scope:
    """Return all that is discovered, the environments that are remembered, and of ``more`` what is one."""
    prefixes = [
        *map(real_path, more),
        *(check.prefix for check in pending.remembered() if check.is_seen),
    ]
    there = [prefix for prefix in prefixes if is_environment(prefix) or is_virtual_environment(prefix)]
    scope = find(Request(prefixes=tuple(dict.fromkeys(there))))
    return Scope(tuple(replace(tree, selected=True) for tree in scope.trees), scope.warnings)


def lines(settings: Settings, results: Iterable[Shared], prog: str) -> Iterator[str]:
    """Put into words what was done, while it is done; ``prog`` is what to call for more."""
    unfinished = []
    for shared in results:
        yield from shared.notes
        if shared.names or shared.failed:
            yield _line(shared, prog)
        if shared.unfinished:
            unfinished.append(shared.name)
    if unfinished:
        names = ", ".join(f"'{name}'" for name in unfinished[:_MOST_NAMED])
        more = len(unfinished) - _MOST_NAMED
        words = " ".join(f"-n {shlex.quote(name)}" for name in unfinished[:_MOST_NAMED])
        yield (
            f"the {settings.auto_budget} s for sharing are over; the rest of "
            f"{'env' if len(unfinished) == 1 else 'envs'} {names}{f' and {more} more' if more > 0 else ''} "
            f"is taken up after the next command, or now by: {prog} apply{f' {words}' if more <= 0 else ''}"
        )


def _line(shared: Shared, prog: str) -> str:
    from rich.filesize import decimal

    from .report.words import files

    line = (
        f"{files(shared.names)} of env '{shared.name}' now shared, "
        f"{decimal(shared.bytes_freed)} freed in {shared.seconds:.1f} s"
    )
    return line + (f"; {shared.failed} failed, see: {prog} apply" if shared.failed else "")


def share_all(run: Run, scope: Scope, environments: Mapping[str, Changed]) -> Iterator[Shared]:
    """Share what came into each environment; what is not begun in time is noted."""
    indices = {tree.root: index for index, tree in enumerate(scope.trees) if not tree.is_cache}
    begun = False
    for root, changed in environments.items():
        if root not in indices:
            continue
        index = indices[root]
        notes = _keep(run.settings, scope.trees[index])
        if notes:
            yield Shared(scope.trees[index].name, 0, 0, 0, 0.0, tuple(notes))
        if run.settings.auto_budget == 0 or (begun and run.is_over):
            _note(root, changed)
            if begun:
                yield Shared(scope.trees[index].name, 0, 0, 0, 0.0, unfinished=True)
            continue
        begun = True
        shared = _share(run, _only(scope, index), index, changed)
        if shared:
            yield shared


def _keep(settings: Settings, tree: Tree) -> list[str]:
    """Write a snapshot, if that is wanted; return what to tell."""
    if not settings.snapshot_dir:
        return []
    from .snapshots import keep

    return keep(settings.snapshot_dir, tree)


def _note(root: str, changed: Changed) -> None:
    since = changed.since + CLOCK_SLACK
    pending.note(root, changed.dists, changed.copies, since, changed.wheels)


def _only(scope: Scope, index: int) -> Scope:
    """The same trees, of which only one may be changed."""
    return Scope(tuple(replace(tree, selected=number == index) for number, tree in enumerate(scope.trees)))


def _share(run: Run, scope: Scope, index: int, changed: Changed) -> Shared:
    """Share what came into the environment at ``index``, and remember it."""
    start = time.monotonic()
    looked_at = time.time()
    root, name = scope.trees[index].root, scope.trees[index].name
    settings = run.settings
    min_size = settings.floor(settings.goal)
    wanted = Wanted(text=settings.hardlink_untracked, bytecode=settings.normalize_bytecode)
    looked = look(scope, index, changed, min_size, lambda: run.is_over, wanted)
    if any(claims for tree, claims in looked.listing.trees.items() if tree != index):
        # others may hold the same; of what the command wrote much is still to be written out
        durability.begin(f"{root}/{next(iter(looked.listing.trees[index]), '')}")
    options = PlanOptions(
        method=settings.method,
        goal=settings.goal,
        hardlink_untracked=settings.hardlink_untracked,
        normalize_bytecode=settings.normalize_bytecode,
        euid=user(),
        reflink_only=changed.copies,
        # on an overlay, what an earlier command left may lie in a lower layer
        fresh_since_ns=int((run.began - CLOCK_SLACK) * 1e9),
    )
    analysis = analyse_inventory(scan_listed(scope, looked.listing.trees, min_size), options)
    result = pending.Result(0, 0)
    notes: list[str] = []
    if analysis.plan.shares:
        applied = apply_plan(analysis, run.label, patience=_PATIENCE, until=run.until)
        result = pending.Result(applied.names, applied.bytes_freed, len(applied.failed))
        notes = applied.notes
        if Reason.LOCKED in applied.skipped:
            _note(root, changed)
            return Shared(name, 0, 0, 0, 0.0, tuple(notes))
        looked.put_off(index, applied.put_off)
    before = pending.read(root)
    specs = specs_of(root, before.specs, before.checked)
    unfinished = bool(looked.dists or looked.wheels)
    if unfinished:
        pending.put_off(
            root, specs, result, looked.dists, changed.copies, looked_at, looked.wheels, run.began
        )
    else:
        pending.done(root, specs, result, run.began)
    seconds = time.monotonic() - start
    return Shared(name, result.files, result.bytes_freed, result.failed, seconds, tuple(notes), unfinished)
