"""What the report advises: caches that could be dropped, and files of conda's that pip has overwritten."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from conda_dedup_plugin.model import Manager
from tests.lab.forge import noise
from tests.lab.modules import MODULES
from tests.test_report import World

A, B = ("a", "1", "0"), ("b", "1", "0")
FILES = {"lib/liba.so": noise("a", 50_000), "share/a.txt": noise("text", 20_000)}
MORE = {"lib/libb.so": noise("b", 70_000)}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "world", tmp_path / "home")


def blocks(*paths: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in paths)


def test_a_cache_that_another_one_makes_redundant(world: World) -> None:
    pkgs = world.forge.cache({A: FILES, B: MORE})
    other = world.forge.cache({A: FILES}, manager=Manager.RATTLER, name="rattler/pkgs")
    (other / "a-1-0.lock").touch()
    own = world.forge.environment("one", {A: FILES})
    for path in FILES:  # as conda links from its cache
        (own / path).unlink()
        os.link(pkgs / "a-1-0" / path, own / path)
    freed = blocks(*(other / "a-1-0" / path for path in FILES))
    document = world.json("report", *world.search)
    assert document["redundant_caches"] == [
        {"cache": str(other), "other": str(pkgs), "packages": 1, "shared": 1, "bytes_freed": freed,
         "bytes_after": 0}
    ]  # fmt: skip
    assert f"by removing {other}" in world.run("report", *world.search).stdout.replace("\n", " ")
    # what was said is what the device gains
    before = blocks(*(path for path in world.root.rglob("*") if path.is_file() and path.stat().st_nlink == 1))
    shutil.rmtree(other / "a-1-0/lib")
    shutil.rmtree(other / "a-1-0/share")
    after = blocks(*(path for path in world.root.rglob("*") if path.is_file() and path.stat().st_nlink == 1))
    assert before - after == freed
    assert world.json("report", *world.search)["redundant_caches"] == []


def test_what_goes_only_with_the_next_apply(world: World) -> None:
    """Both caches are in use: an environment of each holds its files, until it takes the other's."""
    trees = {}
    for name, manager in (("pkgs", Manager.CONDA), ("rattler/pkgs", Manager.RATTLER)):
        cache = world.forge.cache({A: FILES}, manager=manager, name=name)
        if manager is Manager.RATTLER:
            (cache / "a-1-0.lock").touch()
        prefix = world.forge.environment(manager.value, {A: FILES})
        for path in FILES:
            (prefix / path).unlink()
            os.link(cache / "a-1-0" / path, prefix / path)
        trees[name] = cache
    [found] = world.json("report", *world.search)["redundant_caches"]
    size = blocks(*(trees["pkgs"] / "a-1-0" / path for path in FILES))
    assert (found["bytes_freed"], found["bytes_after"]) == (0, size)
    assert world.json("apply", "--yes", *world.search)["done"]["bytes_freed"] == 0
    shutil.rmtree(found["cache"])
    assert world.json("apply", "--yes", *world.search)["done"]["bytes_freed"] == size


def test_clobbered_files_are_told(world: World) -> None:
    prefix = world.forge.environment(
        "one", {("pkg", "0.9", "py_0"): {"lib/python3.11/site-packages/pkg/one.py": b"# conda's\n" * 900}}
    )
    site = prefix / "lib/python3.11/site-packages"
    (site / "pkg/one.py").write_text(MODULES["one.py"])
    info = site / "pkg-1.0.dist-info"
    info.mkdir()
    (info / "WHEEL").write_text("Wheel-Version: 1.0\nTag: py3-none-any\n")
    (info / "RECORD").write_text(f"pkg/one.py,sha256={'A' * 43},{len(MODULES['one.py'])}\n")
    [told] = world.json("report", *world.search)["clobbered"]
    assert told == {
        "environment": str(prefix),
        "path": "lib/python3.11/site-packages/pkg/one.py",
        "conda": "pkg-0.9-py_0",
        "pip": "pkg-1.0",
    }
    text = world.run("report", *world.search).stdout
    assert "Clobbered     1 file of conda's pkg-0.9-py_0 by pip's pkg-1.0 in one" in text


def test_the_consequence_of_sharing_a_cache_is_told(world: World) -> None:
    world.forge.cache({A: FILES, ("a", "2", "0"): FILES})
    assert "--include-cache" not in world.run("apply", "--yes", *world.search).stderr
    done = world.run("apply", "--yes", "--include-cache", *world.search)
    assert "2 files shared" in done.stdout
    assert "'conda clean --packages' keeps cached packages" in done.stderr


def test_inodes_of_each_environment_are_told_to_who_counts_them(world: World) -> None:
    for name in ("one", "two"):
        world.forge.environment(name, {A: FILES})
    assert "Inodes" not in world.run("report", *world.search).stdout.splitlines()[0]
    lines = world.run("report", "--goal", "inodes", *world.search).stdout.splitlines()
    rows = {line.split()[0]: line for line in lines if line.startswith(("one", "two"))}
    assert lines[0].endswith("Inodes")
    assert sorted(" ".join(row.split()[-3:]) for row in rows.values()) == ["0 of 4", "2 of 4"]
