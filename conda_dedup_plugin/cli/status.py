"""``status``: how it shares on each device and why, what was done last, what is still to do."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

NAME = "status"
HELP = "Show how files are shared on each device and why, what was done last, and what is still to do."
EXAMPLES = """\
examples:
  {prog} status
  {prog} status -n bert --json
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of this verb."""
    from .parser import add_scope_options

    add_scope_options(parser)


def execute(options: argparse.Namespace) -> int:
    """Print the status; nothing is changed."""
    from ..plan import PlanOptions
    from ..report import json, text
    from ..report.status import print_status
    from ..report.status_json import status_document
    from ..settings import always_copy, load, origins
    from ..sharing.system import user
    from ..status import status_of
    from .common import is_named, scope_of

    settings = load()
    scope = scope_of(options)
    plan = PlanOptions(method=settings.method, euid=user(), goal=settings.goal, reflink_only=always_copy())
    only = {tree.root for tree in scope.trees if tree.selected} if is_named(options) else None
    status = status_of(scope, plan, settings, origins(), only)
    if options.json:
        sys.stdout.write(json.dump(status_document(status, options.prog)) + "\n")
        return 0
    print_status(status, options.prog, text.console())
    text.print_notes(status.warnings, text.console(stderr=True))
    return 0
