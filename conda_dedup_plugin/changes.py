"""Which environments a conda command changed, and what of them.

conda's own word is its transaction (conda >= 25.5). Where there is none (an older conda, or pip alone at
work) time stamps tell, and whose command stands last in ``conda-meta/history`` tells whether it was ours.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from . import pending
from .environments import is_environment
from .files import read_regular
from .records.conda_meta import read_dists
from .records.pip_record import site_packages
from .state import process_identity

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .model import Scope

#: A file system may stamp files with the time of the last tick: so many seconds before the clock says.
CLOCK_SLACK = 0.05
_HISTORY_BYTES = 64 * 1024 * 1024
#: Commands whose environment is none of ``context.target_prefix`` on an old conda.
_ELSEWHERE = frozenset({"env_create", "env_update", "rename", "create"})
#: Commands that bring something into an environment.
_BRINGING = frozenset({"create", "install", "update"})


@dataclass(frozen=True, slots=True)
class Command:
    """A conda command: its name as conda's hooks have it, when it began (seconds since the epoch), the
    transactions it told of ((name, version, build) by prefix), conda's target prefix, its words as they
    stand in ``history``, and whether the user asked for copies.
    """

    name: str
    began: float
    transactions: Mapping[str, set[tuple[str, str, str]]]
    target: str = ""
    words: str = ""
    copies: bool = False


@dataclass(frozen=True, slots=True)
class Changed:
    """What came into one environment since a time: conda packages as name-version-build, and pip's."""

    dists: frozenset[str]
    since: float
    copies: bool = False

    def joined(self, other: Changed | None) -> Changed:
        """Both."""
        if other is None:
            return self
        return Changed(self.dists | other.dists, min(self.since, other.since), self.copies or other.copies)


def changed_environments(scope: Scope, command: Command) -> dict[str, Changed]:
    """Return what changed, by the real path of the environment."""
    since = command.began - CLOCK_SLACK
    found: dict[str, Changed] = {}
    for prefix, left in pending.left_behind():
        found[prefix] = Changed(frozenset(left.linked), left.noted - CLOCK_SLACK, left.copies)
    for prefix, dists in command.transactions.items():
        root = os.path.realpath(prefix)
        told = Changed(frozenset("-".join(dist) for dist in dists), since, command.copies)
        # what a dead process had announced there was taken over when this one announced its own
        announced = pending.read(root).pending
        if announced is not None and announced.process == process_identity(os.getpid()):
            told = told.joined(
                Changed(frozenset(announced.linked), announced.noted - CLOCK_SLACK, announced.copies)
            )
        found[root] = told.joined(found.get(root))
    for root in _stamped(scope, command, since):
        stems = (stem for stem, path in read_dists(root).items() if modified(path) >= since)
        stamped = Changed(frozenset(stems), since, command.copies)
        found[root] = stamped.joined(found.get(root))
    return found


def _stamped(scope: Scope, command: Command, since: float) -> list[str]:
    """Return the environments in which, by their time stamps, this command was at work."""
    target = os.path.realpath(command.target) if command.target else ""
    found = []
    if command.name in _BRINGING and is_environment(target) and _touched(target, since):
        found.append(target)
    if command.name in _ELSEWHERE and not command.transactions:
        for tree in scope.trees:
            if (
                tree.is_cache
                or tree.root in found
                or not _is_own(tree.root)
                or not _touched(tree.root, since)
            ):
                continue
            if not pending.is_somebody_elses(tree.root, since) and _is_work_of(tree.root, command, since):
                found.append(tree.root)
    return found


def _is_own(root: str) -> bool:
    try:
        return os.stat(root).st_uid == os.geteuid()
    except OSError:
        return False


def _is_work_of(root: str, command: Command, since: float) -> bool:
    """Whether the last command in the history is this one, or only pip was at work."""
    history = f"{root}/conda-meta/history"
    if modified(history) < since:
        return command.name == "env_update"
    try:
        lines = read_regular(history, _HISTORY_BYTES).splitlines()
    except OSError:
        return False
    last = next((line for line in reversed(lines) if line.startswith(b"# cmd: ")), b"")
    return last == b"# cmd: " + os.fsencode(command.words)


def _touched(root: str, since: float) -> bool:
    """Whether conda or pip was at work in an environment."""
    if modified(f"{root}/conda-meta/history") >= since:
        return True
    return any(modified(path) >= since for path in site_packages(root))


def modified(path: str | os.PathLike[str]) -> float:
    """When a file was last changed, in seconds since the epoch; 0 if there is none."""
    try:
        return os.stat(path).st_mtime
    except OSError:
        return 0.0


def came(path: str | os.PathLike[str]) -> float:
    """When a file came into its place, or was last changed there: copying may keep mtimes."""
    try:
        return os.stat(path).st_ctime
    except OSError:
        return 0.0
