"""What is remembered of each environment: pending work, and the last check with its explicit specs."""

from __future__ import annotations

import os
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec

from .checks import Check, Freeable, Pending, Remembered, Result
from .files import real_path
from .remembering import forget, load, update
from .state import environment_directory, is_running, process_identity, state_directory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence


__all__ = [
    "Check", "Freeable", "Pending", "Remembered", "Result", "clear", "done", "is_somebody_elses", "note",
    "put_off", "read", "remember_freeable", "remembered", "seen",
]  # fmt: skip

_FILE = "check.json"
CheckT = TypeVar("CheckT", bound=Remembered)


def read(prefix: str) -> Check:
    """Return what is remembered of an environment; nothing, if it cannot be read."""
    try:
        check = load(environment_directory(prefix, make=False) / _FILE, Check)
    except OSError:
        check = None
    return _of(prefix, check)


def _of(prefix: str, check: Check | None) -> Check:
    check = check or Check(prefix)
    check.prefix = prefix  # where it is written back to
    return check


def _update(prefix: str, change: Callable[[Check], None]) -> bool:
    """Change what is remembered, and keep the rest; whether it was done, for nobody waits for a writer."""
    prefix = real_path(prefix)

    def changed(there: Check | None) -> Check:
        check = _of(prefix, there)
        change(check)
        return check

    return update(environment_directory(prefix) / _FILE, Check, changed)


def note(
    prefix: str,
    linked: Iterable[str],
    copies: bool = False,
    since: float | None = None,
    wheels: Iterable[str] = (),
) -> bool:
    """Announce work on an environment: what came there since a time, by default now.

    What a dead process had announced there is taken over. False: somebody else is writing there.
    """
    announced = _own(linked, copies, since, wheels)

    def announce(check: Check) -> None:
        before = check.pending
        if before is not None and before.is_free:
            announced.noted = min(announced.noted, before.noted)
            announced.linked = sorted({*announced.linked, *before.linked})
            announced.copies |= before.copies
            announced.wheels = sorted({*announced.wheels, *before.wheels})
        check.pending = announced

    return _update(prefix, announce)


def _own(linked: Iterable[str], copies: bool, since: float | None, wheels: Iterable[str]) -> Pending:
    own = process_identity(os.getpid())
    return Pending(own, time.time() if since is None else since, sorted(linked), copies, sorted(wheels))


def clear(prefix: str) -> bool:
    """Take back what was announced."""

    def take_back(check: Check) -> None:
        check.pending = None

    return _update(prefix, take_back)


def is_somebody_elses(prefix: str, since: float) -> bool:
    """Whether another run is at work on an environment, or has seen to it since that time."""
    check = read(real_path(prefix))
    if check.pending is not None and check.pending.process != process_identity(os.getpid()):
        return is_running(check.pending.process)
    return check.checked is not None and check.checked >= since


def done(prefix: str, specs: Sequence[str], result: Result, began: float | None = None) -> bool:
    """Remember a check of an environment; its pending work is done.

    ``began``: the command that was at work there, in seconds since the epoch.
    """
    return _check(prefix, specs, result, None, began)


def put_off(
    prefix: str,
    specs: Sequence[str],
    result: Result,
    linked: Iterable[str],
    copies: bool,
    since: float,
    wheels: Iterable[str],
    began: float | None = None,
) -> bool:
    """Remember a check that came to no end: what is left of it, and of all that was announced."""
    return _check(prefix, specs, result, _own(linked, copies, since, wheels), began)


def _check(
    prefix: str, specs: Sequence[str], result: Result, left: Pending | None, began: float | None
) -> bool:
    def change(check: Check) -> None:
        _compare(check, specs, began)
        check.checked, check.specs, check.result, check.pending = time.time(), list(specs), result, left

    return _update(prefix, change)


def _compare(check: Check, specs: Sequence[str], began: float | None) -> None:
    """Remember a transaction, if there was one: of conda, by its history, else by what is there now."""
    from .explicit import changes, stem_of, undone

    before = undone(check.prefix, specs, check.specs, began) if began is not None else None
    if before is None and check.checked is not None:
        before = check.specs
    if before is None:
        return
    by_stem = {stem_of(spec): spec for spec in specs}
    before = [by_stem.get(spec, spec) for spec in before]  # an older version knew no more than the stem
    if set(before) == set(specs):
        return
    check.before, check.transaction = list(before), time.time()
    check.changes = changes(before, specs)
    if check.freeable is not None and not (check.changes.removed or check.changes.changed):
        # what only got more can still free as much
        check.freeable = msgspec.structs.replace(check.freeable, seen=time.time())


def remember_freeable(prefix: str, freeable: Freeable | None) -> bool:
    """Remember what could be freed; None: nobody knows any more."""

    def change(check: Check) -> None:
        check.freeable = freeable

    return _update(prefix, change)


def remembered() -> Iterator[Remembered]:
    """Yield what is remembered of every environment; of one that is no more it is removed."""
    for path, check in _all(state_directory(), Remembered):
        if _is_there(check.prefix):
            yield check
        else:
            forget(Path(path), partial(_is_gone, path))


def seen(state: Path) -> list[Check]:
    """Return all that is remembered in a state directory, and change nothing."""
    return [check for _, check in _all(state, Check) if _is_there(check.prefix)]


def _all(state: Path, kind: type[CheckT]) -> Iterator[tuple[str, CheckT]]:
    try:
        with os.scandir(state / "envs") as entries:
            paths = [entry.path for entry in entries]
    except FileNotFoundError:
        return
    for path in paths:
        check = load(f"{path}/{_FILE}", kind)
        if check is not None:
            yield path, check


def _is_gone(path: str) -> bool:
    check = load(f"{path}/{_FILE}", Remembered)
    return check is not None and not _is_there(check.prefix)


def _is_there(prefix: str) -> bool:
    from .trees import is_environment, is_virtual_environment

    return is_environment(prefix) or is_virtual_environment(prefix)
