"""Pieces of a page: text that is escaped, sizes, tables and charts with the table behind them."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, NamedTuple

from rich.filesize import decimal

from .text import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class Chart(NamedTuple):
    """A chart: what plotly draws, how it is called, what it shows in a sentence, and the table behind it.

    A colour that begins with ``--`` is one of the style sheet's; ``narrow`` are other parts of the layout
    for a phone.
    """

    name: str
    label: str
    traces: list[dict[str, object]]
    layout: dict[str, object]
    narrow: dict[str, object]
    table: str


class Column(NamedTuple):
    """The head of a column of a table."""

    title: str
    number: bool = False


def plain(text: object) -> str:
    """Escape a text, whatever is in it; plotly reads tags and entities too."""
    return escape(printable(str(text)))


def short(text: str, most: int) -> str:
    """Escape a text, with its middle left out if it is longer."""
    shown = printable(text)
    if len(shown) > most:
        head = (most - 1) // 2
        shown = f"{shown[:head]}…{shown[head + 1 - most :]}"
    return escape(shown)


def size(number: int) -> str:
    """Write bytes for people."""
    return decimal(number)


def bytes_cell(number: int) -> str:
    """Return a cell with bytes: for people, and exactly."""
    return f'<td class="n" data-value="{number}" title="{number:,} bytes">{size(number)}</td>'


def number_cell(number: int) -> str:
    """Return a cell with a number."""
    return f'<td class="n" data-value="{number}">{number:,}</td>'


def text_cell(text: object) -> str:
    """Return a cell with a text."""
    return f"<td>{plain(text)}</td>"


def head_cell(text: object, title: str = "") -> str:
    """Return the cell that says what a row is about."""
    told = f' title="{plain(title)}"' if title else ""
    return f'<th scope="row"{told}>{plain(text)}</th>'


def bar_cell(number: int, most: int, kind: str) -> str:
    """Return a cell with bytes, and a bar as long as they are of the ``most``."""
    share = round(100 * number / most, 1) if most else 0
    bar = f'<span class="bar {kind}" style="width:{share}%" aria-hidden="true"></span>'
    return f'<td class="n wide" data-value="{number}" title="{number:,} bytes">{size(number)}{bar}</td>'


def table(
    caption: str, columns: Sequence[Column], rows: Iterable[str], name: str = "", sortable: bool = False
) -> str:
    """Return a table of ``rows``, each a line of cells, that can be scrolled sideways on its own."""
    heads = []
    for column in columns:
        title = plain(column.title)
        inner = f'<button type="button">{title}</button>' if sortable else title
        heads.append(f'<th scope="col"{" class=n" if column.number else ""}>{inner}</th>')
    told = f' id="{name}"' if name else ""
    kind = ' class="sortable"' if sortable else ""
    body = "\n".join(f"<tr>{row}</tr>" for row in rows)
    return (
        f'<div class="scroll" role="region" aria-label="{plain(caption)}" tabindex="0"><table{told}{kind}>'
        f"<caption>{plain(caption)}</caption>\n<thead><tr>{''.join(heads)}</tr></thead>\n"
        f"<tbody>\n{body}\n</tbody></table></div>"
    )


def legend(kinds: Iterable[tuple[str, str]]) -> str:
    """Return what colours mean: the class of each, and its words."""
    items = "".join(
        f'<li><span class="swatch {kind}" aria-hidden="true"></span>{plain(words)}</li>'
        for kind, words in kinds
    )
    return f'<ul class="legend">{items}</ul>'


def figure(chart: Chart, before: str = "") -> str:
    """Return the place of a chart, what it shows in words, and the table with the same numbers."""
    return (
        f'<figure>{before}<div class="chart" id="chart-{chart.name}" role="img" '
        f'aria-label="{plain(chart.label)}" style="min-height:{chart.layout["height"]}px"></div>'
        f"<figcaption>{plain(chart.label)}</figcaption></figure>\n"
        f"<details><summary>The same numbers as a table</summary>{chart.table}</details>"
    )


def section(name: str, title: str, *inner: str) -> str:
    """Return a part of the page with a heading."""
    body = "\n".join(inner)
    return (
        f'<section id="{name}" aria-labelledby="{name}-title"><h2 id="{name}-title">{plain(title)}</h2>\n'
        f"{body}\n</section>"
    )


def paragraph(text: str) -> str:
    """Return a paragraph."""
    return f"<p>{plain(text)}</p>"
