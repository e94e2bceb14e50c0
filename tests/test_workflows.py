"""The hosted workflows: what they may do, what they pin, what they run, and what linters say of them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.lab import needs

PROJECT = Path(__file__).resolve().parents[1]
WORKFLOWS = sorted((PROJECT / ".github/workflows").glob("*.yml"))
pytestmark = pytest.mark.skipif(
    not WORKFLOWS and not os.environ.get("CI"), reason="a source distribution has no workflows"
)
PINNED = re.compile(r"uses: [\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+")


def load(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = YAML(typ="safe").load(path.read_text())
    return loaded


def jobs() -> list[Any]:
    return [
        pytest.param(path, job, id=f"{path.stem}-{name}")
        for path in WORKFLOWS
        for name, job in load(path)["jobs"].items()
    ]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_actions_are_pinned_to_a_digest(path: Path) -> None:
    used = [line.strip().removeprefix("- ") for line in path.read_text().splitlines() if "uses:" in line]
    assert used
    for line in used:
        assert PINNED.fullmatch(line) or line.startswith("uses: ./"), line


def test_an_action_has_one_version_everywhere() -> None:
    used = {found for path in WORKFLOWS for found in re.findall(r"uses: ([\w.-]+/.*)", path.read_text())}
    names = [one.partition("@")[0] for one in used]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_nothing_may_be_written_by_default(path: Path) -> None:
    assert load(path)["permissions"] == {"contents": "read"}


@pytest.mark.parametrize(("path", "job"), jobs())
def test_a_job_ends_and_keeps_no_credentials(path: Path, job: dict[str, Any]) -> None:
    if "uses" in job:
        return
    assert 0 < job["timeout-minutes"] <= 360
    for step in job["steps"]:
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False
        # what others write into a title or a branch's name is no part of a script
        assert "github.event" not in step.get("run", "")


def test_every_python_on_every_system() -> None:
    text = (PROJECT / "pyproject.toml").read_text()
    versions = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', text)
    ci = load(PROJECT / ".github/workflows/ci.yml")["jobs"]
    for system in ("linux", "macos", "windows"):
        assert ci[system]["strategy"]["matrix"]["python"] == versions


def test_what_they_run_is_there() -> None:
    text = "".join(path.read_text() for path in WORKFLOWS)
    words = set(re.findall(r"(?:tests/|\.ci/)[\w./-]+", text))
    assert ".ci/run" in words and len(words) > 3
    assert not [word for word in words if not (PROJECT / word).exists()]


def test_only_the_release_may_publish_and_only_after_all_tests() -> None:
    able = {
        (path.stem, name): job["permissions"]
        for path in WORKFLOWS
        for name, job in load(path)["jobs"].items()
        if "permissions" in job
    }
    assert able == {
        ("release", "pypi"): {"id-token": "write"},
        ("release", "github"): {"contents": "write"},
    }
    release = load(PROJECT / ".github/workflows/release.yml")["jobs"]
    assert release["ci"]["uses"] == "./.github/workflows/ci.yml"
    assert set(release["pypi"]["needs"]) == {"ci", "version"} and release["github"]["needs"] == "pypi"
    assert release["pypi"]["environment"]["name"] == "pypi"
    assert not any("secrets." in path.read_text() or "password" in path.read_text() for path in WORKFLOWS)


def lint(file: Path) -> subprocess.CompletedProcess[str]:
    needs("needs actionlint and Node.js (.ci/run brings both)", shutil.which("actionlint"))
    folder = file.parents[2]
    return subprocess.run(["actionlint", file], cwd=folder, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_actionlint(path: Path) -> None:
    done = lint(path)
    assert not done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_actionlint_sees_what_is_wrong(path: Path, tmp_path: Path) -> None:
    file = tmp_path / ".github/workflows" / path.name
    file.parent.mkdir(parents=True)
    file.write_text(path.read_text().replace("runs-on:", "runs-somewhere:"))
    done = lint(file)
    assert done.returncode and "runs-somewhere" in done.stdout + done.stderr


def scripts() -> list[Any]:
    found = []
    for path in WORKFLOWS:
        workflow = load(path)
        for name, job in workflow["jobs"].items():
            if job.get("defaults", {}).get("run", {}).get("shell", "bash") != "bash":
                continue
            for number, step in enumerate(job.get("steps", ())):
                if "run" in step:
                    found.append(pytest.param(step["run"], id=f"{path.stem}-{name}-{number}"))
    return found


@pytest.mark.parametrize("script", scripts())
def test_shellcheck(script: str, tmp_path: Path) -> None:
    needs("needs shellcheck (.ci/run brings it)", shutil.which("shellcheck"))
    file = tmp_path / "script"
    file.write_text("#!/bin/bash -e\n" + re.sub(r"\$\{\{.*?\}\}", "expression", script))
    done = subprocess.run(["shellcheck", file], capture_output=True, text=True, timeout=60)
    assert not done.returncode, done.stdout


def test_the_script_of_ci() -> None:
    path = PROJECT / ".ci/run"
    assert os.access(path, os.X_OK)
    needs("needs shellcheck (.ci/run brings it)", shutil.which("shellcheck"))
    done = subprocess.run(["shellcheck", path], capture_output=True, text=True, timeout=60)
    assert not done.returncode, done.stdout
