"""Recovery, where others were at work between the kill and the next run, or still are."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conda_dedup_plugin.apply import apply_plan
from conda_dedup_plugin.engine import analyse
from conda_dedup_plugin.journal import Journal
from conda_dedup_plugin.model import Reason
from conda_dedup_plugin.plan import PlanOptions
from conda_dedup_plugin.sharing import batches as batches_module
from conda_dedup_plugin.sharing import exchanges as exchanges_module
from conda_dedup_plugin.sharing import staging as staging_module
from conda_dedup_plugin.sharing.hardlink import Hardlinker
from conda_dedup_plugin.sharing.recovery import recover
from tests.lab import needs
from tests.lab.forge import Forge, noise
from tests.lab.shares import hardlink, leftovers, share_of
from tests.sharing.test_foreign_writers import EDIT, forbid_exchange, make, replace, start_writer

A, B = "one/lib/a.so", "two/lib/b.so"
DATA = noise("content", 8192)
STAMP = 1_000_000_000
REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def state(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def root(tmp_path):
    tree = tmp_path / "env"
    for path in (A, B):
        make(tree, path, DATA, STAMP)
    return tree


@pytest.fixture
def journal(tmp_path):
    return tmp_path / "journal.sqlite"


@pytest.fixture(params=[True, False], ids=["exchange", "no exchange"])
def exchanged(request, root, journal, monkeypatch):
    """Killed just after B was given A's inode; returns a descriptor of B's old one."""
    if not request.param:
        forbid_exchange(monkeypatch)
    held = os.open(root / B, os.O_RDONLY)
    killed(
        monkeypatch, staging_module.Swap, "exchange", lambda: hardlink(root, journal, share_of(root, A, B))
    )
    assert os.path.samefile(root / A, root / B)
    yield held
    os.close(held)


def killed(monkeypatch, owner, name, run) -> None:
    """Run in a child that dies when a step has been done."""
    child = os.fork()
    if child == 0:
        try:
            original = getattr(owner, name)

            def replaced(*arguments):
                original(*arguments)
                os.kill(os.getpid(), signal.SIGKILL)

            monkeypatch.setattr(owner, name, replaced)
            run()
        finally:
            os._exit(0)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1]), "the step was never reached"


def recovered(journal: Path) -> list[str]:
    """Recover, and once more, which must find nothing to do."""
    book = Journal.open(journal)
    try:
        notes = recover(book)
        assert book.open_intents() == []
        assert recover(book) == []
        return notes
    finally:
        book.close()


def alter(journal: Path, **columns: object) -> None:
    connection = sqlite3.connect(journal)
    with connection:
        for name, value in columns.items():
            connection.execute(f"UPDATE change SET {name} = ?", (value,))
    connection.close()


def edit(descriptor: int, data: bytes = EDIT) -> None:
    """Write to an inode by way of a descriptor that is open for reading."""
    writer = os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY)
    os.pwrite(writer, data, 0)
    os.close(writer)


def kept(notes: list[str]) -> list[Path]:
    """The paths that notes say something was kept at."""
    return [Path(note.rpartition(" as ")[2].strip("'")) for note in notes]


# -- edits after the kill -----------------------------------------------------------------------------


def test_an_edit_of_the_target_stays(exchanged, root, journal):
    """The target is the keeper's inode by then; what it was before is kept, and we say where."""
    with open(root / B, "r+b") as stream:
        stream.write(EDIT)
    notes = recovered(journal)
    assert (root / B).read_bytes().startswith(EDIT)
    assert [path.read_bytes() for path in kept(notes)] == [DATA]


@pytest.mark.parametrize("same_stamp", [False, True])
def test_a_new_file_with_the_keepers_inode_number_stays(exchanged, root, journal, same_stamp):
    """Both names were removed, and the file system gave the number again: here by hand, to be sure."""
    (root / A).unlink()
    replace(root / B, noise("new version", 8192 if same_stamp else 9000))
    if same_stamp:
        os.utime(root / B, (STAMP, STAMP))
    alter(journal, keeper_number=str(os.stat(root / B).st_ino))
    notes = recovered(journal)
    assert (root / B).read_bytes() == noise("new version", 8192 if same_stamp else 9000)
    assert [path.read_bytes() for path in kept(notes)] == [DATA]


def test_an_edit_of_the_old_inode_comes_back(exchanged, root, journal):
    edit(exchanged)
    assert recovered(journal) == []
    assert (root / B).read_bytes().startswith(EDIT)
    assert (root / A).read_bytes() == DATA
    assert leftovers(root) == []


def test_an_edit_of_the_old_inode_that_left_no_stamp_is_kept(exchanged, root, journal):
    edit(exchanged)
    os.utime(f"/proc/self/fd/{exchanged}", (STAMP, STAMP))
    notes = recovered(journal)
    assert (root / B).read_bytes() == DATA
    assert [path.read_bytes()[: len(EDIT)] for path in kept(notes)] == [EDIT]


def test_edits_of_both_are_both_kept(exchanged, root, journal):
    edit(exchanged, b"the old one")
    with open(root / B, "r+b") as stream:
        stream.write(EDIT)
    notes = recovered(journal)
    assert (root / B).read_bytes().startswith(EDIT)
    assert [path.read_bytes()[:11] for path in kept(notes)] == [b"the old one"]


# -- places that are no more, or are called otherwise -------------------------------------------------


@pytest.mark.parametrize("instead", ["nothing", "file", "link"])
def test_a_target_whose_directory_is_gone(exchanged, root, journal, tmp_path, instead):
    """The old inode is removed, too, for nobody wants it any more; where a link leads is not looked at."""
    directory = root / "two/lib"
    directory.rename(tmp_path / "elsewhere")
    if instead == "file":
        directory.write_bytes(b"somebody's")
    elif instead == "link":
        directory.symlink_to(tmp_path / "elsewhere")
    assert recovered(journal) == []
    assert leftovers(root) == []
    assert (tmp_path / "elsewhere/b.so").read_bytes() == DATA


@pytest.mark.parametrize("owner", [staging_module.Swap, exchanges_module], ids=["exchanged", "linked"])
def test_a_device_that_has_another_number_now(root, journal, monkeypatch, owner):
    """After a reboot, or with loop devices in another order."""
    step = "exchange" if owner is staging_module.Swap else "link_descriptor"
    killed(monkeypatch, owner, step, lambda: hardlink(root, journal, share_of(root, A, B)))
    assert leftovers(root) != []
    alter(journal, old_device="1", keeper_device="1")
    assert recovered(journal) == []
    assert [(root / path).read_bytes() for path in (A, B)] == [DATA, DATA]
    assert os.path.samefile(root / A, root / B) == (step == "exchange")
    assert leftovers(root) == []


def test_an_edit_comes_back_on_a_device_that_has_another_number_now(exchanged, root, journal):
    alter(journal, old_device="1", keeper_device="1")
    edit(exchanged)
    assert recovered(journal) == []
    assert (root / B).read_bytes().startswith(EDIT)
    assert (root / A).read_bytes() == DATA
    assert leftovers(root) == []


def test_somebodys_file_in_a_tree_that_is_not_there_just_now(root, journal, monkeypatch, tmp_path):
    """Its disk is not mounted when the next run comes; when it is again, the file must come back."""
    swap = staging_module.Swap.exchange

    def replaced_before(self, old):
        replace(root / B, b"somebody's")
        swap(self, old)

    monkeypatch.setattr(staging_module.Swap, "exchange", replaced_before)
    run = share_of(root, A, B)
    killed(monkeypatch, staging_module.Swap, "exchange", lambda: hardlink(root, journal, run))
    root.rename(tmp_path / "unmounted")
    book = Journal.open(journal)
    recover(book)
    book.close()
    (tmp_path / "unmounted").rename(root)
    recovered(journal)
    assert (root / B).read_bytes() == b"somebody's"
    assert leftovers(root) == []


def test_a_staging_that_cannot_be_opened_for_once(exchanged, root, journal, monkeypatch):
    """No error but that it is gone says that there is nothing to see to."""
    edit(exchanged)
    existing = staging_module.Staging.existing.__func__
    calls = []

    def fail_first(cls, *arguments):
        calls.append(arguments)
        if len(calls) == 1:
            raise OSError(24, "Too many open files")
        return existing(cls, *arguments)

    monkeypatch.setattr(staging_module.Staging, "existing", classmethod(fail_first))
    book = Journal.open(journal)
    recover(book)
    book.close()
    recovered(journal)
    assert (root / B).read_bytes().startswith(EDIT)
    assert leftovers(root) == []


# -- whole runs ---------------------------------------------------------------------------------------


def forge(root: Path, environments: str, files: int = 1) -> Forge:
    made = Forge(root)
    content = {f"lib/l{index}.so": noise(str(index), 5000) for index in range(files)}
    for name in environments:
        made.environment(name, {("p", "1", "0"): content})
    return made


def run(forge: Forge):
    return apply_plan(analyse(forge.scope(), PlanOptions()), "test")


def test_a_run_that_cannot_be_seen_is_not_recovered(tmp_path, monkeypatch):
    """It lives in another PID namespace, as in a container that has the same home; its lock tells."""
    needs("root, for another PID namespace", os.geteuid() == 0)
    unshare = ["unshare", "--pid", "--fork", "--mount-proc"]
    works = shutil.which("unshare") and subprocess.run([*unshare, "true"], capture_output=True)
    needs("unshare", works and works.returncode == 0)
    made = forge(tmp_path, "ab")
    code = (
        "from conda_dedup_plugin.journal import Journal\n"
        "from conda_dedup_plugin.sharing.recovery import recover\n"
        "book = Journal.open()\n"
        "print(len(book.open_intents()), recover(book), len(book.open_intents()))\n"
    )
    settle = Hardlinker._settle
    seen, writers = [], []

    def meanwhile(self, job):
        done = subprocess.run(
            [*unshare, sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True
        )
        seen.append(done.stdout + done.stderr)
        assert os.path.lexists(f"/proc/self/fd/{job.swaps[0].staging.descriptor}/{job.swaps[0].staged}")
        writers.append(start_writer(f"/proc/self/fd/{job.old.descriptor}", job.old.inode.key.number))
        settle(self, job)

    monkeypatch.setattr(Hardlinker, "_settle", meanwhile)
    share = analyse(made.scope(), PlanOptions()).plan.shares[0]
    path = Path(made.scope().trees[share.duplicate.names[0].tree].root, "lib/l0.so")
    applied = run(made)
    writers[0].join()
    assert seen == ["1 [] 1\n"], "it looks dead from there"
    assert list(applied.skipped) == [Reason.BUSY]
    assert path.read_bytes().startswith(EDIT)
    assert leftovers(tmp_path / "envs") == []


def test_a_staging_that_cannot_be_removed_stops_no_other(tmp_path, monkeypatch):
    needs("root and chattr", os.geteuid() == 0 and shutil.which("chattr"))
    made = forge(tmp_path, "abcd")
    killed(monkeypatch, Hardlinker, "_exchange", lambda: run(made))
    left = [path for path in (tmp_path / "envs").glob("*/.conda-dedup-*") if any(path.iterdir())]
    assert left
    done = subprocess.run(["chattr", "+i", *map(str, left)], capture_output=True)
    needs("a file system with immutable directories", done.returncode == 0)
    broken = {str(path.parent) for path in left}
    others = Forge(tmp_path, [tree for tree in made.trees if tree.root not in broken])
    assert len(others.trees) > 1
    try:
        applied = run(others)
    finally:
        subprocess.run(["chattr", "-i", *map(str, left)], check=True)
    assert applied.failed == []
    assert applied.notes != []
    paths = [tmp_path / "envs" / name / "lib/l0.so" for name in "abcd"]
    healthy = [path for path in paths if str(path.parents[1]) not in broken]
    assert len({path.stat().st_ino for path in healthy}) == 1
    run(made)
    assert len({path.stat().st_ino for path in paths}) == 1
    assert leftovers(tmp_path / "envs") == []


@pytest.mark.parametrize(
    "rounds", [pytest.param(30, id="few"), pytest.param(500, id="many", marks=pytest.mark.soak)]
)
def test_killed_at_any_moment(shm_dir, monkeypatch, rounds):
    """Nothing is injected but small batches."""
    monkeypatch.setattr(batches_module, "MOST_NAMES", 8)
    chance = random.Random(rounds)
    interrupted = 0
    took = _time_of_a_run(shm_dir / "once", monkeypatch)
    for index in range(rounds):
        here = shm_dir / str(index)
        monkeypatch.setenv("XDG_STATE_HOME", str(here / "state"))
        made = forge(here, "ab", 120)
        interrupted += _killed_after(made, chance.uniform(0, took))
        run(made)
        assert leftovers(here / "envs") == []
        for number in range(120):
            paths = [here / "envs" / name / f"lib/l{number}.so" for name in "ab"]
            assert os.path.samefile(*paths)
            assert paths[0].read_bytes() == noise(str(number), 5000)
        shutil.rmtree(here)
    assert interrupted > rounds // 4


def _time_of_a_run(here: Path, monkeypatch) -> float:
    monkeypatch.setenv("XDG_STATE_HOME", str(here / "state"))
    analysis = analyse(forge(here, "ab", 120).scope(), PlanOptions())
    began = time.monotonic()
    apply_plan(analysis, "test")
    return time.monotonic() - began


def _killed_after(made: Forge, delay: float) -> bool:
    """Whether a run was killed so many seconds after its plan was made."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            analysis = analyse(made.scope(), PlanOptions())
            os.write(writing, b"x")
            apply_plan(analysis, "test")
        finally:
            os._exit(0)
    os.close(writing)
    os.read(reading, 1)
    os.close(reading)
    time.sleep(delay)
    os.kill(child, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])
