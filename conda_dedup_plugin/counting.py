"""Counts the files of trees: bytes of names, of inodes, and of the device."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from .layouts import BLOCK, CompressedSizes, disk_bytes_of, shared_extents
from .ledger import Ledger
from .model import Extent, Inode, InodeKey, Name, Totals
from .policy import hazard_of

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping

    from .inventory import Inventory
    from .model import Claim, Hazard
    from .physical import Layouts
    from .walking import Found


class Blocks(NamedTuple):
    """What one inode takes of its device.

    ``plain`` bytes it alone has. Of the ``own`` extents, too, but what they take must be estimated;
    ``shared`` are those that other inodes have as well.
    """

    plain: int
    own: tuple[Extent, ...] = ()
    shared: tuple[Extent, ...] = ()
    pool: str = ""


@dataclass(slots=True)
class _Shared:
    """An inode with several names, while they are being counted."""

    plain: int
    hazard: Hazard
    recorded: bool


class FileCounter:
    """Counts files into an inventory, tree by tree; ``layouts`` tells of extents where files share them."""

    def __init__(self, inventory: Inventory, min_size: int, layouts: Layouts | None = None) -> None:
        self._inventory = inventory
        self._min_size = min_size
        self._layouts = layouts
        self._shared: dict[InodeKey, _Shared] = {}
        #: What inodes take that have several names, or extents for a ledger.
        self._blocks: dict[InodeKey, Blocks] = {}
        self._ledgers: dict[str, Ledger] = {}
        self.sizes = CompressedSizes()

    def tree(self, index: int, files: Iterable[Found], claims: Mapping[str, Claim]) -> None:
        """Count all ``files`` of the tree at ``index``."""
        inventory = self._inventory
        tree = inventory.scope.trees[index]
        counted = inventory.trees[index]
        here: Counter[InodeKey] = Counter()
        several: dict[InodeKey, tuple[int, Hazard, bool]] = {}
        for file in files:
            path, stat, _ = file
            key = InodeKey(stat.st_dev, stat.st_ino)
            claim = claims.get(path)
            hazard = hazard_of(path, claim)
            counted.files += 1
            counted.apparent_bytes += stat.st_size
            blocks = self._blocks_of(key, file)
            if stat.st_nlink <= 1:  # none: it goes this very moment
                counted.inodes += 1
                counted.disk_bytes += blocks.plain
                counted.private_bytes += blocks.plain
                self._note(blocks, index, hazard, True, claim is not None)
            else:
                here[key] += 1
                several[key] = (stat.st_nlink, hazard, claim is not None)
            if tree.selected:
                self._total(key, stat, hazard, claim is not None, blocks.plain)
            if stat.st_size >= self._min_size and (tree.is_cache or not path.startswith("conda-meta/")):
                self._keep(key, stat, Name(index, path, claim), hazard, blocks)
        for key, names in here.items():
            nlink, hazard, recorded = several[key]
            blocks = self._blocks[key]
            counted.inodes += 1
            counted.disk_bytes += blocks.plain
            if names == nlink:
                counted.private_bytes += blocks.plain
            self._note(blocks, index, hazard, names == nlink, recorded)

    def _blocks_of(self, key: InodeKey, file: Found) -> Blocks:
        found = self._blocks.get(key) if file.stat.st_nlink > 1 else None
        if found is not None:
            return found
        layout = None
        if self._layouts is not None:
            layout, pool = self._layouts.of(file)
        if layout is None:
            found = Blocks(disk_bytes_of(file.stat))
        else:
            self.sizes.add(pool, layout)
            plain = sum(extent.length for extent in layout.unshared if not extent.encoded)
            own = tuple(extent for extent in layout.unshared if extent.encoded)
            found = Blocks(plain, own, shared_extents(layout), pool)
        if file.stat.st_nlink > 1:
            self._blocks[key] = found
        return found

    def _note(self, blocks: Blocks, index: int, hazard: Hazard, private: bool, recorded: bool) -> None:
        if blocks.own or blocks.shared:
            ledger = self._ledgers.setdefault(blocks.pool, Ledger(blocks.pool))
            ledger.add(blocks.own, index, hazard, private, recorded)
            ledger.add(blocks.shared, index, hazard, False, recorded)

    def _total(self, key: InodeKey, stat: os.stat_result, hazard: Hazard, recorded: bool, plain: int) -> None:
        if stat.st_nlink > 1:
            shared = self._shared.get(key)
            if shared is not None:
                shared.recorded |= recorded
                for totals in self._totals(shared.hazard):
                    totals.files += 1
                    totals.apparent_bytes += stat.st_size
                return
            self._shared[key] = _Shared(plain, hazard, recorded)
        for totals in self._totals(hazard):
            totals.files += 1
            totals.inodes += 1
            totals.apparent_bytes += stat.st_size
            totals.disk_bytes += plain
            if stat.st_nlink == 1 and not recorded:
                totals.unrecorded_bytes += plain

    def _totals(self, hazard: Hazard) -> tuple[Totals, Totals]:
        return self._inventory.totals, self._inventory.by_class.setdefault(hazard, Totals())

    def _keep(self, key: InodeKey, stat: os.stat_result, name: Name, hazard: Hazard, blocks: Blocks) -> None:
        inode = self._inventory.inodes.get(key)
        if inode is None:
            inode = Inode.of(stat)
            if blocks.pool:
                inode.own_bytes = blocks.plain + BLOCK * len(blocks.own)
            self._inventory.inodes[key] = inode
        inode.names.append(name)
        inode.hazard = max(inode.hazard, hazard)

    def finish(self) -> None:
        """Add what is known only when every name and every extent was seen."""
        for shared in self._shared.values():
            if not shared.recorded:
                for totals in self._totals(shared.hazard):
                    totals.unrecorded_bytes += shared.plain
        for ledger in self._ledgers.values():
            self._settle(ledger)

    def _settle(self, ledger: Ledger) -> None:
        inventory = self._inventory
        for segment in ledger.segments(self.sizes):
            for index in segment.trees:
                inventory.trees[index].disk_bytes += segment.size
                if segment.private:
                    inventory.trees[index].private_bytes += segment.size
            if any(inventory.scope.trees[index].selected for index in segment.trees):
                for totals in self._totals(segment.hazard):
                    totals.disk_bytes += segment.size
                    totals.estimated_bytes += segment.size if segment.estimated else 0
                    totals.unrecorded_bytes += 0 if segment.recorded else segment.size
