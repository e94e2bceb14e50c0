"""conda's hooks, and nothing else: this module is imported by every conda command.

All that is heavier than a function definition is imported where it runs, and an error while
registering costs conda our part, never its command.
"""

from conda.plugins import hookimpl

from . import declared


@hookimpl
@declared.safely
def conda_subcommands():  # type: ignore[no-untyped-def]
    """``conda dedup``; without a parser of its own, conda hands over the words as they are."""
    from conda.plugins.types import CondaSubcommand

    from . import hooks

    summary = "Find and share what conda environments hold twice."
    return CondaSubcommand(name="dedup", summary=summary, action=hooks.subcommand)


@hookimpl
@declared.safely
def conda_pre_commands():  # type: ignore[no-untyped-def]
    """Note when a command began."""
    from conda.plugins.types import CondaPreCommand

    from . import hooks

    return CondaPreCommand(name="dedup", action=hooks.before, run_for=hooks.COMMANDS)


@hookimpl(optionalhook=True)  # conda >= 25.5
@declared.safely
def conda_post_transaction_actions():  # type: ignore[no-untyped-def]
    """Record what was linked where."""
    from conda.plugins.types import CondaPostTransactionAction

    from .transaction import RecordTransaction

    return CondaPostTransactionAction(name="dedup", action=RecordTransaction)


@hookimpl
@declared.safely
def conda_post_commands():  # type: ignore[no-untyped-def]
    """Share what the command brought."""
    from conda.plugins.types import CondaPostCommand

    from . import hooks

    return CondaPostCommand(name="dedup", action=hooks.after, run_for=hooks.COMMANDS)


@hookimpl
def conda_settings():  # type: ignore[no-untyped-def]
    """The settings under ``plugins:``."""
    return declared.conda_settings()
