"""What people read. Names of files are escaped, so that none can move the cursor of a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from ..model import Cause, Goal
from ..redundant import redundant_caches

if TYPE_CHECKING:
    from ..apply import Applied
    from ..engine import Analysis
    from ..model import Totals, TreeTotals

_LARGEST = 5
#: What people call the causes.
CAUSES = {
    Cause.PIP: "pip",
    Cause.COPY: "copies",
    Cause.OTHER_DEVICE: "other device",
    Cause.CLONE: "clones",
    Cause.BYTECODE: "bytecode",
    Cause.WITHIN_PACKAGE: "in a package",
    Cause.OTHER_BUILD: "other build",
    Cause.PREFIX: "prefixes",
    Cause.OTHER_CACHE: "other cache",
    Cause.UNTRACKED: "no package",
}
#: The table of a report has no fewer columns.
_NARROWEST = 72


def console(stderr: bool = False) -> Console:
    """Return the console to print on; plain when it is no terminal."""
    found = Console(stderr=stderr, highlight=False, soft_wrap=True)
    if found.width < _NARROWEST:
        found.width = _NARROWEST  # a terminal wraps what is too long; a cut number is wrong
    return found


def printable(text: str) -> str:
    """Escape whatever a terminal might take for a command, and bytes that are no text."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def files(count: int) -> str:
    """Write "1 file" or "1,204 files"."""
    return f"{count:,} file" if count == 1 else f"{count:,} files"


def print_report(analysis: Analysis, out: Console) -> None:
    """Print what is held, what is held twice, what could be freed and what is held back."""
    totals = analysis.inventory.totals
    out.print(_tree_table(analysis))
    out.print()
    out.print(_sentence("On disk", totals.disk_bytes, f"in {files(totals.files)}"))
    if totals.estimated_bytes:
        out.print(_sentence("  compressed", totals.estimated_bytes, "of it, about: no file system tells"))
    out.print(_sentence("Held twice", totals.duplicate_bytes, ""))
    out.print(_sentence("  freeable", totals.freeable_bytes, "by: conda-dedup apply"))
    if totals.uncertain_bytes:
        out.print(_sentence("", totals.uncertain_bytes, "of it if nobody else holds the same extents"))
    out.print(_sentence("  held back", totals.held_bytes, ""))
    for reason, (size, inodes) in analysis.plan.held_by_reason().items():
        out.print(_sentence("", size, f"in {files(inodes)}: {reason.value}"))
    causes = {cause: found for cause, found in analysis.plan.by_cause().items() if found.duplicate_bytes}
    if causes:
        out.print(Text("By cause"))
    for cause, found in causes.items():
        out.print(_sentence(f"  {CAUSES[cause]}", found.duplicate_bytes, _of_cause(found)))
    if totals.freeable_inodes:
        out.print(Text(f"{'Inodes':14}{totals.freeable_inodes:>9,}  freeable of {totals.inodes:,}"))
    if analysis.normalizable_bytes:
        more = "more in bytecode of pip's with: --normalize-bytecode"
        out.print(_sentence("Bytecode", analysis.normalizable_bytes, more))
    if totals.unrecorded_bytes:
        compared = "compared" if analysis.deep else "not compared without: --deep"
        out.print(_sentence("Unrecorded", totals.unrecorded_bytes, f"in files no record covers, {compared}"))
    _print_advice(analysis, out)
    largest = analysis.plan.largest()[:_LARGEST]
    if largest:
        out.print()
        out.print(Text("Largest duplicates", style="bold"))
    for group in largest:
        copies = [share.duplicate for share in group.shares]
        copies += [inode for held in group.held for inode in held.inodes]
        out.print(_sentence("", group.duplicate_bytes, f"{len(copies) + 1} copies of"))
        out.print(Text(f"{'':14}{printable(analysis.scope.paths_of(group.keeper)[0])}"))


def _print_advice(analysis: Analysis, out: Console) -> None:
    """Print which caches could be dropped, and where pip took conda's files."""
    for cache in redundant_caches(analysis.inventory, analysis.plan):
        then = " and then: conda-dedup apply" if cache.bytes_after else ""
        gain = cache.bytes_freed + cache.bytes_after
        out.print(_sentence("Cache", gain, f"by removing {printable(cache.cache)}{then}"))
        many = f"{cache.shared:,} of its {cache.packages:,} packages"
        out.print(Text(f"{'':25}{many} are in {printable(cache.other)} too"))
    for tree, paths in analysis.inventory.clobbered.items():
        pairs = {(str(conda), str(pip)) for conda, pip in paths.values()}
        for conda, pip in sorted(pairs):
            count = sum((str(one), str(other)) == (conda, pip) for one, other in paths.values())
            name = printable(analysis.scope.trees[tree].name)
            out.print(Text(f"{'Clobbered':14}{files(count)} of conda's {printable(conda)} by pip's "
                           f"{printable(pip)} in {name}"))  # fmt: skip


def _of_cause(totals: Totals) -> str:
    return f"{decimal(totals.freeable_bytes)} freeable, {decimal(totals.held_bytes)} held back"


def _tree_table(analysis: Analysis) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("Environment or cache", overflow="fold")
    columns = ["Apparent", "On disk", "Private", "Freeable"]
    if analysis.goal is Goal.INODES:
        columns.append("Inodes")
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    for tree, counted in zip(analysis.scope.trees, analysis.inventory.trees, strict=True):
        if tree.selected:
            table.add_row(Text(printable(tree.name)), *_cells(counted)[: len(columns)])
    return table


def _cells(counted: TreeTotals) -> tuple[str, ...]:
    numbers = (
        counted.apparent_bytes,
        counted.disk_bytes,
        counted.private_bytes,
        counted.freeable_bytes,
    )
    inodes = f"{counted.freeable_inodes:,} of {counted.inodes:,}"
    return (*(decimal(number) for number in numbers), inodes)


def _sentence(what: str, size: int, more: str) -> Text:
    return Text(f"{what:14}{decimal(size):>9}  {more}".rstrip())


def print_plan(analysis: Analysis, out: Console) -> None:
    """Print every share that would be made, a line each, and what they would free."""
    for share in analysis.plan.shares:
        keeper = printable(analysis.scope.paths_of(share.keeper)[0])
        for path in analysis.scope.paths_of(share.duplicate):
            out.print(Text(f"{share.method.value:8}  {decimal(share.duplicate.size):>9}  {printable(path)}"))
        out.print(Text(f"{'':18}as  {keeper}"))
    out.print(Text(summary_of_plan(analysis)))


def summary_of_plan(analysis: Analysis) -> str:
    """One sentence on what ``apply`` would do."""
    shares = analysis.plan.shares
    if not shares:
        return "There is nothing to share."
    return f"{files(len(shares))} can be shared, which frees {decimal(analysis.plan.freeable_bytes)}."


def print_applied(applied: Applied, out: Console) -> None:
    """Print what was done and what was left alone."""
    out.print(Text(f"{files(applied.inodes)} shared, {decimal(applied.bytes_freed)} freed."))
    print_left_alone(applied, out)


def print_left_alone(applied: Applied, out: Console) -> None:
    """Print what was left alone, a line for each reason."""
    for reason, (inodes, size) in applied.skipped.items():
        out.print(Text(f"left alone: {files(inodes)}, {decimal(size)}: {reason.value}"))


def print_failed(applied: Applied, err: Console) -> None:
    """Print what went wrong, a line for each file."""
    print_notes([f"{path}: {error}" for path, error in applied.failed], err, "failed")


def print_notes(notes: list[str], err: Console, what: str = "warning") -> None:
    """Print warnings, a line each."""
    for note in notes:
        err.print(Text(f"{what}: {printable(note)}"))
