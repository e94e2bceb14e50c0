"""From the options of a command line to an analysis."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ..engine import Analysis, analyse
from ..environments import Request, find
from ..errors import UsageError
from ..model import MethodChoice
from ..plan import PlanOptions
from ..settings import Settings, always_copy, load

if TYPE_CHECKING:
    import argparse

    from ..model import Scope


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
    method = MethodChoice(options.method) if options.method else settings.method
    return PlanOptions(
        method=method,
        euid=os.geteuid(),
        include_cache=options.include_cache,
        override_frozen=options.override_frozen,
        same_layer=options.same_layer,
        # who says --method knows that always_copy is set
        reflink_only=always_copy() and options.method is None,
    )


def analysis_of(options: argparse.Namespace) -> tuple[Analysis, list[str]]:
    """Look at what the command line names; return also what is wrong with the settings."""
    settings = load()
    min_size = max(settings.min_size, 1) if options.min_size is None else options.min_size
    if min_size < 1:
        raise UsageError("--min-size must be at least 1 byte.", "Try --min-size 4096, the default.")
    return analyse(scope_of(options), plan_options(options, settings), min_size), list(settings.warnings)
