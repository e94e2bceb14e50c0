"""What of environments and caches somebody should look at, and the command to act. Changes nothing."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter, defaultdict
from contextlib import suppress
from typing import TYPE_CHECKING

from msgspec import Struct

from .cached import find_cached
from .commands import clean_cache, command, export_environment, remove_environment, remove_from
from .exported import exported_file
from .findings import Audited, Finding, Kind
from .installed import installed
from .mixtures import find_clobbered, find_mixed, find_twice, find_two_channels
from .usage import last_use

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from .cached import Cached
    from .inventory import Inventory
    from .model import Tree
    from .usage import Usage


class AuditOptions(Struct, frozen=True):
    """``days`` without use are too many, and more than ``max_envs`` of one user's environments."""

    days: int = 90
    max_envs: int | None = None
    #: Whether every environment is known, so that what none of them uses is.
    everything: bool = True
    snapshots: str | None = None
    #: What to call to act.
    prog: str = "conda-dedup"


class Audit(Struct, frozen=True):
    """What an audit found."""

    options: AuditOptions
    environments: tuple[Audited, ...]
    findings: tuple[Finding, ...]

    @property
    def owners(self) -> Mapping[str, int]:
        """The number of environments by user, most first."""
        return dict(Counter(environment.owner for environment in self.environments).most_common())


def snapshot_directory() -> str | None:
    """Return where snapshots of environments are kept; None if nowhere."""
    from .settings import load

    return load().snapshot_dir or None


def audit(inventory: Inventory, options: AuditOptions, now: float | None = None) -> Audit:
    """Look at the selected trees of an inventory, which must know every size of file."""
    environments = [
        _audited(tree, counted.private_bytes, options)
        for tree, counted in zip(inventory.scope.trees, inventory.trees, strict=True)
        if tree.selected and not tree.is_cache
    ]
    findings = [
        *_unused(environments, options.days, time.time() if now is None else now),
        *_too_many(environments, options.max_envs),
        *find_clobbered(inventory, environments),
        *find_mixed(environments),
        *find_twice(environments),
        *find_two_channels(environments),
        *(_cached(inventory, options.prog) if options.everything else ()),
        *_unexported(environments),
    ]
    return Audit(options, tuple(environments), tuple(findings))


def _audited(tree: Tree, private_bytes: int, options: AuditOptions) -> Audited:
    conda, pip = installed(tree.root)
    exported = exported_file(tree, options.snapshots)
    return Audited(tree, _owner(tree.root), last_use(tree.root), exported, private_bytes, conda, pip)


def _owner(path: str) -> str:
    try:
        uid = os.lstat(path).st_uid
    except OSError:
        return "?"
    if sys.platform != "win32":  # there every file says 0
        import pwd

        with suppress(KeyError):
            return pwd.getpwuid(uid).pw_name
    return str(uid)


def _unused(environments: Iterable[Audited], days: int, now: float) -> Iterable[Finding]:
    found = [one for one in environments if one.removable and one.usage.unused(days, now)]
    for one in sorted(found, key=lambda one: one.usage.last or 0):
        what = f"'{one.tree.name}' was last used on {_day(one.usage)}"
        commands = (remove_environment(one.tree),)
        yield Finding(Kind.UNUSED, one.tree.root, what, commands, bytes_freed=one.private_bytes)


def _day(usage: Usage) -> str:
    return "?" if usage.last is None else time.strftime("%Y-%m-%d", time.localtime(usage.last))


def _too_many(environments: Sequence[Audited], most: int | None) -> Iterable[Finding]:
    owned: dict[str, list[Audited]] = defaultdict(list)
    for one in environments:
        owned[one.owner].append(one)
    for owner, theirs in sorted(owned.items()):
        if most is None or len(theirs) <= most:
            continue
        # what is known to be long unused first, what nobody knows of last
        order = sorted(theirs, key=lambda one: (one.usage.last is None, one.usage.last or 0))
        surplus = [one for one in order if one.removable][: len(theirs) - most]
        if not surplus:
            continue
        yield Finding(
            Kind.TOO_MANY,
            owner,
            f"user '{owner}' has {len(theirs):,} environments, {len(theirs) - most:,} more than {most:,}; "
            "those longest unused",
            tuple(remove_environment(one.tree) for one in surplus),
            tuple(one.tree.root for one in surplus),
            sum(one.private_bytes for one in surplus),
        )


def _cached(inventory: Inventory, prog: str) -> Iterable[Finding]:
    for kind, option, what, cached in zip(
        (Kind.PACKAGES, Kind.TARBALLS),
        ("--packages", "--tarballs"),
        ("packages", "tarballs"),
        find_cached(inventory),
        strict=True,
    ):
        for found in cached:
            root = found.cache.root
            told = f"{len(found.paths):,} of the {what} in {root}"
            yield Finding(kind, root, told, _cleaning(found, option, prog), found.paths, found.bytes_freed)


def _cleaning(found: Cached, option: str, prog: str) -> tuple[str, ...]:
    """Return what removes just these: conda where it can, and ours what conda takes for used."""
    if found.others or not found.cache.is_conda_cache:
        return (remove_from(found.cache.root, [path.rpartition("/")[2] for path in found.paths]),)
    commands = []
    if found.kept < len(found.paths):
        commands.append(clean_cache(found.cache, option))
    if found.kept:
        commands.append(command(*prog.split(), "clean", "--pkgs-dir", found.cache.root))
    return tuple(commands)


def _unexported(environments: Iterable[Audited]) -> Iterable[Finding]:
    for one in environments:
        if one.removable and one.exported is None:
            what = f"'{one.tree.name}' could not be made again: no environment.yml, lock file or list"
            yield Finding(Kind.UNEXPORTED, one.tree.root, what, (export_environment(one.tree),))
