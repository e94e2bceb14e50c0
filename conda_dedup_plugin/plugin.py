"""conda's hooks, and nothing else: this module is imported by every conda command.

All that is heavier than a function definition is imported where it runs.
"""

from conda.plugins import hookimpl

#: The commands that may change an environment, by the names conda gives them.
COMMANDS = {"create", "install", "update", "remove", "rename", "env_create", "env_remove", "env_update"}


@hookimpl
def conda_subcommands():  # type: ignore[no-untyped-def]
    """``conda dedup``; without a parser of its own, conda hands over the words as they are."""
    from conda.plugins.types import CondaSubcommand

    yield CondaSubcommand("dedup", "Find and share what conda environments hold twice.", _dedup)


@hookimpl
def conda_settings():  # type: ignore[no-untyped-def]
    """The settings under ``plugins:``."""
    from .declared import conda_settings

    yield from conda_settings()


@hookimpl
def conda_pre_commands():  # type: ignore[no-untyped-def]
    """Note when a command began."""
    from conda.plugins.types import CondaPreCommand

    from . import hooks

    yield CondaPreCommand("dedup", hooks.before, COMMANDS)


@hookimpl(optionalhook=True)  # conda >= 25.5
def conda_post_transaction_actions():  # type: ignore[no-untyped-def]
    """Record what was linked where."""
    from .transaction import action

    yield from action()


@hookimpl
def conda_post_commands():  # type: ignore[no-untyped-def]
    """Share what the command brought."""
    from conda.plugins.types import CondaPostCommand

    from . import hooks

    yield CondaPostCommand("dedup", hooks.after, COMMANDS)


def _dedup(words: "tuple[str, ...]") -> int:
    from .hooks import subcommand

    return subcommand(words)
