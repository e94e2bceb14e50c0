"""``undo``: private copies again of what was shared."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from ..errors import StateError, UsageError

if TYPE_CHECKING:
    import argparse

    from ..journal import Journal
    from ..undo import Undoing

NAME = "undo"
HELP = "Take back what was shared: every file gets a copy of its own again, after asking."
EXAMPLES = """\
examples:
  {prog} undo --dry-run
  {prog} undo --yes -n bert
  {prog} undo --run 1c9a5e2f70b3
  {prog} undo --all-links -p ~/envs/nlp
"""
_WITHOUT = "The journal is not needed for: undo --all-links --name ENVIRONMENT."


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of this verb."""
    from .parser import add_consent_options, add_tree_options

    add_tree_options(parser, "by default everything that was ever shared")
    parser.add_argument("--run", metavar="ID", help="what this run shared; 'history' lists the runs")
    parser.add_argument("--all-links", action="store_true",
                        help="every file of the named environments that shares its inode with another one, "
                        "conda's own hard links to its cache included; needs no journal")  # fmt: skip
    add_consent_options(parser)


def execute(options: argparse.Namespace) -> int:
    """Print or execute what is to be undone."""
    from ..report import json, text, upkeep
    from ..undo import undo
    from .bars import progress_for
    from .common import agreed, is_named, require_consent

    require_consent(options)
    if options.all_links and (options.run or not is_named(options)):
        raise UsageError(
            "--all-links wants environments to be named, and no --run.", "Add --name, --prefix or --search."
        )
    notes: list[str] = []
    journal = _journal(options)
    try:
        undoing = _plan(options, journal, notes)
        applied = None
        if not options.dry_run:
            if not options.yes:
                text.console().print(upkeep.summary_of_undoing(undoing))
                if undoing.inodes and not agreed("Go on?"):
                    return 1
            progress = progress_for(options.json or options.quiet)
            applied = undo(undoing, journal, f"{options.prog} undo", progress)
            if undoing.deferred:  # the sources are no links any more: their bytecode can follow
                rest = _plan(options, journal, [], last=True)
                applied.join(undo(rest, journal, f"{options.prog} undo", progress))
            notes += applied.notes
    finally:
        journal.close()
    if options.json:
        document = json.undo_document(undoing, applied)
        document["warnings"] = notes
        sys.stdout.write(json.dump(document) + "\n")
    elif not options.quiet:
        if applied is None:
            upkeep.print_undoing(undoing, text.console())
        else:
            upkeep.print_undone(applied, text.console())
        text.print_notes(notes, text.console(stderr=True))
    if not options.json and applied:
        text.print_failed(applied, text.console(stderr=True))
    return 1 if applied is not None and applied.failed else 0


def _journal(options: argparse.Namespace) -> Journal:
    from ..journal import Journal, NoJournal

    try:
        return Journal.open()
    except StateError as exc:
        if options.all_links:
            return NoJournal()
        raise StateError(str(exc), _WITHOUT) from exc


def _plan(options: argparse.Namespace, journal: Journal, notes: list[str], last: bool = False) -> Undoing:
    from .. import history
    from ..inventory import scan
    from ..journal import NoJournal
    from ..sharing.recovery import recover
    from ..undo import plan_all_links, plan_undo
    from .common import is_named, scope_of

    if not options.dry_run and not isinstance(journal, NoJournal):
        notes += recover(journal)  # what an interrupted run left is finished first
    if options.all_links:
        inventory = scan(scope_of(options), 1)
        notes += [*inventory.scope.warnings, *inventory.warnings]
        return plan_all_links(inventory, journal)
    if options.run is not None and all(run.id != options.run for run in history.runs(journal)):
        raise UsageError(
            f"The journal knows of no run {options.run!r}.", f"'{options.prog} history' lists the runs."
        )
    roots = None
    if is_named(options):
        scope = scope_of(options)
        notes += scope.warnings
        roots = {tree.root for tree in scope.trees if tree.selected}
    undoing = plan_undo(journal, roots, options.run, last)
    if undoing.edited:
        notes.append(
            f"{undoing.edited} of the shared files were written to since; each copy has what is there now"
        )
    if not undoing.inodes:
        notes.append(
            "your journal tells of nothing here that is still shared; what another user shared is in "
            f"that user's journal. {_WITHOUT}"
        )
    return undoing
