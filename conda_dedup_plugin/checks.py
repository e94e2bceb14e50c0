"""What is remembered of an environment, as its file ``check.json`` has it."""

from __future__ import annotations

import os

import msgspec

from .state import is_running, process_identity


class Changes(msgspec.Struct):
    """What differs between two lists of specs; ``changed`` has pairs of the old and the new spec."""

    added: list[str] = []
    removed: list[str] = []
    changed: list[tuple[str, str]] = []


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


class Freeable(msgspec.Struct):
    """What a bare ``apply`` of the environment alone would free, and when that was found out.

    ``words``: how a command line names the environment, ``-n x``.
    """

    bytes: int
    seen: float
    name: str
    words: list[str]


class Remembered(msgspec.Struct):
    """What every command wants to know of an environment; ``checked`` is in seconds since the epoch."""

    prefix: str
    checked: float | None = None
    pending: Pending | None = None
    freeable: Freeable | None = None

    @property
    def is_seen(self) -> bool:
        """Whether an automatic run was there, or is to come."""
        return self.checked is not None or self.pending is not None


class Check(Remembered):
    """``check.json``. ``specs`` are explicit specs, at the check; an older version wrote name-version-build.

    ``before``: those before the last transaction, at ``transaction`` (seconds since the epoch), and
    ``changes`` what differs.
    """

    specs: list[str] = []
    result: Result | None = None
    before: list[str] | None = None
    changes: Changes | None = None
    transaction: float | None = None
