"""What the page of a report says beyond the report's document: a document too, of numbers and names alone."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from ..detail import Split
from .json import group_document

if TYPE_CHECKING:
    from ..engine import Analysis
    from ..inventory import Inventory
    from ..model import Hazard, TreeTotals

#: What is said of files that no record speaks of.
NO_PACKAGE = "no package"


def detail_document(analysis: Analysis) -> dict[str, Any]:
    """Return for each selected tree, by its prefix, how its bytes are split; and more of the duplicates."""
    inventory, scope = analysis.inventory, analysis.scope
    splits = {} if analysis.reckoning.detail is None else analysis.reckoning.detail.trees
    return {
        "trees": {
            tree.root: {
                **_split(inventory.trees[index], splits.get(index, Split())),
                "packages": [] if tree.is_cache else _packages(inventory, index),
            }
            for index, tree in enumerate(scope.trees)
            if tree.selected
        },
        "largest": [group_document(scope, group) for group in analysis.plan.largest()],
    }


def _split(totals: TreeTotals, split: Split) -> dict[str, Any]:
    """Take duplicates out of what is private and shared, so that each byte is in one place.

    Afterwards what is freed is gone, and what others came to use is shared.
    """
    shared = totals.disk_bytes - totals.private_bytes
    private_alone = max(0, totals.private_bytes - split.freeable_private - split.held_private)
    twice = totals.freeable_bytes - split.freeable_private + split.held - split.held_private
    shared_alone = max(0, shared - twice)
    lent = min(split.lent, private_alone)
    return {
        "shared_bytes": shared,
        "held_bytes": split.held,
        "now": {
            "private": private_alone,
            "shared": shared_alone,
            "held": split.held,
            "freeable": totals.freeable_bytes,
        },
        "then": {
            "private": private_alone - lent,
            "shared": shared_alone + lent,
            "held": split.held,
            "freeable": 0,
        },
    }


def _packages(inventory: Inventory, index: int) -> list[dict[str, Any]]:
    """Return what each package of an environment takes, by the class of its files; most bytes first.

    Together that is what the environment takes. Where extents are shared or compressed, no file's part
    of it is known: it goes by the length of the extents.
    """
    parts = inventory.parts.get(index, {})
    rest = max(0, inventory.trees[index].disk_bytes - sum(size for size, _ in parts.values()))
    weight = sum(length for _, length in parts.values())
    found: dict[int, dict[Hazard, int]] = defaultdict(dict)
    for (dist, hazard), (size, length) in parts.items():
        found[dist][hazard] = size
        if length:
            more = rest * length // weight
            found[dist][hazard] += more
            rest, weight = rest - more, weight - length
    dists = inventory.shelf.dists
    packages = [
        {
            "name": dists[dist].name if dist else NO_PACKAGE,
            "dist": str(dists[dist]) if dist else NO_PACKAGE,
            "bytes": sum(kinds.values()),
            "kinds": {hazard.name.lower(): size for hazard, size in sorted(kinds.items()) if size},
        }
        for dist, kinds in found.items()
    ]
    return sorted(packages, key=lambda one: (-one["bytes"], one["dist"]))
