"""kill -9 from outside, at random moments, over environments that conda, pip and rattler made."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from conda_dedup_plugin.apply import apply_plan
from conda_dedup_plugin.engine import Analysis, analyse
from conda_dedup_plugin.environments import Request, find
from conda_dedup_plugin.journal import Journal
from conda_dedup_plugin.plan import PlanOptions
from conda_dedup_plugin.sharing.recovery import recover
from conda_dedup_plugin.undo import plan_undo, undo
from tests.lab.invariants import assert_unchanged, directories, snapshot
from tests.lab.shares import leftovers
from tests.test_apply import make_world

if TYPE_CHECKING:
    from tests.conftest import MakeLab

pytestmark = pytest.mark.integration


def look(root: Path) -> Analysis:
    return analyse(find(Request(search=(str(root),), discover=False)), PlanOptions())


def take_back() -> None:
    journal = Journal.open()
    try:
        recover(journal)
        undo(plan_undo(journal), journal, "test")
    finally:
        journal.close()


def digests(paths: list[str]) -> dict[str, bytes]:
    return {path: hashlib.sha256(Path(path).read_bytes()).digest() for path in paths}


def killed(operation: Callable[[], object], delay: float) -> bool:
    """Do it in a child that is killed after so many seconds; returns whether it was still at it."""
    child = os.fork()
    if child == 0:
        try:
            operation()
        finally:
            os._exit(0)
    time.sleep(delay)
    os.kill(child, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def took(operation: Callable[[], object]) -> float:
    began = time.monotonic()
    operation()
    return time.monotonic() - began


@pytest.mark.parametrize("kills", [16, pytest.param(520, marks=pytest.mark.soak)])
def test_killed_at_random_moments(conda_lab: MakeLab, shm_dir: Path, monkeypatch, kills: int) -> None:
    """Half of them in an apply, half in an undo; after each, the next run finishes the work."""
    lab = conda_lab(root=shm_dir)
    trees = make_world(lab)
    monkeypatch.setenv("XDG_STATE_HOME", str(shm_dir / "state"))
    before, folders = snapshot(*trees), directories(*trees)
    analysis = look(lab.root)
    paths = [path for share in analysis.plan.shares for path in analysis.scope.paths_of(share.duplicate)]
    assert len(paths) > 200
    expected = digests(paths)
    applying = took(lambda: apply_plan(analysis, "test"))
    shared = {path: os.stat(path).st_ino for path in paths}
    undoing = took(take_back)
    assert_unchanged(before, snapshot(*trees))
    chance = random.Random(kills)
    met = rounds = 0
    while (met < kills or rounds % 2) and rounds < 5 * kills:  # the last one is an undo
        number = rounds
        rounds += 1
        if number % 2 == 0:
            analysis = look(lab.root)
            hit = killed(lambda: apply_plan(analysis, "test"), chance.uniform(0, applying))  # noqa: B023
            applying *= 1 if hit else 0.9  # it was measured when the machine had more to do
            assert digests(paths) == expected
            apply_plan(look(lab.root), "test")
            assert not look(lab.root).plan.shares
            assert len({os.stat(path).st_ino for path in paths}) <= len(set(shared.values()))
        else:
            hit = killed(take_back, chance.uniform(0, undoing))
            undoing *= 1 if hit else 0.9
            assert digests(paths) == expected
            take_back()
        met += hit
        assert digests(paths) == expected
        assert leftovers(lab.root) == []
        if number % 2:
            found = {path: os.stat(path).st_mtime_ns for path in paths}
            assert found == {path: before[path].mtime_ns for path in paths}
    assert met >= kills, "too few of them were still at work"
    assert_unchanged(before, snapshot(*trees))
    assert directories(*trees) == folders
    print(f"{met} of {rounds} kills met a run at work; apply {applying:.2f} s, undo {undoing:.2f} s")
