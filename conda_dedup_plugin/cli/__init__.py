"""The command line: ``conda-dedup …`` and ``conda dedup …`` say the same words and run the same code."""

from __future__ import annotations

import io
import os
import sys
from typing import TYPE_CHECKING

from ..errors import DedupError
from ..tone import set_tone

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

INTERRUPTED = 130


def main(
    arguments: Sequence[str] | None = None,
    prog: str = "conda-dedup",
    as_json: bool = False,
    adapt: Callable[[Sequence[str], argparse.Namespace], Sequence[str]] | None = None,
) -> int:
    """Run a command line and return its exit code: 0 done (skips included), 1 failed, 2 usage.

    ``as_json``: JSON was asked for before our part of the command line began. ``adapt`` may give other
    words for those that came, and what they mean.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    as_json = as_json or _asks_json(words)
    _prepare_output()
    try:
        try:
            code = _run(words, prog, as_json, adapt)
        except DedupError as exc:
            _tell(exc, prog, as_json)
            code = exc.exit_code
        except KeyboardInterrupt:
            interrupted = "Interrupted; what was shared until then is complete."
            _tell(DedupError(interrupted, "The same command does the rest."), prog, as_json)
            code = INTERRUPTED
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        _abandon_output()  # whoever read it has seen enough
        return 0
    except OSError as exc:
        if exc.filename is not None:
            raise
        _abandon_output()
        unwritten = f"The output cannot be written: {exc.strerror}."
        _tell(DedupError(unwritten, "Make room for it, or have it written elsewhere."), prog, False)
        return 1


def _run(
    words: list[str],
    prog: str,
    as_json: bool,
    adapt: Callable[[Sequence[str], argparse.Namespace], Sequence[str]] | None,
) -> int:
    from .parser import build_parser

    try:
        parser = build_parser(prog)
        options = parser.parse_args(words)
        if adapt is not None:
            options = parser.parse_args(adapt(words, options))
    except SystemExit as exc:  # --help and --version
        return int(exc.code or 0)
    options.json = as_json
    options.prog = prog
    set_tone(quiet=options.quiet, exact=bool(options.verbose))
    return int(options.execute(options))


def _prepare_output() -> None:
    """Have streams to write to, and on which every name can be written somehow."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # started with it closed
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _abandon_output() -> None:
    """Let nothing that is still to be written to stdout fail at the end of the process."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)


def _asks_json(words: Sequence[str]) -> bool:
    own = words[: words.index("--")] if "--" in words else words
    return "--json" in own


def _tell(error: DedupError, prog: str, as_json: bool) -> None:
    from ..report import json, text

    if as_json:
        sys.stdout.write(json.dump(json.error_document(error)) + "\n")
        return
    err = text.console(stderr=True)
    text.print_notes([str(error)], err, f"{prog}: error")
    if error.next_step:
        text.print_notes([error.next_step], err, "  hint")
