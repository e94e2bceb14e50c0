"""Hard links one by one: what is shared, what is left alone and why, and that nothing is lost."""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from conda_dedup_plugin.model import Method, Reason
from conda_dedup_plugin.sharing import batches as batches_module
from conda_dedup_plugin.sharing import hardlink as hardlink_module
from conda_dedup_plugin.sharing import leases
from tests.lab import needs
from tests.lab.forge import noise
from tests.lab.shares import hardlink, leftovers, share_of

A, B = "lib/a.so", "lib/deep/er/b.so"


@pytest.fixture
def root(tmp_path):
    tree = tmp_path / "env"
    for path in (A, B):
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_bytes(noise("content", 20_000))
    os.utime(tree / A, (1_000_000_000, 1_000_000_000))
    return tree


@pytest.fixture
def journal(tmp_path):
    return tmp_path / "journal.sqlite"


def test_shares_and_frees(root, journal):
    before = os.lstat(root / B)
    (outcome,) = hardlink(root, journal, share_of(root, A, B))
    assert outcome.method is Method.HARDLINK
    assert outcome.bytes_freed == before.st_blocks * 512
    assert os.path.samefile(root / A, root / B)
    assert os.lstat(root / B).st_mtime == 1_000_000_000
    assert (root / B).read_bytes() == noise("content", 20_000)
    assert leftovers(root) == []


def test_every_name_of_a_duplicate_is_moved(root, journal):
    os.link(root / B, root / "lib/c.so")
    (outcome,) = hardlink(root, journal, share_of(root, A, B, "lib/c.so"))
    assert outcome.bytes_freed > 0
    assert os.lstat(root / A).st_nlink == 3


def test_a_name_that_came_since_the_plan_keeps_all(root, journal):
    share = share_of(root, A, B)
    os.link(root / B, root / "lib/c.so")
    (outcome,) = hardlink(root, journal, share)
    assert outcome.reason is Reason.NAMES_OUTSIDE
    assert os.lstat(root / A).st_nlink == 1


def test_different_content_of_the_same_size(root, journal):
    (root / B).write_bytes(noise("other", 20_000))
    (outcome,) = hardlink(root, journal, share_of(root, A, B))
    assert outcome.reason is Reason.DIFFERENT
    assert (root / B).read_bytes() == noise("other", 20_000)


@pytest.mark.parametrize("size", [20_000, batches_module.READ_BEFORE_LEASE + 4097])
def test_a_difference_in_the_last_byte(root, journal, size):
    data = noise("content", size)
    (root / A).write_bytes(data)
    (root / B).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    (outcome,) = hardlink(root, journal, share_of(root, A, B))
    assert outcome.reason is Reason.DIFFERENT


def test_big_files(root, journal):
    data = noise("content", batches_module.READ_BEFORE_LEASE + 4097)
    (root / A).write_bytes(data)
    (root / B).write_bytes(data)
    (outcome,) = hardlink(root, journal, share_of(root, A, B))
    assert outcome.method is Method.HARDLINK


def test_changed_since_the_plan(root, journal):
    share = share_of(root, A, B)
    (root / B).write_bytes(noise("newer", 20_000))
    (outcome,) = hardlink(root, journal, share)
    assert outcome.reason is Reason.CHANGED
    assert (root / B).read_bytes() == noise("newer", 20_000)


def test_replaced_since_the_plan(root, journal):
    share = share_of(root, A, B)
    (root / "new").write_bytes(noise("newer", 20_000))
    os.replace(root / "new", root / B)
    (outcome,) = hardlink(root, journal, share)
    assert outcome.reason is Reason.CHANGED
    assert (root / B).read_bytes() == noise("newer", 20_000)


def test_gone_since_the_plan(root, journal):
    share = share_of(root, A, B)
    (root / B).unlink()
    (outcome,) = hardlink(root, journal, share)
    assert outcome.reason is Reason.VANISHED
    assert not (root / B).exists()


def test_a_keeper_that_is_gone(root, journal):
    share = share_of(root, A, B)
    (root / A).unlink()
    (outcome,) = hardlink(root, journal, share)
    assert outcome.reason is Reason.KEEPER_GONE
    assert (root / B).read_bytes() == noise("content", 20_000)


@pytest.mark.parametrize("path", [A, B])
def test_other_mode(root, journal, path):
    os.chmod(root / path, 0o755)
    (outcome,) = hardlink(root, journal, share_of(root, A, B))
    assert outcome.reason is Reason.OTHER_MODE


def test_setuid(root, journal):
    for path in (A, B):
        os.chmod(root / path, 0o4755)
    (outcome,) = hardlink(root, journal, share_of(root, A, B))
    assert outcome.reason is Reason.SETID


def test_other_owner(root, journal):
    needs("root, to give a file away", os.geteuid() == 0)
    os.chown(root / B, 12345, 12345)
    (outcome,) = hardlink(root, journal, share_of(root, A, B))
    assert outcome.reason is Reason.OTHER_OWNER


def test_other_attributes(root, journal):
    try:
        os.setxattr(root / B, "user.note", b"mine")
    except OSError:
        needs("a file system with extended attributes", False)
    (outcome,) = hardlink(root, journal, share_of(root, A, B))
    assert outcome.reason is Reason.OTHER_XATTRS


@pytest.mark.parametrize("path", [A, B])
def test_open_for_writing(root, journal, path):
    with open(root / path, "r+b"):
        (outcome,) = hardlink(root, journal, share_of(root, A, B))
    assert outcome.reason is Reason.BUSY
    assert not os.path.samefile(root / A, root / B)


@pytest.mark.parametrize("path", [A, B])
def test_mapped_for_writing(root, journal, path):
    with open(root / path, "r+b") as stream:
        mapped = mmap.mmap(stream.fileno(), 0)
    (outcome,) = hardlink(root, journal, share_of(root, A, B))
    mapped.close()
    assert outcome.reason is Reason.BUSY


def test_a_symbolic_link_on_the_way(root, journal, tmp_path):
    share = share_of(root, A, B)
    (root / "lib/deep").rename(tmp_path / "elsewhere")
    (root / "lib/deep").symlink_to(tmp_path / "elsewhere")
    (outcome,) = hardlink(root, journal, share)
    assert outcome.reason is Reason.NOT_REGULAR
    assert os.lstat(tmp_path / "elsewhere/er/b.so").st_nlink == 1


def test_a_fifo_does_not_block(root, journal):
    share = share_of(root, A, B)
    (root / B).unlink()
    os.mkfifo(root / B)
    (outcome,) = hardlink(root, journal, share)
    assert outcome.reason is Reason.CHANGED


def test_immutable(root, journal):
    needs("root and chattr", os.geteuid() == 0)
    made = subprocess.run(["chattr", "+i", str(root / B)], capture_output=True)
    needs("a file system with immutable files", made.returncode == 0)
    try:
        (outcome,) = hardlink(root, journal, share_of(root, A, B))
    finally:
        subprocess.run(["chattr", "-i", str(root / B)], check=True)
    assert outcome.reason is Reason.IMMUTABLE
    assert leftovers(root) == []


def test_one_that_fails_stops_no_other(root, journal):
    for name in ("c", "d", "e"):
        (root / f"lib/{name}.so").write_bytes(noise("content", 20_000))
    (root / "lib/d.so").write_bytes(noise("other", 20_000))
    shares = [share_of(root, A, path) for path in (B, "lib/c.so", "lib/d.so", "lib/e.so")]
    outcomes = hardlink(root, journal, *shares)
    assert {o.duplicate.key: o.reason for o in outcomes} == {
        share.duplicate.key: Reason.DIFFERENT if index == 2 else None for index, share in enumerate(shares)
    }


def test_many_batches(root, journal, monkeypatch):
    monkeypatch.setattr(batches_module, "MOST_NAMES", 3)
    for index in range(20):
        (root / f"lib/{index}.so").write_bytes(noise("content", 20_000))
    outcomes = hardlink(root, journal, *[share_of(root, A, f"lib/{index}.so") for index in range(20)])
    assert all(outcome.method for outcome in outcomes)
    assert os.lstat(root / A).st_nlink == 21


def test_link_limit_makes_a_new_keeper(root, journal, monkeypatch):
    """ext4 allows 65,000 names; they are really made, in another directory of the same tree."""
    if _link_limit(root) != 65_000:
        needs("ext4 below the temporary directory", False)
    names = root / "names"
    names.mkdir()
    for index in range(65_000 - 1):
        os.link(root / A, names / str(index))
    for index in range(4):
        (root / f"lib/{index}.so").write_bytes(noise("content", 20_000))
    outcomes = hardlink(root, journal, *[share_of(root, A, f"lib/{index}.so") for index in range(4)])
    assert [o.reason for o in outcomes] == [Reason.LINK_LIMIT, None, None, None]
    assert os.lstat(root / "lib/0.so").st_nlink == 4


def _link_limit(root) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.pathconf.restype = ctypes.c_long
    return libc.pathconf(os.fsencode(root), 0)  # _PC_LINK_MAX


def test_a_writer_waits_and_is_not_lost(root, journal, monkeypatch):
    """Somebody opens the duplicate for writing between the exchange and the last look."""
    settle = hardlink_module.Hardlinker._settle
    writers = []

    def open_first(self, job):
        def write():
            descriptor = os.open(f"/proc/self/fd/{job.old.descriptor}", os.O_WRONLY)
            os.pwrite(descriptor, b"edited", 0)
            os.close(descriptor)

        writers.append(threading.Thread(target=write))
        writers[0].start()
        time.sleep(0.05)
        settle(self, job)

    monkeypatch.setattr(hardlink_module.Hardlinker, "_settle", open_first)
    (outcome,) = hardlink(root, journal, share_of(root, A, B))
    writers[0].join()
    assert outcome.reason is Reason.BUSY
    assert (root / B).read_bytes()[:6] == b"edited"
    assert (root / A).read_bytes() == noise("content", 20_000)
    assert leftovers(root) == []


def test_a_file_put_there_at_the_last_moment_stays(root, journal, monkeypatch):
    """Somebody replaces the target after the last look at it, before the exchange."""
    exchange = batches_module.Swap.exchange

    def replace_first(self, old):
        (root / "new").write_bytes(b"somebody's")
        os.replace(root / "new", root / B)
        exchange(self, old)

    monkeypatch.setattr(batches_module.Swap, "exchange", replace_first)
    (outcome,) = hardlink(root, journal, share_of(root, A, B))
    assert outcome.reason is Reason.CHANGED
    assert (root / B).read_bytes() == b"somebody's"
    assert os.lstat(root / A).st_nlink == 1
    assert leftovers(root) == []


def test_a_file_deleted_at_the_last_moment_stays_deleted(root, journal, monkeypatch):
    exchange = batches_module.Swap.exchange

    def delete_first(self, old):
        os.unlink(root / B)
        exchange(self, old)

    monkeypatch.setattr(batches_module.Swap, "exchange", delete_first)
    (outcome,) = hardlink(root, journal, share_of(root, A, B))
    assert outcome.reason is Reason.VANISHED
    assert not (root / B).exists()
    assert leftovers(root) == []


def test_where_names_cannot_be_exchanged(root, journal, monkeypatch):
    """As on a file system without RENAME_EXCHANGE; the same in the end."""

    def refuse(*_):
        raise OSError(22, "no exchange here")

    monkeypatch.setattr("conda_dedup_plugin.sharing.staging.exchange", refuse)
    (outcome,) = hardlink(root, journal, share_of(root, A, B))
    assert outcome.method is Method.HARDLINK
    assert outcome.bytes_freed > 0
    assert os.path.samefile(root / A, root / B)
    assert leftovers(root) == []


def test_a_broken_lease_kills_nobody(root, tmp_path):
    """The default signal of a broken lease would end the process."""
    code = (
        "import os, sys, threading, time\n"
        "from conda_dedup_plugin.sharing import leases\n"
        "fd = os.open(sys.argv[1], os.O_RDONLY)\n"
        "assert leases.take(fd) is leases.Lease.HELD\n"
        "def write():\n"
        "    os.close(os.open(sys.argv[1], os.O_WRONLY))\n"
        "writer = threading.Thread(target=write); writer.start(); time.sleep(0.1)\n"
        "assert leases.take(fd) is leases.Lease.BUSY\n"
        "leases.give_back(fd); writer.join(); print('alive')\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(root / A)], capture_output=True, text=True)
    assert done.stdout == "alive\n", done.stderr


def test_ctrl_c_waits_for_the_batch(root, journal, monkeypatch):
    settle = hardlink_module.Hardlinker._settle

    def interrupted(self, job):
        os.kill(os.getpid(), signal.SIGINT)
        settle(self, job)

    monkeypatch.setattr(hardlink_module.Hardlinker, "_settle", interrupted)
    with pytest.raises(KeyboardInterrupt):
        hardlink(root, journal, share_of(root, A, B))
    assert os.path.samefile(root / A, root / B)
    assert leftovers(root) == []


def test_leases_are_given_back(root, journal):
    hardlink(root, journal, share_of(root, A, B))
    descriptor = os.open(root / A, os.O_WRONLY | os.O_NONBLOCK)
    os.close(descriptor)
    assert leases.take(os.open(root / A, os.O_RDONLY)) is leases.Lease.HELD
