"""Private copies: with all that a file has, against everybody in between, and killed at any step."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from conda_dedup_plugin.journal import Journal
from conda_dedup_plugin.model import Method, Reason
from conda_dedup_plugin.sharing import exchanges as exchanges_module
from conda_dedup_plugin.sharing import private as private_module
from conda_dedup_plugin.sharing import staging as staging_module
from conda_dedup_plugin.sharing.private import Copy, Privatizer
from conda_dedup_plugin.sharing.recovery import recover
from tests.lab import needs
from tests.lab.forge import noise
from tests.lab.invariants import assert_unchanged, snapshot
from tests.lab.shares import inode_of, leftovers, one_tree
from tests.sharing.test_foreign_writers import EDIT, A, B, C, make, replace, start_writer
from tests.test_inventory import as_nobody, world_readable

DATA = noise("content", 20_000)
BIG = noise("big", 5 << 20)
OLD = 1_500_000_000_123_456_789
NOBODY = 65534


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A file with three names."""
    return shared_tree(tmp_path / "env")


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "journal.sqlite"


def shared_tree(tree: Path, data: bytes = DATA) -> Path:
    make(tree, A, data)
    (tree / B).parent.mkdir()
    for path in (B, C):
        os.link(tree / A, tree / path)
    return tree


def privatize(root: Path, journal: Path, *tasks: tuple[str, ...], mtime_ns: int = OLD):
    """Give each group of names a copy; returns the outcomes."""
    book = Journal.open(journal)
    try:
        book.begin("test")
        with Privatizer(one_tree(root), book) as privatizer:
            outcomes = list(privatizer.run([Copy(inode_of(root, *names), mtime_ns) for names in tasks]))
        book.finish()
        kept = book.read(
            "SELECT * FROM change WHERE method = 'copy' AND state = 'done' AND run = ?", (book.run,)
        )
        assert kept == [], "a copy is nothing to take back"
        return outcomes
    finally:
        book.close()


def one_inode(root: Path, *paths: str) -> bool:
    return len({os.lstat(root / path).st_ino for path in paths}) == 1


def runs_before(monkeypatch, owner, name, meanwhile) -> None:
    """Let ``meanwhile(*arguments)`` happen once, just before a step."""
    original = getattr(owner, name)
    seen = []

    def hooked(*arguments):
        if not seen:
            seen.append(1)
            meanwhile(*arguments)
        return original(*arguments)

    monkeypatch.setattr(owner, name, hooked)


# -- what a copy is ---------------------------------------------------------------------------------------


def test_names_get_inodes_of_their_own(root, journal):
    before = snapshot(root)
    outcomes = privatize(root, journal, (B,), (C,), mtime_ns=os.stat(root / A).st_mtime_ns)
    assert [(o.method, o.reason, o.error) for o in outcomes] == [(Method.COPY, None, "")] * 2
    assert [o.bytes_freed for o in outcomes] == [-os.stat(root / path).st_blocks * 512 for path in (B, C)]
    assert_unchanged(before, snapshot(root))
    assert {os.lstat(root / path).st_nlink for path in (A, B, C)} == {1}
    assert leftovers(root) == []


def test_names_of_one_task_stay_one_inode(root, journal):
    (outcome,) = privatize(root, journal, (B, C))
    assert outcome.method is Method.COPY
    assert one_inode(root, B, C)
    assert not one_inode(root, A, B)
    assert os.stat(root / B).st_mtime_ns == OLD
    assert os.stat(root / A).st_mtime_ns == 1_000_000_000 * 10**9
    assert leftovers(root) == []


def test_nothing_is_used_when_all_names_move(root, journal):
    (outcome,) = privatize(root, journal, (A, B, C))
    assert (outcome.method, outcome.bytes_freed) == (Method.COPY, 0)
    assert one_inode(root, A, B, C)


def test_mode_xattrs_and_acl(root, journal):
    os.chmod(root / A, 0o751)
    os.setxattr(root / A, "user.note", b"kept\0bytes")
    needs("needs setfacl", shutil.which("setfacl"))
    subprocess.run(["setfacl", "-m", "u:12345:rwx", str(root / A)], check=True)
    before = snapshot(root)
    privatize(root, journal, (B,), (C,), mtime_ns=os.stat(root / A).st_mtime_ns)
    assert not one_inode(root, A, B)
    assert_unchanged(before, snapshot(root))
    assert "system.posix_acl_access" in dict(snapshot(root)[str(root / B)].xattrs)


def test_a_default_acl_of_the_directory_is_not_inherited(root, journal):
    needs("needs setfacl", shutil.which("setfacl"))
    for folder in (root, root / "two"):
        subprocess.run(["setfacl", "-d", "-m", "u:12345:rwx", str(folder)], check=True)
    before = snapshot(root)
    (outcome,) = privatize(root, journal, (B,), mtime_ns=os.stat(root / A).st_mtime_ns)
    assert outcome.method is Method.COPY
    assert_unchanged(before, snapshot(root))
    assert os.listxattr(root / B) == []


def test_the_owner_of_another_users_file_is_kept(root, journal):
    needs("needs root", os.geteuid() == 0)
    os.chown(root / A, 1234, 2345)
    (outcome,) = privatize(root, journal, (B,))
    assert outcome.method is Method.COPY
    assert (os.stat(root / B).st_uid, os.stat(root / B).st_gid) == (1234, 2345)


@pytest.mark.parametrize("owner", [NOBODY, 0])
def test_an_ordinary_user(owner):
    """Their own files get copies; another's are left alone, for a copy could not be that user's."""
    needs("needs root", os.geteuid() == 0)
    with world_readable() as folder:
        root = shared_tree(folder / "env")
        for path in (root, root / "one", root / "two", folder):
            os.chown(path, NOBODY, NOBODY)
        os.chown(root / A, owner, owner)
        (outcome,) = as_nobody(lambda: privatize(root, folder / "journal.sqlite", (B,)))
        if owner:
            assert outcome.method is Method.COPY
            assert os.stat(root / B).st_uid == NOBODY
        else:
            assert outcome.reason in (Reason.NO_ACCESS, Reason.OTHER_OWNER)
            assert one_inode(root, A, B)
        assert (root / B).read_bytes() == DATA
        assert leftovers(root) == []


def test_what_gives_privileges_is_left_alone(root, journal):
    os.chmod(root / A, 0o4755)
    (outcome,) = privatize(root, journal, (B,))
    assert outcome.reason is Reason.SETID
    assert one_inode(root, A, B)


def test_holes_stay_holes(root, journal):
    with open(root / A, "r+b") as stream:
        stream.truncate(8 << 20)
        stream.seek(5 << 20)
        stream.write(DATA)
    blocks = os.stat(root / A).st_blocks
    needs("a file system with holes", blocks * 512 < 1 << 20)
    before = snapshot(root)
    privatize(root, journal, (B,), mtime_ns=os.stat(root / A).st_mtime_ns)
    assert not one_inode(root, A, B)
    assert_unchanged(before, snapshot(root))
    assert os.stat(root / B).st_blocks <= blocks + 64


# -- others in between ------------------------------------------------------------------------------------


def test_a_writer_who_has_it_open(root, journal):
    before = snapshot(root)
    with open(root / A, "r+b"):
        (outcome,) = privatize(root, journal, (B,))
    assert outcome.reason is Reason.BUSY
    assert snapshot(root) == before
    assert leftovers(root) == []


@pytest.mark.parametrize("path", [A, B])
def test_a_writer_who_comes_after_the_copy(root, journal, monkeypatch, path):
    """By whatever name he comes, it is the shared inode that he gets and all keep."""
    shared = os.stat(root / A).st_ino
    writers = []
    runs_before(
        monkeypatch, Privatizer, "_exchange", lambda *_: writers.append(start_writer(root / path, shared))
    )
    (outcome,) = privatize(root, journal, (B,))
    writers[0].join()
    assert outcome.reason is Reason.BUSY
    assert one_inode(root, A, B, C)
    assert (root / B).read_bytes() == EDIT + DATA[len(EDIT) :]
    assert leftovers(root) == []


def test_a_writer_of_the_shared_inode_after_the_exchange(root, journal, monkeypatch):
    shared = os.stat(root / A).st_ino
    writers = []
    runs_before(monkeypatch, Privatizer, "_settle", lambda *_: writers.append(start_writer(root / A, shared)))
    (outcome,) = privatize(root, journal, (B,))
    writers[0].join()
    assert outcome.reason is Reason.BUSY
    assert one_inode(root, A, B, C)
    assert (root / B).read_bytes().startswith(EDIT)
    assert leftovers(root) == []


def test_a_writer_of_the_copy_after_the_exchange(root, journal, monkeypatch):
    """He has the copy already, which is the target's alone."""
    writers = []
    runs_before(
        monkeypatch,
        Privatizer,
        "_settle",
        lambda _, job: writers.append(start_writer(root / B, job.keeper.inode.key.number)),
    )
    (outcome,) = privatize(root, journal, (B,))
    writers[0].join()
    assert outcome.method is Method.COPY
    assert (root / B).read_bytes().startswith(EDIT)
    assert (root / A).read_bytes() == DATA
    assert leftovers(root) == []


def test_writers_of_both_after_the_exchange(root, journal, monkeypatch):
    shared = os.stat(root / A).st_ino
    writers = []

    def both(_, job):
        writers.append(start_writer(root / B, job.keeper.inode.key.number))
        writers.append(start_writer(root / A, shared))

    runs_before(monkeypatch, Privatizer, "_settle", both)
    (outcome,) = privatize(root, journal, (B,))
    for writer in writers:
        writer.join()
    assert outcome.reason is Reason.CONFLICT
    assert (root / B).read_bytes().startswith(EDIT)
    assert (root / A).read_bytes().startswith(EDIT)
    assert os.path.samefile(outcome.detail, root / A)


def test_a_big_file_that_is_written_to_while_it_is_copied(tmp_path, journal, monkeypatch):
    """Nobody waits while it is read; what they wrote is seen afterwards."""
    root = shared_tree(tmp_path / "env", BIG)

    def write(*_):
        with open(root / A, "r+b") as stream:
            stream.write(EDIT)

    runs_before(monkeypatch, private_module, "copy_metadata", write)
    (outcome,) = privatize(root, journal, (B,))
    assert outcome.reason is Reason.CHANGED
    assert one_inode(root, A, B, C)
    assert (root / B).read_bytes().startswith(EDIT)
    assert leftovers(root) == []


def test_a_file_that_is_replaced_just_before_the_exchange(root, journal, monkeypatch):
    runs_before(monkeypatch, staging_module.Swap, "exchange", lambda *_: replace(root / B, b"somebody's"))
    first, second = privatize(root, journal, (B,), (C,))
    assert first.reason is Reason.CHANGED
    assert second.method is Method.COPY
    assert (root / B).read_bytes() == b"somebody's"
    assert (root / C).read_bytes() == DATA
    assert leftovers(root) == []


def test_a_copy_that_went_wrong_is_not_used(root, journal, monkeypatch):
    """A device that does not give back what was written to it, say."""
    copy_bytes = private_module.copy_bytes

    def wrong(source, target):
        copy_bytes(source, target)
        os.pwrite(target, b"X", 5000)

    monkeypatch.setattr(private_module, "copy_bytes", wrong)
    (outcome,) = privatize(root, journal, (B,))
    assert outcome.reason is Reason.CHANGED
    assert one_inode(root, A, B, C)
    assert leftovers(root) == []


# -- kill -9 ----------------------------------------------------------------------------------------------

STEPS = [
    (staging_module.Staging, "make"),
    (staging_module.Staging, "new_file"),
    (private_module, "copy_bytes"),
    (private_module, "copy_metadata"),
    (Journal, "intend"),
    (Privatizer, "_make_durable"),
    (exchanges_module, "link_descriptor"),
    (staging_module.Swap, "exchange"),
    (Privatizer, "_settle"),
    (staging_module.Staging, "drop"),
    (Privatizer, "_drop_old"),
    (Journal, "resolve"),
    (Journal, "finish"),
]


def dies_at(monkeypatch, owner, name: str, when: str, count: int) -> None:
    """Let this process die before or after the ``count``-th time of a step."""
    original = getattr(owner, name)
    left = [count]

    def replaced(*arguments, **options):
        left[0] -= 1
        if left[0] == 0 and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*arguments, **options)
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    monkeypatch.setattr(owner, name, replaced)


def killed(function) -> bool:
    """Call it in a child; whether that was killed."""
    child = os.fork()
    if child == 0:
        try:
            function()
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


@pytest.mark.parametrize(
    "count", [1, *[pytest.param(number, marks=pytest.mark.soak) for number in (2, 3, 4)]]
)
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(("owner", "name"), STEPS, ids=[name for _, name in STEPS])
def test_killed_at(root, journal, monkeypatch, owner, name, when, count):
    before = snapshot(root)
    mtime_ns = os.stat(root / A).st_mtime_ns

    def run() -> None:
        dies_at(monkeypatch, owner, name, when, count)
        privatize(root, journal, (B,), (C,), mtime_ns=mtime_ns)

    assert killed(run) or count > 1, "the step was never reached"

    def unchanged() -> None:
        assert_unchanged(before, {p: s for p, s in snapshot(root).items() if "conda-dedup" not in p})

    unchanged()
    book = Journal.open(journal)
    assert recover(book) == []
    assert book.open_intents() == []
    assert book.left_stagings() == []
    book.close()
    unchanged()
    assert leftovers(root) == []
    privatize(root, journal, *[(path,) for path in (B, C) if one_inode(root, A, path)], mtime_ns=mtime_ns)
    unchanged()
    assert {os.lstat(root / path).st_nlink for path in (A, B, C)} == {1}
    assert leftovers(root) == []
