"""Equal blocks of files that differ: patched binaries, other builds, other versions; on real file systems."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from conda_dedup_plugin.kinds import Reason
from tests.lab.invariants import State, assert_unchanged, directories, snapshot
from tests.lab.patched import (
    DIFFERENT_BLOCKS,
    DIST,
    FILES,
    KIB,
    MIB,
    Bench,
    extents,
    layout,
    noise,
)
from tests.lab.shares import leftovers

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
    data = noise(8, 64 * BLOCK)
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
