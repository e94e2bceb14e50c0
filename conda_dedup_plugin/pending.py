"""What is remembered of each environment: pending work, and the last check with its explicit specs."""

from __future__ import annotations

import os
import shutil
import time
from typing import TYPE_CHECKING

import msgspec

from .state import environment_directory, is_running, process_identity, state_directory, write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence


class Pending(msgspec.Struct):
    """Work that a process has announced: what it linked, as name-version-build.

    ``copies``: the user asked for independent files.
    """

    process: str
    noted: float
    linked: list[str] = []
    copies: bool = False


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


def note(prefix: str, linked: Iterable[str], copies: bool = False, since: float | None = None) -> None:
    """Announce work on an environment: what came there since a time, by default now.

    What a dead process had announced there is taken over.
    """
    prefix = os.path.realpath(prefix)
    check = read(prefix)
    own = process_identity(os.getpid())
    announced = Pending(own, time.time() if since is None else since, sorted(linked), copies)
    before = check.pending
    if before is not None and (before.process == own or not is_running(before.process)):
        announced.noted = min(announced.noted, before.noted)
        announced.linked = sorted({*announced.linked, *before.linked})
        announced.copies |= before.copies
    check.pending = announced
    _write(check)


def clear(prefix: str) -> None:
    """Take back what was announced."""
    prefix = os.path.realpath(prefix)
    check = read(prefix)
    check.pending = None
    _write(check)


def is_somebody_elses(prefix: str, since: float) -> bool:
    """Whether another run is at work on an environment, or has seen to it since that time."""
    check = read(os.path.realpath(prefix))
    if check.pending is not None and check.pending.process != process_identity(os.getpid()):
        return is_running(check.pending.process)
    return check.checked is not None and check.checked >= since


def done(prefix: str, specs: Sequence[str], result: Result) -> None:
    """Remember a check of an environment; its pending work is done."""
    _write(Check(os.path.realpath(prefix), time.time(), list(specs), result))


def left_behind() -> Iterator[tuple[str, Pending]]:
    """Yield the environments whose announced work nobody did: its process is gone.

    What is remembered of an environment that is no more is removed.
    """
    directory = state_directory() / "envs"
    try:
        with os.scandir(directory) as entries:
            paths = [entry.path for entry in entries]
    except FileNotFoundError:
        return
    for path in paths:
        try:
            with open(f"{path}/{_FILE}", "rb") as stream:
                check = msgspec.json.decode(stream.read(), type=Check)
        except (OSError, msgspec.DecodeError, UnicodeDecodeError):
            continue
        if not os.path.isdir(f"{check.prefix}/conda-meta"):
            shutil.rmtree(path, ignore_errors=True)
        elif check.pending is not None and not is_running(check.pending.process):
            yield check.prefix, check.pending
