"""``verify``: whether what is shared is still what the records say, and bringing it back."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import StateError, UsageError

if TYPE_CHECKING:
    import argparse

    from ..apply import Applied
    from ..journal import Journal
    from ..repair import Repair
    from ..verify import Verified

NAME = "verify"
HELP = "Compare what is shared with the digests of the records, and bring back what was damaged."
EXAMPLES = """\
examples:
  {prog} verify
  {prog} verify --quick -n bert
  {prog} verify --repair
  {prog} verify --repair --keep-edit ~/envs/bert/lib/libz.so.1
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of this verb."""
    from .parser import add_consent_options, add_scope_options

    add_scope_options(parser)
    parser.add_argument("--quick", action="store_true",
                        help="read nothing: compare size and time with what the journal noted")  # fmt: skip
    parser.add_argument("--repair", action="store_true",
                        help="give every name of a damaged file the right content, after asking")  # fmt: skip
    parser.add_argument("--keep-edit", action="append", default=[], metavar="PATH",
                        help="with --repair: PATH keeps what is there, for itself alone "
                        "(repeatable)")  # fmt: skip
    parser.add_argument("--override-frozen", action="store_true", help="repair frozen environments too")
    add_consent_options(parser)


def execute(options: argparse.Namespace) -> int:
    """Look, tell, and repair if asked to; 1 if anything is off and stays so."""
    from ..report import json, text, upkeep
    from ..sharing.recovery import recover
    from ..verify import verify
    from .bars import progress_for
    from .common import require_consent, scope_of

    if options.keep_edit and not options.repair:
        raise UsageError("--keep-edit says what a repair leaves alone.", "Add --repair.")
    if options.repair:
        require_consent(options)
    notes: list[str] = []
    journal = _journal(options, notes)
    repair = applied = None
    try:
        if options.repair and not options.dry_run and journal is not None:
            notes += recover(journal)  # before looking: it gives names other inodes
        # by size and mtime alone nobody can say what is to be repaired
        quick = options.quick and not options.repair
        verified = verify(scope_of(options), journal, quick, progress_for(options.json or options.quiet))
        if not options.json:
            _print(options, verified)
        if options.repair and verified.damages and journal is not None:
            repair, applied = _repair(options, verified, journal)
    finally:
        if journal is not None:
            journal.close()
    notes += [*verified.warnings, *(applied.notes if applied else [])]
    if options.json:
        document = json.verify_document(verified, repair, applied)
        document["warnings"] = notes
        sys.stdout.write(json.dump(document) + "\n")
    else:
        if repair is not None and not options.quiet:
            upkeep.print_repair(repair, applied, text.console())
        err = text.console(stderr=True)
        text.print_notes([] if options.quiet else notes, err)
        if applied is not None:
            text.print_failed(applied, err)
    healed = applied is not None and repair is not None and not repair.beyond
    healed = healed and applied is not None and applied.inodes == len(repair.copies if repair else ())
    return 0 if healed or not verified.damages else 1


def _journal(options: argparse.Namespace, notes: list[str]) -> Journal | None:
    """Without a journal contents can be verified all the same, but nothing is changed."""
    from ..journal import Journal

    try:
        return Journal.open()
    except StateError as exc:
        if options.repair or options.quick:
            raise StateError(str(exc), exc.hint or "Make it writable.") from exc
        notes.append(f"{exc}; what has no digest is not verified")
        return None


def _print(options: argparse.Namespace, verified: Verified) -> None:
    from ..report import text, upkeep

    if not options.quiet or verified.damages:
        upkeep.print_verified(verified, text.console(), options.quick)


def _repair(
    options: argparse.Namespace, verified: Verified, journal: Journal
) -> tuple[Repair, Applied | None]:
    from ..repair import carry_out, plan_repair
    from ..report import text, upkeep
    from .common import agreed

    kept = {_real(path) for path in options.keep_edit}
    scope = verified.inventory.scope
    damaged = {path for damage in verified.damages for path in scope.paths_of(damage.inode)}
    for given in options.keep_edit:
        if _real(given) not in damaged:
            raise UsageError(
                f"{given!r} is no damaged file that is shared.", "Name one of the paths that 'verify' lists."
            )
    repair = plan_repair(verified, journal, kept, options.override_frozen)
    if options.dry_run or not repair.copies:
        return repair, None
    if not options.yes:
        text.console().print(upkeep.summary_of_repair(repair))
        if not agreed("Go on?"):
            return repair, None
    return repair, carry_out(repair, journal, f"{options.prog} verify --repair")


def _real(path: str) -> str:
    """The path as trees have it: the real directory, the last name as it is."""
    given = Path(path).expanduser().absolute()
    return str(given.parent.resolve() / given.name)
