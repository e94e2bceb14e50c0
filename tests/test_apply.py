"""The main job on real environments: report, apply, and that nothing but disk usage changes."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from conda_dedup_plugin.demo.distributions import SITE_PACKAGES
from tests.lab.invariants import (
    assert_unchanged,
    content_duplicates,
    directories,
    du,
    free_bytes,
    snapshot,
)
from tests.lab.mounts import REFLINK_KINDS
from tests.test_lab import EVERYTHING, PROGRAM

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import MakeLab
    from tests.lab.world import CondaLab

REPOSITORY = Path(__file__).parents[1]
MIB = 1 << 20


def dedup(lab: CondaLab, state: Path, *words: object, check: bool = True) -> dict[str, Any]:
    """Run ``conda-dedup --json`` in a process of its own, its state elsewhere; return the document."""
    done = lab.run(
        sys.executable,
        "-m",
        "conda_dedup_plugin.cli",
        *words,
        "--json",
        env={"PYTHONPATH": str(REPOSITORY), "XDG_STATE_HOME": str(state)},
        check=check,
    )
    document: dict[str, Any] = json.loads(done.stdout)
    assert document["schema"] == 1
    return document


def recorded(trees: list[Path]) -> Callable[[str, os.stat_result], bool]:
    """Whether a record that we should know of has a digest, or bytecode, for a path: read independently."""
    known: set[str] = set()
    for tree in trees:
        for meta in tree.glob("conda-meta/*.json"):
            record = json.loads(meta.read_text())
            wanted = record["files"] if record.get("noarch") else []
            known.update(str(tree / path) for path in wanted)
            known.update(str(tree / said["_path"]) for said in record["paths_data"]["paths"])
        for index in tree.glob("*/info/paths.json"):
            known.update(
                str(index.parents[1] / said["_path"]) for said in json.loads(index.read_text())["paths"]
            )
        for record_file in tree.glob("lib/python*/site-packages/*.dist-info/RECORD"):
            for line in record_file.read_text().splitlines():
                path, digest, _ = line.rsplit(",", 2)
                if digest:
                    known.add(os.path.normpath(record_file.parents[1] / path.strip('"')))
    return lambda path, stat: path in known


def shareable(path: str, stat: os.stat_result) -> bool:
    """Whether a file is what we may speak of: conda writes to its records in place."""
    return "/conda-meta/" not in path


def make_world(lab: CondaLab) -> list[Path]:
    """Environments of conda (linked, copied), pip and rattler; returns every tree."""
    prefixes = [lab.create("linked", *EVERYTHING)]
    lab.conda("create", "--name", "copied", "--copy", *EVERYTHING)
    lab.conda("create", "--name", "older", "two-builds=1.0=0", "same-library", "pip", "--copy")
    prefixes += [lab.env_path("copied"), lab.env_path("older")]
    for name in ("pip-one", "pip-two"):
        prefix = lab.create(name, "pip")
        lab.pip(prefix, "install", "numpy", "msgspec")
        prefixes.append(prefix)
    prefixes.append(lab.root / "rattler-env")
    lab.rattler(prefixes[-1], *EVERYTHING)
    return [*prefixes, lab.root / "pkgs", lab.rattler_cache / "pkgs"]


def test_apply_on_every_file_system(
    conda_lab: MakeLab, device_dir: Path, device_kind: str, mounted: Callable[..., Path], tmp_path: Path
) -> None:
    lab = conda_lab(root=device_dir)
    trees = make_world(lab)
    search = ("--no-discover", "--search", lab.root)
    os.sync()  # the last block of metadata is only counted when it is written
    report = dedup(lab, tmp_path, "report", *search)
    totals = dedup(lab, tmp_path, "report", "--deep", *search)["totals"]
    assert not report["warnings"]
    assert {entry["prefix"] for entry in report["environments"] + report["caches"]} == {
        str(tree) for tree in trees
    }
    if device_kind not in REFLINK_KINDS:  # there, inodes may share their extents already
        expected = content_duplicates(trees, accept=recorded(trees))
        assert report["totals"]["duplicate_bytes"] == pytest.approx(expected, rel=0.005)
        assert totals["duplicate_bytes"] == content_duplicates(trees, accept=shareable)
    assert totals["duplicate_bytes"] == totals["freeable_bytes"] + totals["held_bytes"]
    assert totals["freeable_bytes"] > 50 * MIB

    before, folders = snapshot(*trees), directories(*trees)
    used, free = du(*trees), free_bytes(mounted(device_kind))
    planned = dedup(lab, tmp_path, "apply", "--dry-run", *search)
    assert planned["planned"] == totals
    assert sum(share["bytes"] for share in planned["shares"]) == totals["freeable_bytes"]
    assert snapshot(*trees) == before

    done = dedup(lab, tmp_path, "apply", "--yes", *search)
    assert done["failed"] == []
    assert done["skipped"] == []
    assert done["done"]["bytes_freed"] == totals["freeable_bytes"]
    after = snapshot(*trees)
    native = (".so", ".pyc", ".a")
    assert_unchanged(
        before,
        after,
        allow_mtime=lambda path: (
            device_kind not in REFLINK_KINDS and (path.endswith(native) or ".so." in path or "/bin/" in path)
        ),
    )
    assert directories(*trees) == folders
    if device_kind in REFLINK_KINDS:
        gained = free_bytes(mounted(device_kind)) - free
        assert {old.inode for old in before.values()} == {new.inode for new in after.values()}
    else:
        gained = used - du(*trees)
    # what compressed files take is estimated
    compressed = device_kind == "btrfs-zstd"
    assert gained == pytest.approx(totals["freeable_bytes"], rel=0.02 if compressed else 0.005)

    again = dedup(lab, tmp_path, "apply", "--yes", *search)
    assert again["planned"]["freeable_bytes"] <= (totals["freeable_bytes"] // 1000 if compressed else 0)
    assert again["done"]["inodes"] == 0 or compressed
    assert snapshot(*trees) == after

    for prefix in trees[:2] + [trees[5]]:
        assert lab.python_in(prefix, "-c", PROGRAM).stdout.strip() == str(prefix)
    for prefix in trees[3:5]:
        lab.python_in(prefix, "-B", "-c", "import numpy, msgspec; assert numpy.ones(3).sum() == 3")
        assert (prefix / SITE_PACKAGES / "numpy").is_dir()
