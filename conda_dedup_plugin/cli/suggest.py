"""``suggest``: a common baseline for near-identical environments."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from ..errors import UsageError

if TYPE_CHECKING:
    import argparse

NAME = "suggest"
HELP = "Suggest a common baseline for environments that are nearly the same; nothing is changed."
EXAMPLES = """\
examples:
  {prog} suggest
  {prog} suggest -n bert -n nlp --write baselines
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of this verb."""
    from ..kinds import NEAR_IDENTICAL
    from .parser import add_scope_options

    add_scope_options(parser)
    parser.add_argument("--threshold", type=float, default=NEAR_IDENTICAL, metavar="SHARE",
                        help="how similar near-identical environments are at least, from 0 to 1 "
                        f"(default: {NEAR_IDENTICAL})")  # fmt: skip
    parser.add_argument("--write", metavar="DIR",
                        help="write baseline.yml and a file for each environment there, and tell the "
                        "commands that make environments of them")  # fmt: skip
    parser.add_argument("--no-builds", action="store_false", dest="builds",
                        help="leave builds out of the files, for other platforms")  # fmt: skip


def execute(options: argparse.Namespace) -> int:
    """Print what is suggested, and write it if asked to."""
    from ..baseline import write_baselines
    from ..report import json, text
    from ..report import suggest as report
    from ..settings import load
    from ..suggest import suggest
    from .bars import progress_for
    from .common import scope_of

    if not 0 < options.threshold <= 1:
        raise UsageError("--threshold must be more than 0 and at most 1.", "Try 0.9, the default.")
    if not options.builds and not options.write:
        raise UsageError("--no-builds is about the files that --write writes.", "Add --write DIR.")
    settings = load()
    scope = scope_of(options)
    found = suggest(scope, options.threshold, settings, progress_for(options.json))
    names = {tree.name for tree in scope.trees if not tree.is_cache}
    written = write_baselines(found.found, options.write, options.builds, names) if options.write else []
    warnings = [*settings.warnings, *found.warnings]
    if options.json:
        document = report.document(found, options.threshold, written)
        sys.stdout.write(json.dump({**document, "warnings": warnings}) + "\n")
        return 0
    report.print_suggestions(found, options.threshold, written, options.prog, text.console())
    text.print_notes(warnings, text.console(stderr=True))
    return 0
