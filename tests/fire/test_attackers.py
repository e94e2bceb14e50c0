"""Root shares trees whose owner is hostile: nothing outside them is read into a file, linked or changed."""

from __future__ import annotations

import json
import mmap
import os
import resource
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from conda_dedup_plugin import inventory as inventory_module
from conda_dedup_plugin.apply import apply_plan
from conda_dedup_plugin.engine import analyse, analyse_inventory
from conda_dedup_plugin.errors import StateError
from conda_dedup_plugin.inventory import scan_listed
from conda_dedup_plugin.journal import Journal
from conda_dedup_plugin.model import InodeKey, Manager, Method, Reason
from conda_dedup_plugin.plan import PlanOptions
from conda_dedup_plugin.records.conda_meta import read_record
from conda_dedup_plugin.sharing.change import Change
from conda_dedup_plugin.sharing.linux import exchange
from conda_dedup_plugin.sharing.recovery import recover
from conda_dedup_plugin.sharing.staging import Staging, Swap
from tests.lab import needs
from tests.lab.forge import Forge, digest, noise
from tests.lab.invariants import State, directories, snapshot
from tests.test_inventory import in_a_child

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MALLORY = 65534
HERE = -100  # AT_FDCWD
DIST = ("p", "1", "0")
#: The same content is in every tree, outside too, so that whoever leaves a tree finds what can be shared.
FILES = {f"lib/l{index}.so": noise(f"shared {index}", 5000) for index in range(6)}
HONEST = {"lib/h.so": noise("honest", 5000)}
EVIL = noise("evil", 5000)
REPOSITORY = Path(__file__).parents[2]


@dataclass
class Arena:
    """``mallory`` is hers, ``secret`` is like it and none of her business, ``honest`` is a pair to share."""

    folder: Path
    forge: Forge = field(init=False)
    before: dict[str, State] = field(init=False)
    folders: set[str] = field(init=False)

    def __post_init__(self) -> None:
        self.folder.chmod(0o711)
        # two of each, owned by either: whatever rule there is for owners, some could be shared
        aside = Forge(self.folder / "secret")
        for name in "ab":
            env = aside.environment(name, {DIST: FILES})
            for path in list(FILES)[:3]:
                os.chown(env / path, MALLORY, MALLORY)
        self.secret.chmod(0o755)  # the worst case: all may look
        self.forge = Forge(self.mallory)
        self.mallory.mkdir()
        self.honest_forge = Forge(self.folder / "honest")
        for name in "ab":
            self.honest_forge.environment(name, {DIST: HONEST})
        self.before, self.folders = snapshot(self.secret), directories(self.secret)

    @property
    def mallory(self) -> Path:
        return self.folder / "mallory"

    @property
    def secret(self) -> Path:
        return self.folder / "secret"

    def environment(self, name: str, files: dict[str, bytes] = FILES) -> Path:
        """An environment of Mallory's."""
        env = self.forge.environment(name, {DIST: files})
        self.give(self.mallory)
        return env

    def give(self, path: Path) -> None:
        subprocess.run(["chown", "-RPh", f"{MALLORY}:{MALLORY}", path], check=True)

    def run(self, between: Callable[[], None] = lambda: None):
        """Share all her trees and the honest pair; ``between`` happens when the plan is made."""
        forge = Forge(self.folder, [*self.forge.trees, *self.honest_forge.trees])
        analysis = analyse(forge.scope(), PlanOptions())
        between()
        return analysis, apply_plan(analysis, "test")

    def check(self) -> None:
        """Nothing was done to what is none of anybody's business, and the honest have what they want."""
        assert snapshot(self.secret) == self.before
        assert directories(self.secret) == self.folders
        one, two = (self.folder / "honest/envs" / name for name in "ab")
        for path, data in HONEST.items():
            assert os.path.samefile(one / path, two / path), "one attacker stops the others' run"
            assert (one / path).read_bytes() == data
            assert (one / path).stat().st_nlink == 2


@pytest.fixture
def arena(shm_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Arena:
    needs("root", os.geteuid() == 0)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return Arena(shm_dir)


@pytest.fixture(autouse=True)
def in_time() -> Iterator[None]:
    """Whatever waits for ever is interrupted."""

    def hangs(*_: object) -> None:
        raise AssertionError("it hangs")

    before = signal.signal(signal.SIGALRM, hangs)
    signal.alarm(100)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def become_mallory() -> None:
    os.setgroups([])
    os.setgid(MALLORY)
    os.setuid(MALLORY)


def as_mallory(action: Callable[[], object]) -> None:
    """Do it with her rights alone."""

    def hers() -> None:
        become_mallory()
        action()

    in_a_child(hers)


@contextmanager
def attack(action: Callable[[], object]) -> Iterator[Callable[[], int]]:
    """Mallory does it over and over; yields what counts how often she did."""
    count = mmap.mmap(-1, 8)
    child = os.fork()
    if child == 0:
        try:
            become_mallory()
            done = 0
            while True:
                try:
                    action()
                except OSError:
                    continue
                done += 1
                count[:] = struct.pack("=Q", done)
        finally:
            os._exit(0)

    def counted() -> int:
        return int(struct.unpack("=Q", count[:])[0])

    try:
        until = time.monotonic() + 10
        while not counted():
            assert time.monotonic() < until, "the attack never works"
            time.sleep(0.001)
        yield counted
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def contents(*roots: Path) -> dict[str, str]:
    return {path: found.content for path, found in snapshot(*roots).items()}


# -- directories that become links ------------------------------------------------------------------------

#: What is exchanged for a link (below ``mallory``), and where that leads (below ``secret``).
SWAPPED = {
    "directory": ("envs/a/lib", "envs/a/lib"),
    "prefix": ("envs/a", "envs/a"),
    "parent": ("envs", "envs"),
}


def link_beside(arena: Arena, what: str) -> tuple[str, str]:
    """A link to the same place outside, beside what it will be exchanged for."""
    here, there = SWAPPED[what]
    target = arena.mallory / here
    link = target.with_name(f"{target.name}.link")
    link.symlink_to(arena.secret / there)
    os.chown(link, MALLORY, MALLORY, follow_symlinks=False)
    return str(target), str(link)


@pytest.mark.parametrize(
    "rounds", [pytest.param(12, id="few"), pytest.param(1000, id="many", marks=pytest.mark.soak)]
)
@pytest.mark.parametrize("what", SWAPPED)
def test_directories_exchanged_for_links_all_the_time(arena: Arena, what: str, rounds: int) -> None:
    for _ in range(rounds):
        for name in "ab":
            arena.environment(name)
        target, link = link_beside(arena, what)
        held = contents(arena.mallory)
        with attack(lambda target=target, link=link: exchange(HERE, target, HERE, link)):
            arena.run()
        arena.check()
        if not os.path.islink(link):
            exchange(HERE, target, HERE, link)
        assert contents(arena.mallory) == held
        shutil.rmtree(arena.mallory)
        arena.mallory.mkdir()
        arena.forge.trees.clear()


@pytest.mark.parametrize("step", ["found", "records read", "planned"])
@pytest.mark.parametrize("what", SWAPPED)
def test_a_directory_that_becomes_a_link(
    arena: Arena, monkeypatch: pytest.MonkeyPatch, what: str, step: str
) -> None:
    """At the worst moment, and it stays one."""
    for name in "ab":
        arena.environment(name)
    target, link = link_beside(arena, what)

    def swap() -> None:
        as_mallory(lambda: exchange(HERE, target, HERE, link))

    if step == "planned":
        arena.run(swap)
    else:
        read = inventory_module.read_claims
        hers = iter([swap])

        def claims(tree, memo):
            found = read(tree, memo)
            if tree.root.startswith(str(arena.mallory)):
                next(hers, lambda: None)()
            return found

        if step == "found":
            swap()
        else:
            monkeypatch.setattr(inventory_module, "read_claims", claims)
        arena.run()
    arena.check()


# -- what is no file of hers ------------------------------------------------------------------------------


def plant(arena: Arena, path: Path, kind: str) -> None:
    """Put something else at ``path``: what she can make herself, and what root may have left her."""
    os.unlink(path)
    outside = arena.secret / "envs/a/lib" / path.name
    if kind == "link":
        path.symlink_to(outside)
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(str(path))
    elif kind == "device":
        try:
            os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))
        except PermissionError:
            needs("device nodes", False)
        return
    elif kind == "hard link":
        os.link(outside, path)
        return
    elif kind == "directory":
        path.mkdir()
    elif kind == "root's":
        path.write_bytes(FILES["lib/l5.so"])
        os.utime(path, (1_600_000_000, 1_600_000_000))
        return
    os.chown(path, MALLORY, MALLORY, follow_symlinks=False)


@pytest.mark.parametrize("when", ["before", "planned"])
@pytest.mark.parametrize("where", ["a", "b"])
@pytest.mark.parametrize("kind", ["link", "fifo", "socket", "device", "hard link", "directory", "root's"])
def test_what_is_planted(arena: Arena, kind: str, where: str, when: str) -> None:
    """One of the two is the keeper, the other the duplicate."""
    for name in "ab":
        arena.environment(name)
    #: Outside, the first is hers and the last is root's.
    name = "lib/l0.so" if kind == "link" else "lib/l5.so"
    path = arena.mallory / "envs" / where / name
    #: One more name of root's file is the attack itself, so what is compared begins after it.
    if when == "before":
        plant(arena, path, kind)
        arena.before = snapshot(arena.secret)
        now = os.lstat(path)
        arena.run()
    else:

        def between() -> None:
            plant(arena, path, kind)
            arena.before = snapshot(arena.secret)

        arena.run(between)
        now = os.lstat(path)
    after = os.lstat(path)
    assert (after.st_ino, after.st_mode, after.st_nlink) == (now.st_ino, now.st_mode, now.st_nlink)
    other = arena.mallory / "envs" / ("b" if where == "a" else "a") / name
    assert other.read_bytes() == FILES[name]
    assert other.stat().st_nlink == 1 and other.stat().st_uid == MALLORY
    arena.check()


# -- what records claim -----------------------------------------------------------------------------------


def forge_record(env: Path, claims: dict[str, bytes], name: str = "forged") -> Path:
    """A record that says of paths, of any shape, what they hold."""
    path = env / f"conda-meta/{name}-1-0.json"
    said = [
        {"_path": where, "path_type": "hardlink", "sha256": digest(data), "size_in_bytes": len(data)}
        for where, data in claims.items()
    ]
    record = {
        "name": name,
        "version": "1",
        "build": "0",
        "files": list(claims),
        "paths_data": {"paths": said},
    }
    path.write_text(json.dumps(record))
    return path


@pytest.mark.parametrize("listed", [False, True], ids=["all", "listed"])
def test_records_that_name_what_is_outside(arena: Arena, listed: bool) -> None:
    arena.environment("a")
    env = arena.environment("b", {"etc/nothing": b""})
    (env / "lib").symlink_to(arena.secret / "envs/a/lib")
    (env / "up").symlink_to("../../../secret")
    inside = {f"{way}{path}": data for path, data in FILES.items() for way in ("", "up/envs/a/")}
    outside = {
        f"{way}{path}": data
        for path, data in FILES.items()
        for way in (
            "../../../secret/envs/a/",
            f"{arena.secret}/envs/a/",
            "x/../../../../secret/envs/b/",
            "//",
        )
    }
    record = forge_record(env, inside | outside)
    arena.give(arena.mallory)
    if listed:
        scope = arena.forge.scope()
        claims = {
            index: read_record(record)[1] | read_record(Path(tree.root, "conda-meta/p-1-0.json"))[1]
            for index, tree in enumerate(scope.trees)
        }
        # as the run after a conda command, which looks at what records name and nothing else
        analysis = analyse_inventory(scan_listed(scope, claims, 1), PlanOptions())
        apply_plan(analysis, "test")
    analysis, _ = arena.run()
    assert len([warning for warning in analysis.warnings if str(record) in warning]) == 1
    arena.check()


@pytest.mark.parametrize("size", [5000, 5 << 20], ids=["small", "big"])
def test_different_files_claimed_to_be_the_same(arena: Arena, size: int) -> None:
    """A forged digest in one environment, and one with the right digest that is to get the wrong bytes."""
    right = noise("right", size)
    for name, data in (("a", right), ("b", right[:-1] + b"!"), ("c", right)):
        env = arena.environment(name, {"etc/nothing": b""})
        target = env / "lib/x.so"
        target.parent.mkdir()
        target.write_bytes(data)
        forge_record(env, {"lib/x.so": right})
        arena.give(arena.mallory)
    held = contents(arena.mallory / "envs")
    _, applied = arena.run()
    assert contents(arena.mallory / "envs") == held
    a, b, c = (arena.mallory / "envs" / name / "lib/x.so" for name in "abc")
    assert b.stat().st_nlink == 1
    assert Reason.DIFFERENT in applied.skipped
    assert applied.failed == []
    arena.check()
    assert {a.stat().st_nlink, c.stat().st_nlink} <= {1, 2}


# -- bombs ------------------------------------------------------------------------------------------------

#: Where a record is, and what it says but for one value.
RECORDS = {
    "conda-meta": '{"name": "x", "version": "1", "paths_data": {"paths": [{"_path": "", "sha256": %s}]}}',
    "channel": '{"name": "bomb", "version": "1", "channel": %s}',
    "paths.json": '{"paths": [{"_path": "x", "size_in_bytes": %s}]}',
    "index.json": '{"name": "bomb", "version": %s}',
    "repodata_record.json": '{"sha256": %s}',
}
BOMBS = {
    "sparse": "",
    "nested": "[" * 1_000_000,
    "nested and closed": "[" * 500_000 + "]" * 500_000,
    "nested objects": '{"a": ' * 500_000,
    "number": "9" * 1_000_000,
    "exponent": "1e999999",
}


def bomb(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    if not content:
        os.truncate(path, 2 << 30)


def limited(run: Callable[[], list[str]], room: int = 64 << 20) -> list[str]:
    """Run with no more than ``room`` bytes of memory besides what is there already."""

    def inside() -> list[str]:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + room, used + room))
        return run()

    return in_a_child(inside)


@pytest.mark.parametrize(
    ("where", "kind"), [(where, kind) for where in RECORDS for kind in BOMBS] + [("RECORD", "sparse")]
)
def test_a_bomb_is_one_warning(arena: Arena, where: str, kind: str) -> None:
    arena.environment("a")
    if where in ("conda-meta", "channel"):
        path = arena.environment("b") / "conda-meta/bomb-1-0.json"
    elif where == "RECORD":
        path = arena.environment("b") / "lib/python3.12/site-packages/x-1.dist-info/RECORD"
    else:
        path = arena.forge.cache({DIST: FILES}, manager=Manager.RATTLER) / "p-1-0/info" / where
    bomb(path, (RECORDS[where] % BOMBS[kind]).encode() if BOMBS[kind] else b"")
    arena.give(arena.mallory)
    (warning,) = limited(lambda: arena.run()[0].warnings)
    assert str(path) in warning and len(warning) < 1000
    arena.check()


@pytest.mark.parametrize("where", ["conda-meta", "RECORD"])
def test_a_record_of_millions_of_paths(arena: Arena, where: str) -> None:
    """It is well formed, and as data many times as big: one warning too, and the run goes on."""
    env = arena.environment("a")
    if where == "conda-meta":
        path = env / "conda-meta/bomb-1-0.json"
        said = ",".join(f'{{"_path":"{index:x}"}}' for index in range(1_000_000))
        content = f'{{"name": "bomb", "version": "1", "paths_data": {{"paths": [{said}]}}}}'
    else:
        path = env / "lib/python3.12/site-packages/x-1.dist-info/RECORD"
        content = "\n".join(f"{index:x}" for index in range(1_500_000))
    bomb(path, content.encode())
    arena.give(arena.mallory)
    warnings = limited(lambda: arena.run()[0].warnings, 192 << 20)
    assert [str(path) in warning for warning in warnings] == [True]
    arena.check()


# -- names ------------------------------------------------------------------------------------------------

ODD = b"\n\r\t\x1b]0;owned\x07\x1b[2J\xff\xfe\x80\xe2\x80\xae\xc2\x9b31m"


@pytest.mark.parametrize("words", [("report",), ("apply", "--dry-run"), ("apply", "--yes")], ids=" ".join)
def test_names_that_command_a_terminal(arena: Arena, tmp_path: Path, words: tuple[str, ...]) -> None:
    """Of environments, directories, files, records and packages, in what is said, warned of and failed."""
    odd = os.fsdecode(ODD)
    for name in "ab":
        env = arena.environment(name + odd, {f"lib{odd}/x{odd}.so": noise("odd", 50_000)})
        (env / "conda-meta" / f"bad{odd}.json").write_text("{")
        forge_record(env, {f"../{'out'}\x1b]0;owned\x07\n": b""}, f"evil{odd}")
        (env / f"lib/python3{odd}/site-packages/y{odd}-1.dist-info").mkdir(parents=True)
        (env / f"lib/python3{odd}/site-packages/y{odd}-1.dist-info/RECORD").write_bytes(b'"' + ODD)
    arena.give(arena.mallory)
    command = [sys.executable, "-m", "conda_dedup_plugin.cli", *words]
    command += ["--no-discover", "--search", str(arena.mallory)]
    environ = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(REPOSITORY),
        "PYTHONDONTWRITEBYTECODE": "1",
        "LC_ALL": "C.UTF-8",
        "HOME": str(tmp_path),
        "XDG_STATE_HOME": str(tmp_path / "state"),
    }
    for as_json in (False, True):
        arranged = [*command, "--json"] if as_json else command
        done = subprocess.run(arranged, env=environ, capture_output=True, timeout=60, check=True)
        out, err = done.stdout.decode(), done.stderr.decode()
        assert [char for char in out + err if not char.isprintable() and char != "\n"] == []
        if as_json:
            document = json.loads(out)
            assert err == ""
            assert any(odd in warning or repr(odd)[1:-1] in warning for warning in document["warnings"])
        else:
            assert "\\x1b]0;owned" in out + err
            assert all(line.startswith("warning: ") for line in err.splitlines())


# -- owners, modes, attributes ----------------------------------------------------------------------------


def set_acl(path: Path) -> None:
    """rw- for the owner, r-- for user 4242, which ``chmod`` does not show but by its mask."""
    entries = [(1, 6, 2**32 - 1), (2, 4, 4242), (4, 4, 2**32 - 1), (16, 4, 2**32 - 1), (32, 4, 2**32 - 1)]
    packed = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    os.setxattr(path, "system.posix_acl_access", packed)


DIFFERENCES = {
    "owner": lambda path: os.chown(path, 4242, -1),
    "group": lambda path: os.chown(path, -1, 4242),
    "mode": lambda path: path.chmod(0o600),
    "execute": lambda path: path.chmod(0o755),
    "sticky": lambda path: path.chmod(0o1644),
    "setuid": lambda path: path.chmod(0o4644),
    "attribute": lambda path: os.setxattr(path, "user.x", b"x"),
    "acl": set_acl,
}


@pytest.mark.parametrize("when", ["before", "planned"])
@pytest.mark.parametrize("where", ["a", "b"])
@pytest.mark.parametrize("kind", DIFFERENCES)
def test_links_never_cross(arena: Arena, kind: str, where: str, when: str) -> None:
    for name in "ab":
        arena.environment(name)
    path = arena.mallory / "envs" / where / "lib/l0.so"

    def differ() -> None:
        try:
            DIFFERENCES[kind](path)
        except OSError as exc:
            needs(f"attributes: {exc}", False)

    if when == "before":
        differ()
    before = snapshot(arena.mallory)
    _, applied = arena.run(differ if when == "planned" else lambda: None)
    for name in "ab":
        assert (arena.mallory / "envs" / name / "lib/l0.so").stat().st_nlink == 1
        assert (arena.mallory / "envs" / name / "lib/l1.so").stat().st_nlink == 2
    assert applied.failed == []
    after = snapshot(arena.mallory)
    if when == "before":
        for odd in ("content", "mode", "uid", "gid", "xattrs"):
            assert [getattr(after[name], odd) for name in before] == [
                getattr(old, odd) for old in before.values()
            ]
    arena.check()


def test_a_file_that_all_may_write_to_gets_no_name_elsewhere(arena: Arena) -> None:
    """A directory that shuts others out protects what is in it, until it has a name outside."""
    private = Forge(arena.folder / "private")
    for forge in (private, arena.forge):
        env = forge.environment("w", {DIST: FILES})
        for path in FILES:
            (env / path).chmod(0o666)
    (arena.folder / "private").chmod(0o700)
    arena.mallory.chmod(0o755)
    scope = Forge(arena.folder, [*arena.forge.trees, *private.trees]).scope()
    apply_plan(analyse(scope, PlanOptions()), "test")

    def write() -> None:
        for path in FILES:
            (arena.mallory / "envs/w" / path).write_bytes(EVIL)

    as_mallory(write)
    for path, data in FILES.items():
        assert (arena.folder / "private/envs/w" / path).read_bytes() == data


# -- staging ----------------------------------------------------------------------------------------------


def decoy(arena: Arena, where: Path, run: str, kind: str) -> None:
    """Something of hers that is called as root's staging directory."""
    if kind == "link":
        where.symlink_to(arena.secret / "envs/a/lib")
    elif kind != "nothing":
        where.mkdir(0o700 if kind == "private directory" else 0o777)
        for number in range(1, 9) if kind != "empty directory" else ():
            (where / f"{run}-{number}").write_bytes(EVIL)


DECOYS = ["link", "directory", "private directory", "nothing"]


@pytest.mark.parametrize("kind", DECOYS)
@pytest.mark.parametrize("step", ["made", "exchanged"])
def test_a_staging_directory_that_is_taken_away(
    arena: Arena, monkeypatch: pytest.MonkeyPatch, step: str, kind: str
) -> None:
    for name in "ab":
        arena.environment(name)
    held = contents(arena.mallory / "envs")
    taken = []

    def take(staging: Staging) -> None:
        root = Path(staging.root)
        if root.is_relative_to(arena.mallory) and root not in taken:
            taken.append(root)
            name = root / staging.path

            def hers() -> None:
                name.rename(root / "taken")
                decoy(arena, name, staging.path.rpartition("-")[2], kind)

            as_mallory(hers)

    make, swap = Staging.make.__func__, Swap.exchange

    def make_and_take(cls, *arguments):
        made = make(cls, *arguments)
        take(made)
        return made

    def exchange_and_take(self, old):
        swap(self, old)
        take(self.staging)

    if step == "made":
        monkeypatch.setattr(Staging, "make", classmethod(make_and_take))
    else:
        monkeypatch.setattr(Swap, "exchange", exchange_and_take)
    arena.run()
    assert taken
    now = contents(arena.mallory / "envs")
    assert {path: now.get(path) for path in held} == held
    assert all(not list((root / "taken").iterdir()) for root in taken)
    arena.check()


@pytest.mark.parametrize("kind", [*DECOYS[:3], "empty directory"])
def test_a_staging_directory_that_is_there_already(
    arena: Arena, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """As if she could guess what it will be called."""
    for name in "ab":
        arena.environment(name)
    held = contents(arena.mallory / "envs")
    begin = Journal.begin

    def begin_and_plant(self, command):
        run = begin(self, command)

        def hers() -> None:
            for name in "ab":
                decoy(arena, arena.mallory / "envs" / name / f".conda-dedup-{run}", run, kind)

        as_mallory(hers)
        return run

    monkeypatch.setattr(Journal, "begin", begin_and_plant)
    arena.run()
    now = contents(arena.mallory / "envs")
    assert {path: now.get(path) for path in held} == held
    assert all((arena.mallory / "envs" / name / "lib/l0.so").stat().st_nlink == 1 for name in "ab")
    arena.check()


def kill_a_run(arena: Arena, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """A run that dies when a first name has been exchanged; returns the staging directories."""
    child = os.fork()
    if child == 0:
        try:
            swap = Swap.exchange

            def exchange_and_die(self, old):
                swap(self, old)
                os.kill(os.getpid(), signal.SIGKILL)

            monkeypatch.setattr(Swap, "exchange", exchange_and_die)
            apply_plan(analyse(arena.forge.scope(), PlanOptions()), "test")
        finally:
            os._exit(0)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
    found = [path for path in (arena.mallory / "envs").glob("*/.conda-dedup-*") if any(path.iterdir())]
    assert len(found) == 1
    return found


@pytest.mark.parametrize("whose", ["mallory's", "root's"])
@pytest.mark.parametrize("kind", DECOYS)
def test_a_decoy_for_recovery(arena: Arena, monkeypatch: pytest.MonkeyPatch, kind: str, whose: str) -> None:
    """A killed run left its staging directory in a prefix of hers; what is below it may be root's.

    Then she can put her own in its place, but not a file into ``lib``.
    """
    libraries = [arena.environment(name) / "lib" for name in "ab"]
    if whose == "root's":
        subprocess.run(["chown", "-R", "0:0", *libraries], check=True)
    held = contents(*libraries)
    (left,) = kill_a_run(arena, monkeypatch)
    (staged,) = left.iterdir()

    def hers() -> None:
        left.rename(left.with_name("taken"))
        decoy(arena, left, left.name.rpartition("-")[2], kind)

    as_mallory(hers)
    book = Journal.open()
    recover(book)
    book.close()
    after = snapshot(*libraries)
    assert {path: found.content for path, found in after.items()} == held
    assert {found.uid for found in after.values()} == {0 if whose == "root's" else MALLORY}
    arena.run()
    arena.check()
    assert (left.with_name("taken") / staged.name).read_bytes() in FILES.values()


# -- a state directory that is hers -----------------------------------------------------------------------


@pytest.fixture
def her_state(arena: Arena, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Root's environment says her home is his (``sudo -E``, ``su`` without a dash)."""
    home = arena.mallory / "state"
    (home / "conda-dedup").mkdir(parents=True)
    arena.give(arena.mallory)
    monkeypatch.setenv("XDG_STATE_HOME", str(home))
    return home / "conda-dedup"


def run_or_refuse(arena: Arena) -> None:
    with suppress(StateError):
        arena.run()


@pytest.mark.parametrize("attempt", ["put evil in", "take out", "delete"])
def test_a_lookalike_journal(arena: Arena, her_state: Path, attempt: str) -> None:
    """It says that a run died which never was, in directories that are none of hers."""
    for name in "ab":
        arena.environment(name)
    victim = arena.secret / "envs/a/lib/l5.so"
    bait = arena.mallory / "evil.so"
    bait.write_bytes(EVIL)
    os.chown(bait, MALLORY, MALLORY)
    one, other = os.lstat(victim), os.lstat(bait)
    path, staged = "secret/envs/a/lib/l5.so", "mallory/evil.so"
    if attempt == "take out":
        path, staged, one, other = staged, path, other, one
    if attempt == "delete":
        staged, other = path, one
    change = Change(
        method=Method.HARDLINK,
        root=str(arena.folder),
        path=path,
        staged=staged,
        old=InodeKey(other.st_dev, 1),
        size=one.st_size,
        mtime_ns=one.st_mtime_ns,
        mode=one.st_mode,
        uid=0,
        gid=0,
        keeper=InodeKey(one.st_dev, one.st_ino),
        keeper_mtime_ns=one.st_mtime_ns,
    )

    def hers() -> None:
        book = Journal.open(her_state / "journal.sqlite")
        book.begin("forged")
        book.intend([change])
        book.close()

    as_mallory(hers)
    run_or_refuse(arena)
    assert snapshot(arena.secret) == arena.before
    assert bait.read_bytes() == EVIL


@pytest.mark.parametrize("what", ["lock", "envs", "journal.sqlite", "conda-dedup"])
def test_links_in_her_state_directory(arena: Arena, her_state: Path, what: str) -> None:
    """What root would make, truncate or write to there leads outside."""
    arena.environment("a")
    arena.environment("b")
    outside = arena.secret / "envs/a/lib/l5.so"
    places = {"lock": outside, "journal.sqlite": arena.secret / "new", "envs": arena.secret / "envs/a/lib"}
    if what == "lock":
        for name in "ab":
            root = os.path.realpath(arena.mallory / "envs" / name)
            directory = her_state / "envs" / digest(os.fsencode(root))[:16]
            directory.mkdir(parents=True)
            (directory / "lock").symlink_to(outside)
    elif what == "conda-dedup":
        her_state.rmdir()
        her_state.symlink_to(arena.secret / "envs/a/lib")
    else:
        (her_state / what).symlink_to(places[what])
    arena.give(her_state)
    run_or_refuse(arena)
    assert snapshot(arena.secret) == arena.before
    assert directories(arena.secret) == arena.folders
