"""Counting by extents: what lies where, who holds it, and that the numbers are those of the file system."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conda_dedup_plugin.compare import Listing, Neighbours, Wanted
from conda_dedup_plugin.kinds import Hazard, Reason
from conda_dedup_plugin.layouts import BLOCK, CompressedSizes, Extent, Layout, common_bytes, shared_extents
from conda_dedup_plugin.ledger import Ledger
from conda_dedup_plugin.records.conda_meta import read_record
from conda_dedup_plugin.sharing import extents as sharing_extents
from conda_dedup_plugin.sharing.reflink import dedupe
from tests.lab import needs
from tests.lab.invariants import assert_unchanged, snapshot
from tests.lab.patched import (
    DIST,
    FILES,
    KIB,
    MIB,
    Bench,
    btrfs_du,
    half_noise,
    layout,
    noise,
    reflink_copy,
    syncfs,
)

#: What a file system may want or give back besides, for its own books.
METADATA = 128 * KIB
LIBRARY = "lib/libx.so"

# -- pure -------------------------------------------------------------------------------------------------

#: For each place in a file the place on the device, or None for a hole.
CELLS = st.lists(st.tuples(st.none() | st.integers(0, 20), st.integers(1, 8)), max_size=5).map(
    lambda runs: [
        None if start is None else start + place for start, length in runs for place in range(length)
    ][:24]
)
SPLITS = st.sets(st.integers(0, 24))


def extents_of(cells: list[int | None], splits: set[int] = frozenset()) -> tuple[Extent, ...]:
    """The extents of such a file; between those in ``splits`` and the one before, two neighbours stay two."""
    found: list[Extent] = []
    for logical, physical in enumerate(cells):
        if physical is None:
            continue
        if found and logical not in splits:
            last = found[-1]
            if (last.logical + last.length, last.physical + last.length) == (logical, physical):
                found[-1] = last._replace(length=last.length + 1)
                continue
        found.append(Extent(logical, physical, 1))
    return tuple(found)


def cells_of(extents: tuple[Extent, ...]) -> dict[int, int]:
    return {
        extent.logical + offset: extent.physical + offset
        for extent in extents
        for offset in range(extent.length)
    }


@given(CELLS, CELLS, SPLITS, SPLITS)
def test_common_bytes(one, other, splits, others):
    """Bytes of the same place in both files, at the same place of the device, however they are split."""
    expected = sum(a == b is not None for a, b in zip(one, other, strict=False) if a is not None)
    first = Layout(extents_of(one, splits), False, True)
    second = Layout(extents_of(other, others), False, True)
    assert common_bytes(first, second) == expected
    assert common_bytes(second, first) == expected


def test_compressed_extents_are_where_they_begin():
    """The first takes less than its length, and the next is written behind it."""

    def packed(*pieces):
        return Layout(tuple(Extent(*piece, True) for piece in pieces), False, True)

    whole = packed((0, 100, 32))
    assert common_bytes(whole, packed((17, 117, 11))) == 0
    assert common_bytes(whole, packed((0, 100, 32))) == 32
    assert common_bytes(whole, packed((8, 100, 24), (0, 300, 8))) == 24
    assert common_bytes(packed((0, 100, 8), (20, 100, 12)), packed((4, 100, 20))) == 8
    assert common_bytes(whole, Layout((Extent(0, 100, 32),), False, True)) == 0


@given(CELLS, SPLITS, st.sets(st.integers(0, 24)))
def test_shared_extents(cells, splits, alone):
    """What is not one's own is shared."""
    whole = extents_of(cells, splits)
    own = extents_of([cell if place in alone else None for place, cell in enumerate(cells)], splits)
    found = Layout(whole, True, True, own)
    expected = {place: cell for place, cell in cells_of(whole).items() if place not in alone}
    assert cells_of(shared_extents(found)) == expected
    assert cells_of(found.unshared) == cells_of(own)
    assert shared_extents(Layout(whole, False, True)) == ()
    assert Layout(whole, False, True).unshared == whole


@given(CELLS, SPLITS)
def test_neighbours_become_one(cells, splits):
    """XFS splits an extent where a part of it is shared: that is no other place."""
    found: list[Extent] = []
    for extent in extents_of(cells, splits):
        sharing_extents.append(found, extent)
    assert tuple(found) == extents_of(cells)


def test_what_is_compressed_is_never_merged():
    found: list[Extent] = []
    for extent in (Extent(0, 0, 8, True), Extent(8, 8, 8, True), Extent(16, 16, 8), Extent(24, 24, 8, True)):
        sharing_extents.append(found, extent)
    assert len(found) == 4


@given(st.lists(st.tuples(st.integers(1, 33), st.integers(0, 3)), min_size=1, max_size=20), st.data())
def test_sizes_of_what_is_compressed(packed, data):
    """Written one after the other each ends where the next begins; the last one is estimated.

    Drawn are how many blocks each takes (of 33), and how many are free behind it.
    """
    place, true = 100 * BLOCK, {}
    for taken, gap in packed:
        true[place] = (min(taken, 31) * BLOCK, gap)
        place += (min(taken, 31) + gap) * BLOCK
    sizes = CompressedSizes()
    starts = data.draw(st.permutations(list(true)))
    for start in starts:
        sizes.add("pool", Layout((Extent(0, start, 32 * BLOCK, True),), False, True))
    last = max(true)
    for start in starts:
        found = sizes.size("pool", start, 32 * BLOCK)
        assert BLOCK <= found <= 31 * BLOCK
        assert found % BLOCK == 0
        taken, gap = true[start]
        if start != last and taken + gap * BLOCK <= 31 * BLOCK:
            assert found == taken + gap * BLOCK
        elif start != last:
            assert found <= 31 * BLOCK
    # elsewhere nothing is known of these
    assert CompressedSizes().size("pool", last, 32 * BLOCK) == 16 * BLOCK


def test_a_compressed_extent_in_parts_counts_once():
    sizes = CompressedSizes()
    parts = (Extent(0, 7 * BLOCK, 8 * BLOCK, True), Extent(16 * BLOCK, 7 * BLOCK, 16 * BLOCK, True))
    layout = Layout((*parts, Extent(8 * BLOCK, 100 * BLOCK, 8 * BLOCK)), False, True)
    sizes.add("pool", layout)
    sizes.add("pool", Layout((Extent(0, 10 * BLOCK, BLOCK),), False, True))
    assert sizes.disk_bytes("pool", layout) == 3 * BLOCK + 8 * BLOCK


HOLDERS = st.lists(st.tuples(CELLS, SPLITS, st.integers(0, 3), st.booleans(), st.booleans()), max_size=6)


@settings(max_examples=200)
@given(HOLDERS)
def test_the_ledger_counts_every_byte_once(holders):
    ledger = Ledger("pool")
    tags: dict[int, list[tuple[int, bool, bool]]] = {}
    for cells, splits, tree, private, recorded in holders:
        ledger.add(extents_of(cells, splits), tree, Hazard.NATIVE, private, recorded)
        for cell in cells:
            if cell is not None:
                tags.setdefault(cell, []).append((tree, private, recorded))
    expected: Counter[tuple[frozenset[int], bool, bool]] = Counter()
    for found in tags.values():
        trees = frozenset(tree for tree, _, _ in found)
        private = len(trees) == 1 and all(private for _, private, _ in found)
        expected[trees, private, any(recorded for _, _, recorded in found)] += 1
    counted: Counter[tuple[frozenset[int], bool, bool]] = Counter()
    for segment in ledger.segments(CompressedSizes()):
        assert segment.size > 0
        assert not segment.estimated
        counted[segment.trees, segment.private, segment.recorded] += segment.size
    assert counted == expected


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 32), st.integers(0, 3)), min_size=1, max_size=12))
def test_the_ledger_takes_compressed_extents_by_their_beginning(holders):
    """They are ten that lie 20 blocks apart, held as a whole or in parts by some."""
    ledger, sizes = Ledger("pool"), CompressedSizes()
    trees: dict[int, set[int]] = {}
    for number, length, tree in holders:
        extent = Extent(0, number * 20 * BLOCK, length * BLOCK, True)
        sizes.add("pool", Layout((extent,), False, True))
        ledger.add((extent,), tree, Hazard.NATIVE, False, True)
        trees.setdefault(number, set()).add(tree)
    found = list(ledger.segments(sizes))
    assert all(segment.estimated and segment.size >= BLOCK for segment in found)
    assert Counter(segment.trees for segment in found) == Counter(map(frozenset, trees.values()))


# -- what shares its extents already ----------------------------------------------------------------------


def private(report: dict[str, Any]) -> dict[str, int]:
    return {entry["name"]: entry["private_bytes"] for entry in report["environments"] + report["caches"]}


def held(report: dict[str, Any]) -> dict[str, tuple[int, int]]:
    return {found["reason"]: (found["bytes"], found["inodes"]) for found in report["held"]}


def assert_as_btrfs_says(bench: Bench, report: dict[str, Any]) -> None:
    """``btrfs filesystem du`` counts what is compressed by its length."""
    if not bench.pins or bench.compressed:
        return
    whole, exclusive, shared = btrfs_du(bench.root)
    assert whole > exclusive + shared
    assert report["totals"]["disk_bytes"] == exclusive + shared
    for entry in report["environments"] + report["caches"]:
        whole, exclusive, shared = btrfs_du(Path(entry["prefix"]))
        assert (entry["disk_bytes"], entry["private_bytes"]) == (exclusive + shared, exclusive)


def test_a_copy_by_reflinks(bench: Bench) -> None:
    """``cp -a --reflink=always`` of an environment has no duplicate bytes, and next to none of its own."""
    used = bench.data_used()
    prefix = bench.forge.environment("one", {DIST: FILES})
    alone = bench.report()
    assert private(alone)["one"] == alone["totals"]["disk_bytes"] > 5 * MIB
    reflink_copy(prefix, prefix.with_name("two"))
    report = bench.report("--deep")
    assert report["totals"]["duplicate_bytes"] == 0
    assert max(private(report).values()) < 64 * KIB
    assert report["totals"]["disk_bytes"] == pytest.approx(alone["totals"]["disk_bytes"], abs=64 * KIB)
    assert report["totals"]["disk_bytes"] == pytest.approx(bench.data_used() - used, rel=0.01, abs=METADATA)
    one, two = report["environments"]
    assert one["disk_bytes"] == two["disk_bytes"] == pytest.approx(alone["totals"]["disk_bytes"], rel=0.01)
    assert_as_btrfs_says(bench, report)
    before = snapshot(bench.root)
    assert bench.apply()["done"]["inodes"] == 0
    assert_unchanged(before, snapshot(bench.root))
    # a third one that is a copy in earnest is a duplicate of both, once
    subprocess.run(["cp", "-a", "--reflink=never", prefix, prefix.with_name("three")], check=True)
    totals = bench.report("--deep")["totals"]
    free = bench.free()
    done = bench.apply()
    assert done["done"]["bytes_freed"] == totals["freeable_bytes"] > 5 * MIB
    assert bench.free() - free == pytest.approx(totals["freeable_bytes"], rel=0.01)
    assert bench.report("--deep")["totals"]["duplicate_bytes"] == 0


def test_environments_of_rattler(bench: Bench, channel: Any) -> None:
    """Where rattler reflinks, only what is patched is there more than once."""
    from tests.lab.world import rattler_create

    used = bench.data_used()
    for name in ("one", "two"):
        prefix = bench.root / "envs" / name
        rattler_create(prefix, ("prefixed", "two-builds", "settings"), channel.url, bench.root / "cache")
    shutil.rmtree(bench.root / "cache/repodata", ignore_errors=True)
    report = bench.report()
    causes = {cause: found["duplicate_bytes"] for cause, found in report["by_cause"].items()}
    assert causes.pop("prefix") == report["totals"]["duplicate_bytes"] > 0
    assert not any(causes.values()), causes
    shared = snapshot(bench.root / "envs/one/lib/two-builds")
    assert shared
    assert all(layout(Path(path)).shared for path in shared)
    archives = sum(
        path.stat().st_blocks * 512 for path in bench.root.rglob("*") if path.suffix in (".conda", ".bz2")
    )
    assert report["totals"]["disk_bytes"] == pytest.approx(
        bench.data_used() - used - archives, rel=0.01, abs=METADATA
    )
    assert_as_btrfs_says(bench, report)
    done = bench.apply()
    assert done["done"]["bytes_freed"] == report["totals"]["freeable_bytes"] > 0
    assert bench.report()["totals"]["duplicate_bytes"] == 0


def twins(
    bench: Bench, data: bytes, path: str = LIBRARY, names: tuple[str, ...] = ("one", "two")
) -> list[Path]:
    """Environments with the same file, each a copy; returns the files."""
    return [bench.forge.environment(name, {DIST: {path: data}}) / path for name in names]


def test_what_a_snapshot_holds_is_not_claimed(bench: Bench) -> None:
    """It lies outside of what is looked at, and nothing would be gained."""
    if not bench.pins:
        pytest.skip("only btrfs has snapshots")
    btrfs("subvolume", "create", bench.root / "sub")
    inner = Bench(bench.root / "sub", bench.point, bench.kind)
    twins(inner, noise(1, MIB))
    twins(inner, FILES["lib/libpython.so"], "lib/libpython.so", ("three", "four"))
    (tree,) = (entry for entry in inner.report()["environments"] if entry["name"] == "one")
    assert tree["freeable_bytes"] + tree["private_bytes"] >= MIB
    before = inner.report()["totals"]
    assert before["freeable_bytes"] > 3 * MIB
    btrfs("subvolume", "snapshot", "-r", inner.root, bench.root / "snapshot")
    report = inner.report()
    assert report["totals"]["freeable_bytes"] == 0
    assert report["totals"]["disk_bytes"] == before["disk_bytes"]
    assert max(private(report).values()) < 16 * KIB
    assert held(report)[Reason.SHARED_OUTSIDE.value] == (MIB, 1)
    free = inner.free()
    done = inner.apply()
    assert done["done"]["bytes_freed"] == 0
    assert abs(inner.free() - free) <= METADATA
    btrfs("subvolume", "delete", "--commit-after", bench.root / "snapshot")
    btrfs("subvolume", "sync", bench.point)
    assert inner.report()["totals"]["freeable_bytes"] == before["freeable_bytes"]


def btrfs(*words: object) -> None:
    needs("needs btrfs", shutil.which("btrfs"))
    subprocess.run(["btrfs", *map(str, words)], check=True, capture_output=True)


@pytest.mark.parametrize("outside", [True, False])
def test_what_somebody_outside_holds_is_uncertain(bench: Bench, outside: bool) -> None:
    """Two inodes share their bytes, and nobody can tell whether there is a third one."""
    data = noise(2, MIB)
    (cached,) = [bench.forge.cache({DIST: {LIBRARY: data}}) / "py-3-0" / LIBRARY]
    one, two = twins(bench, data)
    third = bench.root.parent / f"{bench.root.name}-third"
    try:
        two.unlink()
        reflink_copy(one, two)
        if outside:
            reflink_copy(one, third)
        totals = bench.report()["totals"]
        assert totals["freeable_bytes"] == totals["uncertain_bytes"] == MIB
        free = bench.free()
        done = bench.apply()
        assert done["done"]["inodes"] == 2
        assert done["done"]["bytes_freed"] == (0 if outside else MIB)
        assert bench.free() - free == pytest.approx(done["done"]["bytes_freed"], abs=METADATA)
        assert layout(one).extents == layout(two).extents == layout(cached).extents
        assert bench.report()["totals"]["duplicate_bytes"] == 0
    finally:
        third.unlink(missing_ok=True)


# -- files of all sorts -----------------------------------------------------------------------------------


def test_files_that_were_just_written(bench: Bench) -> None:
    """They have no place on the device yet, and are counted all the same."""
    twins(bench, noise(3, 4 * MIB))
    fresh = bench.report()
    syncfs(bench.point)
    assert bench.report()["totals"] == fresh["totals"]
    assert fresh["totals"]["freeable_bytes"] == 4 * MIB
    free = bench.free()
    twins(bench, noise(4, MIB), names=("three", "four"))
    bench.apply()  # at once
    assert free - bench.free() == pytest.approx(MIB - 4 * MIB, abs=METADATA)


@pytest.mark.parametrize("size", [1, 100, 2000, 3000, 4095])
def test_small_files_are_left_alone_and_said_so(bench: Bench, size: int) -> None:
    files = twins(bench, b"s" * size)
    before = snapshot(bench.root)
    report = bench.report("--min-size", 1)
    assert set(held(report)) == {Reason.NO_BLOCKS.value}
    assert held(report)[Reason.NO_BLOCKS.value][1] == 1
    assert report["totals"]["freeable_bytes"] == 0
    done = bench.apply("--min-size", 1)
    assert done["done"]["inodes"] == 0
    assert snapshot(bench.root) == before
    assert not any(layout(path).shared for path in files)
    if bench.pins and size <= 2000:
        assert not any(layout(path).exact for path in files)


def test_a_file_kept_in_the_metadata_though_it_is_large(bench: Bench) -> None:
    """What compresses well may be inline, a block long as it is, or more."""
    twins(bench, b"x" * 4096)
    free = bench.free()
    report = bench.report()
    done = bench.apply()
    assert done["done"]["bytes_freed"] == report["totals"]["freeable_bytes"]
    assert done["done"]["bytes_freed"] <= bench.free() - free + METADATA
    assert bench.report()["totals"]["freeable_bytes"] == 0


def test_holes(bench: Bench) -> None:
    """What is not there is not counted, not claimed, and still not there afterwards."""
    files = twins(bench, b"")
    one, other = noise(5, MIB), noise(6, MIB)
    for path in files:
        with path.open("wb") as file:
            file.write(one)
            file.seek(9 * MIB)
            file.write(other)
        rerecord(path)
    before = snapshot(bench.root)
    report = bench.report()
    assert report["totals"]["freeable_bytes"] == 2 * MIB
    assert report["totals"]["disk_bytes"] == pytest.approx(4 * MIB, abs=64 * KIB)
    free = bench.free()
    assert bench.apply()["done"]["bytes_freed"] == 2 * MIB
    assert bench.free() - free == pytest.approx(2 * MIB, abs=METADATA)
    assert_unchanged(before, snapshot(bench.root))
    assert bench.report()["totals"]["disk_bytes"] == pytest.approx(2 * MIB, abs=64 * KIB)
    bench.undo()
    assert bench.free() == pytest.approx(free, abs=METADATA)
    assert_unchanged(before, snapshot(bench.root))


def test_room_set_aside(bench: Bench) -> None:
    """``fallocate``: blocks that nothing was written to are blocks, too."""
    files = twins(bench, b"")
    data = noise(7, MIB)
    for path in files:
        with path.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, 3 * MIB)
            file.write(data)
        rerecord(path)
    used = bench.free()
    before = snapshot(bench.root)
    report = bench.report()
    claimed = report["totals"]["freeable_bytes"]
    assert report["totals"]["disk_bytes"] == pytest.approx(6 * MIB, abs=64 * KIB)
    done = bench.apply()
    gain = bench.free() - used
    assert done["done"]["bytes_freed"] == pytest.approx(gain, abs=METADATA)
    assert claimed == 3 * MIB
    if bench.pins:
        assert gain == pytest.approx(claimed, abs=METADATA)
        assert bench.report()["totals"]["freeable_bytes"] == 0
    else:  # XFS keeps what is unwritten in both, which nobody can tell beforehand
        assert done["done"]["bytes_freed"] == MIB
    assert_unchanged(before, snapshot(bench.root))
    syncfs(bench.point)
    free = bench.free()
    assert bench.apply()["done"]["bytes_freed"] == 0
    assert abs(bench.free() - free) <= METADATA


def rerecord(path: Path) -> None:
    """Have the record of its environment say what a file holds now."""
    import json

    from tests.lab.forge import digest

    data = path.read_bytes()
    root = path.parents[1]
    record_file = root / "conda-meta/py-3-0.json"
    record = json.loads(record_file.read_text())
    for said in record["paths_data"]["paths"]:
        said |= {"sha256": digest(data), "sha256_in_prefix": digest(data), "size_in_bytes": len(data)}
    record_file.write_text(json.dumps(record))
    os.utime(path, (1_600_000_000, 1_600_000_000))


def test_files_that_are_never_copied_on_write(bench: Bench) -> None:
    """``chattr +C``: the kernel shares nothing between such a file and another one; nothing is claimed."""
    if not bench.pins:
        pytest.skip("only btrfs has such files")
    data = noise(8, MIB)
    for name in ("one", "two", "three", "four"):
        prefix = bench.root / "envs" / name
        (prefix / "lib").mkdir(parents=True)
        if name in ("one", "two"):
            subprocess.run(["chattr", "+C", prefix / "lib"], check=True)
        bench.forge.environment(name, {DIST: {LIBRARY: data, "lib/libpython.so": FILES["lib/libpython.so"]}})
    before = snapshot(bench.root)
    report = bench.report()
    found = held(report)
    assert found.keys() == {Reason.NO_COW.value}
    assert found[Reason.NO_COW.value] == (2 * MIB, 2)
    claimed = report["totals"]["freeable_bytes"]
    assert 4 * MIB - 5 * BLOCK <= claimed < 4 * MIB
    free = bench.free()
    done = bench.apply()
    assert done["skipped"] == []
    assert done["done"]["bytes_freed"] == claimed
    assert bench.free() - free == pytest.approx(claimed, abs=METADATA)
    assert_unchanged(before, snapshot(bench.root))
    report = bench.report()
    assert (report["totals"]["freeable_bytes"], report["totals"]["held_bytes"]) == (0, 2 * MIB)
    hard = bench.apply("--method", "hardlink")
    assert hard["done"]["inodes"] >= 2


# -- subvolumes -------------------------------------------------------------------------------------------


def test_subvolumes_are_one_file_system(bench: Bench) -> None:
    """Cache and environments have other device numbers, and share all the same."""
    if not bench.pins:
        pytest.skip("only btrfs has subvolumes")
    for name in ("first", "second"):
        btrfs("subvolume", "create", bench.root / name)
    plain = {LIBRARY: noise(9, MIB), "lib/libpython.so": FILES["lib/libpython.so"]}
    bench.forge.cache({DIST: plain}, root=bench.root / "first")
    prefix = bench.forge.environment("a", {DIST: plain}, root=bench.root / "second")
    assert (bench.root / "first").stat().st_dev != prefix.stat().st_dev
    before = snapshot(bench.root)
    free = bench.free()
    hard = bench.report("--method", "hardlink")
    assert held(hard) == {Reason.OTHER_DEVICE.value: (MIB, 1)}
    assert hard["totals"]["freeable_bytes"] == 0
    totals = bench.report()["totals"]
    expected = MIB + 3 * MIB - 5 * BLOCK
    assert totals["freeable_bytes"] == expected
    assert totals["held_bytes"] == 0
    done = bench.apply()
    assert done["skipped"] == []
    assert done["done"]["bytes_freed"] == expected
    assert bench.free() - free == pytest.approx(expected, rel=0.01)
    assert_unchanged(before, snapshot(bench.root))
    assert bench.report()["totals"]["duplicate_bytes"] == 0
    bench.undo()
    assert bench.free() == pytest.approx(free, abs=METADATA)
    assert_unchanged(before, snapshot(bench.root))


def test_neighbours_in_other_subvolumes(bench: Bench) -> None:
    """Whoever looks at one new environment alone finds the cache beyond the border."""
    if not bench.pins:
        pytest.skip("only btrfs has subvolumes")
    for name in ("first", "second"):
        btrfs("subvolume", "create", bench.root / name)
    files = {LIBRARY: noise(9, MIB)}
    bench.forge.cache({DIST: files}, root=bench.root / "first")
    prefix = bench.forge.environment("a", {DIST: files}, root=bench.root / "second")
    trees = bench.forge.trees
    listing = Listing()
    _, claims = read_record(prefix / "conda-meta/py-3-0.json")
    Neighbours(trees, 1, Wanted()).same_package("py-3-0", claims, listing)
    assert list(listing.trees[0]) == [f"py-3-0/{LIBRARY}"]


# -- partly shared before ---------------------------------------------------------------------------------


@pytest.mark.parametrize("compressible", [False, True])
def test_the_other_half(bench: Bench, compressible: bool) -> None:
    """Of a file that is shared by half, the other half is claimed."""
    one, two = twins(bench, (half_noise if compressible else noise)(10, 2 * MIB))
    share_by_hand(one, two, MIB)
    before = snapshot(bench.root)
    assert layout(two).shared
    report = bench.report()
    claimed = report["totals"]["freeable_bytes"]
    if not (bench.compressed and compressible):
        assert claimed == MIB
    assert 0 < claimed <= MIB
    free = bench.free()
    done = bench.apply()
    gain = bench.free() - free
    assert done["done"]["bytes_freed"] == claimed
    # on btrfs, the half that was shared by hand was not free yet
    assert claimed <= gain + METADATA
    if not bench.pins:
        assert gain == pytest.approx(MIB, abs=METADATA)
    assert layout(one).extents == layout(two).extents
    assert_unchanged(before, snapshot(bench.root))
    assert bench.report()["totals"]["duplicate_bytes"] == 0


def test_the_other_half_of_a_patched_binary(bench: Bench) -> None:
    path = "lib/libpython.so"
    original = bench.forge.cache({DIST: {path: FILES[path]}}) / "py-3-0" / path
    copy = bench.forge.environment("a", {DIST: {path: FILES[path]}}) / path
    share_by_hand(original, copy, MIB, offset=MIB + BLOCK)
    before = snapshot(bench.root)
    claimed = bench.report()["totals"]["freeable_bytes"]
    assert claimed == 2 * MIB - 5 * BLOCK
    free = bench.free()
    done = bench.apply()
    gain = bench.free() - free
    assert done["done"]["bytes_freed"] == claimed
    assert claimed <= gain + METADATA
    if not bench.pins:
        assert gain == pytest.approx(claimed, abs=METADATA)
    assert_unchanged(before, snapshot(bench.root))
    assert bench.report()["totals"]["duplicate_bytes"] == 0


def share_by_hand(keeper: Path, duplicate: Path, length: int, offset: int = 0) -> None:
    syncfs(keeper.parent)
    with keeper.open("rb") as source, duplicate.open("rb") as target:
        dedupe(source.fileno(), target.fileno(), length, offset)
    syncfs(keeper.parent)


def test_a_split_is_no_other_place(bench: Bench) -> None:
    """A file of which the middle is shared has one piece where it had one, and two of its own.

    Btrfs counts an extent as a whole: it is shared, or nobody else's.
    """
    one, two = twins(bench, noise(11, MIB))
    where = layout(one)
    share_by_hand(one, two, 256 * KIB, offset=256 * KIB)
    now = layout(one)
    assert now.extents == where.extents
    assert now.shared
    own = [(extent.logical, extent.length) for extent in now.unshared]
    assert own == ([] if bench.pins else [(0, 256 * KIB), (512 * KIB, 512 * KIB)])
    assert common_bytes(now, layout(two)) == 256 * KIB
    assert [extent.length for extent in shared_extents(now)] == [MIB if bench.pins else 256 * KIB]
