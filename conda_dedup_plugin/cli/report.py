"""``report``: what is held, what is held twice, what could be freed."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

NAME = "report"
HELP = "Show what environments and package caches hold, what they hold twice and what could be freed."
EXAMPLES = """\
examples:
  {prog} report --deep
  {prog} report --no-discover --search ~/projects --json
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of this verb."""
    from .parser import add_plan_options, add_scope_options

    add_scope_options(parser)
    add_plan_options(parser, deep=False)


def execute(options: argparse.Namespace) -> int:
    """Print the report."""
    from ..report import json, text
    from .common import analysis_of

    analysis, notes = analysis_of(options)
    if options.json:
        document = json.report_document(analysis)
        document["warnings"] = [*notes, *document["warnings"]]
        sys.stdout.write(json.dump(document) + "\n")
        return 0
    text.print_report(analysis, text.console())
    text.print_notes([*notes, *analysis.warnings], text.console(stderr=True))
    return 0
