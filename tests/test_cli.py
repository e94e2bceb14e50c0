"""The command line as a process: consent, exit codes, --json, terminals, pipes and locks."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import shlex
import signal
import sqlite3
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import Any

import pytest

from conda_dedup_plugin.journal import Journal
from tests.lab.invariants import assert_unchanged, snapshot
from tests.test_report import LIBRARY, REPOSITORY, T, World, everything, twins

LIB = "lib/libx.so"


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "world", tmp_path / "home")


def shell(world: World, template: str) -> subprocess.CompletedProcess[str]:
    """Run a line of bash in which RUN and SEARCH stand for our command and its scope."""
    line = template.replace("RUN", shlex.join(world.command())).replace("SEARCH", shlex.join(world.search))
    return subprocess.run(
        ["bash", "-c", line], env=world.environ, capture_output=True, text=True, timeout=120
    )


def is_shared(world: World) -> bool:
    return os.path.samefile(world.root / "envs/one" / LIB, world.root / "envs/two" / LIB)


def in_a_terminal(world: World, *words: object, keys: bytes = b"") -> tuple[int, str]:
    """Run it in a terminal; once it asks, ``keys`` are pressed. Returns exit code and screen."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        world.command(*words),
        env={**world.environ, "TERM": "xterm"},
        cwd=world.home,
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(slave)
    screen = b""
    until = time.monotonic() + 60
    pressed = 0.0
    while time.monotonic() < until:
        ready, _, _ = select.select([master], [], [], 0.1)
        if ready:
            try:
                piece = os.read(master, 65536)
            except OSError:
                break
            if not piece:
                break
            screen += piece
        if keys and b"? [y/N] " in screen and time.monotonic() > pressed + 1:
            os.write(master, keys)
            pressed = time.monotonic()
            # what interrupts is lost between the question and the wait for an answer: as anybody, press again
            keys = keys if keys == b"\x03" else b""
    code = process.wait(timeout=10)
    os.close(master)
    text = screen.decode("utf-8", "replace")
    assert "Traceback" not in text, text
    return code, text


# -- errors -----------------------------------------------------------------------------------------------

USAGE = [
    ["report", "--bogus"],
    ["report", "bogus"],
    ["bogus"],
    ["--bogus"],
    ["report", "--min-size", "x"],
    ["report", "--min-size", "1.5"],
    ["report", "--min-size", "4K"],
    ["report", "--min-size", ""],
    ["report", "--min-size", "0"],
    ["report", "--min-size", "-5"],
    ["report", "--min-size", "9" * 5000],
    ["report", "--min-size"],
    ["report", "--method", "magic"],
    ["report", "--name", "nope"],
    ["report", "--name", ""],
    ["report", "--prefix", "/nowhere"],
    ["report", "--prefix", ""],
    ["report", "--search", "/nowhere"],
    ["report", "--search", "/dev/null"],
    ["report", "--search", ""],
    ["report", "--pkgs-dir", "/nowhere"],
    ["report", "--pkgs-dir", ""],
    ["report", "--no-discover"],
    ["apply", "--yes", "--no-discover"],
    ["apply", "--yes", "--search", "/nowhere"],
    ["apply", "--dry-run", "--name", "nope"],
    ["apply", "--yes", "--bogus"],
]
FAILED = [["apply"], ["apply", "--quiet"], ["apply", "--no-journal"], ["apply", "--yes"]]


def cases() -> list[Any]:
    return [
        pytest.param(words, code, id=" ".join(words)[:40] or "nothing")
        for code, group in ((2, USAGE), (1, FAILED))
        for words in group
    ]


def broken_state(world: World, words: list[str]) -> None:
    """Where the words themselves are right, the state directory is not to be had."""
    if words == ["apply", "--yes"]:
        world.extra["XDG_STATE_HOME"] = "/dev/null/state"


@pytest.mark.parametrize(("words", "code"), cases())
def test_errors_in_words(world: World, words: list[str], code: int) -> None:
    twins(world)
    broken_state(world, words)
    before = everything(world.root)
    done = world.run(*words, code=code)
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("conda-dedup: error: ") and lines[0][20:].strip()
    assert lines[1].startswith("  hint: ") and lines[1][8:].strip()
    assert everything(world.root) == before


@pytest.mark.parametrize(("words", "code"), cases())
def test_errors_in_json(world: World, words: list[str], code: int) -> None:
    twins(world)
    broken_state(world, words)
    before = everything(world.root)
    documents = []
    for line in (["--json", *words], [*words[:1], "--json", *words[1:]], [*words, "--json"]):
        done = world.run(*line, code=code)
        assert done.stderr == ""
        documents.append(json.loads(done.stdout))
        assert documents[-1]["error"] and documents[-1]["hint"]
        assert documents[-1]["schema"] == 1
    if words[-1] != "--min-size":
        assert documents[0] == documents[1] == documents[2]
    assert everything(world.root) == before


def test_a_setting_that_cannot_be_is_no_error_of_the_command(world: World) -> None:
    twins(world)
    (world.home / ".condarc").write_text("plugins: {dedup_min_size: 0, dedup_method: magic}\nenvs_dirs: 7")
    assert world.json("report", *world.search)["warnings"]


def test_json_before_and_after_the_verb(world: World) -> None:
    twins(world)
    before, after = (
        json.loads(world.run(*words, *world.search).stdout)
        for words in (("--json", "report"), ("report", "--json"))
    )
    assert {**before, "walked": ""} == {**after, "walked": ""}  # a second may have begun
    assert before["environments"]


def test_json_is_one_document_of_all_verbs(world: World) -> None:
    twins(world)
    for words in (("report",), ("apply", "--dry-run"), ("apply", "--yes"), ("apply", "--yes", "--quiet")):
        for line in (("--json", *words), (*words, "--json")):
            done = world.run(*line, *world.search)
            assert json.loads(done.stdout)["schema"] == 1
            assert done.stderr == ""


def test_json_by_a_part_of_its_name(world: World) -> None:
    """Either it is no option or it means what it is short for."""
    done = world.run("report", "--js", *world.search, code=None)
    assert done.returncode == 2 or json.loads(done.stdout)["schema"] == 1


def test_help_and_version(world: World) -> None:
    assert re.fullmatch(r"conda-dedup-plugin \S+\n", world.run("--version").stdout)
    for words in (["--help"], ["report", "--help"], ["apply", "-h"]):
        done = world.run(*words)
        assert done.stdout.startswith("usage: conda-dedup")
        assert done.stderr == ""
    assert "examples:" in world.run("apply", "--help").stdout


# -- consent ----------------------------------------------------------------------------------------------


def test_without_consent_nothing_changes(world: World) -> None:
    twins(world)
    before = everything(world.root)
    for words in (["apply"], ["apply", "--quiet"], ["apply", "--json"]):
        done = world.run(*words, *world.search, code=1)
        assert "Nothing was changed" in done.stdout + done.stderr
    # an answer in a pipe is no terminal
    piped = world.run("apply", *world.search, code=1, stdin=None, input=b"y\ny\n")
    assert "--yes" in piped.stderr
    assert everything(world.root) == before
    assert list(world.home.rglob("*")) == []


@pytest.mark.parametrize("where", ["condarc", "variable", "yes"])
def test_always_yes_is_no_consent(world: World, where: str) -> None:
    twins(world)
    if where == "condarc":
        (world.home / ".condarc").write_text("always_yes: true\n")
    else:
        world.extra["CONDA_ALWAYS_YES" if where == "variable" else "CONDA_YES"] = "true"
    before = everything(world.root)
    world.run("apply", *world.search, code=1)
    code, screen = in_a_terminal(world, "apply", *world.search, keys=b"n\n")
    assert code == 1
    assert "Share them? [y/N]" in screen
    assert everything(world.root) == before


@pytest.mark.parametrize("keys", [b"n\n", b"\n", b"no\n", b"yess\n", b"\x04", b"\xff\n", b"j\n"])
def test_a_terminal_is_asked_and_refuses(world: World, keys: bytes) -> None:
    twins(world)
    before = everything(world.root)
    code, screen = in_a_terminal(world, "apply", *world.search, keys=keys)
    assert code == 1
    assert "2 files can be shared" in screen
    assert "Nothing was changed." in screen
    assert everything(world.root) == before


@pytest.mark.parametrize("keys", [b"y\n", b"Y\n", b"yes\n", b" y \n"])
def test_a_terminal_is_asked_and_agrees(world: World, keys: bytes) -> None:
    one, two = twins(world)
    before = snapshot(one, two)
    code, screen = in_a_terminal(world, "apply", *world.search, keys=keys)
    assert code == 0
    assert "2 files shared" in screen
    assert is_shared(world)
    assert_unchanged(before, snapshot(one, two))


def test_an_answer_that_is_no_text(world: World) -> None:
    twins(world)
    world.extra["PYTHONIOENCODING"] = "utf-8:strict"  # as in any locale but C
    code, screen = in_a_terminal(world, "apply", *world.search, keys=b"\xff\n")
    assert code == 1
    assert "Nothing was changed." in screen


def test_ctrl_c_at_the_question(world: World) -> None:
    twins(world)
    before = everything(world.root)
    code, screen = in_a_terminal(world, "apply", *world.search, keys=b"\x03")
    assert code == 130
    assert "Interrupted" in screen
    assert everything(world.root) == before


def test_nobody_is_asked_when_there_is_nothing_to_do(world: World) -> None:
    world.forge.environment("one", {})
    code, screen = in_a_terminal(world, "apply", *world.search)
    assert code == 0
    assert "There is nothing to share." in screen
    assert "[y/N]" not in screen


def test_a_terminal_that_gets_json_is_not_asked(world: World) -> None:
    twins(world)
    code, screen = in_a_terminal(world, "apply", "--json", *world.search)
    assert code == 1
    assert json.loads(screen)["error"]
    assert not is_shared(world)


def test_names_cannot_command_a_terminal(world: World) -> None:
    """Here colours are welcome, and what is in names is not."""
    for name in ("one\x1b[2J\x1b]0;x\x07\n", "two\x1b[2J\n"):
        world.forge.environment(name, {("a", "1", "0"): {"lib/\x1b[2J\x1b]0;x\x07.so": LIBRARY}})
    for words, keys in ((("report",), b""), (("apply", "--dry-run"), b""), (("apply",), b"y\n")):
        code, screen = in_a_terminal(world, *words, *world.search, keys=keys)
        assert code == 0
        assert "\x1b[2J" not in screen and "\x1b]0" not in screen and "\x07" not in screen


# -- apply ------------------------------------------------------------------------------------------------


def test_yes(world: World) -> None:
    one, two = twins(world)
    before = snapshot(one, two)
    planned = world.json("apply", "--dry-run", *world.search)
    document = world.json("apply", "--yes", *world.search)
    assert {"schema", "planned", "done", "skipped", "failed"} <= set(document)
    assert set(document["planned"]) == T
    assert document["planned"] == planned["planned"]
    done = document["done"]
    assert set(done) == {"inodes", "bytes_freed", "inodes_freed", "by_method", "blocks"}
    assert done["by_method"] == {"hardlink": {"inodes": 2, "bytes_freed": done["bytes_freed"]}}
    assert done["bytes_freed"] == planned["planned"]["freeable_bytes"] > 100_000
    assert document["skipped"] == document["failed"] == document["warnings"] == []
    assert is_shared(world)
    assert_unchanged(before, snapshot(one, two))
    assert not list(world.root.rglob("*conda-dedup*"))
    again = world.run("apply", "--yes", *world.search)
    assert again.stdout == "0 files shared, 0 bytes freed.\n"


def test_a_dry_run_is_the_plan_and_changes_nothing(world: World) -> None:
    twins(world)
    world.forge.environment("three", {("a", "1", "0"): {LIB: LIBRARY}})
    os.link(world.root / "envs/three" / LIB, world.root / "envs/three/lib/second-name.so")
    before = everything(world.root)
    for yes in ((), ("--yes",)):
        document = world.json("apply", "--dry-run", *yes, *world.search)
        text = world.run("apply", "--dry-run", *yes, *world.search)
        assert everything(world.root) == before
        # what was read is remembered, nothing else
        assert [path.name for path in world.home.rglob("*") if path.is_file()] == ["digests.sqlite"]
    assert document["done"] == {
        "inodes": 0,
        "bytes_freed": 0,
        "inodes_freed": 0,
        "by_method": {},
        "blocks": [],
    }
    assert document["skipped"] == document["failed"] == []
    shown, names = [], []
    *lines, summary = text.stdout.splitlines()
    for line in lines:
        method, _, path = re.fullmatch(r"(\w*) +(\S+ \S+|as)  (/.*)", line).groups()
        if method:
            names.append((method, path))
        else:
            shown.append((names, path))
            names = []
    planned = [
        ([(share["method"], path) for path in share["names"]], share["keeper"])
        for share in document["shares"]
    ]
    assert shown == planned
    assert sum(share["bytes"] for share in document["shares"]) == document["planned"]["freeable_bytes"]
    assert summary.startswith(f"{len(planned)} files can be shared, which frees ")
    # and it is what is done
    done = world.json("apply", "--yes", *world.search)
    assert done["done"]["inodes"] == len(planned)
    for share in document["shares"]:
        assert all(os.path.samefile(path, share["keeper"]) for path in share["names"])


def test_quiet(world: World) -> None:
    one, _ = twins(world)
    (one / "conda-meta/bad.json").write_text("{")
    for words in (("--dry-run",), ("--yes",)):
        done = world.run("apply", "--quiet", *words, *world.search)
        assert done.stdout == done.stderr == ""
    assert is_shared(world)
    # errors are said all the same
    assert world.run("apply", "--quiet", "--yes", "--name", "nope", code=2).stderr


def test_only_what_is_named_is_changed(world: World) -> None:
    one, two = twins(world)
    (world.home / ".conda").mkdir()
    (world.home / ".conda/environments.txt").write_text(f"{one}\n{two}\n")
    before = {path: info for path, info in everything(one).items() if not path.endswith((LIB, "share/x.txt"))}
    kept = os.lstat(one / LIB).st_ino
    world.run("apply", "--yes", "--prefix", two)
    assert os.lstat(two / LIB).st_ino == os.lstat(one / LIB).st_ino == kept
    assert {path: info for path, info in everything(one).items() if path in before} == before


def test_a_file_that_is_being_written_is_skipped(world: World) -> None:
    one, two = twins(world)
    with (one / LIB).open("r+b"), (two / LIB).open("r+b"):
        document = world.json("apply", "--yes", *world.search)
    (skipped,) = document["skipped"]
    assert (skipped["reason"], skipped["inodes"]) == ("open for writing", 1)
    assert document["done"]["inodes"] == 1
    assert not is_shared(world)
    with (one / LIB).open("r+b"), (two / LIB).open("r+b"):
        text = world.run("apply", "--yes", *world.search)
    assert "left alone: 1 file" in text.stdout and "open for writing" in text.stdout
    world.run("apply", "--yes", *world.search)
    assert is_shared(world)


# -- state ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("obstacle", ["no directory", "a file", "a damaged journal", "a journal to come"])
def test_without_a_usable_state_directory(world: World, obstacle: str) -> None:
    one, two = twins(world)
    state = world.home / "state/conda-dedup"
    if obstacle == "no directory":
        world.extra["XDG_STATE_HOME"] = "/dev/null/state"
    elif obstacle == "a file":
        state.parent.mkdir()
        state.touch()
    else:
        state.mkdir(parents=True)
        (state / "journal.sqlite").write_bytes(b"damage" * 1000)
        if obstacle == "a journal to come":
            (state / "journal.sqlite").unlink()
            with contextlib.closing(sqlite3.connect(state / "journal.sqlite")) as connection:
                connection.execute("PRAGMA user_version=9")
    before = everything(world.root)
    done = world.run("apply", "--yes", *world.search, code=1)
    assert "--no-journal" in done.stderr
    assert "error" in json.loads(world.run("apply", "--yes", "--json", *world.search, code=1).stdout)
    assert everything(world.root) == before
    # looking needs none
    world.run("report", *world.search)
    world.run("apply", "--dry-run", *world.search)
    assert everything(world.root) == before
    files = snapshot(one, two)
    document = world.json("apply", "--yes", "--no-journal", *world.search)
    assert document["done"]["inodes"] == 2
    assert is_shared(world)
    assert_unchanged(files, snapshot(one, two))


HOLD = """
import sys, time
from conda_dedup_plugin import state
with state.lock(sys.argv[1]) as ours:
    print(ours, flush=True)
    time.sleep(120)
"""


@contextlib.contextmanager
def locked(world: World, env: Path):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(env)], env=world.environ, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout.readline() == "True\n"
        yield
    finally:
        holder.kill()
        holder.communicate()


def test_a_locked_environment_is_skipped(world: World) -> None:
    one, two = twins(world)
    before = everything(world.root)
    with locked(world, one), locked(world, two):
        document = world.json("apply", "--yes", *world.search)
        text = world.run("apply", "--yes", *world.search)
    assert [skipped["reason"] for skipped in document["skipped"]] == ["another run is working on it"]
    assert document["skipped"][0]["inodes"] == 2
    assert document["done"]["inodes"] == 0
    assert document["failed"] == []
    assert "another run is working on it" in text.stdout
    assert everything(world.root) == before
    assert world.json("apply", "--yes", *world.search)["done"]["inodes"] == 2


def test_the_others_are_not_held_up(world: World) -> None:
    twins(world)
    planned = world.json("apply", "--dry-run", *world.search)["shares"]
    target = Path(planned[0]["names"][0]).relative_to(world.root / "envs").parts[0]
    three = world.forge.environment("three", {("a", "1", "0"): {LIB: LIBRARY}})
    with locked(world, world.root / "envs" / target):
        document = world.json("apply", "--yes", *world.search)
    assert document["done"]["inodes"] >= 1
    assert document["skipped"][0]["reason"] == "another run is working on it"
    assert not is_shared(world)
    assert os.lstat(three / LIB).st_nlink == 2


def test_two_runs_at_once(world: World) -> None:
    twins(world)
    for name in ("three", "four"):
        world.forge.environment(name, {("a", "1", "0"): {LIB: LIBRARY}})
    before = snapshot(world.root)
    running = [
        subprocess.Popen(
            world.command("apply", "--yes", "--json", *world.search),
            env=world.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for _ in range(4)
    ]
    for process in running:
        out, err = process.communicate(timeout=120)
        assert (process.returncode, err) == (0, b"")
        assert json.loads(out)["failed"] == []
    assert_unchanged(before, snapshot(world.root))
    assert world.json("apply", "--yes", *world.search)["failed"] == []
    assert is_shared(world)
    assert not list(world.root.rglob("*conda-dedup*"))


# -- pipes --------------------------------------------------------------------------------------------------

PIPED = [
    ("report",),
    ("report", "--json"),
    ("apply", "--dry-run"),
    ("apply", "--dry-run", "--json"),
    ("apply", "--yes"),
    ("apply", "--yes", "--json"),
    ("report", "--name", "nope", "--json"),
    ("--help",),
    ("--version",),
]


def piped() -> list[Any]:
    return [
        pytest.param(words, many, id=" ".join(words) + many * "-much")
        for words in PIPED
        for many in (False, True)
    ]


@pytest.mark.parametrize(("words", "many"), piped())
def test_a_closed_pipe(world: World, words: tuple[str, ...], many: bool) -> None:
    """As by ``| head -1``: who reads has seen enough. Nothing is said about it."""
    files = {f"lib/lib{number}.so": LIBRARY[number:] for number in range(200 if many else 1)}
    for name in ("one", "two"):
        world.forge.environment(name, {("a", "1", "0"): files})
    reader, writer = os.pipe()
    os.close(reader)
    scope = world.search if words[0] in ("report", "apply") else ()
    done = world.run(*words, *scope, code=None, stdout=writer)
    os.close(writer)
    assert done.stderr == ""
    if words == ("apply", "--yes"):
        assert os.lstat(world.root / "envs/one/lib/lib0.so").st_nlink == 2


def test_head(world: World) -> None:
    files = {f"lib/lib{number}.so": LIBRARY[number:] for number in range(200)}
    for name in ("one", "two"):
        world.forge.environment(name, {("a", "1", "0"): files})
    for words in ("report --json", "apply --dry-run"):
        done = shell(world, f"RUN {words} SEARCH | head -1")
        assert done.stderr == ""
        assert len(done.stdout.splitlines()) == 1


@pytest.mark.parametrize("words", PIPED[:6], ids=" ".join)
def test_a_full_disk_behind_the_output(world: World, words: tuple[str, ...]) -> None:
    twins(world)
    with open("/dev/full", "wb") as full:
        done = world.run(*words, *world.search, code=None, stdout=full)
    assert done.returncode == 1
    assert done.stderr.startswith("conda-dedup: error: ")
    assert len(done.stderr.splitlines()) <= 2


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_an_output_that_cannot_show_all_letters(world: World, encoding: str) -> None:
    for name in ("ünï", "日本"):
        world.forge.environment(name, {("a", "1", "0"): {"lib/日.so": LIBRARY}})
    world.extra["PYTHONIOENCODING"] = encoding
    for words in (("report",), ("report", "--json"), ("apply", "--dry-run"), ("apply", "--yes")):
        world.run(*words, *world.search)


def test_without_input_and_output(world: World) -> None:
    """A service may start us with all of it closed."""
    twins(world)
    done = shell(world, "RUN apply --yes SEARCH <&- >&- 2>&-")
    assert done.returncode == 0
    assert is_shared(world)


def test_a_run_from_a_directory_that_is_gone(world: World, tmp_path: Path) -> None:
    twins(world)
    (gone := tmp_path / "gone").mkdir()
    done = shell(world, f"cd {gone} && rmdir {gone} && RUN report --json SEARCH")
    assert json.loads(done.stdout)["totals"]["files"] == 12


def test_a_kill_in_the_middle_leaves_all_content(world: World) -> None:
    files = {f"lib/lib{number}.so": LIBRARY[number:] for number in range(400)}
    for name in ("one", "two", "three"):
        world.forge.environment(name, {("a", "1", "0"): files})
    before = snapshot(world.root)
    for delay in (0.25, 0.4, 0.55, 0.7):
        process = subprocess.Popen(
            world.command("apply", "--yes", *world.search), env=world.environ, stdout=subprocess.DEVNULL
        )
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
        after = {path: state for path, state in snapshot(world.root).items() if ".conda-dedup-" not in path}
        assert_unchanged(before, after)
    document = world.json("apply", "--yes", *world.search)
    assert document["failed"] == []
    assert_unchanged(before, snapshot(world.root))
    assert world.json("report", *world.search)["totals"]["freeable_bytes"] == 0
    assert not [
        path for path in world.root.rglob("*conda-dedup*") if not path.is_dir() or any(path.iterdir())
    ]


def test_an_empty_staging_directory_of_a_killed_run_goes(world: World) -> None:
    """What a run leaves that is killed before its first intent, or after its last result."""
    one, _ = twins(world)
    journal = world.home / "state/conda-dedup/journal.sqlite"
    journal.parent.mkdir(parents=True)
    child = os.fork()
    if child == 0:
        try:
            book = Journal.open(journal)
            book.begin("killed")
            book.staging(str(one), f".conda-dedup-{book.run}")
            (one / f".conda-dedup-{book.run}").mkdir(0o700)
            os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)
    os.waitpid(child, 0)
    assert list(one.glob(".conda-dedup-*"))
    world.json("apply", "--yes", *world.search)
    assert is_shared(world)
    assert not list(one.glob(".conda-dedup-*"))


@pytest.mark.parametrize("levels", [700, 1200])
def test_deep_directories(world: World, levels: int) -> None:
    """The second has more levels than Python calls functions one in the other."""
    envs = twins(world)
    where = "d/" * levels + "x.so"
    for env in envs:
        for level in range(levels):
            os.mkdir(env / ("d/" * (level + 1)))
        (env / where).write_bytes(LIBRARY[1:])
        world.forge._record(env, ("deep", "1", "0"), {where: LIBRARY[1:]})
        os.utime(env / where, (0, 0))
    try:
        # as many descriptors as a shell usually gives
        done = shell(world, "ulimit -n 4096; RUN report --json SEARCH")
        assert "Traceback" not in done.stderr, done.stderr
        assert json.loads(done.stdout)["totals"]["freeable_bytes"] > 0
        done = shell(world, "ulimit -n 4096; RUN apply --yes --json SEARCH")
        assert json.loads(done.stdout)["failed"] == []
        assert is_shared(world)
    finally:
        for env in envs:
            subprocess.run(["rm", "-rf", env / "d"], check=True)


def test_the_whole_is_found_without_an_installation() -> None:
    """What the other tests run is this working tree."""
    code = "import conda_dedup_plugin; print(conda_dedup_plugin.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
    )
    assert done.stdout.startswith(str(REPOSITORY))
