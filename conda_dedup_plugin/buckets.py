"""Numbers sorted into buckets, so that what is asked for together is read together; once many, spilled."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from .spill import Spill

#: A bucket with more numbers than this is emptied.
_MOST = 1 << 14
#: Of rows: the keys of their contents, the idents of their inodes, their places.
Columns: TypeAlias = tuple["Sequence[int]", "Sequence[int]", "Sequence[int]"]


class Buckets:
    """So many buckets of triples of numbers below 2**64, emptied into a ``spill``."""

    def __init__(self, count: int, spill: Spill) -> None:
        #: where to put numbers, three for each triple
        self.open = [array("Q") for _ in range(count)]
        #: for each bucket (place, numbers) of what was spilled
        self._spilled: list[list[tuple[int, int]]] = [[] for _ in range(count)]
        self._spill = spill

    def trim(self) -> None:
        """Empty those that hold much."""
        for number, held in enumerate(self.open):
            if len(held) > _MOST:
                self._spilled[number].append((self._spill.append(held), len(held)))
                del held[:]

    def take(self, number: int) -> array[int]:
        """Return the numbers of a bucket, in the order in which they came; it is no use afterwards."""
        found = array("Q")
        for place, count in self._spilled[number]:
            found += self._spill.numbers(place, count)
        found += self.open[number]
        self.open[number] = array("Q")
        return found


def columns(numbers: array[int]) -> Columns:
    """Return triples as three columns."""
    return numbers[0::3], numbers[1::3], numbers[2::3]


def in_turns(parts: Iterable[Columns], turns: int, spill: Spill) -> Iterator[tuple[Columns, Columns]]:
    """Sort the rows of all parts by their key; for each turn yield the rows of some keys, and others.

    Those are rows without a key, or with one of another turn, of inodes that have one of this turn.
    """
    by_key, by_ident, more = (Buckets(turns, spill) for _ in range(3))
    keyed, inodes = by_key.open, by_ident.open
    for part in parts:
        for row in zip(*part, strict=True):
            key, ident, _ = row
            if key:
                keyed[key % turns].extend(row)
            inodes[ident % turns].extend(row)
        by_key.trim()
        by_ident.trim()
    for turn in range(turns):
        _find_strays(columns(by_ident.take(turn)), turns, more)
    for turn in range(turns):
        yield columns(by_key.take(turn)), columns(more.take(turn))


def _find_strays(part: Columns, turns: int, more: Buckets) -> None:
    """Of inodes of which rows say different things, put each row where it is missing."""
    keys, idents, _ = part
    odd = several([(idents, keys)])
    rows: dict[int, list[tuple[int, int, int]]] = {}
    for row in zip(*part, strict=True):
        if row[1] in odd:
            rows.setdefault(row[1], []).append(row)
    for found in rows.values():
        for turn in {key % turns for key, _, _ in found if key}:
            for row in found:
                if not row[0] or row[0] % turns != turn:
                    more.open[turn].extend(row)
    more.trim()


def several(parts: Sequence[tuple[Sequence[int], Sequence[int]]]) -> set[int]:
    """Return which firsts come with more than one second, in pairs of columns."""
    last: dict[int, int] = {}
    for firsts, seconds in parts:
        last.update(zip(firsts, seconds, strict=True))
    found: set[int] = set()
    for firsts, seconds in parts:
        found.update([one for one, other in zip(firsts, seconds, strict=True) if last[one] != other])
    return found
