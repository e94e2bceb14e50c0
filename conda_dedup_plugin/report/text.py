"""What people read. Names of files are escaped, so that none can move the cursor of a terminal."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..model import Cause, Goal
from ..tone import aligned, amount, is_exact, is_quiet
from .words import files

if TYPE_CHECKING:
    from ..apply import Applied
    from ..engine import Analysis

#: What ``report --json`` prints.
Document = dict[str, Any]

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


def print_report(report: Document, prog: str, out: Console) -> None:
    """Print what a report's document says is held, held twice, could be freed and is held back.

    ``prog`` is what to call to act.
    """
    totals = report["totals"]
    out.print(_tree_table(report))
    out.print()
    out.print(_sentence("On disk", totals["disk_bytes"], f"in {files(totals['files'])}"))
    if totals["estimated_bytes"]:
        out.print(_sentence("  compressed", totals["estimated_bytes"], "of it, about: no file system tells"))
    out.print(_sentence("Held twice", totals["duplicate_bytes"], ""))
    out.print(_sentence("  freeable", totals["freeable_bytes"], f"by: {prog} apply"))
    if totals["uncertain_bytes"]:
        out.print(_sentence("", totals["uncertain_bytes"], "of it if nobody else holds the same extents"))
    out.print(_sentence("  held back", totals["held_bytes"], ""))
    for held in report["held"]:
        out.print(_sentence("", held["bytes"], f"in {files(held['inodes'])}: {held['reason']}"))
    causes = {cause: found for cause, found in report["by_cause"].items() if found["duplicate_bytes"]}
    if causes:
        out.print(Text("By cause"))
    for cause, found in causes.items():
        out.print(_sentence(f"  {CAUSES[Cause(cause)]}", found["duplicate_bytes"], _of_cause(found)))
    if totals["freeable_inodes"]:
        inodes = f"{totals['freeable_inodes']:>9,}  freeable of {totals['inodes']:,}"
        out.print(Text(f"{'Inodes':14}{inodes}"))
    if report["normalizable_bytes"]:
        more = "more in bytecode of pip's with: --normalize-bytecode"
        out.print(_sentence("Bytecode", report["normalizable_bytes"], more))
    if totals["unrecorded_bytes"]:
        compared = "compared" if report["deep"] else "not compared without: --deep"
        out.print(
            _sentence("Unrecorded", totals["unrecorded_bytes"], f"in files no record covers, {compared}")
        )
    _print_advice(report, prog, out)
    largest = report["largest"][:_LARGEST]
    if largest:
        out.print()
        out.print(Text("Largest duplicates", style="bold"))
    for group in largest:
        out.print(_sentence("", group["bytes"], f"{len(group['extents'])} copies of"))
        out.print(Text(f"{'':14}{printable(group['keeper'])}"))


def print_walked(report: Document, out: Console) -> None:
    """Print when all was looked at, for a report that is not of this moment."""
    out.print()
    out.print(Text(f"Walked {report['walked']}; nothing was added, removed or replaced since."))
    out.print(Text("What was edited in place is seen with: --fresh"))


def print_written(path: str, out: Console) -> None:
    """Print where a page is."""
    out.print(Text(f"{'Page':14}{printable(path)}"))


def _print_advice(report: Document, prog: str, out: Console) -> None:
    """Print which caches could be dropped, and where pip took conda's files."""
    for cache in report["redundant_caches"]:
        then = f" and then: {prog} apply" if cache["bytes_after"] else ""
        gain = cache["bytes_freed"] + cache["bytes_after"]
        out.print(_sentence("Cache", gain, f"by removing {printable(cache['cache'])}{then}"))
        many = f"{cache['shared']:,} of its {cache['packages']:,} packages"
        out.print(Text(f"{'':25}{many} are in {printable(cache['other'])} too"))
    names = {tree["prefix"]: tree["name"] for tree in (*report["environments"], *report["caches"])}
    found = Counter((one["environment"], one["conda"], one["pip"]) for one in report["clobbered"])
    for (root, conda, pip), count in sorted(found.items()):
        out.print(Text(f"{'Clobbered':14}{files(count)} of conda's {printable(conda)} by pip's "
                       f"{printable(pip)} in {printable(names[root])}"))  # fmt: skip


def _of_cause(totals: Document) -> str:
    return f"{amount(totals['freeable_bytes'])} freeable, {amount(totals['held_bytes'])} held back"


def _tree_table(report: Document) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    unit = " (bytes)" if is_exact() else ""
    table.add_column(f"Environment or cache{unit}", overflow="fold")
    columns = ["Apparent", "On disk", "Private", "Freeable"]
    if report["goal"] == Goal.INODES.value:
        columns.append("Inodes")
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    for tree in (*report["caches"], *report["environments"]):
        table.add_row(Text(printable(tree["name"])), *_cells(tree)[: len(columns)])
    return table


def _cells(tree: Document) -> tuple[str, ...]:
    numbers = (tree[f"{kind}_bytes"] for kind in ("apparent", "disk", "private", "freeable"))
    inodes = f"{tree['freeable_inodes']:,} of {tree['inodes']:,}"
    return (*(f"{number:,}" if is_exact() else amount(number) for number in numbers), inodes)


def _sentence(what: str, size: int, more: str) -> Text:
    return Text(f"{what:14}{aligned(size)}  {more}".rstrip())


def print_plan(analysis: Analysis, out: Console) -> None:
    """Print every share that would be made, a line each, and what they would free."""
    for share in analysis.plan.shares:
        keeper = printable(analysis.scope.paths_of(share.keeper)[0])
        for path in analysis.scope.paths_of(share.duplicate):
            out.print(Text(f"{share.method.value:8}  {aligned(share.duplicate.size)}  {printable(path)}"))
        out.print(Text(f"{'':18}as  {keeper}"))
    out.print(Text(summary_of_plan(analysis)))


def summary_of_plan(analysis: Analysis) -> str:
    """One sentence on what ``apply`` would do."""
    shares = analysis.plan.shares
    if not shares:
        return "There is nothing to share."
    return f"{files(len(shares))} can be shared, which frees {amount(analysis.plan.freeable_bytes)}."


def print_applied(applied: Applied, out: Console) -> None:
    """Print what was done and what was left alone."""
    out.print(Text(f"{files(applied.inodes)} shared, {amount(applied.bytes_freed)} freed."))
    print_left_alone(applied, out)


def print_left_alone(applied: Applied, out: Console) -> None:
    """Print what was left alone, a line for each reason."""
    for reason, (inodes, size) in applied.skipped.items():
        out.print(Text(f"left alone: {files(inodes)}, {amount(size)}: {reason.value}"))


def print_failed(applied: Applied, err: Console) -> None:
    """Print what went wrong, a line for each file."""
    print_notes([f"{path}: {error}" for path, error in applied.failed], err, "failed")


def print_notes(notes: list[str], err: Console, what: str = "warning") -> None:
    """Print notes, a line each; warnings not where the user wants it quiet."""
    for note in () if what == "warning" and is_quiet() else notes:
        err.print(Text(f"{what}: {printable(note)}"))
