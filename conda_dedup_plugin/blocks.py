"""Reads which blocks two files have in common."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from .sharing.opening import Directories, open_inode
from .sharing.system import pread

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .model import Extent, Inode, Scope

_CHUNK = 1024 * 1024


class BlockReader:
    """Compares files block by block. Use as a context manager."""

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self._directories = Directories()

    def __enter__(self) -> BlockReader:
        return self

    def __exit__(self, *exception: object) -> None:
        self._directories.close()

    def compare(
        self, one: Inode, other: Inode, extents: Sequence[Extent], block: int
    ) -> list[tuple[int, int]]:
        """Find the runs (offset, length) of equal blocks in extents of ``one``; ``block`` in bytes.

        None, if either file cannot be read. A run begins with a block, and ends with one or with the file.
        """
        runs: list[tuple[int, int]] = []
        try:
            first = open_inode(self._scope, one, self._directories)
        except OSError:
            return []
        try:
            second = open_inode(self._scope, other, self._directories)
            try:
                for start, end in _ranges(extents):
                    runs += _runs(first, second, start, min(end, one.size), block)
            finally:
                os.close(second)
        except OSError:
            return []
        finally:
            os.close(first)
            self._directories.trim()
        return runs


def _ranges(extents: Sequence[Extent]) -> list[tuple[int, int]]:
    """Return where in the file extents lie, as (start, end), neighbours merged."""
    ranges: list[tuple[int, int]] = []
    for extent in extents:
        end = extent.logical + extent.length
        if ranges and ranges[-1][1] == extent.logical:
            ranges[-1] = (ranges[-1][0], end)
        else:
            ranges.append((extent.logical, end))
    return ranges


def _runs(first: int, second: int, start: int, end: int, block: int) -> Iterator[tuple[int, int]]:
    """Yield the runs of equal blocks from ``start`` to ``end``, as long as they are."""
    begin = length = 0
    for offset, size in _equal(first, second, start, end, block):
        if length and begin + length == offset:
            length += size
            continue
        if length:
            yield begin, length
        begin, length = offset, size
    if length:
        yield begin, length


def _equal(first: int, second: int, start: int, end: int, block: int) -> Iterator[tuple[int, int]]:
    """Yield what is equal, in pieces."""
    while start < end:
        one = pread(first, min(_CHUNK, end - start), start)
        other = pread(second, len(one), start)
        if not one or len(one) != len(other):
            return
        yield from _pieces(memoryview(one), memoryview(other), start, block)
        start += len(one)


def _pieces(one: memoryview, other: memoryview, offset: int, block: int) -> Iterator[tuple[int, int]]:
    """Halve what differs until it is a block."""
    if one == other:
        yield offset, len(one)
    elif len(one) > block:
        half = -(-len(one) // (2 * block)) * block
        yield from _pieces(one[:half], other[:half], offset, block)
        yield from _pieces(one[half:], other[half:], offset + half, block)
