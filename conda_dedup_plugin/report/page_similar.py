"""The part of a page about likeness: which environments have the same packages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import markup as m
from .text import Document

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..model import Scope

_Pairs = dict[tuple[str, str], Document]

#: So many environments are compared, those that take most.
_MOST = 50
#: With so many the numbers are in the squares.
_WITH_NUMBERS = 14
#: So many have room for their names below the squares on a phone.
_MOST_BELOW = 20
#: What a square takes, in pixels.
_SQUARE = 24


def similarity_document(scope: Scope, report: Document) -> Document:
    """Compare every pair of the environments that take most, package by package."""
    from ..similar import compare_all
    from ..specs.environment import read_environment
    from .compare import all_document

    largest = sorted(report["environments"], key=lambda tree: (-tree["disk_bytes"], tree["prefix"]))[:_MOST]
    found = compare_all(read_environment(tree["prefix"], tree["name"]) for tree in largest)
    return all_document(found) | {"left_out": len(report["environments"]) - len(largest)}


def similarity_section(similar: Document) -> tuple[str, m.Chart | None]:
    """A square for every two environments, those of a cluster side by side, and the clusters in words."""
    names = {one["source"]: one["name"] for one in similar["environments"]}
    if len(names) < 2:
        return "", None
    pairs = {(pair["a"], pair["b"]): pair for pair in similar["pairs"]}
    pairs |= {(b, a): pair for (a, b), pair in pairs.items()}
    order = _order(names, similar["clusters"], pairs)
    label = "How much two environments have in common: how many percent of their packages are identical."
    if similar["clusters"]:
        more = f"each is at least {similar['threshold']:.0%} like another one of them."
        label += f" Those in one frame are a cluster: {more}"
    if similar["left_out"]:
        label += f" {similar['left_out']:,} smaller environments are left out."
    traces, layout, narrow = _heat_map(order, names, similar["clusters"], pairs)
    chart = m.Chart("similarity", label, traces, layout, narrow, _table(order, names, pairs))
    return m.section("similarity", "Which are alike", m.figure(chart), _clusters(similar, names)), chart


def _order(names: dict[str, str], clusters: list[Document], pairs: _Pairs) -> list[str]:
    """Clusters first, the one that could save most at the start; then always the one most like the last."""
    order = [source for cluster in clusters for source in cluster["environments"]]
    left = [source for source in names if source not in order]
    while left:
        following = left[0] if not order else max(left, key=lambda one: _share(pairs, one, order[-1]))
        order.append(following)
        left.remove(following)
    return order


def _share(pairs: _Pairs, one: str, other: str) -> float:
    return 1.0 if one == other else float(pairs[one, other]["similarity"])


def _percent(share: float) -> str:
    """Never 100 % of what is not all."""
    return f"{int(share * 100)} %"


def _heat_map(
    order: list[str], names: dict[str, str], clusters: list[Document], pairs: _Pairs
) -> tuple[list[dict[str, object]], dict[str, object], dict[str, object]]:
    places = list(range(len(order)))
    shares = [[round(_share(pairs, one, other), 3) for other in order] for one in order]
    texts = [[_hover(pairs, names, one, other) for other in order] for one in order]
    trace: dict[str, object] = {
        "type": "heatmap",
        "x": places,
        "y": places,
        "z": shares,
        "zmin": 0,
        "zmax": 1,
        "hovertext": texts,
        "hoverinfo": "text",
        "xgap": 1,
        "ygap": 1,
        "colorscale": [[0, "--heat-0"], [1, "--heat-1"]],
        "showscale": False,
    }
    if len(order) <= _WITH_NUMBERS:
        trace |= {
            "text": [[f"{int(share * 100)}" for share in row] for row in shares],
            "texttemplate": "%{text}",
            "textfont": {"color": "--ink"},
        }
    axis: dict[str, object] = {
        "tickvals": places,
        "fixedrange": True,
        "automargin": True,
        "showgrid": False,
        "zeroline": False,
        "ticks": "",
    }
    labels = [m.short(names[one], 24) for one in order]
    small = [m.short(names[one], 11) for one in order]
    side = _SQUARE if len(order) > _WITH_NUMBERS else 2 * _SQUARE - len(order)
    layout: dict[str, object] = {
        "height": max(260, side * len(order) + 140),
        "margin": {"l": 20, "r": 10, "t": 10, "b": 20},
        "xaxis": axis | {"ticktext": labels, "tickangle": -60, "range": [-0.5, len(order) - 0.5]},
        "yaxis": axis | {"ticktext": labels, "range": [len(order) - 0.5, -0.5]},
        "shapes": list(_frames(clusters)),
    }
    narrow: dict[str, object] = {
        "xaxis": {"ticktext": small, "tickangle": -90},
        "yaxis": {"ticktext": small},
        "height": max(260, 20 * len(order) + 120),
    }
    if len(order) > _WITH_NUMBERS:
        for some in (narrow["xaxis"], narrow["yaxis"]):
            some["tickfont"] = {"size": 8}  # type: ignore[index]
        narrow["height"] = max(300, 11 * len(order) + 90)
    if len(order) > _MOST_BELOW:
        narrow["xaxis"] = {"showticklabels": False}
    return [trace], layout, narrow


def _hover(pairs: _Pairs, names: dict[str, str], one: str, other: str) -> str:
    if one == other:
        return f"<b>{m.short(names[one], 50)}</b>"
    pair = pairs[one, other]
    return (
        f"<b>{m.short(names[one], 40)}</b> and <b>{m.short(names[other], 40)}</b><br>"
        f"{_percent(pair['similarity'])} alike: {pair['identical']:,} identical packages"
    )


def _frames(clusters: list[Document]) -> Iterable[dict[str, object]]:
    """Yield a frame around the squares of each cluster."""
    start = -0.5
    for cluster in clusters:
        end = start + len(cluster["environments"])
        line = {"color": "--freeable", "width": 3}
        yield {"type": "rect", "x0": start, "x1": end, "y0": start, "y1": end, "line": line}
        start = end


def _table(order: list[str], names: dict[str, str], pairs: _Pairs) -> str:
    lines = (
        m.head_cell(names[one], one)
        + "".join(
            f'<td class="n" data-value="{_share(pairs, one, other):.6f}">'
            f"{_percent(_share(pairs, one, other))}</td>"
            for other in order
        )
        for one in order
    )
    heads = [m.Column("Environment"), *(m.Column(names[one], True) for one in order)]
    return m.table("Identical packages of every two environments", heads, lines, "similarity-table")


def _clusters(similar: Document, names: dict[str, str]) -> str:
    if not similar["clusters"]:
        return m.paragraph(f"No two are {similar['threshold']:.0%} alike.")
    lines = []
    for cluster in similar["clusters"]:
        members = ", ".join(m.short(names[source], 40) for source in cluster["environments"])
        lines.append(
            f'<th scope="row">{members}</th>'
            + m.number_cell(cluster["common_packages"])
            + m.bytes_cell(cluster["saving"])
            + m.bytes_cell(cluster["bytes_of_all"])
        )
    titles = ("Packages in all", "Twice or more", "Size of all")
    heads = [m.Column("Environments"), *(m.Column(title, True) for title in titles)]
    caption = (
        f"Clusters of environments that are at least {similar['threshold']:.0%} alike; sizes as packages say"
    )
    return m.table(caption, heads, lines, "clusters-table")
