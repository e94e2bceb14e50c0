"""What a command line without a command shows: how things stand by what is remembered, and the next step.

Nothing is looked at but the state directory, so that it takes no time however much there is.
"""

from __future__ import annotations

import sys
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse

    from ..pending import Check
    from ..status import Status

#: The text names so many environments that could free something.
_MOST = 5


def execute(options: argparse.Namespace) -> int:
    """Print it."""
    from ..model import Scope
    from ..plan import PlanOptions
    from ..report import json, text
    from ..settings import load
    from ..status import status_of

    status = status_of(Scope(()), PlanOptions(), load(), {})
    freeable = _freeable(status)
    command, why = _next(status, freeable, options.prog)
    if options.json:
        sys.stdout.write(json.dump(_document(status, freeable, command)) + "\n")
        return 0
    _print(status, freeable, options.prog, f"{command}  ({why})")
    text.print_notes(status.warnings, text.console(stderr=True))
    return 0


def _freeable(status: Status) -> list[Check]:
    """Return the environments of which it is known what they could free, the most first."""
    known = [check for check in status.checks if check.freeable is not None]
    return sorted(known, key=lambda check: (-_bytes(check), check.prefix))


def _bytes(check: Check) -> int:
    return check.freeable.bytes if check.freeable else 0


def _next(status: Status, freeable: list[Check], prog: str) -> tuple[str, str]:
    """Return the command that is best done next, and what for."""
    from ..report.status import command_for

    free = [check for check in status.pending if check.pending is not None and check.pending.is_free]
    if status.interrupted:
        return f"{prog} apply", "finishes what was interrupted"
    if free:
        return command_for(free[0], status, prog), "takes up what is pending"
    if any(map(_bytes, freeable)):
        return f"{prog} apply", "--dry-run shows what it would do"
    return f"{prog} report", "shows what is held twice"


def _document(status: Status, freeable: list[Check], command: str) -> dict[str, Any]:
    from .. import __version__
    from ..model import SCHEMA
    from ..report.json import history_document

    runs = history_document([status.last] if status.last else [])["runs"]
    return {
        "schema": SCHEMA,
        "version": __version__,
        "freeable": [
            {
                "name": check.freeable.name,
                "prefix": check.prefix,
                "bytes": check.freeable.bytes,
                "seen": datetime.fromtimestamp(check.freeable.seen, timezone.utc).isoformat(),
            }
            for check in freeable
            if check.freeable is not None
        ],
        "last_run": runs[0] if runs else None,
        "pending": [check.prefix for check in status.pending],
        "interrupted": [one.run.id for one in status.interrupted],
        "next": command,
        "warnings": status.warnings,
    }


def _print(status: Status, freeable: list[Check], prog: str, following: str) -> None:
    from .. import __version__
    from ..report.status import line, run_line
    from ..report.text import console, printable
    from ..tone import aligned, amount

    out = console()
    out.print(f"{prog} {__version__}: finds what conda environments hold twice, and shares it")
    out.print()
    gains = [check for check in freeable if _bytes(check)]
    if gains:
        total = sum(map(_bytes, gains))
        many = "1 environment" if len(gains) == 1 else f"{len(gains):,} environments"
        line(out, "Freeable", f"{amount(total)} in {many}, as last seen")
    else:
        unknown = "not known yet" if status.last is None else "not known since the last run"
        line(out, "Freeable", "nothing, as last seen" if freeable else unknown)
    for check in gains[:_MOST]:
        if check.freeable is not None:
            seen = datetime.fromtimestamp(check.freeable.seen).strftime("%Y-%m-%d %H:%M")
            line(out, "", f"{aligned(check.freeable.bytes)}  {seen}  {printable(check.freeable.name)}")
    if len(gains) > _MOST:
        line(out, "", f"and {len(gains) - _MOST:,} more")
    line(out, "Last run", "none" if status.last is None else run_line(status.last))
    left = len({check.prefix for check in status.pending}.union(*(one.roots for one in status.interrupted)))
    many = "work on 1 environment" if left == 1 else f"work on {left:,} environments"
    line(out, "Pending", f"{many}; see: {prog} status" if left else "nothing")
    line(out, "Next", printable(following))
    line(out, "All commands", f"{prog} --help")
