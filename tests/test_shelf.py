"""Where rows are kept, and work is spread: the same comes out, however little memory and many processes."""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conda_dedup_plugin import workers
from conda_dedup_plugin.engine import analyse
from conda_dedup_plugin.inventory import scan
from conda_dedup_plugin.listing import Listing, dist_id
from conda_dedup_plugin.model import Claim, Dist, Hazard, Inode
from conda_dedup_plugin.packing import Unpacker, pack_claim, pack_name, pack_stat
from conda_dedup_plugin.plan import PlanOptions
from conda_dedup_plugin.report.json import report_document
from conda_dedup_plugin.shelf import Shelf
from conda_dedup_plugin.workers import spread
from tests.lab.forge import Forge, noise

if TYPE_CHECKING:
    from pathlib import Path

    from conda_dedup_plugin.model import Scope

NAMES = "abcdefg"


@pytest.fixture
def scope(tmp_path: Path) -> Scope:
    """Environments with packages and libraries in common, some of them in one file."""
    forge = Forge(tmp_path)
    for number, name in enumerate(NAMES):
        files = {f"lib/lib{letter}.so": noise(letter, 9000) for letter in NAMES[: number + 2]}
        forge.environment(
            name, {("p", "1", "0"): files, ("q", str(number), "0"): {"lib/libq.so": b"q" * 8192}}
        )
    first = tmp_path / "envs/a/lib/liba.so"
    for name in "bc":
        other = tmp_path / "envs" / name / "lib/liba.so"
        other.unlink()
        os.link(first, other)
    return forge.scope()


def document(scope: Scope, **more: bool) -> dict[str, object]:
    return report_document(analyse(scope, PlanOptions(euid=os.geteuid()), **more), 0.0)


@pytest.mark.parametrize(
    "limits",
    [(0, 1 << 20, 1 << 20), (0, 1 << 20, 0), (1 << 30, 3, 0), (0, 1, 9)],
    ids=["file", "columns", "passes", "all"],
)
def test_the_same_report_in_little_memory(
    scope: Scope, limits: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = document(scope)
    inodes = scan(scope, 1).inodes
    monkeypatch.setattr(Shelf.__init__, "__defaults__", limits)
    assert scan(scope, 1).inodes == inodes
    for whole in (False, True):
        found = document(scope, whole=whole)
        # of groups with as many bytes it does not matter which is first
        for one in (found, expected):
            one["largest"] = sorted(one["largest"], key=str)
        assert found == expected


Said = list[tuple[int, int]]


@given(st.lists(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 7)), max_size=12), max_size=4))
def test_the_same_groups_in_many_turns(trees: list[Said]) -> None:
    """Each tree has names of inodes by number, and the contents that are said of them (0: nothing)."""

    def groups(most_rows: int) -> dict[int, dict[int, list[str]]]:
        shelf = Shelf(most_rows=most_rows)
        for index, rows in enumerate(trees):
            shelf.add(listing(index, rows))
        return {
            key: {inode.key.number: [f"{name.tree}/{name.path}" for name in inode.names] for inode in inodes}
            for grouping in shelf.groupings()
            for key, inodes in grouping.groups()
        }

    expected = groups(1000)
    assert groups(3) == groups(1) == expected
    said = {(key, inode) for rows in trees for inode, key in rows}
    assert set(expected) == {key for key, _ in said if key and len({one for k, one in said if k == key}) > 1}
    for inodes in expected.values():
        for number, names in inodes.items():
            assert names == [
                f"{index}/{row}"
                for index, rows in enumerate(trees)
                for row, (inode, _) in enumerate(rows)
                if inode == number
            ]


def listing(index: int, rows: Said) -> Listing:
    """A listing with a row for each (number of the inode, key)."""
    found = Listing(index)
    for number, (inode, key) in enumerate(rows):
        stat = os.stat_result((0o100644, inode, 1, 1, 0, 0, 9000, 0, 0, 0, 0.0, 0.0, 0.0, 0, 0, 0))
        found.idents.append(inode)
        found.keys.append(key)
        found.starts.append(len(found.rows))
        found.rows += pack_stat(stat, 12288, -1) + pack_name(Hazard.PACKAGE, str(number), b"")
    return found


def test_the_same_report_by_several_processes(scope: Scope, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = document(scope)
    monkeypatch.setattr(workers, "_PATIENCE", 0.0)
    monkeypatch.setattr(spread, "__defaults__", (0.0,))
    monkeypatch.setattr(workers, "_may_fork", lambda tasks: tasks > 1)
    monkeypatch.setattr(workers, "processors", lambda: 3)
    assert document(scope, whole=False) == expected


def forced(monkeypatch: pytest.MonkeyPatch, processes: int = 3) -> None:
    monkeypatch.setattr(workers, "_may_fork", lambda tasks: tasks > 1)
    monkeypatch.setattr(workers, "processors", lambda: processes)


def test_what_a_killed_process_had_is_done_here(monkeypatch: pytest.MonkeyPatch) -> None:
    forced(monkeypatch)
    first = os.getpid()

    def work(number: int) -> int:
        if os.getpid() != first and number % 7 == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.001)
        return number

    assert sorted(spread(200, work, 0.0)) == list(range(200))
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_an_error_is_raised_here(monkeypatch: pytest.MonkeyPatch) -> None:
    forced(monkeypatch)

    def work(number: int) -> int:
        if number == 40:
            raise ValueError("forty")
        return number

    with pytest.raises(ValueError, match="forty"):
        list(spread(100, work, 0.0))


def test_who_stops_early_leaves_nobody_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    forced(monkeypatch)
    results = spread(100, lambda number: time.sleep(0.01) or number, 0.0)
    next(results)
    results.close()
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


@pytest.mark.skipif(sys.platform != "linux", reason="forks are made on Linux alone")
def test_nothing_is_forked_beside_threads() -> None:
    import threading

    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    try:
        assert set(spread(50, lambda _: os.getpid(), 0.0)) == {os.getpid()}
    finally:
        done.set()
        thread.join()


TEXT = st.text(st.characters(exclude_characters="\0"), min_size=1, max_size=40)
CLAIMS = st.builds(
    Claim,
    st.builds(Dist, TEXT, TEXT, TEXT, TEXT, TEXT, TEXT),
    TEXT,
    st.none() | st.binary(min_size=32, max_size=32),
    st.integers(-1, 2**63 - 1),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)


@given(st.none() | CLAIMS, TEXT, st.sampled_from(Hazard), st.integers(-(2**62), 2**63), st.integers(0, 2**96))
def test_a_row_is_what_was_packed(
    claim: Claim | None, path: str, hazard: Hazard, mtime: int, number: int
) -> None:
    class Stat:
        st_dev, st_ino, st_size, st_mtime_ns, st_ctime_ns = 2**40, number, 2**50, mtime, -mtime // 2
        st_mode, st_uid, st_gid, st_nlink, st_blocks = 0o100644, 2**32 - 2, 7, 65_000, 99

    unpacker = Unpacker()
    packed = b""
    if claim is not None:
        unpacker.dists[dist_id(claim.dist)] = claim.dist
        packed = pack_claim(claim, path, dist_id(claim.dist))
    row = pack_stat(Stat, 12288, -1) + pack_name(hazard, path, packed)
    expected = Inode.of(Stat)
    expected.disk_bytes = 12288
    assert unpacker.inode(row) == expected
    name, found = unpacker.name(row, 5)
    assert (name.tree, name.path, name.claim, found) == (5, path, claim, hazard)
