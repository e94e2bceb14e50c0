"""kill -9 at any moment of an apply, an undo and a repair: nothing is lost, and the next run finishes."""

from __future__ import annotations

import errno
import itertools
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conda_dedup_plugin.cli import main
from conda_dedup_plugin.journal import Journal
from conda_dedup_plugin.repair import carry_out, plan_repair
from conda_dedup_plugin.sharing import batches as batches_module
from conda_dedup_plugin.sharing import staging as staging_module
from conda_dedup_plugin.sharing.recovery import recover
from conda_dedup_plugin.undo import plan_undo, undo
from conda_dedup_plugin.verify import verify
from tests.lab.forge import Forge, noise
from tests.lab.shares import leftovers
from tests.lab.steps import changing_steps, count_steps, run_and_kill

DIST = ("a", "1", "0")
FILES = {f"lib/lib{number}.so": noise(f"library {number}", 5000) for number in range(4)}
FILES["lib/python3.12/__pycache__/a.cpython-312.pyc"] = noise("bytecode", 5000)
TWICE = "lib/lib0.so"
FOREIGN = b"somebody's new file"

#: Of the steps right before something changes, or all steps there are.
ROUNDS = [pytest.param(70, id="some"), pytest.param(0, id="every", marks=pytest.mark.soak)]
EXCHANGES = ["exchange", "no exchange"]


class World:
    """A cache and two environments, one file of which has two names."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        monkeypatch.setenv("XDG_STATE_HOME", str(root / "state"))
        self.forge = Forge(root / "world")
        self.forge.cache({DIST: FILES})
        self.one = self.forge.environment("one", {DIST: FILES})
        self.two = self.forge.environment("two", {DIST: FILES})
        os.link(self.two / TWICE, self.two / "lib/again.so")
        for number, path in enumerate(FILES):
            os.utime(self.two / path, (1_500_000_000 + number,) * 2)
        self.expected = {
            f"{prefix}/{path}": data for prefix in (self.one, self.two) for path, data in FILES.items()
        }
        self.expected[f"{self.two}/lib/again.so"] = FILES[TWICE]
        self.stamps = {path: os.stat(path).st_mtime_ns for path in self.expected}
        self.cached = {f"{self.root}/world/pkgs/a-1-0/{path}": data for path, data in FILES.items()}
        self.modes = {path: os.stat(path).st_mode for path in (*self.expected, *self.cached)}

    def apply(self) -> None:
        assert main(["apply", "--yes", "--quiet", "--no-discover", "--search", str(self.forge.root)]) == 0

    def undo(self) -> None:
        journal = Journal.open()
        try:
            recover(journal)
            undo(plan_undo(journal), journal, "test")
        finally:
            journal.close()

    def damage(self) -> None:
        """Edit a shared library in place; a third environment has it whole."""
        self.apply()
        three = self.forge.environment("three", {DIST: FILES})
        del self.expected[f"{self.two}/lib/again.so"]  # no record tells what it should hold
        self.expected |= {f"{three}/{path}": data for path, data in FILES.items()}
        with open(self.one / TWICE, "r+b") as file:
            file.write(b"an edit")

    def repair(self) -> None:
        journal = Journal.open()
        try:
            recover(journal)
            carry_out(plan_repair(verify(self.forge.scope(), journal), journal), journal, "test")
        finally:
            journal.close()

    def check(self, *also: bytes) -> None:
        """Every path has its content, or one of ``also``."""
        for path, data in self.expected.items():
            assert Path(path).read_bytes() in (data, *also), path
        for path, data in self.cached.items():
            assert Path(path).read_bytes() in (data, *also), path
        for path, mode in self.modes.items():
            if path in self.expected or path in self.cached:
                assert os.stat(path).st_mode == mode, path

    def check_finished(self) -> None:
        assert leftovers(self.root / "world") == []
        journal = Journal.open()
        assert journal.open_intents() == []
        assert journal.left_stagings() == []
        journal.close()

    def inodes(self) -> set[int]:
        return {os.stat(path).st_ino for path in self.expected}


@pytest.fixture
def worlds(shm_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], World]]:
    """Makes one after the other; two files to a batch, and no batch ends by the clock."""
    monkeypatch.setattr(batches_module, "MOST_NAMES", 3)
    monkeypatch.setattr(batches_module, "LONGEST_SECONDS", 600)
    numbers = itertools.count()
    yield lambda: World(shm_dir / str(next(numbers)), monkeypatch)


def steps_of(rounds: int, count: int, least: int = 300) -> list[int]:
    """Which steps to kill at: all of them, or some, evenly spread."""
    assert count > least, "the steps are not seen"
    if not rounds:
        return list(range(1, count + 1))
    stride = count / rounds
    chance = random.Random(count)
    return [1 + int((number + chance.random()) * stride) for number in range(rounds)]


def kills(rounds: int, operation: Callable[[], object], again: Callable[[], object]) -> list[int]:
    """All steps; or else those before a change, evenly spread. Both arguments are alike, in worlds alike."""
    if not rounds:
        return steps_of(0, count_steps(operation))
    found = changing_steps(again)
    return [found[number - 1] for number in steps_of(min(rounds, len(found)), len(found), 60)]


@pytest.fixture
def exchanging(request, monkeypatch) -> None:
    """Some file systems cannot exchange two names."""

    def cannot(*_: object) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    if request.param == "no exchange":
        monkeypatch.setattr(staging_module, "exchange", cannot)


@pytest.mark.parametrize("exchanging", EXCHANGES, indirect=True)
@pytest.mark.parametrize("rounds", ROUNDS)
def test_an_apply_killed_at_any_step(worlds, exchanging, rounds):
    for step in kills(rounds, worlds().apply, worlds().apply):
        world = worlds()
        assert run_and_kill(world.apply, step) or rounds == 0
        world.check()
        world.apply()
        world.check()
        world.check_finished()
        assert len(world.inodes()) == len(FILES), f"the next run shares the rest ({step})"


@pytest.mark.parametrize("rounds", ROUNDS)
def test_an_undo_killed_at_any_step(worlds, rounds):
    first = worlds()
    first.apply()
    for step in steps_of(rounds, count_steps(first.undo)):
        world = worlds()
        world.apply()
        assert run_and_kill(world.undo, step) or rounds == 0
        world.check()
        world.undo()
        world.check()
        world.check_finished()
        assert {path: os.stat(path).st_mtime_ns for path in world.expected} == world.stamps
        assert len(world.inodes()) == 2 * len(FILES), "the two names of one file are one file again"


@pytest.mark.parametrize("rounds", ROUNDS)
def test_a_repair_killed_at_any_step(worlds, rounds):
    first = worlds()
    first.damage()
    damaged = (first.one / TWICE).read_bytes()
    for step in steps_of(rounds, count_steps(first.repair)):
        world = worlds()
        world.damage()
        assert run_and_kill(world.repair, step) or rounds == 0
        world.check(damaged)
        world.repair()
        world.check()
        world.check_finished()


@pytest.mark.parametrize("rounds", ROUNDS)
@pytest.mark.parametrize("what", ["apply", "undo"])
def test_a_file_put_there_just_before_the_exchange(worlds, rounds, what, monkeypatch):
    """It goes to staging for a moment, and there it is the only copy of somebody's new file."""
    real = staging_module.exchange

    def foreign_first(first_dir, first, second_dir, second):
        if os.path.exists(new):
            os.rename(new, f"/proc/self/fd/{second_dir}/{second}")
            replaced.write_text(os.readlink(f"/proc/self/fd/{second_dir}") + "/" + second)
        real(first_dir, first, second_dir, second)

    def prepare() -> World:
        nonlocal new, replaced
        world = worlds()
        new, replaced = world.root / "new", world.root / "replaced"
        if what == "undo":
            world.apply()
        new.write_bytes(FOREIGN)
        return world

    new = replaced = Path()
    monkeypatch.setattr(staging_module, "exchange", foreign_first)
    met = 0
    for step in steps_of(rounds, count_steps(getattr(prepare(), what))):
        world = prepare()
        run_and_kill(getattr(world, what), step)
        if replaced.exists():
            path = replaced.read_text()
            met += 1
            del world.expected[path]
            world.check(FOREIGN)
            assert holds(world, FOREIGN), "the only copy is gone"
            (world.root / "new").unlink(missing_ok=True)
            getattr(world, what)()
            assert Path(path).read_bytes() == FOREIGN
        new.unlink(missing_ok=True)
        getattr(world, what)()
        world.check()
        world.check_finished()
    assert met > 10


def holds(world: World, content: bytes) -> list[Path]:
    """Where a content is, under names that ``conda clean --tempfiles`` leaves alone."""
    return [
        path
        for path in (world.root / "world").rglob("*")
        if path.is_file()
        and not path.name.endswith((".c~", ".trash"))
        and path.stat().st_size == len(content)
        and path.read_bytes() == content
    ]


@pytest.mark.parametrize("rounds", ROUNDS)
def test_a_recovery_killed_at_any_step(worlds, rounds):
    """Killed in the middle of a batch, and again at any step of what the next run makes of it."""

    def prepare() -> World:
        world = worlds()
        assert run_and_kill(world.apply, middle)
        return world

    def recover_it() -> None:
        journal = Journal.open()
        recover(journal)
        journal.close()

    middle = 1
    for middle in exchanged_steps(worlds):  # noqa: B007
        steps = steps_between(rounds // 7, count_steps_of(prepare, recover_it))
        for step in steps:
            world = prepare()
            run_and_kill(recover_it, step)
            world.check()
            world.apply()
            world.check()
            world.check_finished()


def exchanged_steps(worlds: Callable[[], World]) -> list[int]:
    """Some steps of an apply at which intents are open and names exchanged."""
    count = count_steps(worlds().apply)
    found = []
    for step in range(count // 4, count, count // 40):
        world = worlds()
        run_and_kill(world.apply, step)
        journal = Journal.open()
        if journal.open_intents() and leftovers(world.root / "world"):
            found.append(step)
        journal.close()
    assert len(found) > 3
    return found[:: max(1, len(found) // 6)]


def count_steps_of(prepare: Callable[[], World], operation: Callable[[], None]) -> int:
    prepare()
    return count_steps(operation)


def steps_between(rounds: int, count: int) -> list[int]:
    return list(range(1, count + 1, max(1, count // rounds) if rounds else 1))
