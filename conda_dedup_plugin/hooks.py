"""What the hooks do: record the transaction, share after the command. Nothing here ever raises.

No conda command may end in another way because of us: not by an error of ours, not by Ctrl-C during
our part, and nothing is ever printed on stdout.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from .settings import Settings

log = logging.getLogger(__name__)

#: The commands that may change an environment, by the names conda gives them.
COMMANDS = {"create", "install", "update", "remove", "rename", "env_create", "env_remove", "env_update"}
#: Those of them that make an environment.
_MAKING = {"create", "env_create"}
#: The command of this process that is still to be advised on; empty: none.
_advised_on = ""
#: When the command of this process began, in seconds since the epoch.
_began = 0.0
#: The transactions of this process: what was linked, as (name, version, build), by prefix.
_transactions: dict[str, set[tuple[str, str, str]]] = {}


def subcommand(words: Sequence[str]) -> int:
    """Run ``conda dedup WORDS`` and return its exit code."""
    from conda.base.context import context

    from .cli import main

    return main(words, prog="conda dedup", as_json=bool(context.json))


def check_health(prefix: str, verbose: bool) -> None:
    """Do our part of ``conda doctor``; conda itself tells of an error."""
    from .health import check

    check(prefix, verbose)


def fix_health(prefix: str, options: Any, confirm: Callable[[str], object]) -> int:
    """Do our part of ``conda doctor --fix``."""
    from .health import fix

    return fix(prefix, options, confirm)


def before(command: str) -> None:
    """Note when which command began: all that an old conda tells about what it changes."""
    global _began, _advised_on
    _began = time.time()
    _advised_on = command if command in _MAKING else ""
    _transactions.clear()


def solved(repodata: str, unlinked: Iterable[Any] | None, linked: Iterable[Any] | None) -> None:
    """Tell before the prompt which environment is like the one that is to be made."""
    global _advised_on
    command, _advised_on = _advised_on, ""  # once: what is solved later is installed into it
    try:
        records = list(linked or ())
        if command and records and not list(unlinked or ()):
            from .advising import advice_on

            line = advice_on(command, records)
            if line is not None:
                _say(line)
    except KeyboardInterrupt:
        raise  # the user's word to conda, which has changed nothing yet
    except BaseException:
        log.debug("no advice", exc_info=True)


def transaction(prefix: str | None, linked: Iterable[Any] | None, unlinked: Iterable[Any] | None) -> None:
    """Record a transaction, in this process and, should that die, in the environment's state."""

    def record() -> None:
        from conda.base.context import context

        from .settings import load

        if not prefix or context.dry_run or context.download_only or not load().auto:
            return
        dists = {(record.name, record.version, record.build) for record in linked or ()}
        _transactions.setdefault(prefix, set()).update(dists)
        from .pending import note

        stems = ("-".join(dist) for dist in _transactions[prefix])
        note(prefix, stems, copies=bool(context.always_copy))

    _harmless(record)


def transaction_reversed(prefix: str | None) -> None:
    """Forget a transaction that conda takes back."""

    def forget() -> None:
        from .pending import clear

        if prefix and _transactions.pop(prefix, None) is not None:
            clear(prefix)

    _harmless(forget)


def after(command: str) -> None:
    """Share what the command brought; at most a few lines on stderr."""
    try:
        _after(command)
    except KeyboardInterrupt:
        _say("interrupted; what was shared until then is complete")
    except BaseException as exc:
        log.debug("the automatic run failed", exc_info=True)
        _say(f"nothing more was shared ({type(exc).__name__}: {exc}); conda itself is done")


def _after(command: str) -> None:
    from conda.base.context import context

    if context.dry_run or context.download_only:
        return
    from .settings import load, sharing_is_automatic

    if not sharing_is_automatic():
        return
    settings = load()
    for warning in settings.warnings:
        _say(warning)
    if settings.auto or settings.snapshot_dir:
        _work(command, settings)
    if settings.notify_bytes:
        _harmless(lambda: _notify(settings))


def _work(command: str, settings: Settings) -> None:
    """Share what a command brought, and write snapshots."""
    from conda.base.context import context

    from .changes import Command, may_have_changed

    run = Command(
        name=command,
        began=_began,
        transactions=dict(_transactions),
        target=str(context.target_prefix or ""),
        words=" ".join(sys.argv),
        copies=bool(context.always_copy),
    )
    if not may_have_changed(run):
        return
    from .collection import no_collection

    with no_collection():  # what conda made would be looked through again and again
        from .automatic import lines, share_changed, snapshot_changed

        told = lines(settings, share_changed(settings, run), "conda dedup")
        for line in told if settings.auto else snapshot_changed(settings, run):
            _say(line)


def _notify(settings: Settings) -> None:
    """Tell of an environment that could free much, if somebody reads it."""
    from conda.base.context import context

    if context.json or context.quiet or sys.stderr is None or not sys.stderr.isatty():
        return
    from .notices import notice

    line = notice(settings.notify_bytes, settings.notify_days, "conda dedup")
    if line is not None:
        _say(line)


def _say(line: str) -> None:
    """Tell the user of conda a line, if that is wanted."""

    def say() -> None:
        from conda.base.context import context

        if not (context.json or context.quiet):
            say_on_stderr(line)

    _harmless(say)


def say_on_stderr(line: str) -> None:
    """Print one line on stderr, if there is one; OSError: it cannot be written to."""
    if sys.stderr is None:
        return
    text = f"dedup: {''.join(c if c.isprintable() else '?' for c in line)}\n"
    sys.stderr.flush()
    try:
        descriptor = sys.stderr.fileno()
    except (AttributeError, OSError, ValueError):
        sys.stderr.write(text)
        return
    # past the buffer: what is left in it when stderr cannot be written to would end conda with 120
    os.write(descriptor, text.encode("utf-8", "backslashreplace"))


def _harmless(action: Callable[[], None]) -> None:
    """Do it, whatever comes of it: inside conda's transaction even Ctrl-C would undo the user's work."""
    try:
        action()
    except BaseException:
        log.debug("an action of conda-dedup-plugin failed", exc_info=True)
