"""What extents of files have in common, and what they take of the device. Pure."""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_right
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable

    from .model import Inode

#: The least that an extent takes, and that a compressed one takes less than its length.
BLOCK = 4096
#: Of what is compressed so much is left where nothing tells.
_USUAL_RATIO = 0.5


class Extent(NamedTuple):
    """A run of bytes of a file and where it lies on the device, all in bytes.

    ``encoded``: it is compressed, and takes less of the device than its length.
    """

    logical: int
    physical: int
    length: int
    encoded: bool = False


class Layout(NamedTuple):
    """The extents of one file, neighbours merged.

    ``shared``: some extent is referenced more than once; ``own`` are the others then. ``exact``: every
    extent has a physical place of its own (not inline, not still to be written).
    """

    extents: tuple[Extent, ...]
    shared: bool
    exact: bool
    own: tuple[Extent, ...] = ()

    @property
    def unshared(self) -> tuple[Extent, ...]:
        """The extents that nobody else references."""
        return self.own if self.shared else self.extents

    @property
    def encoded(self) -> bool:
        """Whether any of it is compressed."""
        return any(extent.encoded for extent in self.extents)


def disk_bytes_of(stat: os.stat_result) -> int:
    """Return what a file takes on its device; Windows does not say, so it is taken to be whole blocks."""
    if sys.platform == "win32":
        return -(-stat.st_size // BLOCK) * BLOCK
    else:
        return stat.st_blocks * 512


def append(extents: list[Extent], found: Extent) -> None:
    """Add an extent, merged with its neighbour: XFS splits one where part of it is shared."""
    if extents and not found.encoded and not extents[-1].encoded:
        logical, physical, length, _ = extents[-1]
        if (logical + length, physical + length) == (found.logical, found.physical):
            extents[-1] = Extent(logical, physical, length + found.length)
            return
    extents.append(found)


def total(extents: Iterable[Extent]) -> int:
    """Return the length of extents together, in bytes."""
    return sum(extent.length for extent in extents)


def common_bytes(first: Layout, second: Layout) -> int:
    """Return how many bytes of two files lie at the same place of the device.

    What is compressed is at the place where it begins; it ends before its length says.
    """
    found = 0
    for logical, physical, length, encoded in second.extents:
        for start, place, size, packed in first.extents:
            if encoded != packed:
                continue
            if place == physical if encoded else place - start == physical - logical:
                found += max(0, min(start + size, logical + length) - max(start, logical))
    return found


def shared_extents(layout: Layout) -> tuple[Extent, ...]:
    """Return the extents, or parts of them, that others reference too."""
    if not layout.shared:
        return ()
    found = []
    own = sorted(layout.own)
    for logical, physical, length, encoded in layout.extents:
        start, end = logical, logical + length
        for piece in own:
            if start <= piece.logical < end:
                if piece.logical > start:
                    found.append(Extent(start, physical + start - logical, piece.logical - start, encoded))
                start = piece.logical + piece.length
        if start < end:
            found.append(Extent(start, physical + start - logical, end - start, encoded))
    return tuple(found)


class CompressedSizes:
    """Tells what compressed extents take of their file system, which FIEMAP does not say.

    No two extents overlap: one ends at the latest where the next begins, and is written there if both are
    written in turn. So this is about right where much of the file system is known, and too much elsewhere.
    """

    def __init__(self) -> None:
        self._starts: dict[str, array[int]] = {}
        self._sorted: dict[str, list[int]] = {}
        self._known = self._plain = 0

    def add(self, pool: str, layout: Layout) -> None:
        """Note where the extents of a file of the file system ``pool`` begin."""
        self.begin(pool, array("Q", [extent.physical for extent in layout.extents]))

    def begin(self, pool: str, begins: array[int]) -> None:
        """Note where extents begin."""
        self._starts.setdefault(pool, array("Q")).extend(begins)
        self._sorted.pop(pool, None)

    def size(self, pool: str, physical: int, length: int) -> int:
        """Return about how many bytes the compressed extent at ``physical`` takes; ``length`` unpacked."""
        starts = self._sorted.get(pool)
        if starts is None:
            starts = self._sorted[pool] = sorted(set(self._starts.get(pool, ())))
        index = bisect_right(starts, physical)
        most = max(length - BLOCK, BLOCK)
        gap = starts[index] - physical if index < len(starts) else most + 1
        if gap <= most:
            self._known += gap
            self._plain += length
            return gap
        ratio = self._known / self._plain if self._plain else _USUAL_RATIO
        return min(most, in_blocks(int(length * ratio)))

    def disk_bytes(self, pool: str, layout: Layout) -> int:
        """Return what a file takes of the device, alone or with others."""
        plain = sum(extent.length for extent in layout.extents if not extent.encoded)
        # the parts of one compressed extent all lie where it begins
        packed = {extent.physical: extent.length for extent in layout.extents if extent.encoded}
        return plain + sum(self.size(pool, physical, length) for physical, length in packed.items())


def in_blocks(size: int) -> int:
    """Return the bytes of the blocks that so many bytes take, one at least."""
    return max(1, -(-size // BLOCK)) * BLOCK


def packed_bytes(inode: Inode, length: int) -> int:
    """Return what ``length`` bytes of a file's extents take of the device: all of it, if not compressed."""
    whole = total(inode.layout.extents) if inode.layout is not None else 0
    return inode.disk_bytes * length // whole if whole else 0


def own_bytes(inode: Inode) -> int:
    """Return the disk bytes that nobody but an inode holds, as far as the file system tells."""
    layout = inode.layout
    if layout is None:
        return inode.disk_bytes if inode.own_bytes is None else inode.own_bytes
    return packed_bytes(inode, total(layout.unshared)) if layout.shared else inode.disk_bytes


def apart_bytes(inode: Inode, other: Inode) -> int:
    """Return the disk bytes of an inode that lie elsewhere than those of another one."""
    if inode.layout is None or other.layout is None:
        return inode.disk_bytes
    return inode.disk_bytes - packed_bytes(inode, common_bytes(inode.layout, other.layout))
