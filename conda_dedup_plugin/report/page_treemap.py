"""The part of a page about packages: what takes the room in each environment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import markup as m
from .page_bars import MOST_TREES, divided

if TYPE_CHECKING:
    from .text import Document

#: So many packages are in the treemap for sure, shared out evenly, and so many of one environment at most.
_MOST_PACKAGES = 500
_MOST_OF_ONE = 30
_KINDS = {
    "native": "libraries and programs",
    "bytecode": "bytecode",
    "package": "other files of packages",
    "untracked": "text and data of pip's or yours",
    "mutable": "may be changed in place",
    "prefixed": "patched with the prefix",
}
#: With more environments, one must be chosen to see its packages.
_MOST_OPEN = 16
_OTHER = "other packages"


def treemap_section(report: Document, detail: Document) -> tuple[str, m.Chart | None]:
    """Environment, package and kind of file, each as big as what it takes on disk."""
    trees = sorted(report["environments"], key=lambda tree: (-tree["disk_bytes"], tree["prefix"]))
    trees = [tree for tree in trees if tree["disk_bytes"]]
    if not trees:
        return "", None
    most = max(3, min(_MOST_OF_ONE, _MOST_PACKAGES // min(len(trees), MOST_TREES)))
    named = [(tree, _with_other(detail["trees"][tree["prefix"]]["packages"], most)) for tree in trees]
    shown, others = divided(named)
    if others:
        whole = [
            {"name": "all packages", "dist": "", "kinds": _kinds([one for _, own in others for one in own])}
        ]
        rest = {"name": f"{len(others):,} others"}
        shown.append((rest, whole))
    label = (
        "Each environment as an area, in it its packages, in these the kinds of files: as big as what it "
        "takes on disk. A package has the colour of the kind that takes most. Choose an area to look into it."
    )
    chart = m.Chart(
        "packages",
        label,
        [_treemap(shown)],
        {
            "height": 600,
            "margin": {"l": 0, "r": 0, "t": 28, "b": 0},
            "uniformtext": {"minsize": 10, "mode": "hide"},
        },
        {"height": 520} | ({"uniformtext": {"mode": False}} if len(shown) > _MOST_OPEN else {}),
        _treemap_table(shown),
    )
    kinds = {kind for _, own in shown for one in own for kind in one["kinds"]}
    colours = [(f"kind-{kind}", words) for kind, words in _KINDS.items() if kind in kinds]
    if any(one["name"] == _OTHER for _, own in shown for one in own):
        colours.append(("kind-other", _OTHER))
    return m.section("packages", "What takes the room", m.figure(chart, m.legend(colours))), chart


def _kinds(packages: list[Document]) -> dict[str, int]:
    found = dict.fromkeys(_KINDS, 0)
    for package in packages:
        for kind, number in package["kinds"].items():
            found[kind] += number
    return {kind: number for kind, number in found.items() if number}


def _with_other(packages: list[Document], most: int) -> list[Document]:
    if len(packages) <= most + 1:
        return packages
    rest = packages[most:]
    return [
        *packages[:most],
        {"name": _OTHER, "dist": f"{len(rest):,} other packages", "kinds": _kinds(rest)},
    ]


class _Areas:
    """The columns that plotly wants: an element for each area, one that others are in before them."""

    def __init__(self) -> None:
        self.columns: dict[str, list[object]] = {
            key: [] for key in ("ids", "labels", "parents", "values", "colors", "ink", "hovertext")
        }

    def add(self, own: str, within: str, label: str, taken: int, colour: str, more: str = "") -> None:
        """Add an area that takes so many bytes; ``more`` is told of it besides."""
        is_kind = colour.startswith("--kind")
        row = {
            "ids": own,
            "labels": m.short(label, 18) if is_kind else f"{m.short(label, 20)} · {m.size(taken)}",
            "parents": within,
            "values": taken,
            "colors": colour,
            "ink": "--on-kind" if is_kind else "--ink",
            "hovertext": f"<b>{m.short(label, 60)}</b><br>{m.size(taken)}<br>{m.short(more, 70)}",
        }
        for key, value in row.items():
            self.columns[key].append(value)


def _treemap(shown: list[tuple[Document, list[Document]]]) -> dict[str, object]:
    areas = _Areas()
    whole = sum(sum(one["kinds"].values()) for _, packages in shown for one in packages)
    areas.add("all", "", "all environments", whole, "--surface")
    for number, (tree, packages) in enumerate(shown):
        environment = str(number)
        taken = sum(sum(package["kinds"].values()) for package in packages)
        areas.add(environment, "all", tree["name"], taken, "--area", tree.get("prefix", ""))
        for place, package in enumerate(packages):
            kinds, own = package["kinds"], f"{environment}/{place}"
            if kinds:
                main = max(kinds, key=lambda kind: int(kinds[kind]))
                colour = "--kind-other" if package["name"] == _OTHER else f"--kind-{main}"
                areas.add(own, environment, package["name"], sum(kinds.values()), colour, package["dist"])
            for kind, taken in kinds.items():
                areas.add(f"{own}/{kind}", own, _KINDS[kind], taken, f"--kind-{kind}", package["dist"])
    columns = areas.columns
    return {
        "type": "treemap",
        **{key: columns[key] for key in ("ids", "labels", "parents", "values", "hovertext")},
        "branchvalues": "total",
        "maxdepth": 3 if len(shown) <= _MOST_OPEN else 2,
        "hoverinfo": "text",
        "textinfo": "label",
        "textfont": {"color": columns["ink"]},
        "marker": {
            "colors": columns["colors"],
            "line": {"width": 1, "color": "--surface"},
            "pad": {"t": 20, "l": 2, "r": 2, "b": 2},
        },
        "tiling": {"pad": 1},
        "pathbar": {"thickness": 24, "textfont": {"color": "--ink"}},
    }


def _treemap_table(shown: list[tuple[Document, list[Document]]]) -> str:
    kinds = [kind for kind in _KINDS if any(kind in one["kinds"] for _, own in shown for one in own)]
    lines = [
        m.head_cell(tree["name"], tree.get("prefix", ""))
        + m.text_cell(package["dist"] or package["name"])
        + m.bytes_cell(sum(package["kinds"].values()))
        + "".join(m.bytes_cell(package["kinds"].get(kind, 0)) for kind in kinds)
        for tree, packages in shown
        for package in packages
    ]
    heads = [m.Column("Environment"), m.Column("Package"), m.Column("On disk", True)]
    heads += [m.Column(_KINDS[kind].capitalize(), True) for kind in kinds]
    return m.table(
        "What the packages of each environment take", heads, lines, "packages-table", sortable=True
    )
