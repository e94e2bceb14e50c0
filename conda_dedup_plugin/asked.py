"""From what is asked for to the options of a plan; from what :mod:`.api` is given to an analysis."""

from __future__ import annotations

import os
import reprlib
from enum import Enum
from typing import TYPE_CHECKING, TypeVar

from msgspec.structs import replace

from .engine import Analysis, analyse
from .environments import Request, find
from .errors import UsageError
from .model import Goal, MethodChoice, Scope
from .plan import MIN_EXTENT, PlanOptions
from .settings import always_copy, load
from .sharing.system import user
from .trees import is_environment, is_package_cache, is_uv_cache, is_virtual_environment

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .answers import Options, Paths
    from .settings import Settings

E = TypeVar("E", bound=Enum)


def plan_options(
    settings: Settings,
    *,
    method: MethodChoice | None,
    goal: Goal | None,
    hardlink_untracked: bool | None,
    normalize_bytecode: bool | None,
    include_cache: bool,
    override_frozen: bool,
    same_layer: bool,
    min_extent: int = MIN_EXTENT,
) -> PlanOptions:
    """Return what is asked for; None: what the settings say."""
    return PlanOptions(
        method=method or settings.method,
        goal=goal or settings.goal,
        euid=user(),
        include_cache=include_cache,
        override_frozen=override_frozen,
        same_layer=same_layer,
        # who names a method knows that always_copy is set
        reflink_only=always_copy() and method is None,
        min_extent=min_extent,
        hardlink_untracked=settings.hardlink_untracked if hardlink_untracked is None else hardlink_untracked,
        normalize_bytecode=settings.normalize_bytecode if normalize_bytecode is None else normalize_bytecode,
    )


def analyse_paths(
    paths: Paths, donors: Paths, discover: bool, deep: bool, options: Options, whole: bool
) -> tuple[Analysis, list[str]]:
    """Look, and plan; return what went wrong on the way, too."""
    settings = load()
    plan = plan_options(
        settings,
        method=_choice(MethodChoice, "method", options.method),
        goal=_choice(Goal, "goal", options.goal),
        hardlink_untracked=options.hardlink_untracked,
        normalize_bytecode=options.normalize_bytecode,
        include_cache=options.include_cache,
        override_frozen=options.override_frozen,
        same_layer=options.same_layer,
    )
    min_size = settings.floor(plan.goal) if options.min_size is None else options.min_size
    if min_size < 1:
        raise UsageError("The least size must be at least 1 byte.", "Leave min_size away for the setting.")
    analysis = analyse(scope_of(paths, donors, discover), plan, min_size, deep, whole=whole)
    return analysis, [*settings.warnings, *analysis.warnings]


def _choice(kind: type[E], name: str, value: str | None) -> E | None:
    if value is None:
        return None
    known = [choice.value for choice in kind]
    if value not in known:
        raise UsageError(f"There is no {name} {value!r}.", f"Known are: {', '.join(known)}.")
    return kind(value)


def scope_of(paths: Paths, donors: Paths, discover: bool, of_environment: bool = False) -> Scope:
    """Return the trees that the paths name, selected, and those of donors and of discovery, not selected."""
    named = list(each(paths))
    if of_environment:
        chosen = find(Request(prefixes=tuple(named), discover=False))
    else:
        chosen = find(replace(_request(named), discover=False))
    request = _request([*named, *each(donors)])
    everything = find(replace(request, discover=discover))
    roots = {tree.root for tree in chosen.trees}
    trees = tuple(replace(tree, selected=tree.root in roots) for tree in everything.trees)
    return Scope(trees, tuple(dict.fromkeys((*chosen.warnings, *everything.warnings))))


def each(paths: Paths) -> Iterator[str]:
    """Yield one path or several as strings."""
    for path in [paths] if isinstance(paths, (str, os.PathLike)) else paths:
        yield os.fspath(path)


def _request(paths: Iterable[str]) -> Request:
    """Name each path for what it is: an environment, a package cache, or a directory with some of both."""
    prefixes, caches, search = [], [], []
    for path in paths:
        if is_environment(path) or is_virtual_environment(path):
            prefixes.append(path)
        elif is_package_cache(path) or is_uv_cache(path):
            caches.append(path)
        else:
            search.append(path)
    return Request(prefixes=tuple(prefixes), pkgs_dirs=tuple(caches), search=tuple(search))


def stem_of(record: object) -> str:
    """Return name-version-build of a record, whoever's it is."""
    if isinstance(record, str):
        return record
    try:
        name, version, build = (getattr(record, word) for word in ("name", "version", "build"))
    except AttributeError:
        raise UsageError(
            f"A record has no name, version and build: {reprlib.repr(record)}.",
            "Give the records that rattler.install was given.",
        ) from None
    return f"{getattr(name, 'normalized', name)}-{version}-{build}"
