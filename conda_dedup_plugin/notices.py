"""A line after a command about an environment that could free much, by what is remembered: no scan."""

from __future__ import annotations

import shlex
import time
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from . import pending
from .errors import DedupError
from .files import modified
from .remembering import load, update
from .state import environment_directory

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .engine import Analysis

_FILE = "notified.json"
_DAY = 86400.0


class Notified(msgspec.Struct):
    """``notified.json``: when the user was told last, in seconds since the epoch, and of how many bytes."""

    told: float
    bytes: int


def notice(least: int, days: int, prog: str) -> str | None:
    """Return what to tell the user now: of the environment that could free most, if it is above ``least``.

    None: there is nothing to tell, or the user was told within so many days.
    """
    if least == 0:
        return None
    found = [check for check in pending.remembered() if check.freeable and check.freeable.bytes > least]
    for check in sorted(found, key=lambda check: -(check.freeable.bytes if check.freeable else 0)):
        freeable = check.freeable
        if freeable and _is_as_it_was(check.prefix, freeable) and told(check.prefix, freeable.bytes, days):
            from rich.filesize import decimal

            size, words = decimal(freeable.bytes), shlex.join(freeable.words)
            return f"env '{freeable.name}' could free {size}: {prog} apply {words}"
    return None


def _is_as_it_was(prefix: str, freeable: pending.Freeable) -> bool:
    """Whether no package came to or went from an environment since."""
    return max(modified(f"{prefix}/conda-meta"), modified(f"{prefix}/conda-meta/history")) <= freeable.seen


def told(prefix: str, size: int, days: int) -> bool:
    """Note that the user is told now; False: that was done within so many days, or is being done."""

    def is_recent(before: Notified | None) -> bool:
        return before is not None and 0 <= time.time() - before.told < days * _DAY

    def note(before: Notified | None) -> Notified | None:
        return None if is_recent(before) else Notified(time.time(), size)

    if is_recent(load(environment_directory(prefix, make=False) / _FILE, Notified)):
        return False
    return update(environment_directory(prefix) / _FILE, Notified, note)


def remember(analysis: Analysis, discovered: bool) -> None:
    """Remember what each selected environment could free by itself.

    ``discovered``: all of them are known by their names.
    """
    scope = analysis.scope
    freeable = analysis.reckoning.alone
    names = Counter(tree.name for tree in scope.trees if not tree.is_cache)
    now = time.time()
    for index, tree in enumerate(scope.trees):
        if tree.selected and not tree.is_cache:
            unique = discovered and names[tree.name] == 1
            words = ["-n", tree.name] if unique else ["-p", tree.root]
            known = pending.Freeable(freeable[index], now, tree.name, words)
            if known.bytes or pending.read(tree.root).freeable is not None:
                pending.remember_freeable(tree.root, known)


def forget(analysis: Analysis) -> None:
    """Forget what could be freed of every environment with a part in what was shared. Never raises."""
    with suppress(DedupError, OSError):  # a notice is not worth a failure
        for root in _roots(analysis):
            if pending.read(root).freeable is not None:
                pending.remember_freeable(root, None)


def _roots(analysis: Analysis) -> Iterable[str]:
    trees = analysis.scope.trees
    parts = {
        name.tree
        for share in analysis.plan.shares
        for inode in (share.duplicate, share.keeper)
        for name in inode.names
    }
    return [trees[index].root for index in sorted(parts) if not trees[index].is_cache]
