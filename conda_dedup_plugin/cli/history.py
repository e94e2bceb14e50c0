"""``history``: what was done when."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

NAME = "history"
HELP = "Show what was shared when, and what of it can still be undone."
EXAMPLES = """\
examples:
  {prog} history
  {prog} history --json
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add nothing: a history has no options."""


def execute(options: argparse.Namespace) -> int:
    """Print every run that the journal knows of, the newest first."""
    from ..history import runs
    from ..journal import Journal
    from ..report import json, text, upkeep

    journal = Journal.open()
    try:
        found = runs(journal)
    finally:
        journal.close()
    if options.json:
        sys.stdout.write(json.dump(json.history_document(found)) + "\n")
    else:
        upkeep.print_history(found, text.console())
    return 0
