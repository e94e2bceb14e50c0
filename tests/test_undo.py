"""``undo``: everything is as it was, whatever happened in between, or it is said why not."""

from __future__ import annotations

import json
import os
import shutil
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from conda_dedup_plugin import history
from conda_dedup_plugin import undo as undo_module
from conda_dedup_plugin.cli import main
from conda_dedup_plugin.journal import Journal
from conda_dedup_plugin.sharing import private as private_module
from conda_dedup_plugin.sharing import staging as staging_module
from conda_dedup_plugin.sharing import unshare as unshare_module
from conda_dedup_plugin.sharing.private import Privatizer
from tests.lab.forge import noise
from tests.lab.invariants import State, assert_unchanged, directories, du, free_bytes, snapshot
from tests.lab.mounts import REFLINK_KINDS, mounted_file_system
from tests.lab.shares import leftovers
from tests.sharing.test_foreign_writers import EDIT, replace, start_writer
from tests.sharing.test_private import dies_at, killed, runs_before
from tests.test_apply import dedup, make_world
from tests.test_cli import in_a_terminal
from tests.test_lab import PROGRAM
from tests.test_report import DIST, World

if TYPE_CHECKING:
    from tests.conftest import MakeLab

LIB, TEXT = "lib/libx.so", "share/data.txt"
DATA = noise("library", 60_000)
OLD = 1_600_000_000
MIB = 1 << 20
Run = Callable[..., dict[str, Any]]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "world", tmp_path / "home")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """``run(world, *words, code=0)``: the command line in this process; returns the JSON document."""

    def call(world: World, *words: object, code: int = 0) -> dict[str, Any]:
        set_environ(monkeypatch, world)
        capsys.readouterr()
        assert main([*map(str, words), "--json"]) == code
        document: dict[str, Any] = json.loads(capsys.readouterr().out)
        return document

    return call


def set_environ(monkeypatch: pytest.MonkeyPatch, world: World) -> None:
    for name in [name for name in os.environ if name.startswith("CONDA")]:
        monkeypatch.delenv(name)
    for name, value in world.environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(world.home)


def share(world: World, run: Run, *more: object) -> dict[str, Any]:
    """Share whatever is there; it has to be something."""
    done = run(world, "apply", "--yes", *more, *world.search)
    assert done["failed"] == []
    assert done["done"]["inodes"] > 0
    return done


def pair(world: World, run: Run, *names: str) -> list[Path]:
    """Environments that share a library, each with its own time before."""
    prefixes = [world.forge.environment(name, {DIST: {LIB: DATA}}) for name in names or ("one", "two")]
    for number, prefix in enumerate(prefixes):
        os.utime(prefix / LIB, (OLD, OLD + number))
    share(world, run)
    assert len({os.stat(prefix / LIB).st_ino for prefix in prefixes}) == 1
    return prefixes


def sharing(states: Mapping[str, State]) -> set[frozenset[str]]:
    """Which paths are one inode."""
    inodes = defaultdict(set)
    for path, state in states.items():
        inodes[state.device, state.inode].add(path)
    return {frozenset(paths) for paths in inodes.values()}


def book(world: World) -> Journal:
    return Journal.open(world.home / "state/conda-dedup/journal.sqlite")


def remembered(world: World) -> int:
    journal = book(world)
    try:
        return len(history.shared(journal))
    finally:
        journal.close()


# -- as it was --------------------------------------------------------------------------------------------


def various(world: World) -> list[Path]:
    """A cache and three environments with modes, times, attributes, holes and hard links of their own."""
    files = {f"lib/lib{number}.so": noise(str(number), MIB) for number in range(6)}
    files |= {TEXT: noise("text", 20_000), "lib/pair.so": noise("pair", 30_000), "lib/sparse.so": DATA}
    trees = [world.forge.cache({DIST: files})]
    trees += [world.forge.environment(name, {DIST: files}) for name in ("one", "two", "three")]
    for number, tree in enumerate(trees):
        base = tree / "a-1-0" if number == 0 else tree
        for path in files:
            os.chmod(base / path, 0o755 if path.endswith("0.so") else 0o644)
            if path.endswith(".so"):
                os.utime(base / path, ns=(OLD * 10**9, (OLD + number) * 10**9 + number))
        if number:
            os.link(base / "lib/pair.so", base / "lib/pair.so.1")
        try:
            os.setxattr(base / "lib/lib1.so", "user.note", b"kept")
        except OSError:
            continue  # a file system without
    return trees


def test_every_file_system(
    device_dir: Path, device_kind: str, mounted: Callable[..., Path], tmp_path: Path, run: Run
) -> None:
    world = World(device_dir / "world", tmp_path / "home")
    trees = various(world)
    before, folders, used = snapshot(*trees), directories(*trees), du(*trees)
    free = free_bytes(mounted(device_kind))
    done = share(world, run)["done"]
    assert done["bytes_freed"] > 17 * MIB
    document = run(world, "undo", "--yes")
    assert (document["failed"], document["skipped"], document["warnings"]) == ([], [], [])
    after = snapshot(*trees)
    assert_unchanged(before, after)
    assert sharing(after) == sharing(before)
    assert directories(*trees) == folders
    assert du(*trees) == pytest.approx(used, rel=0.01)
    assert free_bytes(mounted(device_kind)) == pytest.approx(free, abs=used / 100)
    if device_kind in REFLINK_KINDS:
        assert {s.inode for s in after.values()} == {s.inode for s in before.values()}
    assert remembered(world) == 0
    assert run(world, "undo", "--yes")["done"]["inodes"] == 0
    assert snapshot(*trees) == after
    share(world, run)


@pytest.mark.integration
def test_real_environments(conda_lab: MakeLab, tmp_path: Path) -> None:
    lab = conda_lab()
    trees = make_world(lab)
    search = ("--no-discover", "--search", lab.root)
    before, folders, used = snapshot(*trees), directories(*trees), du(*trees)
    assert dedup(lab, tmp_path, "apply", "--yes", *search)["done"]["bytes_freed"] > 50 * MIB
    assert dedup(lab, tmp_path, "verify", *search)["damaged"] == []
    document = dedup(lab, tmp_path, "undo", "--yes")
    assert (document["failed"], document["skipped"]) == ([], [])
    after = snapshot(*trees)
    assert_unchanged(before, after)
    assert sharing(after) == sharing(before)
    assert directories(*trees) == folders
    assert du(*trees) == pytest.approx(used, rel=0.01)
    assert dedup(lab, tmp_path, "verify", *search)["damaged"] == []
    assert lab.python_in(trees[0], "-c", PROGRAM).stdout.strip() == str(trees[0])
    lab.python_in(trees[3], "-B", "-c", "import numpy, msgspec; assert numpy.ones(3).sum() == 3")


# -- what is undone ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["-n", "-p", "--search"])
def test_scope(world: World, run: Run, way: str) -> None:
    one, two, three = pair(world, run, "one", "two", "three")
    moved = [prefix for prefix in (one, two, three) if os.stat(prefix / LIB).st_nlink == 3]
    assert len(moved) == 3
    journal = book(world)
    named = Path(history.shared(journal)[0].change.root)
    journal.close()
    if way == "-n":
        world.extra["CONDA_ENVS_PATH"] = str(world.root / "envs")
    words = {"-n": named.name, "-p": named, "--search": named}
    document = run(world, "undo", "--yes", way, words[way])
    assert document["done"]["names"] == 1
    assert os.stat(named / LIB).st_nlink == 1
    others = [prefix for prefix in (one, two, three) if prefix != named]
    assert os.path.samefile(others[0] / LIB, others[1] / LIB)
    assert remembered(world) == 1
    assert run(world, "undo", "--yes")["done"]["names"] == 1
    assert not os.path.samefile(others[0] / LIB, others[1] / LIB)


def test_a_dry_run_changes_nothing(world: World, run: Run) -> None:
    pair(world, run)
    before = snapshot(world.root)
    document = run(world, "undo", "--dry-run")
    assert document["dry_run"] is True
    assert document["planned"] == {"inodes": 1, "names": 1, "bytes_needed": 61_440}
    assert len(document["copies"]) == 1
    assert document["done"]["inodes"] == 0
    assert snapshot(world.root) == before
    assert remembered(world) == 1


@pytest.mark.parametrize("first_only", [False, True])
def test_chains(world: World, run: Run, first_only: bool) -> None:
    """Two environments are shared, then both go to a cache that came later."""
    one, two = (world.forge.environment(name, {DIST: {LIB: DATA}}) for name in ("one", "two"))
    os.utime(one / LIB, (OLD, OLD + 1))
    os.utime(two / LIB, (OLD, OLD + 2))
    before = snapshot(one, two)
    first = share(world, run)
    world.forge.cache({DIST: {LIB: DATA}})
    share(world, run)
    cached = world.root / "pkgs/a-1-0" / LIB
    assert os.stat(cached).st_nlink == 3
    runs = run(world, "history")["runs"]
    assert len(runs) == 2
    words = ("--run", runs[-1]["id"]) if first_only else ()
    document = run(world, "undo", "--yes", *words)
    assert document["done"]["names"] == (1 if first_only else 2), first
    assert_unchanged(before, snapshot(one, two), lambda path: os.path.samefile(path, cached))
    assert os.stat(cached).st_nlink == (2 if first_only else 1)
    assert not os.path.samefile(one / LIB, two / LIB)


def test_an_unknown_run(world: World, run: Run) -> None:
    pair(world, run)
    document = run(world, "undo", "--yes", "--run", "000000000000", code=2)
    assert document["error"] == "The journal knows of no run '000000000000'."
    assert "history" in document["hint"]


@pytest.mark.parametrize("which", [0, 1])
def test_an_environment_that_is_gone(world: World, run: Run, which: int) -> None:
    """The keeper's, or the other."""
    prefixes = pair(world, run)
    shutil.rmtree(prefixes[which])
    left = prefixes[1 - which] / LIB
    run(world, "undo", "--yes")
    assert left.read_bytes() == DATA
    assert left.stat().st_nlink == 1
    assert leftovers(world.root) == []


def test_a_file_of_somebody_else_stays(world: World, run: Run) -> None:
    one, two = pair(world, run)
    for prefix in (one, two):
        replace(prefix / LIB, b"somebody's")
    before = snapshot(world.root)
    assert run(world, "undo", "--yes")["done"]["names"] == 0
    assert snapshot(world.root) == before
    assert remembered(world) == 0


def test_an_edit_and_its_time_stay_in_each_copy(world: World, run: Run) -> None:
    one, two = pair(world, run)
    with open(one / LIB, "r+b") as stream:
        stream.write(EDIT)
    os.utime(one / LIB, (OLD + 99, OLD + 99))
    document = run(world, "undo", "--yes")
    assert "written to since" in document["warnings"][0]
    assert not os.path.samefile(one / LIB, two / LIB)
    for prefix in (one, two):
        assert (prefix / LIB).read_bytes() == EDIT + DATA[len(EDIT) :]
        assert (prefix / LIB).stat().st_mtime == OLD + 99


def test_all_links(world: World, run: Run) -> None:
    """Needs no journal; what gives privileges stays as it is."""
    one = world.forge.environment("one", {DIST: {LIB: DATA, "bin/su": DATA, TEXT: DATA}})
    two = world.forge.environment("two", {DIST: {TEXT: DATA}})
    outside = world.root / "outside"
    outside.mkdir()
    os.chmod(one / "bin/su", 0o4755)
    for path in (LIB, "bin/su"):
        os.link(one / path, outside / Path(path).name)
    os.link(two / TEXT, two / "share/again.txt")
    before = snapshot(world.root)
    (world.home / "state/conda-dedup").mkdir(parents=True)
    (world.home / "state/conda-dedup/journal.sqlite").write_bytes(b"no journal" * 1000)
    document = run(world, "undo", "--yes", "--all-links", "-p", one, "-p", two)
    assert (document["failed"], document["skipped"]) == ([], [])
    assert os.stat(one / LIB).st_nlink == 1
    assert os.stat(one / "bin/su").st_nlink == 2
    assert os.path.samefile(two / TEXT, two / "share/again.txt")
    assert_unchanged(before, snapshot(world.root))
    assert leftovers(world.root) == []


def test_consent(world: World, run: Run) -> None:
    one, two = pair(world, run)
    document = run(world, "undo", code=1)
    assert document["error"] == "Nothing was changed, for nobody can be asked."
    assert in_a_terminal(world, "undo", keys=b"n\n")[0] == 1
    assert os.path.samefile(one / LIB, two / LIB)
    code, screen = in_a_terminal(world, "undo", keys=b"y\n")
    assert code == 0, screen
    assert not os.path.samefile(one / LIB, two / LIB)


# -- no room ----------------------------------------------------------------------------------------------


@pytest.mark.filesystems
def test_no_room_for_all(tmp_path: Path, run: Run) -> None:
    with mounted_file_system("tmpfs", tmp_path / "mount", 8 * MIB) as point:
        world = World(point / "world", tmp_path / "home")
        prefixes = [world.forge.environment(name, {DIST: {LIB: noise("x", 2 * MIB)}}) for name in "ab"]
        share(world, run)
        (point / "filler").write_bytes(bytes(4 * MIB))
        before = snapshot(point)
        document = run(world, "undo", "--yes", code=1)
        assert document["error"].startswith("There is no room for all copies: ")
        assert "Nothing was changed" in document["hint"]
        assert snapshot(point) == before
        assert leftovers(point) == []
        (point / "filler").unlink()
        run(world, "undo", "--yes")
        assert not os.path.samefile(prefixes[0] / LIB, prefixes[1] / LIB)


@pytest.mark.filesystems
def test_a_disk_that_fills_meanwhile(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    check_room = undo_module.check_room
    with mounted_file_system("tmpfs", tmp_path / "mount", 12 * MIB) as point:
        world = World(point / "world", tmp_path / "home")
        files = {f"lib/{number}.so": noise(str(number), MIB) for number in range(3)}
        one, two = (world.forge.environment(name, {DIST: files}) for name in "ab")
        share(world, run)
        before = snapshot(one, two)

        def filled(undoing: undo_module.Undoing) -> None:
            check_room(undoing)
            numbers = os.statvfs(point)
            with open(point / "filler", "wb") as stream:
                stream.write(bytes(numbers.f_bavail * numbers.f_frsize - 3 * MIB // 2))

        monkeypatch.setattr(undo_module, "check_room", filled)
        document = run(world, "undo", "--yes")
        assert document["failed"] == []
        (skipped,) = document["skipped"]
        assert skipped["reason"] == "no space left on the device, or in the quota"
        assert skipped["inodes"] == 2
        assert document["done"]["inodes"] == 1
        assert_unchanged(before, snapshot(one, two))
        assert leftovers(point) == []
        monkeypatch.setattr(undo_module, "check_room", check_room)
        (point / "filler").unlink()
        assert run(world, "undo", "--yes")["done"]["inodes"] == 2
        assert all(state.nlink == 1 for state in snapshot(one, two).values())


@pytest.mark.filesystems
def test_a_full_state_directory(tmp_path: Path, run: Run) -> None:
    with mounted_file_system("tmpfs", tmp_path / "mount", MIB) as point:
        world = World(tmp_path / "world", tmp_path / "home", {"XDG_STATE_HOME": str(point)})
        one, two = pair(world, run)
        with open(point / "filler", "wb", buffering=0) as stream:
            free = os.statvfs(point)
            stream.write(bytes(free.f_bavail * free.f_frsize))
        before = snapshot(world.root)
        document = run(world, "undo", "--yes", code=1)
        assert "full" in document["error"]
        assert snapshot(world.root) == before
        assert leftovers(world.root) == []
        (point / "filler").unlink()
        run(world, "undo", "--yes")
        assert not os.path.samefile(one / LIB, two / LIB)


# -- others, and kill -9 ----------------------------------------------------------------------------------


def test_a_writer_meanwhile(world: World, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """It stays shared with the edit, and the next undo gives each copy the edit."""
    one, two = pair(world, run)
    inode = os.stat(one / LIB).st_ino
    writers = []
    with monkeypatch.context() as hooks:
        runs_before(hooks, Privatizer, "_exchange", lambda *_: writers.append(start_writer(one / LIB, inode)))
        document = run(world, "undo", "--yes")
    writers[0].join()
    assert [skip["reason"] for skip in document["skipped"]] == ["open for writing"]
    assert os.path.samefile(one / LIB, two / LIB)
    assert remembered(world) == 1
    run(world, "undo", "--yes")
    assert not os.path.samefile(one / LIB, two / LIB)
    assert (one / LIB).read_bytes().startswith(EDIT)
    assert (two / LIB).read_bytes().startswith(EDIT)


STEPS = [
    (Journal, "begin"),
    (staging_module.Staging, "new_file"),
    (private_module, "copy_bytes"),
    (Journal, "intend"),
    (staging_module.Swap, "exchange"),
    (Privatizer, "_drop_old"),
    (Journal, "resolve"),
    (history, "taken_back"),
    (Journal, "finish"),
    (history, "compact"),
]


@pytest.mark.parametrize(
    ("when", "count"),
    [
        ("after", 1),
        *[pytest.param(w, n, marks=pytest.mark.soak) for w in ("before", "after") for n in (1, 2, 3)],
    ],
)
@pytest.mark.parametrize(("owner", "name"), STEPS, ids=[name for _, name in STEPS])
def test_killed_at(
    world: World, run: Run, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, when: str, count: int
) -> None:
    files = {LIB: DATA, "lib/y.so": noise("y", 9000)}
    one, two = (world.forge.environment(name, {DIST: files}) for name in ("one", "two"))
    before, folders = snapshot(one, two), directories(one, two)
    share(world, run)

    def undo() -> None:
        dies_at(monkeypatch, owner, name, when, count)
        main(["undo", "--yes", "--quiet"])

    assert killed(undo) or count > 1, "the step was never reached"
    run(world, "undo", "--yes")
    after = snapshot(one, two)
    assert_unchanged(before, after)
    assert sharing(after) == sharing(before)
    assert directories(one, two) == folders
    assert remembered(world) == 0


@pytest.mark.filesystems
@pytest.mark.parametrize("kind", REFLINK_KINDS)
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(
    ("owner", "name"), [(unshare_module, "copy_bytes"), (unshare_module, "dedupe"), (Journal, "done")]
)
def test_reflinks_killed_at(
    mounted: Callable[..., Path], tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch,
    kind: str, owner: Any, name: str, when: str,
) -> None:  # fmt: skip
    world = World(mounted(kind) / tmp_path.name, tmp_path / "home")
    one, two = (world.forge.environment(name, {DIST: {LIB: DATA}}) for name in ("one", "two"))
    before, folders = snapshot(one, two), directories(one, two)
    share(world, run)

    def undo() -> None:
        dies_at(monkeypatch, owner, name, when, 1)
        main(["undo", "--yes", "--quiet"])

    assert killed(undo)
    run(world, "undo", "--yes")
    assert snapshot(one, two) == before
    assert directories(one, two) == folders
    assert remembered(world) == 0
    shutil.rmtree(world.root)
