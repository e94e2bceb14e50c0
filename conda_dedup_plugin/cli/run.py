"""``run``: any command, and what it changed is shared: for tools that have no plugins."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from itertools import chain
from typing import TYPE_CHECKING, Any, NoReturn

from ..errors import DedupError, UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator
    from types import FrameType

    from ..model import Scope

NAME = "run"
HELP = "Run any command, then share what it changed; output and exit code are the command's own."
EXAMPLES = """\
examples:
  {prog} run -- pixi install
  {prog} run -p .venv -- uv pip install numpy

Nothing is printed on stdout besides what the command prints, and so there is
no --json. What was shared is told on stderr, with -q not at all. Ctrl-C goes
to the command.
"""


class _NotStartedError(DedupError):
    """The command was not started; the exit code is a shell's."""

    def __init__(self, message: str, hint: str, exit_code: int) -> None:
        super().__init__(message, hint)
        self.exit_code = exit_code


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of this verb."""
    from argparse import REMAINDER

    from .parser import add_scope_options

    add_scope_options(parser)
    parser.add_argument("dedup_command", nargs=REMAINDER, metavar="-- COMMAND ...",
                        help="the command and its words")  # fmt: skip


def execute(options: argparse.Namespace) -> int:
    """Run the command, share, and return the command's exit code, whatever came of the sharing."""
    from .common import is_named

    command = list(options.dedup_command)
    if command[:1] == ["--"]:
        del command[0]
    if options.json:
        raise UsageError(
            "'run' prints what the command prints, and no JSON of its own.",
            f"Put -- before the command: {options.prog} run -- COMMAND --json",
        )
    if not command:
        raise UsageError("No command was given.", f"Try: {options.prog} run -- pixi install")
    if not (options.dedup_discover or is_named(options)):
        raise UsageError(
            "Nothing was named, and nothing is to be discovered.", "Name an environment with --prefix."
        )
    began = time.time()
    code = _run(command)
    with _one_interrupt():
        try:
            _share(options, command, began)
        except KeyboardInterrupt:
            _say("interrupted; what was shared until then is complete")
        except BaseException as exc:
            what = str(exc) if isinstance(exc, DedupError) else f"{type(exc).__name__}: {exc}"
            _say(f"nothing more was shared ({what}); the command itself is done")
    return code


def _share(options: argparse.Namespace, command: list[str], began: float) -> None:
    from ..automatic import lines, share_touched
    from ..settings import always_copy, load

    settings = load()
    # of the command's words, which may hold secrets, the journal has the first alone
    label = f"{options.prog} run -- {os.path.basename(command[0])}"  # noqa: PTH119
    scope = _scope(options)
    results = share_touched(settings, scope, began, label, copies=always_copy())
    for line in chain(settings.warnings, lines(settings, results, options.prog)):
        if not options.quiet:
            _say(line)


def _scope(options: argparse.Namespace) -> Scope:
    """What is there now, for the command may have made it."""
    from ..automatic import everything
    from .common import is_named, scope_of

    if is_named(options):
        return scope_of(options)
    return everything(filter(None, [os.environ.get("VIRTUAL_ENV")]))


def _say(line: str) -> None:
    from ..hooks import say_on_stderr

    with contextlib.suppress(Exception):
        say_on_stderr(line)


def _run(command: list[str]) -> int:
    """Run a command with our streams and return its exit code, as a shell has it."""
    process: subprocess.Popen[bytes] | None = None
    early: list[int] = []

    def pass_on(number: int, _: FrameType | None) -> None:
        if process is None:
            early.append(number)
        else:
            process.send_signal(number)

    # what a terminal sends goes to the command as well; who means us by a number means the command
    with _handled(SIGINT=_nothing, SIGQUIT=_nothing, SIGTERM=pass_on, SIGHUP=pass_on):
        try:
            process = subprocess.Popen(command, close_fds=False)
        except OSError as exc:
            _refuse(command[0], exc)
        for number in early:
            process.send_signal(number)
        code = process.wait()
    return code if code >= 0 else 128 - code


def _refuse(name: str, error: OSError) -> NoReturn:
    if isinstance(error, FileNotFoundError):
        raise _NotStartedError(
            f"The command {name!r} was not found.", "Check its name, and PATH.", 127
        ) from error
    raise _NotStartedError(
        f"The command {name!r} cannot be executed ({error.strerror}).",
        "Make it executable, or name what runs it: bash, python.",
        126,
    ) from error


def _nothing(*_: object) -> None:
    """Take a signal without doing anything about it; in contrast to SIG_IGN no child inherits that."""


@contextlib.contextmanager
def _one_interrupt() -> Iterator[None]:
    """Let one Ctrl-C end what is done inside; a further one is too late."""

    def interrupt(*_: object) -> NoReturn:
        signal.signal(signal.SIGINT, _nothing)
        raise KeyboardInterrupt

    with _handled(SIGINT=interrupt):
        yield


@contextlib.contextmanager
def _handled(**handlers: Any) -> Iterator[None]:
    """Have signals handled, those that there are here and that nobody had us ignore."""
    before = {}
    for name, handler in handlers.items():
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) not in (signal.SIG_IGN, None):
            before[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
