"""What is told to users when something cannot be done: one sentence, and a next step."""

from __future__ import annotations


class DedupError(Exception):
    """The base of every error that reaches a user.

    ``str(error)`` is one sentence saying what is wrong, ``hint`` says what to do about it,
    ``exit_code`` is what the command ends with.
    """

    exit_code = 1
    #: The next step where nothing better is known.
    usual_hint = ""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint

    @property
    def next_step(self) -> str:
        """What to do about it."""
        return self.hint or self.usual_hint


class UsageError(DedupError):
    """The command line, or a setting, asks for something that does not exist."""

    exit_code = 2


class StateError(DedupError):
    """The state directory or the journal cannot be used."""

    usual_hint = "Make it usable for you (README: State), or have XDG_STATE_HOME name another directory."
