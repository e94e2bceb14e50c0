"""kill -9 at any moment while bytecode is shared or taken back: it stays the same code, and is valid."""

from __future__ import annotations

import importlib.util
import itertools
import marshal
import os
import struct
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from conda_dedup_plugin import pyc
from conda_dedup_plugin.cli import main
from conda_dedup_plugin.journal import Journal
from conda_dedup_plugin.sharing import batches as batches_module
from conda_dedup_plugin.sharing.recovery import recover
from tests.fire.test_killed import EXCHANGES, kills
from tests.lab.invariants import State, assert_unchanged, snapshot
from tests.lab.modules import TEXT
from tests.lab.shares import leftovers
from tests.lab.steps import changing_steps, count_steps, run_and_kill
from tests.sharing.test_foreign_writers import forbid_exchange

SITE = f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
TAG = sys.implementation.cache_tag
LEVELS = (0, 1, 2)
METHODS = "\n".join(
    f'    def method_{number}(self, left, right={number}):\n        """{{0}} {number}."""\n'
    f"        return [left * item + right for item in range({number})]\n"
    for number in range(32)
)
NAMES = ("one", "two", "three", "four")
TEXTS = {name: TEXT.format(name=name, methods=METHODS.format(name)).encode() for name in NAMES}
#: When the sources came, for each environment; those of the last module within one second.
TIMES = {
    name: tuple(
        (1_700_000_000 if name == "four" else first + number) * 10**9 + 123_456_789 + first
        for first in (1_700_000_000, 1_600_000_000)
    )
    for number, name in enumerate(NAMES)
}
HEADER = struct.Struct("<4sIII")
ROUNDS = [pytest.param(12, id="some"), pytest.param(0, id="every", marks=pytest.mark.soak)]


# -- bytecode, judged without the code under test ---------------------------------------------------------


@cache
def code_of(text: bytes, level: int) -> object:
    """What a source means; its path is no part of the comparison."""
    return compile(text, "/-/source.py", "exec", dont_inherit=True, optimize=level)


def sources(package: Path) -> list[Path]:
    return [package / f"{name}.py" for name in NAMES]


def compiled(source: Path, level: int) -> Path:
    tag = f".opt-{level}" if level else ""
    return source.parent / f"__pycache__/{source.stem}.{TAG}{tag}.pyc"


def all_compiled(*packages: Path) -> list[Path]:
    return [
        compiled(source, level) for package in packages for source in sources(package) for level in LEVELS
    ]


def fits(source: Path, file: Path) -> bool:
    """Whether Python takes a compiled file for that of a source as it is."""
    stat = source.stat()
    magic, flags, mtime, size = HEADER.unpack(file.read_bytes()[: HEADER.size])
    assert magic == importlib.util.MAGIC_NUMBER
    return (flags, mtime, size) == (0, stat.st_mtime_ns // 10**9, stat.st_size)


def code_in(file: Path) -> object:
    return marshal.loads(file.read_bytes()[HEADER.size :])


def lies(package: Path) -> list[str]:
    """Compiled files that Python would take for those of a source that says something else."""
    return [
        str(compiled(source, level))
        for source in sources(package)
        for level in LEVELS
        if source.exists() and compiled(source, level).exists()
        if fits(source, compiled(source, level))
        and code_in(compiled(source, level)) != code_of(source.read_bytes(), level)
    ]


# -- worlds -----------------------------------------------------------------------------------------------


@cache
def template(name: str, level: int) -> pyc.Code:
    """A module compiled once, to be written for any path and time."""
    path = f"/template/{SITE}/pkg/{name}.py"
    code = compile(TEXTS[name], path, "exec", dont_inherit=True, optimize=level)
    header = HEADER.pack(importlib.util.MAGIC_NUMBER, 0, 0, len(TEXTS[name]))
    found = pyc.take_apart(header + marshal.dumps(code), f"{SITE}/pkg/{name}.py")
    assert found is not None and found.filename == path.encode()
    return found


def install(prefix: Path, index: int) -> Path:
    """An environment with the package, as pip leaves it; every module is compiled at all levels."""
    package = prefix / SITE / "pkg"
    (package / "__pycache__").mkdir(parents=True)
    (prefix / "conda-meta").mkdir()
    (prefix / "conda-meta/history").touch()
    for name, text in TEXTS.items():
        source = package / f"{name}.py"
        source.write_bytes(text)
        mtime = TIMES[name][index]
        os.utime(source, ns=(mtime, mtime))
        for level in LEVELS:
            content = template(name, level).written(os.fsencode(source), mtime)
            assert len(content) > 4096
            compiled(source, level).write_bytes(content)
            os.utime(compiled(source, level), ns=(mtime + level, mtime + level))
    return package


class World:
    """Two environments with the same modules, which came at different times."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
        self.root = root / "world"
        self.words = words
        monkeypatch.setenv("XDG_STATE_HOME", str(root / "state"))
        self.packages = [
            install(self.root / f"envs/{name}", index) for index, name in enumerate(("a", "another"))
        ]
        self.codes = self.identities()
        self.before = snapshot(self.root)

    def apply(self) -> None:
        words = ("--yes", "--quiet", "--normalize-bytecode", *self.words)
        assert main(["apply", *words, "--no-discover", "--search", str(self.root)]) == 0

    def undo(self) -> None:
        assert main(["undo", "--yes", "--quiet"]) == 0

    def recover(self) -> None:
        journal = Journal.open()
        try:
            assert recover(journal) == []
        finally:
            journal.close()

    def identities(self) -> dict[str, object]:
        """What each compiled file is but for its path and time."""
        found = {}
        for package in self.packages:
            for file in all_compiled(package):
                source = f"{SITE}/pkg/{file.name.partition('.')[0]}.py"
                code = pyc.take_apart(file.read_bytes(), source)
                assert code is not None
                found[str(file)] = code.identity
        return found

    def check(self) -> None:
        """At any moment: every source has its content, every compiled file its code."""
        for package in self.packages:
            for source in sources(package):
                assert source.read_bytes() == TEXTS[source.stem]
        assert self.identities() == self.codes

    def check_valid(self, note: object = "") -> None:
        """All that is compiled from a source is valid for it."""
        stale = [
            file
            for package in self.packages
            for source in sources(package)
            for level in LEVELS
            if not fits(source, file := compiled(source, level))
        ]
        assert stale == [], note

    def check_finished(self, note: object = "") -> None:
        assert leftovers(self.root) == [], note
        journal = Journal.open()
        assert journal.open_intents() == [], note
        assert journal.left_stagings() == [], note
        journal.close()

    def check_restored(self, accept: Callable[[str], bool] = lambda path: True) -> None:
        """Bytes, times and modes are as at the start."""

        def these(found: dict[str, State]) -> dict[str, State]:
            return {path: state for path, state in found.items() if accept(path)}

        assert_unchanged(these(self.before), these(snapshot(self.root)))

    def settled(self, note: object = "") -> None:
        """After a run that came to its end."""
        self.check()
        self.check_valid(note)
        self.check_finished(note)

    def shared(self) -> list[bool]:
        """For each compiled file, whether both environments have the same."""
        pairs = zip(*(all_compiled(package) for package in self.packages), strict=True)
        return [os.path.samefile(*pair) for pair in pairs]


Worlds = Callable[[], World]


@pytest.fixture(params=[*EXCHANGES, "text too"])
def worlds(request, shm_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Worlds]:
    """Makes one after the other; two sources to a batch, and no batch ends by the clock.

    With ``text too`` the sources become hard links after their bytecode.
    """
    monkeypatch.setattr(batches_module, "MOST_NAMES", 4)
    monkeypatch.setattr(batches_module, "LONGEST_SECONDS", 600)
    if request.param == "no exchange":
        forbid_exchange(monkeypatch)
    words = ["--hardlink-untracked"] if request.param == "text too" else []
    numbers = itertools.count()
    yield lambda: World(shm_dir / str(next(numbers)), monkeypatch, *words)


def applied(worlds: Worlds) -> World:
    world = worlds()
    world.apply()
    return world


# -- killed -----------------------------------------------------------------------------------------------


def test_the_world_is_as_python_makes_it(worlds):
    world = worlds()
    world.settled()
    for package in world.packages:
        assert lies(package) == []
        for source in sources(package):
            assert {code_in(compiled(source, 0)).co_filename} == {str(source)}
    times = [[source.stat().st_mtime_ns for source in sources(package)] for package in world.packages]
    assert all(one != other for one, other in zip(*times, strict=True))
    world.apply()
    world.settled()
    assert all(world.shared())
    world.undo()
    world.settled()
    world.check_restored()
    assert not any(world.shared())


@pytest.mark.parametrize("rounds", ROUNDS)
def test_an_apply_killed_at_any_step(worlds, rounds):
    for number, step in enumerate(kills(rounds, worlds().apply, worlds().apply)):
        world = worlds()
        assert run_and_kill(world.apply, step) or rounds == 0
        world.check()
        (world.apply, world.undo, world.recover)[number % 3]()
        world.settled(step)
        if number % 3 == 0:
            assert all(world.shared()), step
        world.undo()
        world.settled(step)
        world.check_restored()


@pytest.mark.parametrize("rounds", ROUNDS)
def test_an_undo_killed_at_any_step(worlds, rounds):
    for number, step in enumerate(kills(rounds, applied(worlds).undo, applied(worlds).undo)):
        world = applied(worlds)
        assert run_and_kill(world.undo, step) or rounds == 0
        world.check()
        (world.undo, world.apply, world.recover)[number % 3]()
        world.settled(step)
        if number % 3 == 1:
            assert all(world.shared()), step
        world.undo()
        world.settled(step)
        world.check_restored()
        assert not any(world.shared()), step


@pytest.mark.parametrize("rounds", ROUNDS)
@pytest.mark.parametrize("what", ["apply", "undo"])
def test_a_recovery_killed_at_any_step(worlds, rounds, what):
    """Killed when names of a batch are exchanged, and again at any step of what the next run makes of it."""

    def prepare() -> World:
        world = worlds() if what == "apply" else applied(worlds)
        assert run_and_kill(getattr(world, what), middle)
        return world

    middle = 1
    for middle in exchanged_steps(worlds, what, rounds):
        found = changing_steps(prepare().recover)
        steps = found[:: max(1, len(found) // 3)] if rounds else range(1, count_steps(prepare().recover) + 1)
        for step in steps:
            world = prepare()
            assert run_and_kill(world.recover, step) or rounds == 0
            world.check()
            world.recover()
            world.settled((middle, step))
            world.undo()
            world.settled((middle, step))
            world.check_restored()


def exchanged_steps(worlds: Worlds, what: str, rounds: int) -> list[int]:
    """Some steps at which intents are open and the bytecode and the time of a source may part."""
    world = worlds() if what == "apply" else applied(worlds)
    changing = changing_steps(getattr(world, what))
    found = []
    for step in changing[:: 6 if rounds else 1]:
        world = worlds() if what == "apply" else applied(worlds)
        run_and_kill(getattr(world, what), step)
        stale = [
            source
            for package in world.packages
            for source in sources(package)
            if not all(fits(source, compiled(source, level)) for level in LEVELS)
        ]
        if stale:
            found.append(step)
    assert len(found) > 2
    return found[:: max(1, len(found) // (2 if rounds else 6))]
