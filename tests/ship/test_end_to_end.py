"""From an installed conda to a removed plugin, as users do it: by conda itself, from a channel."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

import pytest
from packaging.version import Version

from conda_dedup_plugin import __version__
from tests.lab.base_channel import NATIVE, NATIVE_FILES, NATIVE_SIZE, PURE
from tests.lab.invariants import State, directories, snapshot
from tests.lab.mounts import REFLINK_KINDS, mounted_file_system
from tests.lab.patched import layout
from tests.ship.conftest import NEXT, NOBODY, Shipped, base_specs, lowest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.lab.conda_base import BaseLab
    from tests.ship.conftest import MakeWorld

pytestmark = pytest.mark.integration

PLUGIN = "conda-dedup-plugin"


@pytest.mark.parametrize("user", [None, NOBODY], ids=["root", "user"])
def test_from_installation_to_removal(make_world: MakeWorld, shipped: Shipped, user: int | None) -> None:
    lab = make_world(user=user)
    lab.install_base(*base_specs(shipped))
    assert lab.conda("info", "--base").stdout.strip() == str(lab.base)
    bare = entries(lab)

    quietly(lab.conda("install", "--name", "base", PLUGIN))
    found = lab.installed()
    assert found[PLUGIN] == __version__
    if shipped.lowest:
        assert [line for line in lowest() if not is_version(found, line)] == []

    for name in ("one", "two"):
        done = quietly(lab.conda("create", "--name", name, "python", NATIVE, PURE))
        told = f"of env '{name}' now shared" in done.stderr
        assert told == (name == "two")
    one, two = lab.env_path("one"), lab.env_path("two")
    assert all(shared(path, two / path.relative_to(one)) for path in bytecode(one))

    lab.conda("create", "--name", "three", NATIVE, "--copy")
    assert "by: conda dedup apply" in lab.conda("dedup", "report").stdout
    three = lab.env_path("three")
    reflinks = shared(three / NATIVE_FILES[0], two / NATIVE_FILES[0])
    freeable = lab.dedup("report")["totals"]["freeable_bytes"]
    assert (freeable == 0) if reflinks else (freeable >= NATIVE_SIZE * len(NATIVE_FILES))
    quietly(lab.conda("dedup", "apply", "--yes"))
    assert all(shared(three / path, two / path) for path in NATIVE_FILES)
    assert lab.dedup("report")["totals"]["freeable_bytes"] == 0
    assert "Shared files: none is damaged" in lab.conda("doctor", "--name", "three").stdout

    quietly(lab.conda("dedup", "undo", "--name", "three", "--yes"))
    assert not any(shared(three / path, two / path) for path in NATIVE_FILES)

    lab.configure(channels=[(lab.root / "channels/second").as_uri(), *lab.settings["channels"]])
    quietly(lab.conda("update", "--name", "base", PLUGIN))
    assert lab.installed()[PLUGIN] == NEXT
    assert NEXT in lab.conda("dedup", "--version").stdout
    runs = lab.dedup("history")["runs"]
    assert "conda create" in {run["command"] for run in runs}
    assert "of env 'four' now shared" in lab.conda("create", "--name", "four", "python", PURE).stderr

    before = snapshot(*lab.envs_dirs)
    quietly(lab.conda("remove", "--name", "base", PLUGIN))
    assert snapshot(*lab.envs_dirs) == before
    assert PLUGIN not in lab.installed()
    assert left(lab, bare) == []
    assert lab.conda("dedup", "report", check=False).returncode == 2
    lab.conda("create", "--name", "five", "python", PURE)
    for name in ("one", "two", "four", "five"):
        lab.python_in(lab.env_path(name), "-B", "-c", "import pure_noarch.module_1")


@pytest.fixture(
    params=[
        pytest.param("btrfs", marks=pytest.mark.filesystems),
        pytest.param("xfs", marks=[pytest.mark.filesystems, pytest.mark.soak]),
        pytest.param("ext4", marks=pytest.mark.filesystems),
    ]
)
def disk(request: pytest.FixtureRequest) -> Iterator[tuple[str, Path]]:
    """A file system of a kind of its own, where every user may look around."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        with mounted_file_system(request.param, Path(name), 1 << 30) as point:
            yield request.param, point


def test_a_cache_of_roots(make_world: MakeWorld, disk: tuple[str, Path]) -> None:
    """A base and a package cache that belong to root, and a user who may only read them."""
    kind, point = disk
    root = make_world(own=point)
    root.install_base("conda", PLUGIN)
    pkgs = root.pkgs_dirs[0]
    root.conda("create", "--name", "warm", "--download-only", "python", NATIVE, PURE)
    base, cached = base_files(root), everything(pkgs)
    assert any(path.endswith(NATIVE_FILES[0]) for path in cached)

    lab = make_world(user=NOBODY, own=point, like=root)
    lab.configure(pkgs_dirs=[str(pkgs), str(lab.pkgs_dirs[0])])
    for name in ("one", "two"):
        quietly(lab.conda("create", "--name", name, "python", NATIVE, PURE))
    one, two = (lab.env_path(name) for name in ("one", "two"))
    keepers = [pkgs / f"{NATIVE}-1.0-0" / path for path in NATIVE_FILES]
    assert {path.stat().st_uid for path in keepers} == {0}
    assert all(shared(one / path, two / path) for path in NATIVE_FILES)
    assert all(shared(path, two / path.relative_to(one)) for path in bytecode(one))

    report = lab.dedup("report")
    size = NATIVE_SIZE * len(NATIVE_FILES)
    held = {one["reason"]: one["bytes"] for one in report["held"]}.get("other owner", 0)
    assert sorted(path.name for path in lab.pkgs_dirs[0].iterdir() if path.is_dir()) in ([], ["cache"])
    of_cache = [shared(keeper, one / path) for keeper, path in zip(keepers, NATIVE_FILES, strict=True)]
    if kind in REFLINK_KINDS:
        assert all(of_cache)
        assert held < size
    else:
        assert not any(of_cache)
        assert held >= size
        text = lab.conda("dedup", "report").stdout
        assert re.search(r"[\d.]+ MB +in \d+ files: other owner", text), text
    applied = lab.dedup("apply", "--yes")
    assert applied["failed"] == []
    assert lab.dedup("report")["totals"]["freeable_bytes"] == 0
    assert everything(pkgs) == cached
    assert base_files(root) == base


def test_a_frozen_base(make_world: MakeWorld, shipped: Shipped) -> None:
    """CEP 22: the old conda knows nothing of it, the new one wants to be told."""
    lab = make_world()
    lab.install_base(*base_specs(shipped))
    (lab.base / "conda-meta/frozen").write_text('{"message": "Ask the administrator."}')
    override = ["--override-frozen"] if "--override-frozen" in lab.conda("install", "--help").stdout else []
    refused = lab.conda("install", "--name", "base", PLUGIN, check=False)
    if override:
        assert refused.returncode != 0
        assert "Ask the administrator." in refused.stderr
        quietly(lab.conda("install", "--name", "base", PLUGIN, *override))
    assert PLUGIN in lab.installed()
    before = base_files(lab)
    for name in ("one", "two"):
        quietly(lab.conda("create", "--name", name, "python", PURE))
    one, two = (lab.env_path(name) for name in ("one", "two"))
    assert all(shared(path, two / path.relative_to(one)) for path in bytecode(one))
    lab.conda("dedup", "apply", "--yes")
    assert base_files(lab) == before
    quietly(lab.conda("remove", "--name", "base", PLUGIN, *override))
    assert PLUGIN not in lab.installed()


def quietly(done: subprocess.CompletedProcess[str]) -> subprocess.CompletedProcess[str]:
    """A command that went well and has nothing to tell but what was shared, or will be."""
    lines = [line for line in done.stderr.splitlines() if line.startswith("dedup: ")]
    assert [line for line in lines if "now shared" not in line and "will be shared" not in line] == []
    assert "Traceback" not in done.stderr + done.stdout
    return done


def shared(one: Path, two: Path) -> bool:
    """Whether two files are one on the device: by inode or by extents."""
    return os.path.samefile(one, two) or (
        layout(one) is not None and layout(one).extents == layout(two).extents
    )


def bytecode(prefix: Path) -> list[Path]:
    """What conda compiled of :data:`PURE`."""
    found = [path for path in prefix.rglob("pure_noarch/**/*.pyc") if path.stat().st_size >= 4096]
    assert found
    return found


def is_version(found: dict[str, str], spec: str) -> bool:
    """Whether what is installed is the version in ``spec``, be it written with more zeros."""
    name, _, version = spec.partition("=")
    return Version(found[name]) == Version(version)


def base_files(lab: BaseLab) -> dict[str, State]:
    """The files of a base, less what conda itself leaves where environments may be."""
    found = snapshot(lab.base)
    return {path: state for path, state in found.items() if not path.startswith(f"{lab.base}/envs/")}


def entries(lab: BaseLab) -> set[str]:
    """The same, and its directories, relative to it."""
    found = {os.path.relpath(path, lab.base) for path in (*base_files(lab), *directories(lab.base))}
    return found - {"envs"}


def left(lab: BaseLab, bare: set[str]) -> list[str]:
    """What is in a base, or of ours in the world, that was not there before and no package brought.

    Bytecode of what is still there is conda's own.
    """
    known = set(bare)
    for record in (lab.base / "conda-meta").glob("*.json"):
        known |= {f"conda-meta/{record.name}", *json.loads(record.read_text())["files"]}
    known |= {str(folder) for path in known for folder in PurePath(path).parents}
    more = sorted(entries(lab) - known)
    more = [path for path in more if not ("__pycache__" in path and source(lab.base / path).exists())]
    kept = (lab.base, lab.root / "channels", lab.state_home / "conda-dedup", *lab.pkgs_dirs)
    found = [path for path in lab.root.rglob("*dedup*") if not any(path.is_relative_to(one) for one in kept)]
    return [*more, *map(str, found)]


def source(path: Path) -> Path:
    """Of what a file or directory of bytecode was compiled."""
    return path.parents[1] / f"{path.name.partition('.')[0]}.py" if path.suffix else path.parent


def everything(folder: Path) -> dict[str, tuple[int, ...]]:
    """All that is below a directory, with all that tells of a change but the time of access."""
    found = {}
    for path in (folder, *folder.rglob("*")):
        one = path.lstat()
        found[str(path)] = (one.st_ino, one.st_mode, one.st_uid, one.st_gid, one.st_nlink)
        found[str(path)] += (one.st_size, one.st_mtime_ns, one.st_ctime_ns)
    return found
