"""Bytecode that pip's packages have in every environment: shared, valid for its source, and taken back."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.lab.invariants import assert_unchanged, snapshot
from tests.lab.modules import MODULES, bytecode, check_valid, install
from tests.lab.pythons import pythons
from tests.test_report import World

NORMALIZE = ("apply", "--yes", "--normalize-bytecode")


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "world", tmp_path / "home")


def two(world: World, python: str = sys.executable, optimize: str = "", name: str = "another") -> list[Path]:
    """Two environments with the same modules, installed at different times."""
    return [
        install(python, world.root / "envs" / env, mtime, optimize=optimize)
        for env, mtime in (("one", 1_700_000_000), (name, 1_600_000_000))
    ]


def compiled(package: Path, module: str = "one", level: str = "") -> Path:
    tag = f".opt-{level}" if level else ""
    return next(
        path for path in (package / "__pycache__").iterdir()
        if path.name.startswith(f"{module}.cpython") and path.name.endswith(f"{tag}.pyc") and
        (bool(level) or ".opt-" not in path.name)
    )  # fmt: skip


def shared(one: Path, two: Path) -> bool:
    return one.stat().st_ino == two.stat().st_ino


@pytest.mark.parametrize("optimize", ["", "1"])
@pytest.mark.parametrize("python", pythons())
def test_imports_stay_valid_and_undo_restores(world: World, python: str, optimize: str) -> None:
    first, second = two(world, python, optimize)
    before = snapshot(world.root)
    size = sum(
        path.stat().st_blocks * 512
        for path in (second / "__pycache__").iterdir()
        if path.stat().st_size > 4096
    )
    document = world.json("report", "--deep", *world.search)
    assert document["normalizable_bytes"] == size > 0
    assert document["by_cause"]["bytecode"]["freeable_bytes"] == 0
    done = world.json(*NORMALIZE, *world.search)
    assert done["failed"] == done["skipped"] == []
    assert done["done"]["bytes_freed"] == size
    for module in ("one", "two"):
        for level in ("", *optimize):
            assert shared(compiled(first, module, level), compiled(second, module, level))
        assert (first / f"{module}.py").stat().st_mtime_ns == (second / f"{module}.py").stat().st_mtime_ns
        assert not shared(first / f"{module}.py", second / f"{module}.py")
    assert {path.name: path.read_bytes() for path in first.glob("*.py")} == {
        path.name: path.read_bytes() for path in second.glob("*.py")
    }
    for package in (first, second):
        check_valid(python, package)
    again = world.json(*NORMALIZE, *world.search)
    assert again["done"]["inodes"] == again["planned"]["freeable_bytes"] == 0
    world.json("verify", *world.search)
    world.json("undo", "--yes", *world.search[1:])
    assert_unchanged(before, snapshot(world.root))
    assert not shared(compiled(first), compiled(second))
    for package in (first, second):
        check_valid(python, package)


def test_it_is_opt_in(world: World) -> None:
    first, second = two(world)
    before = snapshot(world.root)
    assert world.json("apply", "--yes", *world.search)["done"]["inodes"] == 0
    assert snapshot(world.root) == before
    world.extra["CONDA_PLUGINS_DEDUP_NORMALIZE_BYTECODE"] = "true"
    assert world.json("apply", "--yes", *world.search)["done"]["inodes"] == 2
    assert shared(compiled(first), compiled(second))
    text = world.run("report", "--deep", *world.search).stdout
    assert "normalize" not in text


def test_the_report_has_a_line_of_its_own(world: World) -> None:
    two(world)
    assert (
        "more in bytecode of pip's with: --normalize-bytecode"
        in world.run("report", "--deep", *world.search).stdout
    )
    document = world.json("report", "--normalize-bytecode", *world.search)
    assert document["by_cause"]["bytecode"]["freeable_bytes"] == document["totals"]["freeable_bytes"] > 0
    assert document["normalizable_bytes"] is None


def test_another_source_is_left_alone(world: World) -> None:
    other = {**MODULES, "one.py": MODULES["one.py"].replace("left * item", "item * left")}
    first = install(sys.executable, world.root / "envs/one", 1_700_000_000)
    second = install(sys.executable, world.root / "envs/two", 1_600_000_000, modules=other)
    assert (first / "one.py").stat().st_size == (second / "one.py").stat().st_size
    assert world.json(*NORMALIZE, *world.search)["done"]["inodes"] == 1
    assert not shared(compiled(first), compiled(second))
    assert shared(compiled(first, "two"), compiled(second, "two"))


@pytest.mark.parametrize("change", ["stale", "edited", "sibling", "linked", "comment", "gone", "link"])
def test_what_does_not_fit_is_left_alone(world: World, change: str) -> None:
    first, second = two(world)
    victim = second / "one.py"
    if change == "stale":
        os.utime(victim, (1_500_000_000, 1_500_000_000))
    elif change == "edited":
        victim.write_text(victim.read_text() + "# more\n")
    elif change == "sibling":
        (second / "__pycache__/one.pypy310.pyc").write_bytes(b"of another interpreter" * 300)
    elif change == "linked":
        os.link(victim, second / "one_more.txt")
    elif change == "comment":  # the same code, and the same time and size
        stat = victim.stat()
        victim.write_text(victim.read_text().replace('"""one: a module', '"""one: A module', 1))
        os.utime(victim, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    elif change == "gone":
        victim.unlink()
    elif change == "link":
        victim.rename(second / "elsewhere.py")
        victim.symlink_to("elsewhere.py")
    before = snapshot(world.root)
    world.json(*NORMALIZE, *world.search)
    after = snapshot(world.root)
    assert not shared(compiled(first), compiled(second))
    assert shared(compiled(first, "two"), compiled(second, "two"))
    kept = {path: entry for path, entry in before.items() if "one" in os.path.basename(path)}
    assert {path: after[path] for path in kept} == kept


def test_sources_of_the_same_time_need_none(world: World) -> None:
    """As with links of uv: the sources are one inode, and only their bytecode differs."""
    first = install(sys.executable, world.root / "envs/one", 1_700_000_000)
    second = install(sys.executable, world.root / "envs/two", 1_700_000_000)
    (second / "one.py").unlink()
    os.link(first / "one.py", second / "one.py")
    before = snapshot(world.root)
    done = world.json(*NORMALIZE, *world.search)
    assert done["done"]["inodes"] == 2
    assert shared(compiled(first), compiled(second))
    for package in (first, second):
        check_valid(sys.executable, package)
    world.json("undo", "--yes", *world.search[1:])
    assert_unchanged(before, snapshot(world.root))


def test_three_environments_one_after_the_other(world: World) -> None:
    packages = two(world)
    world.json(*NORMALIZE, *world.search)
    packages.append(install(sys.executable, world.root / "envs/third", 1_650_000_000))
    before = snapshot(world.root)
    assert world.json(*NORMALIZE, *world.search)["done"]["inodes"] == 2
    assert len({compiled(package).stat().st_ino for package in packages}) == 1
    for package in packages:
        check_valid(sys.executable, package)
    run = world.json("history")["runs"][0]["id"]
    world.json("undo", "--yes", "--run", run)
    assert_unchanged(before, snapshot(world.root))


def test_text_and_bytecode_together(world: World) -> None:
    """With both settings the sources are shared as well, and all of it is taken back."""
    first, second = two(world)
    before = snapshot(world.root)
    words = ("--normalize-bytecode", "--hardlink-untracked", *world.search)
    done = world.json("apply", "--yes", *words)
    assert done["done"]["bytes_freed"] == done["planned"]["freeable_bytes"]
    for module in ("one", "two"):
        assert shared(compiled(first, module), compiled(second, module))
        assert shared(first / f"{module}.py", second / f"{module}.py")
    for package in (first, second):
        check_valid(sys.executable, package)
    assert world.json("apply", "--yes", *words)["done"]["inodes"] == 0
    world.json("undo", "--yes", *world.search[1:])
    assert_unchanged(before, snapshot(world.root))


def test_an_undo_after_an_edit_keeps_the_edit(world: World) -> None:
    first, second = two(world)
    world.json(*NORMALIZE, *world.search)
    text = (first / "one.py").read_text() + "\nEDITED = True\n"
    (first / "one.py").write_text(text)
    world.json("undo", "--yes", *world.search[1:])
    assert (first / "one.py").read_text() == text
    assert not shared(compiled(first), compiled(second))
    check_valid(sys.executable, second)


def test_without_a_journal_it_stays_valid(world: World) -> None:
    first, second = two(world)
    world.json(*NORMALIZE, "--no-journal", *world.search)
    assert shared(compiled(first), compiled(second))
    world.json("undo", "--all-links", "--yes", *world.search[1:])
    assert not shared(compiled(first), compiled(second))
    for package in (first, second):
        check_valid(sys.executable, package)


def test_only_hard_links_can(world: World) -> None:
    first, second = two(world)
    world.json(*NORMALIZE, "--method", "reflink", *world.search)
    assert not shared(compiled(first), compiled(second))
    assert bytecode(first) != bytecode(second)


@pytest.mark.parametrize("setting", ["true", "false"])
def test_after_a_command(world: World, setting: str) -> None:
    first = install(sys.executable, world.root / "envs/one", 1_700_000_000)
    world.extra["CONDA_PLUGINS_DEDUP_NORMALIZE_BYTECODE"] = setting
    two = world.root / "envs/two"
    code = f"from tests.lab.modules import *; install({sys.executable!r}, Path({str(two)!r}), 1_600_000_000)"
    done = world.run("run", *world.search, "--", sys.executable, "-c", code)
    second = two / first.relative_to(world.root / "envs/one")
    assert shared(compiled(first), compiled(second)) is (setting == "true")
    assert ("2 files of env 'two' now shared" in done.stderr) is (setting == "true")
    for package in (first, second):
        check_valid(sys.executable, package)
