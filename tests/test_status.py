"""``status``: what it says of devices, settings, runs and copies, and that it changes nothing."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import pytest

from conda_dedup_plugin.model import Manager
from conda_dedup_plugin.sharing.linux import can_exchange, exchange
from conda_dedup_plugin.state import process_identity
from tests.fire.test_errors import mount
from tests.lab import needs
from tests.lab.forge import digest, noise
from tests.test_report import DIST, EVIL, LIBRARY, World, twins

KINDS = ["ext4", "btrfs", "xfs", "xfs-noreflink", "tmpfs"]
SETTINGS = [
    {},
    {"dedup_method": "reflink"},
    {"dedup_method": "hardlink"},
    {"dedup_goal": "inodes"},
    {"always_copy": True},
]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "world", tmp_path / "home")


@pytest.fixture(params=[pytest.param(kind, marks=pytest.mark.filesystems) for kind in KINDS])
def folder(request: pytest.FixtureRequest, mounted: Callable[..., Path]) -> Iterator[Path]:
    made = mounted(request.param) / "of-status"
    made.mkdir()
    yield made
    shutil.rmtree(made)


def configure(world: World, **settings: object) -> Path:
    """Write a condarc with settings, those of the plugin below ``plugins``."""
    plugins = {name: value for name, value in settings.items() if name.startswith("dedup_")}
    others = {name: value for name, value in settings.items() if name not in plugins}
    path = world.home / ".condarc"
    path.write_text(json.dumps({"plugins": plugins, **others}))
    return path


def everything_in(*folders: Path) -> dict[str, tuple[object, ...]]:
    """Every name below some folders, with all that may not change (as root SQLite sets owners anew)."""
    found: dict[str, tuple[object, ...]] = {}
    for folder in folders:
        for path in (folder, *folder.rglob("*")):
            stat = path.lstat()
            content = digest(path.read_bytes()) if path.is_file() and not path.is_symlink() else ""
            found[str(path)] = (stat.st_ino, stat.st_mode, stat.st_mtime_ns, content)
    return found


def kill_an_apply(world: World) -> None:
    """Have an apply killed in the middle, with changes left open."""
    program = (
        "import os, signal, sys\n"
        "from conda_dedup_plugin.sharing import staging\n"
        "staging.Swap.exchange = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "from conda_dedup_plugin.cli import main\n"
        "main(sys.argv[1:])\n"
    )
    words = [world.command()[0], "-c", program, "apply", "--yes", *world.search]
    done = subprocess.run(words, env=world.environ, cwd=world.home, capture_output=True, timeout=60)
    assert done.returncode == -signal.SIGKILL, done.stderr


# -- devices ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: "-".join(map(str, settings)) or "none")
def test_what_it_says_is_what_apply_does(folder: Path, tmp_path: Path, settings: dict[str, object]) -> None:
    world = World(folder, tmp_path / "home")
    twins(world)
    configure(world, **settings)
    (device,) = world.json("status", *world.search)["devices"]
    done = world.json("apply", "--yes", *world.search)
    methods = set(done["done"]["by_method"])
    assert methods <= set(device["methods"])
    if device["method"] is None:
        assert methods == set()
        reasons = {held["reason"] for held in world.json("report", "--deep", *world.search)["held"]}
        assert device["held"] in reasons
    else:
        assert device["method"] in methods
        assert device["held"] is None
    assert device["environments"] == 2
    assert device["mount_point"] == str(folder.parent)
    assert device["file_system"] == folder.parent.name.partition("-")[0]
    assert device["reflink"] is (folder.parent.name in ("btrfs", "xfs"))


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({}, "the device cannot reflink"),
        ({"dedup_method": "reflink"}, "dedup_method is reflink (set in "),
        ({"dedup_method": "hardlink"}, "dedup_method is hardlink (set in "),
        ({"dedup_goal": "inodes"}, "dedup_goal is inodes (set in "),
        ({"always_copy": True}, "independent copies are asked for (always_copy)"),
    ],
)
def test_the_reason(world: World, shm_dir: Path, settings: dict[str, object], why: str) -> None:
    world.forge.environment("one", {DIST: {"lib/x": LIBRARY}}, root=shm_dir)
    path = configure(world, **settings)
    done = world.run("status", "--no-discover", "--search", shm_dir)
    assert why in done.stdout
    assert (str(path) in done.stdout) is why.endswith("(set in ")


@pytest.mark.filesystems
@pytest.mark.parametrize("kind", KINDS)
def test_atomic_exchange_is_what_the_file_system_does(kind: str, mounted: Callable[..., Path]) -> None:
    place = mounted(kind) / "exchange"
    place.mkdir()
    descriptor = os.open(place, os.O_RDONLY)
    try:
        before = place.stat()
        said = can_exchange(descriptor)
        after = place.stat()
        assert (list(place.iterdir()), before.st_mtime_ns) == ([], after.st_mtime_ns)
        (place / "a").write_text("a")
        (place / "b").write_text("b")
        try:
            exchange(descriptor, "a", descriptor, "b")
            does = (place / "a").read_text() == "b"
        except OSError as exc:
            assert exc.errno == errno.EINVAL
            does = False
        assert said is does
    finally:
        os.close(descriptor)
        shutil.rmtree(place)


@pytest.mark.filesystems
def test_an_overlay(tmp_path: Path, shm_dir: Path) -> None:
    for name in ("upper", "work", "merged"):
        (shm_dir / name).mkdir()
    lower = World(tmp_path / "lower", tmp_path / "home")
    twins(lower)
    merged = shm_dir / "merged"
    options = f"lowerdir={lower.root},upperdir={shm_dir}/upper,workdir={shm_dir}/work"
    needs("mounting needs root", os.geteuid() == 0)
    with mount(merged, "-t", "overlay", "-o", options, "overlay"):
        world = World(merged, tmp_path / "home")
        (device,) = world.json("status", *world.search)["devices"]
        assert (device["method"], device["methods"], device["overlay"]) == (None, [], True)
        assert device["atomic_exchange"] is True
        held = {one["reason"] for one in world.json("report", *world.search)["held"]}
        assert device["held"] in held
        assert world.json("apply", "--yes", *world.search)["done"]["inodes"] == 0
        assert "apply --same-layer" in world.run("status", *world.search).stdout


@contextlib.contextmanager
def two_subvolumes(mounted: Callable[..., Path]) -> Iterator[tuple[Path, Path]]:
    point = mounted("btrfs")
    needs("needs btrfs", shutil.which("btrfs"))
    found = (point / "sub-one", point / "sub-two")
    for path in found:
        subprocess.run(["btrfs", "subvolume", "create", path], check=True, capture_output=True)
    try:
        yield found
    finally:
        for path in found:
            subprocess.run(["btrfs", "subvolume", "delete", path], check=True, capture_output=True)


@pytest.mark.filesystems
def test_subvolumes_of_one_btrfs(world: World, shm_dir: Path, mounted: Callable[..., Path]) -> None:
    with two_subvolumes(mounted) as (one, two):
        files = {DIST: {"lib/x.so": LIBRARY}}
        world.forge.cache(files, root=one)
        prefix = world.forge.environment("here", files, root=two)
        world.forge.environment("there", files, root=shm_dir)
        search = ["--no-discover", "--search", one, "--search", two, "--search", shm_dir]
        document = world.json("status", *search)
        pools = [device["pool"] for device in document["devices"]]
        assert {str(one), str(two), "/dev/shm"} == {device["directory"] for device in document["devices"]}
        assert len(set(pools)) == 2
        assert pools[1] in (pools[0], pools[2])  # side by side
        copied = {found["name"]: found for found in document["copied"]}
        assert set(copied) == {"here", "there"}
        assert (copied["here"]["same_file_system"], copied["here"]["shared_by_reflink"]) == (True, True)
        assert (copied["there"]["same_file_system"], copied["there"]["shared_by_reflink"]) == (False, False)
        text = world.run("status", *search).stdout
        assert "the same file system as above" in text
        assert "apply can share by reflink what was copied" in text
        assert world.json("apply", "--yes", *search)["done"]["by_method"]["reflink"]["inodes"] == 1
        # what it says to set is no other device then
        os.mkdir(copied["here"]["value"])
        assert os.stat(copied["here"]["value"]).st_dev == os.stat(prefix).st_dev
        configure(world, dedup_method="hardlink")
        found = world.json("status", *search)["copied"]
        assert [one["shared_by_reflink"] for one in found] == [False, False]


# -- copies -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("manager", ["conda", "pixi", "rattler", "magic"])
def test_an_environment_away_from_its_caches(world: World, shm_dir: Path, manager: str) -> None:
    files = {DIST: {"lib/x.so": LIBRARY}}
    own = Manager.CONDA if manager == "conda" else Manager.RATTLER
    cache = world.forge.cache(files, manager=own, name="cache/pkgs")
    if own is Manager.RATTLER:
        (cache / "a-1-0.lock").touch()
    root = shm_dir / "project" / f".{manager}" if manager in ("pixi", "magic") else shm_dir
    prefix = world.forge.environment("away", files, root=root)
    if manager == "rattler":
        (prefix / "conda-meta/history").unlink()
    search = ("--no-discover", "--search", world.root, "--search", shm_dir)
    (copied,) = world.json("status", *search)["copied"]
    assert (copied["prefix"], copied["manager"], copied["caches"]) == (str(prefix), manager, [str(cache)])
    names = {"conda": "pkgs_dirs", "pixi": "PIXI_CACHE_DIR"}
    assert copied["setting"] == names.get(manager, "RATTLER_CACHE_DIR")
    done = world.run("status", *search)
    assert copied["setting"] in done.stdout
    assert copied["value"] in done.stdout
    # a cache where it says, and found by what it says to set, ends it
    value = Path(copied["value"])
    assert value.parent.stat().st_dev == shm_dir.stat().st_dev
    if manager == "conda":
        configure(world, pkgs_dirs=[str(value)])
    else:
        world.extra[copied["setting"]] = str(value)
    packages = value if manager == "conda" else value / "pkgs"
    world.forge.cache(files, manager=own, name=packages.name, root=packages.parent)
    assert world.json("status", "-p", prefix, "--pkgs-dir", cache)["copied"] == []


def test_where_nothing_is_copied(world: World, shm_dir: Path) -> None:
    """A cache of another manager says nothing, nor does none, nor one beside the environment."""
    files = {DIST: {"lib/x.so": LIBRARY}}
    world.forge.environment("here", files)
    search = ("--no-discover", "--search", world.root, "--search", shm_dir)
    assert world.json("status", *search)["copied"] == []
    cache = world.forge.cache(files, manager=Manager.RATTLER, name="cache/pkgs", root=shm_dir)
    (cache / "a-1-0.lock").touch()
    assert world.json("status", *search)["copied"] == []
    world.forge.cache(files)
    world.forge.cache(files, root=shm_dir)
    assert world.json("status", *search)["copied"] == []


# -- what was done, and what is to be done ----------------------------------------------------------------


def test_the_last_run_and_the_automatic_run(world: World) -> None:
    twins(world)
    assert world.json("status", *world.search)["last_run"] is None
    freed = world.json("apply", "--yes", *world.search)["done"]["bytes_freed"]
    document = world.json("status", *world.search)
    assert document["last_run"] == world.json("history")["runs"][0]
    assert document["last_run"]["bytes_freed"] == freed > 0
    assert datetime.fromisoformat(document["last_run"]["started"]).tzinfo is not None
    assert (document["automatic"]["on"], document["automatic"]["budget_seconds"]) == (True, 5)
    path = configure(world, dedup_auto=False, dedup_auto_budget=7)
    automatic = world.json("status", *world.search)["automatic"]
    assert (automatic["on"], automatic["on_set_in"]) == (False, str(path))
    assert (automatic["budget_seconds"], automatic["budget_set_in"]) == (7, str(path))
    assert f"off: dedup_auto is false (set in {path})" in world.run("status", *world.search).stdout


def test_pending_work_and_checks(world: World) -> None:
    one, two = twins(world)
    state = world.home / "state/conda-dedup"
    gone = world.root / "gone"
    for number, (prefix, process) in enumerate(
        [(one, "none/1/1"), (two, process_identity(os.getpid())), (gone, "none/1/1")]
    ):
        folder = state / f"envs/{number}"
        folder.mkdir(parents=True)
        work = {"process": process, "noted": 1_700_000_000.0, "linked": ["a-1-0"]}
        result = {"files": 3, "bytes_freed": 4096}
        check = {"prefix": str(prefix), "checked": 1_700_000_000.0, "result": result, "pending": work}
        (folder / "check.json").write_text(json.dumps(check))
    os.chmod(state, 0o700)
    document = world.json("status", *world.search)
    free, busy = sorted(document["pending"], key=lambda work: work["name"])
    assert (free["prefix"], free["running"], free["packages"]) == (str(one), False, ["a-1-0"])
    assert free["command"] == "conda-dedup apply -n one"
    assert (busy["prefix"], busy["running"]) == (str(two), True)
    assert {check["files"] for check in document["automatic"]["checks"]} == {3}
    assert (state / "envs/2/check.json").exists()  # others remove it
    assert [work["name"] for work in world.json("status", "--no-discover", "-p", two)["pending"]] == ["two"]


def test_an_interrupted_run(world: World) -> None:
    twins(world)
    kill_an_apply(world)
    before = everything_in(world.home, world.root)
    document = world.json("status", *world.search)
    (found,) = document["interrupted"]
    assert found["changes"] > 0
    assert found["finished"] is None
    assert all(Path(path).is_dir() for path in found["stagings"])
    assert found["stagings"]
    text = world.run("status", *world.search).stdout
    assert "Interrupted" in text
    assert found["id"] in text
    assert everything_in(world.home, world.root) == before
    name, *words = found["takes_up"].split()
    assert name == "conda-dedup"
    world.run(*words, "--yes", *world.search)
    assert world.json("status", *world.search)["interrupted"] == []


# -- nothing is changed -----------------------------------------------------------------------------------


def test_nothing_is_made_or_changed(world: World) -> None:
    twins(world)
    world.forge.cache({DIST: {"lib/libx.so": LIBRARY}})
    before = everything_in(world.home, world.root)
    world.run("status")
    world.json("status", *world.search)
    assert everything_in(world.home, world.root) == before
    world.run("apply", "--yes", *world.search)
    before = everything_in(world.home, world.root)
    world.run("status")
    world.json("status", *world.search)
    assert everything_in(world.home, world.root) == before


def test_a_journal_that_is_being_written_to(world: World) -> None:
    twins(world)
    world.run("apply", "--yes", *world.search)
    with contextlib.closing(sqlite3.connect(world.home / "state/conda-dedup/journal.sqlite")) as other:
        other.execute("INSERT INTO run (id, started, command, process, uid, version) VALUES"
                      f" ('new', {time.time() + 5}, 'x', '', 0, '')")  # fmt: skip
        other.commit()
        other.execute("BEGIN IMMEDIATE")
        other.execute("DELETE FROM run")
        assert world.json("status", *world.search)["last_run"]["id"] == "new"


@pytest.mark.parametrize("damage", ["rubbish", "of a later version", "an empty file", "a directory"])
def test_a_journal_that_cannot_be_read(world: World, damage: str) -> None:
    twins(world)
    world.run("apply", "--yes", *world.search)
    journal = world.home / "state/conda-dedup/journal.sqlite"
    if damage == "rubbish":
        journal.write_bytes(noise("rubbish", 10_000))
    elif damage == "of a later version":
        with contextlib.closing(sqlite3.connect(journal)) as connection:
            connection.execute("PRAGMA user_version=99")
    else:
        journal.unlink()
        journal.touch() if damage == "an empty file" else journal.mkdir()
    before = everything_in(world.home)
    done = world.run("status", *world.search)
    assert done.stderr.count("warning: ") == (damage != "an empty file")
    document = world.json("status", *world.search)
    assert len(document["warnings"]) == (damage != "an empty file")
    assert document["last_run"] is None
    assert len(document["devices"]) == 1
    assert everything_in(world.home) == before


# -- how it is said ---------------------------------------------------------------------------------------


def test_names_that_move_the_cursor(world: World, shm_dir: Path) -> None:
    world.forge.cache({DIST: {"lib/x.so": LIBRARY}})
    world.forge.environment(EVIL, {DIST: {"lib/x.so": LIBRARY}}, root=shm_dir / EVIL)
    done = world.run("status", "--no-discover", "--search", world.root, "--search", shm_dir)
    assert "copies every file into it" in done.stdout
    assert all(c.isprintable() or c == "\n" for c in done.stdout + done.stderr)


def test_lines_fit(world: World) -> None:
    twins(world)
    world.run("apply", "--yes", *world.search)
    for line in world.run("status", *world.search).stdout.splitlines():
        assert len(line) <= 80, line


def test_errors_are_those_of_the_other_verbs(world: World) -> None:
    assert world.json("status", "-n", "nope", code=2)["error"]
    assert world.json("status", "--no-discover", code=2)["hint"]
    assert "usage" in world.run("status", "--help").stdout
    assert world.json("status")["devices"] == []
    assert world.run("status").stdout.startswith("No environment or package cache was found.")


@pytest.mark.integration
def test_in_conda_what_nobody_set_is_said_to_be_set_nowhere(conda_lab) -> None:
    lab = conda_lab(with_plugin=True)

    def automatic() -> dict[str, object]:
        found: dict[str, object] = json.loads(lab.conda("dedup", "status", "--json").stdout)["automatic"]
        return found

    found = automatic()
    assert (found["on"], found["on_set_in"], found["budget_set_in"]) == (True, None, None)
    lab.configure(plugins={"dedup_auto": False})
    found = automatic()
    assert (found["on"], found["on_set_in"], found["budget_set_in"]) == (False, str(lab.condarc), None)
