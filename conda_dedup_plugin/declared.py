"""What is declared to conda on every one of its commands, the settings above all: cheap to import."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from conda.plugins.types import (
        CondaHealthCheck,
        CondaPostCommand,
        CondaPostSolve,
        CondaPostTransactionAction,
        CondaPreCommand,
        CondaSetting,
        CondaSubcommand,
    )

_NAME = "dedup"
AUTO = "dedup_auto"
METHOD = "dedup_method"
MIN_SIZE = "dedup_min_size"
GOAL = "dedup_goal"
HARDLINK_UNTRACKED = "dedup_hardlink_untracked"
NORMALIZE_BYTECODE = "dedup_normalize_bytecode"
AUTO_BUDGET = "dedup_auto_budget"
NOTIFY_BYTES = "dedup_notify_bytes"
NOTIFY_DAYS = "dedup_notify_days"
SNAPSHOT_DIR = "dedup_snapshot_dir"
ADVISE = "dedup_advise"


def safely(hook: Callable[[], Any]) -> Callable[[], list[Any]]:
    """Register what ``hook`` returns, or nothing if it fails: conda goes on without our part."""

    @functools.wraps(hook)
    def registered() -> list[Any]:
        try:
            return [hook()]
        except Exception:
            import logging

            logging.getLogger(__name__).warning("conda-dedup-plugin cannot register %s", hook.__name__)
            return []

    return registered


def subcommand() -> CondaSubcommand:
    """``conda dedup``."""
    from conda.plugins.types import CondaSubcommand

    from . import hooks

    summary = "Find and share what conda environments hold twice."
    return CondaSubcommand(name=_NAME, summary=summary, action=hooks.subcommand)


def pre_command() -> CondaPreCommand:
    """What is done before every command that may change an environment."""
    from conda.plugins.types import CondaPreCommand

    from . import hooks

    return CondaPreCommand(name=_NAME, action=hooks.before, run_for=hooks.COMMANDS)


def post_solve() -> CondaPostSolve:
    """What is done when it is known what will be installed."""
    from conda.plugins.types import CondaPostSolve

    from . import hooks

    return CondaPostSolve(name=_NAME, action=hooks.solved)


def post_transaction_action() -> CondaPostTransactionAction:
    """What is done in a transaction."""
    from conda.plugins.types import CondaPostTransactionAction

    from .transaction import RecordTransaction

    return CondaPostTransactionAction(name=_NAME, action=RecordTransaction)


def post_command() -> CondaPostCommand:
    """What is done after every command that may change an environment."""
    from conda.plugins.types import CondaPostCommand

    from . import hooks

    def after(command: str) -> None:
        """Do it, unless this very command removed or replaced us: what is left to import is not ours."""
        if _identity() == _IDENTITY:
            hooks.after(command)

    return CondaPostCommand(name=_NAME, action=after, run_for=hooks.COMMANDS)


def _identity() -> tuple[int, int, int] | None:
    """What tells this file from another one at its path; None: there is none."""
    try:
        found = os.stat(__file__)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns


#: As it was imported; conda asks for hooks when their time has come.
_IDENTITY = _identity()


def health_check() -> CondaHealthCheck:
    """What ``conda doctor`` checks, and fixes where conda can ask for that (from 26.1 on)."""
    from conda.plugins.types import CondaHealthCheck

    from . import hooks

    name = "shared-files"
    if "fixer" not in CondaHealthCheck.__annotations__:
        return CondaHealthCheck(name=name, action=hooks.check_health)
    return CondaHealthCheck(
        name=name,
        action=hooks.check_health,
        fixer=hooks.fix_health,
        summary="Verify the files that environments share",
        fix="Bring back damaged files, clean up after interrupted runs",
    )


def conda_settings() -> Iterator[CondaSetting]:
    """Yield the settings for conda's hook ``conda_settings``.

    Declared such that no value makes conda itself fail: a typed parameter with a bad value ends
    ``conda config --show`` and ``--show-sources`` with an error (24.7 to 26.7), and a list or a mapping does
    so even for one of type str. So everything is text for conda, and ``settings.load`` reads it.
    """
    from conda.common import configuration
    from conda.plugins.types import CondaSetting

    # The name matters: ``conda config --set`` tells a parameter's kind by the name of its class.
    class PrimitiveParameter(configuration.PrimitiveParameter):  # type: ignore[misc]
        """A primitive parameter that puts text in the place of a list or a mapping."""

        def load(self, name: str, match: Any) -> Any:
            loaded = super().load(name, match)
            if not isinstance(loaded.value, (str, int, float, type(None))):
                loaded.value = "<a mapping>" if isinstance(loaded.value, Mapping) else "<a list>"
            return loaded

    for name, default, description in (
        (AUTO, "true", "Share duplicates after each command that changes an environment: true or false."),
        (METHOD, "auto", "How conda-dedup shares files: auto, reflink or hardlink."),
        (MIN_SIZE, "4096", "The size in bytes below which conda-dedup leaves files alone."),
        (GOAL, "bytes", "What conda-dedup is to save: bytes or inodes."),
        (HARDLINK_UNTRACKED, "false", "Hard-link text and data that pip or you installed: true or false."),
        (
            NORMALIZE_BYTECODE,
            "false",
            "Share the bytecode of equal sources of pip's: true or false.",
        ),
        (AUTO_BUDGET, "5", "How many seconds conda-dedup may take after a conda command."),
        (NOTIFY_BYTES, "1000000000", "Tell of an environment that could free more bytes; 0: never."),
        (NOTIFY_DAYS, "7", "For how many days conda-dedup does not tell of the same environment again."),
        (SNAPSHOT_DIR, "", "Where snapshots are written after each transaction; empty: nowhere."),
        (ADVISE, "true", "Tell which environment is nearly the one to be made: true or false."),
    ):
        parameter = PrimitiveParameter(default, element_type=str)
        yield CondaSetting(name=name, description=description, parameter=parameter)
