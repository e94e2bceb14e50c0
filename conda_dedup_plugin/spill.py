"""A file without a name, for what takes too much memory; it goes with us."""

from __future__ import annotations

import tempfile
from array import array
from typing import TYPE_CHECKING

from .sharing.copying import write_at
from .sharing.system import pread

if TYPE_CHECKING:
    from typing import IO

WORD = 8


class Spill:
    """Bytes and columns of numbers, appended and read again; what was appended stays."""

    def __init__(self) -> None:
        self._file: IO[bytes] | None = None
        self._end = 0

    def append(self, content: array[int] | bytes) -> int:
        """Return where it begins."""
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="conda-dedup-")  # noqa: SIM115 (goes with us)
        place = self._end
        plain = content if isinstance(content, bytes) else content.tobytes()
        write_at(self._file.fileno(), plain, place)
        self._end += len(plain)
        return place

    def read(self, place: int, size: int) -> bytes:
        """Return that many bytes, fewer at the end."""
        assert self._file is not None
        return pread(self._file.fileno(), size, place)

    def numbers(self, place: int, count: int) -> array[int]:
        """Return a column."""
        found = array("Q")
        found.frombytes(self.read(place, WORD * count))
        return found
