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
    return declared.subcommand()


@hookimpl
@declared.safely
def conda_pre_commands():  # type: ignore[no-untyped-def]
    """Note when a command began."""
    return declared.pre_command()


@hookimpl
@declared.safely
def conda_post_solves():  # type: ignore[no-untyped-def]
    """Tell which environment is like the one to be made."""
    return declared.post_solve()


@hookimpl(optionalhook=True)  # conda >= 25.5
@declared.safely
def conda_post_transaction_actions():  # type: ignore[no-untyped-def]
    """Record what was linked where."""
    return declared.post_transaction_action()


@hookimpl
@declared.safely
def conda_post_commands():  # type: ignore[no-untyped-def]
    """Share what the command brought."""
    return declared.post_command()


@hookimpl
@declared.safely
def conda_health_checks():  # type: ignore[no-untyped-def]
    """Tell ``conda doctor`` what is damaged or left over."""
    return declared.health_check()


@hookimpl
def conda_settings():  # type: ignore[no-untyped-def]
    """The settings under ``plugins:``."""
    return declared.conda_settings()
