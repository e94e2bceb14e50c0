"""What is remembered of each environment: pending work, and the last check with its explicit specs."""

from __future__ import annotations

import os
import shutil
import time
from typing import TYPE_CHECKING

import msgspec

from .files import real_path
from .state import environment_directory, is_running, process_identity, state_directory, write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path


class Pending(msgspec.Struct):
    """Work that a process has announced: what it linked, as name-version-build, and what came since.

    ``copies``: the user asked for independent files. ``wheels``: the names of directories
    ``.dist-info`` that came before.
    """

    process: str
    noted: float
    linked: list[str] = []
    copies: bool = False
    wheels: list[str] = []

    @property
    def is_free(self) -> bool:
        """Whether this process may do it: its own, or that of one that is gone."""
        return self.process == process_identity(os.getpid()) or not is_running(self.process)


class Result(msgspec.Struct):
    """What an automatic run came to; ``bytes_freed`` in bytes."""

    files: int
    bytes_freed: int
    failed: int = 0


class Check(msgspec.Struct):
    """``check.json``: ``specs`` are the environment's dists, ``checked`` is in seconds since the epoch."""

    prefix: str
    checked: float | None = None
    specs: list[str] = []
    result: Result | None = None
    pending: Pending | None = None


_FILE = "check.json"


def read(prefix: str) -> Check:
    """Return what is remembered of an environment; nothing, if it cannot be read."""
    try:
        content = (environment_directory(prefix) / _FILE).read_bytes()
        check = msgspec.json.decode(content, type=Check)
        check.prefix = prefix  # where it is written back to
        return check
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return Check(prefix)


def _write(check: Check) -> None:
    path = environment_directory(check.prefix) / _FILE
    write_atomically(path, msgspec.json.encode(check))


def note(
    prefix: str,
    linked: Iterable[str],
    copies: bool = False,
    since: float | None = None,
    wheels: Iterable[str] = (),
) -> None:
    """Announce work on an environment: what came there since a time, by default now.

    What a dead process had announced there is taken over.
    """
    prefix = real_path(prefix)
    check = read(prefix)
    announced = _own(linked, copies, since, wheels)
    before = check.pending
    if before is not None and before.is_free:
        announced.noted = min(announced.noted, before.noted)
        announced.linked = sorted({*announced.linked, *before.linked})
        announced.copies |= before.copies
        announced.wheels = sorted({*announced.wheels, *before.wheels})
    check.pending = announced
    _write(check)


def _own(linked: Iterable[str], copies: bool, since: float | None, wheels: Iterable[str]) -> Pending:
    own = process_identity(os.getpid())
    return Pending(own, time.time() if since is None else since, sorted(linked), copies, sorted(wheels))


def clear(prefix: str) -> None:
    """Take back what was announced."""
    prefix = real_path(prefix)
    check = read(prefix)
    check.pending = None
    _write(check)


def is_somebody_elses(prefix: str, since: float) -> bool:
    """Whether another run is at work on an environment, or has seen to it since that time."""
    check = read(real_path(prefix))
    if check.pending is not None and check.pending.process != process_identity(os.getpid()):
        return is_running(check.pending.process)
    return check.checked is not None and check.checked >= since


def done(prefix: str, specs: Sequence[str], result: Result) -> None:
    """Remember a check of an environment; its pending work is done."""
    _write(Check(real_path(prefix), time.time(), list(specs), result))


def put_off(
    prefix: str,
    specs: Sequence[str],
    result: Result,
    linked: Iterable[str],
    copies: bool,
    since: float,
    wheels: Iterable[str],
) -> None:
    """Remember a check that came to no end: what is left of it, and of all that was announced."""
    left = _own(linked, copies, since, wheels)
    _write(Check(real_path(prefix), time.time(), list(specs), result, left))


def remembered() -> Iterator[Check]:
    """Yield what is remembered of every environment; of one that is no more it is removed."""
    for path, check in _all(state_directory()):
        if _is_there(check):
            yield check
        else:
            shutil.rmtree(path, ignore_errors=True)


def seen(state: Path) -> list[Check]:
    """Return the same of a state directory, and change nothing."""
    return [check for _, check in _all(state) if _is_there(check)]


def _all(state: Path) -> Iterator[tuple[str, Check]]:
    try:
        with os.scandir(state / "envs") as entries:
            paths = [entry.path for entry in entries]
    except FileNotFoundError:
        return
    for path in paths:
        try:
            with open(f"{path}/{_FILE}", "rb") as stream:
                check = msgspec.json.decode(stream.read(), type=Check)
        except (OSError, msgspec.DecodeError, UnicodeDecodeError):
            continue
        yield path, check


def _is_there(check: Check) -> bool:
    from .trees import is_environment, is_virtual_environment

    return is_environment(check.prefix) or is_virtual_environment(check.prefix)
