"""Equal blocks of files that differ: patched binaries, other builds, other versions; on real file systems."""

from __future__ import annotations

import contextlib
import itertools
import mmap
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conda_dedup_plugin.apply import apply_plan
from conda_dedup_plugin.engine import Analysis, analyse
from conda_dedup_plugin.journal import Journal
from conda_dedup_plugin.kinds import Reason
from conda_dedup_plugin.layouts import Extent
from conda_dedup_plugin.plan import PlanOptions
from conda_dedup_plugin.sharing import blocks as sharing_blocks
from conda_dedup_plugin.sharing import reflink
from conda_dedup_plugin.sharing.outcome import SkipError
from conda_dedup_plugin.sharing.reflink import dedupe
from tests.lab.invariants import State, assert_unchanged, directories, snapshot
from tests.lab.patched import (
    DIFFERENT_BLOCKS,
    DIST,
    FILES,
    KIB,
    MIB,
    Bench,
    extents,
    half_noise,
    layout,
    marked,
    noise,
    reflink_copy,
    syncfs,
)
from tests.lab.shares import leftovers
from tests.lab.steps import changing_steps, count_steps, run_and_kill, run_with

BLOCK = 4096
#: What a file system may want or give back besides, for its own books.
METADATA = 128 * KIB
BINARY = "lib/libpython.so"
OTHER = ("py", "3", "1")


def patched_world(bench: Bench, *names: str) -> list[Path]:
    """A cache and environments, each of which has files of its own; modes, times and attributes differ."""
    bench.forge.cache({DIST: FILES})
    prefixes = [bench.forge.environment(name, {DIST: FILES}) for name in names]
    for number, prefix in enumerate(prefixes):
        os.chmod(prefix / BINARY, 0o755 if number else 0o700)
        os.setxattr(prefix / "bin/program", "user.note", str(number).encode())
        for path in FILES:
            os.utime(prefix / path, ns=(5, 1_500_000_000_123_456_789 + number))
    return prefixes


def assert_same(before: dict[str, State], bench: Bench) -> None:
    """Everything is as before but for the place on the device, the inodes too; and nothing is left behind."""
    after = snapshot(bench.root)
    assert_unchanged(before, after)
    assert {path: state.inode for path, state in before.items()} == {
        path: state.inode for path, state in after.items()
    }
    assert leftovers(bench.root) == []


def blocks(document: dict[str, Any], bench: Bench) -> dict[str, dict[str, Any]]:
    """What was done to files by blocks, by path below the bench."""
    return {os.path.relpath(found["path"], bench.root): found for found in document["done"]["blocks"]}


def shares(bench: Bench, *words: object) -> dict[str, dict[str, Any]]:
    """What is planned by blocks, by the first name below the bench."""
    return {
        os.path.relpath(share["names"][0], bench.root): share
        for share in bench.planned(*words)
        if share["method"] == "blocks"
    }


def held(bench: Bench, *words: object) -> dict[str, tuple[int, int]]:
    """(bytes, inodes) of what stays, by reason."""
    return {
        found["reason"]: (found["bytes"], found["inodes"]) for found in bench.report("--deep", *words)["held"]
    }


def two(bench: Bench, one: bytes, other: bytes, path: str = BINARY) -> tuple[Path, Path]:
    """Two environments with two builds of a package; returns the two files."""
    first = bench.forge.environment("one", {DIST: {path: one}})
    second = bench.forge.environment("two", {OTHER: {path: other}})
    return first / path, second / path


def mixed(seed: int, size: int, *equal: tuple[int, int]) -> tuple[bytes, bytes]:
    """Two contents of one size that differ everywhere but in these runs of blocks (first, how many)."""
    one, other = noise(seed, size), bytearray(noise(seed + 1, size))
    for first, count in equal:
        run = slice(first * BLOCK, min((first + count) * BLOCK, size))
        other[run] = one[run]
    return one, bytes(other)


def gained(bench: Bench, *words: object) -> tuple[dict[str, Any], int]:
    """Share; return what was said of it, and the free space gained."""
    free = bench.free()
    document = bench.apply(*words)
    return document, bench.free() - free


# -- the whole way ----------------------------------------------------------------------------------------


def test_three_environments_and_a_cache(bench: Bench) -> None:
    used = bench.data_used()
    prefixes = patched_world(bench, "a", "bb", "ccc")
    used_then, free = bench.data_used(), bench.free()
    before, folders = snapshot(bench.root), directories(bench.root)

    report = bench.report()
    totals = report["totals"]
    claimed = totals["freeable_bytes"]
    assert totals["disk_bytes"] == pytest.approx(used_then - used, rel=0.01)
    assert report["by_cause"]["prefix"]["freeable_bytes"] > 0
    planned = bench.planned()
    assert sum(share["bytes"] for share in planned) == claimed
    assert snapshot(bench.root) == before
    if not bench.compressed:
        size = sum(len(data) for path, data in FILES.items() if len(data) > BLOCK)
        tail = -len(FILES["bin/program"]) % BLOCK
        assert claimed == 3 * (size + tail - BLOCK * sum(DIFFERENT_BLOCKS.values()))

    done, gain = gained(bench)
    assert done["skipped"] == []
    assert done["done"]["bytes_freed"] == claimed
    assert done["done"]["by_method"]["blocks"]["inodes"] == 3 * len(DIFFERENT_BLOCKS)
    assert_same(before, bench)
    assert directories(bench.root) == folders
    assert gain >= claimed * 0.99
    # what is said to be gained is; with compression, a little more
    assert claimed <= gain + 2 * BLOCK
    assert gain <= claimed * 1.01 + (0 if not bench.compressed else METADATA)
    for prefix in prefixes:
        for path in DIFFERENT_BLOCKS:
            said = blocks(done, bench)[os.path.relpath(prefix / path, bench.root)]
            assert said["extents_after"] == extents(prefix / path)

    after = bench.report()
    assert after["totals"]["duplicate_bytes"] == 0
    assert after["totals"]["disk_bytes"] == pytest.approx(bench.data_used() - used, rel=0.02)
    assert after["totals"]["disk_bytes"] == totals["disk_bytes"] - claimed
    again, nothing = gained(bench)
    assert (again["planned"]["freeable_bytes"], again["done"]["inodes"]) == (0, 0)
    assert abs(nothing) <= METADATA
    assert_same(before, bench)
    assert bench.verify()["damaged"] == []

    undone = bench.undo()
    assert_same(before, bench)
    assert undone["skipped"] == undone["failed"] == []
    assert bench.free() == pytest.approx(free, abs=METADATA)
    assert undone["done"]["bytes_used"] == pytest.approx(claimed, rel=0.01)
    assert bench.report()["totals"]["freeable_bytes"] == pytest.approx(claimed, rel=0.01)


# -- who keeps --------------------------------------------------------------------------------------------


def keepers(bench: Bench) -> dict[str, str]:
    """The keeper of each file that is shared by blocks."""
    return {
        os.path.relpath(share["names"][0], bench.root): os.path.relpath(share["keeper"], bench.root)
        for share in bench.planned()
        if share["method"] == "blocks"
    }


def test_the_cached_package_keeps(bench: Bench) -> None:
    for name in ("a", "bb"):
        bench.forge.environment(name, {DIST: {BINARY: FILES[BINARY]}})
    cache = bench.forge.cache({DIST: {BINARY: FILES[BINARY]}})
    original = f"pkgs/py-3-0/{BINARY}"
    assert keepers(bench) == {f"envs/{name}/{BINARY}": original for name in ("a", "bb")}
    inode, where = os.stat(cache / f"py-3-0/{BINARY}").st_ino, layout(cache / f"py-3-0/{BINARY}")
    bench.apply()
    now = layout(cache / f"py-3-0/{BINARY}")
    assert (os.stat(cache / f"py-3-0/{BINARY}").st_ino, now.extents) == (inode, where.extents)
    assert now.shared


def test_without_a_cache_an_environment_keeps(bench: Bench) -> None:
    for name in ("a", "bb", "ccc"):
        bench.forge.environment(name, {DIST: {BINARY: FILES[BINARY]}})
    before = snapshot(bench.root)
    found = keepers(bench)
    assert len(found) == 2
    assert len(set(found.values())) == 1
    assert not set(found) & set(found.values())
    done, gain = gained(bench)
    assert done["done"]["inodes"] == 2
    assert done["done"]["bytes_freed"] <= gain + 2 * BLOCK
    assert gain > 2 * (3 * MIB - 64 * KIB) - METADATA
    assert_same(before, bench)


def test_a_cache_of_rattler_keeps_too(bench: Bench) -> None:
    """Its package is another inode with the same bytes as conda's: that one becomes a reflink."""
    files = {BINARY: FILES[BINARY]}
    bench.forge.rattler_cache({DIST: files})
    for name in ("a", "bb"):
        bench.forge.environment(name, {DIST: files})
    assert set(keepers(bench).values()) == {f"rattler/pkgs/py-3-0/{BINARY}"}
    bench.forge.cache({DIST: files})
    before = snapshot(bench.root)
    assert set(keepers(bench).values()) == {f"pkgs/py-3-0/{BINARY}"}
    done, gain = gained(bench)
    assert done["done"]["by_method"]["reflink"]["inodes"] == 1
    assert done["done"]["by_method"]["blocks"]["inodes"] == 2
    assert done["done"]["bytes_freed"] == pytest.approx(gain, rel=0.01)
    assert_same(before, bench)


# -- other builds and versions ----------------------------------------------------------------------------


@pytest.mark.parametrize(("equal", "expected"), [(64, True), (33, True), (31, False), (0, False)])
def test_other_builds(bench: Bench, equal: int, expected: bool) -> None:
    """Of 64 blocks so many are equal: half of them are enough."""
    one, other = mixed(7, 64 * BLOCK, (0, equal)) if equal < 64 else mixed(7, 64 * BLOCK, (0, 20), (21, 43))
    first, second = two(bench, one, other)
    before = snapshot(bench.root)
    report = bench.report()
    freed = report["by_cause"]["other_build"]["freeable_bytes"]
    assert freed == (min(equal, 63) * BLOCK if expected else 0)
    assert report["totals"]["freeable_bytes"] == freed
    done, gain = gained(bench)
    assert done["done"]["bytes_freed"] == freed
    assert gain == pytest.approx(freed, abs=METADATA)
    assert layout(first).shared == layout(second).shared == expected
    assert_same(before, bench)


def test_another_size_is_never_shared(bench: Bench) -> None:
    """Not even by a byte at the end, though all the rest is equal."""
    data = noise(8, 2 * MIB)
    two(bench, data, data + b"x")
    assert bench.planned() == []


def test_other_packages_are_not_compared(bench: Bench) -> None:
    """No record says that they have anything to do with each other."""
    one, other = mixed(9, 64 * BLOCK, (0, 60))
    bench.forge.environment("one", {("p", "1", "0"): {BINARY: one}})
    bench.forge.environment("two", {("q", "1", "0"): {BINARY: other}})
    assert bench.planned() == []


def test_wheels_of_two_versions(bench: Bench) -> None:
    one, other = mixed(10, 100 * BLOCK, (0, 40), (50, 50))
    module = "thing/_core.cpython-312-x86_64-linux-gnu.so"
    paths = []
    for name, version, data in (("one", "1.0", one), ("two", "2.0", other)):
        prefix = bench.forge.environment(name, {})
        bench.forge.wheel(prefix, "thing", version, {module: data, "thing/__init__.py": b""})
        paths.append(prefix / "lib/python3.12/site-packages" / module)
    before = snapshot(bench.root)
    assert len(shares(bench)) == 1
    done, gain = gained(bench)
    assert done["done"]["bytes_freed"] == 90 * BLOCK
    assert gain == pytest.approx(90 * BLOCK, abs=METADATA)
    assert all(layout(path).shared for path in paths)
    assert_same(before, bench)


def test_two_versions_in_two_environments_each(bench: Bench) -> None:
    """Equal files are shared as a whole, and one of each version by blocks, whatever comes first."""
    one, other = mixed(17, 200 * BLOCK, (0, 80), (100, 100))
    for name, version, data in (("a", "1", one), ("b", "1", one), ("c", "2", other), ("d", "2", other)):
        prefix = bench.forge.environment(name, {})
        bench.forge.wheel(prefix, "thing", version, {"thing/_core.so": data})
    before = snapshot(bench.root)
    expected = 2 * 200 * BLOCK + 180 * BLOCK
    assert bench.report()["totals"]["freeable_bytes"] == expected
    done, gain = gained(bench)
    methods = {method: found["inodes"] for method, found in done["done"]["by_method"].items()}
    assert methods == {"reflink": 2, "blocks": 1}
    assert done["done"]["bytes_freed"] == expected
    assert gain == pytest.approx(expected, abs=METADATA)
    assert_same(before, bench)
    assert bench.planned() == []


def test_a_file_with_two_names(bench: Bench) -> None:
    """It is counted and shared once, wherever its other name is."""
    files = {BINARY: FILES[BINARY]}
    bench.forge.cache({DIST: files})
    inside, outside = (bench.forge.environment(name, {DIST: files}) for name in ("a", "bb"))
    os.link(inside / BINARY, inside / "lib/again.so")
    outer = bench.root.parent / f"{bench.root.name}-again.so"
    os.link(outside / BINARY, outer)
    try:
        before = snapshot(bench.root, outer)
        claimed = bench.report()["totals"]["freeable_bytes"]
        assert claimed == 2 * (3 * MIB - DIFFERENT_BLOCKS[BINARY] * BLOCK)
        done, gain = gained(bench)
        assert done["done"]["bytes_freed"] == claimed
        assert gain == pytest.approx(claimed, rel=0.01)
        assert_unchanged(before, snapshot(bench.root, outer))
    finally:
        outer.unlink()


# -- runs -------------------------------------------------------------------------------------------------


def test_short_runs_only_if_asked_for(bench: Bench) -> None:
    """Equal are 3, 4, 1 and 40 of 64 blocks, with one that differs in between; and five at the end."""
    one, other = mixed(11, 64 * BLOCK, (0, 3), (4, 4), (9, 1), (11, 40), (59, 5))
    two(bench, one, other)
    before = snapshot(bench.root)
    ((path, share),) = shares(bench).items()
    assert share["bytes"] == (4 + 40 + 5) * BLOCK
    assert share["extents"] == 1
    done, gain = gained(bench)
    said = blocks(done, bench)[path]
    assert said["bytes_freed"] == (4 + 40 + 5) * BLOCK
    # rest, 4 shared, rest, 40 shared, rest, 5 shared
    assert (said["extents_before"], said["extents_after"]) == (1, 6)
    assert extents(bench.root / path) == 6
    assert gain == pytest.approx((4 + 40 + 5) * BLOCK, abs=METADATA)
    assert_same(before, bench)

    ((path, share),) = shares(bench, "--min-extent", BLOCK).items()
    assert share["bytes"] == (3 + 1) * BLOCK
    done = bench.apply("--min-extent", BLOCK)
    said = blocks(done, bench)[path]
    assert said["bytes_freed"] == (3 + 1) * BLOCK
    assert said["extents_before"] == 6
    assert said["extents_after"] == extents(bench.root / path) > 6
    assert_same(before, bench)
    assert shares(bench, "--min-extent", BLOCK) == {}


def test_neighbouring_equal_blocks_are_one_run(bench: Bench) -> None:
    """Of a file that is all one but for its first block, one call shares the rest: two pieces."""
    one, other = mixed(12, 600 * BLOCK, (1, 599))
    paths = two(bench, one, other)
    done = bench.apply()
    assert [said["extents_after"] for said in done["done"]["blocks"]] == [2]
    assert sorted(extents(path) for path in paths) == [1, 2]


def test_a_file_that_is_equal_as_a_whole_may_be_short(bench: Bench) -> None:
    """It is two blocks long: no file is broken into pieces by that."""
    paths = two(bench, noise(16, 2 * BLOCK), noise(16, 2 * BLOCK))
    assert [share["method"] for share in bench.planned()] == ["reflink"]
    done = bench.apply()
    assert done["done"]["bytes_freed"] == 2 * BLOCK
    assert [extents(path) for path in paths] == [1, 1]


#: Extents of a file as (hole before, length), and runs as (gap before, length), in blocks.
PIECES = st.lists(st.tuples(st.integers(0, 3), st.integers(1, 8)), max_size=6)


@given(PIECES, PIECES, st.integers(0, 40), st.integers(0, BLOCK - 1))
def test_what_lies_outside_of_runs(pieces, gaps, blocks, tail):
    """However a run goes from extent to extent: no byte of a run moves aside, and every other byte does."""

    def placed(spans):
        at, found = 0, []
        for gap, length in spans:
            found.append(((at + gap) * BLOCK, length * BLOCK))
            at += gap + length
        return found

    size = blocks * BLOCK + tail
    held_by = [Extent(at, 1000 * BLOCK + at, length) for at, length in placed(pieces) if at < size]
    runs = [(at, min(length, size - at)) for at, length in placed(gaps) if at < size]
    found = sharing_blocks._outside(held_by, runs, size)
    # each place in steps of a block, and the last byte of the file
    places = [*range(0, size, BLOCK), size - 1]

    def covers(spans, place):
        return sum(at <= place < at + length for at, length in spans)

    for place in places if size else []:
        inside = covers([(extent.logical, extent.length) for extent in held_by], place)
        assert covers(found, place) == (inside and not covers(runs, place))
    assert all(length > 0 and at + length <= size for at, length in found)


@pytest.mark.parametrize("size", ["100", "0", "-1", "4095"])
def test_a_run_below_a_block_is_refused(bench: Bench, size: str) -> None:
    two(bench, *mixed(13, 64 * BLOCK, (0, 60)))
    before = snapshot(bench.root)
    for verb in ("report", "apply"):
        words = ["--yes"] if verb == "apply" else []
        said = bench.run(
            verb, *words, "--no-discover", "--search", bench.root, f"--min-extent={size}", code=2
        )
        assert "--min-extent" in said["error"]
        assert said["error"].count(".") == 1
        assert said["hint"]
    assert snapshot(bench.root) == before


@pytest.mark.parametrize("equal", [True, False])
def test_the_end_of_a_file(bench: Bench, equal: bool) -> None:
    """A block that the file ends in is shared like the others, if it is equal up to there."""
    one, other = mixed(14, 40 * BLOCK + 777, (0, 20), (21, 20))
    if not equal:
        other = other[:-1] + bytes([other[-1] ^ 1])
    paths = two(bench, one, other)
    before = snapshot(bench.root)
    ((_, share),) = shares(bench).items()
    assert share["bytes"] == (40 if equal else 39) * BLOCK
    done, gain = gained(bench)
    assert done["done"]["bytes_freed"] == share["bytes"]
    assert gain == pytest.approx(share["bytes"], abs=METADATA)
    first, second = (layout(path).extents[-1] for path in paths)
    assert (first.physical + first.length == second.physical + second.length) == equal
    assert_same(before, bench)


# -- by chance --------------------------------------------------------------------------------------------


def by_chance(bench: Bench, chance: random.Random) -> None:
    """Up to four builds of one package in environments; some blocks are shared before, or outside."""
    size = chance.randrange(20, 80) * BLOCK + chance.choice([0, 1, 777, BLOCK - 1])
    make = chance.choice([noise, half_noise])
    base = make(chance.randrange(1000), size)
    files = []
    for number in range(chance.randrange(2, 5)):
        data = bytearray(base)
        for _ in range(chance.randrange(4)):
            at, count = chance.randrange(size // BLOCK) * BLOCK, chance.randrange(1, 20) * BLOCK
            run = slice(at, min(at + count, size))
            data[run] = noise(chance.randrange(1000), run.stop - run.start)
        dist = ("p", "1", str(chance.randrange(2)))
        if number == 0 and chance.random() < 0.5:
            files.append(bench.forge.cache({dist: {BINARY: bytes(data)}}) / "-".join(dist) / BINARY)
        else:
            files.append(bench.forge.environment(f"e{number}", {dist: {BINARY: bytes(data)}}) / BINARY)
    syncfs(bench.point)
    for _ in range(chance.randrange(3)):
        keeper, duplicate = chance.sample(files, 2)
        at, count = chance.randrange(size // BLOCK) * BLOCK, chance.randrange(1, 20) * BLOCK
        if chance.random() < 0.2:
            reflink_copy(keeper, bench.root / f"outside-{chance.random()}")
            continue
        with keeper.open("rb") as source, duplicate.open("rb") as target, contextlib.suppress(SkipError):
            dedupe(source.fileno(), target.fileno(), min(count, size - at), at)


@pytest.mark.parametrize(
    "seeds", [pytest.param(range(8), id="some"), pytest.param(range(2000), id="many", marks=pytest.mark.soak)]
)
def test_whatever_is_equal(bench: Bench, seeds: range) -> None:
    """What is claimed is freed, unless it is said to be uncertain; and undo undoes.

    A file gets blocks of one other in a run, and may find more in another one by the next.
    """
    for seed in seeds:
        chance = random.Random(seed)
        inner = Bench(bench.root / str(seed), bench.point, bench.kind)
        by_chance(inner, chance)
        least = chance.choice([BLOCK, 4 * BLOCK, 10 * BLOCK])
        words = ("--min-extent", least)
        before = snapshot(inner.root)
        for _ in range(5):
            totals = inner.report(*words)["totals"]
            if not inner.planned(*words):
                break
            done, gain = gained(inner, *words)
            freed = done["done"]["bytes_freed"]
            certain = totals["freeable_bytes"] - totals["uncertain_bytes"]
            assert certain <= freed <= totals["freeable_bytes"], seed
            assert freed <= gain + METADATA, seed
            assert done["skipped"] == [], seed
            assert_same(before, inner)
        else:
            raise AssertionError(f"{seed}: it never ends")
        inner.undo()
        assert_same(before, inner)
        shutil.rmtree(inner.root)


# -- refusals ---------------------------------------------------------------------------------------------


def assert_nothing_done(bench: Bench, *words: object) -> None:
    before = snapshot(bench.root)
    done, gain = gained(bench, *words)
    assert done["done"]["inodes"] == done["done"]["bytes_freed"] == 0
    assert abs(gain) <= METADATA
    assert_same(before, bench)


def test_a_frozen_environment(bench: Bench) -> None:
    files = {BINARY: FILES[BINARY]}
    bench.forge.cache({DIST: files})
    bench.forge.environment("a", {DIST: files}, frozen=True)
    expected = 3 * MIB - DIFFERENT_BLOCKS[BINARY] * BLOCK
    assert held(bench) == {Reason.FROZEN.value: (expected, 1)}
    assert bench.report()["by_cause"]["prefix"]["held_bytes"] == expected
    assert_nothing_done(bench)
    assert bench.apply("--override-frozen")["done"]["bytes_freed"] == expected


def test_an_environment_that_is_not_selected(bench: Bench) -> None:
    """It may keep, and is not changed."""
    prefixes = [bench.forge.environment(name, {DIST: {BINARY: FILES[BINARY]}}) for name in ("a", "bb")]
    where = [layout(prefix / BINARY).extents for prefix in prefixes]
    before = snapshot(bench.root)
    words = ("--prefix", prefixes[0])
    done = bench.run("apply", "--yes", "--no-discover", *words)
    assert done["done"]["inodes"] == 0
    home = Path(os.environ["HOME"])
    (home / ".conda").mkdir(parents=True)
    (home / ".conda/environments.txt").write_text("".join(f"{prefix}\n" for prefix in prefixes))
    done = bench.run("apply", "--yes", *words)
    assert done["done"]["inodes"] == 1
    assert layout(prefixes[0] / BINARY).extents != where[0]
    assert layout(prefixes[1] / BINARY).extents == where[1]
    assert_same(before, bench)


def test_hard_links_share_no_blocks(bench: Bench) -> None:
    patched_world(bench, "a", "bb")
    done = bench.apply("--method", "hardlink", "--dry-run")
    assert "blocks" not in {share["method"] for share in done["shares"]}
    done = bench.apply("--method", "hardlink")
    assert "blocks" not in done["done"]["by_method"]
    assert not layout(bench.root / "envs/a" / BINARY).shared


def test_a_setuid_file(bench: Bench) -> None:
    paths = two(bench, *mixed(15, 64 * BLOCK, (0, 60)))
    for path in paths:
        path.chmod(0o4755)
    assert held(bench) == {Reason.SETID.value: (60 * BLOCK, 1)}
    assert_nothing_done(bench)


def test_a_file_of_another_user(bench: Bench) -> None:
    from tests.test_inventory import NOBODY, as_nobody

    files = {BINARY: FILES[BINARY]}
    bench.forge.cache({DIST: files})
    for name in ("a", "bb"):
        prefix = bench.forge.environment(name, {DIST: files})
        if name == "bb":
            for path in (prefix, *prefix.rglob("*")):
                os.chown(path, NOBODY, NOBODY)
    before = snapshot(bench.root)

    def apply() -> dict[str, Any]:
        home = bench.root / "home"
        for name in ("HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME"):
            os.environ[name] = str(home)
        return {"report": bench.report(), "apply": bench.apply()}

    (bench.root / "home").mkdir()
    os.chown(bench.root / "home", NOBODY, NOBODY)
    for folder in [*bench.root.parents][:-1]:
        if not folder.stat().st_mode & 0o001:
            folder.chmod(folder.stat().st_mode | 0o711)
    found = as_nobody(apply)
    expected = 3 * MIB - DIFFERENT_BLOCKS[BINARY] * BLOCK
    assert [(one["reason"], one["bytes"]) for one in found["report"]["held"]] == [
        (Reason.OTHER_OWNER.value, expected)
    ]
    assert found["apply"]["done"]["inodes"] == 1
    assert found["apply"]["done"]["bytes_freed"] == expected
    shutil.rmtree(bench.root / "home")
    assert_same(before, bench)


def test_an_environment_whose_user_wants_copies(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """``always_copy`` asks for independent files, which these stay."""
    patched_world(bench, "a", "bb")
    before = snapshot(bench.root)
    home = Path(os.environ["HOME"])
    home.mkdir(exist_ok=True)
    condarc = home / "condarc"
    condarc.write_text("always_copy: true\n")
    monkeypatch.setenv("CONDARC", str(condarc))
    done, gain = gained(bench)
    assert set(done["done"]["by_method"]) == {"blocks", "reflink"}
    assert done["done"]["bytes_freed"] == pytest.approx(gain, rel=0.02)
    assert_same(before, bench)


# -- afterwards -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gone", ["envs/a", "envs/bb", "pkgs"])
def test_what_is_removed_takes_nothing_with_it(bench: Bench, gone: str) -> None:
    patched_world(bench, "a", "bb")
    before = snapshot(bench.root)
    bench.apply()
    shutil.rmtree(bench.root / gone)
    left = {path: state for path, state in before.items() if not path.startswith(f"{bench.root / gone}/")}
    assert len(left) < len(before)
    os.sync()
    assert_same(left, bench)


@pytest.mark.parametrize("at", [0, 5000, MIB, 3 * MIB - 8])
def test_writing_in_place_is_seen_nowhere_else(bench: Bench, at: int) -> None:
    """In the middle of what is shared, in what is not, and at the end; whichever file is written to."""
    patched_world(bench, "a", "bb")
    bench.apply()
    for written in ("envs/a", "envs/bb", "pkgs/py-3-0"):
        before = snapshot(bench.root)
        path = bench.root / written / BINARY
        expected = bytearray(path.read_bytes())
        expected[at : at + 8] = b"mine now"
        with path.open("r+b") as file:
            file.seek(at)
            file.write(b"mine now")
        os.utime(path, ns=(5, before[str(path)].mtime_ns))
        assert path.read_bytes() == expected
        after = snapshot(bench.root)
        changed = [name for name, state in after.items() if state.content != before[name].content]
        assert changed == [str(path)]


# -- what goes wrong --------------------------------------------------------------------------------------

#: A package of two small binaries, with one block each that differs.
SMALL = {f"lib/lib{number}.so": marked(noise(20 + number, 24 * BLOCK), 10 * BLOCK) for number in range(2)}
EDIT = b"an edit"
#: Of the steps right before something changes so many, or all steps there are.
ROUNDS = [pytest.param(8, id="some"), pytest.param(0, id="every", marks=pytest.mark.soak)]


def small_world(bench: Bench) -> tuple[Path, Path]:
    """A cache and one environment; returns the first file of each."""
    cache = bench.forge.cache({DIST: SMALL})
    prefix = bench.forge.environment("a", {DIST: SMALL})
    return prefix / "lib/lib0.so", cache / "py-3-0/lib/lib0.so"


def analysed(bench: Bench) -> Analysis:
    return analyse(bench.forge.scope(), PlanOptions(euid=os.geteuid()))


def edit(path: Path, offset: int) -> None:
    """Write in place; size and modification time are as before."""
    stat = path.stat()
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(EDIT)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def replace(path: Path, offset: int) -> None:
    """Put another file in its place, which differs in one spot."""
    data = bytearray(path.read_bytes())
    data[offset : offset + len(EDIT)] = EDIT
    new = path.with_name("new")
    new.write_bytes(data)
    shutil.copystat(path, new)
    new.rename(path)


def truncate(path: Path, offset: int) -> None:
    os.truncate(path, offset)


def remove(path: Path, offset: int) -> None:
    path.unlink()


@pytest.mark.parametrize("when", ["before", "first", "last"])
@pytest.mark.parametrize("which", ["duplicate", "keeper"])
@pytest.mark.parametrize("what", [edit, replace, truncate, remove])
def test_a_file_that_changes_between_plan_and_deed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, what: Any, which: str, when: str
) -> None:
    """Changed after it was looked at, or right before the kernel is asked for the first or last time."""
    files = small_world(bench)
    path = files[which == "keeper"]
    analysis = analysed(bench)
    runs = {id(share.duplicate): share.runs for share in analysis.plan.shares}
    assert len(runs) == 2
    asked: list[int] = []
    last = (3 if bench.pins else 2) if when == "last" else 1
    states: list[dict[str, State]] = []

    def change() -> None:
        what(path, 15 * BLOCK)
        states.append(snapshot(bench.root))

    def changing_first(*arguments: Any) -> None:
        # the share of the second file is another one
        if os.fstat(arguments[1]).st_ino == inode:
            asked.append(1)
            if len(asked) == last:
                change()
        dedupe(*arguments)

    inode = files[0].stat().st_ino
    if when == "before":
        change()
    else:
        monkeypatch.setattr(sharing_blocks, "dedupe", changing_first)
    free = bench.free()
    applied = apply_plan(analysis, "test")
    gain = bench.free() - free
    assert applied.failed == []
    assert len(states) == 1
    after = snapshot(bench.root)
    assert {name: state.content for name, state in states[0].items() if "conda-dedup" not in name} == {
        name: state.content for name, state in after.items()
    }
    assert leftovers(bench.root) == []
    reasons = set(applied.skipped)
    assert reasons <= {
        Reason.CHANGED, Reason.DIFFERENT, Reason.VANISHED, Reason.KEEPER_GONE, Reason.UNSUPPORTED
    }  # fmt: skip
    # whoever has the old inode open goes on with that; else the file is left alone
    open_still = when != "before" and what in (replace, remove)
    assert bool(reasons) != open_still
    assert applied.inodes == (2 if open_still else 1)
    assert applied.bytes_freed <= gain + METADATA
    monkeypatch.undo()
    monkeypatch.setenv("XDG_STATE_HOME", str(bench.point.parent / "state"))
    if what is edit:  # what is still equal is shared by the next run
        bench.apply()
        assert {name: state.content for name, state in after.items()} == {
            name: state.content for name, state in snapshot(bench.root).items()
        }


@pytest.mark.filesystems
@pytest.mark.parametrize("kind", ["btrfs", "btrfs-zstd"])
def test_no_room_for_what_differs(
    mounted: Callable[..., Path], kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It moves before the rest is shared: on a full btrfs nothing can be done, and nothing is."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    point = mounted(kind, 160 * MIB)
    bench = Bench(point / "full", point, kind)
    small_world(bench)
    bench.free()
    before = snapshot(bench.root)
    where = {path: layout(Path(path)) for path in before}
    fill(point / "ballast")
    done = bench.apply()
    assert done["done"]["inodes"] == done["done"]["bytes_freed"] == 0
    assert [(found["reason"], found["inodes"]) for found in done["skipped"]] == [(Reason.NO_SPACE.value, 2)]
    assert_same(before, bench)
    assert {path: layout(Path(path)) for path in before} == where
    (point / "ballast").unlink()
    bench.free()
    done, gain = gained(bench)
    assert done["done"]["inodes"] == 2
    assert done["done"]["bytes_freed"] == 2 * 23 * BLOCK
    assert gain >= 2 * 23 * BLOCK - METADATA
    assert_same(before, bench)
    shutil.rmtree(bench.root)


def fill(path: Path) -> None:
    """Fill a file system to the last block, with what cannot be compressed."""
    data = noise(99, MIB)
    with path.open("wb", buffering=0) as file:
        for size in (MIB, 64 * KIB, BLOCK):
            with contextlib.suppress(OSError):
                while True:
                    file.write(data[:size])
                    if size < MIB:
                        os.fsync(file.fileno())
    syncfs(path.parent)


def kills(rounds: int, worlds: Iterator[Bench]) -> list[int]:
    """Steps of an apply: all, or some of those right before a change, evenly spread up to the last."""
    if not rounds:
        return list(range(1, count_steps(next(worlds).apply) + 1))
    found = changing_steps(next(worlds).apply)
    assert len(found) > 8, "the steps are not seen"
    return [found[index * (len(found) - 1) // (rounds - 1)] for index in range(rounds)]


def small_worlds(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """One small world after the other, on the same file system, each with a journal of its own."""
    state = Path(os.environ["XDG_STATE_HOME"])
    for number in itertools.count():
        monkeypatch.setenv("XDG_STATE_HOME", str(state / str(number)))
        inner = Bench(bench.root / str(number), bench.point, bench.kind)
        small_world(inner)
        yield inner
        shutil.rmtree(inner.root)


def assert_finished(world: Bench) -> None:
    """The next run does what is left to do, and clears away what a former one left."""
    world.apply()
    assert leftovers(world.root) == []
    assert world.report()["totals"]["duplicate_bytes"] == 0
    journal = Journal.open()
    assert journal.open_intents() == journal.left_stagings() == []
    journal.close()


@pytest.mark.parametrize("rounds", ROUNDS)
def test_killed_at_any_step(bench: Bench, monkeypatch: pytest.MonkeyPatch, rounds: int) -> None:
    worlds = small_worlds(bench, monkeypatch)
    for step in kills(rounds, worlds):
        world = next(worlds)
        before = snapshot(world.root)
        assert run_and_kill(world.apply, step) or rounds == 0
        found = {path: state for path, state in snapshot(world.root).items() if path in before}
        assert_unchanged(before, found)
        assert_finished(world)
        assert_same(before, world)
        assert all(layout(path).shared for path in world.root.rglob("*.so")), step


@pytest.mark.parametrize("rounds", ROUNDS)
@pytest.mark.parametrize("where", ["envs/a", "pkgs/py-3-0"])
def test_written_to_at_any_step(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, rounds: int, where: str
) -> None:
    """By somebody who has the file open: what is written stays, and comes up nowhere else."""
    worlds = small_worlds(bench, monkeypatch)
    for number, step in enumerate(kills(rounds, worlds)):
        world = next(worlds)
        path = world.root / where / "lib/lib0.so"
        offset = (2, 10, 20)[number % 3] * BLOCK + 5
        before = snapshot(world.root)
        data = bytearray(path.read_bytes())
        data[offset : offset + len(EDIT)] = EDIT
        with path.open("r+b", buffering=0) as file:

            def write(step: int, file: Any = file, offset: int = offset) -> None:
                os.pwrite(file.fileno(), EDIT, offset)

            run_with(world.apply, [step], write)
            if rounds == 0:  # the last few may not be reached
                write(step)
        assert path.read_bytes() == data, step
        changed = {
            name for name, state in snapshot(world.root).items() if state.content != before[name].content
        }
        assert changed <= {str(path)}
        world.apply()
        assert path.read_bytes() == data, step
        assert leftovers(world.root) == []


@pytest.mark.parametrize(
    "rounds", [pytest.param(40, id="some"), pytest.param(2000, id="many", marks=pytest.mark.soak)]
)
@pytest.mark.parametrize("how", ["pwrite", "mmap"])
def test_a_writer_all_the_time(bench: Bench, monkeypatch: pytest.MonkeyPatch, how: str, rounds: int) -> None:
    """Even where we do not see that a file changes, no byte of the writer's is lost or found elsewhere."""
    monkeypatch.setattr(reflink, "as_planned", lambda *_: True)
    path, _ = small_world(bench)
    before = snapshot(bench.root)
    size = path.stat().st_size
    (answer, tell), (wait, stop) = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(stop)
            os.set_blocking(wait, False)
            write_all_the_time(path, size, how, wait, tell)
        finally:
            os._exit(0)
    os.close(tell)
    os.close(wait)
    shared = 0
    for _ in range(rounds):
        analysis = analysed(bench)
        applied = apply_plan(analysis, "test")
        assert applied.failed == []
        shared += applied.inodes == 2
        with contextlib.suppress(FileNotFoundError):
            bench.undo()
    os.close(stop)
    with os.fdopen(answer, "rb") as stream:
        expected = stream.read()
    os.waitpid(child, 0)
    assert len(expected) == size
    assert expected != SMALL["lib/lib0.so"]
    assert path.read_bytes() == expected
    after = snapshot(bench.root)
    changed = {name for name, state in after.items() if state.content != before[name].content}
    assert changed == {str(path)}
    assert shared > 0, "the file that is written to was never shared"
    assert leftovers(bench.root) == []


def write_all_the_time(path: Path, size: int, how: str, wait: int, tell: int) -> None:
    """Write here and there until ``wait`` is closed at its other end, then tell what there should be."""
    chance = random.Random(1)
    mirror = bytearray(path.read_bytes())
    original = bytes(mirror)
    offset = 0
    with path.open("r+b", buffering=0) as file, mmap.mmap(file.fileno(), size) as mapping:

        def write(new: bytes) -> None:
            mirror[offset : offset + 8] = new
            if how == "mmap":
                mapping[offset : offset + 8] = new
            else:
                os.pwrite(file.fileno(), new, offset)

        while True:
            # in one place at a time it is not what it was: the rest can be shared
            offset = chance.randrange(size - 8)
            write(chance.randbytes(8))
            try:
                if os.read(wait, 1) == b"":
                    break
            except BlockingIOError:
                pass
            write(original[offset : offset + 8])
    with os.fdopen(tell, "wb") as stream:
        stream.write(mirror)
