"""What other programs may call: the same as the command line, as functions of paths.

    from conda_dedup_plugin import api

    found = api.plan(["/opt/envs"])
    print(found.freeable_bytes, "bytes could be freed")
    done = api.apply(found)

*Paths* are one path or several: environments (``conda-meta`` or ``pyvenv.cfg`` in them), package caches, or
directories below which all of both are meant. What they name may be changed. ``donors`` are paths too, whose
files may serve as keepers and are never changed; with ``discover`` so may those of everything that is found.

Every size is in bytes of disk (an inode counts once), every time in seconds. The user's settings hold, from
condarc and ``CONDA_PLUGINS_DEDUP_…``, where :class:`Options` says nothing else. All functions block; from
asynchronous code call them by ``asyncio.to_thread``. conda is not needed.

What is public here stays as it is within a major version: fields and keywords are added, never taken away.

Errors are :class:`DedupError` with a ``hint`` about what to do: :class:`UsageError` (no such path or option)
and :class:`StateError` (the journal cannot be used). A file that cannot be shared is no error.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from .answers import Applied, Failure, Found, Kept, Options, Paths, Plan, Scan, Share, Shared
from .errors import DedupError, StateError, UsageError

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping

    from .model import Reason

__all__ = [
    "Applied", "DedupError", "Failure", "Found", "Kept", "Options", "Paths", "Plan", "Scan", "Share",
    "Shared", "StateError", "UsageError", "apply", "plan", "report", "scan", "share_installed",
]  # fmt: skip


def scan(paths: Paths) -> Scan:
    """Return what environments and caches there are and what they hold. Reads no contents, changes nothing.

    UsageError: there is no such path.
    """
    from .asked import scope_of
    from .inventory import scan as look

    inventory = look(scope_of(paths, (), False), min_size=1)
    found: dict[bool, list[Found]] = {False: [], True: []}
    for tree, counted in zip(inventory.scope.trees, inventory.trees, strict=True):
        found[tree.is_cache].append(
            Found(
                tree.root, tree.name, tree.manager.value, counted.files, counted.apparent_bytes,
                counted.disk_bytes, counted.private_bytes,
            )
        )  # fmt: skip
    warnings = (*inventory.scope.warnings, *inventory.warnings)
    return Scan(tuple(found[False]), tuple(found[True]), inventory.totals.disk_bytes, warnings)


def plan(
    paths: Paths,
    *,
    donors: Paths = (),
    discover: bool = False,
    deep: bool = True,
    options: Options | None = None,
) -> Plan:
    """Return what could be shared. Changes nothing.

    ``deep``: files without a record are read and compared, too. UsageError: there is no such path or option.
    """
    from .asked import analyse_paths

    analysis, warnings = analyse_paths(paths, donors, discover, deep, options or Options(), whole=True)
    paths_of = analysis.scope.paths_of
    shares = [
        Share(
            share.method.value,
            paths_of(share.keeper)[0],
            tuple(paths_of(share.duplicate)),
            share.freed_bytes,
        )
        for share in analysis.plan.shares
    ]
    held = [
        Kept(reason.value, inodes, size) for reason, (size, inodes) in analysis.plan.held_by_reason().items()
    ]
    inodes = sum(share.freed_inodes for share in analysis.plan.shares)
    freeable = analysis.plan.freeable_bytes
    return Plan(tuple(shares), tuple(held), freeable, inodes, tuple(warnings), analysis)


def report(
    paths: Paths,
    *,
    donors: Paths = (),
    discover: bool = False,
    deep: bool = False,
    options: Options | None = None,
) -> dict[str, Any]:
    """Return the document that ``conda dedup report --json`` prints; ``schema`` tells its version.

    Changes nothing. UsageError: there is no such path or option.
    """
    from .asked import analyse_paths
    from .report.json import report_document

    began = time.time()
    analysis, warnings = analyse_paths(paths, donors, discover, deep, options or Options(), whole=False)
    return {**report_document(analysis, began), "warnings": warnings}


def apply(
    what: Paths | Plan,
    *,
    donors: Paths = (),
    discover: bool = False,
    deep: bool = True,
    options: Options | None = None,
    journal: bool = True,
) -> Applied:
    """Share what a plan, or the plan of some paths, says; asks nobody. Every file is compared right before.

    Without a ``journal`` nothing of it can be completed after a crash or be undone exactly. UsageError: as in
    :func:`plan`. StateError: the journal cannot be used; nothing was changed, or what was is complete.
    """
    from .apply import apply_plan
    from .interrupted import finish_interrupted
    from .notices import forget

    notes = [] if isinstance(what, Plan) or not journal else finish_interrupted()[1]
    if not isinstance(what, Plan):
        what = plan(what, donors=donors, discover=discover, deep=deep, options=options)
    done = apply_plan(what._analysis, f"{__name__}.apply", journal=journal)
    forget(what._analysis)
    return Applied(
        run=done.run if journal else "",
        inodes=done.inodes,
        names=done.names,
        bytes_freed=done.bytes_freed,
        inodes_freed=done.inodes_freed,
        left_alone=_kept(done.skipped),
        failed=tuple(Failure(path, error) for path, error in done.failed),
        warnings=(*notes, *what.warnings, *done.notes),
    )


def share_installed(
    prefix: str | os.PathLike[str],
    records: Iterable[object],
    *,
    donors: Paths = (),
    discover: bool = True,
    budget: int | None = None,
    began: float | None = None,
) -> Shared:
    """Share what was just installed into an environment, as conda's hook does it: quickly, and nothing else.

    ``records`` are those given to ``rattler.install``, or any with ``name``, ``version`` and ``build``, or
    strings name-version-build. Of those whose files have no other name yet, copies are looked for where the
    same package is in another environment or cache. ``budget``: so many seconds it may take, by default the
    setting ``dedup_auto_budget``; 0: it is only noted, and done after the next command. ``began``: when the
    installation began (seconds since the epoch); on an overlay nothing is shared that is older.

    UsageError: there is no environment at ``prefix``. StateError: as in :func:`apply`.
    """
    from . import pending
    from .asked import each, scope_of, stem_of
    from .automatic import Run, share_all
    from .changes import Changed
    from .settings import always_copy, load

    settings = load()
    if budget is not None:
        settings = replace(settings, auto_budget=budget)
    others = list(each(donors))
    if discover:
        others += [check.prefix for check in pending.remembered() if check.is_seen]
    scope = scope_of(prefix, others, discover, of_environment=True)
    now = time.time()
    changed = Changed(frozenset(map(stem_of, records)), now, always_copy())
    root = next(tree.root for tree in scope.trees if tree.selected)
    run = Run(
        settings,
        f"{__name__}.share_installed",
        now if began is None else began,
        time.monotonic() + settings.auto_budget,
    )
    results = list(share_all(run, scope, {root: changed}))
    return Shared(
        names=sum(result.names for result in results),
        bytes_freed=sum(result.bytes_freed for result in results),
        failed=sum(result.failed for result in results),
        unfinished=any(result.unfinished for result in results),
        warnings=(*settings.warnings, *scope.warnings, *(note for one in results for note in one.notes)),
    )


def _kept(skipped: Mapping[Reason, tuple[int, int]]) -> tuple[Kept, ...]:
    return tuple(Kept(reason.value, inodes, size) for reason, (inodes, size) in skipped.items())
