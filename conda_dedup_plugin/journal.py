"""What was done, so that it can be completed, shown and undone: one SQLite file.

The intents of a batch are durable before anything changes, the results follow in one commit.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
import uuid
from typing import TYPE_CHECKING, Any

import msgspec

from . import __version__, database
from .errors import StateError
from .model import InodeKey, Method
from .rows import COLUMNS, entry_of, path_of, row_of
from .sharing.system import user
from .state import is_running, process_identity, state_directory

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from .sharing.change import Change, Entry

#: So many seconds another process is waited for.
PATIENCE = 5.0


class Journal:
    """The journal of one user. Every method raises StateError when the file cannot be used."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.run = ""
        #: Staging directories (root, path in it) that could not be removed; the next run sees to them.
        self.left: list[tuple[str, str]] = []

    @classmethod
    def open(cls, path: Path | None = None, patience: float = PATIENCE) -> Journal:
        """Open the journal at ``path``, by default the user's own, and make it if it does not exist.

        ``patience``: how many seconds another process that writes to it is waited for.
        """
        return cls(database.connect(path or state_directory() / "journal.sqlite", patience))

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def begin(self, command: str) -> str:
        """Begin a run and return its id."""
        self.run = uuid.uuid4().hex[:12]
        self.left.clear()
        self.write(
            "INSERT INTO run (id, started, command, process, uid, version) VALUES (?, ?, ?, ?, ?, ?)",
            [(self.run, time.time(), command, process_identity(os.getpid()), user(), __version__)],
        )
        return self.run

    def finish(self) -> None:
        """Note that the run came to its end; one that changed nothing is forgotten.

        Of what made private copies no more than the count is kept: it can't be taken back.
        """
        self.write("DELETE FROM staging WHERE run = ?", [(self.run,)])
        for root, path in self.left:
            self.staging(root, path)
        self.write(
            "UPDATE run SET finished = ?, (names, bytes_freed) ="
            " (SELECT COUNT(*), COALESCE(SUM(bytes_freed), 0) FROM change WHERE change.run = run.id"
            " AND state = 'done') WHERE id = ?",
            [(time.time(), self.run)],
        )
        self.write(
            "DELETE FROM run WHERE id = ?"
            " AND id NOT IN (SELECT run FROM change UNION SELECT run FROM staging)",
            [(self.run,)],
        )
        self.write(
            "DELETE FROM change WHERE run = ? AND state = 'done' AND method IN (?, ?)",
            [(self.run, Method.COPY.value, Method.REPAIR.value)],
        )

    def staging(self, root: str, path: str) -> None:
        """Write down that the run is about to make a staging directory at ``path`` of a tree."""
        self.write("INSERT INTO staging VALUES (?, ?, ?)", [(self.run, os.fsencode(root), os.fsencode(path))])

    def left_stagings(self) -> list[tuple[str, str, str]]:
        """Return (run, root, path) of the staging directories of runs whose process is gone."""
        rows = self._dead("SELECT staging.*, run.process FROM staging JOIN run ON run.id = staging.run")
        with _readable():
            return [(str(run), path_of(root), path_of(path)) for run, root, path, _ in rows]

    def forget_staging(self, run: str, root: str, path: str) -> None:
        """Note that a staging directory is no more."""
        row = (run, os.fsencode(root), os.fsencode(path))
        self.write("DELETE FROM staging WHERE run = ? AND root = ? AND path = ?", [row])

    def intend(self, changes: Sequence[Change]) -> list[int]:
        """Write down what is about to be done; durable on return. Returns a number for each."""
        return self._insert("intent", changes, [0] * len(changes))

    def done(self, changes: Sequence[Change], freed: Sequence[int]) -> None:
        """Write down what needed no intent (reflinks)."""
        self._insert("done", changes, freed)

    def _insert(self, state: str, changes: Sequence[Change], freed: Sequence[int]) -> list[int]:
        with _writable(), database.transaction(self._connection):
            first = self._connection.execute("SELECT COALESCE(MAX(id), 0) + 1 FROM change").fetchone()[0]
            numbers = list(range(first, first + len(changes)))
            self._connection.executemany(
                f"INSERT INTO change VALUES ({', '.join('?' * COLUMNS)})",
                [
                    row_of(number, self.run, state, change, size)
                    for number, change, size in zip(numbers, changes, freed, strict=True)
                ],
            )
        return numbers

    def resolve(self, results: Iterable[tuple[int, str, int]]) -> None:
        """Write down what came of intents: (number, state, bytes freed); state: done, dropped, conflict.

        Durable no later than what is written next: a loss of power before that leaves the intents, from which
        it is found out again what came of them.
        """
        known = list(results)
        kept = [(state, freed, number) for number, state, freed in known if state != "dropped"]
        dropped = [(number,) for number, state, _ in known if state == "dropped"]
        with _writable(), database.transaction(self._connection, durable=False):
            self._connection.executemany("UPDATE change SET state = ?, bytes_freed = ? WHERE id = ?", kept)
            self._connection.executemany("DELETE FROM change WHERE id = ?", dropped)

    def open_intents(self) -> list[Entry]:
        """Return the intents of runs whose process is gone."""
        rows = self._dead(
            "SELECT change.*, run.process FROM change JOIN run ON run.id = change.run"
            " WHERE change.state = 'intent' ORDER BY change.id"
        )
        with _readable():
            return [entry_of(row) for row in rows]

    def left_repairs(self) -> list[Entry]:
        """Return what runs whose process is gone had repaired: they could not say so any more."""
        rows = self._dead(
            "SELECT change.*, run.process FROM change JOIN run ON run.id = change.run"
            " WHERE change.state = 'done' AND change.method = 'repair'"
        )
        with _readable():
            return [entry_of(row) for row in rows]

    def moved(self, place: tuple[str, str], old: InodeKey, new: InodeKey, mtime_ns: int) -> None:
        """Note that a name (root, path) went from one keeper to another: a repair gave it a new inode."""
        root, path = place
        self.write(
            "UPDATE change SET keeper_device = ?, keeper_number = ?, keeper_mtime_ns = ?"
            " WHERE state = 'done' AND method = 'hardlink' AND root = ? AND path = ? AND keeper_number = ?",
            [
                (str(new.device), str(new.number), mtime_ns, os.fsencode(root), os.fsencode(path),
                 str(old.number))
            ],
        )  # fmt: skip

    def forget_copies(self) -> None:
        """Forget the private copies that runs made which were killed before they could do so."""
        dead = self._dead("SELECT DISTINCT run.id, run.process FROM change JOIN run ON run.id = change.run"
                          " WHERE change.state = 'done' AND change.method = 'copy'")  # fmt: skip
        self.write(
            "DELETE FROM change WHERE run = ? AND state = 'done' AND method = 'copy'",
            [(row[0],) for row in dead],
        )

    def _dead(self, query: str) -> list[tuple[Any, ...]]:
        """Return the rows of other runs (their process is the last column) whose process is gone."""
        rows = self.read(query)
        here = process_identity(os.getpid())
        alive: dict[str, bool] = {here: True}
        return [row for row in rows if not alive.setdefault(row[-1], is_running(row[-1]))]

    def shrink(self) -> None:
        """Give back the room of what was forgotten, if nobody else is at it just now."""
        with contextlib.suppress(sqlite3.Error):
            self._connection.execute("VACUUM")

    def read(self, query: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Return the rows of a query."""
        try:
            return self._connection.execute(query, values).fetchall()
        except (sqlite3.Error, UnicodeDecodeError) as exc:
            raise StateError(f"the journal cannot be read ({exc})") from exc

    def write(self, statement: str, rows: Sequence[tuple[object, ...]]) -> None:
        """Carry out one statement for each of ``rows``, all or none; durable on return."""
        with _writable(), database.transaction(self._connection):
            self._connection.executemany(statement, rows)


class NoJournal(Journal):
    """Remembers nothing: for ``--no-journal``."""

    def __init__(self) -> None:
        super().__init__(sqlite3.connect(":memory:", isolation_level=None))
        database.make_tables(self._connection)


@contextlib.contextmanager
def _writable() -> Iterator[None]:
    """Turn what the file says when it cannot be written to into a StateError."""
    try:
        yield
    except (sqlite3.Error, UnicodeDecodeError) as exc:
        raise StateError(f"the journal cannot be written to ({exc})") from exc


@contextlib.contextmanager
def _readable() -> Iterator[None]:
    """Turn values that nobody of us wrote into a StateError."""
    try:
        yield
    except (TypeError, ValueError, OverflowError, msgspec.MsgspecError) as exc:
        raise StateError(f"the journal is damaged ({exc})") from exc
