"""Clones that take the place of duplicates (macOS), with the clone made by Linux' own call.

Everything but that one call is what runs there: what is checked, exchanged, written down and undone.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from pathlib import Path

import pytest

import conda_dedup_plugin.apply as apply_module
import conda_dedup_plugin.evidence as evidence_module
import conda_dedup_plugin.undoing as undoing_module
from conda_dedup_plugin.model import MethodChoice, Reason
from conda_dedup_plugin.sharing import darwin, leases
from conda_dedup_plugin.sharing.clone import Cloner
from conda_dedup_plugin.sharing.probe import probe
from tests.lab.steps import changing_steps, run_and_kill
from tests.sharing import test_portable
from tests.sharing.test_portable import FILES, World

pytestmark = pytest.mark.filesystems
FICLONE = 0x40049409
REFLINK = MethodChoice.REFLINK


def clone(descriptor: int, name: str, directory: int) -> None:
    made = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644, dir_fd=directory)
    try:
        fcntl.ioctl(made, FICLONE, descriptor)
    finally:
        os.close(made)


def probe_as_there(descriptor: int):
    from msgspec.structs import replace

    return replace(probe(descriptor), in_place=False, blocks=False)


@pytest.fixture(params=["btrfs", "xfs"])
def make_world(request: pytest.FixtureRequest, mounted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import platformdirs

    state = tmp_path / "state"
    monkeypatch.setattr(platformdirs, "user_state_path", lambda *_, **__: state)
    monkeypatch.setattr(darwin, "clone", clone)
    monkeypatch.setattr(apply_module, "Reflinker", Cloner)
    monkeypatch.setattr(evidence_module, "probe", probe_as_there)
    monkeypatch.setattr(undoing_module, "TELLS_SHARED", False)

    def make() -> World:
        shutil.rmtree(state, ignore_errors=True)
        return World(Path(tempfile.mkdtemp(dir=mounted(request.param))))

    return make


@pytest.fixture
def world(make_world) -> World:
    return make_world()


def numbers(world: World) -> dict[str, int]:
    return {path: (world.two / path).stat().st_ino for path in FILES}


def test_report_apply_undo(world: World) -> None:
    before, inodes = world.snapshot(), numbers(world) | {"": 0}
    test_portable.test_report_apply_undo(world, REFLINK)
    assert world.snapshot() == before
    assert numbers(world) != inodes


def test_nothing_spreads(world: World) -> None:
    test_portable.test_nothing_spreads(world, REFLINK)


def test_replaced_since_it_was_planned(world: World) -> None:
    test_portable.test_replaced_since_it_was_planned(world, REFLINK)


def test_metadata_is_kept(world: World) -> None:
    target = world.two / "lib/libone.so.1"
    os.setxattr(target, "user.signature", b"signed")
    other = world.one / "lib/libone.so.1"
    os.setxattr(other, "user.other", b"not to be copied")
    os.chown(other, 1000, 1000)
    test_portable.test_metadata_is_kept(world)
    assert os.listxattr(target) == ["user.signature"]
    assert (target.stat().st_uid, other.stat().st_uid) == (0, 1000)


def test_another_content_is_never_cloned(world: World) -> None:
    """Whatever the records and the times say: the bytes are compared."""
    analysis = world.analyse(REFLINK)
    targets = [Path(analysis.scope.paths_of(share.duplicate)[0]) for share in analysis.plan.shares]
    for target in targets:
        stat = target.stat()
        with open(target, "r+b") as stream:
            stream.write(b"X")
        os.utime(target, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    before = world.snapshot()
    done = apply_module.apply_plan(analysis, "test")
    assert (done.names, set(done.skipped)) == (0, {Reason.DIFFERENT})
    assert world.snapshot() == before


@pytest.mark.parametrize("step", ["_make_durable", "_settle"])
def test_written_to_meanwhile(world: World, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """Without leases a file is looked at right before and right after its names are exchanged."""
    monkeypatch.setattr(leases, "EXIST", False)
    monkeypatch.setattr(leases, "take", lambda descriptor: leases.Lease.UNSUPPORTED)
    analysis = world.analyse(REFLINK)
    targets = [Path(analysis.scope.paths_of(share.duplicate)[0]) for share in analysis.plan.shares]
    writers = [open(target, "r+b", buffering=0) for target in targets]
    going_on = getattr(Cloner, step)

    def meanwhile(*words: object) -> None:
        for writer in writers:
            writer.seek(0)
            writer.write(b"edited")
        going_on(*words)

    monkeypatch.setattr(Cloner, step, meanwhile)
    done = apply_module.apply_plan(analysis, "test")
    assert (done.names, done.failed) == (0, [])
    for target, writer in zip(targets, writers, strict=True):
        writer.close()
        assert target.read_bytes()[:6] == b"edited"
    assert list(world.one.parent.rglob("*conda-dedup*")) == []


def test_names_outside(world: World) -> None:
    """A clone would part the names of an inode, so it is left alone."""
    for root in (world.one, world.two):
        os.link(root / "lib/libone.so.1", root.parent / f"{root.name}-elsewhere")
    analysis = world.analyse(REFLINK)
    assert len(analysis.plan.shares) == len(FILES) - 1
    assert Reason.NAMES_OUTSIDE in analysis.plan.held_by_reason()


def test_all_names_together(world: World) -> None:
    for root in (world.one, world.two):
        os.link(root / "lib/libone.so.1", root / "lib/libone.so")
    before = world.snapshot()
    world.apply(REFLINK)
    assert world.snapshot() == before
    pairs = [[(root / "lib" / name).stat().st_ino for name in ("libone.so", "libone.so.1")] for root in
             (world.one, world.two)]  # fmt: skip
    assert all(first == second for first, second in pairs)
    assert pairs[0] != pairs[1]
    assert world.undo().failed == []
    assert world.snapshot() == before


def test_what_was_undone_by_others_is_forgotten(world: World) -> None:
    world.apply(REFLINK)
    for root in (world.one, world.two):
        for path in FILES:
            content = (root / path).read_bytes()
            (root / path).unlink()
            (root / path).write_bytes(content)
    assert world.undo().names == 0


@pytest.mark.parametrize("every", [5, pytest.param(1, marks=pytest.mark.soak)])
def test_killed_at_any_step(make_world, every: int) -> None:
    """Every path keeps what it had, the next run sees to the rest, and that can be undone."""
    counted = make_world()
    steps = changing_steps(lambda: counted.apply(REFLINK))[::every]
    killed = 0
    for step in steps:
        world = make_world()
        before = world.snapshot()
        killed += run_and_kill(lambda world=world: world.apply(REFLINK), step)
        now = world.snapshot()
        assert {path: now[path] for path in before} == before
        done = world.apply(REFLINK)
        assert (done.failed, done.notes) == ([], [])
        assert world.snapshot() == before
        assert list(world.one.parent.rglob("*conda-dedup*")) == []
        assert world.undo().failed == []
        assert world.snapshot() == before
        assert len(world.analyse(REFLINK).plan.shares) == len(FILES)
    assert killed > 20  # the last steps may not be reached
