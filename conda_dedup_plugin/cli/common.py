"""From the options of a command line to an analysis, and asking before anything is changed."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from msgspec import Struct

from .. import asked
from ..engine import Analysis, analyse
from ..environments import Request, find
from ..errors import DedupError, UsageError
from ..layouts import BLOCK
from ..model import Goal, MethodChoice
from ..plan import MIN_EXTENT, PlanOptions
from ..settings import Settings, load
from .bars import progress_for

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from ..inventory import Inventory
    from ..model import Scope
    from ..progress import Progress


def require_consent(options: argparse.Namespace) -> None:
    """Raise DedupError if nobody has said yes and nobody can be asked."""
    if not (options.dry_run or options.yes) and (options.json or not sys.stdin.isatty()):
        raise DedupError(
            "Nothing was changed, for nobody can be asked.", "Add --yes, or --dry-run to see the plan."
        )


def agreed(question: str) -> bool:
    """Ask, and say so if the answer is no."""
    try:
        answer = input(f"{question} [y/N] ")
    except (EOFError, UnicodeDecodeError):
        answer = ""
    if answer.strip().lower() in ("y", "yes"):
        return True
    sys.stdout.write("Nothing was changed.\n")
    return False


def is_named(options: argparse.Namespace) -> bool:
    """Whether the command line names any environment or cache."""
    return bool(
        options.dedup_names or options.dedup_prefixes or options.dedup_search or options.dedup_pkgs_dirs
    )


def scope_of(options: argparse.Namespace) -> Scope:
    """Find the trees that the command line names."""
    return find(
        Request(
            names=tuple(options.dedup_names),
            prefixes=tuple(options.dedup_prefixes),
            search=tuple(options.dedup_search),
            pkgs_dirs=tuple(options.dedup_pkgs_dirs),
            discover=options.dedup_discover,
        )
    )


def plan_options(options: argparse.Namespace, settings: Settings) -> PlanOptions:
    """Settings, and what the command line says instead."""
    return asked.plan_options(
        settings,
        method=MethodChoice(options.method) if options.method else None,
        goal=Goal(options.goal) if options.goal else None,
        hardlink_untracked=options.hardlink_untracked,
        normalize_bytecode=options.normalize_bytecode,
        include_cache=options.include_cache,
        override_frozen=options.override_frozen,
        same_layer=options.same_layer,
        min_extent=options.min_extent,
    )


def remember(options: argparse.Namespace, analysis: Analysis) -> None:
    """Remember what could be freed, if a bare ``apply`` of each environment would free as much."""
    from ..notices import remember as remember_freeable

    more = (options.include_cache, options.override_frozen, options.same_layer, options.dedup_pkgs_dirs)
    other = (options.method, options.goal, options.min_size, options.hardlink_untracked)
    if any(more) or any(value is not None for value in (*other, options.normalize_bytecode)):
        return
    if options.min_extent != MIN_EXTENT or not options.dedup_discover:
        return
    with suppress(DedupError, OSError):  # nothing of the user's depends on it
        remember_freeable(analysis, discovered=not (options.dedup_prefixes or options.dedup_search))


def analysis_of(options: argparse.Namespace) -> tuple[Analysis, list[str]]:
    """Look at what the command line names; return also what is wrong with the settings."""
    task = task_of(options)
    return task.analyse(), task.notes


class Task(Struct, frozen=True):
    """What the command line asks for: where to look, and how to plan."""

    scope: Scope
    plan: PlanOptions
    min_size: int
    deep: bool
    progress: Progress
    #: what is wrong with the settings
    notes: list[str]

    def analyse(
        self, look: Callable[[Inventory], None] | None = None, whole: bool = True, detailed: bool = False
    ) -> Analysis:
        """Look, and plan."""
        return analyse(self.scope, self.plan, self.min_size, self.deep, self.progress, look, whole, detailed)


def task_of(options: argparse.Namespace) -> Task:
    """Return what the command line asks for."""
    settings = load()
    plan = plan_options(options, settings)
    min_size = settings.floor(plan.goal) if options.min_size is None else options.min_size
    if min_size < 1:
        raise UsageError("--min-size must be at least 1 byte.", "Try --min-size 4096, the default.")
    if plan.min_extent < BLOCK:
        raise UsageError(
            f"--min-extent must be at least {BLOCK} bytes, a block.",
            f"Try --min-extent {MIN_EXTENT}, the default.",
        )
    progress = progress_for(options.json or getattr(options, "quiet", False))
    return Task(scope_of(options), plan, min_size, options.deep, progress, list(settings.warnings))
