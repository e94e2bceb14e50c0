"""How things stand: what is done on which device and why, what was done last, and what is still to do.

Nothing is made or changed, not even the state directory.
"""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from msgspec import Struct, field

from . import database, history, pending
from .distant import Distant, distant_environments
from .errors import StateError
from .journal import Journal
from .places import Place, devices_of, places_of
from .state import existing_state_directory
from .ways import Why, held_on, methods_on, way_on

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from .history import Run
    from .model import Method, Reason, Scope
    from .pending import Check
    from .plan import PlanOptions
    from .settings import Settings


class OnDevice(Struct, frozen=True):
    """What is done on a device: ``methods``, the first before the others, or why all is held; and why so."""

    place: Place
    methods: tuple[Method, ...]
    held: Reason | None
    why: Why


class Interrupted(Struct):
    """What a run left open whose process is gone: ``changes``, and staging directories by their paths."""

    run: Run
    roots: set[str] = field(default_factory=set)
    changes: int = 0
    stagings: list[str] = field(default_factory=list)


class Status(Struct):
    """How things stand. ``names`` are those of the environments in scope, by their roots."""

    settings: Settings
    origins: dict[str, str]
    devices: list[OnDevice]
    distant: list[Distant]
    names: dict[str, str]
    checks: list[Check] = field(default_factory=list)
    last: Run | None = None
    interrupted: list[Interrupted] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def pending(self) -> list[Check]:
        """The environments with work that was announced and is not done."""
        return [check for check in self.checks if check.pending is not None]


def status_of(
    scope: Scope,
    options: PlanOptions,
    settings: Settings,
    origins: dict[str, str],
    only: Collection[str] | None = None,
) -> Status:
    """Look at the devices of a scope, the journal and what is remembered of environments.

    ``only``: nothing is to be told of environments with other roots.
    """
    places, warnings = places_of(scope)
    status = Status(
        settings=settings,
        origins=origins,
        devices=[_on_device(place, options) for place in places],
        distant=list(distant_environments(scope, places, devices_of(scope.trees), options)),
        names={tree.root: tree.name for tree in scope.trees if not tree.is_cache},
        warnings=[*settings.warnings, *scope.warnings, *warnings],
    )
    try:
        directory = existing_state_directory()
        if directory is not None:
            status.checks = _checks(directory, only)
            _read_journal(directory / "journal.sqlite", status)
    except (StateError, OSError) as exc:
        status.warnings.append(f"{exc}; what was done and what is pending is not known")
    return status


def _on_device(place: Place, options: PlanOptions) -> OnDevice:
    device = place.device
    return OnDevice(place, methods_on(device, options), held_on(device, options), way_on(device, options).why)


def _checks(directory: Path, only: Collection[str] | None) -> list[Check]:
    """Return what is remembered, the last check first."""
    found = [check for check in pending.seen(directory) if only is None or check.prefix in only]
    return sorted(found, key=lambda check: (-(check.checked or 0), check.prefix))


def _read_journal(path: Path, status: Status) -> None:
    if not path.exists():
        return
    with closing(Journal(database.snapshot(path))) as journal:
        runs = {run.id: run for run in history.runs(journal)}
        status.last = next(iter(runs.values()), None)
        found: dict[str, Interrupted] = {}
        for entry in (*journal.open_intents(), *journal.left_repairs()):
            left = found.setdefault(entry.run, Interrupted(runs[entry.run]))
            left.changes += 1
            left.roots.add(entry.change.root)
        for run, root, staging in journal.left_stagings():
            left = found.setdefault(run, Interrupted(runs[run]))
            left.stagings.append(f"{root}/{staging}")
            left.roots.add(root)
    status.interrupted = sorted(found.values(), key=lambda left: -left.run.started)
