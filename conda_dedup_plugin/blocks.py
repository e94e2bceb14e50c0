"""Reads which blocks two files have in common."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from .layouts import BLOCK
from .sharing.opening import Directories, open_inode

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
        self, one: Inode, other: Inode, extents: Sequence[Extent], least: int
    ) -> tuple[list[tuple[int, int]], int]:
        """Find runs (offset, length) of at least ``least`` bytes in extents of ``one`` that are equal.

        Returns also how many bytes are equal there at all. Nothing, if either file cannot be read. A run
        begins with a block, and ends with one or with the file.
        """
        runs: list[tuple[int, int]] = []
        equal = 0
        try:
            first = open_inode(self._scope, one, self._directories)
        except OSError:
            return [], 0
        try:
            second = open_inode(self._scope, other, self._directories)
            try:
                for extent in extents:
                    end = min(extent.logical + extent.length, one.size)
                    for start, length in _runs(first, second, extent.logical, end):
                        equal += length
                        if length >= least:
                            runs.append((start, length))
            finally:
                os.close(second)
        except OSError:
            return [], 0
        finally:
            os.close(first)
            self._directories.trim()
        return runs, equal


def _runs(first: int, second: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield the runs of equal blocks from ``start`` to ``end``, as long as they are."""
    begin = length = 0
    for offset, size in _equal(first, second, start, end):
        if length and begin + length == offset:
            length += size
            continue
        if length:
            yield begin, length
        begin, length = offset, size
    if length:
        yield begin, length


def _equal(first: int, second: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield what is equal, in pieces."""
    while start < end:
        one = os.pread(first, min(_CHUNK, end - start), start)
        other = os.pread(second, len(one), start)
        if not one or len(one) != len(other):
            return
        yield from _pieces(memoryview(one), memoryview(other), start)
        start += len(one)


def _pieces(one: memoryview, other: memoryview, offset: int) -> Iterator[tuple[int, int]]:
    """Halve what differs until it is a block."""
    if one == other:
        yield offset, len(one)
    elif len(one) > BLOCK:
        half = -(-len(one) // (2 * BLOCK)) * BLOCK
        yield from _pieces(one[:half], other[:half], offset)
        yield from _pieces(one[half:], other[half:], offset + half)
