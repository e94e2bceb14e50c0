"""Sharing clusters as on ReFS, with the three calls of Windows in it made by Linux' own.

Everything else is what runs there: what is checked, compared, written down and undone.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from msgspec.structs import replace

import conda_dedup_plugin.apply as apply_module
import conda_dedup_plugin.evidence as evidence_module
import conda_dedup_plugin.undo as undo_module
import conda_dedup_plugin.undoing as undoing_module
from conda_dedup_plugin.model import MethodChoice, Reason
from conda_dedup_plugin.sharing import duplicate as duplicate_module
from conda_dedup_plugin.sharing.duplicate import ClusterUnsharer, Duplicator
from conda_dedup_plugin.sharing.outcome import ChangedError
from conda_dedup_plugin.sharing.probe import probe
from conda_dedup_plugin.sharing.reflink import dedupe
from tests.sharing import test_portable
from tests.sharing.test_portable import World

pytestmark = pytest.mark.filesystems
REFLINK = MethodChoice.REFLINK


def open_file(name, directory, key, writable):
    descriptor = os.open(name, os.O_RDWR | os.O_NOFOLLOW, dir_fd=directory)
    stat = os.fstat(descriptor)
    if (stat.st_dev, stat.st_ino) != key:
        os.close(descriptor)
        raise ChangedError(name)
    return descriptor


@pytest.fixture(params=["btrfs", "xfs"])
def world(request: pytest.FixtureRequest, mounted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    import platformdirs

    monkeypatch.setattr(platformdirs, "user_state_path", lambda *_, **__: tmp_path / "state")
    monkeypatch.setattr(duplicate_module, "open_file", open_file)
    monkeypatch.setattr(duplicate_module, "cluster_of", lambda descriptor: 4096)
    monkeypatch.setattr(
        duplicate_module,
        "duplicate_extents",
        lambda source, target, size, cluster: dedupe(source, target, size),
    )
    monkeypatch.setattr(apply_module, "Reflinker", Duplicator)
    monkeypatch.setattr(evidence_module, "probe", lambda descriptor: replace(probe(descriptor), blocks=False))
    monkeypatch.setattr(undoing_module, "TELLS_SHARED", False)
    monkeypatch.setattr(undo_module, "Unsharer", ClusterUnsharer)
    return World(Path(tempfile.mkdtemp(dir=mounted(request.param))))


def test_report_apply_undo(world: World) -> None:
    test_portable.test_report_apply_undo(world, REFLINK)


def test_nothing_spreads(world: World) -> None:
    test_portable.test_nothing_spreads(world, REFLINK)


def test_replaced_since_it_was_planned(world: World) -> None:
    test_portable.test_replaced_since_it_was_planned(world, REFLINK)


def test_another_content_never_comes_in(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the records and the times say: the bytes are compared before anything is asked for."""
    analysis = world.analyse(REFLINK)
    for share in analysis.plan.shares:
        target = Path(analysis.scope.paths_of(share.duplicate)[0])
        stat = target.stat()
        with open(target, "r+b") as stream:
            stream.write(b"X")
        os.utime(target, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    asked: list[object] = []
    monkeypatch.setattr(duplicate_module, "duplicate_extents", lambda *words: asked.append(words))
    done = apply_module.apply_plan(analysis, "test")
    assert (done.names, set(done.skipped), asked) == (0, {Reason.DIFFERENT}, [])
