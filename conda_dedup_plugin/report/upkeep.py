"""What people read of undo, verify, repair, clean and history."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from ..tone import aligned, amount
from .text import print_left_alone, printable
from .words import files

if TYPE_CHECKING:
    from rich.console import Console

    from ..apply import Applied
    from ..history import Run
    from ..leftovers import Leftover
    from ..repair import Repair
    from ..undo import Undoing
    from ..unused import Unused
    from ..verify import Verified


def print_undoing(undoing: Undoing, out: Console) -> None:
    """Print every name that would get a copy, and what they take."""
    for inode in undoing.inodes:
        for path in undoing.scope.paths_of(inode):
            out.print(Text(f"{aligned(inode.disk_bytes)}  {printable(path)}"))
    out.print(Text(summary_of_undoing(undoing)))


def summary_of_undoing(undoing: Undoing) -> str:
    """One sentence on what ``undo`` would do."""
    inodes = undoing.inodes
    if not inodes:
        return "There is nothing to undo."
    size = amount(undoing.bytes_needed)
    return f"{files(len(inodes))} can get copies of their own again, which takes {size}."


def print_undone(applied: Applied, out: Console) -> None:
    """Print what was undone and what was left alone."""
    out.print(
        Text(f"{files(applied.inodes)} with copies of their own again, {amount(-applied.bytes_freed)} used.")
    )
    print_left_alone(applied, out)


def print_verified(verified: Verified, out: Console, quick: bool) -> None:
    """Print every damaged inode with all its names, or that there is none."""
    if verified.damages:
        print_damages(verified, out)
        out.print(Text(f"{files(len(verified.damages))} damaged; 'verify --repair' brings back what it can."))
    elif quick:
        out.print("What the journal knows is as it was noted.")
    else:
        size = amount(verified.bytes)
        out.print(Text(f"{files(verified.inodes)} that are shared, {size}, are what the records say."))


def print_damages(verified: Verified, out: Console) -> None:
    """Print every damaged inode with all its names and the trees that share it."""
    scope = verified.inventory.scope
    for damage in verified.damages:
        owner = next((name.claim.dist for names in damage.names.values() for name in names if name.claim), "")
        what = "is not what its record says" if damage.found else "was changed since it was shared"
        subject = f"a file of {printable(str(owner))}" if owner else "a file"
        out.print(Text(f"damaged: {subject} {what}, under every one of these names:"))
        for tree, path in zip(scope.trees_of(damage.inode), scope.paths_of(damage.inode), strict=True):
            out.print(Text(f"  {printable(path)}  ({tree.kind.value} {printable(tree.name)})"))
        if damage.outside:
            out.print(Text(f"  and {damage.outside:,} more outside the scan"))


def summary_of_repair(repair: Repair) -> str:
    """One sentence on what a repair would do."""
    names = sum(len(copy.duplicate.names) for copy in repair.copies)
    return f"{files(names)} can be given the right content; what is there now will be gone."


def print_repair(repair: Repair, applied: Applied | None, out: Console) -> None:
    """Print what was or would be repaired, from where, and what cannot be."""
    for copy in repair.copies:
        source = printable(repair.sources[id(copy.duplicate)])
        for path in repair.scope.paths_of(copy.duplicate):
            out.print(Text(f"{printable(path)}\n  from {source}"))
    for beyond in repair.beyond:
        out.print(Text(f"{printable(beyond.path)}\n  {printable(beyond.advice)}"))
    if applied is not None:
        out.print(Text(f"{files(applied.names)} repaired."))
        print_left_alone(applied, out)


def print_cleanable(unused: list[Unused], leftovers: list[Leftover], out: Console) -> None:
    """Print what could be removed."""
    for package in unused:
        out.print(Text(f"{aligned(package.bytes_freed)}  {printable(package.path)}"))
    for left in leftovers:
        out.print(Text(f"{aligned(left.size)}  {printable(str(left))}"))
    if not unused and not leftovers:
        out.print("There is nothing to clean.")
        return
    size = amount(sum(package.bytes_freed for package in unused))
    out.print(
        Text(f"{len(unused):,} unused packages, {size}; {len(leftovers):,} left behind by interrupted runs.")
    )


def print_cleaned(unused: list[Unused], leftovers: list[Leftover], out: Console) -> None:
    """Print what was removed."""
    size = amount(sum(package.bytes_freed for package in unused))
    out.print(
        Text(f"{len(unused):,} unused packages removed, {size} freed; {len(leftovers):,} leftovers gone.")
    )


def print_history(runs: list[Run], out: Console) -> None:
    """Print a line for every run."""
    if not runs:
        out.print("Nothing was shared yet.")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("Run", "When", "Command"):
        table.add_column(column, no_wrap=column != "Command", overflow="fold")
    for column in ("Files", "Freed", "To undo"):
        table.add_column(column, justify="right", no_wrap=True)
    for run in runs:
        when = datetime.fromtimestamp(run.started).strftime("%Y-%m-%d %H:%M")
        state = "" if run.finished else " (running)" if run.running else " (interrupted)"
        size = ("-" if run.bytes_freed < 0 else "") + amount(abs(run.bytes_freed))
        command = Text(printable(run.command) + state)
        table.add_row(run.id, when, command, f"{run.names:,}", size, f"{run.undoable:,}")
    out.print(table)
