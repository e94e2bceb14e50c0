"""The parts of a page that are words and tables: totals, duplicates, what is held and why, an audit."""

from __future__ import annotations

from collections import Counter

from ..findings import Kind
from ..kinds import Cause
from . import markup as m
from .audit import TITLES, sentence
from .text import CAUSES, Document

#: So many names of the same file are in the page, at most.
_MOST_NAMES = 20
_MOST_NOTES = 100


def totals_section(report: Document, prog: str) -> str:
    """The numbers that matter; ``prog`` is what to call to act."""
    totals = report["totals"]
    tiles = [
        ("on disk", totals["disk_bytes"], f"in {totals['files']:,} files", ""),
        ("held twice", totals["duplicate_bytes"], "duplicates", ""),
        ("freeable", totals["freeable_bytes"], f"by: {prog} apply", "freeable"),
        ("held back", totals["held_bytes"], "duplicates that stay", "held"),
    ]
    items = "".join(
        f'<div class="tile {kind}"><dt>{m.plain(what)}</dt><dd><strong data-value="{number}" '
        f'title="{number:,} bytes">{m.size(number)}</strong><span>{m.plain(more)}</span></dd></div>'
        for what, number, more, kind in tiles
    )
    notes = []
    if totals["freeable_inodes"]:
        notes.append(f"{totals['freeable_inodes']:,} of {totals['inodes']:,} inodes are freeable.")
    if totals["uncertain_bytes"]:
        notes.append(f"{m.size(totals['uncertain_bytes'])} are freed if nobody else holds the same extents.")
    if totals["estimated_bytes"]:
        notes.append(f"{m.size(totals['estimated_bytes'])} on disk are compressed, about.")
    if totals["unrecorded_bytes"]:
        compared = "were compared" if report["deep"] else "were not compared (--deep does)"
        notes.append(f"{m.size(totals['unrecorded_bytes'])} in files that no record covers {compared}.")
    if report["normalizable_bytes"]:
        notes.append(f"{m.size(report['normalizable_bytes'])} more in bytecode with --normalize-bytecode.")
    more = m.paragraph(" ".join(notes)) if notes else ""
    return m.section("totals", "In all", f'<dl class="tiles">{items}</dl>', more)


def duplicates_section(report: Document, detail: Document) -> str:
    """The largest duplicates, with whom they would be shared and every name of them."""
    groups = detail["largest"]
    if not groups:
        return m.section("duplicates", "Largest duplicates", m.paragraph("Nothing is held twice."))
    lines = [
        m.bytes_cell(group["bytes"]) + m.number_cell(len(group["extents"])) + f"<td>{_names(group)}</td>"
        for group in groups
    ]
    search = (
        '<p class="search"><label for="search">Search in names</label> '
        '<input id="search" type="search" autocomplete="off" spellcheck="false" '
        'data-table="duplicates-table">'
        f' <output id="found" for="search" aria-live="polite">{len(groups):,} of {len(groups):,}</output></p>'
    )
    heads = [
        m.Column("Held twice", True),
        m.Column("Copies", True),
        m.Column("Keeper, and other names"),
    ]
    caption = f"The {len(groups):,} contents of which most is held more than once"
    return m.section(
        "duplicates",
        "Largest duplicates",
        search,
        m.table(caption, heads, lines, "duplicates-table", sortable=True),
    )


def _names(group: Document) -> str:
    names = group["names"]
    items = "".join(f"<li><code>{m.plain(name)}</code></li>" for name in names[:_MOST_NAMES])
    if len(names) > _MOST_NAMES:
        items += f"<li>and {len(names) - _MOST_NAMES:,} more</li>"
    said = f"{len(names):,} other name{'s' if len(names) != 1 else ''}"
    return (
        f'<code class="keeper">{m.plain(group["keeper"])}</code>'
        f"<details><summary>{said}</summary><ul>{items}</ul></details>"
    )


def held_section(report: Document) -> str:
    """What stays, by the reason; and where duplicates come from."""
    inner = []
    most = max((held["bytes"] for held in report["held"]), default=0)
    lines = [
        m.text_cell(held["reason"]).replace("<td", '<th scope="row"').replace("</td>", "</th>")
        + m.bar_cell(held["bytes"], most, "held")
        + m.number_cell(held["inodes"])
        for held in report["held"]
    ]
    if lines:
        heads = [m.Column("Reason"), m.Column("Held", True), m.Column("Files", True)]
        inner.append(m.table("Duplicates that stay, by reason", heads, lines, "held-table", sortable=True))
    else:
        inner.append(m.paragraph("Nothing is held back."))
    causes = {cause: found for cause, found in report["by_cause"].items() if found["duplicate_bytes"]}
    most = max((found["duplicate_bytes"] for found in causes.values()), default=0)
    lines = [
        f'<th scope="row">{m.plain(CAUSES[Cause(cause)])}</th>'
        + m.bar_cell(found["duplicate_bytes"], most, "freeable")
        + m.bytes_cell(found["freeable_bytes"])
        + m.bytes_cell(found["held_bytes"])
        for cause, found in sorted(causes.items(), key=lambda item: -int(item[1]["duplicate_bytes"]))
    ]
    if lines:
        heads = [
            m.Column("Cause"),
            *(m.Column(title, True) for title in ("Held twice", "Freeable", "Held back")),
        ]
        inner.append(m.table("Where duplicates come from", heads, lines, "causes-table", sortable=True))
    return m.section("held", "What is held back, and where duplicates come from", *inner)


def audit_section(audit: Document | None) -> str:
    """What an audit found, with the commands to act."""
    if audit is None:
        return ""
    items = []
    for finding in audit["findings"]:
        kind = Kind(finding["kind"])
        said = sentence(kind, finding["what"], finding["bytes_freed"])
        commands = "".join(f"<pre><code>{m.plain(command)}</code></pre>" for command in finding["commands"])
        items.append(f"<li><strong>{m.plain(TITLES[kind])}</strong> {m.plain(said)}{commands}</li>")
    for one in audit["environments"]:
        if one["unknown"]:
            told = f"{m.short(one['name'], 60)}: last use unknown: {m.plain(one['unknown'])}"
            items.append(f"<li><strong>Unknown</strong> {told}</li>")
    counts = ", ".join(f"{owner} {count:,}" for owner, count in audit["owners"].items())
    inner = (
        f'<ul class="audit">{"".join(items)}</ul>' if items else m.paragraph("There is nothing to act on.")
    )
    return m.section("audit", "Audit", inner, m.paragraph(f"Environments: {counts or 'none'}."))


def notes_section(report: Document) -> str:
    """Caches that could be dropped, where pip took conda's files, and what could not be read."""
    items = []
    for cache in report["redundant_caches"]:
        gain = cache["bytes_freed"] + cache["bytes_after"]
        items.append(
            f"{m.size(gain)} by removing {cache['cache']}: {cache['shared']:,} of its {cache['packages']:,} "
            f"packages are in {cache['other']} too."
        )
    found = Counter((one["environment"], one["conda"], one["pip"]) for one in report["clobbered"])
    for (root, conda, pip), count in sorted(found.items()):
        items.append(f"{count:,} files of conda's {conda} were overwritten by pip's {pip} in {root}.")
    items += report["warnings"]
    if not items:
        return ""
    shown = "".join(f"<li>{m.plain(item)}</li>" for item in items[:_MOST_NOTES])
    if len(items) > _MOST_NOTES:
        shown += f"<li>and {len(items) - _MOST_NOTES:,} more</li>"
    return m.section("notes", "To know besides", f"<ul>{shown}</ul>")
