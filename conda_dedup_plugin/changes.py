"""Which environments a conda command changed, and what of them.

conda's own word is its transaction (conda >= 25.5). Where there is none (an older conda, or pip alone at
work) time stamps tell, and whose command stands last in ``conda-meta/history`` tells whether it was ours.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from msgspec import Struct

from . import pending
from .files import CLOCK_SLACK, came, modified, read_regular, real_path
from .sites import site_packages
from .trees import is_environment

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .model import Scope

_HISTORY_BYTES = 64 * 1024 * 1024
#: Commands whose environment is none of ``context.target_prefix`` on an old conda.
_ELSEWHERE = frozenset({"env_create", "env_update", "rename", "create"})
#: Commands that change the environment of ``context.target_prefix``.
_THERE = frozenset({"create", "install", "update", "remove"})


class Command(Struct, frozen=True):
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


class Changed(Struct, frozen=True):
    """What came into one environment: conda packages as name-version-build, and pip's since a time.

    ``wheels``: the names of directories ``.dist-info`` that came before.
    """

    dists: frozenset[str]
    since: float
    copies: bool = False
    wheels: frozenset[str] = frozenset()

    @classmethod
    def of(cls, left: pending.Pending) -> Changed:
        """What a process had announced."""
        return cls(frozenset(left.linked), left.noted - CLOCK_SLACK, left.copies, frozenset(left.wheels))

    def joined(self, other: Changed | None) -> Changed:
        """Both."""
        if other is None:
            return self
        return Changed(
            self.dists | other.dists,
            min(self.since, other.since),
            self.copies or other.copies,
            self.wheels | other.wheels,
        )


def changed_environments(scope: Scope, command: Command) -> dict[str, Changed]:
    """Return what changed, by the real path of the environment: that of the command first.

    Then comes what earlier commands left behind, at last what pip did without conda.
    """
    since = command.began - CLOCK_SLACK
    found: dict[str, Changed] = {}
    for prefix, dists in command.transactions.items():
        told = Changed(frozenset("-".join(dist) for dist in dists), since, command.copies)
        _join(found, real_path(prefix), told)
    for root in _stamped(scope, command, since):
        _join(found, root, _newer(root, since, command.copies))
    _join_remembered(found, command.copies)
    return found


def may_have_changed(command: Command) -> bool:
    """Whether there may be anything to do, found out by looking at no more than must be looked at."""
    if command.transactions or command.name in _ELSEWHERE:
        return True
    return _is_there_changed(command, command.began - CLOCK_SLACK) or _is_anything_remembered(command.copies)


def _is_anything_remembered(copies: bool) -> bool:
    found: dict[str, Changed] = {}
    _join_remembered(found, copies)
    return bool(found)


def touched_environments(scope: Scope, since: float, copies: bool) -> dict[str, Changed]:
    """Return the same of any command, which began at ``since``: what changed in the selected environments."""
    since -= CLOCK_SLACK
    roots = [tree.root for tree in scope.trees if tree.selected and not tree.is_cache]
    found: dict[str, Changed] = {}
    for root in roots:
        # rattler keeps no history
        touched = came(f"{root}/conda-meta") >= since or _touched(root, since)
        if touched and _is_own(root) and not pending.is_somebody_elses(root, since):
            found[root] = _newer(root, since, copies)
    _join_remembered(found, copies)
    return {root: changed for root, changed in found.items() if root in roots}


def _newer(root: str, since: float, copies: bool) -> Changed:
    """What came into an environment since a time, going by its records."""
    from .records.conda_meta import read_dists

    stems = (stem for stem, path in read_dists(root).items() if came(path) >= since)
    return Changed(frozenset(stems), since, copies)


def _join(found: dict[str, Changed], root: str, changed: Changed) -> None:
    found[root] = changed.joined(found.get(root))


def _join_remembered(found: dict[str, Changed], copies: bool) -> None:
    """Add what nobody did that was announced, and environments that changed since they were checked.

    Each the one that waits for longest first.
    """
    checks = sorted(pending.remembered(), key=lambda check: check.checked or 0)
    for check in checks:
        if check.pending is not None and check.pending.is_free:
            _join(found, check.prefix, Changed.of(check.pending))
    for check in checks:
        if check.pending is not None and not check.pending.is_free:
            continue
        if check.checked is not None and _is_piped(check.prefix, check.checked) and _is_own(check.prefix):
            _join(found, check.prefix, Changed(frozenset(), check.checked - CLOCK_SLACK, copies))


def _is_piped(root: str, since: float) -> bool:
    """Whether something came into, or went from, where pip installs."""
    return any(modified(path) > since for path in site_packages(root))


def _stamped(scope: Scope, command: Command, since: float) -> list[str]:
    """Return the environments in which, by their time stamps, this command was at work."""
    found = []
    if _is_there_changed(command, since):
        found.append(real_path(command.target))
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


def _is_there_changed(command: Command, since: float) -> bool:
    """Whether the environment that conda calls its target was changed."""
    if command.name not in _THERE or not command.target:
        return False
    target = real_path(command.target)
    return is_environment(target) and _touched(target, since)


def _is_own(root: str) -> bool:
    from .model import NO_USER
    from .sharing.system import user

    try:
        return user() in (NO_USER, os.stat(root).st_uid)
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
    return any(modified(path) >= since for path in (f"{root}/conda-meta/history", *site_packages(root)))
