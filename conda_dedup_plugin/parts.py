"""What the files of each package take in one tree, by hazard class: counted only when somebody asks."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from .model import Hazard, Totals

if TYPE_CHECKING:
    from .listing import Blocks, Parts


class PartCounter(defaultdict[tuple[int, Hazard], Totals]):
    """By the number of the dist (0: no record speaks of a file) and the hazard class.

    What somebody adds to its totals stands in for that of the hazard class: see :meth:`settle`.
    """

    def __init__(self) -> None:
        super().__init__(Totals)
        self._linked: dict[tuple[int, Hazard], int] = defaultdict(int)
        self._extents: dict[tuple[int, Hazard], int] = defaultdict(int)

    def hold(self, dist: int, hazard: Hazard, blocks: Blocks) -> None:
        """Count extents of which it is not known file by file what they take of the device."""
        lengths = sum(extent.length for extent in (*blocks.own, *blocks.shared))
        if lengths:
            self._extents[dist, hazard] += lengths

    def link(self, dist: int, hazard: Hazard, blocks: Blocks) -> None:
        """Count an inode with several names, at the first of them."""
        self._linked[dist, hazard] += blocks.plain
        self.hold(dist, hazard, blocks)

    def settle(self, classes: list[Totals]) -> Parts:
        """Add the totals to those of their classes; return what each part takes."""
        for (_, hazard), totals in self.items():
            classes[hazard].add(totals)
        return {
            part: (totals.disk_bytes + self._linked[part], self._extents[part])
            for part, totals in self.items()
        }
