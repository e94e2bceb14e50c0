"""``conda doctor``: whether what an environment shares is what its records say, and what runs left in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from .environments import Request, find
from .errors import StateError
from .journal import Journal
from .leftovers import find_leftovers
from .report import text, upkeep
from .report.words import files
from .verify import Verified, verify

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from .leftovers import Leftover

OK = "✅"
WRONG = "❌"


def check(prefix: str, verbose: bool) -> None:
    """Print on stdout, as conda's own checks do, what is damaged or left over in one environment."""
    verified, leftovers = _look(prefix)
    out = text.console()
    if verified.damages:
        out.print(f"{WRONG} Shared files are damaged.\n")
        upkeep.print_damages(verified, out)
        out.print("\nBring them back with: conda dedup verify --repair\n")
    else:
        out.print(f"{OK} Shared files: none is damaged.\n")
    if leftovers:
        out.print(f"{WRONG} Interrupted runs of conda-dedup left {files(len(leftovers))} behind.\n")
        for left in leftovers if verbose else []:
            out.print(Text(f"  {text.printable(str(left))}"))
        out.print("Finish them with: conda dedup clean\n")


def fix(prefix: str, options: argparse.Namespace, confirm: Callable[[str], object]) -> int:
    """Repair what is damaged and remove what is left over, after ``confirm``; 1 if something stays so."""
    from .inventory import scan
    from .leftovers import remove_leftovers
    from .repair import carry_out, plan_repair
    from .sharing.recovery import recover

    verified, leftovers = _look(prefix)
    out = text.console()
    if not verified.damages and not leftovers:
        out.print("Shared files: nothing to fix.")
        return 0
    journal = Journal.open()
    try:
        repair = plan_repair(verified, journal)
        applied = None
        if repair.copies:
            confirm(upkeep.summary_of_repair(repair))
            notes = recover(journal)
            repair = plan_repair(_look(prefix)[0], journal)  # again, for that gives names other inodes
            applied = carry_out(repair, journal, "conda doctor --fix")
            notes += applied.notes
            text.print_notes(notes, text.console(stderr=True))
        upkeep.print_repair(repair, applied, out)
        stays = bool(repair.beyond) or (applied is not None and applied.inodes < len(repair.copies))
        if leftovers:
            confirm(f"{files(len(leftovers))} that interrupted runs left can be seen to.")
            text.print_notes(recover(journal), text.console(stderr=True))
            scope = find(Request(prefixes=(prefix,), discover=False))
            _, kept = remove_leftovers(find_leftovers(scope), scan(scope, 1))
            text.print_notes(kept, text.console(stderr=True))
            stays |= bool(kept)
    finally:
        journal.close()
    return int(stays)


def _look(prefix: str) -> tuple[Verified, list[Leftover]]:
    scope = find(Request(prefixes=(prefix,)))
    try:
        journal = Journal.open()
    except StateError:
        return verify(scope, None), find_leftovers(scope)
    try:
        return verify(scope, journal), find_leftovers(scope)
    finally:
        journal.close()
