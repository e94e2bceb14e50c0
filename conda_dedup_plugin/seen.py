"""What a walk has seen of one inode: of several names the first is looked at, the others are known by it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .layouts import BLOCK, disk_bytes_of
from .listing import ident
from .model import Hazard, InodeKey
from .packing import pack_stat

if TYPE_CHECKING:
    import os

    from .listing import Blocks


class Seen:
    """An inode with several names, of which one at least has been seen; in the tree at hand so many."""

    __slots__ = ("blocks", "count", "dist", "hazard", "ident", "nlink", "packed", "recorded", "size", "tree")

    def __init__(self, stat: os.stat_result, blocks: Blocks) -> None:
        self.ident = ident(InodeKey(stat.st_dev, stat.st_ino))
        self.size = stat.st_size
        self.nlink = stat.st_nlink
        self.blocks = blocks
        self.packed = pack_seen(stat, blocks)
        self.tree = -1
        self.count = 0
        self.hazard = Hazard.NATIVE
        self.dist = 0
        self.recorded = False


def own_bytes_of(disk: int, blocks: Blocks | None) -> int:
    """Return what goes with a file at least; ``disk`` bytes where its extents were not asked for."""
    return disk if blocks is None or not blocks.pool else blocks.plain + BLOCK * len(blocks.own)


def pack_seen(stat: os.stat_result, blocks: Blocks | None) -> bytes:
    """Pack what a row says of its inode."""
    own = own_bytes_of(-1, blocks)
    return pack_stat(stat, disk_bytes_of(stat), own)
