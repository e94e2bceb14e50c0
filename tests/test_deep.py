"""``--deep``: files that no record covers are read, no more than needed, and what was read is remembered."""

from __future__ import annotations

import os
import pty
import select
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from conda_dedup_plugin import contents, digests
from conda_dedup_plugin.engine import Analysis, analyse
from conda_dedup_plugin.model import Inode
from conda_dedup_plugin.plan import PlanOptions
from tests.lab import needs
from tests.lab.forge import Forge, digest, noise
from tests.lab.invariants import assert_unchanged, free_bytes, snapshot
from tests.lab.mounts import REFLINK_KINDS
from tests.test_report import DIST, LIBRARY, World, check_schema

STAMP = 1_600_000_000
SIZE = 20_000
DATA = noise("user's", SIZE)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "world", tmp_path / "home")


def put(env: Path, path: str, data: bytes, mtime: int = STAMP) -> Path:
    """A file that no record speaks of."""
    target = env / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(data)
    os.utime(target, (mtime, mtime))
    return target


def two(world: World, files: dict[str, bytes]) -> tuple[Path, Path]:
    """Two environments with the same files of their user's."""
    one, other = (world.forge.environment(name, {}) for name in ("one", "two"))
    for env in (one, other):
        for path, data in files.items():
            put(env, path, data)
    return one, other


def blocks(path: Path) -> int:
    return path.lstat().st_blocks * 512


def held(document: dict[str, Any]) -> dict[str, int]:
    return {found["reason"]: found["bytes"] for found in document["held"]}


def changed(data: bytes, place: int) -> bytes:
    """The same but for one byte."""
    place %= len(data)
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


# -- what is found, and what is done about it --------------------------------------------------------------


def test_found_only_when_asked_for(world: World) -> None:
    one, other = two(world, {"lib/mine.so": DATA})
    shallow = world.json("report", *world.search)
    check_schema(shallow)
    assert shallow["deep"] is False
    assert shallow["totals"]["duplicate_bytes"] == 0
    assert shallow["totals"]["unrecorded_bytes"] > 2 * SIZE
    assert not list((world.home / "state").rglob("digests*"))
    assert "not compared without: --deep" in world.run("report", *world.search).stdout
    deep = world.json("report", "--deep", *world.search)
    check_schema(deep)
    assert deep["deep"] is True
    assert deep["totals"]["freeable_bytes"] == blocks(other / "lib/mine.so")
    assert deep["totals"]["unrecorded_bytes"] == shallow["totals"]["unrecorded_bytes"]
    (group,) = deep["largest"]
    assert {group["keeper"], *group["names"]} == {str(env / "lib/mine.so") for env in (one, other)}
    assert deep["by_cause"]["untracked"]["freeable_bytes"] == deep["totals"]["freeable_bytes"]
    assert "no record covers, compared" in world.run("report", "--deep", *world.search).stdout


@pytest.mark.parametrize(("option", "expected"), [((), 1), (("--deep",), 1), (("--no-deep",), 0)])
def test_apply_is_deep_by_itself(world: World, option: tuple[str, ...], expected: int) -> None:
    one, other = two(world, {"lib/mine.so": DATA})
    assert world.json("apply", "--yes", *option, *world.search)["done"]["inodes"] == expected
    assert os.path.samefile(one / "lib/mine.so", other / "lib/mine.so") is bool(expected)


def test_programs_are_linked_and_text_is_not(world: World) -> None:
    files = {"lib/mine.so": DATA, "share/mine.txt": DATA[::-1], "share/mine.db": DATA[1:]}
    one, other = two(world, files)
    before = snapshot(one, other)
    done = world.json("apply", "--yes", *world.search)["done"]
    assert (done["inodes"], done["inodes_freed"]) == (1, 1)
    assert done["by_method"] == {"hardlink": {"inodes": 1, "bytes_freed": blocks(other / "lib/mine.so")}}
    assert os.path.samefile(one / "lib/mine.so", other / "lib/mine.so")
    report = world.json("report", "--deep", *world.search)
    assert held(report) == {
        "not a package's file": blocks(other / "share/mine.txt"),
        "may be changed in place": blocks(other / "share/mine.db"),
    }
    done = world.json("apply", "--yes", "--hardlink-untracked", *world.search)["done"]
    assert done["inodes"] == 1
    assert os.path.samefile(one / "share/mine.txt", other / "share/mine.txt")
    assert not os.path.samefile(one / "share/mine.db", other / "share/mine.db")
    assert_unchanged(before, snapshot(one, other))


def test_sources_keep_their_time(world: World) -> None:
    """Bytecode depends on the time of a ``.py``: of other text it does not matter."""
    one, other = two(world, {"lib/same.py": DATA, "share/mine.txt": DATA[::-1]})
    for path in ("lib/late.py", "share/late.txt"):
        put(one, path, noise(path, SIZE))
        put(other, path, noise(path, SIZE), STAMP + 5)
    words = ("--hardlink-untracked", *world.search)
    assert set(held(world.json("report", "--deep", *words))) == {"other modification time"}
    world.json("apply", "--yes", *words)
    same = {
        path: os.path.samefile(one / path, other / path)
        for path in ("lib/same.py", "share/mine.txt", "lib/late.py", "share/late.txt")
    }
    assert same == {"lib/same.py": True, "share/mine.txt": True, "lib/late.py": False, "share/late.txt": True}


def test_on_every_file_system(tmp_path: Path, device_dir: Path, device_kind: str) -> None:
    world = World(device_dir / "world", tmp_path / "home")
    size = 4 << 20
    files = {"lib/mine.so": noise("so", size), "share/mine.txt": noise("txt", size)}
    one, other = two(world, files)
    os.sync()
    before, free = snapshot(one, other), free_bytes(device_dir)
    done = world.json("apply", "--yes", *world.search)["done"]
    after = snapshot(one, other)
    assert_unchanged(before, after)
    gained = free_bytes(device_dir) - free
    if device_kind in REFLINK_KINDS:
        assert set(done["by_method"]) == {"reflink"}
        assert (done["inodes"], done["inodes_freed"]) == (2, 0)
        assert {old.inode for old in before.values()} == {new.inode for new in after.values()}
    else:
        assert set(done["by_method"]) == {"hardlink"}
        assert (done["inodes"], done["inodes_freed"]) == (1, 1)
    assert gained == pytest.approx(done["bytes_freed"], abs=256 << 10)
    report = world.json("report", "--deep", *world.search)
    assert report["totals"]["freeable_bytes"] == 0
    assert set(held(report)) == (set() if device_kind in REFLINK_KINDS else {"not a package's file"})


@pytest.mark.parametrize("copies", [1, 2])
def test_grouped_with_what_a_record_covers(world: World, copies: int) -> None:
    """A package's file, and copies that somebody made of it."""
    one = world.forge.environment("one", {DIST: {"lib/libx.so": LIBRARY}})
    other = world.forge.environment("two", {})
    made = [put(other, path, LIBRARY) for path in ("lib/copy.so", "opt/copy.so")[:copies]]
    document = world.json("report", "--deep", *world.search)
    (group,) = document["largest"]
    found = {one / "lib/libx.so", *made}
    assert {group["keeper"], *group["names"]} == set(map(str, found))
    assert document["totals"]["duplicate_bytes"] == copies * blocks(one / "lib/libx.so")


@pytest.mark.parametrize("grown", [False, True])
def test_a_stale_digest_is_read(world: World, grown: bool) -> None:
    """A file that grew is not what its record says: it is compared by what is in it now."""
    envs = [world.forge.environment(name, {DIST: {"lib/libx.so": LIBRARY}}) for name in ("one", "two")]
    if grown:
        for env in envs:
            put(env, "lib/libx.so", LIBRARY + b"more")
    assert bool(world.json("report", *world.search)["totals"]["duplicate_bytes"]) is not grown
    document = world.json("report", "--deep", *world.search)
    assert document["totals"]["freeable_bytes"] == blocks(envs[0] / "lib/libx.so")
    put(envs[1], "lib/libx.so", LIBRARY + b"less")
    assert world.json("report", "--deep", *world.search)["totals"]["duplicate_bytes"] == 0


def test_names_of_one_inode(world: World) -> None:
    one, other = two(world, {"lib/mine.so": DATA})
    os.link(one / "lib/mine.so", other / "lib/linked.so")
    os.link(one / "lib/mine.so", one / "lib/again.so")
    document = world.json("report", "--deep", *world.search)
    assert document["totals"]["duplicate_bytes"] == blocks(one / "lib/mine.so")
    (other / "lib/mine.so").unlink()
    assert world.json("report", "--deep", *world.search)["totals"]["duplicate_bytes"] == 0


def test_what_cannot_be_read_is_one_warning(world: World) -> None:
    one, other = two(world, {"lib/mine.so": DATA, "lib/secret.so": noise("secret", SIZE)})
    for env in (one, other):
        put(env, "lib/third.so", noise(env.name, SIZE))
    (one / "lib/secret.so").chmod(0)
    needs("needs setpriv", os.geteuid() or shutil.which("setpriv"))
    # root without any of its powers may not read what nobody may read
    powerless = () if os.geteuid() else ("setpriv", "--bounding-set=-all", "--inh-caps=-all")
    done = subprocess.run(
        [*powerless, *world.command("report", "--deep", *world.search)],
        env=world.environ,
        capture_output=True,
        text=True,
        check=True,
    )
    (warning,) = done.stderr.splitlines()
    assert str(one / "lib/secret.so") in warning
    assert "Permission denied" in warning
    assert str(one / "lib/mine.so") in done.stdout or str(other / "lib/mine.so") in done.stdout


# -- how much is read -------------------------------------------------------------------------------------


class Reads:
    """Which inodes had their ends read, and which all of their bytes."""

    def __init__(self) -> None:
        self.ends: set[int] = set()
        self.whole: set[int] = set()
        #: Called with a path of what was just read.
        self.then: Any = lambda inode: None


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    seen = Reads()
    ends_of, digest_of = contents._ends_of, contents.digest_of

    def ends(descriptor: int, inode: Inode) -> Any:
        seen.ends.add(inode.key.number)
        found = ends_of(descriptor, inode)
        seen.then(inode)
        return found

    def whole(descriptor: int) -> bytes:
        seen.whole.add(os.fstat(descriptor).st_ino)
        return digest_of(descriptor)

    monkeypatch.setattr(contents, "_ends_of", ends)
    monkeypatch.setattr(contents, "digest_of", whole)
    return seen


@pytest.fixture
def forge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Forge:
    """For what is done in this process; files need not come of age."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(digests, "_YOUNG_NS", 0)
    return Forge(tmp_path / "world")


def deeply(forge: Forge) -> Analysis:
    return analyse(forge.scope(), PlanOptions(euid=os.geteuid()), deep=True)


def grouped(analysis: Analysis) -> set[frozenset[str]]:
    """The names of every group."""
    return {
        frozenset(path for inode in group.inodes for path in analysis.scope.paths_of(inode))
        for group in analysis.plan.groups
    }


def numbers(*paths: Path) -> set[int]:
    return {path.stat().st_ino for path in paths}


def cache_file() -> Path:
    return Path(os.environ["XDG_STATE_HOME"]) / "conda-dedup/digests.sqlite"


@pytest.mark.parametrize(
    ("place", "whole"),
    [(0, False), (4095, False), (-1, False), (-4096, False), (4096, True), (SIZE // 2, True), (-4097, True)],
)
def test_no_more_is_read_than_tells_them_apart(forge: Forge, reads: Reads, place: int, whole: bool) -> None:
    env = forge.environment("one", {})
    a, b = put(env, "a.so", DATA), put(env, "b.so", changed(DATA, place))
    alone = put(env, "c.so", DATA[1:])
    assert grouped(deeply(forge)) == set()
    assert reads.ends == numbers(a, b)
    assert reads.whole == (numbers(a, b) if whole else set())
    assert not numbers(alone) & reads.ends


def test_small_files_are_their_ends(forge: Forge, reads: Reads) -> None:
    env = forge.environment("one", {})
    for size in (4096, 8191, 8192, 8193):
        for name in "ab":
            put(env, f"{name}{size}.so", DATA[:size])
        put(env, f"other{size}.so", changed(DATA[:size], min(size - 1, 4096)))
    found = grouped(deeply(forge))
    assert {len(names) for names in found} == {2}
    assert len(found) == 4
    assert reads.whole == numbers(*(env / f"{name}8193.so" for name in ("a", "b", "other")))


def test_what_records_tell_is_not_read_as_a_whole(forge: Forge, reads: Reads) -> None:
    files = {"lib/libx.so": LIBRARY}
    envs = [forge.environment(name, {DIST: files}) for name in ("one", "two", "three")]
    forge.cache({DIST: files})
    deeply(forge)
    assert reads.ends == reads.whole == set()
    # one of another size is none of theirs, one of their size is
    put(envs[0], "other.so", LIBRARY[1:])
    copy = put(envs[0], "copy.so", LIBRARY)
    assert len(grouped(deeply(forge)).pop()) == 5
    assert reads.whole == numbers(copy)
    assert len(reads.ends) == 2


def test_nothing_is_read_of_what_is_not_selected(forge: Forge, reads: Reads) -> None:
    for name in ("one", "two"):
        put(forge.environment(name, {}, selected=False), "a.so", DATA)
    forge.environment("three", {})
    deeply(forge)
    assert reads.ends == set()
    copy = put(forge.environment("four", {}), "a.so", DATA)
    (names,) = grouped(deeply(forge))
    assert str(copy) in names
    assert len(reads.whole) == 3


@pytest.mark.parametrize("how", ["grown", "rewritten", "replaced", "gone"])
def test_a_file_that_changes_while_it_is_read(forge: Forge, reads: Reads, how: str) -> None:
    env = forge.environment("one", {})
    victim, *_ = [put(env, f"{name}.so", DATA) for name in "abc"]
    number = victim.stat().st_ino

    def act(inode: Inode) -> None:
        if inode.key.number != number:
            return
        reads.then = lambda _: None
        if how == "grown":
            with victim.open("ab") as file:
                file.write(b"more")
        elif how == "rewritten":
            victim.write_bytes(changed(DATA, 5))
        else:
            victim.unlink()
            if how == "replaced":
                victim.write_bytes(DATA[::-1])

    reads.then = act
    analysis = deeply(forge)
    (warning,) = analysis.warnings
    assert warning.startswith(f"{str(victim)!r} could not be compared: ")
    if how in ("grown", "rewritten"):
        assert warning.endswith("it was changed while it was read")
    assert grouped(analysis) == {frozenset({str(env / "b.so"), str(env / "c.so")})}
    # nor is anything of it remembered that is not so
    again = deeply(forge)
    assert again.warnings == []
    assert grouped(again) == {frozenset({str(env / "b.so"), str(env / "c.so")})}


# -- what was read is kept ----------------------------------------------------------------------------------


def four(forge: Forge) -> Path:
    """An environment with equal files, big and small, and one that differs in the middle."""
    env = forge.environment("one", {})
    for name in "abc":
        put(env, f"{name}.so", changed(DATA, SIZE // 2) if name == "c" else DATA)
        put(env, f"{name}.txt", DATA[:5000])
    return env


def test_what_was_read_is_not_read_again(forge: Forge, reads: Reads) -> None:
    env = four(forge)
    first = grouped(deeply(forge))
    assert len(reads.ends) == 6
    assert len(reads.whole) == 3
    reads.ends, reads.whole = set(), set()
    assert grouped(deeply(forge)) == first
    assert reads.ends == reads.whole == set()
    # the same size and time, but other bytes: the time of its status tells
    put(env, "b.so", changed(DATA, 7))
    assert grouped(deeply(forge)) == {names for names in first if str(env / "b.so") not in names}
    assert reads.ends == numbers(env / "b.so")
    # a new name for what is known; the link changed its status
    reads.ends, reads.whole = set(), set()
    (env / "a.so").rename(env / "renamed.so")
    deeply(forge)
    assert reads.ends <= numbers(env / "renamed.so")


def test_a_name_in_use_again_is_read(forge: Forge, reads: Reads) -> None:
    """The inode number of a deleted file goes to the next one."""
    env = forge.environment("one", {})
    for name in "ab":
        put(env, f"{name}.so", DATA)
    assert len(grouped(deeply(forge))) == 1
    for name in "ab":
        (env / f"{name}.so").unlink()
        put(env, f"{name}.so", noise(name, SIZE))
    assert grouped(deeply(forge)) == set()


def test_what_changed_a_moment_ago_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    inode = Inode.of(put(tmp_path, "a", DATA).stat())
    known = digests.Known(b"e" * 16, b"w" * 32)
    now = time.time_ns()
    young, old, later = (
        replace(inode, ctime_ns=now + after * 10**9, key=inode.key._replace(number=number))
        for number, after in ((1, 0), (2, -3), (3, 3600))
    )
    cache = digests.DigestCache()
    cache.put([(young, known), (old, known), (later, known)])
    assert cache.get(old) == known
    assert cache.get(young) == cache.get(later) == digests.Known()
    cache.close()
    cache = digests.DigestCache()
    assert cache.get(old) == known
    others = [{"size": 1}, {"mtime_ns": 1}, {"ctime_ns": 1}, {"key": old.key._replace(device=7)}]
    assert {cache.get(replace(old, **other)) for other in others} == {digests.Known()}
    cache.close()
    assert cache.get(old) == digests.Known()


def test_what_nobody_asks_for_is_forgotten(forge: Forge, reads: Reads) -> None:
    four(forge)
    deeply(forge)
    day = int(time.time()) // (24 * 3600)

    def days(new: int | None = None) -> set[int]:
        connection = sqlite3.connect(cache_file())
        with connection:
            if new is not None:
                connection.execute("UPDATE digest SET day = ?", (new,))
        found = {row[0] for row in connection.execute("SELECT day FROM digest")}
        connection.close()
        return found

    assert days() <= {day, day + 1}
    for age in (20, 40, 200):
        days(day - age)
        reads.ends = set()
        deeply(forge)
        assert reads.ends == set()
        assert days() == {day - age} if age < 30 else days() <= {day, day + 1}
    forge.trees.clear()
    days(day - 200)
    deeply(forge)
    assert days() == set()


@pytest.mark.parametrize(
    "how",
    ["bytes", "empty", "truncated", "version", "table", "types", "directory", "locked", "written", "link"],
)
def test_a_cache_that_cannot_be_used(forge: Forge, reads: Reads, how: str) -> None:
    """Then everything is read, and nobody hears of it."""
    four(forge)
    expected = grouped(deeply(forge))
    path = cache_file()
    connection = sqlite3.connect(path, isolation_level=None)
    if how == "bytes":
        path.write_bytes(noise("damaged", 50_000))
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "truncated":
        path.write_bytes(path.read_bytes()[:5000])
    elif how == "directory":
        path.unlink()
        (path / "x").mkdir(parents=True)
    elif how == "link":
        path.unlink()
        path.symlink_to(path.parent / "nowhere/at/all")
    else:
        for line in {
            "version": ["PRAGMA user_version = 99"],
            "table": ["DROP TABLE digest", "CREATE TABLE digest (one, two)"],
            "types": ["UPDATE digest SET ends = 'text', whole = 7, day = 'never'"],
            "locked": ["BEGIN EXCLUSIVE"],
            "written": ["BEGIN IMMEDIATE"],
        }[how]:
            connection.execute(line)
        if how not in ("locked", "written"):
            connection.close()
    reads.ends, reads.whole = set(), set()
    theirs = path.lstat().st_ino
    analysis = deeply(forge)
    assert analysis.warnings == []
    assert grouped(analysis) == expected
    assert len(reads.ends) == 6
    if how in ("locked", "written"):
        assert path.lstat().st_ino == theirs
        connection.close()
    # what was damaged is made anew; what somebody else uses is left to him
    reads.ends = set()
    deeply(forge)
    assert bool(reads.ends) is (how in ("directory", "link"))


def test_a_cache_that_is_damaged_in_the_middle(forge: Forge, reads: Reads) -> None:
    """Its first pages are sound, so that it can be opened and asked."""
    four(forge)
    expected = grouped(deeply(forge))
    with sqlite3.connect(cache_file()) as connection:  # what is known of others comes before ours
        columns = len(connection.execute("SELECT * FROM digest LIMIT 1").fetchone())
        rows = [(bytes(8) + noise(str(number), 8), *[0] * (columns - 1)) for number in range(9999)]
        connection.executemany(f"INSERT INTO digest VALUES ({', '.join('?' * columns)})", rows)
        size = connection.execute("PRAGMA page_size").fetchone()[0]
        root = connection.execute("SELECT rootpage FROM sqlite_master").fetchone()[0]
    connection.close()
    content = cache_file().read_bytes()
    pages = [content[start : start + size] for start in range(0, len(content), size)]
    sound, page = {0, root - 1}, root - 1
    while pages[page][0] == 2:  # has others below: down to the first of those
        cell = int.from_bytes(pages[page][12:14], "big")
        page = int.from_bytes(pages[page][cell : cell + 4], "big") - 1
        sound.add(page)
    pages = [page if number in sound else noise("damage", size) for number, page in enumerate(pages)]
    cache_file().write_bytes(b"".join(pages))
    reads.ends = set()
    analysis = deeply(forge)
    assert analysis.warnings == []
    assert grouped(analysis) == expected
    assert len(reads.ends) == 6
    # it is made anew, no later than when the next one has found it so
    deeply(forge)
    reads.ends = set()
    deeply(forge)
    assert reads.ends == set()


def test_a_state_directory_that_cannot_be_had(forge: Forge, monkeypatch: pytest.MonkeyPatch) -> None:
    four(forge)
    expected = grouped(deeply(forge))
    (forge.root / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(forge.root / "file"))
    analysis = deeply(forge)
    assert analysis.warnings == []
    assert grouped(analysis) == expected


def test_two_at_once(forge: Forge) -> None:
    """Each uses the other's work or its own; nobody waits for long, nobody fails."""
    env = forge.environment("one", {})
    for number in range(300):
        put(env, f"{number}.so", noise(str(number % 100), 9000))
    expected = {
        frozenset(str(env / f"{number + more}.so") for more in (0, 100, 200)) for number in range(100)
    }
    found: list[set[frozenset[str]]] = []
    threads = [threading.Thread(target=lambda: found.append(grouped(deeply(forge)))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 3
    assert grouped(deeply(forge)) == expected


@pytest.mark.parametrize("lie", ["ends and whole", "a record's"])
def test_a_lie_in_the_cache_proposes_only(world: World, lie: str, monkeypatch: pytest.MonkeyPatch) -> None:
    packages = {DIST: {"lib/libx.so": LIBRARY}} if lie == "a record's" else {}
    one = world.forge.environment("one", packages)
    if not packages:
        put(one, "lib/libx.so", LIBRARY)
    other = world.forge.environment("two", {})
    put(other, "lib/mine.so", noise("another", len(LIBRARY)))
    before = snapshot(world.root)
    monkeypatch.setenv("XDG_STATE_HOME", str(world.home / "state"))
    cache = digests.DigestCache()
    monkeypatch.setattr(digests, "_YOUNG_NS", 0)
    inodes = [Inode.of(path.stat()) for path in (one / "lib/libx.so", other / "lib/mine.so")]
    whole = bytes.fromhex(digest(LIBRARY))
    cache.put((inode, digests.Known(b"e" * 16, whole)) for inode in inodes)
    cache.close()
    assert world.json("report", "--deep", *world.search)["totals"]["freeable_bytes"] == blocks(
        other / "lib/mine.so"
    )
    done = world.json("apply", "--yes", *world.search)
    assert [skipped["reason"] for skipped in done["skipped"]] == ["content differs"]
    assert done["done"]["inodes"] == 0
    assert_unchanged(before, snapshot(world.root))
    assert not os.path.samefile(one / "lib/libx.so", other / "lib/mine.so")


# -- the law ----------------------------------------------------------------------------------------------

SIZES = st.sampled_from([4095, 4096, 4097, 8191, 8192, 8193, 8194, 12_288])
#: Where a content differs from the others of its size; None: nowhere.
PLACES = st.sampled_from([None, None, 0, 4095, 4096, 4097, -1, -4096, -4097])
FILES = st.lists(
    st.tuples(SIZES, PLACES, st.integers(0, 2), st.booleans(), st.integers(0, 3)), min_size=2, max_size=14
)


def law(files: list[tuple[int, int | None, int, bool, int]]) -> None:
    """What is found is what has the same bytes: judged by reading everything."""
    with tempfile.TemporaryDirectory() as name:
        forge = Forge(Path(name))
        packages: list[dict[str, bytes]] = [{}, {}, {"small": b"s"}]
        loose = []
        for number, (size, place, tree, recorded, links) in enumerate(files):
            data = DATA[:size] if place is None else changed(DATA[:size], place)
            path = f"lib/f{number}.so"
            if recorded:
                packages[tree][path] = data
            else:
                loose.append((tree, path, data, links))
        roots = [forge.environment(f"env{number}", {DIST: packages[number]}) for number in (0, 1)]
        roots.append(forge.cache({DIST: packages[2]}))
        for tree, path, data, links in loose:
            made = put(roots[tree], path, data)
            for link in range(links):
                target = roots[(tree + link) % 3] / "links" / f"{made.name}-{link}"
                target.parent.mkdir(exist_ok=True)
                os.link(made, target)
        contents_of: dict[str, dict[int, list[str]]] = defaultdict(lambda: defaultdict(list))
        for path, state in snapshot(*roots).items():
            if state.size >= 4096 and "/conda-meta/" not in path:
                contents_of[state.content][state.inode].append(path)
        expected = {
            frozenset(path for names in inodes.values() for path in names)
            for inodes in contents_of.values()
            if len(inodes) > 1
        }
        for _ in range(2):  # read, and then known
            assert grouped(deeply(forge)) == expected


COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture]}


@settings(max_examples=40, **COMMON)
@given(files=FILES)
def test_law_found_is_what_is_equal(forge: Forge, files: Any) -> None:
    law(files)


@pytest.mark.soak
@settings(max_examples=5000, **COMMON)
@given(files=FILES)
def test_law_found_is_what_is_equal_for_long(forge: Forge, files: Any) -> None:
    law(files)


# -- that something goes on ---------------------------------------------------------------------------------

IMPATIENT = """
import sys
from conda_dedup_plugin import progress
progress.Shown.__init__.__defaults__ = (0.0,)
from conda_dedup_plugin.cli import main
sys.exit(main())
"""


def watched(world: World, *words: object, terminal: bool = True) -> tuple[str, str]:
    """Run it impatiently with stderr a terminal; return stdout and what the terminal got."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", IMPATIENT, *map(str, words)],
        env={**world.environ, "TERM": "xterm"},
        cwd=world.home,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=slave if terminal else subprocess.PIPE,
        text=True,
    )
    os.close(slave)
    screen = b""
    while terminal:
        ready, _, _ = select.select([master], [], [], 60)
        try:
            piece = os.read(master, 65536) if ready else b""
        except OSError:
            break
        if not piece:
            break
        screen += piece
    out, err = process.communicate(timeout=60)
    os.close(master)
    assert process.returncode == 0, screen.decode() + (err or "")
    return out, screen.decode() + (err or "")


@pytest.mark.parametrize(
    ("words", "terminal", "shown"),
    [
        (("report", "--deep"), True, True),
        (("report",), True, True),
        (("report", "--deep", "--json"), True, False),
        (("apply", "--dry-run", "--quiet"), True, False),
        (("report", "--deep"), False, False),
    ],
    ids=["deep", "not deep", "json", "quiet", "no terminal"],
)
def test_a_bar_for_who_waits(world: World, words: tuple[str, ...], terminal: bool, shown: bool) -> None:
    two(world, {"lib/mine.so": DATA, "lib/other.so": changed(DATA, SIZE // 2)})
    out, screen = watched(world, *words, *world.search, terminal=terminal)
    assert "Reading" not in out and "Looking" not in out
    if not shown:
        assert screen == ""
        return
    stages = ["Looking at every file"] + ["Reading the ends of files", "Reading files"] * ("--deep" in words)
    assert [stage for stage in stages if stage in screen] == stages
    assert "%" in screen
    assert "Reading" not in screen or "--deep" in words
    assert "\x1b[?25h" in screen  # the cursor is back
