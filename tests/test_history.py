"""``history``: what was shared when, what of it can be undone, and what the journal forgets."""

from __future__ import annotations

import os
import pwd
import shutil
import sqlite3
import time
from contextlib import closing
from datetime import datetime
from pathlib import Path

import pytest
from msgspec.structs import replace

from conda_dedup_plugin import database, history, state
from conda_dedup_plugin.errors import StateError
from conda_dedup_plugin.journal import Journal
from conda_dedup_plugin.model import Inode, InodeKey, Method
from tests.lab import needs
from tests.test_inventory import as_nobody, world_readable
from tests.test_journal import CHANGE, kill_a_run
from tests.test_report import World
from tests.test_undo import LIB, Run, pair, run, share, world  # noqa: F401

#: Of the first format: what it lacks is added when it is opened.
FIRST = """
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
INSERT INTO run VALUES ('abcdefabcdef', 1700000000.0, 1700000001.0, 'conda dedup apply', '', 0, '0.1');
INSERT INTO change VALUES (1, 'abcdefabcdef', 'done', 'hardlink', '/envs/one', 'lib/x', 's/1', '1', '17',
    4096, 1, 33188, 0, 0, '1', '18', 2, 4096);
PRAGMA user_version=1
"""
#: What the second format had that the first lacks.
SECOND = """
ALTER TABLE run ADD COLUMN names INTEGER NOT NULL DEFAULT 0;
ALTER TABLE run ADD COLUMN bytes_freed INTEGER NOT NULL DEFAULT 0;
ALTER TABLE run ADD COLUMN undone INTEGER NOT NULL DEFAULT 0;
CREATE INDEX change_run ON change(run);
CREATE TABLE compaction (changes INTEGER NOT NULL);
PRAGMA user_version=2
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "journal.sqlite"


def remember(journal: Journal, root: Path, names: int, alive: bool = True) -> str:
    """A run that gave ``names`` files below ``root`` their keeper; or that stand for others since."""
    journal.begin("apply")
    changes = []
    for number in range(names):
        path = root / str(number)
        path.parent.mkdir(exist_ok=True)
        path.touch()
        inode = path.stat().st_ino if alive else 2**60 + number
        changes.append(replace(CHANGE, root=str(root), path=path.name, keeper=InodeKey(1, inode)))
    numbers = journal.intend(changes)
    journal.resolve([(number, "done", 4096) for number in numbers])
    journal.finish()
    return journal.run


def test_what_was_done(world: World, run: Run) -> None:  # noqa: F811
    began = time.time()
    one, two = pair(world, run)
    (entry,) = run(world, "history")["runs"]
    assert (entry["command"], entry["names"], entry["undoable"], entry["undone"]) == (
        "conda-dedup apply", 1, 1, 0
    )  # fmt: skip
    assert entry["bytes_freed"] == os.stat(one / LIB).st_blocks * 512
    assert entry["running"] is False
    started, finished = (datetime.fromisoformat(entry[name]) for name in ("started", "finished"))
    assert started.utcoffset().total_seconds() == 0
    assert began <= started.timestamp() <= finished.timestamp() <= time.time()
    run(world, "undo", "--yes")
    undo, entry = run(world, "history")["runs"]
    assert (entry["names"], entry["undoable"], entry["undone"]) == (1, 0, 1)
    assert undo["command"] == "conda-dedup undo"
    assert (undo["names"], undo["undoable"], undo["undone"]) == (1, 0, 0)
    assert undo["bytes_freed"] == -os.stat(two / LIB).st_blocks * 512
    text = world.run("history").stdout
    assert [line.split()[0] for line in text.splitlines()] == ["Run", undo["id"], entry["id"]]


def test_nothing_yet(world: World, run: Run) -> None:  # noqa: F811
    assert run(world, "history") == {"schema": 1, "runs": []}
    assert world.run("history").stdout == "Nothing was shared yet.\n"


def test_running_and_interrupted(file: Path) -> None:
    kill_a_run(file, CHANGE)
    with closing(Journal.open(file)) as journal:
        running = journal.begin("apply")
        journal.done([replace(CHANGE, method=Method.REFLINK)], [4096])
        now, before = history.runs(journal)
        assert (now.id, now.finished, now.running, now.names, now.bytes_freed) == (
            running, None, True, 1, 4096
        )  # fmt: skip
        assert (before.command, before.finished, before.running, before.names) == ("killed", None, False, 0)


# -- what is forgotten ------------------------------------------------------------------------------------


def test_what_is_stale_is_forgotten(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "MOST_CHANGES", 100)
    with closing(Journal.open(file)) as journal:
        live = remember(journal, tmp_path / "live", 50)
        remember(journal, tmp_path / "stale", 3000, alive=False)
        journal.read("PRAGMA wal_checkpoint(TRUNCATE)")
        size = file.stat().st_size
        history.compact(journal, time.time())
        assert [entry.run for entry in history.shared(journal)] == [live] * 50
        journal.read("PRAGMA wal_checkpoint(TRUNCATE)")
        assert file.stat().st_size < size / 2


def test_nothing_is_looked_for_in_a_small_journal(file: Path, tmp_path: Path) -> None:
    with closing(Journal.open(file)) as journal:
        remember(journal, tmp_path / "stale", 3, alive=False)
        history.compact(journal, time.time())
        assert len(history.shared(journal)) == 3


@pytest.mark.parametrize(("days", "left"), [(0, 3), (179, 3), (181, 0)])
def test_a_tree_that_is_not_mounted(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, days: int, left: int
) -> None:
    monkeypatch.setattr(history, "MOST_CHANGES", 1)
    with closing(Journal.open(file)) as journal:
        remember(journal, tmp_path / "gone", 3)
        shutil.rmtree(tmp_path / "gone")
        history.compact(journal, time.time() + days * 24 * 3600)
        assert len(history.shared(journal)) == left


def test_old_runs(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of which something can be undone are kept whatever their number."""
    monkeypatch.setattr(history, "MOST_RUNS", 5)
    with closing(Journal.open(file)) as journal:
        first = remember(journal, tmp_path / "live", 1)
        for _ in range(8):
            remember(journal, tmp_path / "other", 1)
            history.taken_back(journal, history.shared(journal)[:1])
        history.compact(journal, time.time())
        found = history.runs(journal)
        assert len(found) == 6
        assert found[-1].id == first
        assert [each.undone for each in found] == [1] * 5 + [0]


def test_copies_of_an_interrupted_undo_are_forgotten(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They can't be taken back, and are not looked at ever again."""
    monkeypatch.setattr(history, "MOST_CHANGES", 0)

    def interrupted() -> None:
        with closing(Journal.open(file)) as journal:
            journal.begin("undo")
            journal.done([replace(CHANGE, method=Method.COPY)], [-4096])

    as_child(interrupted)
    with closing(Journal.open(file)) as journal:
        history.compact(journal, time.time())
        assert journal.read("SELECT * FROM change") == []


def as_child(function) -> None:
    child = os.fork()
    if child == 0:
        try:
            function()
        finally:
            os._exit(0)
    os.waitpid(child, 0)


# -- other journals ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("script", [FIRST, FIRST + ";" + SECOND], ids=["first", "second"])
def test_earlier_formats(file: Path, script: str) -> None:
    with closing(sqlite3.connect(file)) as connection:
        connection.executescript(script)
    for _ in range(2):
        with closing(Journal.open(file)) as journal:
            (found,) = history.runs(journal)
            assert (found.id, found.undoable, found.undone) == ("abcdefabcdef", 1, 0)
            change = history.shared(journal)[0].change
            assert (change.keeper.number, change.keeper_size, change.bytecode) == (18, -1, None)
            kept = Inode(InodeKey(1, 18), 4096, 4096, 0o100644, 0, 0, 2, 2, 0)
            assert change.keeper_is_as_noted(kept)
            assert journal.read("PRAGMA user_version") == [(3,)]
    with closing(Journal.open(file)) as journal:
        history.taken_back(journal, history.shared(journal))
        assert history.runs(journal)[0].undone == 1


def test_an_upgrade_that_is_killed(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it or nothing."""
    with closing(sqlite3.connect(file)) as connection:
        connection.executescript(FIRST)
    statements = database._UPGRADE_1.split(";")

    def upgrade() -> None:
        def some(connection: sqlite3.Connection, _: str) -> None:
            for statement in statements[:2]:
                connection.execute(statement)
            os.kill(os.getpid(), 9)

        monkeypatch.setattr(database, "make_tables", some)
        Journal.open(file)

    as_child(upgrade)
    with closing(Journal.open(file)) as journal:
        assert history.runs(journal)[0].undoable == 1


def test_another_users_journal() -> None:
    needs("needs root", os.geteuid() == 0)
    with world_readable() as folder:
        path = folder / "journal.sqlite"
        Journal.open(path).close()
        path.chmod(0o600)

        def opened() -> str:
            try:
                Journal.open(path).close()
            except StateError as exc:
                return str(exc)
            return ""

        sentence = as_nobody(opened)
    assert f"belongs to user {pwd.getpwuid(0).pw_name!r}" in sentence
    assert "\n" not in sentence


@pytest.mark.parametrize("verb", ["undo", "history"])
def test_an_unusable_journal(world: World, run: Run, verb: str) -> None:  # noqa: F811
    folder = world.home / "state/conda-dedup"
    folder.mkdir(parents=True)
    (folder / "journal.sqlite").write_bytes(b"no journal" * 1000)
    document = run(world, *([verb, "--yes"] if verb == "undo" else [verb]), code=1)
    assert "cannot be used" in document["error"]
    assert ("--all-links" in document["hint"]) == (verb == "undo")
    assert state.is_running("") is False
