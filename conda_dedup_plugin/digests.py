"""What was read once need not be read again: digests by device, inode, size and times, in one SQLite file.

A cache and no more: what it says only proposes, and where it cannot be used, everything is read.
"""

from __future__ import annotations

import contextlib
import sqlite3
import struct
import time
from typing import TYPE_CHECKING, NamedTuple

from .errors import StateError
from .state import state_directory

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from .model import Inode

_FILE = "digests.sqlite"
_FORMAT = 2
_DAY = 24 * 3600
#: What nobody asked for in so many days is forgotten.
_KEPT_DAYS = 180
#: That it was asked for is noted when the last note is so many days old.
_NOTED_DAYS = 30
#: What was changed so lately (ns) may change again without a new time stamp.
_YOUNG_NS = 2 * 10**9
_TABLE = """
CREATE TABLE IF NOT EXISTS digest (
    inode BLOB PRIMARY KEY, size INTEGER, mtime_ns INTEGER, ctime_ns INTEGER, day INTEGER,
    ends BLOB, whole BLOB, code BLOB
) WITHOUT ROWID
"""
_COLUMNS = "size, mtime_ns, ctime_ns, ends, whole, code, day FROM digest"

_PLACES = ", ".join("?" * 8)


class Known(NamedTuple):
    """What was read of a file: a digest of its ends, and (raw sha256) of the whole; empty: not read.

    ``code`` is what :mod:`.compiled` makes of bytecode.
    """

    ends: bytes = b""
    whole: bytes = b""
    code: bytes = b""


class DigestCache:
    """The digests of one user. Nothing here raises: a cache that cannot be used is empty."""

    def __init__(self) -> None:
        self._today = int(time.time()) // _DAY
        self._connection = _connect()

    def close(self) -> None:
        """Forget what is old, and close the file."""
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute("DELETE FROM digest WHERE day < ?", (self._today - _KEPT_DAYS,))
                self._connection.commit()
            self._connection.close()
            self._connection = None

    def get(self, inode: Inode) -> Known:
        """Return what is known of an inode as it is now."""
        if self._connection is None:
            return Known()
        try:
            row = self._connection.execute(f"SELECT {_COLUMNS} WHERE inode = ?", (_key(inode),)).fetchone()
        except sqlite3.Error as exc:
            self._start_anew(exc)
            return Known()
        if row is None or row[:3] != (inode.size, inode.mtime_ns, inode.ctime_ns):
            return Known()
        if not all(isinstance(value, bytes) for value in row[3:6]):
            return Known()
        known = Known(*row[3:6])
        if isinstance(row[6], int) and self._today - row[6] > _NOTED_DAYS:
            self.put([(inode, known)])
        return known

    def put(self, found: Iterable[tuple[Inode, Known]]) -> None:
        """Remember what was read; what changed a moment ago is not to be trusted."""
        if self._connection is None:
            return
        old_enough = time.time_ns() - _YOUNG_NS
        rows = [
            (_key(inode), inode.size, inode.mtime_ns, inode.ctime_ns, self._today, *known)
            for inode, known in found
            if inode.ctime_ns < old_enough
        ]
        try:
            self._connection.executemany(f"INSERT OR REPLACE INTO digest VALUES ({_PLACES})", rows)
            self._connection.commit()
        except (sqlite3.Error, OverflowError) as exc:
            self._start_anew(exc)

    def _start_anew(self, error: Exception) -> None:
        """Throw a file away of which a part is found to be damaged; one that is in use is another matter."""
        if self._connection is None or type(error) is not sqlite3.DatabaseError:
            return
        self._connection.close()
        with contextlib.suppress(OSError, StateError):
            (state_directory() / _FILE).unlink()
        self._connection = _connect()


def _key(inode: Inode) -> bytes:
    high, low = divmod(inode.key.number, 1 << 64)
    key = struct.pack("<QQ", inode.key.device, low)
    return key + struct.pack("<Q", high) if high else key  # on ReFS


def _connect() -> sqlite3.Connection | None:
    """Open the file; one that is damaged or of another version is made anew."""
    try:
        path = state_directory() / _FILE
    except StateError:
        return None
    for _ in range(2):
        connection = None
        with contextlib.suppress(sqlite3.Error, OSError):
            connection = sqlite3.connect(path, timeout=0.2)
            connection.execute("PRAGMA synchronous=OFF")
            found = connection.execute("PRAGMA user_version").fetchone()[0]
            if found in (0, _FORMAT):
                connection.execute(_TABLE)
                connection.execute(f"PRAGMA user_version={_FORMAT}")
                connection.execute(f"SELECT {_COLUMNS} LIMIT 1")
                return connection
        if connection is not None:
            connection.close()
        if _is_busy(path):
            return None
        with contextlib.suppress(OSError):
            path.unlink()
    return None


def _is_busy(path: Path) -> bool:
    """Whether the file is sound, and only somebody else writes to it just now."""
    try:
        connection = sqlite3.connect(path, timeout=0.0)
        try:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
        finally:
            connection.close()
    except sqlite3.OperationalError as exc:
        return "locked" in str(exc) or "unable to open" in str(exc) or "readonly" in str(exc)
    except (sqlite3.Error, OSError):
        return False
    return False
