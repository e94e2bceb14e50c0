"""The second report: from what the first one found, as long as no directory and no record has changed."""

from __future__ import annotations

import os
import shutil
import time
from datetime import datetime, timezone
from typing import TYPE_CHECKING

import pytest

from tests.lab.forge import noise
from tests.test_report import World

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

DIST = ("a", "1", "0")
LIBRARY = noise("library", 20_000)


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Two environments that hold the same, made long enough ago."""
    world = World(tmp_path / "world", tmp_path / "home")
    for name in ("one", "two"):
        world.forge.environment(name, {DIST: {"lib/libx.so": LIBRARY, "share/x/y.txt": b"y" * 9000}})
    rest(world.root)
    return world


def rest(root: Path) -> None:
    """Wait until nothing below is so young that a change might go unnoticed."""
    newest = max(os.lstat(folder).st_ctime for folder, _, _ in os.walk(root))
    time.sleep(max(0.0, newest + 2.1 - time.time()))


def report(world: World) -> tuple[dict[str, object], bool]:
    """The document, and whether it is the one of an earlier run."""
    time.sleep(1.1)  # a document tells the second
    began = datetime.now(timezone.utc).replace(microsecond=0)
    document = world.json("report", *world.search, "--recall")
    return document, datetime.fromisoformat(str(document["walked"])) < began


def test_a_second_report_is_the_first_one(world: World) -> None:
    first, recalled = report(world)
    assert not recalled
    assert report(world) == (first, True)
    text = world.run("report", *world.search, "--recall").stdout
    assert "nothing was added, removed or replaced since" in text
    assert str(first["walked"]) in text
    walked = world.json("report", *world.search)
    assert {**walked, "walked": ""} == {**first, "walked": ""}


def replaced(world: World) -> None:
    path = world.root / "envs/one/share/x/y.txt"
    (path.parent / "new").write_bytes(b"z" * 9000)
    os.replace(path.parent / "new", path)


def retimed(world: World) -> None:
    """What puts back the time of a directory, as archivers do, does not hide it."""
    folder = world.root / "envs/one/share/x"
    before = folder.stat()
    (folder / "more.txt").write_bytes(b"m" * 8192)
    os.utime(folder, ns=(before.st_atime_ns, before.st_mtime_ns))


def record_rewritten(world: World) -> None:
    """As conda does it: in place."""
    [path] = (world.root / "envs/two/conda-meta").glob("a-*.json")
    with path.open("a") as stream:
        stream.write(" ")


CHANGES: dict[str, Callable[[World], object]] = {
    "added": lambda world: (world.root / "envs/one/share/x/new").write_bytes(b"n"),
    "removed": lambda world: (world.root / "envs/two/share/x/y.txt").unlink(),
    "replaced": replaced,
    "retimed": retimed,
    "record": record_rewritten,
    "environment": lambda world: world.forge.environment("three", {DIST: {"lib/libx.so": LIBRARY}}),
    "gone": lambda world: shutil.rmtree(world.root / "envs/two"),
    "directory": lambda world: (world.root / "envs/one/lib/empty").mkdir(),
    "applied": lambda world: world.run("apply", "--yes", *world.search),
    "applied without a journal": lambda world: world.run("apply", "--yes", "--no-journal", *world.search),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_changed_is_seen(world: World, change: str) -> None:
    first, _ = report(world)
    CHANGES[change](world)
    second, recalled = report(world)
    assert not recalled
    walked = world.json("report", *world.search)
    assert {**second, "walked": ""} == {**walked, "walked": ""}
    assert first["walked"] <= second["walked"]


def test_other_options_and_no_cache_ask_anew(world: World) -> None:
    first, _ = report(world)
    larger = world.json("report", *world.search, "--recall", "--min-size", "10000")
    assert larger["largest"] != first["largest"]
    assert world.json("report", *world.search, "--recall", "--method", "reflink") != first
    shutil.rmtree(world.home / "state")
    second, recalled = report(world)
    assert not recalled
    assert {**second, "walked": ""} == {**first, "walked": ""}


@pytest.mark.parametrize("content", [b"", b"\0" * 100, None], ids=["empty", "zeros", "cut"])
def test_a_damaged_cache_is_no_cache(world: World, content: bytes | None) -> None:
    first, _ = report(world)
    [path] = (world.home / "state/conda-dedup/reports").iterdir()
    path.write_bytes(path.read_bytes()[:-20] if content is None else content)
    second, _ = report(world)
    assert {**second, "walked": ""} == {**first, "walked": ""}


def test_what_is_too_young_is_walked_again(world: World) -> None:
    """Its next change might come within the same tick of the file system's clock."""
    later = time.time() + 3600
    os.utime(world.root / "envs/one/lib", (later, later))
    assert not report(world)[1]
    assert not report(world)[1]
    assert not list((world.home / "state/conda-dedup").glob("reports/*"))
