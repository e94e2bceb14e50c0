"""The file of the journal: its tables, its upgrade, and how it is opened where."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import StateError
from .sharing.system import REMOTE, file_system

if TYPE_CHECKING:
    from collections.abc import Iterator

_FORMAT = 3
_TABLES = """
CREATE TABLE run (
    id TEXT PRIMARY KEY, started REAL NOT NULL, finished REAL, command TEXT NOT NULL,
    process TEXT NOT NULL, uid INTEGER NOT NULL, version TEXT NOT NULL,
    names INTEGER NOT NULL DEFAULT 0, bytes_freed INTEGER NOT NULL DEFAULT 0,
    undone INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE change (
    id INTEGER PRIMARY KEY, run TEXT NOT NULL REFERENCES run(id), state TEXT NOT NULL,
    method TEXT NOT NULL, root BLOB NOT NULL, path BLOB NOT NULL, staged BLOB NOT NULL,
    old_device TEXT NOT NULL, old_number TEXT NOT NULL, size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL, mode INTEGER NOT NULL, uid INTEGER NOT NULL, gid INTEGER NOT NULL,
    keeper_device TEXT NOT NULL, keeper_number TEXT NOT NULL, keeper_mtime_ns INTEGER NOT NULL,
    bytes_freed INTEGER NOT NULL DEFAULT 0, keeper_size INTEGER NOT NULL DEFAULT -1,
    bytecode BLOB NOT NULL DEFAULT x''
);
CREATE TABLE staging (run TEXT NOT NULL REFERENCES run(id), root BLOB NOT NULL, path BLOB NOT NULL);
CREATE INDEX change_state ON change(state) WHERE state = 'intent';
CREATE INDEX change_place ON change(root, path);
CREATE INDEX change_run ON change(run);
CREATE TABLE compaction (changes INTEGER NOT NULL)
"""
#: What the second format lacks, and the first.
_UPGRADE_2 = """
ALTER TABLE change ADD COLUMN keeper_size INTEGER NOT NULL DEFAULT -1;
ALTER TABLE change ADD COLUMN bytecode BLOB NOT NULL DEFAULT x''
"""
_UPGRADE_1 = f"""
{_UPGRADE_2};
ALTER TABLE run ADD COLUMN names INTEGER NOT NULL DEFAULT 0;
ALTER TABLE run ADD COLUMN bytes_freed INTEGER NOT NULL DEFAULT 0;
ALTER TABLE run ADD COLUMN undone INTEGER NOT NULL DEFAULT 0;
CREATE INDEX change_run ON change(run);
CREATE TABLE compaction (changes INTEGER NOT NULL)
"""
#: From each format to the present one.
_STEPS = {0: _TABLES, 1: _UPGRADE_1, 2: _UPGRADE_2}
#: The log that SQLite keeps beside the file is cut to so many bytes.
_LOG_BYTES = 4 * 1024 * 1024
#: The last byte of the first so many tells whether the file is kept with a log (2).
_HEADER_BYTES = 20
_READ_VERSION = 19


def connect(path: Path, patience: float) -> sqlite3.Connection:
    """Open the file, and make or upgrade its tables; WAL where only this machine writes to it.

    StateError: it cannot be used, is another user's, or of a later version.
    """
    try:
        connection = sqlite3.connect(path, timeout=patience, isolation_level=None)
        _set_mode(connection, "DELETE" if _is_remote(path.parent) else "WAL", patience)
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute(f"PRAGMA journal_size_limit={_LOG_BYTES}")
        with transaction(connection):
            found = connection.execute("PRAGMA user_version").fetchone()[0]
            if found in _STEPS:
                make_tables(connection, _STEPS[found])
                connection.execute(f"PRAGMA user_version={_FORMAT}")
    except (sqlite3.Error, UnicodeDecodeError) as exc:  # its message may quote what is no text
        raise _unusable(path, exc) from exc
    if found not in (*_STEPS, _FORMAT):
        connection.close()
        raise _of_another_version(path)
    return connection


def snapshot(path: Path) -> sqlite3.Connection:
    """Return what is in the file, in memory, upgraded; nothing is made or changed on disk.

    StateError: it cannot be read, or is of a later version.
    """
    connection = sqlite3.connect(":memory:", isolation_level=None)
    try:
        source = sqlite3.connect(f"{path.absolute().as_uri()}?{_how_to_read(path)}", uri=True)
        with contextlib.closing(source):
            source.backup(connection)
        found = connection.execute("PRAGMA user_version").fetchone()[0]
        if found in _STEPS:
            make_tables(connection, _STEPS[found])
    except (sqlite3.Error, OSError, UnicodeDecodeError) as exc:
        connection.close()
        raise _unusable(path, exc) from exc
    if found not in (*_STEPS, _FORMAT):
        connection.close()
        raise _of_another_version(path)
    return connection


def _how_to_read(path: Path) -> str:
    """How SQLite leaves no file beside one that it reads: it would make a log where there is none."""
    if Path(f"{path}-wal").exists():
        return "mode=ro&readonly_shm=1"
    with path.open("rb") as file:
        header = file.read(_HEADER_BYTES)
    return "immutable=1" if header[_READ_VERSION:] == b"\2" else "mode=ro"


def make_tables(connection: sqlite3.Connection, statements: str = _TABLES) -> None:
    """Make the tables."""
    for statement in statements.split(";"):
        connection.execute(statement)


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
def transaction(connection: sqlite3.Connection, durable: bool = True) -> Iterator[None]:
    """Do what is in the block as one transaction, or nothing of it.

    Not ``durable``: it survives a loss of power only together with the next one that is. Where the file is
    kept without a log, it is durable in any case.
    """
    lazy = not durable and connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    if lazy:
        connection.execute("PRAGMA synchronous=NORMAL")
    try:
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")
    finally:
        if lazy:
            connection.execute("PRAGMA synchronous=FULL")


def _is_remote(directory: Path) -> bool:
    if sys.platform == "win32":
        return False  # SQLite itself leaves WAL alone where it cannot be had
    else:
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            return file_system(descriptor) in REMOTE
        except OSError:
            return False
        finally:
            os.close(descriptor)


def _of_another_version(path: Path) -> StateError:
    return StateError(f"the journal {str(path)!r} is of another version of conda-dedup-plugin")


def _unusable(path: Path, error: Exception) -> StateError:
    """Say what is wrong, and whose the file is if it is another user's."""
    if sys.platform != "win32":
        with contextlib.suppress(OSError, KeyError):
            owner = path.stat().st_uid
            if owner != os.geteuid():
                import pwd

                return StateError(
                    f"the journal {str(path)!r} belongs to user {pwd.getpwuid(owner).pw_name!r} ({error})"
                )
    return StateError(f"the journal {str(path)!r} cannot be used ({error})")
