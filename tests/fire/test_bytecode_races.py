"""Others edit, compile, delete and import while bytecode is shared: nobody's work is lost, none is belied."""

from __future__ import annotations

import io
import json
import os
import py_compile
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout, suppress
from pathlib import Path

import pytest

from conda_dedup_plugin.cli import main
from conda_dedup_plugin.model import Reason
from conda_dedup_plugin.sharing import batches as batches_module
from conda_dedup_plugin.sharing.bytecode import BytecodeLinker
from conda_dedup_plugin.sharing.staging import Swap
from tests.fire.test_bytecode_killed import (
    LEVELS,
    NAMES,
    TEXTS,
    World,
    all_compiled,
    applied,
    code_in,
    code_of,
    compiled,
    fits,
    lies,
    sources,
    worlds,  # noqa: F401
)
from tests.fire.test_errors import attribute
from tests.lab import needs
from tests.lab.invariants import assert_unchanged, snapshot
from tests.lab.shares import leftovers
from tests.lab.steps import changing_steps, count_steps, run_and_kill, run_with
from tests.sharing.test_foreign_writers import EDIT, forbid_exchange, is_breaking, start_writer
from tests.test_manners import in_child

# of the same length, and other code
EDITED = {name: text.replace(b"left * item", b"item * left") for name, text in TEXTS.items()}
USER = 12345


# -- what others do ---------------------------------------------------------------------------------------


def replaced(path: Path, content: bytes, mtime: int | None = None) -> None:
    new = path.with_name(f"new-{path.name}")
    new.write_bytes(content)
    if mtime is not None:
        os.utime(new, (mtime, mtime))
    os.replace(new, path)


def compile_all(source: Path, *levels: int) -> None:
    """As an import would: to another file, which is renamed."""
    for level in levels:
        py_compile.compile(str(source), str(compiled(source, level)), doraise=True, optimize=level)


def edit_in_place(source: Path) -> None:
    with source.open("r+b") as file:
        file.write(EDITED[source.stem])


def edit_and_compile(source: Path) -> None:
    replaced(source, EDITED[source.stem])
    compile_all(source, 0)


def delete_all_compiled(source: Path) -> None:
    for level in LEVELS:
        compiled(source, level).unlink()


#: The one who has had the source open all the time.
EARLY = "edit, open before"
DEEDS: dict[str, Callable[[Path], object]] = {
    EARLY: lambda source: None,
    "compile": lambda source: compile_all(source, 0),
    "compile all": lambda source: compile_all(source, *LEVELS),
    "edit in place": edit_in_place,
    "truncate and write": lambda source: source.write_bytes(EDITED[source.stem]),
    "edit": lambda source: replaced(source, EDITED[source.stem]),
    "edit, an old time": lambda source: replaced(source, EDITED[source.stem], 1_000_000_000),
    "edit and compile": edit_and_compile,
    "delete source": lambda source: source.unlink(),
    "delete bytecode": lambda source: compiled(source, 0).unlink(),
    "delete all bytecode": delete_all_compiled,
    "touch": lambda source: os.utime(source),
}


IN_PLACE = {EARLY, "edit in place", "truncate and write"}


class Actor:
    """Somebody in a process of his own, made before we take any lease, who does one thing when told."""

    def __init__(self, source: Path, deed: str) -> None:
        self.source = source
        self.deed = deed
        held = os.open(source, os.O_WRONLY) if deed == EARLY else None
        go, self._go = os.pipe()
        self._told, tell = os.pipe()
        self._child = os.fork()
        if self._child == 0:
            code = 1
            try:
                os.close(self._go)
                os.read(go, 1)
                DEEDS[deed](source)
                if held is not None:
                    os.write(held, EDITED[source.stem])
                code = 0
            finally:
                os.write(tell, b"x")
                os._exit(code)
        for descriptor in (go, tell, *([] if held is None else [held])):
            os.close(descriptor)

    def act(self) -> None:
        """Returns when it is done, or when he waits for a lease of ours."""
        number = self.source.stat().st_ino
        os.write(self._go, b"x")
        until = time.monotonic() + 30
        while not select.select([self._told], [], [], 0.002)[0] and not is_breaking(number):
            assert time.monotonic() < until, "he neither comes to an end nor waits"

    def end(self) -> None:
        """Wait for his end; if his moment never came, it is now."""
        with suppress(BrokenPipeError):
            os.write(self._go, b"x")
        os.close(self._go)
        assert os.waitpid(self._child, 0)[1] == 0, self.deed
        os.close(self._told)

    @property
    def text(self) -> bytes | None:
        """What his source says when he is done; None: there is none."""
        if self.deed == "delete source":
            return None
        return (EDITED if self.deed.startswith(("edit", "truncate")) else TEXTS)[self.source.stem]

    @property
    def gone(self) -> list[Path]:
        """The bytecode that he deleted."""
        levels = {"delete bytecode": LEVELS[:1], "delete all bytecode": LEVELS}.get(self.deed, ())
        return [compiled(self.source, level) for level in levels]


def judge(world: World, actors: list[Actor], exchanges: bool) -> list[str]:
    """Return what is wrong: lost, or given to a source that it is not of.

    Where sources are hard links, who writes to one of them in place writes to the other as well.
    """
    texts = {source: {TEXTS[source.stem]} for package in world.packages for source in sources(package)}
    for actor in actors:
        texts[actor.source] = {actor.text}
        if world.words and actor.deed in IN_PLACE:
            for package in world.packages:
                texts[package / actor.source.name].add(actor.text)
    gone = {file for actor in actors for file in actor.gone}
    wrong = [f"a lie: {lie}" for package in world.packages for lie in lies(package)]
    for source, allowed in texts.items():
        if (source.read_bytes() if source.exists() else None) not in allowed:
            wrong.append(f"lost: {source}")
        known = {TEXTS[source.stem], *allowed} - {None}
        for level in LEVELS:
            file = compiled(source, level)
            if file in gone and (exchanges or not file.exists()):
                # without an exchange our name may replace what was deleted in that very moment
                if file.exists():
                    wrong.append(f"it was deleted: {file}")
            elif not file.exists():
                wrong.append(f"lost: {file}")
            elif code_in(file) not in [code_of(one, level) for one in known]:
                wrong.append(f"other code: {file}")
    return wrong


def stale(world: World, touched: set[str]) -> list[Path]:
    """Bytecode of modules that nobody touched, and that is not valid."""
    return [
        file
        for package in world.packages
        for source in sources(package)
        if source.stem not in touched
        for level in LEVELS
        if not fits(source, file := compiled(source, level))
    ]


ROUNDS = [pytest.param(12, id="some"), pytest.param(0, id="every", marks=pytest.mark.soak)]


@pytest.mark.parametrize("rounds", ROUNDS)
@pytest.mark.parametrize("what", ["apply", "undo"])
def test_others_at_any_step(worlds, what, rounds, request, tmp_path):  # noqa: F811
    """Three of them, each with a module of his own in either environment, at three steps of a run."""

    def prepare() -> World:
        return worlds() if what == "apply" else applied(worlds)

    exchanges = request.node.callspec.params["worlds"] != "no exchange"
    changing = changing_steps(getattr(prepare(), what))
    if not rounds:  # the calls before a change, and as many others
        count = count_steps(getattr(prepare(), what))
        changing = sorted({*changing, *range(1, count + 1, count // len(changing))})
    deeds = list(DEEDS)
    came = (tmp_path / "came").open("ab", buffering=0)
    rounds_made = rounds or len(changing) * len(deeds)
    for number in range(rounds_made):
        world = prepare()
        actors: list[Actor] = []
        plan: dict[int, Actor] = {}
        for index, name in enumerate(NAMES[:3]):
            source = world.packages[(number // len(deeds) + index) % 2] / f"{name}.py"
            first = number * len(changing) // rounds if rounds else number // len(deeds)
            step = changing[(first + index * len(changing) // 3) % len(changing)]
            actors.append(Actor(source, deeds[(number + 5 * index) % len(deeds)]))
            plan[step] = actors[-1]

        def come(step: int, plan: dict[int, Actor] = plan) -> None:
            plan[step].act()
            came.write(b"x")

        note = [(step, actor.deed, str(actor.source)) for step, actor in plan.items()]
        try:
            run_with(getattr(world, what), plan, come)
        finally:
            for actor in actors:
                actor.end()
        touched = {actor.source.stem for actor in actors}

        def look(then: str, world=world, actors=actors, touched=touched, note=note) -> None:
            assert judge(world, actors, exchanges) == [], (then, note)
            assert stale(world, touched) == [], (then, note)
            world.check_finished((then, note))

        look("at once")
        for again in ("apply", "undo"):
            getattr(world, again)()
            look(again)
        world.check_restored(lambda path, touched=touched: Path(path).name.partition(".")[0] not in touched)
    print(came.tell(), "of", 3 * rounds_made)
    assert 2 * came.tell() > 3 * rounds_made, "others came after the end"
    came.close()


@pytest.mark.parametrize(
    "rounds", [pytest.param(12, id="some"), pytest.param(0, id="all", marks=pytest.mark.soak)]
)
@pytest.mark.parametrize("what", ["apply", "undo"])
def test_others_between_a_kill_and_the_next_run(worlds, what, rounds, request):  # noqa: F811
    """What a killed run left half done is theirs by then: the next run of any kind belies nobody."""

    def prepare() -> World:
        return worlds() if what == "apply" else applied(worlds)

    exchanges = request.node.callspec.params["worlds"] != "no exchange"
    changing = changing_steps(getattr(prepare(), what))
    # who writes in place to what a killed run made a hard link has written to both
    linked = request.node.callspec.params["worlds"] == "text too"
    deeds = [deed for deed in DEEDS if not (linked and deed in IN_PLACE)]
    nexts = (World.recover, World.apply, World.undo)
    for number in range(rounds or len(changing) * len(deeds)):
        step = changing[number * len(changing) // rounds if rounds else number // len(deeds)]
        turn = number + number // len(deeds)
        world = prepare()
        assert run_and_kill(getattr(world, what), step)
        actors = [
            Actor(world.packages[(turn + index) % 2] / f"{name}.py", deeds[(number + 4 * index) % len(deeds)])
            for index, name in enumerate(NAMES[:3])
        ]
        note = [step, *((actor.deed, str(actor.source)) for actor in actors)]
        touched = {actor.source.stem for actor in actors}
        for actor in actors:
            actor.act()
            actor.end()
        first = nexts[turn % 3]
        for run in (first, World.apply, World.undo):
            run(world)
            assert judge(world, actors, exchanges) == [], (run, first, note)
            assert stale(world, touched) == [], (run, first, note)
            world.check_finished((run, first, note))
        world.check_restored(lambda path, touched=touched: Path(path).name.partition(".")[0] not in touched)


@pytest.mark.parametrize("deed", ["compile all", "delete all bytecode"])
@pytest.mark.parametrize("what", ["apply", "undo"])
def test_a_target_replaced_after_a_kill_without_an_exchange(shm_dir, monkeypatch, what, deed):
    """The old inode has its further name, the keeper's did not come over the target: neither is left."""
    forbid_exchange(monkeypatch)
    world = World(shm_dir, monkeypatch)
    if what == "undo":
        world.apply()

    def kill(self: Swap) -> None:
        (shm_dir / "target").write_text(f"{self.root}/{self.path}")
        os.kill(os.getpid(), signal.SIGKILL)

    with monkeypatch.context() as patch:
        patch.setattr(Swap, "_rename_over", kill)
        assert run_and_kill(getattr(world, what), 10**9)
    target = Path((shm_dir / "target").read_text())
    assert leftovers(world.root) != []
    actor = Actor(target.parent.parent / f"{target.name.partition('.')[0]}.py", deed)
    actor.end()
    world.recover()
    world.check_finished()
    assert judge(world, [actor], True) == []


# -- imports ----------------------------------------------------------------------------------------------

#: Imports everything, each time in a process that knows nothing of it, until it is told to stop.
IMPORTS = """
import os, select, sys, traceback
sys.path.insert(0, sys.argv[1])
while not select.select([0], [], [], 0)[0]:
    child = os.fork()
    if child == 0:
        try:
            for name in sys.argv[2:]:
                module = getattr(__import__("pkg." + name), name)
                assert module.Thing().method_3(2) == [3, 5, 7]
                assert module.fail.__code__.co_filename == f"{sys.argv[1]}/pkg/{name}.py"
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    if os.waitpid(child, 0)[1]:
        sys.exit(1)
    os.write(1, b".")
"""


@contextmanager
def imports(package: Path, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """Somebody imports the modules all the time; nothing may fail."""
    words = [sys.executable, "-I", *options, "-c", IMPORTS, str(package.parent), *NAMES]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as process:
        try:
            assert process.stdout.read(1) == b".", "no import came to its end, see its stderr"
            yield process
            answer, _ = process.communicate(b"stop", 60)
            assert process.returncode == 0, "an import failed, see its stderr"
            print(package, options, len(answer) + 1, "imports")
        finally:
            process.kill()


@pytest.mark.parametrize(
    "rounds", [pytest.param(20, id="some"), pytest.param(1000, id="many", marks=pytest.mark.soak)]
)
def test_imports_all_the_time(worlds, rounds):  # noqa: F811
    world = worlds()
    shared = 0
    with ExitStack() as stack:
        everybody = [
            stack.enter_context(imports(package, *options))
            for package in world.packages
            for options in ((), ("-O",))
        ]
        for _ in range(rounds):
            world.apply()
            shared += sum(world.shared())
            world.undo()
            assert [process.poll() for process in everybody] == [None] * 4, "an import failed, see its stderr"
    assert judge(world, [], True) == []
    world.check_finished()
    again = [file for file in map(str, all_compiled(*world.packages))
             if snapshot(file)[file].content != world.before[file].content]  # fmt: skip
    print(shared, "shared", len(again), "compiled anew", len(stale(world, set())), "stale")
    assert shared > rounds
    for package in world.packages:
        for options in ((), ("-O",), ("-OO",)):
            with imports(package, *options):
                pass
    assert stale(world, set()) == []
    assert judge(world, [], True) == []


# -- what may not be changed ------------------------------------------------------------------------------


def told(world: World, verb: str) -> dict:
    """The document of a run."""
    words = ["apply", "--yes", "--json", "--normalize-bytecode", "--no-discover", "--search", str(world.root)]
    with redirect_stdout(io.StringIO()) as text:
        assert main(words if verb == "apply" else ["undo", "--yes", "--json"]) == 0
    return json.loads(text.getvalue())


def target_of(folder: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """Which of the two environments is given the bytecode of the other one (and all of us is loaded)."""
    world = World(folder, monkeypatch)
    told(world, "apply")
    (found,) = {
        index
        for index, package in enumerate(world.packages)
        for source in sources(package)
        if source.stat().st_mtime_ns != world.before[str(source)].mtime_ns
    }
    told(world, "undo")
    return found


def check_left(world: World, stems: set[str], before: dict, what: set[str]) -> None:
    """Of the modules ``stems`` nothing was changed; everything is valid, and that of ``what`` is shared."""
    world.check()
    world.check_valid()
    assert leftovers(world.root) == []
    pairs = zip(*(all_compiled(package) for package in world.packages), strict=True)
    for one, other in pairs:
        stem = one.name.partition(".")[0]
        assert os.path.samefile(one, other) == (stem in what), one
    after = snapshot(world.root)
    for path, state in before.items():
        if Path(path).name.partition(".")[0] in stems:
            assert after[path][:-3] == state[:-3], path


@pytest.mark.parametrize("moment", ["before the exchange", "before settling"])
def test_an_editor_who_waits_for_us(worlds, monkeypatch, moment):  # noqa: F811
    """He opens the source in the middle of a batch: its bytecode is given back before he gets it."""
    world = worlds()
    names = {"before the exchange": "_exchange_name", "before settling": "_settle"}
    original = getattr(BytecodeLinker, names[moment])
    writers: list[tuple[Path, threading.Thread]] = []

    def meanwhile(self, job, *rest):
        if not writers:
            source = Path(job.source.root, job.source.path)
            writers.append((source, start_writer(source, job.source.inode.key.number)))
        return original(self, job, *rest)

    monkeypatch.setattr(BytecodeLinker, names[moment], meanwhile)
    world.apply()
    ((source, writer),) = writers
    writer.join()
    assert source.read_bytes() == EDIT + TEXTS[source.stem][len(EDIT) :]
    for level in LEVELS:
        path = str(compiled(source, level))
        assert snapshot(path)[path].content == world.before[path].content
        assert not fits(source, Path(path))
    assert stale(world, {source.stem}) == []
    assert world.shared() == [name != source.stem for name in NAMES for _ in LEVELS]
    world.check_finished()


@pytest.mark.parametrize("level", LEVELS)
def test_a_sibling_that_cannot_be_shared_holds_back_the_others(tmp_path, monkeypatch, level):
    """It is found out at any turn when each is opened: what was or is to be exchanged stays as it was."""
    target = target_of(tmp_path / "first", monkeypatch)
    world = World(tmp_path / "second", monkeypatch)
    monkeypatch.setattr(batches_module, "LONGEST_SECONDS", 600)
    run = BytecodeLinker.run
    before = {}

    def planned(self, tasks):
        try:
            os.setxattr(compiled(world.packages[target] / "two.py", level), "user.test", b"mine")
        except OSError as error:
            needs(f"extended attributes: {error}", False)
        before.update(snapshot(world.root))
        return run(self, tasks)

    monkeypatch.setattr(BytecodeLinker, "run", planned)
    done = told(world, "apply")
    assert done["failed"] == []
    skipped = {one["reason"]: one["inodes"] for one in done["skipped"]}
    assert skipped == {Reason.OTHER_XATTRS.value: 1, Reason.BYTECODE.value: len(LEVELS) - 1}
    check_left(world, {"two"}, before, set(NAMES) - {"two"})


FIXED = ["source", "bytecode", "other bytecode", "directory"]


def fixed(package: Path, what: str) -> Path:
    source = package / "one.py"
    places = {
        "source": source,
        "bytecode": compiled(source, 0),
        "other bytecode": compiled(source, 1),
        "directory": package / "__pycache__",
    }
    return places[what]


@pytest.mark.parametrize("flag", ["i", "a"])
@pytest.mark.parametrize("what", FIXED)
def test_what_is_immutable_is_left_alone(tmp_path, monkeypatch, what, flag):
    """A sibling cannot be exchanged, or the source cannot get another time: nothing is done to any."""
    target = target_of(tmp_path / "first", monkeypatch)
    world = World(tmp_path / "second", monkeypatch)
    stems = set(NAMES) if what == "directory" else {"one"}
    place = fixed(world.packages[target], what)
    with attribute(place, flag):
        done = told(world, "apply")
    assert done["failed"] == []
    assert Reason.IMMUTABLE.value in {one["reason"] for one in done["skipped"]}
    assert sum(one["inodes"] for one in done["skipped"]) == len(LEVELS) * len(stems)
    check_left(world, stems, world.before, set(NAMES) - stems)
    world.apply()
    world.settled()
    assert all(world.shared())
    between = snapshot(world.root)
    with attribute(place, flag):
        done = told(world, "undo")
    assert done["failed"] == []
    check_left(world, stems, between, stems)
    world.undo()
    world.settled()
    world.check_restored()


@pytest.mark.parametrize("what", ["read-only directory", "owner of the source", "owner of the bytecode"])
def test_what_a_user_may_not_change_is_left_alone(shm_dir, monkeypatch, what):
    needs("other users need root", os.geteuid() == 0)
    target = target_of(shm_dir / "first", monkeypatch)
    world = World(shm_dir / "second", monkeypatch)
    os.chmod(shm_dir, 0o755)
    for path in (shm_dir / "second", *(shm_dir / "second").rglob("*")):
        os.chown(path, USER, USER)
    package = world.packages[target]
    if what == "read-only directory":
        os.chmod(package / "__pycache__", 0o555)
    elif what == "owner of the source":
        os.chown(package / "one.py", 0, 0)
    else:
        os.chown(compiled(package / "one.py", 1), 0, 0)
    stems = set(NAMES) if what == "read-only directory" else {"one"}
    before = snapshot(world.root)
    answer = shm_dir / "second/answer"

    def apply() -> None:
        os.environ["HOME"] = str(answer.parent)
        answer.write_text(json.dumps(told(world, "apply")))

    in_child(apply, USER)
    done = json.loads(answer.read_text())
    assert done["failed"] == []
    print(done["skipped"])
    check_left(world, stems, before, set(NAMES) - stems)
    in_child(world.undo, USER)
    check_left(world, stems, before, set())
    assert_unchanged(before, snapshot(world.root))
    in_child(world.check_finished, USER)
