"""What is remembered of each environment: pending work, and the last check with its explicit specs."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import msgspec

from .state import environment_directory, is_running, process_identity, state_directory, write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class Pending(msgspec.Struct):
    """Work that a process has announced: what it linked, as name-version-build."""

    process: str
    noted: float
    linked: list[str] = []


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
        return msgspec.json.decode(content, type=Check)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return Check(prefix)


def _write(check: Check) -> None:
    path = environment_directory(check.prefix) / _FILE
    write_atomically(path, msgspec.json.encode(check))


def note(prefix: str, linked: Sequence[str]) -> None:
    """Announce work on an environment."""
    prefix = os.path.realpath(prefix)
    check = read(prefix)
    check.pending = Pending(process_identity(os.getpid()), time.time(), list(linked))
    _write(check)


def clear(prefix: str) -> None:
    """Take back what was announced."""
    prefix = os.path.realpath(prefix)
    check = read(prefix)
    check.pending = None
    _write(check)


def done(prefix: str, specs: Sequence[str], result: Result) -> None:
    """Remember a check of an environment; its pending work is done."""
    _write(Check(os.path.realpath(prefix), time.time(), list(specs), result))


def left_behind() -> Iterator[tuple[str, Pending]]:
    """Yield the environments whose announced work nobody did: its process is gone.

    What is remembered of an environment that is no more is forgotten.
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
        if check.pending is None or is_running(check.pending.process):
            continue
        if os.path.isdir(f"{check.prefix}/conda-meta"):
            yield check.prefix, check.pending
        else:
            clear(check.prefix)
