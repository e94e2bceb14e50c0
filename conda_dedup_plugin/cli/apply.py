"""``apply``: share what is held twice."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

    from ..apply import Applied
    from ..engine import Analysis

NAME = "apply"
HELP = "Share what is held twice, after asking."
EXAMPLES = """\
examples:
  {prog} apply --dry-run
  {prog} apply --yes -n bert -n nlp
"""

_CONSEQUENCE = (
    "with --include-cache 'conda clean --packages' keeps cached packages that no environment uses any more, "
    "when they share files with others; '{prog}' tells and removes them with: clean"
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of this verb."""
    from .parser import add_consent_options, add_plan_options, add_scope_options

    add_scope_options(parser)
    add_plan_options(parser, deep=True)
    add_consent_options(parser)
    parser.add_argument("--no-journal", action="store_true",
                        help="keep no journal; an interrupted run can then not be completed, and it takes "
                        "'undo --all-links' to undo it")  # fmt: skip


def execute(options: argparse.Namespace) -> int:
    """Print or execute the plan."""
    from ..apply import apply_plan
    from ..errors import StateError
    from ..interrupted import finish_interrupted
    from ..notices import forget
    from .bars import progress_for
    from .common import analysis_of, remember, require_consent

    require_consent(options)
    analysis, notes = analysis_of(options)
    consequence = [_CONSEQUENCE.format(prog=options.prog)] if options.include_cache else []
    applied = None
    if options.dry_run:
        remember(options, analysis)
    else:
        try:
            if not options.no_journal:
                anything, more = finish_interrupted()
                if anything:
                    analysis, notes = analysis_of(options)
                notes += more
            notes += consequence
            if not options.yes and not _agreed(analysis):
                return 1
            applied = apply_plan(
                analysis,
                f"{options.prog} apply",
                journal=not options.no_journal,
                progress=progress_for(options.json or options.quiet),
            )
            forget(analysis)
        except StateError as exc:
            hint = "Make it writable, or add --no-journal."
            raise StateError(str(exc), exc.hint or hint) from exc
    if options.json:
        _write(analysis, applied, notes)
    elif not options.quiet or (applied is not None and applied.failed):
        _print(analysis, applied, notes, options.quiet)
    return 1 if applied is not None and applied.failed else 0


def _write(analysis: Analysis, applied: Applied | None, notes: list[str]) -> None:
    from ..report import json

    document = json.apply_document(analysis, applied)
    document["warnings"] = [*notes, *document["warnings"]]
    sys.stdout.write(json.dump(document) + "\n")


def _print(analysis: Analysis, applied: Applied | None, notes: list[str], quiet: bool) -> None:
    from ..report import text

    err = text.console(stderr=True)
    if not quiet:
        if applied is None:
            text.print_plan(analysis, text.console())
        else:
            text.print_applied(applied, text.console())
        text.print_notes([*notes, *analysis.warnings, *(applied.notes if applied else [])], err)
    if applied is not None:
        text.print_failed(applied, err)


def _agreed(analysis: Analysis) -> bool:
    from ..report import text
    from .common import agreed

    text.console().print(text.summary_of_plan(analysis))
    return not analysis.plan.shares or agreed("Share them?")
