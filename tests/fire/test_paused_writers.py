"""Writers who are held inside open(), and writers who meet us in a thread or in the automatic run."""

from __future__ import annotations

import ctypes
import os
import select
import signal
import struct
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from conda_dedup_plugin.apply import apply_plan
from conda_dedup_plugin.automatic import Command, share_changed
from conda_dedup_plugin.engine import analyse
from conda_dedup_plugin.model import MethodChoice, Reason
from conda_dedup_plugin.plan import PlanOptions
from conda_dedup_plugin.settings import Settings
from conda_dedup_plugin.sharing import staging as staging_module
from conda_dedup_plugin.sharing.hardlink import Hardlinker
from conda_dedup_plugin.sharing.linux import exchange
from conda_dedup_plugin.sharing.staging import Swap
from tests.lab import needs
from tests.lab.forge import Forge, noise
from tests.lab.shares import hardlink, leftovers, share_of
from tests.sharing.test_foreign_writers import forbid_exchange, is_breaking, replace, start_writer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

A, B, C = "one/a.so", "two/b.so", "two/c.so"
DATA = noise("content", 8192)
EDIT = b"edited by somebody"
FLAGS = {"write": os.O_WRONLY, "truncate": os.O_WRONLY | os.O_TRUNC, "append": os.O_RDWR | os.O_APPEND}
#: linux/fanotify.h
FAN_CLASS_CONTENT, FAN_CLOEXEC, FAN_MARK_ADD, FAN_OPEN_PERM = 4, 1, 1, 0x10000
FAN_ALLOW, AT_FDCWD = 1, -100
EVENT = struct.Struct("=IBBHQii")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    tree = tmp_path / "env"
    for path in (A, B):
        (tree / path).parent.mkdir(parents=True)
        (tree / path).write_bytes(DATA)
        os.utime(tree / path, (1_000_000_000, 1_000_000_000))
    return tree


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "journal.sqlite"


# -- inside open() ----------------------------------------------------------------------------------------


class Gate:
    """Holds writers inside open() of files: the kernel asks us, and we take our time to answer.

    Whoever else opens the files, this process among them, is let through at once.
    """

    def __init__(self, *paths: Path) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._group = libc.fanotify_init(FAN_CLASS_CONTENT | FAN_CLOEXEC, os.O_RDONLY | os.O_CLOEXEC)
        needs("needs root and fanotify with permission events", self._group >= 0)
        for path in paths:
            marked = libc.fanotify_mark(
                self._group, FAN_MARK_ADD, ctypes.c_uint64(FAN_OPEN_PERM), AT_FDCWD, os.fsencode(path)
            )
            needs("the kernel has permission events", marked == 0)
        self._writers: dict[int, threading.Event] = {}
        self._waiting: list[int] = []
        self._stop, self._stopped = os.pipe()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            ready, _, _ = select.select([self._group, self._stop], [], [])
            if self._stop in ready:
                return
            buffer = os.read(self._group, 4096)
            while buffer:
                length, _, _, _, _, descriptor, pid = EVENT.unpack_from(buffer)
                buffer = buffer[length:]
                held = self._writers.get(pid)
                if held is None:
                    self._allow(descriptor)
                else:
                    self._waiting.append(descriptor)
                    held.set()

    def _allow(self, descriptor: int) -> None:
        os.write(self._group, struct.pack("=iI", descriptor, FAN_ALLOW))
        os.close(descriptor)

    def writer(self, path: Path, flags: int) -> Callable[[], None]:
        """Make one who will write to ``path``; what is returned starts him, and returns when he is held.

        He is made before we begin: a forked child would keep the leases that we hold by then.
        """
        go, starts = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.read(go, 1)
                descriptor = os.open(path, flags)
                os.write(descriptor, EDIT)
                os.close(descriptor)
                os._exit(0)
            finally:
                os._exit(1)
        os.close(go)
        held = self._writers[child] = threading.Event()

        def start() -> None:
            os.write(starts, b"x")
            os.close(starts)
            assert held.wait(10), "the writer never came to open()"

        return start

    def release(self) -> None:
        """Let everybody go on, and wait until they have written."""
        while self._waiting:
            self._allow(self._waiting.pop())
        for child in self._writers:
            assert os.waitpid(child, 0)[1] == 0
        self._writers.clear()

    def close(self) -> None:
        """With the group's descriptor everybody still held goes on."""
        os.write(self._stopped, b"x")
        self._thread.join()
        for descriptor in [*self._waiting, self._group, self._stop, self._stopped]:
            os.close(descriptor)
        for child in self._writers:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


@pytest.fixture
def gate(root: Path) -> Iterator[Gate]:
    made = Gate(root / A, root / B)
    yield made
    made.close()


def at(monkeypatch: pytest.MonkeyPatch, moment: str, meanwhile: Callable[[], object]) -> None:
    """Let ``meanwhile`` happen once at a moment of the protocol."""
    if moment == "before us":
        meanwhile()
        return
    places = {
        "after the first lease": (Hardlinker, "_exchange_name"),
        "before the exchange": (Swap, "exchange"),
        "before settling": (Hardlinker, "_settle"),
        "before dropping": (Hardlinker, "_drop_old"),
    }
    owner, name = places[moment]
    original = getattr(owner, name)
    done: list[bool] = []

    def hooked(*words):
        if not done:
            done.append(True)
            meanwhile()
        return original(*words)

    monkeypatch.setattr(owner, name, hooked)


@pytest.mark.parametrize("how", FLAGS)
@pytest.mark.parametrize(
    "moment",
    ["before us", "after the first lease", "before the exchange", "before settling", "before dropping"],
)
@pytest.mark.parametrize("names", [1, 2])
def test_a_writer_of_the_target_held_inside_open(
    root: Path, journal: Path, gate: Gate, monkeypatch, moment: str, how: str, names: int
) -> None:
    """Up to the exchange he has the old inode, which stays at the target; afterwards he has the keeper's."""
    paths = [B, C][:names]
    if names == 2:
        os.link(root / B, root / C)
    old = os.stat(root / B).st_ino
    share = share_of(root, A, *paths)
    at(monkeypatch, moment, gate.writer(root / B, FLAGS[how]))
    (outcome,) = hardlink(root, journal, share)
    gate.release()
    assert outcome.error == ""
    for path in paths:
        assert EDIT in (root / path).read_bytes(), "his edit is where he wrote it"
    if moment in ("before settling", "before dropping"):
        assert outcome.method is not None
        assert os.path.samefile(root / A, root / B)
    else:
        assert outcome.reason is Reason.BUSY
        assert [os.stat(root / path).st_ino for path in paths] == [old] * names
        assert (root / A).read_bytes() == DATA
    assert leftovers(root) == []


@pytest.mark.parametrize("how", FLAGS)
@pytest.mark.parametrize(
    "moment", ["before us", "after the first lease", "before the exchange", "before settling"]
)
def test_a_writer_of_the_keeper_held_inside_open(
    root: Path, journal: Path, gate: Gate, monkeypatch, moment: str, how: str
) -> None:
    """His edit is in the keeper; at the target only if that was the keeper's before his open() returned."""
    share = share_of(root, A, B)
    at(monkeypatch, moment, gate.writer(root / A, FLAGS[how]))
    (outcome,) = hardlink(root, journal, share)
    gate.release()
    assert EDIT in (root / A).read_bytes()
    if moment in ("before us", "after the first lease"):
        assert outcome.reason is Reason.BUSY
        assert (root / B).read_bytes() == DATA
    else:
        assert outcome.method is not None
        assert os.path.samefile(root / A, root / B)
    assert leftovers(root) == []


def test_writers_of_both_held_inside_open(root: Path, journal: Path, gate: Gate, monkeypatch) -> None:
    """One came to the target just before the exchange, one just after it: both edits are kept."""
    at(monkeypatch, "before the exchange", gate.writer(root / B, os.O_WRONLY))
    at(monkeypatch, "before settling", gate.writer(root / B, os.O_WRONLY | os.O_APPEND))
    (outcome,) = hardlink(root, journal, share_of(root, A, B))
    gate.release()
    assert outcome.reason is Reason.CONFLICT
    assert (root / B).read_bytes() == DATA + EDIT
    assert Path(outcome.detail).read_bytes() == EDIT + DATA[len(EDIT) :]
    assert os.path.samefile(root / A, root / B)


# -- while names are given back -----------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["before we look", "after we looked"])
def test_a_writer_who_meets_the_old_inode_at_a_replaced_target(
    root: Path, journal: Path, monkeypatch, moment: str
) -> None:
    """Somebody's new file is at the target when its name is to be given back, so that it stays there.

    Should the old inode have been at the target for a moment, who opened it then may still write to it.
    """
    exchange_back = Swap.exchange_back
    giving_back: list[bool] = []
    threads: list[threading.Thread] = []

    def busy(self, job):
        threads.append(start_writer(f"/proc/self/fd/{job.old.descriptor}", job.old.inode.key.number))
        settle(self, job)

    def give_back(self, *words):
        giving_back.append(True)
        if moment == "before we look":
            replace(root / B, bytes(200))
        return exchange_back(self, *words)

    def write() -> None:
        descriptor = os.open(root / B, os.O_WRONLY)
        os.pwrite(descriptor, EDIT, 100)
        os.close(descriptor)

    def exchanged(*words) -> None:
        if giving_back and moment == "after we looked" and len(threads) == 1:
            replace(root / B, bytes(200))
        exchange(*words)
        if giving_back and len(threads) == 1:
            number = os.stat(root / B).st_ino
            threads.append(threading.Thread(target=write))
            threads[-1].start()
            until = time.monotonic() + 10
            while threads[-1].is_alive() and not waits(threads[-1], number):
                assert time.monotonic() < until
                time.sleep(0.002)

    settle = Hardlinker._settle
    monkeypatch.setattr(Hardlinker, "_settle", busy)
    monkeypatch.setattr(Swap, "exchange_back", give_back)
    monkeypatch.setattr(staging_module, "exchange", exchanged)
    (outcome,) = hardlink(root, journal, share_of(root, A, B))
    if len(threads) == 1:
        write()
    for thread in threads:
        thread.join()
    found = [root / B, *(Path(one) for one in outcome.detail.split(", ") if one)]
    assert (root / B).read_bytes()[:100] == bytes(100)
    assert any(path.read_bytes()[100:].startswith(EDIT) for path in found)
    assert (root / A).read_bytes() == DATA


@pytest.mark.parametrize("can_exchange", [True, False])
@pytest.mark.parametrize("keeper", ["stays", "deleted", "replaced"])
def test_a_writer_of_a_keeper_whose_last_name_is_taken_back(
    root: Path, journal: Path, monkeypatch, keeper: str, can_exchange: bool
) -> None:
    """He came by the target just before it was given back; the keeper's own name is gone by then."""
    if not can_exchange:
        forbid_exchange(monkeypatch)
    settle, exchange_back = Hardlinker._settle, Swap.exchange_back
    writers: list[threading.Thread] = []

    def busy(self, job):
        writers.append(start_writer(f"/proc/self/fd/{job.old.descriptor}", job.old.inode.key.number))
        settle(self, job)

    def give_back(self, key, old):
        if keeper == "deleted":
            os.unlink(root / A)
        elif keeper == "replaced":
            replace(root / A, b"somebody's")
        writers.append(start_writer(root / B, key.number))
        return exchange_back(self, key, old)

    monkeypatch.setattr(Hardlinker, "_settle", busy)
    monkeypatch.setattr(Swap, "exchange_back", give_back)
    (outcome,) = hardlink(root, journal, share_of(root, A, B))
    for writer in writers:
        writer.join()
    assert outcome.reason is Reason.CONFLICT
    assert (root / B).read_bytes().startswith(EDIT), "the first edit"
    assert Path(outcome.detail).read_bytes().startswith(EDIT), "the second"
    assert not os.path.samefile(outcome.detail, root / B)
    if keeper == "replaced":
        assert (root / A).read_bytes() == b"somebody's"
    assert leftovers(root) == [outcome.detail]


def waits(thread: threading.Thread, inode: int) -> bool:
    """Whether a thread sleeps in open() for our lease on an inode; another may wait for that already."""
    stack = Path(f"/proc/self/task/{thread.native_id}/wchan").read_text()
    return is_breaking(inode) and "break_lease" in stack


# -- a broken lease, wherever we run ----------------------------------------------------------------------

WRITE = "import os, sys; fd = os.open(sys.argv[1], os.O_WRONLY); os.pwrite(fd, b'edited by somebody', 0)"


@contextmanager
def broken_leases() -> Iterator[list[int]]:
    """In the middle of the first batch two processes come who open the old inode and the keeper."""
    settle = Hardlinker._settle
    writers: list[subprocess.Popen[bytes]] = []
    met: list[int] = []

    def meanwhile(self, job):
        if not met:
            for file in (job.old, job.keeper):
                path = f"/proc/{os.getpid()}/fd/{file.descriptor}"
                writers.append(subprocess.Popen([sys.executable, "-c", WRITE, path]))
                met.append(file.inode.key.number)
            until = time.monotonic() + 20
            while not all(map(is_breaking, met)):
                assert time.monotonic() < until, "nobody waits for our leases"
                time.sleep(0.002)
        settle(self, job)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Hardlinker, "_settle", meanwhile)
        yield met
    for writer in writers:
        assert writer.wait(20) == 0


def in_a_process(run: Callable[[], None], threaded: bool) -> int:
    """Do it in a process of its own, in its main thread or another one; returns how the process ended."""
    child = os.fork()
    if child == 0:
        code = [1]

        def work() -> None:
            with suppress(Exception):
                run()
                code[0] = 0

        try:
            signal.signal(signal.SIGIO, signal.SIG_DFL)
            signal.signal(signal.SIGURG, signal.SIG_DFL)
            if threaded:
                thread = threading.Thread(target=work)
                thread.start()
                thread.join()
            else:
                work()
        finally:
            os._exit(code[0])
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("threaded", [False, True], ids=["main thread", "other thread"])
@pytest.mark.parametrize("automatic", [False, True], ids=["apply", "automatic"])
def test_broken_leases_kill_nobody(tmp_path: Path, monkeypatch, automatic: bool, threaded: bool) -> None:
    """The signal of a broken lease goes to the process; the default one would end it, whoever runs it."""
    for name, folder in {"HOME": "home", "XDG_STATE_HOME": "state", "XDG_CACHE_HOME": "cache"}.items():
        (tmp_path / folder).mkdir()
        monkeypatch.setenv(name, str(tmp_path / folder))
    forge = Forge(tmp_path / "world")
    files = {f"lib/l{index}.so": noise(f"{index}", 9000) for index in range(3)}
    one, two = (forge.environment(name, {("p", "1", "0"): files}) for name in ("one", "two"))
    (tmp_path / "home/.conda").mkdir()
    (tmp_path / "home/.conda/environments.txt").write_text(f"{one}\n{two}\n")

    def run() -> None:
        with broken_leases() as met:
            if automatic:
                command = Command("install", time.time() + 1, {str(two): {("p", "1", "0")}})
                (shared,) = share_changed(Settings(method=MethodChoice.HARDLINK), command)
                assert (shared.names, shared.failed) == (2, 0)
            else:
                analysis = analyse(
                    forge.scope(), PlanOptions(method=MethodChoice.HARDLINK, euid=os.geteuid())
                )
                applied = apply_plan(analysis, "test")
                assert (applied.inodes, applied.failed) == (2, [])
            assert len(met) == 2

    assert in_a_process(run, threaded) == 0
    pairs = [(one / path, two / path) for path in files]
    alone = [pair for pair in pairs if EDIT in pair[1].read_bytes() or EDIT in pair[0].read_bytes()]
    assert len(alone) == 1
    assert sum(os.path.samefile(*pair) for pair in pairs) >= 2
    for path, pair in zip(files, pairs, strict=True):
        if pair not in alone:
            assert [file.read_bytes() for file in pair] == [files[path]] * 2
