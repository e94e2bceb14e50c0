"""How the command line behaves in a terminal: what is told without a command, helps, widths, quiet, exact."""

from __future__ import annotations

import argparse
import ast
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import conda_dedup_plugin
from conda_dedup_plugin import errors
from conda_dedup_plugin.cli.parser import build_parser
from tests.test_cli import in_a_terminal
from tests.test_report import World, everything, twins

PACKAGE = Path(conda_dedup_plugin.__file__).parent
COLUMNS = 80
#: What an argument called so is short for, in conda as here.
SHORT = {
    "-h": "--help", "-n": "--name", "-p": "--prefix", "-d": "--dry-run", "-y": "--yes", "-q": "--quiet",
    "-v": "--verbose",
}  # fmt: skip


def verbs() -> dict[str, argparse.ArgumentParser]:
    parser = build_parser("conda-dedup")
    return next(action.choices for action in parser._actions if isinstance(action.choices, dict))


VERBS = sorted(verbs())


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "world", tmp_path / "home")


# -- without a command ------------------------------------------------------------------------------------


def overview(world: World) -> dict[str, str]:
    """What it tells, by the word in front, and the lines below a word joined."""
    done = world.run()
    assert done.stderr == ""
    assert all(len(line) <= COLUMNS for line in done.stdout.splitlines() if "/" not in line)
    told: dict[str, str] = {}
    for line in done.stdout.splitlines()[2:]:
        word = line[:14].strip() or list(told)[-1]
        told[word] = f"{told[word]}\n{line[14:]}" if word in told else line[14:]
    return told


def test_nothing_is_known_yet(world: World) -> None:
    twins(world)
    before = everything(world.home), everything(world.root)
    told = overview(world)
    assert told["Freeable"] == "not known yet" and told["Last run"] == "none"
    assert told["Pending"] == "nothing"
    assert told["Next"] == "conda-dedup report  (shows what is held twice)"
    assert told["All commands"] == "conda-dedup --help"
    assert (everything(world.home), everything(world.root)) == before


def test_what_a_report_found_and_an_apply_did(world: World) -> None:
    twins(world)
    search = ("--search", world.root)
    planned = json.loads(world.run("apply", "--dry-run", *search, "--json").stdout)["planned"]
    freeable = planned["freeable_bytes"]
    exact = world.run("-v").stdout
    assert re.search(rf"^Freeable +{freeable:,} bytes in 1 environment, as last seen$", exact, re.MULTILINE)
    told = overview(world)
    assert re.fullmatch(
        r"\d.* kB in 1 environment, as last seen\n +\d.* kB  20..-..-.. ..:..  two", told["Freeable"]
    )
    assert told["Next"].startswith("conda-dedup apply  (")
    document = json.loads(world.run("--json").stdout)
    assert [(one["name"], one["bytes"]) for one in document["freeable"]] == [("two", freeable)]
    assert document["last_run"] is None and document["next"] == "conda-dedup apply"

    world.run("apply", "--yes", *search)
    told = overview(world)
    assert re.search(r"conda-dedup apply: \d files, .* freed", told["Last run"])
    assert told["Freeable"] == "not known since the last run"
    assert json.loads(world.run("--json").stdout)["last_run"]["bytes_freed"] == freeable


def test_work_that_a_dead_process_left(world: World) -> None:
    twins(world)
    prefix = world.root / "envs/two"
    code = f"from conda_dedup_plugin import pending; pending.note({str(prefix)!r}, ['x-1-0'])"
    subprocess.run([sys.executable, "-c", code], env=world.environ, check=True)
    told = overview(world)
    assert told["Pending"] == "work on 1 environment; see: conda-dedup status"
    assert told["Next"] == f"conda-dedup apply -p {shlex.quote(str(prefix))}  (takes up what is pending)"
    assert json.loads(world.run("--json").stdout)["pending"] == [str(prefix)]


def test_no_directory_of_an_environment_is_read(world: World) -> None:
    twins(world)
    world.run("apply", "--dry-run", "--search", world.root)
    code = f"""
import sys
def hook(event, arguments):
    if event in ("os.scandir", "os.listdir", "open") and str(arguments[0]).startswith({str(world.root)!r}):
        raise SystemExit(f"{{event}} {{arguments}}")
sys.addaudithook(hook)
from conda_dedup_plugin.cli import main
sys.exit(main([]))
"""
    done = subprocess.run([sys.executable, "-c", code], env=world.environ, capture_output=True, text=True)
    assert not done.returncode and "1 environment" in done.stdout, done.stderr


def test_a_state_that_cannot_be_read_is_a_warning(world: World) -> None:
    world.extra["XDG_STATE_HOME"] = "/dev/null/state"
    done = world.run()
    assert "not known yet" in done.stdout and done.stderr.startswith("warning: ")
    assert world.run("-q").stderr == ""


# -- helps and options ------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", VERBS)
def test_every_help_fits_and_has_two_examples_that_are_true(
    verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(COLUMNS))
    text = verbs()[verb].format_help()
    assert not [line for line in text.splitlines() if len(line) > COLUMNS]
    examples = re.findall(r"^  conda-dedup (.*)$", text.partition("\nexamples:\n")[2], re.MULTILINE)
    assert len(examples) >= 2
    for example in examples:
        assert example.split()[0] == verb
        build_parser("conda-dedup").parse_args(shlex.split(example))


@pytest.mark.parametrize("verb", VERBS)
def test_options_are_called_as_condas(verb: str) -> None:
    found = {
        name: action.option_strings for action in verbs()[verb]._actions for name in action.option_strings
    }
    for name, strings in found.items():
        if re.fullmatch("-[a-z]", name):
            assert SHORT[name] in strings
    assert {"--json", "-v", "-q", "-h"} <= found.keys()
    assert ("--yes" in found) == ("--dry-run" in found) == (verb in {"apply", "undo", "verify", "clean"})
    assert ("--name" in found) == ("--prefix" in found) == (verb not in {"history", "demo"})


# -- output -----------------------------------------------------------------------------------------------

TOLD = (
    ("report",),
    ("report", "--goal", "inodes"),
    ("status",),
    ("compare", "--all"),
    ("suggest",),
    ("apply", "--dry-run"),
    ("verify",),
)


@pytest.mark.parametrize("words", TOLD, ids=" ".join)
def test_tables_fit_and_a_pipe_gets_plain_text(world: World, words: tuple[str, ...]) -> None:
    twins(world)
    name = "a-name-that-is-as-long-as-names-of-environments-can-be-" * 2
    world.forge.environment(name, {})
    out = world.run(*words, *world.search).stdout
    assert "\x1b" not in out
    # what has a path or a name in it is as long as that
    assert not [
        line for line in out.splitlines() if len(line) > COLUMNS and not re.search(f"/|{name[:40]}", line)
    ]
    if words[0] == "report":
        table = world.run(*words, "-v", *world.search).stdout.partition("\n\n")[0].splitlines()
        assert len(table) > 3 and max(map(len, table)) <= COLUMNS


def test_a_history_fits(world: World) -> None:
    twins(world)
    world.run("apply", "--yes", *world.search)
    assert all(len(line) <= COLUMNS for line in world.run("history", "-v").stdout.splitlines())


def test_no_colour(world: World) -> None:
    twins(world)
    coloured = re.compile(r"\x1b\[[0-9;]*\b(?:3[0-9]|4[0-9]|9[0-7])[0-9;]*m")
    assert "\x1b[1m" in in_a_terminal(world, "report", *world.search)[1]
    world.extra["NO_COLOR"] = "1"
    for words in (("report",), ("apply", "--yes"), ("history",)):
        scope = world.search if words != ("history",) else ()
        code, screen = in_a_terminal(world, *words, *scope)
        assert code == 0 and not coloured.search(screen)


def test_exact_bytes(world: World) -> None:
    twins(world)
    document: dict[str, Any] = json.loads(world.run("report", *world.search, "--json").stdout)
    for words in (("report", "-v"), ("-v", "report"), ("report", "--verbose")):
        # the fixture's own word comes after the verb
        out = world.run(*words, *world.search, *([] if words[0] == "report" else ["--fresh"])).stdout
        for kind in ("disk_bytes", "duplicate_bytes", "freeable_bytes"):
            assert f"{document['totals'][kind]:,} bytes" in out
        for tree in document["environments"]:
            row = next(line for line in out.splitlines() if line.startswith(tree["name"]))
            assert f"{tree['apparent_bytes']:,}" in row and f"{tree['private_bytes']:,}" in row
    assert " bytes" not in world.run("report", *world.search).stdout.replace("0 bytes", "")
    done = world.run("apply", "--yes", "-v", *world.search).stdout
    assert f" files shared, {document['totals']['freeable_bytes']:,} bytes freed.\n" in done


def test_quiet(world: World) -> None:
    twins(world)
    (world.root / "envs/one/conda-meta/broken-1-0.json").write_text("{")
    loud = world.run("report", *world.search)
    assert "warning: " in loud.stderr
    for words in (("report", "-q"), ("-q", "report"), ("report", "--quiet")):
        quiet = world.run(*words, *world.search, *([] if words[0] == "report" else ["--fresh"]))
        assert quiet.stderr == "" and quiet.stdout == loud.stdout
    assert json.loads(world.run("report", "-q", "--json", *world.search).stdout)["warnings"]


# -- errors -----------------------------------------------------------------------------------------------


def test_every_error_has_a_next_step() -> None:
    """Wherever one is made a hint is given, or its kind has a usual one."""
    usual = {name for name, kind in vars(errors).items() if getattr(kind, "usual_hint", "")}
    assert usual == {"StateError"}
    without = []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                made = node.func.id in {"DedupError", "UsageError", "_NotStartedError"}
                if made and len(node.args) < 2 and path.name != "errors.py":
                    without.append(f"{path.name}:{node.lineno}")
    assert not without
    assert errors.StateError("x").next_step and errors.StateError("x", "do y").next_step == "do y"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("run", "--", "no-such-program-at-all"), 127),
        (("run", "--", "/dev/null"), 126),
        (("compare", "/dev/null", "/nowhere/file.yml"), 2),
        (("snapshot", "-p", "{prefix}", "--write", "/dev/null/x"), 1),
        (("history",), 1),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_errors_are_one_sentence_and_a_next_step(
    world: World,
    words: tuple[str, ...],
    code: int,
) -> None:
    twins(world)
    if words == ("history",):
        world.extra["XDG_STATE_HOME"] = "/dev/null/state"
    prefix = str(world.root / "envs/one")
    lines = world.run(*(word.format(prefix=prefix) for word in words), code=code).stderr.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("conda-dedup: error: ") and lines[1].startswith("  hint: ")
