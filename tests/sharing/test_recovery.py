"""A run that is killed at any step, and what the next one makes of it."""

from __future__ import annotations

import os
import signal

import pytest

from conda_dedup_plugin.journal import Journal
from conda_dedup_plugin.sharing import exchanges as exchanges_module
from conda_dedup_plugin.sharing import hardlink as hardlink_module
from conda_dedup_plugin.sharing import staging as staging_module
from conda_dedup_plugin.sharing.recovery import recover
from tests.lab.forge import noise
from tests.lab.shares import hardlink, leftovers, share_of

A, B, C = "lib/a.so", "lib/b.so", "lib/c.so"
DATA = noise("content", 20_000)


@pytest.fixture
def root(tmp_path):
    tree = tmp_path / "env"
    (tree / "lib").mkdir(parents=True)
    for path in (A, B, C):
        (tree / path).write_bytes(DATA)
    return tree


def _die(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def _before(monkeypatch, owner, name):
    original = getattr(owner, name)

    def replaced(*arguments):
        _die()
        return original(*arguments)

    monkeypatch.setattr(owner, name, replaced)


def _after(monkeypatch, owner, name, meanwhile=lambda: None):
    original = getattr(owner, name)

    def replaced(*arguments):
        original(*arguments)
        meanwhile()
        _die()

    monkeypatch.setattr(owner, name, replaced)


LINKER, SWAP = hardlink_module.Hardlinker, staging_module.Swap
STEPS = [
    ("before", LINKER, "_make_durable"),
    ("before", exchanges_module, "link_descriptor"),
    ("after", exchanges_module, "link_descriptor"),
    ("before", SWAP, "exchange"),
    ("after", SWAP, "exchange"),
    ("after", LINKER, "_settle"),
    ("after", staging_module.Staging, "drop"),
    ("after", LINKER, "_drop_old"),
    ("before", Journal, "resolve"),
    ("after", Journal, "resolve"),
]


def _killed_run(root, journal, monkeypatch, when, owner, name, meanwhile=lambda: None):
    """Run in a child that dies at a step."""
    shares = [share_of(root, A, B), share_of(root, A, C)]
    child = os.fork()
    if child == 0:
        try:
            if when == "before":
                _before(monkeypatch, owner, name)
            else:
                _after(monkeypatch, owner, name, meanwhile)
            hardlink(root, journal, *shares)
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), "the step was never reached"


def _recover(journal):
    book = Journal.open(journal)
    try:
        kept = recover(book)
        assert book.open_intents() == []
        return kept
    finally:
        book.close()


@pytest.mark.parametrize(("when", "owner", "name"), STEPS, ids=[f"{w}-{n}" for w, _, n in STEPS])
def test_killed_at(root, tmp_path, monkeypatch, when, owner, name):
    journal = tmp_path / "journal.sqlite"
    _killed_run(root, journal, monkeypatch, when, owner, name)
    for path in (A, B, C):
        assert (root / path).read_bytes() == DATA
    assert _recover(journal) == []
    for path in (A, B, C):
        assert (root / path).read_bytes() == DATA
    if (when, name) != ("after", "resolve"):
        assert leftovers(root) == []
    # and the next run finishes the work
    shares = [share_of(root, A, path) for path in (B, C) if not os.path.samefile(root / A, root / path)]
    if shares:
        hardlink(root, journal, *shares)
    assert os.lstat(root / A).st_nlink == 3


def test_somebodys_new_file_comes_back(root, tmp_path, monkeypatch):
    """Replaced just before our exchange, killed just after: staging holds the only copy."""
    journal = tmp_path / "journal.sqlite"
    original = SWAP.exchange

    def replaced_before(self, old):
        (root / "new").write_bytes(b"somebody's")
        os.replace(root / "new", f"{self.root}/{self.path}")
        original(self, old)

    monkeypatch.setattr(SWAP, "exchange", replaced_before)
    _killed_run(root, journal, monkeypatch, "after", SWAP, "exchange")
    assert (root / B).read_bytes() == DATA  # the keeper's, for a moment
    assert _recover(journal) == []
    assert (root / B).read_bytes() == b"somebody's"
    assert leftovers(root) == []


def test_an_old_inode_written_after_the_kill_comes_back(root, tmp_path, monkeypatch):
    journal = tmp_path / "journal.sqlite"
    held = os.open(root / B, os.O_RDONLY)
    _killed_run(root, journal, monkeypatch, "after", SWAP, "exchange")
    writer = os.open(f"/proc/self/fd/{held}", os.O_WRONLY)
    os.pwrite(writer, b"edited", 0)
    os.close(writer)
    assert _recover(journal) == []
    assert (root / B).read_bytes()[:6] == b"edited"
    assert (root / A).read_bytes() == DATA


def test_a_target_replaced_after_the_kill_stays(root, tmp_path, monkeypatch):
    journal = tmp_path / "journal.sqlite"
    _killed_run(root, journal, monkeypatch, "after", SWAP, "exchange")
    (root / "new").write_bytes(b"newer")
    os.replace(root / "new", root / B)
    assert _recover(journal) == []
    assert (root / B).read_bytes() == b"newer"
    assert leftovers(root) == []


def test_intents_of_a_run_that_lives_are_left_alone(root, tmp_path, monkeypatch):
    journal = tmp_path / "journal.sqlite"
    seen = []

    def look(self, batch):
        other = Journal.open(journal)
        seen.extend(other.open_intents())
        other.close()

    monkeypatch.setattr(LINKER, "_make_durable", look)
    hardlink(root, journal, share_of(root, A, B))
    assert seen == []
