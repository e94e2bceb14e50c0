"""Others who write, lease, replace and delete while files are shared; and what we take from them."""

from __future__ import annotations

import ctypes
import errno
import os
import random
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from conda_dedup_plugin.journal import Journal
from conda_dedup_plugin.model import Method, Reason
from conda_dedup_plugin.sharing import batches as batches_module
from conda_dedup_plugin.sharing.hardlink import Hardlinker
from conda_dedup_plugin.sharing.recovery import recover
from tests.lab import needs
from tests.lab.forge import noise
from tests.lab.shares import devices_of, hardlink, leftovers, one_tree, share_of

A, B, C = "one/a.so", "two/b.so", "two/c.so"
DATA = noise("content", 8192)
EDIT = b"edited by somebody"


@pytest.fixture
def root(tmp_path):
    return make_tree(tmp_path / "env")


@pytest.fixture
def journal(tmp_path):
    return tmp_path / "journal.sqlite"


@pytest.fixture
def few_descriptors(monkeypatch):
    """The usual limit of 1,024 descriptors, and a machine so fast that no batch ends by the clock."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    needs("a limit of 1,024 descriptors", before[1] == resource.RLIM_INFINITY or before[1] >= 1024)
    monkeypatch.setattr(batches_module, "LONGEST_SECONDS", 600)
    monkeypatch.setattr(batches_module, "MOST_NAMES", min(batches_module.MOST_NAMES, (1024 - 320) // 5))
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def make_tree(tree: Path, *more: str) -> Path:
    """A tree with the same content in A, B and ``more``, which stamps do not tell apart."""
    for path in (A, B, *more):
        make(tree, path, DATA)
    return tree


def make(tree: Path, path: str, data: bytes, stamp: int = 1_000_000_000) -> None:
    (tree / path).parent.mkdir(parents=True, exist_ok=True)
    (tree / path).write_bytes(data)
    os.utime(tree / path, (stamp, stamp))


def start_writer(path: object, waits_for: int) -> threading.Thread:
    """Begin to write to ``path``; returns when the writer waits for the lease on inode ``waits_for``."""

    def write() -> None:
        descriptor = os.open(path, os.O_WRONLY)
        os.pwrite(descriptor, EDIT, 0)
        os.close(descriptor)

    writer = threading.Thread(target=write)
    writer.start()
    until = time.monotonic() + 10
    while not is_breaking(waits_for):
        assert time.monotonic() < until, "the writer never waited"
        time.sleep(0.002)
    return writer


def is_breaking(inode: int) -> bool:
    """Whether somebody waits for a lease on an inode; one line of /proc/locks for each lease."""
    lines = Path("/proc/locks").read_text().splitlines()
    return any("BREAKING" in line and f":{inode} " in line for line in lines)


def replace(path: Path, data: bytes) -> None:
    new = path.with_name("new")
    new.write_bytes(data)
    os.replace(new, path)


def forbid_exchange(monkeypatch) -> None:
    """As on a file system without RENAME_EXCHANGE."""

    def refuse(*_):
        raise OSError(errno.EINVAL, "no exchange here")

    monkeypatch.setattr("conda_dedup_plugin.sharing.staging.exchange", refuse)


def before_the_second_name(monkeypatch, meanwhile) -> None:
    """Let ``meanwhile(job)`` happen when the first of two names has been exchanged."""
    exchange_name = Hardlinker._exchange_name
    swaps = []

    def hooked(self, job, swap):
        swaps.append(swap)
        if len(swaps) == 2:
            meanwhile(job)
        exchange_name(self, job, swap)

    monkeypatch.setattr(Hardlinker, "_exchange_name", hooked)


def can_write(path: Path) -> bool:
    """Whether nobody has a lease on a file (in this process a lease counts as any other's)."""
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
    except BlockingIOError:
        return False
    return True


# -- a duplicate with several names ---------------------------------------------------------------------


def test_a_writer_of_a_name_that_is_exchanged_already(root, journal, monkeypatch):
    """He writes to the keeper then, as through any hard link; no later name may take his name back."""
    os.link(root / B, root / C)
    writers = []
    keeper = os.stat(root / A).st_ino
    before_the_second_name(monkeypatch, lambda job: writers.append(start_writer(root / B, keeper)))
    (outcome,) = hardlink(root, journal, share_of(root, A, B, C))
    writers[0].join()
    assert (root / B).read_bytes().startswith(EDIT)
    assert outcome.error == ""
    assert leftovers(root) == []


def test_a_writer_of_an_exchanged_name_when_another_name_fails(root, journal, monkeypatch):
    os.link(root / B, root / C)
    writers = []
    keeper = os.stat(root / A).st_ino

    def meanwhile(job):
        writers.append(start_writer(root / B, keeper))
        replace(root / C, b"somebody's")

    before_the_second_name(monkeypatch, meanwhile)
    (outcome,) = hardlink(root, journal, share_of(root, A, B, C))
    writers[0].join()
    assert outcome.reason is Reason.CHANGED
    assert (root / B).read_bytes().startswith(EDIT)
    assert (root / C).read_bytes() == b"somebody's"
    assert leftovers(root) == []


def test_writers_of_both_inodes_when_another_name_fails(root, journal, monkeypatch):
    """Both contents are kept: the keeper's at the path, the old one's beside it, and we say where."""
    os.link(root / B, root / C)
    writers = []
    keeper, old = os.stat(root / A).st_ino, os.stat(root / B).st_ino

    def meanwhile(job):
        writers.append(start_writer(root / B, keeper))
        writers.append(start_writer(f"/proc/self/fd/{job.old.descriptor}", old))

    before_the_second_name(monkeypatch, meanwhile)
    (outcome,) = hardlink(root, journal, share_of(root, A, B, C))
    for writer in writers:
        writer.join()
    assert outcome.reason is Reason.CONFLICT
    assert (root / B).read_bytes().startswith(EDIT)
    assert (root / C).read_bytes().startswith(EDIT)
    assert Path(outcome.detail).read_bytes().startswith(EDIT)
    assert os.stat(outcome.detail).st_ino == old
    assert Path(outcome.detail).parent == (root / B).parent


def test_a_conflict_where_a_name_can_be_no_longer(root, journal, monkeypatch):
    """What is kept beside a name of 240 characters has a short one; the rest of the batch is shared."""
    names = ["l" * 240, "x1", "x2"]
    for name in names:
        make(root, f"one/{name}", noise(name, 8192))
        make(root, f"two/{name}", noise(name, 8192))
    settle = Hardlinker._settle
    writers = []

    def written_to(self, job):
        if not writers:
            writers.append(start_writer(root / "one" / names[0], job.keeper.inode.key.number))
            writers.append(start_writer(f"/proc/self/fd/{job.old.descriptor}", job.old.inode.key.number))
        settle(self, job)

    monkeypatch.setattr(Hardlinker, "_settle", written_to)
    outcomes = hardlink(root, journal, *[share_of(root, f"one/{name}", f"two/{name}") for name in names])
    for writer in writers:
        writer.join()
    assert [o.reason for o in outcomes] == [Reason.CONFLICT, None, None]
    assert Path(outcomes[0].detail).read_bytes().startswith(EDIT)
    assert (root / "two" / names[0]).read_bytes().startswith(EDIT)
    assert states(journal) == ["conflict", "done", "done"]


@pytest.mark.parametrize("names", [1, 4])
@pytest.mark.parametrize(
    "rounds", [pytest.param(60, id="few"), pytest.param(6000, id="many", marks=pytest.mark.soak)]
)
def test_a_writer_at_any_moment(shm_dir, rounds, names):
    """Nothing is injected here: a real process writes once, at a random time."""
    lost, met = 0, 0
    chance = random.Random(names)
    for index in range(rounds):
        tree = make_tree(shm_dir / str(index))
        more = [f"two/{number}.so" for number in range(names - 1)]
        for path in more:
            os.link(tree / B, tree / path)
        share = share_of(tree, A, B, *more)
        delay = chance.uniform(0, 0.006)
        writer = os.fork()
        if writer == 0:
            try:
                time.sleep(delay)
                descriptor = os.open(tree / B, os.O_WRONLY)
                os.pwrite(descriptor, EDIT, 0)
            finally:
                os._exit(0)
        (outcome,) = hardlink(tree, shm_dir / "journal.sqlite", share)
        os.waitpid(writer, 0)
        lost += not (tree / B).read_bytes().startswith(EDIT)
        met += outcome.reason is Reason.BUSY
        assert outcome.error == ""
        assert leftovers(tree) == []
        subprocess.run(["rm", "-r", str(tree)], check=True)
    assert lost == 0, f"{lost} of {rounds} lost; {met} met the batch"


# -- giving back ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("can_exchange", [True, False])
def test_what_came_in_between_stays_when_names_are_given_back(root, journal, monkeypatch, can_exchange):
    if not can_exchange:
        forbid_exchange(monkeypatch)
    os.link(root / B, root / C)

    def meanwhile(job):
        replace(root / B, b"somebody's")
        os.unlink(root / C)

    before_the_second_name(monkeypatch, meanwhile)
    (outcome,) = hardlink(root, journal, share_of(root, A, B, C))
    assert outcome.reason is Reason.VANISHED
    assert (root / B).read_bytes() == b"somebody's"
    assert not (root / C).exists()
    assert os.lstat(root / A).st_nlink == 1
    assert leftovers(root) == []


@pytest.mark.parametrize("can_exchange", [True, False])
def test_a_busy_one_gets_back_what_nobody_took(root, journal, monkeypatch, can_exchange):
    """Of two names one is replaced meanwhile; the writer of the old inode finds his bytes at the other."""
    if not can_exchange:
        forbid_exchange(monkeypatch)
    os.link(root / B, root / C)
    settle = Hardlinker._settle
    writers = []

    def meanwhile(self, job):
        writers.append(start_writer(f"/proc/self/fd/{job.old.descriptor}", job.old.inode.key.number))
        replace(root / B, b"somebody's")
        settle(self, job)

    monkeypatch.setattr(Hardlinker, "_settle", meanwhile)
    (outcome,) = hardlink(root, journal, share_of(root, A, B, C))
    writers[0].join()
    assert outcome.reason is Reason.BUSY
    assert (root / B).read_bytes() == b"somebody's"
    assert (root / C).read_bytes().startswith(EDIT)
    assert (root / A).read_bytes() == DATA
    assert leftovers(root) == []


# -- an error where there should be none --------------------------------------------------------------


@pytest.mark.parametrize("step", ["_settle", "_restore", "_drop_old"])
def test_an_error_of_one_stays_its_own(root, journal, tmp_path, monkeypatch, step):
    """The others of its batch are done; its intents stay open until the process is gone."""
    for path in (C, "two/d.so"):
        make(root, path, DATA)
    shares = [share_of(root, A, path) for path in (B, C, "two/d.so")]
    report = tmp_path / "report"
    child = os.fork()
    if child == 0:
        try:
            _fail_first(monkeypatch, step)
            outcomes = hardlink(root, journal, *shares)
            report.write_text(repr([(bool(o.method), bool(o.error)) for o in outcomes]))
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert report.read_text() == repr([(False, True), (True, False), (True, False)])
    assert states(journal) == ["done", "done", "intent"]
    book = Journal.open(journal)
    try:
        assert len(book.open_intents()) == 1
        assert recover(book) == []
        assert book.open_intents() == []
    finally:
        book.close()
    assert [(root / path).read_bytes() for path in (A, B, C)] == [DATA] * 3
    assert leftovers(root) == []


def _fail_first(monkeypatch, step: str) -> None:
    called = []
    settle = Hardlinker._settle

    def fail_first(original):
        def replaced(self, job):
            called.append(job)
            if len(called) == 1:
                raise OSError(errno.EIO, "injected")
            original(self, job)

        return replaced

    def busy_first(self, job):
        """What makes the first one give its name back: somebody has had its old inode open."""
        if called:
            settle(self, job)
            return
        descriptor = os.open(f"/proc/self/fd/{job.old.descriptor}", os.O_RDONLY)
        os.utime(descriptor, (1, 1))
        os.close(descriptor)
        settle(self, job)

    monkeypatch.setattr(Hardlinker, step, fail_first(getattr(Hardlinker, step)))
    if step == "_restore":
        monkeypatch.setattr(Hardlinker, "_settle", busy_first)


def states(journal: Path) -> list[str]:
    connection = sqlite3.connect(journal)
    try:
        return sorted(state for (state,) in connection.execute("SELECT state FROM change"))
    finally:
        connection.close()


# -- leases and descriptors -------------------------------------------------------------------------------


def test_the_lease_of_a_failing_share_is_given_back_at_once(root, journal):
    """Before anybody is told of the outcome: who is told may take his time."""
    make(root, B, noise("other", 8192))
    make(root, C, DATA)
    scope, share = one_tree(root), share_of(root, A, B)
    book = Journal.open(journal)
    book.begin("test")
    with Hardlinker(scope, book, devices_of(scope, share)) as linker:
        outcomes = linker.run([share, share_of(root, A, C)])
        assert next(outcomes).reason is Reason.DIFFERENT
        assert can_write(root / A)
        assert can_write(root / B)
        list(outcomes)
    book.close()


def test_leases_are_given_back_when_interrupted(root, journal):
    """Between two shares of a batch; nothing of it has been changed by then."""
    share = share_of(root, A, B)

    def shares():
        yield share
        assert not can_write(root / A)
        raise KeyboardInterrupt

    scope = one_tree(root)
    book = Journal.open(journal)
    book.begin("test")
    with pytest.raises(KeyboardInterrupt), Hardlinker(scope, book, devices_of(scope, share)) as linker:
        list(linker.run(shares()))
    book.close()
    assert can_write(root / A)
    assert can_write(root / B)
    assert not os.path.samefile(root / A, root / B)
    assert leftovers(root) == []


def test_no_descriptor_is_left_open(root, journal):
    shares = []
    for index in range(700):
        one, two = f"one/{index}/x.so", f"two/{index}/x.so"
        make(root, one, noise(f"{index}", 8192))
        make(root, two, noise(f"{index}" if index % 7 < 2 else f"other {index}", 8192))
        shares.append(share_of(root, one, two))
    before = len(os.listdir("/proc/self/fd"))
    outcomes = hardlink(root, journal, *shares)
    assert sum(o.method is Method.HARDLINK for o in outcomes) == 200
    assert sum(o.reason is Reason.DIFFERENT for o in outcomes) == 500
    assert len(os.listdir("/proc/self/fd")) == before


def test_failing_shares_within_a_batch_use_up_no_descriptors(root, journal, few_descriptors):
    """One is on its way, then many fail, each with a keeper and directories of its own."""
    shares = [share_of(root, A, B)]
    for index in range(600):
        make(root, f"one/{index}/x.so", noise(f"{index}", 4096))
        make(root, f"two/{index}/x.so", noise(f"other {index}", 4096))
        shares.append(share_of(root, f"one/{index}/x.so", f"two/{index}/x.so"))
    outcomes = hardlink(root, journal, *shares)
    assert {o.reason for o in outcomes if o.method is None} == {Reason.DIFFERENT}
    assert sum(o.method is Method.HARDLINK for o in outcomes) == 1


def test_deep_directories_use_up_no_descriptors(root, journal, few_descriptors):
    """Every file in a directory of its own, six levels deep, as those of pip packages may be."""
    shares = []
    for index in range(300):
        paths = [f"{side}/{index}/lib/python3/site/pkg/sub/x.so" for side in ("one", "two")]
        for path in paths:
            make(root, path, noise(f"{index}", 4096))
        shares.append(share_of(root, *paths))
    outcomes = hardlink(root, journal, *shares)
    assert {(o.method, o.reason, o.error) for o in outcomes} == {(Method.HARDLINK, None, "")}


@pytest.mark.parametrize("own_directories", [False, True])
def test_a_duplicate_with_more_names_than_descriptors(root, journal, few_descriptors, own_directories):
    names = [B]
    for index in range(1_099):
        path = f"two/{index}/b.so" if own_directories else f"two/{index}.so"
        (root / path).parent.mkdir(exist_ok=True)
        os.link(root / B, root / path)
        names.append(path)
    make(root, "one/z.so", noise("z", 8192))
    make(root, "two/z.so", noise("z", 8192))
    first, second = hardlink(root, journal, share_of(root, A, *names), share_of(root, "one/z.so", "two/z.so"))
    assert first.error == ""
    if first.method is None:
        assert os.lstat(root / B).st_nlink == 1_100
        assert os.lstat(root / A).st_nlink == 1
    else:
        assert os.lstat(root / A).st_nlink == 1_101
    assert second.method is Method.HARDLINK
    assert leftovers(root) == []


# -- limits of the file system and of others ------------------------------------------------------------


def test_the_journal_names_the_inode_that_names_really_went_to(root, journal):
    """Its keeper being full, the first duplicate of a batch becomes the keeper of the next ones."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.pathconf.restype = ctypes.c_long
    needs("ext4 below the temporary directory", libc.pathconf(os.fsencode(root), 0) == 65_000)
    (root / "names").mkdir()
    for index in range(65_000 - 2):
        os.link(root / A, root / "names" / str(index))
    # one name is free: the first has two, of which only one can be exchanged, and gets it back
    os.link(root / B, root / C)
    for name in "def":
        make(root, f"two/{name}.so", DATA)
    paths = [f"two/{name}.so" for name in "def"]
    outcomes = hardlink(root, journal, share_of(root, A, B, C), *[share_of(root, A, path) for path in paths])
    assert [o.reason for o in outcomes] == [Reason.LINK_LIMIT, None, None, None]
    connection = sqlite3.connect(journal)
    rows = connection.execute("SELECT path, state, keeper_number FROM change").fetchall()
    connection.close()
    assert sorted(os.fsdecode(path) for path, _, _ in rows) == paths
    for path, state, number in rows:
        assert state == "done"
        assert os.stat(root / os.fsdecode(path)).st_ino == int(number)
    assert os.lstat(root / B).st_nlink == 5
    assert leftovers(root) == []


@pytest.mark.parametrize("path", [A, B])
def test_a_write_lease_of_the_owner(root, journal, path):
    """As Samba and nfsd take them; even opening the file for reading would have to wait."""
    code = (
        "import fcntl, os, signal, sys, time\n"
        "fd = os.open(sys.argv[1], os.O_RDWR)\n"
        "fcntl.fcntl(fd, 10, signal.SIGURG)\n"
        "fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)\n"
        "print('held', flush=True)\n"
        "time.sleep(60)\n"
    )
    share = share_of(root, A, B)
    scope = one_tree(root)
    devices = devices_of(scope, share)
    holder = subprocess.Popen([sys.executable, "-c", code, str(root / path)], stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        book = Journal.open(journal)
        book.begin("test")
        began = time.monotonic()
        with Hardlinker(scope, book, devices) as linker:
            (outcome,) = linker.run([share])
        book.close()
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        if holder.stdout is not None:
            holder.stdout.close()
    assert time.monotonic() - began < 10
    assert outcome.reason in (Reason.BUSY, Reason.KEEPER_GONE)
    assert not os.path.samefile(root / A, root / B)
