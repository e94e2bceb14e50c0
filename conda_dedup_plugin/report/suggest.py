"""What ``suggest`` prints: text, and a JSON document."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.text import Text

from ..channels import channel_name
from ..model import SCHEMA
from ..tone import amount
from .text import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.console import Console

    from ..baseline import Written
    from ..specs.packages import Package
    from ..suggest import Gain, Suggestion, Suggestions

#: So many packages are named in one line.
_MOST = 8


def document(found: Suggestions, threshold: float, written: Sequence[Written]) -> dict[str, Any]:
    """What ``suggest --json`` prints; without files there are no commands."""
    return {
        "schema": SCHEMA,
        "threshold": threshold,
        "environments": [{"name": specs.name, "prefix": specs.source} for specs in found.environments],
        "clusters": [
            {
                "environments": [
                    {
                        "name": member.name,
                        "prefix": member.source,
                        "packages": len(member.packages),
                        "adds": [_package(package) for package in adds],
                        "adds_bytes": _size(adds),
                    }
                    for member, adds in zip(suggestion.members, suggestion.adds, strict=True)
                ],
                "common": [_package(package) for package in suggestion.common],
                "common_bytes": _size(suggestion.common),
                "conflicts": list(suggestion.conflicts),
                "merging": suggestion.merging._asdict(),
                "sharing": suggestion.sharing._asdict(),
                "files": list(written[index].files) if written else [],
                "commands": list(written[index].commands) if written else [],
            }
            for index, suggestion in enumerate(found.found)
        ],
    }


def print_suggestions(
    found: Suggestions, threshold: float, written: Sequence[Written], prog: str, out: Console
) -> None:
    """Print each baseline: what all share, what each adds, what is saved, and how it is made."""
    count = len(found.environments)
    if not found.found:
        many = "1 environment" if count == 1 else f"{count:,} environments"
        out.print(Text(f"{many}, no two of which are {threshold:.0%} alike."))
        return
    for index, suggestion in enumerate(found.found):
        if index:
            out.print()
        _print_suggestion(suggestion, prog, out)
        if written:
            _print_written(written[index], out)
    if not written:
        out.print()
        out.print(Text("Files and commands for it: --write DIR"))


def _print_suggestion(suggestion: Suggestion, prog: str, out: Console) -> None:
    names = ", ".join(printable(member.name) for member in suggestion.members)
    out.print(Text(names, style="bold"))
    out.print(_line("all share", _packages(suggestion.common)))
    for member, adds in zip(suggestion.members, suggestion.adds, strict=True):
        said = f"{_packages(adds)}: {_names(adds)}" if adds else "nothing"
        out.print(_line(f"{printable(member.name)} adds", said))
    out.print(_line("merging frees", _gain(suggestion.merging)))
    if suggestion.conflicts:
        shown = ", ".join(map(printable, suggestion.conflicts[:_MOST]))
        more = len(suggestion.conflicts) - _MOST
        others = f" and {more} more" if more > 0 else ""
        out.print(_line("", f"without {shown}{others}, of which there are several builds"))
    out.print(_line("sharing frees", f"{_gain(suggestion.sharing)}, by: {prog} apply"))


def _print_written(written: Written, out: Console) -> None:
    out.print(_line("written", f"{len(written.files)} files; nothing is removed. Commands:"))
    for command in written.commands:
        out.print(Text(f"    {printable(command)}"))


def _line(what: str, more: str) -> Text:
    return Text(f"  {what:20}  {more}".rstrip())


def _gain(gain: Gain) -> str:
    return f"{amount(gain.bytes_freed)} and {gain.inodes:,} {'inode' if gain.inodes == 1 else 'inodes'}"


def _packages(packages: Sequence[Package]) -> str:
    many = "1 package" if len(packages) == 1 else f"{len(packages):,} packages"
    return f"{many}, {amount(_size(packages))}"


def _names(packages: Sequence[Package]) -> str:
    named = [printable(package.dist.name) for package in packages]
    more = len(named) - _MOST
    return ", ".join(named[:_MOST]) + (f" and {more} more" if more > 0 else "")


def _size(packages: Iterable[Package]) -> int:
    return sum(package.size or 0 for package in packages)


def _package(package: Package) -> dict[str, Any]:
    dist = package.dist
    return {
        "name": dist.name,
        "version": dist.version,
        "build": dist.build,
        "subdir": dist.subdir,
        "channel": channel_name(dist.channel),
        "bytes": package.size,
    }
