"""Environments of pixi, magic and micromamba, as many as a disk of projects has."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.lab.invariants import assert_unchanged, du, snapshot
from tests.lab.world import rattler_create
from tests.test_apply import dedup

if TYPE_CHECKING:
    from tests.conftest import MakeLab

#: Where each tool keeps an environment of a project, and what it is called.
LAYOUTS = (
    (".pixi/envs/default", "pixi", "{project}/default"),
    (".pixi/envs/test", "pixi", "{project}/test"),
    (".magic/envs/default", "magic", "{project}/default"),
    ("micromamba/envs/data", "mamba", "data"),
)
NATIVE = (".so", ".a", ".pyc")


@pytest.mark.integration
@pytest.mark.parametrize("count", [12, pytest.param(100, marks=pytest.mark.soak)])
def test_projects_of_every_tool(conda_lab: MakeLab, shm_dir: Path, tmp_path: Path, count: int) -> None:
    """Their cache is on another device, so that each is a copy of the others."""
    lab = conda_lab()
    projects = lab.root / "projects"
    made = set()
    for number in range(count):
        where, manager, name = LAYOUTS[number % len(LAYOUTS)]
        project = projects / f"p{number // len(LAYOUTS)}"
        prefix = project / where
        prefix.parent.mkdir(parents=True, exist_ok=True)
        rattler_create(prefix, ("numpy", "two-builds"), lab.channel.url, shm_dir / "cache")
        if manager == "mamba":
            (prefix / "conda-meta/history").write_text("# cmd: /usr/bin/micromamba create -n data\n")
        made.add((str(prefix), manager, name.format(project=project.name)))
    search = ("--search", projects, "--no-discover")
    report = dedup(lab, tmp_path, "report", *search)
    assert {(found["prefix"], found["manager"], found["name"]) for found in report["environments"]} == made
    before, used = snapshot(projects), du(projects)
    done = dedup(lab, tmp_path, "apply", "--yes", *search)
    assert done["failed"] == done["skipped"] == []
    assert_unchanged(
        before,
        snapshot(projects),
        allow_mtime=lambda path: path.endswith(NATIVE) or ".so." in path or "/bin/" in path,
    )
    assert used - du(projects) == done["done"]["bytes_freed"] > (count - 1) * 30_000_000
    lab.python_in(next(projects.glob("p1/.magic/envs/default")), "-c", "import numpy")
    assert dedup(lab, tmp_path, "report", *search)["totals"]["freeable_bytes"] == 0
