"""Where the rows of all listings are kept: in memory, and in a file without a name once they are many.

Whoever asks gets one group of inodes after the other, made of rows as they are asked for.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, NamedTuple

from .buckets import in_turns, several
from .packing import HEAD_BYTES, KEY_BYTES, Unpacker, row_length
from .spill import WORD, Spill

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from .buckets import Columns
    from .listing import Listing
    from .model import Dist, Inode, InodeKey

#: What takes more bytes than this is put into a file.
_MOST_BYTES = 8 << 20
#: So many rows are sorted into groups at once.
_MOST_ROWS = 3 << 17
#: The columns of so many rows are kept in memory.
_MOST_COLUMNS = 1 << 20
#: So many bytes of the file are read at once.
_NEAR = 1 << 14
#: The place of a row: the number of its listing, and where it begins in the rows of that.
_PLACE_BITS = 40
_PLACES = (1 << _PLACE_BITS) - 1


class _Part(NamedTuple):
    """The rows of one listing: the columns and the rows themselves, or where they are in the file."""

    tree: int
    length: int
    idents: array[int] | int
    keys: array[int] | int
    starts: array[int] | int
    rows: bytes | int


class Shelf:
    """The rows of listings, in the order of their trees once all are there."""

    def __init__(
        self,
        most_bytes: int = _MOST_BYTES,
        most_rows: int = _MOST_ROWS,
        most_columns: int = _MOST_COLUMNS,
    ) -> None:
        self._parts: list[_Part] = []
        self._most_bytes = most_bytes
        self._most_rows = most_rows
        self._most_columns = most_columns
        self._bytes = 0
        self._spill = Spill()
        self._unpacker = Unpacker()
        #: of listings whose rows are in the file what was read last: from where on, and the bytes
        self._near: dict[int, tuple[int, bytes]] = {}

    def __len__(self) -> int:
        return sum(part.length for part in self._parts)

    @property
    def dists(self) -> Mapping[int, Dist]:
        """The dists that rows and parts of listings speak of."""
        return self._unpacker.dists

    def add(self, listing: Listing) -> None:
        """Keep the rows of a listing."""
        self._unpacker.dists.update(listing.dists)
        if not listing.idents:
            return
        self._bytes += len(listing.rows) + 3 * WORD * len(listing.idents)
        columns = (listing.idents, listing.keys, listing.starts, listing.rows)
        part = _Part(listing.index, len(listing.idents), *columns)
        self._parts.append(part)
        if self._bytes > self._most_bytes:
            many = len(self) > self._most_columns
            self._parts = [self._put_away(part, many) for part in self._parts]

    def _put_away(self, part: _Part, columns: bool) -> _Part:
        """Put rows into the file, and the columns, too, once there are many of them."""
        kept = part._replace(rows=self._append(part.rows))
        if columns:
            idents, keys, starts = map(self._append, (part.idents, part.keys, part.starts))
            kept = kept._replace(idents=idents, keys=keys, starts=starts)
        return kept

    def _append(self, column: array[int] | bytes | int) -> int:
        """Return where it is in the file; what is there already stays."""
        return column if isinstance(column, int) else self._spill.append(column)

    def sort(self) -> None:
        """Bring the listings into the order of their trees."""
        self._parts.sort(key=lambda part: part.tree)

    # -- columns and rows ---------------------------------------------------------------------------

    def _column(self, column: array[int] | int, length: int) -> array[int]:
        return self._spill.numbers(column, length) if isinstance(column, int) else column

    def _row(self, place: int) -> bytes:
        part, start = self._parts[place >> _PLACE_BITS], place & _PLACES
        if not isinstance(part.rows, int):
            return part.rows[start : start + row_length(part.rows, start)]
        begin, near = self._near.get(part.rows, (0, b""))
        start -= begin
        there = len(near) - start
        if start < 0 or there < HEAD_BYTES or there < row_length(near, start):
            # groups come in the order of directories, which is much the same in all trees
            begin += start
            start = 0
            near = self._spill.read(part.rows + begin, _NEAR)
            if len(near) < row_length(near, 0):
                near = self._spill.read(part.rows + begin, row_length(near, 0))
            self._near[part.rows] = begin, near
        return near[start : start + row_length(near, start)]

    # -- inodes -------------------------------------------------------------------------------------

    def inodes(self) -> dict[InodeKey, Inode]:
        """Return every inode with all its names, as objects: for those who cannot do with less."""
        places = (place for _, _, places in self._columns() for place in places)
        return {inode.key: inode for inode in self.unpack(places)}

    def _name(self, found: dict[bytes, Inode], place: int) -> None:
        row = self._row(place)
        key = row[:KEY_BYTES]
        inode = found.get(key)
        if inode is None:
            inode = found[key] = self._unpacker.inode(row)
        name, hazard = self._unpacker.name(row, self._parts[place >> _PLACE_BITS].tree)
        inode.names.append(name)
        inode.hazard = max(inode.hazard, hazard)

    def groupings(self) -> Iterator[Grouping]:
        """Yield groups of inodes, as many at a time as can be sorted at once."""
        turns = -(-len(self) // self._most_rows)
        if turns == 1:
            yield self._grouping(list(self._columns()))
        elif turns:
            for columns, more in in_turns(self._columns(), turns, self._spill):
                yield self._grouping([columns], more)

    def _columns(self) -> Iterator[Columns]:
        """Yield the rows of every listing, as numbers."""
        for index, part in enumerate(self._parts):
            columns = (part.keys, part.idents, part.starts)
            keys, idents, starts = (self._column(column, part.length) for column in columns)
            first = index << _PLACE_BITS
            yield keys, idents, array("Q", [first + start for start in starts])

    def _grouping(self, parts: Sequence[Columns], more: Columns = ((), (), ())) -> Grouping:
        """Make groups of rows; ``more`` are those besides that may be names of the same inodes."""
        twice = several([(keys, idents) for keys, idents, _ in parts]) - {0}
        # every name of those inodes, whatever is said of it
        names: dict[int, list[int]] = {}
        members: dict[int, dict[int, None]] = {}
        for keys, idents, _ in parts:
            for key, ident in zip(keys, idents, strict=True):
                if key in twice:
                    members.setdefault(key, {})[ident] = None
                    names[ident] = []
        for _, idents, places in (*parts, more):
            for ident, place in zip(idents, places, strict=True):
                if ident in names:
                    names[ident].append(place)
        for ident in set(more[1]) & names.keys():
            names[ident].sort()
        return Grouping(self, members, names)

    def unpack(self, places: Iterable[int]) -> list[Inode]:
        """Return the inodes of which the rows at these places are names."""
        found: dict[bytes, Inode] = {}
        for place in places:
            self._name(found, place)
        return list(found.values())


class Grouping:
    """Groups of inodes of which names say that they may hold the same bytes, two at least.

    They are in the order of their first names. An inode that several contents are said of is in several.
    """

    def __init__(
        self, shelf: Shelf, members: dict[int, dict[int, None]], names: dict[int, list[int]]
    ) -> None:
        self._shelf = shelf
        self._members = [(key, *idents) for key, idents in members.items()]
        self._names = names

    def __len__(self) -> int:
        return len(self._members)

    def groups(self, start: int = 0, stop: int | None = None) -> Iterator[tuple[int, list[Inode]]]:
        """Yield keys, each with the inodes that have a name with that key, made as they are asked for."""
        for key, *idents in self._members[start:stop]:
            yield key, self._shelf.unpack(place for ident in idents for place in self._names[ident])
