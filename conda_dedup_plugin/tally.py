"""Puts the listings of trees together: what is counted of everything, each inode and extent once."""

from __future__ import annotations

from array import array
from itertools import compress
from typing import TYPE_CHECKING

from .ledger import Ledger
from .listing import RECORDED, Linked
from .model import Hazard, Totals, TreeTotals

if TYPE_CHECKING:
    from types import TracebackType

    from .inventory import Inventory
    from .listing import Listing

#: So many names of inodes that have several are looked at in one go.
_MOST_LINKED = 1 << 20
#: Of kinds, whether a record speaks of the file.
_IS_RECORDED = bytes(bool(kind & RECORDED) for kind in range(256))


class Tally:
    """Counts listings into an inventory; in the end, when all are there, what several of them have."""

    def __init__(self, inventory: Inventory) -> None:
        self._inventory = inventory
        self._listings: list[Listing | None] = [None] * len(inventory.scope.trees)
        inventory.trees = [TreeTotals() for _ in inventory.scope.trees]

    def __enter__(self) -> Tally:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.finish()

    def add(self, listing: Listing) -> None:
        """Count a listing, in whatever order they come."""
        self._inventory.shelf.add(listing)
        self._inventory.trees[listing.index] = listing.counted
        if listing.parts:
            self._inventory.parts[listing.index] = listing.parts
        # the shelf has them, or has put them away
        listing.rows, listing.idents, listing.keys, listing.starts = b"", array("Q"), array("Q"), array("Q")
        self._listings[listing.index] = listing

    def finish(self) -> None:
        """Count what is known only when all listings are there."""
        inventory = self._inventory
        inventory.shelf.sort()
        listings = [listing for listing in self._listings if listing is not None]
        inventory.may_share_extents = any(listing.may_share_extents for listing in listings)
        ledgers: dict[str, Ledger] = {}
        linked: list[Linked] = []
        for listing in listings:
            index = listing.index
            inventory.warnings += listing.warnings
            inventory.devices |= listing.devices
            inventory.folders[index] = listing.folders
            if listing.builds:
                inventory.builds[index] = listing.builds
            for pool, begins in listing.begins.items():
                inventory.sizes.begin(pool, begins)
            for holding in listing.holdings:
                pool = holding.blocks.pool
                ledger = ledgers.setdefault(pool, Ledger(pool))
                ledger.add(holding.blocks.own, index, holding.hazard, holding.private, holding.recorded)
                ledger.add(holding.blocks.shared, index, holding.hazard, False, holding.recorded)
            if inventory.scope.trees[index].selected:
                if listing.clobbered:
                    inventory.clobbered[index] = listing.clobbered
                for hazard, counted in listing.classes.items():
                    for totals in self._totals(hazard):
                        totals.add(counted)
                linked.append(listing.linked)
        self._count_linked(linked)
        for ledger in ledgers.values():
            self._settle(ledger)

    def _totals(self, hazard: Hazard) -> tuple[Totals, Totals]:
        return self._inventory.totals, self._inventory.by_class.setdefault(hazard, Totals())

    def _count_linked(self, columns: list[Linked]) -> None:
        """Count each inode with several names once, in the class of the name that was seen first."""
        turns = -(-sum(len(linked.idents) for linked in columns) // _MOST_LINKED)
        for turn in range(turns):
            first: dict[int, tuple[int, int]] = {}
            recorded: set[int] = set()
            # a tree has each inode once; of several trees the first one counts
            for linked in reversed(columns):
                rows = zip(linked.idents, zip(linked.kinds, linked.plain, strict=True), strict=True)
                first.update(rows if turns == 1 else [row for row in rows if row[0] % turns == turn])
                recorded.update(compress(linked.idents, linked.kinds.translate(_IS_RECORDED)))
            counted = [Totals() for _ in Hazard]
            for ident, (kind, size) in first.items():
                totals = counted[kind & ~RECORDED]
                totals.inodes += 1
                totals.disk_bytes += size
                totals.unrecorded_bytes += 0 if ident in recorded else size
            for hazard, found in zip(Hazard, counted, strict=True):
                for totals in self._totals(hazard) if found.inodes else ():
                    totals.add(found)

    def _settle(self, ledger: Ledger) -> None:
        inventory = self._inventory
        for segment in ledger.segments(inventory.sizes):
            for index in segment.trees:
                inventory.trees[index].disk_bytes += segment.size
                if segment.private:
                    inventory.trees[index].private_bytes += segment.size
            if any(inventory.scope.trees[index].selected for index in segment.trees):
                for totals in self._totals(segment.hazard):
                    totals.disk_bytes += segment.size
                    totals.estimated_bytes += segment.size if segment.estimated else 0
                    totals.unrecorded_bytes += 0 if segment.recorded else segment.size
