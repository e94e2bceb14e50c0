"""Sharing, and taking it back, on whatever system this runs: Linux, macOS and Windows run the same tests."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from conda_dedup_plugin.apply import apply_plan
from conda_dedup_plugin.engine import analyse
from conda_dedup_plugin.environments import Request, find
from conda_dedup_plugin.journal import Journal
from conda_dedup_plugin.model import Method, MethodChoice, Reason
from conda_dedup_plugin.plan import PlanOptions
from conda_dedup_plugin.sharing.probe import probe
from conda_dedup_plugin.sharing.staging import Swap
from conda_dedup_plugin.sharing.system import user
from conda_dedup_plugin.undo import plan_undo, undo
from tests.lab.forge import Forge, noise

DIST = ("one", "1.0", "0")
FILES = {
    "lib/libone.so.1": noise("library", 300_001),
    "lib/deep/er/plain.so": noise("plain", 70_000),
    "share/one/données.txt": noise("text", 10_000),
}
METHODS = [MethodChoice.HARDLINK, MethodChoice.REFLINK]


class World:
    """Two environments with the same package, each file a copy of its own."""

    def __init__(self, root: Path) -> None:
        forge = Forge(root)
        self.one, self.two = (forge.environment(name, {DIST: FILES}) for name in ("one", "two"))
        self.request = Request(prefixes=(str(self.one), str(self.two)), discover=False)

    def analyse(self, method: MethodChoice):
        return analyse(find(self.request), PlanOptions(method=method, euid=user()))

    def apply(self, method: MethodChoice):
        return apply_plan(self.analyse(method), "test")

    def undo(self):
        journal = Journal.open()
        try:
            return undo(plan_undo(journal), journal, "test")
        finally:
            journal.close()

    def snapshot(self):
        found = {}
        for root in (self.one, self.two):
            for path in sorted(path for path in root.rglob("*") if path.is_file()):
                stat = path.stat()
                found[str(path)] = (path.read_bytes(), stat.st_mode, stat.st_mtime_ns)
        return found

    def inodes(self) -> int:
        paths = [root / path for root in (self.one, self.two) for path in FILES]
        return len({(path.stat().st_dev, path.stat().st_ino) for path in paths})


def can(world: World, method: MethodChoice) -> None:
    """Skip where the device cannot do it; ``CONDA_DEDUP_TEST_REFLINK`` says that it must."""
    file = world.one / "lib/libone.so.1"
    descriptor = os.open(file, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    try:
        device = probe(descriptor)
    finally:
        os.close(descriptor)
    if method is MethodChoice.REFLINK and not device.reflink:
        if os.environ.get("CONDA_DEDUP_TEST_REFLINK"):
            pytest.fail(f"{device} should be able to reflink")
        pytest.skip(f"{device.file_system} has no reflinks")
    if method is MethodChoice.HARDLINK and not device.hardlink:
        pytest.skip(f"{device.file_system} has no hard links")


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    import platformdirs

    # on Windows no variable says where that is
    monkeypatch.setattr(platformdirs, "user_state_path", lambda *_, **__: tmp_path / "state")
    (tmp_path / "world").mkdir()
    return World(Path(os.path.realpath(tmp_path)) / "world")


@pytest.mark.parametrize("method", METHODS)
def test_report_apply_undo(world: World, method: MethodChoice) -> None:
    can(world, method)
    before = world.snapshot()
    analysis = world.analyse(method)
    assert analysis.warnings == []
    assert len(analysis.plan.shares) == len(FILES)
    assert analysis.plan.freeable_bytes > 300_000
    assert world.snapshot() == before

    done = apply_plan(analysis, "test")
    assert (done.failed, done.notes, dict(done.skipped)) == ([], [], {})
    assert done.names == len(FILES)
    assert set(done.by_method) == {Method(method.value)}
    assert world.snapshot() == before
    if method is MethodChoice.HARDLINK:
        assert world.inodes() == len(FILES)
        assert done.bytes_freed == analysis.plan.freeable_bytes
    else:
        assert world.inodes() == 2 * len(FILES)

    again = world.analyse(method)
    assert again.plan.shares == []

    taken_back = world.undo()
    assert (taken_back.failed, taken_back.notes, dict(taken_back.skipped)) == ([], [], {})
    assert taken_back.names == len(FILES)
    assert world.snapshot() == before
    assert world.inodes() == 2 * len(FILES)
    assert len(world.analyse(method).plan.shares) == len(FILES)
    assert list(world.one.parent.rglob("*conda-dedup*")) == []


@pytest.mark.parametrize("method", METHODS)
def test_nothing_spreads(world: World, method: MethodChoice) -> None:
    """A file that is replaced, and of reflinks one that is edited, changes no other one."""
    can(world, method)
    assert world.apply(method).names == len(FILES)
    for path in FILES:
        target = world.two / path
        if method is MethodChoice.HARDLINK:
            new = target.with_name("new")
            new.write_bytes(b"other")
            os.replace(new, target)
        else:
            with open(target, "r+b") as stream:
                stream.write(b"other")
        assert target.read_bytes()[:5] == b"other"
        assert (world.one / path).read_bytes() == FILES[path]
    edited = world.snapshot()
    assert world.undo().failed == []
    assert world.snapshot() == edited


@pytest.mark.parametrize("method", METHODS)
def test_open_for_writing(world: World, method: MethodChoice) -> None:
    """Left alone; macOS cannot tell."""
    can(world, method)
    if sys.platform == "darwin":
        pytest.skip("nobody tells who has a file open here")
    analysis = world.analyse(method)
    before = world.snapshot()
    targets = [Path(analysis.scope.paths_of(share.duplicate)[0]) for share in analysis.plan.shares]
    with open(targets[0], "r+b") as stream:
        done = apply_plan(analysis, "test")
        if method is MethodChoice.HARDLINK or sys.platform == "win32":
            assert done.skipped[Reason.BUSY][0] == 1
        stream.write(b"edited")
    assert targets[0].read_bytes() == b"edited" + before[str(targets[0])][0][6:]
    for path, (content, _, _) in before.items():
        if path != str(targets[0]):
            assert Path(path).read_bytes() == content


@pytest.mark.parametrize("method", METHODS)
def test_replaced_since_it_was_planned(world: World, method: MethodChoice) -> None:
    can(world, method)
    analysis = world.analyse(method)
    targets = [Path(analysis.scope.paths_of(share.duplicate)[0]) for share in analysis.plan.shares]
    for target in targets:
        new = target.with_name("new")
        new.write_bytes(target.read_bytes()[::-1])
        os.replace(new, target)
    before = world.snapshot()
    done = apply_plan(analysis, "test")
    assert (done.names, done.failed) == (0, [])
    assert set(done.skipped) == {Reason.CHANGED}
    assert world.snapshot() == before


def test_replaced_just_before_the_exchange(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    can(world, MethodChoice.HARDLINK)
    if sys.platform == "win32":
        pytest.skip("two names cannot be exchanged there")
    exchange = Swap.exchange
    replaced = []

    def meanwhile(swap: Swap, old: int) -> None:
        target = Path(swap.root, swap.path)
        target.with_name("new").write_bytes(b"somebody's")
        os.replace(target.with_name("new"), target)
        replaced.append(target)
        exchange(swap, old)

    monkeypatch.setattr(Swap, "exchange", meanwhile)
    done = world.apply(MethodChoice.HARDLINK)
    assert done.names == 0
    assert len(replaced) == len(FILES)
    for target in replaced:
        assert target.read_bytes() == b"somebody's"


@pytest.mark.parametrize("method", METHODS)
def test_a_directory_that_became_a_link(world: World, tmp_path: Path, method: MethodChoice) -> None:
    """Nothing that lies behind it is touched."""
    can(world, method)
    analysis = world.analyse(method)
    outside = tmp_path / "outside"
    (world.two / "lib").rename(outside)
    (world.one / "lib").rename(tmp_path / "other")
    if sys.platform == "win32":
        import _winapi

        _winapi.CreateJunction(str(outside), str(world.two / "lib"))
        _winapi.CreateJunction(str(tmp_path / "other"), str(world.one / "lib"))
    else:
        (world.two / "lib").symlink_to(outside)
        (world.one / "lib").symlink_to(tmp_path / "other")
    before = {path: path.stat() for path in outside.rglob("*")}
    done = apply_plan(analysis, "test")
    assert (done.names, done.failed) == (1, [])  # that in share/ alone
    for path, stat in before.items():
        assert (path.stat().st_ino, path.stat().st_nlink) == (stat.st_ino, stat.st_nlink)


def test_metadata_is_kept(world: World) -> None:
    """Whatever a reflink takes the place of had its mode, time and attributes."""
    can(world, MethodChoice.REFLINK)
    target = world.two / "lib/libone.so.1"
    if sys.platform == "darwin":
        import subprocess

        subprocess.run(["xattr", "-w", "org.example.test", "value", target], check=True)
    target.chmod(0o444)
    os.utime(target, ns=(1_500_000_000 * 10**9, 1_500_000_001 * 10**9))
    before = world.snapshot()
    world.apply(MethodChoice.REFLINK)
    assert world.snapshot() == before
    if sys.platform == "darwin":
        told = subprocess.run(["xattr", "-p", "org.example.test", target], capture_output=True, check=True)
        assert told.stdout.strip() == b"value"
    target.chmod(0o644)


def test_the_command_line(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    from conda_dedup_plugin.cli import main

    words = ["--no-discover", "--prefix", str(world.one), "--prefix", str(world.two)]
    assert main(["report", *words]) == 0
    assert main(["apply", "--yes", *words]) == 0
    assert main(["verify", *words]) == 0
    assert main(["undo", "--yes", "--prefix", str(world.one), "--prefix", str(world.two)]) == 0
    out, err = capsys.readouterr()
    assert out
    assert "error" not in err
    assert all((world.two / path).read_bytes() == content for path, content in FILES.items())
