"""Where the rows of all listings are kept: in memory, and in a file without a name once they are many.

Whoever asks gets one group of inodes after the other, made of rows as they are asked for.
"""

from __future__ import annotations

import os
import tempfile
from array import array
from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

from .listing import Unpacker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO

    from .listing import Listing
    from .model import Inode, InodeKey

#: What takes more bytes than this is put into a file.
_MOST_BYTES = 192 << 20
#: So many rows are sorted into groups at once.
_MOST_ROWS = 1 << 20
_WORD = 8


class _Part(NamedTuple):
    """The rows of one listing: the columns and the rows themselves, or where they are in the file."""

    tree: int
    length: int
    idents: array[int] | int
    keys: array[int] | int
    ends: array[int] | int
    rows: bytes | int


class Shelf:
    """The rows of listings, in the order of their trees once all are there."""

    def __init__(self, most_bytes: int = _MOST_BYTES, most_rows: int = _MOST_ROWS) -> None:
        self._parts: list[_Part] = []
        self._most_bytes = most_bytes
        self._most_rows = most_rows
        self._bytes = 0
        self._file: IO[bytes] | None = None
        self._unpacker = Unpacker()

    def __len__(self) -> int:
        return sum(part.length for part in self._parts)

    def close(self) -> None:
        """Give the room back."""
        self._parts.clear()
        if self._file is not None:
            self._file.close()
            self._file = None

    def add(self, listing: Listing) -> None:
        """Keep the rows of a listing."""
        self._unpacker.dists.update(listing.dists)
        if not listing.idents:
            return
        self._bytes += len(listing.rows) + 3 * _WORD * len(listing.idents)
        columns = (listing.idents, listing.keys, listing.ends, listing.rows)
        part = _Part(listing.index, len(listing.idents), *columns)
        self._parts.append(part)
        if self._bytes > self._most_bytes:
            self._parts = [self._put_away(part) for part in self._parts]

    def _put_away(self, part: _Part) -> _Part:
        if isinstance(part.rows, int):
            return part
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="conda-dedup-")  # noqa: SIM115 (closed in close)
        places = []
        for column in (part.idents, part.keys, part.ends, part.rows):
            places.append(self._file.tell())
            self._file.write(memoryview(column))  # type: ignore[arg-type]
        self._file.flush()
        return _Part(part.tree, part.length, *places)

    def sort(self) -> None:
        """Bring the listings into the order of their trees."""
        self._parts.sort(key=lambda part: part.tree)

    # -- columns and rows ---------------------------------------------------------------------------

    def _column(self, column: array[int] | int, length: int) -> array[int]:
        if not isinstance(column, int):
            return column
        found = array("Q")
        found.frombytes(self._read(column, length * _WORD))
        return found

    def _read(self, place: int, size: int) -> bytes:
        assert self._file is not None
        if hasattr(os, "pread"):
            return os.pread(self._file.fileno(), size, place)
        self._file.seek(place)
        return self._file.read(size)

    def _row(self, part: _Part, number: int) -> bytes:
        ends = part.ends
        if isinstance(ends, int):
            two = array("Q")
            two.frombytes(self._read(ends + _WORD * max(0, number - 1), 2 * _WORD))
            start, end = (two[0], two[1]) if number else (0, two[0])
        else:
            start, end = (ends[number - 1] if number else 0), ends[number]
        if isinstance(part.rows, int):
            return self._read(part.rows + start, end - start)
        return part.rows[start:end]

    # -- inodes -------------------------------------------------------------------------------------

    def inodes(self) -> dict[InodeKey, Inode]:
        """Return every inode with all its names, as objects: for those who cannot do with less."""
        found: dict[InodeKey, Inode] = {}
        for part in self._parts:
            for number in range(part.length):
                self._name(found, part, number)
        return found

    def _name(self, found: dict[InodeKey, Inode], part: _Part, number: int) -> None:
        row = self._row(part, number)
        key = self._unpacker.key(row)
        inode = found.get(key)
        if inode is None:
            inode = found[key] = self._unpacker.inode(row)
        name, hazard = self._unpacker.name(row, part.tree)
        inode.names.append(name)
        inode.hazard = max(inode.hazard, hazard)

    def groups(self) -> Iterator[tuple[int, list[Inode]]]:
        """Yield keys, and the inodes that have a name with that key, two at least, one group at a time.

        Groups come in the order of their first names, as many as are sorted at once. An inode that several
        contents are said of is in several groups.
        """
        passes = -(-len(self) // self._most_rows)
        for number in range(passes):
            yield from self._groups(number, passes)

    def _groups(self, turn: int, turns: int) -> Iterator[tuple[int, list[Inode]]]:
        first: dict[int, int] = {}
        several: set[int] = set()
        for part in self._parts:
            keys = self._column(part.keys, part.length)
            idents = self._column(part.idents, part.length)
            for key, ident in zip(keys, idents, strict=True):
                if key and (turns == 1 or key % turns == turn) and first.setdefault(key, ident) != ident:
                    several.add(key)
        del first
        if not several:
            return
        # every name of those inodes, whatever is said of it
        wanted: dict[int, list[tuple[int, int]]] = defaultdict(list)
        members: dict[int, dict[int, None]] = {}
        for part in self._parts:
            keys = self._column(part.keys, part.length)
            idents = self._column(part.idents, part.length)
            for key, ident in zip(keys, idents, strict=True):
                if key in several:
                    members.setdefault(key, {})[ident] = None
                    wanted[ident] = []
        for index, part in enumerate(self._parts):
            idents = self._column(part.idents, part.length)
            for number, ident in enumerate(idents):
                if ident in wanted:
                    wanted[ident].append((index, number))
        for key, idents_of in members.items():
            found: dict[InodeKey, Inode] = {}
            for ident in idents_of:
                for index, number in wanted[ident]:
                    self._name(found, self._parts[index], number)
            yield key, list(found.values())
