"""Puts the listings of trees together: what is counted of everything, each inode and extent once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .ledger import Ledger
from .listing import RECORDED, Linked
from .model import Hazard, Totals, TreeTotals

if TYPE_CHECKING:
    from types import TracebackType

    from .inventory import Inventory
    from .listing import Listing


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
            self._finish()

    def add(self, listing: Listing) -> None:
        """Count a listing, in whatever order they come."""
        self._inventory.shelf.add(listing)
        self._inventory.trees[listing.index] = listing.counted
        if listing.parts:
            self._inventory.parts[listing.index] = listing.parts
        listing.rows = b""
        self._listings[listing.index] = listing

    def _finish(self) -> None:
        inventory = self._inventory
        inventory.shelf.sort()
        listings = [listing for listing in self._listings if listing is not None]
        inventory.may_share_extents = any(listing.may_share_extents for listing in listings)
        ledgers: dict[str, Ledger] = {}
        linked: dict[int, Linked] = {}
        for index, listing in enumerate(self._listings):
            if listing is None:
                continue
            inventory.warnings += listing.warnings
            inventory.folders[index] = listing.folders
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
                linked[index] = listing.linked
        self._count_linked(list(linked.values()))
        for ledger in ledgers.values():
            self._settle(ledger)

    def _totals(self, hazard: Hazard) -> tuple[Totals, Totals]:
        return self._inventory.totals, self._inventory.by_class.setdefault(hazard, Totals())

    def _count_linked(self, columns: list[Linked]) -> None:
        """Count each inode with several names once, in the class of the name that was seen first."""
        first: dict[int, int] = {}
        plain: dict[int, int] = {}
        recorded: set[int] = set()
        for linked in columns:
            recorded.update(
                ident for ident, kind in zip(linked.idents, linked.kinds, strict=True) if kind & RECORDED
            )
            for ident, size, kind in zip(linked.idents, linked.plain, linked.kinds, strict=True):
                if ident not in first:
                    first[ident] = kind & ~RECORDED
                    plain[ident] = size
        for ident, kind in first.items():
            for totals in self._totals(Hazard(kind)):
                totals.inodes += 1
                totals.disk_bytes += plain[ident]
                if ident not in recorded:
                    totals.unrecorded_bytes += plain[ident]

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
