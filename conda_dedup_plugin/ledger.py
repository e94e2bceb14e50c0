"""Physical bytes counted once, however many files hold them. Pure."""

from __future__ import annotations

from array import array
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from .model import Hazard

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .layouts import CompressedSizes
    from .model import Extent

_PRIVATE = 1
_RECORDED = 2
_ENCODED = 4
_HAZARD = 3
_TREE = 6


class Segment(NamedTuple):
    """Bytes of a device and who holds them.

    ``trees`` are indices; ``private``: nobody but the names of one file does; ``recorded``: some record
    speaks of one of the files; ``estimated``: they are compressed.
    """

    size: int
    trees: frozenset[int]
    hazard: Hazard
    private: bool
    recorded: bool
    estimated: bool


class Ledger:
    """The extents of one file system that more than one file holds, or that are compressed.

    What neither is true of needs no ledger: it is held by one inode, and takes its length.
    """

    def __init__(self, pool: str) -> None:
        self._pool = pool
        self._starts = array("Q")
        self._lengths = array("Q")
        self._tags = array("Q")

    def add(
        self, extents: tuple[Extent, ...], tree: int, hazard: Hazard, private: bool, recorded: bool
    ) -> None:
        """Note extents of a file of the tree; ``private``: it alone has them, and all its names are there."""
        tag = tree << _TREE | hazard << _HAZARD | private * _PRIVATE | recorded * _RECORDED
        for _, physical, length, encoded in extents:
            self._starts.append(physical)
            self._lengths.append(length)
            self._tags.append(tag | encoded * _ENCODED)

    def segments(self, sizes: CompressedSizes) -> Iterator[Segment]:
        """Yield what is held, each byte of the device once."""
        starts, lengths, tags = self._starts, self._lengths, self._tags
        cluster: list[tuple[int, int, int]] = []
        end = -1
        for index in sorted(range(len(starts)), key=starts.__getitem__):
            start, length = starts[index], lengths[index]
            if start >= end and cluster:
                yield from self._parts(cluster, sizes)
                cluster = []
            cluster.append((start, start + length, tags[index]))
            end = max(end, start + length) if len(cluster) > 1 else start + length
        if cluster:
            yield from self._parts(cluster, sizes)

    def _parts(self, cluster: list[tuple[int, int, int]], sizes: CompressedSizes) -> Iterator[Segment]:
        """Yield what extents that overlap hold together."""
        if any(tag & _ENCODED for _, _, tag in cluster):
            # the places of what is compressed are those of its beginning
            by_start: dict[int, list[tuple[int, int, int]]] = {}
            for piece in cluster:
                by_start.setdefault(piece[0], []).append(piece)
            for start, pieces in by_start.items():
                length = max(stop for _, stop, _ in pieces) - start
                yield _segment(sizes.size(self._pool, start, length), [tag for _, _, tag in pieces])
            return
        bounds = sorted({bound for start, stop, _ in cluster for bound in (start, stop)})
        for low, high in pairwise(bounds):
            yield _segment(high - low, [tag for start, stop, tag in cluster if start <= low and high <= stop])


def _segment(size: int, tags: list[int]) -> Segment:
    trees = frozenset(tag >> _TREE for tag in tags)
    return Segment(
        size,
        trees,
        Hazard(tags[0] >> _HAZARD & 7),
        len(trees) == 1 and all(tag & _PRIVATE for tag in tags),
        any(tag & _RECORDED for tag in tags),
        bool(tags[0] & _ENCODED),
    )
