"""Every error a file system can answer with, met for real: what is skipped, why, and that nothing is lost."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from conda_dedup_plugin.apply import Applied, apply_plan
from conda_dedup_plugin.engine import Analysis, analyse
from conda_dedup_plugin.errors import StateError
from conda_dedup_plugin.journal import Journal
from conda_dedup_plugin.model import MethodChoice, Reason
from conda_dedup_plugin.plan import PlanOptions, Share
from conda_dedup_plugin.sharing import batches as batches_module
from conda_dedup_plugin.sharing.hardlink import Hardlinker
from conda_dedup_plugin.sharing.opening import open_inode
from conda_dedup_plugin.sharing.probe import probe
from tests.lab import needs
from tests.lab.forge import Forge, noise
from tests.lab.invariants import State, assert_unchanged, directories, snapshot
from tests.lab.mounts import mounted_file_system
from tests.lab.shares import hardlink, leftovers, one_tree, share_of
from tests.test_inventory import as_nobody, in_a_child
from tests.test_report import World

DIST = ("a", "1", "0")
MIB = 1 << 20


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state"


@pytest.fixture
def one_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine so fast that no batch ends by the clock."""
    monkeypatch.setattr(batches_module, "LONGEST_SECONDS", 600)


def lib(number: int) -> str:
    return f"lib/{number}/lib{number}.so"


def libraries(count: int, size: int = 4096, what: str = "library") -> dict[str, bytes]:
    """Each in a directory of its own, so that one directory can be made unlike the others."""
    return {lib(number): noise(f"{what} {number}", size) for number in range(count)}


def twins(root: Path, count: int, size: int = 4096, what: str = "library") -> Forge:
    """Environments one and two with the same libraries."""
    forge = Forge(root)
    for name in ("one", "two"):
        forge.environment(name, {DIST: libraries(count, size, what)})
    return forge


def plan(*forges: Forge) -> Analysis:
    scope = forges[0].scope()
    scope = replace(scope, trees=tuple(tree for forge in forges for tree in forge.scope().trees))
    return analyse(scope, PlanOptions(method=MethodChoice.HARDLINK, euid=os.geteuid()))


def share_for(analysis: Analysis, path: str) -> Share:
    """The share that is about ``path`` of an environment."""
    (found,) = [share for share in analysis.plan.shares if share.duplicate.names[0].path == path]
    return found


def paths(analysis: Analysis, share: Share) -> tuple[Path, Path]:
    """Target and keeper of a share."""
    (target,), (keeper,) = map(analysis.scope.paths_of, (share.duplicate, share.keeper))
    return Path(target), Path(keeper)


def one_root(analysis: Analysis) -> tuple[Path, int]:
    """An environment with targets, and how many of them it has."""
    roots = [analysis.scope.trees[share.duplicate.names[0].tree].root for share in analysis.plan.shares]
    return Path(roots[0]), roots.count(roots[0])


def pairs_shared(forge: Forge, count: int) -> list[bool]:
    """Whether each library of the two environments is one inode now."""
    one, two = (Path(tree.root) for tree in forge.trees[:2])
    return [os.path.samefile(one / lib(number), two / lib(number)) for number in range(count)]


def skipped(applied: Applied) -> dict[Reason, int]:
    return {reason: inodes for reason, (inodes, _) in applied.skipped.items()}


def assert_intact(before: dict[str, State], *roots: Path) -> None:
    """Contents and metadata as before (all stamps of forged files are the same), and nothing of ours left."""
    assert_unchanged(before, snapshot(*roots))
    for root in roots:
        assert leftovers(root) == []


def untouched(before: dict[str, State], path: Path) -> bool:
    """Whether one file is as it was, its inode and number of names included."""
    return snapshot(path)[str(path)] == before[str(path)]


@contextlib.contextmanager
def mount(point: Path, *options: str) -> Iterator[Path]:
    """Mount within the block."""
    needs("mounting needs root", os.geteuid() == 0)
    point.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(["mount", *options, str(point)], capture_output=True, text=True)
    needs(f"cannot mount: {done.stderr.strip()}", done.returncode == 0)
    try:
        yield point
    finally:
        if subprocess.run(["umount", str(point)], capture_output=True).returncode:
            subprocess.run(["umount", "--lazy", str(point)], check=True)


def fill_with_files(folder: Path, size: int) -> list[Path]:
    """Fill a file system with files of ``size`` bytes, to the last; returns them."""
    folder.mkdir(exist_ok=True)
    made: list[Path] = []
    while True:
        path = folder / str(len(made))
        try:
            path.write_bytes(b"x" * size)
        except OSError as exc:
            assert exc.errno in (errno.ENOSPC, errno.EDQUOT)
            path.unlink(missing_ok=True)
            return made
        made.append(path)


def fill(path: Path, leave: int = 0) -> None:
    """Fill a file system but for ``leave`` bytes."""
    with path.open("wb", buffering=0) as stream, contextlib.suppress(OSError):
        while True:
            stream.write(b"x" * 4096)
    if leave:
        os.truncate(path, path.stat().st_size - leave)


# -- no space ---------------------------------------------------------------------------------------------


@pytest.mark.filesystems
@pytest.mark.parametrize("room", [0, 1, 4])
def test_no_inode_for_a_name(tmp_path: Path, one_batch: None, room: int) -> None:
    """On tmpfs every name counts as an inode: with one there is room for the staging directory alone."""
    with mount(tmp_path / "m", "-t", "tmpfs", "-o", "size=64m,nr_inodes=1000,mode=0755", "tmpfs") as point:
        forge = twins(point, 20)
        before, folders = snapshot(point), directories(point)
        ballast = fill_with_files(point / "ballast", 0)
        for path in ballast[:room]:
            path.unlink()
        applied = apply_plan(plan(forge), "test")
        done = max(room - 1, 0)
        assert applied.failed == []
        assert applied.inodes == done
        assert skipped(applied) == {Reason.NO_SPACE: 20 - done}
        assert sum(pairs_shared(forge, 20)) == done
        shutil.rmtree(point / "ballast")
        assert_intact(before, point)
        assert directories(point) == folders
        # with room, the rest is shared
        assert apply_plan(plan(forge), "test").inodes == 20 - done
        assert all(pairs_shared(forge, 20))
        assert_intact(before, point)


@pytest.mark.filesystems
@pytest.mark.parametrize("room", ["none", "for a directory"])
def test_no_block_for_a_directory(tmp_path: Path, one_batch: None, room: str) -> None:
    """A full ext4 of blocks of 1 KiB: some 40 names in a staging directory, and no room for more."""
    image = tmp_path / "image"
    needs("needs mkfs.ext4", shutil.which("mkfs.ext4"))
    with image.open("wb") as stream:
        stream.truncate(24 * MIB)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-b", "1024", "-N", "4000", str(image)], check=True)
    with mount(tmp_path / "m", "-o", "loop", str(image)) as point:
        forge = twins(point, 120)
        before = snapshot(point / "envs")
        (point / "ballast").mkdir()
        fill(point / "big")
        ballast = fill_with_files(point / "ballast", 1024)
        probe_path = point / "envs/one/probe"
        while room != "none" and ballast:
            ballast.pop().unlink()
            os.sync()
            with contextlib.suppress(OSError):
                probe_path.mkdir()
                probe_path.rmdir()
                break
        applied = apply_plan(plan(forge), "test")
        assert applied.failed == []
        assert skipped(applied) == {Reason.NO_SPACE: 120 - applied.inodes}
        assert sum(pairs_shared(forge, 120)) == applied.inodes
        if room == "none":
            assert applied.inodes == 0
        else:
            assert 0 < applied.inodes < 120
        assert_intact(before, point / "envs")
        (point / "big").unlink()
        assert apply_plan(plan(forge), "test").inodes == 120 - applied.inodes
        assert_intact(before, point / "envs")


@pytest.mark.filesystems
def test_a_quota(tmp_path: Path) -> None:
    """EDQUOT of btrfs, which it has for root as well; files outside the quota are shared in the same run."""
    needs("mounting needs root, and mkfs.btrfs", os.geteuid() == 0 and shutil.which("mkfs.btrfs"))
    image = tmp_path / "image"
    with image.open("wb") as stream:
        stream.truncate(320 * MIB)
    subprocess.run(["mkfs.btrfs", "-q", "-f", str(image)], check=True, capture_output=True)
    with mount(tmp_path / "m", "-o", "loop", str(image)) as point:
        limited = point / "limited"
        for words in (["subvolume", "create", limited], ["quota", "enable", point]):
            subprocess.run(["btrfs", *map(str, words)], check=True, capture_output=True)
        within, outside = twins(limited, 8), twins(tmp_path / "outside", 4, what="other")
        before = snapshot(limited / "envs", tmp_path / "outside")
        words = ["qgroup", "limit", "2M", str(limited)]
        subprocess.run(["btrfs", *words], check=True)
        subprocess.run(["btrfs", "filesystem", "sync", str(point)], check=True)
        (limited / "small").mkdir()
        fill(limited / "ballast")
        fill_with_files(limited / "small", 1024)
        subprocess.run(["btrfs", "filesystem", "sync", str(point)], check=True)
        with pytest.raises(OSError) as refused:
            (limited / "probe").mkdir()
        assert refused.value.errno == errno.EDQUOT
        applied = apply_plan(plan(outside, within), "test")
        assert applied.failed == []
        assert skipped(applied) == {Reason.NO_SPACE: 8}
        assert pairs_shared(outside, 4) == [True] * 4
        assert pairs_shared(within, 8) == [False] * 8
        assert_intact(before, limited / "envs", tmp_path / "outside")


@pytest.mark.filesystems
@pytest.mark.parametrize("kind", ["btrfs", "xfs"])
def test_a_full_disk_and_reflinks(tmp_path: Path, kind: str) -> None:
    """The kernel may need room for that too: shared or skipped, and every inode stays as it is."""
    with mounted_file_system(kind, tmp_path / "m", 320 * MIB) as point:
        forge = twins(point, 100, size=40_000)
        analysis = analyse(forge.scope(), PlanOptions())
        assert len(analysis.plan.shares) == 100
        before = snapshot(point)
        fill(point / "big")
        fill_with_files(point, 1024)
        applied = apply_plan(analysis, "test")
        assert applied.failed == []
        assert skipped(applied) in ({}, {Reason.NO_SPACE: 100 - applied.inodes})
        after = snapshot(point)
        for path, state in before.items():
            assert after[path]._replace(disk_bytes=0) == state._replace(disk_bytes=0)
        assert leftovers(point) == []


@pytest.fixture
def crowded(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[tuple[World, Path]]:
    """A command line whose state directory is on a small file system of its own."""
    with mount(tmp_path / "m", "-t", "tmpfs", "-o", "size=4m,mode=0755", "tmpfs") as point:
        world = World(tmp_path / "world", tmp_path / "home", {"XDG_STATE_HOME": str(point / "state")})
        yield world, point


def apply_words(world: World) -> tuple[str, ...]:
    one, two = (str(world.root / "envs" / name) for name in ("one", "two"))
    return ("apply", "--yes", "--no-discover", "--method", "hardlink", "-p", one, "-p", two)


@pytest.mark.filesystems
@pytest.mark.parametrize("room", [0, 32, 64, 96, 128, 192])
def test_a_full_disk_below_the_journal(crowded: tuple[World, Path], room: int) -> None:
    """``room`` KiB are left: nothing was done, or what was done is complete; a sentence says so."""
    world, point = crowded
    forge = twins(world.root, 300)
    before = snapshot(world.root)
    fill(point / "ballast", room << 10)
    done = world.run(*apply_words(world), "--json", code=1)
    assert done.stderr == ""
    document = json.loads(done.stdout)
    assert document["error"] and "\n" not in document["error"]
    assert document["hint"]
    assert room or not any(pairs_shared(forge, 300))
    assert_intact(before, world.root)
    # the same in words
    text = world.run(*apply_words(world), code=1)
    first, second = text.stderr.splitlines()
    assert first.startswith("conda-dedup: error: ") and second.startswith("  hint: ")
    assert_intact(before, world.root)
    # with room again, the next run does the rest
    (point / "ballast").unlink()
    left = 300 - sum(pairs_shared(forge, 300))
    document = world.json(*apply_words(world))
    assert document["done"]["inodes"] == left
    assert document["failed"] == document["skipped"] == document["warnings"] == []
    assert all(pairs_shared(forge, 300))
    assert_intact(before, world.root)


@pytest.mark.filesystems
@pytest.mark.parametrize("room", range(8))
def test_no_inode_in_the_state_directory(tmp_path: Path, room: int) -> None:
    """So that in turn each of its directories and files is the first that cannot be made."""
    with mount(tmp_path / "m", "-t", "tmpfs", "-o", "size=8m,nr_inodes=100,mode=0755", "tmpfs") as point:
        world = World(tmp_path / "world", tmp_path / "home", {"XDG_STATE_HOME": str(point / "state")})
        forge = twins(world.root, 5)
        before = snapshot(world.root)
        for path in fill_with_files(point / "ballast", 0)[:room]:
            path.unlink()
        document = json.loads(world.run(*apply_words(world), "--json", code=1).stdout)
        assert document["error"] and document["hint"]
        assert not any(pairs_shared(forge, 5))
        assert_intact(before, world.root)
        shutil.rmtree(point / "ballast")
        assert world.json(*apply_words(world))["done"]["inodes"] == 5
        assert_intact(before, world.root)


@pytest.mark.filesystems
def test_a_disk_that_is_full_in_the_middle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The journal's disk is full from the third batch on: two are shared, all is complete."""
    monkeypatch.setattr(batches_module, "MOST_NAMES", 40)
    monkeypatch.setattr(batches_module, "LONGEST_SECONDS", 600)
    with mount(tmp_path / "m", "-t", "tmpfs", "-o", "size=4m,mode=0755", "tmpfs") as point:
        monkeypatch.setenv("XDG_STATE_HOME", str(point / "state"))
        forge = twins(tmp_path / "world", 300)
        before = snapshot(tmp_path / "world")
        resolve = Journal.resolve
        resolved = []

        def full_after_two(self, results):
            resolve(self, results)
            resolved.append(1)
            if len(resolved) == 2:
                fill(point / "ballast")

        monkeypatch.setattr(Journal, "resolve", full_after_two)
        with pytest.raises(StateError, match="journal cannot be written"):
            apply_plan(plan(forge), "test")
        shared = sum(pairs_shared(forge, 300))
        assert 80 <= shared < 300
        assert_intact(before, tmp_path / "world")
        (point / "ballast").unlink()
        monkeypatch.setattr(Journal, "resolve", resolve)
        assert apply_plan(plan(forge), "test").inodes == 300 - shared
        assert_intact(before, tmp_path / "world")


@pytest.mark.filesystems
def test_a_full_disk_by_the_command_line(tmp_path: Path) -> None:
    """A skip is no failure: exit code 0, one document that says why."""
    with mount(tmp_path / "m", "-t", "tmpfs", "-o", "size=64m,nr_inodes=500,mode=0755", "tmpfs") as point:
        world = World(point / "world", tmp_path / "home")
        twins(world.root, 5)
        before = snapshot(world.root)
        fill_with_files(point / "ballast", 0)
        document = world.json(*apply_words(world))
        (found,) = document["skipped"]
        assert (found["reason"], found["inodes"]) == (Reason.NO_SPACE.value, 5)
        assert document["failed"] == []
        assert document["done"]["inodes"] == 0
        text = world.run(*apply_words(world))
        assert f"left alone: 5 files, 20.5 kB: {Reason.NO_SPACE.value}" in text.stdout
        assert_intact(before, world.root)


# -- read-only, immutable, forbidden ----------------------------------------------------------------------


@pytest.mark.filesystems
def test_a_file_system_that_became_read_only(tmp_path: Path) -> None:
    with mount(tmp_path / "m", "-t", "tmpfs", "-o", "size=64m,mode=0755", "tmpfs") as point:
        fixed, other = twins(point, 5), twins(tmp_path / "other", 5, what="other")
        analysis = plan(fixed, other)
        before = snapshot(point, tmp_path / "other")
        inodes = snapshot(point)
        subprocess.run(["mount", "-o", "remount,ro", str(point)], check=True)
        applied = apply_plan(analysis, "test")
        assert applied.failed == []
        assert skipped(applied) == {Reason.READ_ONLY: 5}
        assert pairs_shared(other, 5) == [True] * 5
        assert snapshot(point) == inodes
        assert_intact(before, point, tmp_path / "other")


@contextlib.contextmanager
def attribute(path: Path, flag: str) -> Iterator[None]:
    """chattr +flag within the block."""
    needs("chattr needs root", os.geteuid() == 0 and shutil.which("chattr"))
    done = subprocess.run(["chattr", f"+{flag}", str(path)], capture_output=True)
    needs("a file system with immutable files below the temporary directory", done.returncode == 0)
    try:
        yield
    finally:
        subprocess.run(["chattr", f"-{flag}", str(path)], check=True)


@pytest.mark.parametrize("flag", ["i", "a"])
@pytest.mark.parametrize("which", ["target", "keeper", "target's directory", "keeper's directory"])
def test_immutable_and_append_only(tmp_path: Path, which: str, flag: str) -> None:
    forge = twins(tmp_path / "world", 5)
    analysis = plan(forge)
    share = share_for(analysis, lib(2))
    target, keeper = paths(analysis, share)
    odd = target if which.startswith("target") else keeper
    before = snapshot(tmp_path / "world")
    with attribute(odd.parent if which.endswith("directory") else odd, flag):
        applied = apply_plan(analysis, "test")
    assert applied.failed == []
    if which == "keeper's directory":  # it is linked by descriptor, and its own directory does not change
        assert applied.skipped == {}
        assert all(pairs_shared(forge, 5))
    else:
        assert skipped(applied) == {Reason.IMMUTABLE: 1}
        assert pairs_shared(forge, 5) == [number != 2 for number in range(5)]
        assert untouched(before, target)
        assert untouched(before, keeper)
    assert_intact(before, tmp_path / "world")


@pytest.mark.parametrize("flag", ["i", "a"])
def test_one_of_two_names_is_in_a_fixed_directory(tmp_path: Path, flag: str) -> None:
    """The name that was exchanged already gets its inode back."""
    root = tmp_path / "env"
    for number in (0, 1, 2, 3):
        path = root / lib(number)
        path.parent.mkdir(parents=True)
        path.write_bytes(noise("x", 8192))
        os.utime(path, (1, 1))
    os.link(root / lib(1), root / lib(2).replace("lib2", "second"))
    before = snapshot(root)
    shares = [share_of(root, lib(0), lib(1), "lib/2/second.so"), share_of(root, lib(0), lib(3))]
    with attribute(root / "lib/2", flag):
        fixed, other = hardlink(root, tmp_path / "journal.sqlite", *shares)
    assert fixed.reason is Reason.IMMUTABLE
    assert untouched(before, root / lib(1))
    assert untouched(before, root / "lib/2/second.so")
    assert other.method is not None
    assert_intact(before, root)


@pytest.mark.parametrize("flag", ["i", "a"])
def test_an_immutable_prefix(tmp_path: Path, flag: str) -> None:
    """No staging directory can be made in it, or none removed; a third environment is not held up."""
    forge = twins(tmp_path / "world", 4)
    forge.environment("three", {DIST: libraries(4)})
    analysis = plan(forge)
    fixed, there = one_root(analysis)
    before = snapshot(tmp_path / "world")
    with attribute(fixed, flag):
        applied = in_a_child(lambda: apply_plan(analysis, "test"))
    assert applied.failed == []
    if flag == "i":
        assert skipped(applied) == {Reason.IMMUTABLE: there}
        assert applied.inodes == 8 - there
    else:
        assert (applied.skipped, applied.inodes) == ({}, 8)
        # the next run removes what could not be removed
        assert not any(list(Path(path).iterdir()) for path in leftovers(tmp_path / "world"))
        assert apply_plan(plan(forge), "next").inodes == 0
    assert_intact(before, tmp_path / "world")


@pytest.fixture
def nobodys(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory that belongs to the user nobody, who may get to it."""
    needs("root, to be somebody else", os.geteuid() == 0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        monkeypatch.setenv("XDG_STATE_HOME", str(folder / "state"))
        folder.chmod(0o755)
        yield folder


def give_away(folder: Path) -> None:
    subprocess.run(["chown", "-R", "65534:65534", str(folder)], check=True)


def apply_as_nobody(analysis: Analysis) -> Applied:
    import filelock  # noqa: F401  imported while we still may
    import platformdirs  # noqa: F401

    return as_nobody(lambda: apply_plan(analysis, "test"))


FORBIDDEN = [
    ("target's directory", 0o555, Reason.NO_ACCESS),
    ("target's directory", 0o666, Reason.NO_ACCESS),
    ("target", 0o000, Reason.NO_ACCESS),
    ("keeper's directory", 0o555, None),
    ("keeper's directory", 0o666, Reason.KEEPER_GONE),
    ("keeper", 0o000, Reason.KEEPER_GONE),
]


@pytest.mark.parametrize(("which", "mode", "reason"), FORBIDDEN, ids=[f"{w} {m:o}" for w, m, _ in FORBIDDEN])
def test_an_ordinary_user_may_not(nobodys: Path, which: str, mode: int, reason: Reason | None) -> None:
    forge = twins(nobodys / "world", 5)
    give_away(nobodys)
    analysis = as_nobody(lambda: plan(forge))
    target, keeper = paths(analysis, share_for(analysis, lib(2)))
    odd = target if which.startswith("target") else keeper
    odd = odd.parent if which.endswith("directory") else odd
    before = snapshot(nobodys / "world")
    usual = odd.stat().st_mode & 0o777
    odd.chmod(mode)
    applied = apply_as_nobody(analysis)
    odd.chmod(usual)
    assert applied.failed == []
    assert skipped(applied) == ({} if reason is None else {reason: 1})
    assert pairs_shared(forge, 5) == [number != 2 or reason is None for number in range(5)]
    if reason is not None:
        assert untouched(before, target)
    assert_intact(before, nobodys / "world")


def test_an_ordinary_user_may_not_read_it_beforehand(nobodys: Path) -> None:
    """What cannot be compared is no candidate."""
    forge = twins(nobodys / "world", 5)
    for name in ("one", "two"):
        (nobodys / "world/envs" / name / lib(2)).chmod(0o000)
    give_away(nobodys)
    before = snapshot(nobodys / "world")
    analysis = as_nobody(lambda: plan(forge))
    assert len(analysis.plan.shares) == 4
    assert apply_as_nobody(analysis).inodes == 4
    assert pairs_shared(forge, 5) == [number != 2 for number in range(5)]
    assert_intact(before, nobodys / "world")


def test_an_ordinary_user_has_no_rights_in_a_prefix(nobodys: Path) -> None:
    """No staging directory can be made there; another environment is not held up by that."""
    forge = twins(nobodys / "world", 4)
    forge.environment("three", {DIST: libraries(4)})
    give_away(nobodys)
    analysis = as_nobody(lambda: plan(forge))
    fixed, there = one_root(analysis)
    before = snapshot(nobodys / "world")
    fixed.chmod(0o555)
    applied = apply_as_nobody(analysis)
    assert applied.failed == []
    assert skipped(applied) == {Reason.NO_ACCESS: there}
    assert applied.inodes == 8 - there
    assert_intact(before, nobodys / "world")


# -- too many names, two devices --------------------------------------------------------------------------


@pytest.mark.filesystems
@pytest.mark.parametrize("when", ["before the plan", "since the plan"])
def test_an_inode_that_can_have_one_more_name(mounted, when: str) -> None:
    """ext4 allows 65,000. Of three duplicates one gets the last name, one becomes the keeper of the third."""
    point = Path(tempfile.mkdtemp(dir=mounted("ext4")))
    forge = twins(point, 2)
    for name in ("three", "four"):
        forge.environment(name, {DIST: libraries(2)})
    envs = [Path(tree.root) for tree in forge.trees]
    before = snapshot(point / "envs")
    analysis = plan(forge)
    shares = (share for share in analysis.plan.shares if share.duplicate.names[0].path == lib(0))
    keeper = paths(analysis, next(shares))[1]
    (point / "names").mkdir()
    for index in range(65_000 - 2):
        os.link(keeper, point / "names" / str(index))
    if when == "before the plan":
        analysis = plan(forge)
        held = {reason: inodes for reason, (_, inodes) in analysis.plan.held_by_reason().items()}
        assert held == {Reason.LINK_LIMIT: 1}
    applied = apply_plan(analysis, "test")
    assert applied.failed == []
    assert skipped(applied) == ({} if when == "before the plan" else {Reason.LINK_LIMIT: 1})
    assert applied.inodes == 2 + 3
    assert os.lstat(keeper).st_nlink == 65_000
    assert sorted(os.lstat(env / lib(0)).st_nlink for env in envs) == [2, 2, 65_000, 65_000]
    assert {os.lstat(env / lib(1)).st_nlink for env in envs} == {4}
    assert_intact(before, point / "envs")
    # a second run finds the new keeper, and nothing to do
    again = plan(forge)
    assert again.plan.shares == []
    shutil.rmtree(point)


@pytest.mark.filesystems
@pytest.mark.parametrize("where", ["one", "two", "both"])
def test_a_bind_mount_in_a_prefix(tmp_path: Path, where: str) -> None:
    """The same device number, and yet no link leads from one mount to the other."""
    forge = twins(tmp_path / "world", 5)
    with contextlib.ExitStack() as stack:
        for name in ("one", "two") if where == "both" else (where,):
            below = tmp_path / "world/envs" / name / "lib/2"
            elsewhere = shutil.copytree(below, tmp_path / f"elsewhere-{name}")
            stack.enter_context(mount(below, "--bind", str(elsewhere)))
        before, folders = snapshot(tmp_path / "world"), directories(tmp_path / "world")
        analysis = plan(forge)
        target, keeper = paths(analysis, share_for(analysis, lib(2)))
        applied = apply_plan(analysis, "test")
        assert applied.failed == []
        assert skipped(applied) == {Reason.OTHER_DEVICE: 1}
        assert pairs_shared(forge, 5) == [number != 2 for number in range(5)]
        assert untouched(before, target)
        assert untouched(before, keeper)
        assert_intact(before, tmp_path / "world")
        assert directories(tmp_path / "world") == folders


@pytest.mark.filesystems
@pytest.mark.parametrize("far", ["target", "keeper"])
def test_two_devices_in_one_plan(tmp_path: Path, far: str) -> None:
    """As no plan would have it."""
    root = tmp_path / "env"
    with mount(root / "far", "-t", "tmpfs", "-o", "size=8m,mode=0755", "tmpfs"):
        for path in ("far/x.so", "near/x.so", "near/y.so", "near/z.so"):
            (root / path).parent.mkdir(exist_ok=True)
            (root / path).write_bytes(noise("x", 8192))
            os.utime(root / path, (1, 1))
        before = snapshot(root)
        two = ("far/x.so", "near/x.so")
        target, keeper = two if far == "target" else two[::-1]
        shares = [share_of(root, keeper, target), share_of(root, "near/y.so", "near/z.so")]
        scope = one_tree(root)
        devices = {}
        for share in shares:
            for inode in (share.keeper, share.duplicate):
                descriptor = open_inode(scope, inode)
                devices[inode.key.device] = probe(descriptor)
                os.close(descriptor)
        book = Journal.open(tmp_path / "journal.sqlite")
        book.begin("test")
        with Hardlinker(scope, book, devices) as linker:
            first, second = linker.run(shares)
        book.close()
        assert first.reason is Reason.OTHER_DEVICE
        assert untouched(before, root / target)
        assert untouched(before, root / keeper)
        assert second.method is not None
        assert_intact(before, root)


# -- running programs, signals, long names ----------------------------------------------------------------


def test_programs_that_run(tmp_path: Path) -> None:
    """Both the target and the keeper are being executed: they are shared, and the processes go on."""
    program = shutil.which("cat")
    needs("needs cat", program)
    assert program is not None
    forge = Forge(tmp_path / "world")
    for name in ("one", "two"):
        env = forge.environment(name, {DIST: {"bin/cat": Path(program).read_bytes(), **libraries(3)}})
        (env / "bin/cat").chmod(0o755)
    envs = [Path(tree.root) for tree in forge.trees]
    running = [
        subprocess.Popen([env / "bin/cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) for env in envs
    ]
    before = snapshot(tmp_path / "world")
    try:
        for process in running:
            assert echo(process, b"before\n") == b"before\n"
        with pytest.raises(OSError) as refused:
            open(envs[0] / "bin/cat", "r+b")
        assert refused.value.errno == errno.ETXTBSY
        applied = apply_plan(plan(forge), "test")
        assert applied.failed == []
        assert applied.skipped == {}
        assert applied.inodes == 4
        assert os.path.samefile(envs[0] / "bin/cat", envs[1] / "bin/cat")
        for process in running:
            assert echo(process, b"after\n") == b"after\n"
    finally:
        for process in running:
            process.communicate()
    assert [process.returncode for process in running] == [0, 0]
    for env in envs:
        assert subprocess.run([env / "bin/cat"], input=b"x", capture_output=True).stdout == b"x"
    assert_intact(before, tmp_path / "world")


def echo(process: subprocess.Popen[bytes], line: bytes) -> bytes:
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(line)
    process.stdin.flush()
    return process.stdout.readline()


@pytest.mark.filesystems
@pytest.mark.parametrize("kind", ["ext4", "btrfs", "xfs"])
@pytest.mark.parametrize(
    "rounds", [pytest.param(1, id="once"), pytest.param(100, id="many", marks=pytest.mark.soak)]
)
def test_signals_all_the_time(mounted, tmp_path: Path, kind: str, rounds: int) -> None:
    """A thousand times a second, with a handler that really runs: no call may fail with EINTR."""
    for _ in range(rounds):
        point = Path(tempfile.mkdtemp(dir=mounted(kind)))
        forge = twins(point, 150, size=40_000)
        before = snapshot(point)
        came: list[int] = []
        old = signal.signal(signal.SIGALRM, lambda number, frame, came=came: came.append(number))
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        try:
            scope = forge.scope()
            analysis = analyse(scope, PlanOptions())
            applied = apply_plan(analysis, "test")
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, old)
        assert len(came) > 5
        assert applied.failed == []
        assert applied.skipped == {}
        assert applied.inodes == 150
        assert_intact(before, point)
        assert analyse(scope, PlanOptions()).plan.shares == []
        shutil.rmtree(point)


@pytest.mark.parametrize("letter", ["x", "é", "日"])
def test_names_as_long_as_can_be(tmp_path: Path, letter: str) -> None:
    count, rest = divmod(255 - len(".so"), len(letter.encode()))
    name = letter * count + "x" * rest + ".so"
    assert len(os.fsencode(name)) == 255
    forge = Forge(tmp_path / "world")
    for env in ("one", "two"):
        forge.environment(env, {DIST: {f"{'d' * 255}/{name}": noise("x", 8192), **libraries(1)}})
    before = snapshot(tmp_path / "world")
    applied = apply_plan(plan(forge), "test")
    assert (applied.inodes, applied.skipped, applied.failed) == (2, {}, [])
    assert_intact(before, tmp_path / "world")


class Deep:
    """A directory whose path has more than ``length`` characters; everything is done by descriptor."""

    def __init__(self, top: Path, length: int) -> None:
        self.path = str(top)
        self.descriptor = os.open(top, os.O_RDONLY)
        while len(self.path) <= length:
            os.mkdir("d" * 200, dir_fd=self.descriptor)
            below = os.open("d" * 200, os.O_RDONLY, dir_fd=self.descriptor)
            os.close(self.descriptor)
            self.descriptor = below
            self.path += "/" + "d" * 200

    def take(self, env: Path) -> str:
        """Move an environment here; returns its path."""
        os.rename(env, env.name, dst_dir_fd=self.descriptor)
        return f"{self.path}/{env.name}"

    def names(self, path: str) -> list[str]:
        descriptor = os.open(path, os.O_RDONLY, dir_fd=self.descriptor)
        try:
            return os.listdir(descriptor)
        finally:
            os.close(descriptor)

    def close(self) -> None:
        os.close(self.descriptor)

    def stat(self, path: str) -> os.stat_result:
        return os.stat(path, dir_fd=self.descriptor)

    def read(self, path: str) -> bytes:
        with open(os.open(path, os.O_RDONLY, dir_fd=self.descriptor), "rb") as stream:
            return stream.read()


@pytest.fixture
def deep_world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path / "world", tmp_path / "home")
    yield world
    subprocess.run(["rm", "-rf", str(world.root)], check=True)


LONG = f"{'e' * 250}/{'f' * 250}/libdeep.so"


def test_paths_longer_than_any_call_takes(deep_world: World) -> None:
    """The prefix can just be named, not the files in it: they are opened level by level."""
    world = deep_world
    deep = Deep(world.root, 3600)
    prefixes = []
    for name in ("one", "two"):
        env = world.forge.environment(name, {DIST: {LONG: noise("deep", 8192), **libraries(3)}})
        prefixes.append(deep.take(env))
    assert len(prefixes[0]) < 4096 < len(f"{prefixes[0]}/{LONG}")
    words = ["--no-discover", "--method", "hardlink", "-p", prefixes[0], "-p", prefixes[1]]
    planned = world.json("apply", "--dry-run", *words)
    assert len(planned["shares"]) == 4
    document = world.json("apply", "--yes", *words)
    assert document["failed"] == document["skipped"] == []
    assert document["done"]["inodes"] == 4
    for path in (LONG, lib(0), lib(1), lib(2)):
        one, two = deep.stat(f"one/{path}"), deep.stat(f"two/{path}")
        assert (one.st_ino, one.st_nlink, one.st_mtime) == (two.st_ino, 2, 1_600_000_000)
    assert deep.read(f"two/{LONG}") == noise("deep", 8192)
    for env in ("one", "two"):
        assert not [name for name in deep.names(env) if "conda-dedup" in name]
    deep.close()


def test_a_prefix_that_cannot_be_named(deep_world: World) -> None:
    """It is left out, and said so; the others are shared."""
    world = deep_world
    for name in ("one", "two"):
        world.forge.environment(name, {DIST: libraries(3)})
    odd = world.forge.environment("odd", {DIST: libraries(3)})
    deep = Deep(world.root, 4200)
    root = deep.take(odd)
    trees = world.forge.trees
    trees[2] = replace(trees[2], root=root)
    analysis = plan(world.forge)
    assert any("cannot be read" in warning for warning in analysis.warnings)
    applied = apply_plan(analysis, "test")
    assert (applied.inodes, applied.skipped, applied.failed) == (3, {}, [])
    assert pairs_shared(world.forge, 3) == [True] * 3
    assert deep.stat(f"odd/{lib(0)}").st_nlink == 1
    deep.close()
    # whoever names it is told
    done = world.run("apply", "--yes", "--json", "--no-discover", "-p", root, code=None)
    assert done.returncode in (0, 1, 2)
    assert json.loads(done.stdout)["schema"] == 1


# -- locks ------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def stopped_at(step: str, world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, int]]:
    """A run in another process that stays at a step of its first batch: its id, a pipe to let it go on."""
    monkeypatch.setenv("XDG_STATE_HOME", world.environ["XDG_STATE_HOME"])
    analysis = plan(world.forge)
    (told, tell), (wait, go) = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        try:
            original = getattr(Hardlinker, step)
            waited: list[int] = []

            def stay(self, argument):
                if not waited:
                    waited.append(1)
                    os.write(tell, b"x")
                    os.read(wait, 1)
                original(self, argument)

            monkeypatch.setattr(Hardlinker, step, stay)
            os._exit(apply_plan(analysis, "first").inodes)
        finally:
            os._exit(99)
    try:
        assert os.read(told, 1) == b"x"
        yield child, go
    finally:
        for descriptor in (told, tell, wait, go):
            os.close(descriptor)
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


@pytest.fixture
def busy(tmp_path: Path) -> World:
    world = World(tmp_path / "world", tmp_path / "home")
    world.forge = twins(world.root, 6)
    return world


def test_a_second_run_while_one_is_in_the_middle(busy: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says so and leaves at once, and touches nothing; the first one is not disturbed."""
    before = snapshot(busy.root)
    with stopped_at("_make_durable", busy, monkeypatch) as (first, go):
        assert skipped(apply_plan(plan(busy.forge), "second")) == {Reason.LOCKED: 6}
        document = busy.json(*apply_words(busy))
        (found,) = document["skipped"]
        assert (found["reason"], found["inodes"]) == (Reason.LOCKED.value, 6)
        assert document["done"]["inodes"] == 0
        assert document["failed"] == document["warnings"] == []
        assert Reason.LOCKED.value in busy.run(*apply_words(busy)).stdout
        assert snapshot(busy.root) == before
        os.write(go, b"x")
        assert os.waitstatus_to_exitcode(os.waitpid(first, 0)[1]) == 6
    assert all(pairs_shared(busy.forge, 6))
    assert_intact(before, busy.root)


@pytest.mark.parametrize("step", ["_make_durable", "_settle", "_drop_old"])
def test_a_run_that_was_killed_while_it_held_the_lock(
    busy: World, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """The next one gets the lock and completes what it finds."""
    before = snapshot(busy.root)
    with stopped_at(step, busy, monkeypatch) as (first, _):
        assert leftovers(busy.root) != []
        os.kill(first, signal.SIGKILL)
        os.waitpid(first, 0)
        document = busy.json(*apply_words(busy))
    assert document["failed"] == document["skipped"] == []
    assert document["done"]["inodes"] == (6 if step == "_make_durable" else 0)
    assert all(pairs_shared(busy.forge, 6))
    assert_intact(before, busy.root)
