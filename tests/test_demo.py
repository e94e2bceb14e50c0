"""The demonstration: the real command, in a process of its own, on real environments."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.lab import needs
from tests.lab.conda_wheel import importable

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

COMMAND = (sys.executable, "-m", "conda_dedup_plugin.cli", "demo")
PROJECT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
LAST_LINE = re.compile(r"on disk: (\d+\.\d) MB before, (\d+\.\d) MB after")


@pytest.fixture
def world(tmp_path: Path) -> dict[str, str]:
    """The variables of a user whose home and directory for temporary files are fresh."""
    for module in ("rattler", "numpy", "pip"):
        needs(f"needs the package {module}", importable(module))
    for name in ("home", "tmp"):
        (tmp_path / name).mkdir()
    foreign = ("XDG_", "CONDA")
    outer = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    path = os.pathsep.join(filter(None, (PROJECT, os.environ.get("PYTHONPATH"))))
    return {**outer, "HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path / "tmp"), "PYTHONPATH": path}


@pytest.fixture
def demo(world: dict[str, str], tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the command and return what came of it."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*COMMAND, *arguments], env=world, cwd=tmp_path, capture_output=True, text=True, timeout=300
        )

    return run


def assert_no_trace(folder: Path) -> None:
    left = [str(path) for name in ("home", "tmp") for path in (folder / name).rglob("*")]
    assert not left


def test_it_reports_shares_and_reports_again(
    demo: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    done = demo()
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    shown = [line.split(" --")[0] for line in lines if line.startswith("$ ")]
    assert shown == ["$ conda-dedup report", "$ conda-dedup apply", "$ conda-dedup report"]
    before, after = map(float, LAST_LINE.fullmatch(lines[-1]).groups())
    # the second copy of the wheels, and the environment without a cache
    assert before - after > 50
    assert_no_trace(tmp_path)


def test_json_is_one_document_that_agrees_with_the_device(
    demo: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    done = demo("--json")
    assert done.returncode == 0
    document = json.loads(done.stdout)
    before, applied, after = document["before"], document["apply"], document["after"]
    assert set(document) == {
        "schema", "before", "apply", "after", "disk_bytes_before", "disk_bytes_after"
    }  # fmt: skip
    assert before["schema"] == applied["schema"] == after["schema"] == document["schema"] == 1
    assert not before["warnings"] + applied["warnings"] + after["warnings"]
    assert (applied["failed"], applied["skipped"]) == ([], [])
    # what was promised is what was done is what the device shows
    freed = applied["done"]["bytes_freed"]
    assert before["totals"]["freeable_bytes"] == applied["planned"]["freeable_bytes"] == freed
    assert document["disk_bytes_before"] - document["disk_bytes_after"] == pytest.approx(freed, rel=0.02)
    assert after["totals"]["freeable_bytes"] == 0
    # the environments are what it says
    sizes = {environment["name"]: environment["apparent_bytes"] for environment in before["environments"]}
    assert set(sizes) == {"nlp", "bert", "vision", "shop/default"}
    assert sizes["nlp"] > sizes["vision"] + 10_000_000, "pip's wheels"
    assert sizes["bert"] > sizes["shop/default"] + 10_000_000
    assert len(before["caches"]) == 2
    groups = [(group["keeper"], *group["names"]) for group in before["largest"]]
    largest = [{os.path.basename(path) for path in group} for group in groups]
    assert {"rattler.abi3.so"} in largest
    assert {"libruntime.so.1"} in largest, "twice in one package"
    assert_no_trace(tmp_path)


@pytest.mark.parametrize(
    ("moment", "number"),
    [
        ("Making", signal.SIGINT),
        ("'nlp' and 'bert' from", signal.SIGINT),
        ("'shop'", signal.SIGTERM),
        ("Installing", signal.SIGINT),
        ("Installing", signal.SIGTERM),
        ("$ conda-dedup apply", signal.SIGINT),
    ],
)
def test_it_leaves_no_trace_when_ended(
    world: dict[str, str], tmp_path: Path, moment: str, number: signal.Signals
) -> None:
    with subprocess.Popen(
        COMMAND, env=world, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        for line in process.stdout:
            if moment in line:
                process.send_signal(number)
                break
        _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert "Traceback" not in err
    assert_no_trace(tmp_path)


def test_whoever_reads_may_stop_reading(world: dict[str, str], tmp_path: Path) -> None:
    with subprocess.Popen(
        COMMAND, env=world, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        process.stdout.readline()
        process.stdout.close()
        err = process.stderr.read()
        process.wait(timeout=60)
    assert err == ""
    assert_no_trace(tmp_path)


def test_without_the_extra_it_says_what_to_install(world: dict[str, str], tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules['rattler'] = None; from conda_dedup_plugin.cli import main; "
        "sys.exit(main(['demo']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env=world, cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "needs py-rattler" in done.stderr
    assert "pip install 'conda-dedup-plugin[demo]'" in done.stderr
    assert_no_trace(tmp_path)
