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

from . import __version__
from .errors import StateError
from .model import InodeKey, Method
from .sharing.change import Change, OpenIntent
from .sharing.linux import REMOTE, file_system
from .state import is_running, process_identity, state_directory

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

_FORMAT = 1
#: So many seconds another process is waited for.
PATIENCE = 5.0
_TABLES = """
CREATE TABLE run (
    id TEXT PRIMARY KEY, started REAL NOT NULL, finished REAL, command TEXT NOT NULL,
    process TEXT NOT NULL, uid INTEGER NOT NULL, version TEXT NOT NULL
);
CREATE TABLE change (
    id INTEGER PRIMARY KEY, run TEXT NOT NULL REFERENCES run(id), state TEXT NOT NULL,
    method TEXT NOT NULL, root BLOB NOT NULL, path BLOB NOT NULL, staged BLOB NOT NULL,
    old_device TEXT NOT NULL, old_number TEXT NOT NULL, size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL, mode INTEGER NOT NULL, uid INTEGER NOT NULL, gid INTEGER NOT NULL,
    keeper_device TEXT NOT NULL, keeper_number TEXT NOT NULL, keeper_mtime_ns INTEGER NOT NULL,
    bytes_freed INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE staging (run TEXT NOT NULL REFERENCES run(id), root BLOB NOT NULL, path BLOB NOT NULL);
CREATE INDEX change_state ON change(state) WHERE state = 'intent';
CREATE INDEX change_place ON change(root, path);
"""


class Journal:
    """The journal of one user. Every method raises StateError when the file cannot be used."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.run = ""

    @classmethod
    def open(cls, path: Path | None = None, patience: float = PATIENCE) -> Journal:
        """Open the journal at ``path``, by default the user's own, and make it if it does not exist.

        ``patience``: how many seconds another process that writes to it is waited for.
        """
        path = path or state_directory() / "journal.sqlite"
        try:
            connection = sqlite3.connect(path, timeout=patience, isolation_level=None)
            remote = _is_remote(path.parent)
            _set_mode(connection, "DELETE" if remote else "WAL", patience)
            connection.execute("PRAGMA synchronous=FULL")
            with _transaction(connection):
                found = connection.execute("PRAGMA user_version").fetchone()[0]
                if found == 0:
                    for statement in _TABLES.split(";"):
                        connection.execute(statement)
                    connection.execute(f"PRAGMA user_version={_FORMAT}")
        except sqlite3.Error as exc:
            raise StateError(f"the journal {str(path)!r} cannot be used ({exc})") from exc
        if found not in (0, _FORMAT):
            connection.close()
            raise StateError(f"the journal {str(path)!r} is of another version of conda-dedup-plugin")
        return cls(connection)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def begin(self, command: str) -> str:
        """Begin a run and return its id."""
        self.run = uuid.uuid4().hex[:12]
        self._write(
            "INSERT INTO run VALUES (?, ?, NULL, ?, ?, ?, ?)",
            [(self.run, time.time(), command, process_identity(os.getpid()), os.getuid(), __version__)],
        )
        return self.run

    def finish(self) -> None:
        """Note that the run came to its end; one that changed nothing is forgotten."""
        self._write("DELETE FROM staging WHERE run = ?", [(self.run,)])
        self._write("UPDATE run SET finished = ? WHERE id = ?", [(time.time(), self.run)])
        self._write("DELETE FROM run WHERE id = ? AND id NOT IN (SELECT run FROM change)", [(self.run,)])

    def staging(self, root: str, path: str) -> None:
        """Write down that the run is about to make a staging directory at ``path`` of a tree."""
        self._write(
            "INSERT INTO staging VALUES (?, ?, ?)", [(self.run, os.fsencode(root), os.fsencode(path))]
        )

    def left_stagings(self) -> list[tuple[str, str, str]]:
        """Return (run, root, path) of the staging directories of runs whose process is gone."""
        rows = self._dead("SELECT staging.*, run.process FROM staging JOIN run ON run.id = staging.run")
        return [(str(run), os.fsdecode(root), os.fsdecode(path)) for run, root, path, _ in rows]

    def forget_staging(self, run: str, root: str, path: str) -> None:
        """Note that a staging directory is no more."""
        row = (run, os.fsencode(root), os.fsencode(path))
        self._write("DELETE FROM staging WHERE run = ? AND root = ? AND path = ?", [row])

    def intend(self, changes: Sequence[Change]) -> list[int]:
        """Write down what is about to be done; durable on return. Returns a number for each."""
        return self._insert("intent", changes, [0] * len(changes))

    def done(self, changes: Sequence[Change], freed: Sequence[int]) -> None:
        """Write down what needed no intent (reflinks)."""
        self._insert("done", changes, freed)

    def _insert(self, state: str, changes: Sequence[Change], freed: Sequence[int]) -> list[int]:
        try:
            with _transaction(self._connection):
                first = self._connection.execute("SELECT COALESCE(MAX(id), 0) + 1 FROM change").fetchone()[0]
                numbers = list(range(first, first + len(changes)))
                self._connection.executemany(
                    f"INSERT INTO change VALUES ({', '.join('?' * 18)})",
                    [
                        (
                            number, self.run, state, change.method.value, os.fsencode(change.root),
                            os.fsencode(change.path), os.fsencode(change.staged), str(change.old.device),
                            str(change.old.number), change.size, change.mtime_ns, change.mode, change.uid,
                            change.gid, str(change.keeper.device), str(change.keeper.number),
                            change.keeper_mtime_ns, size,
                        )
                        for number, change, size in zip(numbers, changes, freed, strict=True)
                    ],
                )  # fmt: skip
        except sqlite3.Error as exc:
            raise StateError(f"the journal cannot be written to ({exc})") from exc
        return numbers

    def resolve(self, results: Iterable[tuple[int, str, int]]) -> None:
        """Write down what came of intents: (number, state, bytes freed); state: done, dropped, conflict."""
        self._write(
            "UPDATE change SET state = ?, bytes_freed = ? WHERE id = ?",
            [(state, freed, number) for number, state, freed in results],
        )
        self._write("DELETE FROM change WHERE state = 'dropped' AND run = ?", [(self.run,)])

    def open_intents(self) -> list[OpenIntent]:
        """Return the intents of runs whose process is gone."""
        rows = self._dead(
            "SELECT change.*, run.process FROM change JOIN run ON run.id = change.run"
            " WHERE change.state = 'intent' ORDER BY change.id"
        )
        return [_open_intent(row) for row in rows]

    def _dead(self, query: str) -> list[tuple[Any, ...]]:
        """Return the rows of other runs (their process is the last column) whose process is gone."""
        try:
            rows = self._connection.execute(query).fetchall()
        except sqlite3.Error as exc:
            raise StateError(f"the journal cannot be read ({exc})") from exc
        here = process_identity(os.getpid())
        alive: dict[str, bool] = {here: True}
        return [row for row in rows if not alive.setdefault(row[-1], is_running(row[-1]))]

    def _write(self, statement: str, rows: Sequence[tuple[object, ...]]) -> None:
        try:
            with _transaction(self._connection):
                self._connection.executemany(statement, rows)
        except sqlite3.Error as exc:
            raise StateError(f"the journal cannot be written to ({exc})") from exc


class NoJournal(Journal):
    """Remembers nothing: for ``--no-journal``."""

    def __init__(self) -> None:
        super().__init__(sqlite3.connect(":memory:", isolation_level=None))
        for statement in _TABLES.split(";"):
            self._connection.execute(statement)


def _set_mode(connection: sqlite3.Connection, mode: str, patience: float) -> None:
    """Choose the journal mode; SQLite itself does not wait for others who are about to do the same."""
    until = time.monotonic() + patience
    while True:
        try:
            connection.execute(f"PRAGMA journal_mode={mode}")
            return
        except sqlite3.OperationalError as exc:
            if "locked" not in str(exc) or time.monotonic() > until:
                raise
            time.sleep(0.01)


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _is_remote(directory: Path) -> bool:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        return file_system(descriptor) in REMOTE
    except OSError:
        return False
    finally:
        os.close(descriptor)


def _open_intent(row: tuple[Any, ...]) -> OpenIntent:
    number, run, _, method, root, path, staged, device, inode, *numbers, kdev, kino, kmtime = row[:17]
    size, mtime, mode, uid, gid = numbers
    return OpenIntent(
        number=number,
        run=run,
        change=Change(
            method=Method(method),
            root=os.fsdecode(root),
            path=os.fsdecode(path),
            staged=os.fsdecode(staged),
            old=InodeKey(int(device), int(inode)),
            size=size,
            mtime_ns=mtime,
            mode=mode,
            uid=uid,
            gid=gid,
            keeper=InodeKey(int(kdev), int(kino)),
            keeper_mtime_ns=kmtime,
        ),
    )
