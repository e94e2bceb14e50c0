"""``verify --repair``: the right content comes back to every name, or nothing is changed."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import sqlite3
import subprocess
import tarfile
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conda_dedup_plugin import archives
from conda_dedup_plugin.cli import main
from conda_dedup_plugin.demo.packages import Entry, make_package
from conda_dedup_plugin.journal import Journal
from conda_dedup_plugin.model import STAGING_PREFIX
from conda_dedup_plugin.sharing import exchanges as exchanges_module
from conda_dedup_plugin.sharing import private as private_module
from conda_dedup_plugin.sharing import staging as staging_module
from conda_dedup_plugin.sharing.recovery import recover
from tests.lab import needs
from tests.lab.forge import noise
from tests.lab.invariants import assert_unchanged, snapshot
from tests.sharing.test_foreign_writers import EDIT, start_writer
from tests.test_cli import in_a_terminal
from tests.test_inventory import as_nobody
from tests.test_manners import add_wheel
from tests.test_report import DIST, World
from tests.test_verify import DATA, LIB, WHEEL, edit, named, pair, paths, register, share

OLD = 1_600_000_000
REPAIR = ("verify", "--repair", "--yes")


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "world", tmp_path / "home")


def leftovers(root: Path) -> list[str]:
    """Every name of ours below a directory, and what is in it."""
    found = (path for path in root.rglob("*") if STAGING_PREFIX in str(path.relative_to(root)))
    return sorted(map(str, found))


def right(*found: Path, data: bytes = DATA) -> None:
    for path in found:
        assert path.read_bytes() == data


# -- where the right content comes from -------------------------------------------------------------------


def from_a_cache(world: World, data: bytes) -> Path:
    """Copied, not linked: as conda does from one device to another."""
    return world.forge.cache({DIST: {LIB: data}}) / "a-1-0" / LIB


def from_an_environment(world: World, data: bytes) -> Path:
    return world.forge.environment("three", {DIST: {LIB: data}}) / LIB


def from_conda(world: World, data: bytes) -> Path:
    """As cph makes them: compressed, with other files before and after."""
    packed = from_tar_bz2(world, data)
    from conda_package_handling.api import transmute

    assert not transmute(str(packed), ".conda", out_folder=str(packed.parent))
    packed.unlink()
    return packed.parent / "a-1-0.conda"


def from_stored_conda(world: World, data: bytes) -> Path:
    made = make_package(world.home, *DIST, {LIB: Entry(data)}, subdir="linux-64")
    return Path(made.rename(empty_cache(world) / made.name))


def from_tar_bz2(world: World, data: bytes) -> Path:
    target = empty_cache(world) / "a-1-0.tar.bz2"
    index = json.dumps(dict(zip(("name", "version", "build"), DIST, strict=True), subdir="linux-64")).encode()
    said = {"_path": LIB, "path_type": "hardlink", "sha256": "0" * 64, "size_in_bytes": len(data)}
    members = {
        "bin/first": b"first",
        LIB: data,
        "share/last": b"last",
        "info/index.json": index,
        "info/files": f"bin/first\n{LIB}\nshare/last\n".encode(),
        "info/paths.json": json.dumps({"paths": [said], "paths_version": 1}).encode(),
    }
    with tarfile.open(target, "w:bz2") as archive:
        for path, content in members.items():
            member = tarfile.TarInfo(path)
            member.size, member.mtime, member.mode = len(content), OLD, 0o644
            archive.addfile(member, io.BytesIO(content))
    return target


def empty_cache(world: World) -> Path:
    """A conda cache with archives alone."""
    cache = world.forge.cache({("other", "1", "0"): {"lib/other.so": noise("other", 5000)}})
    return cache


SOURCES = [from_a_cache, from_an_environment, from_conda, from_stored_conda, from_tar_bz2]


@pytest.mark.parametrize("source", SOURCES)
def test_it_comes_from(world: World, source: Callable[[World, bytes], Path]) -> None:
    """For all names together, with their mode, owner and attributes, and the mtime they had."""
    one, two = pair(world)
    keeper = (one / LIB).stat()
    os.chmod(one / LIB, 0o751)
    with contextlib.suppress(OSError):
        os.setxattr(one / LIB, "user.note", b"kept")
    if os.geteuid() == 0:
        os.chown(one / LIB, 1234, 2345)
    before = snapshot(one, two)
    edit(one / LIB, b"damage of another size" * 5000)
    found = source(world, DATA)
    document = world.json(*REPAIR, *world.search)
    assert named(document) == [paths(one / LIB, two / LIB)]
    assert document["repair"] == {
        "planned": [{"names": [str(one / LIB), str(two / LIB)], "from": str(found)}],
        "beyond": [],
        "done": {"inodes": 1, "names": 2},
        "skipped": [],
        "failed": [],
    }
    assert_unchanged(before, snapshot(one, two))
    assert os.path.samefile(one / LIB, two / LIB)
    assert (one / LIB).stat().st_mtime_ns == keeper.st_mtime_ns
    assert leftovers(world.root) == []
    assert world.json("verify", *world.search)["damaged"] == []
    assert world.json("verify", "--quick", *world.search)["damaged"] == []
    # and what was shared before can be taken back as before
    assert world.json("undo", "--yes")["done"]["names"] == 1
    assert not os.path.samefile(one / LIB, two / LIB)
    assert_unchanged(before, snapshot(one, two))


@pytest.mark.parametrize("source", SOURCES)
def test_other_content_is_never_used(world: World, source: Callable[[World, bytes], Path]) -> None:
    """A donor that was damaged, an archive that is forged: its name is right, its bytes are not."""
    one, two = pair(world)
    edited = edit(one / LIB)
    source(world, b"\0" + DATA[1:])
    forged = world.json(*REPAIR, *world.search, code=1)["repair"]
    assert (forged["planned"], forged["done"]["inodes"]) == ([], 0)
    assert [beyond["path"] for beyond in forged["beyond"]] == [str(one / LIB), str(two / LIB)]
    right(one / LIB, two / LIB, data=edited)


def test_an_archive_that_begins_as_it_should(world: World) -> None:
    """At the boundary of what is read at a time all of it seems right."""
    data = noise("big", archives._CHUNK)
    one, two = pair(world, {LIB: data})
    edited = edit(one / LIB)
    from_tar_bz2(world, data + b"more")
    done = world.json(*REPAIR, *world.search, code=1)["repair"]["done"]
    assert done == {"inodes": 0, "names": 0}
    right(one / LIB, two / LIB, data=edited)
    assert leftovers(world.root) == []


def _cut(archive: Path) -> None:
    os.truncate(archive, archive.stat().st_size // 2)


def _overwritten(archive: Path) -> None:
    with open(archive, "r+b") as stream:
        stream.seek(archive.stat().st_size // 3)
        stream.write(b"\xff" * 200)


def _empty(archive: Path) -> None:
    os.truncate(archive, 0)


def _directory(archive: Path) -> None:
    archive.unlink()
    archive.mkdir()


def _fifo(archive: Path) -> None:
    archive.unlink()
    os.mkfifo(archive)


def _no_zstandard(archive: Path) -> None:
    """A zip file as it should be, in which nothing else is."""
    with zipfile.ZipFile(archive, "w") as outer:
        outer.writestr("pkg-a-1-0.tar.zst", b"\xff" * 1000)


def _no_deflate(archive: Path) -> None:
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as outer:
        outer.writestr("pkg-a-1-0.tar.zst", b"\0" * 100_000)
    with open(archive, "r+b") as stream:
        stream.seek(30 + len("pkg-a-1-0.tar.zst") + 2)
        stream.write(b"\xff" * 20)


@pytest.mark.parametrize(
    ("source", "spoil"),
    [
        (from_conda, _cut),
        (from_conda, _overwritten),
        (from_conda, _no_zstandard),
        (from_conda, _no_deflate),
        (from_conda, _empty),
        (from_stored_conda, _cut),
        (from_tar_bz2, _cut),
        (from_tar_bz2, _overwritten),
        (from_tar_bz2, _directory),
        (from_tar_bz2, _fifo),
    ],
)
def test_an_archive_that_is_none(
    world: World, source: Callable[[World, bytes], Path], spoil: Callable[[Path], None]
) -> None:
    """Passed over, unless what is wanted comes before the damage."""
    one, two = pair(world)
    edited = edit(one / LIB)
    spoil(source(world, DATA))
    done = world.run(*REPAIR, *world.search, code=None, timeout=20)
    assert done.returncode in (0, 1)
    right(one / LIB, two / LIB, data=DATA if done.returncode == 0 else edited)
    assert leftovers(world.root) == []


def test_a_donor_that_is_damaged_itself_is_passed_over(world: World) -> None:
    one, two = pair(world)
    cached, third = from_a_cache(world, DATA), from_an_environment(world, DATA)
    edit(one / LIB)
    edit(cached, keep_mtime=True)
    document = world.json(*REPAIR, *world.search)
    assert document["repair"]["planned"][0]["from"] == str(third)
    right(one / LIB, two / LIB, third)


def test_each_name_gets_what_its_own_record_says(world: World) -> None:
    """Two packages hold the same; the damage happens to be what a third build of one of them holds."""
    other = ("b", "2", "0")
    one = world.forge.environment("one", {DIST: {LIB: DATA}})
    two = world.forge.environment("two", {other: {"lib/liby.so": DATA}})
    three = world.forge.environment("three", {DIST: {LIB: noise("another", 60_000)}})
    share(world)
    assert os.path.samefile(one / LIB, two / "lib/liby.so")
    # two's package is another one now, and shares what is wrong for it
    record = two / "conda-meta/b-2-0.json"
    said = json.loads(record.read_text())
    ours = json.loads((three / "conda-meta/a-1-0.json").read_text())["paths_data"]["paths"][0]
    said["paths_data"]["paths"] = [{**ours, "_path": "lib/liby.so"}]
    record.write_text(json.dumps(said))
    document = world.json(*REPAIR, *world.search)
    assert [said["path"] for said in document["damaged"][0]["expected"]] == [str(two / "lib/liby.so")]
    right(one / LIB)
    right(two / "lib/liby.so", three / LIB, data=noise("another", 60_000))


def test_several_at_once(world: World) -> None:
    files = {f"lib/{number}.so": noise(str(number), 9000) for number in range(12)}
    one, two = pair(world, files)
    world.forge.cache({DIST: files})
    before = snapshot(one, two)
    for path in files:
        edit(one / path)
    assert world.json(*REPAIR, *world.search)["repair"]["done"] == {"inodes": 12, "names": 24}
    assert_unchanged(before, snapshot(one, two))


def test_a_quick_look_is_no_reason_to_reinstall(world: World) -> None:
    """What is right there is brought back, and what was only touched is left alone."""
    one, two = pair(world, {LIB: DATA, "lib/y.so": noise("y", 9000)})
    from_a_cache(world, DATA)
    edit(one / LIB)
    os.utime(one / "lib/y.so")
    repair = world.json(*REPAIR, "--quick", *world.search)["repair"]
    assert (repair["beyond"], repair["done"]) == ([], {"inodes": 1, "names": 2})
    right(one / LIB, two / LIB)


# -- nothing to be had ------------------------------------------------------------------------------------


def test_the_package_to_reinstall_is_named(world: World) -> None:
    one, two = pair(world)
    wheels = {"w/ext.so": noise("ext", 9000)}
    for prefix in (one, two):
        add_wheel(prefix, "w", wheels)
    share(world)
    edit(one / LIB)
    edit(one / WHEEL / "w/ext.so")
    done = world.run(*REPAIR, *world.search, code=1)
    for prefix in (one, two):
        assert f"conda install --force-reinstall -p {prefix} a=1=0\n" in done.stdout
        pip = f"{prefix}/bin/python -m pip install --force-reinstall --no-deps w==1.0\n"
        assert pip in done.stdout
    assert "0 files repaired" not in done.stdout


def test_the_command_it_names_can_be_pasted(world: World) -> None:
    one, _ = (world.forge.environment(name, {DIST: {LIB: DATA}}) for name in ("my env", "two"))
    share(world)
    edit(one / LIB)
    beyond = world.json(*REPAIR, *world.search, code=1)["repair"]["beyond"]
    advice = next(said["advice"] for said in beyond if said["path"] == str(one / LIB))
    done = subprocess.run(
        ["bash", "-c", f'conda() {{ for word; do echo "$word"; done; }}; {advice.partition(": ")[2]}'],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == ["install", "--force-reinstall", "-p", str(one), "a=1=0"]


def test_a_cached_package_that_is_damaged(world: World) -> None:
    cache = world.forge.cache({DIST: {LIB: DATA}})
    one = world.forge.environment("one", {DIST: {LIB: DATA}})
    share(world)
    edit(one / LIB)
    beyond = world.json(*REPAIR, *world.search, code=1)["repair"]["beyond"]
    advice = {said["path"]: said["advice"] for said in beyond}
    assert str(cache / "a-1-0") in advice[str(cache / "a-1-0" / LIB)]
    assert "conda install" in advice[str(one / LIB)]


# -- consent ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["dry run", "nobody to ask", "no", "interrupt"])
def test_nothing_is_changed_without_consent(world: World, how: str) -> None:
    one, two = pair(world)
    from_a_cache(world, DATA)
    edit(one / LIB)
    before = {path: os.lstat(path).st_ctime_ns for path in (one / LIB, two / LIB)}
    words = ("verify", "--repair", *world.search)
    if how == "dry run":
        document = world.json(*words, "--dry-run", code=1)
        assert document["repair"]["done"] == {"inodes": 0, "names": 0}
        assert len(document["repair"]["planned"]) == 1
    elif how == "nobody to ask":
        world.run(*words, code=1)
    else:
        code, screen = in_a_terminal(world, *words, keys=b"n\n" if how == "no" else b"\x03")
        assert "2 files can be given the right content; what is there now will be gone." in screen
        assert code == (1 if how == "no" else 130)
    assert {path: os.lstat(path).st_ctime_ns for path in before} == before
    assert leftovers(world.root) == []


def test_yes_in_a_terminal(world: World) -> None:
    one, two = pair(world)
    from_a_cache(world, DATA)
    edit(one / LIB)
    code, screen = in_a_terminal(world, "verify", "--repair", *world.search, keys=b"y\n")
    assert (code, "2 files repaired." in screen) == (0, True), screen
    right(one / LIB, two / LIB)


def test_an_edit_that_is_wanted_becomes_private(world: World) -> None:
    one, two = pair(world)
    cached = from_a_cache(world, DATA)
    edited = edit(one / LIB)
    inode = (one / LIB).stat().st_ino
    (world.home / "way").symlink_to(one / "lib")  # as the user sees it
    done = world.json(*REPAIR, "--keep-edit", world.home / "way/libx.so", *world.search)
    assert done["repair"]["planned"] == [{"names": [str(two / LIB)], "from": str(cached)}]
    right(one / LIB, data=edited)
    right(two / LIB)
    assert ((one / LIB).stat().st_ino, (one / LIB).stat().st_nlink) == (inode, 1)
    assert world.json("verify", *world.search)["damaged"] == []
    world.run("undo", "--yes")
    right(one / LIB, data=edited)
    right(two / LIB)


# -- killed ---------------------------------------------------------------------------------------------

PRIVATIZER, SWAP = private_module.Privatizer, staging_module.Swap
STEPS: list[tuple[str, Any, str]] = [
    ("before", private_module, "copy_metadata"),
    ("after", PRIVATIZER, "_copy"),
    ("before", PRIVATIZER, "_make_durable"),
    ("before", exchanges_module, "link_descriptor"),
    ("after", exchanges_module, "link_descriptor"),
    ("before", SWAP, "exchange"),
    ("after", SWAP, "exchange"),
    ("after", PRIVATIZER, "_settle"),
    ("after", staging_module.Staging, "drop"),
    ("after", PRIVATIZER, "_drop_old"),
    ("before", Journal, "resolve"),
    ("after", Journal, "resolve"),
    ("before", Journal, "moved"),
    ("after", Journal, "moved"),
]


def inside(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on this process lives in that world."""
    for name in list(os.environ):
        if name.startswith(("CONDA", "MAMBA", "RATTLER", "PIXI", "MAGIC", "XDG_")):
            monkeypatch.delenv(name)
    for name, value in world.environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(world.home)


def killed_repair(world: World, monkeypatch: pytest.MonkeyPatch, when: str, owner: Any, name: str) -> None:
    """Repair in a child that dies at a step."""
    child = os.fork()
    if child == 0:
        try:
            inside(world, monkeypatch)
            original = getattr(owner, name)

            def replaced(*arguments: Any) -> None:
                if when == "after":
                    original(*arguments)
                os.kill(os.getpid(), signal.SIGKILL)

            monkeypatch.setattr(owner, name, replaced)
            main([*REPAIR, "--quiet", *world.search])
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), "the step was never reached"


@pytest.mark.parametrize(("when", "owner", "name"), STEPS, ids=[f"{w}-{n}" for w, _, n in STEPS])
def test_killed_at(world: World, monkeypatch: pytest.MonkeyPatch, when: str, owner: Any, name: str) -> None:
    """Each name has the damaged content or the right one, before what is left is seen to and after."""
    one, two = pair(world)
    from_a_cache(world, DATA)
    edited = edit(one / LIB, b"EDITED" * 20_000)
    with monkeypatch.context() as patch:
        killed_repair(world, patch, when, owner, name)
    for path in (one / LIB, two / LIB):
        assert path.read_bytes() in (DATA, edited)
    journal = Journal.open(world.home / "state/conda-dedup/journal.sqlite")
    assert recover(journal) == []
    assert journal.open_intents() == []
    journal.close()
    # the very last step is to remove the directory, which is empty then
    assert [path for path in leftovers(world.root) if not Path(path).is_dir()] == []
    for path in (one / LIB, two / LIB):
        assert path.read_bytes() in (DATA, edited)
    world.run("clean", "--yes", "--search", world.root)
    assert leftovers(world.root) == []


def test_what_half_a_repair_left_is_found_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed after one of two names: the other one, alone with the damage now, is not forgotten."""
    one, two = pair(world)
    from_a_cache(world, DATA)
    edited = edit(one / LIB)
    with monkeypatch.context() as patch:
        killed_repair(world, patch, "after", SWAP, "exchange")
    assert {path.read_bytes() for path in (one / LIB, two / LIB)} == {DATA, edited}
    world.run("clean", "--yes", "--search", world.root)
    world.json(*REPAIR, *world.search)
    right(one / LIB, two / LIB)
    assert os.path.samefile(one / LIB, two / LIB)
    assert leftovers(world.root) == []


@pytest.mark.parametrize(("when", "owner", "name"), STEPS, ids=[f"{w}-{n}" for w, _, n in STEPS])
@pytest.mark.soak
def test_undo_after_a_kill_anywhere(
    world: World, monkeypatch: pytest.MonkeyPatch, when: str, owner: Any, name: str
) -> None:
    _undo_after_a_kill(world, monkeypatch, when, owner, name)


@pytest.mark.parametrize(("when", "owner", "name"), [STEPS[6], STEPS[9]], ids=["half", "whole"])
def test_undo_after_a_kill(
    world: World, monkeypatch: pytest.MonkeyPatch, when: str, owner: Any, name: str
) -> None:
    _undo_after_a_kill(world, monkeypatch, when, owner, name)


def _undo_after_a_kill(
    world: World, monkeypatch: pytest.MonkeyPatch, when: str, owner: Any, name: str
) -> None:
    """What is shared can still be taken back, though the repair could not say that it has another inode."""
    one, two = pair(world)
    from_a_cache(world, DATA)
    edit(one / LIB)
    with monkeypatch.context() as patch:
        killed_repair(world, patch, when, owner, name)
    world.run(*REPAIR, *world.search)
    assert os.path.samefile(one / LIB, two / LIB)
    world.run("undo", "--yes")
    assert not os.path.samefile(one / LIB, two / LIB)
    right(one / LIB, two / LIB)


# -- others at work -----------------------------------------------------------------------------------


def repair_inside(world: World, monkeypatch: pytest.MonkeyPatch, capsys: Any, code: int) -> dict[str, Any]:
    """Repair in this process; returns what it says of it."""
    inside(world, monkeypatch)
    capsys.readouterr()
    assert main([*REPAIR, "--json", *world.search]) == code
    found: dict[str, Any] = json.loads(capsys.readouterr().out)["repair"]
    return found


def reasons(repair: dict[str, Any]) -> list[str]:
    return [skipped["reason"] for skipped in repair["skipped"]]


def test_who_has_it_open_for_writing_goes_on(world: World) -> None:
    one, two = pair(world)
    from_a_cache(world, DATA)
    edit(one / LIB)
    with open(two / LIB, "r+b") as stream:
        repair = world.json(*REPAIR, *world.search, code=1)["repair"]
        stream.write(b"still written")
    assert (repair["done"]["inodes"], reasons(repair)) == (0, ["open for writing"])
    assert (one / LIB).read_bytes().startswith(b"still written")
    assert os.path.samefile(one / LIB, two / LIB)
    assert leftovers(world.root) == []


@pytest.mark.parametrize("step", ["exchange", "_settle"])
def test_who_opens_it_meanwhile_is_not_lost(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: Any, step: str
) -> None:
    one, two = pair(world)
    from_a_cache(world, DATA)
    edit(one / LIB)
    inode = (one / LIB).stat().st_ino
    writers: list[threading.Thread] = []
    owner = SWAP if step == "exchange" else PRIVATIZER
    original = getattr(owner, step)
    held = os.open(two / LIB, os.O_RDONLY)

    def replaced(*arguments: Any) -> None:
        if not writers:
            # whoever got hold of the old inode before, by whatever name
            writers.append(start_writer(f"/proc/self/fd/{held}", inode))
        original(*arguments)

    monkeypatch.setattr(owner, step, replaced)
    repair = repair_inside(world, monkeypatch, capsys, 1)
    writers[0].join()
    os.close(held)
    assert (repair["done"]["inodes"], reasons(repair)) == (0, ["open for writing"])
    for path in (one / LIB, two / LIB):
        assert path.read_bytes().startswith(EDIT)
        assert path.stat().st_ino == inode
    assert leftovers(world.root) == []


def test_a_file_put_there_at_the_last_moment_stays(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    one, two = pair(world)
    from_a_cache(world, DATA)
    edited = edit(one / LIB)
    original = SWAP.exchange

    def replaced(swap: Any, old: int) -> None:
        if swap.root == str(two):
            (two / "new").write_bytes(b"somebody's")
            os.replace(two / "new", two / LIB)
        original(swap, old)

    monkeypatch.setattr(SWAP, "exchange", replaced)
    repair = repair_inside(world, monkeypatch, capsys, 1)
    assert reasons(repair) == ["changed since it was looked at"]
    right(two / LIB, data=b"somebody's")
    right(one / LIB, data=edited)
    assert leftovers(world.root) == []


def test_a_file_that_is_removed_right_after_its_repair(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """The others get theirs, and the run comes to its end."""
    files = {LIB: DATA, "lib/y.so": noise("y", 9000)}
    one, two = pair(world, files)
    world.forge.cache({DIST: files})
    for path in files:
        edit(one / path)
    original = PRIVATIZER._drop_old

    def removed(self: Any, job: Any) -> None:
        original(self, job)
        (one / LIB).unlink(missing_ok=True)

    monkeypatch.setattr(PRIVATIZER, "_drop_old", removed)
    repair = repair_inside(world, monkeypatch, capsys, 0)
    assert repair["done"]["inodes"] == 2
    right(two / LIB)
    right(one / "lib/y.so", two / "lib/y.so", data=files["lib/y.so"])
    with contextlib.closing(sqlite3.connect(world.home / "state/conda-dedup/journal.sqlite")) as journal:
        assert journal.execute("SELECT COUNT(*) FROM run WHERE finished IS NULL").fetchone() == (0,)


def test_a_donor_that_changes_before_it_is_read(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    one, two = pair(world)
    cached = from_a_cache(world, DATA)
    edited = edit(one / LIB)
    copy = private_module.Privatizer._copy

    def meanwhile(self: Any, *arguments: Any) -> Any:
        edit(cached, b"not this")
        return copy(self, *arguments)

    monkeypatch.setattr(private_module.Privatizer, "_copy", meanwhile)
    repair = repair_inside(world, monkeypatch, capsys, 1)
    assert reasons(repair) == ["content differs"]
    right(one / LIB, two / LIB, data=edited)
    assert leftovers(world.root) == []


# -- where nothing may be changed ---------------------------------------------------------------------------


def hold(world: World, tree: Path) -> subprocess.Popen[str]:
    """Another process has the lock of a tree, until its stdin is closed."""
    code = (
        "import sys\n"
        "from conda_dedup_plugin import state\n"
        "with state.lock(sys.argv[1]) as ours:\n"
        "    print(ours, flush=True)\n"
        "    sys.stdin.read()\n"
    )
    command = [world.command()[0], "-c", code, str(tree)]
    holder = subprocess.Popen(
        command, env=world.environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "True\n"
    return holder


def test_a_frozen_environment_is_left_alone(world: World) -> None:
    one, two = pair(world)
    from_a_cache(world, DATA)
    edited = edit(one / LIB)
    (two / "conda-meta/frozen").touch()
    repair = world.json(*REPAIR, *world.search, code=1)["repair"]
    assert [beyond["path"] for beyond in repair["beyond"]] == [str(two / LIB)]
    assert "--override-frozen" in repair["beyond"][0]["advice"]
    right(one / LIB)
    right(two / LIB, data=edited)


def test_an_environment_that_another_run_is_working_on(world: World) -> None:
    one, two = pair(world)
    from_a_cache(world, DATA)
    edited = edit(one / LIB)
    holder = hold(world, two)
    repair = world.json(*REPAIR, *world.search, code=1)["repair"]
    holder.communicate()
    assert reasons(repair) == ["another run is working on it"]
    right(one / LIB, two / LIB, data=edited)


def test_an_environment_of_somebody_else(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Readable, and not to be written to: said, and left as it is."""
    needs("root, to become somebody else", os.geteuid() == 0)
    one, two = pair(world)
    from_a_cache(world, DATA)
    edited = edit(one / LIB)
    folders = [world.root, *world.root.parents[:-1]]
    modes = {folder: folder.stat().st_mode & 0o7777 for folder in folders}
    home = world.root.parent / "theirs"
    home.mkdir()
    home.chmod(0o777)

    def repair() -> tuple[int, str]:
        inside(World(world.root, home), monkeypatch)
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            return main([*REPAIR, "--json", *world.search]), out.getvalue()

    try:
        for folder in folders:
            folder.chmod(0o755)
        code, text = as_nobody(repair)
    finally:
        for folder, mode in modes.items():
            folder.chmod(mode)
    assert code == 1
    assert reasons(json.loads(text)["repair"]) == ["permission denied"]
    right(one / LIB, two / LIB, data=edited)


def test_an_environment_that_is_not_selected_is_repaired_too(world: World) -> None:
    """It is the same inode, and nobody wants the damage."""
    one, two = pair(world)
    from_a_cache(world, DATA)
    register(world)
    edit(one / LIB)
    world.json(*REPAIR, "--prefix", one, "--pkgs-dir", world.root / "pkgs")
    right(one / LIB, two / LIB)
    assert os.path.samefile(one / LIB, two / LIB)
