"""The journal and the state directory: what survives a kill, damage, a full disk and each other."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from msgspec.structs import replace

from conda_dedup_plugin import state
from conda_dedup_plugin.errors import StateError
from conda_dedup_plugin.journal import Journal, NoJournal
from conda_dedup_plugin.model import InodeKey, Method
from conda_dedup_plugin.sharing.change import Change
from tests.test_inventory import as_nobody, in_a_child, world_readable

REPOSITORY = Path(__file__).parents[1]
CHANGE = Change(
    method=Method.HARDLINK,
    root="/envs/one",
    path="lib/x.so",
    staged=".conda-dedup-r/r-1",
    old=InodeKey(2049, 17),
    size=4096,
    mtime_ns=1_600_000_000_123_456_789,
    mode=0o100755,
    uid=1000,
    gid=100,
    keeper=InodeKey(2049, 18),
    keeper_mtime_ns=1_600_000_000_987_654_321,
)
FORK = multiprocessing.get_context("fork")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "journal.sqlite"


def rows(file: Path, what: str = "state, bytes_freed FROM change ORDER BY id") -> list[tuple[object, ...]]:
    with contextlib.closing(sqlite3.connect(file)) as connection:
        return connection.execute(f"SELECT {what}").fetchall()


def kill_a_run(file: Path, *changes: Change) -> None:
    """A process that is killed between the intent and the result."""

    def run() -> None:
        journal = Journal.open(file)
        journal.begin("killed")
        journal.intend(changes)
        os.kill(os.getpid(), signal.SIGKILL)

    process = FORK.Process(target=run)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL


# -- one run ------------------------------------------------------------------------------------------


def test_a_run(file: Path) -> None:
    journal = Journal.open(file)
    run = journal.begin("conda create")
    numbers = journal.intend([CHANGE, replace(CHANGE, path="lib/y.so"), replace(CHANGE, path="lib/z.so")])
    assert rows(file) == [("intent", 0)] * 3
    journal.resolve([(numbers[0], "done", 4096), (numbers[1], "dropped", 0), (numbers[2], "conflict", 0)])
    journal.done([replace(CHANGE, method=Method.REFLINK, staged="")], [8192])
    journal.finish()
    journal.close()
    assert rows(file) == [("done", 4096), ("conflict", 0), ("done", 8192)]
    ((found, command, finished, process, uid),) = rows(file, "id, command, finished, process, uid FROM run")
    assert (found, command, uid) == (run, "conda create", os.getuid())
    assert abs(finished - time.time()) < 60
    assert process == state.process_identity(os.getpid())


@pytest.mark.parametrize("dropped", [False, True])
def test_a_run_that_changed_nothing_is_forgotten(file: Path, dropped: bool) -> None:
    journal = Journal.open(file)
    journal.begin("nothing")
    if dropped:
        journal.resolve([(number, "dropped", 0) for number in journal.intend([CHANGE])])
    journal.finish()
    assert rows(file, "* FROM run") == rows(file, "* FROM change") == []


def test_everything_of_a_change_comes_back(file: Path) -> None:
    changes = [
        CHANGE,
        replace(CHANGE, path="a\nb/" + os.fsdecode(b"\xff\xfe"), root="/\x1b[2J'\";--"),
        replace(CHANGE, old=InodeKey(2**64 - 1, 2**64 - 2), keeper=InodeKey(2**63, 2**63 + 1)),
        replace(CHANGE, mtime_ns=-1, size=2**62, uid=2**32 - 2, gid=2**32 - 2),
        replace(CHANGE, method=Method.REFLINK, staged=""),
    ]
    kill_a_run(file, *changes)
    journal = Journal.open(file)
    journal.begin("next")
    assert [intent.change for intent in journal.open_intents()] == changes


def test_numbers_are_never_used_again_within_a_run(file: Path) -> None:
    journal = Journal.open(file)
    journal.begin("x")
    first = journal.intend([CHANGE] * 3)
    second = journal.intend([CHANGE] * 2)
    assert len({*first, *second}) == 5
    assert journal.intend([]) == []


def test_intents_are_there_after_a_kill(file: Path) -> None:
    kill_a_run(file, CHANGE, replace(CHANGE, path="lib/y.so"))
    journal = Journal.open(file)
    journal.begin("next")
    found = journal.open_intents()
    assert [intent.change.path for intent in found] == ["lib/x.so", "lib/y.so"]
    assert {intent.run for intent in found} == {rows(file, "id FROM run WHERE command = 'killed'")[0][0]}
    journal.resolve([(found[0].number, "done", 1), (found[1].number, "conflict", 0)])
    assert journal.open_intents() == []
    journal.finish()
    assert rows(file) == [("done", 1), ("conflict", 0)]


def test_results_that_power_took_leave_the_intents(file: Path, tmp_path: Path) -> None:
    """What came of intents may be lost with the last log of SQLite; the next intents are durable again."""
    journal = Journal.open(file)
    journal.begin("apply")
    log = Path(f"{file}-wal")
    journal.resolve((number, "done", 4096) for number in journal.intend([CHANGE]))
    numbers = journal.intend([replace(CHANGE, path="lib/y.so"), replace(CHANGE, path="lib/z.so")])
    before = log.stat().st_size
    journal.resolve([(numbers[0], "done", 4096), (numbers[1], "dropped", 0)])
    assert journal.read("PRAGMA synchronous") == [(2,)]
    assert rows(file) == [("done", 4096), ("done", 4096)]
    after = tmp_path / "after"
    after.mkdir()
    lost = after / file.name
    lost.write_bytes(file.read_bytes())
    Path(f"{lost}-wal").write_bytes(log.read_bytes()[:before])
    assert rows(lost) == [("done", 4096), ("intent", 0), ("intent", 0)]
    journal.close()


def test_what_a_dead_run_dropped_is_no_intent_any_more(file: Path) -> None:
    kill_a_run(file, CHANGE)
    journal = Journal.open(file)
    journal.begin("next")
    journal.resolve([(intent.number, "dropped", 0) for intent in journal.open_intents()])
    assert journal.open_intents() == []
    journal.finish()


def test_intents_of_the_living_are_theirs(file: Path) -> None:
    journal = Journal.open(file)
    journal.begin("own")
    journal.intend([CHANGE])
    assert journal.open_intents() == []
    ready, stop = FORK.Event(), FORK.Event()

    def other() -> None:
        theirs = Journal.open(file)
        theirs.begin("theirs")
        theirs.intend([CHANGE])
        ready.set()
        stop.wait(60)
        os._exit(0)

    process = FORK.Process(target=other)
    process.start()
    try:
        assert ready.wait(60)
        assert journal.open_intents() == []
    finally:
        stop.set()
        process.join()
    assert len(journal.open_intents()) == 1


def test_no_journal_does_as_if(tmp_path: Path) -> None:
    journal = NoJournal()
    journal.begin("x")
    (number,) = journal.intend([CHANGE])
    journal.resolve([(number, "done", 1)])
    journal.finish()
    assert journal.open_intents() == []
    journal.close()
    assert os.listdir(tmp_path) == []


# -- two at once ----------------------------------------------------------------------------------------

WORKERS, BATCHES, BATCH = 4, 40, 5


def write_many(file: str, start, answers) -> None:
    start.wait()
    try:
        journal = Journal.open(Path(file))
        run = journal.begin(f"worker {os.getpid()}")
        numbers = []
        for batch in range(BATCHES):
            changes = [replace(CHANGE, root=run, path=f"{batch}/{number}") for number in range(BATCH)]
            found = journal.intend(changes)
            journal.resolve([(number, "done", number) for number in found])
            numbers += found
        journal.finish()
        journal.close()
        answers.put((run, numbers, ""))
    except BaseException as exc:
        answers.put(("", [], repr(exc)))


@pytest.mark.parametrize("attempt", range(3))
def test_processes_write_at_once(file: Path, attempt: int) -> None:
    Journal.open(file).close()
    start, answers = FORK.Event(), FORK.Queue()
    processes = [FORK.Process(target=write_many, args=(str(file), start, answers)) for _ in range(WORKERS)]
    for process in processes:
        process.start()
    start.set()
    found = [answers.get(timeout=120) for _ in processes]
    for process in processes:
        process.join()
    assert [error for _, _, error in found if error] == []
    numbers = [number for _, numbers, _ in found for number in numbers]
    assert len(numbers) == len(set(numbers)) == WORKERS * BATCHES * BATCH
    wrote = {row[0]: row[1:] for row in rows(file, "id, run, root, state, bytes_freed FROM change")}
    for run, numbers, _ in found:
        assert len(numbers) == BATCHES * BATCH
        assert all(wrote[number] == (run, run.encode(), "done", number) for number in numbers)
    assert rows(file, "count(*) FROM run WHERE finished IS NOT NULL") == [(WORKERS,)]


def open_new(file: str, together, answers) -> None:
    together.wait()
    try:
        Journal.open(Path(file)).close()
        answers.put("")
    except BaseException as exc:
        answers.put(repr(exc))


def test_processes_make_the_file_at_once(tmp_path: Path) -> None:
    errors = []
    for attempt in range(15):
        together, answers = FORK.Barrier(8), FORK.Queue()
        arguments = (str(tmp_path / f"{attempt}.sqlite"), together, answers)
        processes = [FORK.Process(target=open_new, args=arguments) for _ in range(8)]
        for process in processes:
            process.start()
        errors += [answers.get(timeout=120) for _ in processes]
        for process in processes:
            process.join()
    assert [error for error in errors if error] == []


# -- files that cannot be used ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [b"not a database" * 100, b"SQLite format 3\0" + b"\xff" * 5000],
    ids=["text", "head"],
)
def test_a_damaged_file(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    with pytest.raises(StateError) as caught:
        Journal.open(file)
    assert repr(str(file)) in str(caught.value)
    assert file.read_bytes() == content


def test_a_file_of_which_a_piece_is_missing(file: Path) -> None:
    journal = Journal.open(file)
    journal.begin("x")
    journal.done([replace(CHANGE, path=f"lib/{number}" * 20) for number in range(500)], [1] * 500)
    journal.close()
    size = file.stat().st_size
    os.truncate(file, size // 2 // 4096 * 4096)
    with pytest.raises(StateError):
        damaged = Journal.open(file)
        damaged.begin("y")
        damaged.intend([CHANGE] * 500)


def test_another_version(file: Path) -> None:
    Journal.open(file).close()
    with contextlib.closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA user_version=99")
    before = file.read_bytes()
    with pytest.raises(StateError, match="another version") as caught:
        Journal.open(file)
    assert repr(str(file)) in str(caught.value)
    assert file.read_bytes() == before


def test_a_database_of_somebody_else(file: Path) -> None:
    """Its tables are not ours, and stay what they are."""
    with contextlib.closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE run (x)")
        connection.commit()
    with pytest.raises(StateError):
        Journal.open(file)
    assert rows(file, "name FROM sqlite_master") == [("run",)]


@pytest.mark.parametrize("where", ["directory", "missing", "file"])
def test_places_where_no_file_can_be(tmp_path: Path, where: str) -> None:
    path = {"directory": tmp_path, "missing": tmp_path / "no/j", "file": tmp_path / "f/j"}[where]
    (tmp_path / "f").touch()
    with pytest.raises(StateError):
        Journal.open(path)


def test_a_directory_that_may_not_be_written_to() -> None:
    def attempt(file: Path, write: bool) -> str:
        try:
            journal = Journal.open(file)
            if write:
                journal.begin("x")
        except StateError as exc:
            return str(exc)
        return ""

    with world_readable() as folder:
        file = folder / "journal.sqlite"
        folder.chmod(0o555)
        assert repr(str(file)) in as_nobody(lambda: attempt(file, False))
        # nor does it help that one is there
        folder.chmod(0o755)
        journal = Journal.open(file)
        journal.begin("x")
        journal.done([CHANGE], [1])
        journal.close()
        file.chmod(0o444)
        folder.chmod(0o555)
        assert as_nobody(lambda: attempt(file, True))
        folder.chmod(0o755)
        assert rows(file) == [("done", 1)]


@pytest.mark.filesystems
def test_a_full_disk(mounted) -> None:
    folder = mounted("tmpfs", 1 << 20)
    file = folder / "journal.sqlite"
    journal = Journal.open(file)
    journal.begin("x")
    (number,) = journal.intend([CHANGE])
    (folder / "ballast").write_bytes(b"")
    try:
        with contextlib.suppress(OSError), (folder / "ballast").open("wb", buffering=0) as ballast:
            while True:
                ballast.write(b"x" * 4096)
        with pytest.raises(StateError, match="cannot be written"):
            for _ in range(200):
                journal.intend([replace(CHANGE, path="x" * 3000)] * 50)
        (folder / "ballast").unlink()
        # with room again, it goes on where it was
        journal.resolve([(number, "done", 7)])
        assert rows(file, "state, bytes_freed FROM change WHERE state = 'done'") == [("done", 7)]
        assert len(set(journal.intend([CHANGE] * 3))) == 3
    finally:
        journal.close()
        for path in folder.iterdir():
            path.unlink()


# -- state ------------------------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state/conda-dedup"


def test_the_state_directory(home: Path, tmp_path: Path) -> None:
    assert state.state_directory() == home
    assert home.is_dir()
    one = state.environment_directory(str(tmp_path / "envs/one"))
    assert one.parent == home / "envs"
    assert one.is_dir() and len(one.name) == 16
    (tmp_path / "envs/one").mkdir(parents=True)
    (tmp_path / "link").symlink_to("envs/one")
    assert state.environment_directory(str(tmp_path / "link")) == one
    assert state.environment_directory(os.fsdecode(b"/\xff\n")) != one


@pytest.mark.parametrize("obstacle", ["state", "state/conda-dedup"])
def test_a_state_directory_that_cannot_be(home: Path, tmp_path: Path, obstacle: str) -> None:
    (tmp_path / obstacle).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / obstacle).write_text("in the way")
    with pytest.raises(StateError, match="state directory") as caught:
        state.state_directory()
    assert str(tmp_path / "state") in str(caught.value)


def test_a_state_directory_that_may_not_be_written_to(monkeypatch: pytest.MonkeyPatch) -> None:
    def attempt() -> str:
        with pytest.raises(StateError) as caught:
            state.state_directory()
        return str(caught.value)

    with world_readable() as folder:
        monkeypatch.setenv("XDG_STATE_HOME", str(folder / "state"))
        folder.chmod(0o555)
        assert "cannot be made" in as_nobody(attempt)
        folder.chmod(0o755)
        (folder / "state/conda-dedup").mkdir(parents=True)
        (folder / "state/conda-dedup").chmod(0o555)
        assert "cannot be written to" in as_nobody(attempt)


def test_writing_atomically(tmp_path: Path) -> None:
    file = tmp_path / "check.json"
    for content in (b"one", b"", b"x" * 100_000):
        state.write_atomically(file, content)
        assert file.read_bytes() == content
        assert os.listdir(tmp_path) == ["check.json"]
    held = file.open("rb")
    state.write_atomically(file, b"new")
    assert held.read() == b"x" * 100_000
    held.close()


def test_writing_replaces_a_link_and_not_its_target(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"old")
    (tmp_path / "file").symlink_to("target")
    state.write_atomically(tmp_path / "file", b"new")
    assert (tmp_path / "target").read_bytes() == b"old"
    assert (tmp_path / "file").read_bytes() == b"new"


@pytest.mark.filesystems
def test_a_write_that_fails_leaves_what_was_there(mounted) -> None:
    folder = mounted("tmpfs", 2 << 20)
    file = folder / "check.json"
    state.write_atomically(file, b"old")
    with pytest.raises(OSError, match="No space"):
        state.write_atomically(file, b"x" * (4 << 20))
    assert file.read_bytes() == b"old"
    assert os.listdir(folder) == ["check.json"]
    state.write_atomically(file, b"new")
    assert file.read_bytes() == b"new"
    file.unlink()


def test_a_killed_writer_leaves_what_was_there(tmp_path: Path) -> None:
    file = tmp_path / "check.json"
    state.write_atomically(file, b"0" * 50_000)

    def write() -> None:
        for number in range(1_000_000):
            state.write_atomically(file, str(number % 10).encode() * 50_000)

    for delay in (0.01, 0.05, 0.1):
        process = FORK.Process(target=write)
        process.start()
        until = time.monotonic() + delay
        while time.monotonic() < until:
            content = file.read_bytes()
            assert len(content) == 50_000 and len(set(content)) == 1
        process.kill()
        process.join()
        content = file.read_bytes()
        assert len(content) == 50_000 and len(set(content)) == 1


def locked_elsewhere(root: str) -> bool:
    """Whether another process finds the lock taken."""

    def attempt() -> bool:
        with state.lock(root) as ours:
            return not ours

    return in_a_child(attempt)


def test_a_lock_keeps_others_out(home: Path) -> None:
    with state.lock("/envs/one") as ours:
        assert ours
        start = time.monotonic()
        assert locked_elsewhere("/envs/one")
        assert time.monotonic() - start < 2  # nobody waits
        assert not locked_elsewhere("/envs/two")
        with state.lock("/envs/one") as again:
            assert not again
        assert locked_elsewhere("/envs/one")
    assert not locked_elsewhere("/envs/one")


def test_a_lock_is_free_after_an_error(home: Path) -> None:
    with pytest.raises(RuntimeError), state.lock("/envs/one"):
        raise RuntimeError
    assert not locked_elsewhere("/envs/one")


def test_a_lock_is_free_when_its_holder_is_killed(home: Path) -> None:
    code = (
        "import sys, time; from conda_dedup_plugin import state\n"
        "with state.lock('/envs/one') as ours: print(ours, flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    try:
        assert holder.stdout.readline() == "True\n"
        with state.lock("/envs/one") as ours:
            assert not ours
    finally:
        holder.kill()
        holder.communicate()
    with state.lock("/envs/one") as ours:
        assert ours


def test_a_lock_that_cannot_be(home: Path) -> None:
    folder = state.environment_directory("/envs/one")
    (folder / "lock").mkdir()
    with pytest.raises(StateError, match="/envs/one"), state.lock("/envs/one"):
        pass


def test_who_runs() -> None:
    own = state.process_identity(os.getpid())
    assert own.split("/")[1] == str(os.getpid())
    assert state.is_running(own)
    child = subprocess.Popen(["sleep", "60"])
    theirs = state.process_identity(child.pid)
    assert theirs != own and state.is_running(theirs)
    child.kill()
    child.wait()
    assert not state.is_running(theirs)
    assert state.process_identity(child.pid) == ""


def test_a_process_of_the_same_number_is_another() -> None:
    boot, pid, started = state.process_identity(os.getpid()).split("/")
    assert not state.is_running(f"{boot}/{pid}/{int(started) + 1}")
    assert not state.is_running(f"another-boot/{pid}/{started}")


@pytest.mark.parametrize("name", ["a b", "a) S 1 2 3", "((", "x\ny"])
def test_who_runs_under_an_odd_name(name: str) -> None:
    def identity() -> str:
        Path("/proc/self/comm").write_text(name)
        return state.process_identity(os.getpid())

    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    _, _, started = in_a_child(identity).split("/")
    assert abs(int(started) / os.sysconf("SC_CLK_TCK") - before) < 5


@pytest.mark.parametrize(
    "odd", ["", "/", "//", "a/b/c", "x/-1/y", "x/99999999999999999999/y", "x/\u0661/y", "a/1"]
)
def test_no_identity(odd: str) -> None:
    assert not state.is_running(odd)


def test_a_zombie_does_no_more_work() -> None:
    """A killed process that nobody waited for yet holds no lock and writes nothing."""
    child = subprocess.Popen(["sleep", "60"])
    identity = state.process_identity(child.pid)
    child.kill()
    try:
        until = time.monotonic() + 10
        while b") Z" not in Path(f"/proc/{child.pid}/stat").read_bytes() and time.monotonic() < until:
            time.sleep(0.01)
        assert not state.is_running(identity)
    finally:
        child.wait()
