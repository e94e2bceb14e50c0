"""The line about an environment that could free much: when there is one, and when there is none."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import time
from pathlib import Path

import msgspec
import pytest

from conda_dedup_plugin import notices, pending
from conda_dedup_plugin.automatic import Command, share_changed
from conda_dedup_plugin.cli import main
from conda_dedup_plugin.demo.distributions import SITE_PACKAGES
from conda_dedup_plugin.environments import Request, find
from conda_dedup_plugin.remembering import load
from conda_dedup_plugin.settings import Settings
from conda_dedup_plugin.state import environment_directory
from tests.conftest import MakeLab
from tests.lab.forge import Forge, noise
from tests.lab.world import CondaLab
from tests.test_automatic import far
from tests.test_manners import home, in_child, register

__all__ = ["far", "home"]

DAY = 86400
PACKAGES = {("p", "1", "0"): {"lib/p.so": noise("p", 90_000)}}


@pytest.fixture
def forge(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Forge:
    """Two environments with the same file, and a report of them."""
    forge = Forge(tmp_path)
    for name in ("one", "two"):
        forge.environment(name, PACKAGES)
    register(home, forge)
    report(capsys)
    return forge


def report(capsys: pytest.CaptureFixture[str], *words: str) -> dict:
    assert main(["report", "--json", *words]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_report_is_remembered(forge: Forge, capsys: pytest.CaptureFixture[str]) -> None:
    reported = {each["prefix"]: each["freeable_bytes"] for each in report(capsys)["environments"]}
    assert sum(reported.values()) >= 90_000
    known = {check.prefix: check.freeable.bytes for check in pending.remembered() if check.freeable}
    assert known == {root: size for root, size in reported.items() if size}
    (root,) = known
    line = notices.notice(80_000, 7, "conda dedup")
    name = Path(root).name
    assert line is not None
    assert re.fullmatch(rf"env '{name}' could free 9\d\.\d kB: conda dedup apply -n {name}", line)


def test_one_line_for_so_many_days(forge: Forge) -> None:
    assert notices.notice(80_000, 7, "x") is not None
    assert notices.notice(80_000, 7, "x") is None
    assert notices.notice(80_000, 0, "x") is not None
    (root,) = [check.prefix for check in pending.remembered() if check.freeable]
    file = environment_directory(root) / "notified.json"
    before = load(file, notices.Notified)
    assert before is not None and before.bytes >= 90_000
    for days, is_told in ((6.9, False), (7.1, True), (-1, True)):
        file.write_bytes(msgspec.json.encode(notices.Notified(time.time() - days * DAY, 1)))
        assert (notices.notice(80_000, 7, "x") is not None) is is_told
    file.write_bytes(b"damaged")
    assert notices.notice(80_000, 7, "x") is not None


def test_neither_off_nor_too_little(forge: Forge) -> None:
    assert notices.notice(0, 0, "x") is None
    assert notices.notice(10**6, 0, "x") is None


def test_told_once_by_all_processes(forge: Forge, tmp_path: Path) -> None:
    lines = tmp_path / "lines"

    def tell() -> None:
        children = []
        for _ in range(8):
            child = os.fork()
            if child == 0:
                try:
                    if notices.notice(80_000, 7, "x"):
                        with lines.open("a") as stream:
                            stream.write("told\n")
                finally:
                    os._exit(0)
            children.append(child)
        for child in children:
            os.waitpid(child, 0)

    in_child(tell)
    assert lines.read_text() == "told\n"


def test_none_of_what_was_freed_meanwhile(forge: Forge, capsys: pytest.CaptureFixture[str]) -> None:
    """From whichever side: the name in the report need not be the one that was shared."""
    (root,) = [check.prefix for check in pending.remembered() if check.freeable]
    other = next(tree.root for tree in forge.trees if tree.root != root)
    assert main(["apply", "--yes", "-n", Path(other).name]) == 0
    assert "freed" in capsys.readouterr().out
    assert not [check for check in pending.remembered() if check.freeable and check.freeable.bytes]
    assert notices.notice(80_000, 0, "x") is None


def test_none_of_what_is_gone_or_changed(forge: Forge) -> None:
    (root,) = [check.prefix for check in pending.remembered() if check.freeable]
    assert notices.notice(80_000, 0, "x") is not None
    later = time.time() + 5
    os.utime(f"{root}/conda-meta", (later, later))
    assert notices.notice(80_000, 0, "x") is None
    os.utime(f"{root}/conda-meta", (1, 1))
    assert notices.notice(80_000, 0, "x") is not None
    os.rename(root, f"{root}-renamed")
    assert notices.notice(80_000, 0, "x") is None


def test_a_command_that_brings_something_keeps_the_number(forge: Forge) -> None:
    """One that removes something makes it unknown."""
    (root,) = [check.prefix for check in pending.remembered() if check.freeable]
    began = time.time()
    forge.environment(Path(root).name, {("q", "1", "0"): {"lib/q.so": noise("q", 9000)}})
    assert pending.done(root, ["p-1-0"], pending.Result(0, 0))
    list(share_changed(Settings(), Command("install", began, {root: {("q", "1", "0")}})))
    assert notices.notice(80_000, 0, "x") is not None
    os.unlink(f"{root}/conda-meta/p-1-0.json")
    list(share_changed(Settings(), Command("remove", began, {root: set()})))
    assert notices.notice(80_000, 0, "x") is None


def test_what_a_bare_apply_would_not_free_is_not_remembered(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    forge = Forge(tmp_path)
    for name in ("one", "two"):
        forge.environment(name, PACKAGES, frozen=True)
    register(home, forge)
    assert report(capsys, "--override-frozen")["totals"]["freeable_bytes"]
    assert list(pending.remembered()) == []


def test_an_environment_that_no_name_finds_is_named_by_its_path(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    forge = Forge(tmp_path / "a b")
    for name in ("one", "two"):
        forge.environment(name, PACKAGES)
    report(capsys, "--search", str(tmp_path / "a b"))
    (root,) = [check.prefix for check in pending.remembered() if check.freeable]
    line = notices.notice(80_000, 7, "conda dedup")
    assert line is not None and line.endswith(f": conda dedup apply -p '{root}'")
    # it was looked at once: no automatic run takes it for one of its own
    assert root not in [tree.root for tree in find(Request()).trees]


def test_a_checker_keeps_what_others_wrote(home: Path, tmp_path: Path) -> None:
    prefix = str(Forge(tmp_path).environment("one", {}))
    known = pending.Freeable(5, time.time(), "one", ["-n", "one"])
    in_child(lambda: pending.remember_freeable(prefix, known))
    in_child(lambda: notices.told(prefix, 5, 0))
    assert pending.done(prefix, [], pending.Result(0, 0))
    assert pending.read(prefix).freeable == known
    assert not notices.told(prefix, 5, 1)


# -- conda ------------------------------------------------------------------------------------------------


def on_a_terminal(lab: CondaLab, *words: object, env: dict[str, str] | None = None) -> tuple[str, str]:
    """Run conda with stderr on a terminal; return stdout and what came there."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [str(lab.python), "-m", "conda", *map(str, words)],
        env={**lab.environ, **(env or {})},
        cwd=lab.root,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=theirs,
        text=True,
    )
    os.close(theirs)
    told = b""
    while True:
        try:
            came = os.read(ours, 65536)
        except OSError:  # how a terminal says that nobody has it open any more
            break
        if not came:
            break
        told += came
    os.close(ours)
    out = process.communicate()[0]
    assert process.returncode == 0, (out, told)
    return out, told.decode()


@pytest.mark.integration
def test_after_the_next_command(conda_lab: MakeLab) -> None:
    lab = conda_lab(with_plugin=True, always_copy=True)
    lab.configure(plugins={"dedup_notify_bytes": 5000, "dedup_auto": False}, always_copy=True)
    for name in ("one", "two"):
        lab.create(name, "numpy")
    lab.configure(plugins={"dedup_notify_bytes": 5000, "dedup_auto": False})
    reported = json.loads(lab.conda("dedup", "report", "--json").stdout)
    assert reported["totals"]["freeable_bytes"] > 5000
    commands = ("install", "--name", "three", "settings")
    lab.create("three", "two-builds")
    for word in ("--quiet", "--json", "--dry-run"):
        out, err = on_a_terminal(lab, *commands, word)
        assert "could free" not in out + err
    assert "could free" not in lab.conda("install", "--name", "three", "pure-noarch").stderr
    off = {"CONDA_PLUGINS_DEDUP_NOTIFY_BYTES": "0"}
    assert "could free" not in on_a_terminal(lab, "remove", "--name", "three", "settings", env=off)[1]
    out, err = on_a_terminal(lab, *commands)
    assert "could free" not in out
    (line,) = [line for line in err.splitlines() if "could free" in line]
    assert line.startswith("dedup: env '")
    name = line.split("'")[1]
    assert line.endswith(f": conda dedup apply -n {name}")
    assert f"env '{name}'" not in on_a_terminal(lab, "remove", "--name", "three", "settings")[1]
    again = {"CONDA_PLUGINS_DEDUP_NOTIFY_DAYS": "0"}
    assert f"env '{name}' could" in on_a_terminal(lab, *commands, env=again)[1]
    lab.conda("dedup", "apply", "--yes")
    assert "could free" not in on_a_terminal(lab, "remove", "--name", "three", "settings", env=again)[1]
    assert (lab.env_path(name) / SITE_PACKAGES / "numpy").is_dir()
