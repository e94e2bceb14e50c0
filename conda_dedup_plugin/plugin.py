"""conda's hooks, and nothing else: this module is imported by every conda command.

All that is heavier than a function definition is imported where it runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from conda.plugins import hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

#: The commands that may change an environment, by the names conda gives them.
COMMANDS = {"create", "install", "update", "remove", "rename", "env_create", "env_remove", "env_update"}


@hookimpl
def conda_subcommands() -> Iterator[Any]:
    """``conda dedup``; without a parser of its own, conda hands over the words as they are."""
    from conda.plugins.types import CondaSubcommand

    yield CondaSubcommand("dedup", "Find and share what conda environments hold twice.", _dedup)


@hookimpl
def conda_settings() -> Iterator[Any]:
    """The settings under ``plugins:``."""
    from .declared import conda_settings

    yield from conda_settings()


@hookimpl
def conda_pre_commands() -> Iterator[Any]:
    """Note when a command began."""
    from conda.plugins.types import CondaPreCommand

    yield CondaPreCommand("dedup", lambda command: _hooks().before(command), COMMANDS)


@hookimpl(optionalhook=True)  # conda >= 25.5
def conda_post_transaction_actions() -> Iterator[Any]:
    """Record what was linked where."""
    from conda.plugins.types import CondaPostTransactionAction

    from .transaction import RecordTransaction

    yield CondaPostTransactionAction("dedup", RecordTransaction)


@hookimpl
def conda_post_commands() -> Iterator[Any]:
    """Share what the command brought."""
    from conda.plugins.types import CondaPostCommand

    yield CondaPostCommand("dedup", lambda command: _hooks().after(command), COMMANDS)


def _hooks() -> Any:
    from . import hooks

    return hooks


def _dedup(words: tuple[str, ...]) -> int:
    from conda.base.context import context

    from .cli import main

    return main(words, prog="conda dedup", as_json=bool(context.json))
