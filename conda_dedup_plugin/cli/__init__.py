"""The command line: ``conda-dedup …`` and ``conda dedup …`` say the same words and run the same code."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from ..errors import DedupError

if TYPE_CHECKING:
    from collections.abc import Sequence

INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None, prog: str = "conda-dedup", as_json: bool = False) -> int:
    """Run a command line and return its exit code: 0 done (skips included), 1 failed, 2 usage.

    ``as_json``: JSON was asked for before our part of the command line began.
    """
    from .parser import build_parser

    words = list(sys.argv[1:] if arguments is None else arguments)
    as_json = as_json or _asks_json(words)
    try:
        options = build_parser(prog).parse_args(words)
        options.json = as_json
        options.prog = prog
        if sys.platform != "linux":
            raise DedupError("This version works on Linux only.", "Nothing was looked at or changed.")
        return int(options.execute(options))
    except DedupError as exc:
        _tell(exc, prog, as_json)
        return exc.exit_code
    except KeyboardInterrupt:
        _tell(DedupError("Interrupted; what was shared until then is complete."), prog, as_json)
        return INTERRUPTED
    except BrokenPipeError:
        # whoever read our output has seen enough
        sys.stdout = None
        return 0


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
    if error.hint:
        text.print_notes([error.hint], err, "  hint")
