"""What an audit found, for people and as JSON: a line for each finding, and below it what to run."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from rich.text import Text

from ..findings import Kind
from ..tone import amount
from .text import printable

if TYPE_CHECKING:
    from rich.console import Console

    from ..audit import Audit

TITLES = {
    Kind.UNUSED: "Unused",
    Kind.TOO_MANY: "Too many",
    Kind.CLOBBERED: "Clobbered",
    Kind.MIXED: "Mixed",
    Kind.TWO_CHANNELS: "Two channels",
    Kind.PACKAGES: "Packages",
    Kind.TARBALLS: "Tarballs",
    Kind.UNEXPORTED: "Not exported",
}


def print_audit(audit: Audit, out: Console) -> None:
    """Print every finding with the commands to act, and what could not be told."""
    out.print()
    out.print(Text("Audit", style="bold"))
    for finding in audit.findings:
        said = sentence(finding.kind, finding.what, finding.bytes_freed)
        out.print(Text(f"{TITLES[finding.kind]:14}{printable(said)}"))
        for command in finding.commands:
            out.print(Text(f"{'':16}{command}"))
    if not audit.findings:
        out.print(Text("There is nothing to act on."))
    for environment in audit.environments:
        if environment.usage.unknown:
            name = f"'{environment.tree.name}': last use unknown: {environment.usage.unknown}"
            out.print(Text(f"{'Unknown':14}{printable(name)}"))
    counts = ", ".join(f"{owner} {count:,}" for owner, count in audit.owners.items())
    out.print(Text(f"{'Environments':14}{printable(counts) or 'none'}"))


def sentence(kind: Kind, what: str, bytes_freed: int) -> str:
    """Say what was found, and what goes with it."""
    if kind in (Kind.PACKAGES, Kind.TARBALLS):
        return f"{amount(bytes_freed)} in {what}, which no environment uses"
    return f"{what}, {amount(bytes_freed)}" if bytes_freed else what


def audit_document(audit: Audit) -> dict[str, Any]:
    """What ``report --audit --json`` has besides, as ``audit``."""
    return {
        "unused_days": audit.options.days,
        "max_envs": audit.options.max_envs,
        "everything": audit.options.everything,
        "environments": [
            {
                "name": one.tree.name,
                "prefix": one.tree.root,
                "owner": one.owner,
                "last_used": _moment(one.usage.last),
                "later_by": one.usage.grain,
                "unknown": one.usage.unknown or None,
                "exported": one.exported,
                "channels": sorted({found.channel for found in one.conda if found.channel}),
            }
            for one in audit.environments
        ],
        "owners": dict(audit.owners),
        "findings": [
            {
                "kind": finding.kind.value,
                "place": finding.place,
                "what": finding.what,
                "items": list(finding.items),
                "bytes_freed": finding.bytes_freed,
                "commands": list(finding.commands),
            }
            for finding in audit.findings
        ],
    }


def _moment(seconds: float | None) -> str | None:
    return (
        None
        if seconds is None
        else datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="seconds")
    )
