"""The part of a page about environments: what they take now, and after ``apply``."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from . import markup as m

if TYPE_CHECKING:
    from .text import Document

T = TypeVar("T")

#: So many environments have bars; the others are one more.
MOST_TREES = 50
#: How far apart the two bars of an environment lie from its middle.
_APART = 0.21
_SEGMENTS = {
    "private": "private: in no other environment or cache",
    "shared": "shared with others",
    "held": "held: twice, and must stay so",
    "freeable": "freeable: twice, and apply frees it",
}


def bars_section(report: Document, detail: Document) -> tuple[str, m.Chart | None]:
    """Two bars for each environment and cache: what the device holds for it now, and after ``apply``."""
    trees = sorted(
        (*report["environments"], *report["caches"]), key=lambda tree: (-tree["disk_bytes"], tree["prefix"])
    )
    if not trees:
        return m.section("environments", "Environments", m.paragraph("There is none.")), None
    caches = {tree["prefix"] for tree in report["caches"]}
    rows = [
        (
            f"{tree['name']} (cache)" if tree["prefix"] in caches else tree["name"],
            tree["prefix"],
            detail["trees"][tree["prefix"]],
        )
        for tree in trees
    ]
    shown, others = divided(rows)
    if others:
        shown.append((f"{len(others):,} others", "", _sum([split for _, _, split in others])))
    label = (
        "For each environment and cache two bars: above what the device holds for it now, below what it "
        "holds once all is shared. Files that several have are in the bar of each."
    )
    chart = m.Chart("environments", label, _bars(shown), *_bars_layout(shown), _bars_table(trees, rows))
    return m.section("environments", "Environments now, and after apply",
                   m.figure(chart, m.legend(_SEGMENTS.items()))), chart  # fmt: skip


def divided(trees: list[T]) -> tuple[list[T], list[T]]:
    """Return those to be shown, and those to be put together, two at least."""
    most = len(trees) if len(trees) <= MOST_TREES + 1 else MOST_TREES
    return trees[:most], trees[most:]


def _sum(splits: list[Document]) -> Document:
    return {
        when: {kind: sum(split[when][kind] for split in splits) for kind in _SEGMENTS}
        for when in ("now", "then")
    }


def _bars(rows: list[tuple[str, str, Document]]) -> list[dict[str, object]]:
    traces: list[dict[str, object]] = []
    moments = (("now", "now", -_APART), ("then", "after apply", _APART))
    for kind, words in _SEGMENTS.items():
        places, lengths, texts = [], [], []
        for number, (name, prefix, split) in enumerate(rows):
            for when, said, apart in moments:
                places.append(number + apart)
                lengths.append(split[when][kind])
                texts.append(
                    f"<b>{m.short(name, 60)}</b> {said}<br>{words.partition(':')[0]} "
                    f"{m.size(split[when][kind])}<br>{m.short(prefix, 70)}"
                )
        pattern = {"shape": "/", "size": 5, "solidity": 0.25, "fgcolor": "--surface", "fillmode": "overlay"}
        traces.append(
            {
                "type": "bar",
                "orientation": "h",
                "name": kind,
                "x": lengths,
                "y": places,
                "width": 2 * _APART - 0.03,
                "hovertext": texts,
                "hoverinfo": "text",
                "marker": {"color": f"--{kind}"} | ({"pattern": pattern} if kind == "freeable" else {}),
            }
        )
    traces.append(
        {
            "type": "scatter",
            "mode": "text",
            "x": [sum(split[when].values()) for _, _, split in rows for when, _, _ in moments],
            "y": [number + apart for number in range(len(rows)) for _, _, apart in moments],
            "text": [
                f" {m.size(sum(split[when].values()))} {said.partition(' ')[0]}"
                for _, _, split in rows
                for when, said, _ in moments
            ],
            "textposition": "middle right",
            "textfont": {"size": 11, "color": "--ink"},
            "hoverinfo": "skip",
            "cliponaxis": False,
        }
    )
    return traces


def _bars_layout(rows: list[tuple[str, str, Document]]) -> tuple[dict[str, object], dict[str, object]]:
    most = max(sum(split["now"].values()) for _, _, split in rows) or 1
    ticks = list(range(len(rows)))
    layout: dict[str, object] = {
        "height": 60 + 46 * len(rows),
        "barmode": "stack",
        "margin": {"l": 20, "r": 10, "t": 10, "b": 40},
        "xaxis": {
            "range": [0, most * 1.2],
            "tickformat": ".3~s",
            "ticksuffix": "B",
            "nticks": 6,
            "fixedrange": True,
            "gridcolor": "--line",
            "zeroline": False,
        },
        "yaxis": {
            "range": [len(rows) - 0.4, -0.6],
            "tickvals": ticks,
            "ticktext": [m.short(name, 28) + " " for name, _, _ in rows],
            "fixedrange": True,
            "automargin": True,
            "showgrid": False,
            "zeroline": False,
        },
    }
    narrow: dict[str, object] = {
        "xaxis": {"range": [0, most * 1.75], "nticks": 3},
        "yaxis": {"ticktext": [m.short(name, 14) + " " for name, _, _ in rows]},
    }
    return layout, narrow


def _bars_table(trees: list[Document], rows: list[tuple[str, str, Document]]) -> str:
    titles = ("On disk", "Private", "Shared", "Freeable", "Held", "After apply")
    lines = []
    for tree, (name, prefix, split) in zip(trees, rows, strict=True):
        numbers = (
            tree["disk_bytes"],
            tree["private_bytes"],
            split["shared_bytes"],
            tree["freeable_bytes"],
            split["held_bytes"],
            sum(split["then"].values()),
        )
        lines.append(m.head_cell(name, prefix) + "".join(map(m.bytes_cell, numbers)) + m.text_cell(prefix))
    caption = (
        "What environments and caches take. Private and shared are all of it; freeable and held bytes are "
        "among them"
    )
    heads = [
        m.Column("Environment or cache"),
        *(m.Column(title, True) for title in titles),
        m.Column("Prefix"),
    ]
    return m.table(caption, heads, lines, "environments-table", sortable=True)
