"""Where duplicates come from, each cause by itself and all together; and what ``--goal inodes`` saves."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conda_dedup_plugin.model import Cause, Manager
from conda_dedup_plugin.report.text import CAUSES
from tests.conftest import MakeLab
from tests.lab.forge import noise
from tests.lab.invariants import assert_unchanged, snapshot
from tests.lab.mounts import REFLINK_KINDS
from tests.test_apply import dedup
from tests.test_deep import held, put
from tests.test_report import DIST, World, check_schema

SITE = "lib/python3.11/site-packages"
KEYS = ("duplicate_bytes", "freeable_bytes", "held_bytes", "freeable_inodes")
OLD = 1_600_000_000


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "world", tmp_path / "home")


def library(name: str) -> dict[str, bytes]:
    return {f"lib/lib{name}.so": noise(name, 50_000)}


def by_pip(env: Path, name: str, files: dict[str, bytes]) -> None:
    """What pip leaves of a wheel; ``files`` by path in ``site-packages``."""
    rows = []
    for path, data in files.items():
        put(env, f"{SITE}/{path}", data)
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        rows.append(f"{path},sha256={digest},{len(data)}")
    info = f"{SITE}/{name}-1.0.dist-info"
    put(env, f"{info}/INSTALLER", b"pip\n")
    put(env, f"{info}/WHEEL", b"Wheel-Version: 1.0\nTag: cp311-cp311-linux_x86_64\n")
    put(env, f"{info}/METADATA", f"Name: {name}\nVersion: 1.0\n".encode())
    put(env, f"{info}/RECORD", "\n".join([*rows, f"{name}-1.0.dist-info/RECORD,,", ""]).encode())


def cloned(env: Path, of: str) -> None:
    """As conda notes it that made a clone."""
    line = f"==> 2026-01-01 00:00:00 <==\n# cmd: /opt/conda/bin/conda create -n {env.name} --clone {of}\n"
    (env / "conda-meta/history").write_text(line)


def pip(world: World, memory: Path) -> None:
    for name in ("pip-a", "pip-b"):
        by_pip(world.forge.environment(name, {}), "wheel", {"wheel/x.abi3.so": noise("pip", 60_000)})


def pip_and_conda(world: World, memory: Path) -> None:
    """Of what both brought, pip's is the duplicate, whoever keeps it."""
    data = noise("pip and conda", 60_000)
    by_pip(world.forge.environment("pip-c", {}), "other", {"other/x.abi3.so": data})
    world.forge.environment("pip-d", {("c", "1", "0"): {"lib/libother.so": data}})


def copy(world: World, memory: Path) -> None:
    files = library("copy")
    world.forge.cache({("copied", "1", "0"): files}, name="pkgs-copy")
    world.forge.environment("copy", {("copied", "1", "0"): files})


def other_device(world: World, memory: Path) -> None:
    """Its cache is on the first one: those in memory are copies because of that."""
    dist, files = ("away", "1", "0"), library("away")
    world.forge.cache({dist: files}, name="pkgs-away")
    for name in ("away-a", "away-b"):
        world.forge.environment(name, {dist: files}, root=memory)


def on_two_devices(world: World, memory: Path) -> None:
    """Whatever it is, and whoever brought it."""
    data = noise("two devices", 50_000)
    put(world.forge.environment("here", {}), "lib/here.so", data)
    world.forge.environment("there", {("there", "1", "0"): {"lib/libthere.so": data}}, root=memory)


def clone(world: World, memory: Path) -> None:
    data = {"wheel/x.abi3.so": noise("clone", 60_000)}
    for name in ("clone-a", "clone-b"):
        env = world.forge.environment(name, {})
        by_pip(env, "cloned", data)
        put(env, "share/mine.bin", noise("cloned text", 9000))
    cloned(env, "clone-a")


def bytecode(world: World, memory: Path) -> None:
    files = {f"{SITE}/p/__pycache__/m.cpython-311.pyc": noise("bytecode", 9000)}
    for name in ("compiled-a", "compiled-b"):
        world.forge.environment(name, {("pure", "1", "0"): files})


def within_package(world: World, memory: Path) -> None:
    data = noise("within", 70_000)
    files = {"lib/libtwice.so": data, f"{SITE}/twice/libtwice.so": data}
    world.forge.environment("within", {("twice", "1", "0"): files})


def other_build(world: World, memory: Path) -> None:
    for build in "01":
        world.forge.environment(f"build-{build}", {("built", "1", build): library("build")})


def other_cache(world: World, memory: Path) -> None:
    dist, files = ("cached", "1", "0"), library("cache")
    world.forge.cache({dist: files}, name="pkgs-one")
    world.forge.cache({dist: files}, name="pkgs-two", manager=Manager.RATTLER)
    (world.root / "pkgs-two/cached-1-0.lock").touch()


def untracked(world: World, memory: Path) -> None:
    for name in ("mine-a", "mine-b"):
        env = world.forge.environment(name, {})
        put(env, "lib/mine.so", noise("mine", 40_000))
        put(env, "share/mine.txt", noise("my text", 40_000))


#: What makes a duplicate, why it is one, and which of duplicate bytes can be freed.
MAKE: list[tuple[Callable[[World, Path], None], Cause, int, int]] = [
    (pip, Cause.PIP, 61_440, 61_440),
    (pip_and_conda, Cause.PIP, 61_440, 61_440),
    (copy, Cause.COPY, 53_248, 53_248),
    (other_device, Cause.OTHER_DEVICE, 2 * 53_248, 53_248),
    (on_two_devices, Cause.OTHER_DEVICE, 53_248, 0),
    (clone, Cause.CLONE, 61_440 + 12_288, 61_440),
    (bytecode, Cause.BYTECODE, 12_288, 12_288),
    (within_package, Cause.WITHIN_PACKAGE, 73_728, 73_728),
    (other_build, Cause.OTHER_BUILD, 53_248, 53_248),
    (other_cache, Cause.OTHER_CACHE, 53_248, 0),
    (untracked, Cause.UNTRACKED, 2 * 40_960, 40_960),
]


def check_sums(document: dict[str, Any]) -> None:
    check_schema(document)
    assert list(document["by_cause"]) == [cause.value for cause in Cause]
    for found in document["by_cause"].values():
        assert set(found) == set(KEYS)
        assert found["duplicate_bytes"] == found["freeable_bytes"] + found["held_bytes"]
    for key in KEYS:
        assert document["totals"][key] == sum(found[key] for found in document["by_cause"].values())


def search(world: World, memory: Path) -> tuple[object, ...]:
    return (*world.search, *(("--search", memory) if any(memory.iterdir()) else ()))


def report(world: World, memory: Path, *words: object) -> tuple[dict[str, Any], str]:
    """The document, and the text of the same."""
    words = ("report", "--deep", "--method", "hardlink", *search(world, memory), *words)
    document = world.json(*words)
    check_sums(document)
    return document, world.run(*words).stdout


def line(text: str, cause: Cause) -> str:
    (found,) = (each for each in text.splitlines() if each.startswith(f"  {CAUSES[cause]:12}"))
    return found


@pytest.mark.parametrize(
    ("make", "cause", "twice", "freeable"), MAKE, ids=[each[0].__name__ for each in MAKE]
)
def test_one_cause(
    world: World, shm_dir: Path, make: Callable[..., None], cause: Cause, twice: int, freeable: int
) -> None:
    make(world, shm_dir)
    document, text = report(world, shm_dir)
    assert document["warnings"] == []
    assert {name for name, found in document["by_cause"].items() if found["duplicate_bytes"]} == {cause.value}
    found = document["by_cause"][cause.value]
    assert (found["duplicate_bytes"], found["freeable_bytes"]) == (twice, freeable)
    assert found["freeable_inodes"] == bool(freeable)
    said = line(text, cause)
    assert said.endswith(" held back") and " freeable, " in said
    others = [other for other in Cause if other is not cause]
    assert not [
        each for each in text.splitlines() for other in others if each.startswith(f"  {CAUSES[other]} ")
    ]


def test_every_cause_at_once(world: World, shm_dir: Path) -> None:
    for make, *_ in MAKE:
        make(world, shm_dir)
    document, text = report(world, shm_dir)
    for cause in set(Cause) - {Cause.PREFIX}:  # nothing but reflinks can share that
        found = document["by_cause"][cause.value]
        assert found["duplicate_bytes"] == sum(twice for _, each, twice, _ in MAKE if each is cause)
        assert found["freeable_bytes"] == sum(freeable for _, each, _, freeable in MAKE if each is cause)
        assert line(text, cause)
    assert document["totals"]["freeable_inodes"] == len(MAKE) - 2
    done = world.json("apply", "--yes", "--method", "hardlink", *search(world, shm_dir))["done"]
    assert done["bytes_freed"] == document["totals"]["freeable_bytes"]
    assert done["inodes_freed"] == document["totals"]["freeable_inodes"]
    after, text = report(world, shm_dir)
    for cause in Cause:
        found = after["by_cause"][cause.value]
        assert found["freeable_bytes"] == found["freeable_inodes"] == 0
        assert found["held_bytes"] == document["by_cause"][cause.value]["held_bytes"]


def test_no_cause_of_what_is_not_twice(world: World, shm_dir: Path) -> None:
    world.forge.environment("one", {DIST: library("alone")})
    document, text = report(world, shm_dir)
    assert not any(sum(found.values()) for found in document["by_cause"].values())
    assert not [label for label in CAUSES.values() if f"  {label} " in text]


@pytest.mark.integration
def test_causes_of_conda(conda_lab: MakeLab, tmp_path: Path) -> None:
    """Real ones, where it is cheap: a copy, another build, and pip's in an environment and its clone."""
    lab = conda_lab()
    lab.create("newer", "two-builds")
    lab.conda("create", "--name", "older", "two-builds=1.0=0", "pip")
    lab.conda("create", "--name", "copied", "two-builds", "--copy")
    lab.pip(lab.env_path("older"), "install", "msgspec")
    put(lab.env_path("older"), "share/mine.bin", noise("mine", 50_000))
    lab.conda("create", "--name", "clone", "--clone", "older")
    document = dedup(lab, tmp_path, "report", "--deep", "--no-discover", "--search", lab.root)
    check_sums(document)
    found = {cause: each["duplicate_bytes"] for cause, each in document["by_cause"].items()}
    older, clone = (lab.env_path(name) for name in ("older", "clone"))
    # what no conda package brought: conda linked all it could
    others = {
        path: state
        for path, state in snapshot(clone).items()
        if state.size >= 4096 and state.nlink == 1 and "/conda-meta/" not in path and path[-4:] != ".pyc"
    }
    same = [
        state.disk_bytes
        for path, state in others.items()
        if (clone / path).read_bytes() == (older / os.path.relpath(path, clone)).read_bytes()
    ]
    assert found["clone"] == sum(same) > 400_000
    assert found["pip"] == found["untracked"] == found["other_cache"] == found["other_device"] == 0
    assert found["copy"] >= 10 * (64 << 10)
    # the eight files in which the builds agree, in the cache
    assert found["other_build"] == 8 * (64 << 10)


# -- what inodes are saved --------------------------------------------------------------------------------


def used_inodes(path: Path) -> int:
    os.sync()
    numbers = os.statvfs(path)
    return numbers.f_files - numbers.f_ffree


def inodes_of(*roots: Path) -> int:
    return len({(state.device, state.inode) for state in snapshot(*roots).values()})


FREE = {f"lib/lib{number}.so": noise(str(number), 9000) for number in range(5)}
#: Text of two packages, text of their user's and a file of settings: no hard links for these.
REFUSED = 3


def pair(world: World) -> tuple[Path, Path]:
    one, two = (
        world.forge.environment(name, {DIST: FREE, (name, "1", "0"): {"share/text": noise("text", 9000)}})
        for name in ("one", "two")
    )
    for env in (one, two):
        put(env, "share/mine.txt", noise("my text", 9000))
        put(env, "etc/settings.conf", noise("settings", 9000))
    os.sync()
    return one, two


@pytest.mark.parametrize(("goal", "found"), [("inodes", 3), ("bytes", 0)])
def test_no_file_is_too_small(world: World, goal: str, found: int) -> None:
    files = {"lib/a.so": b"a", "share/b.txt": b"bb", "share/empty": b"", "lib/libc.so": noise("c", 4095)}
    for name in ("one", "two"):
        world.forge.environment(name, {DIST: {**files, f"lib/own-{name}.so": name.encode()}})
    words = ("--method", "hardlink", "--goal", goal, *world.search)
    document = world.json("report", *words)
    check_sums(document)
    # the empty ones are nothing
    assert document["totals"]["freeable_inodes"] == found
    before = inodes_of(world.root)
    done = world.json("apply", "--yes", *words)["done"]
    assert done["inodes_freed"] == done["inodes"] == before - inodes_of(world.root) == found
    assert world.json("report", *words, "--min-size", 4096)["totals"]["freeable_inodes"] == 0


def test_the_setting(world: World) -> None:
    for name in ("one", "two"):
        world.forge.environment(name, {DIST: {"lib/a.so": b"a"}})
    world.extra["CONDA_PLUGINS_DEDUP_GOAL"] = "inodes"
    assert world.json("report", *world.search)["totals"]["freeable_inodes"] == 1
    assert world.json("report", *world.search, "--goal", "bytes")["totals"]["freeable_inodes"] == 0
    assert "Inodes                1  freeable" in world.run("report", *world.search).stdout


@pytest.mark.parametrize("goal", ["inodes", "bytes"])
def test_what_a_device_gains(device_dir: Path, device_kind: str, tmp_path: Path, goal: str) -> None:
    """Hard links where they may be, and reflinks where the rules have none; a reflink frees no inode."""
    world = World(device_dir / "world", tmp_path / "home")
    trees = pair(world)
    before = snapshot(*trees)
    words = ("--goal", goal, *world.search)
    document = world.json("report", "--deep", *words)
    check_sums(document)
    names, used = inodes_of(*trees), used_inodes(device_dir)
    done = world.json("apply", "--yes", *words)
    assert done["failed"] == done["skipped"] == []
    assert_unchanged(before, snapshot(*trees))
    planned, done = done["planned"], done["done"]
    assert planned == document["totals"]
    gained = names - inodes_of(*trees)
    assert document["totals"]["freeable_inodes"] == done["inodes_freed"] == gained
    if device_kind not in ("btrfs", "btrfs-zstd", "tmpfs"):  # no number of inodes; or every name counts
        assert used - used_inodes(device_dir) == gained
    methods = {method: found["inodes"] for method, found in done["by_method"].items()}
    if device_kind not in REFLINK_KINDS:
        assert methods == {"hardlink": len(FREE)}
    elif goal == "bytes":
        assert methods == {"reflink": len(FREE) + REFUSED}
        assert gained == 0
    else:
        assert methods == {"hardlink": len(FREE), "reflink": REFUSED}
    rows = document["environments"]
    assert sum(row["freeable_inodes"] for row in rows) == gained
    left = world.json("report", "--deep", *words)
    assert left["totals"]["freeable_bytes"] == left["totals"]["freeable_inodes"] == 0
    assert bool(held(left)) is (device_kind not in REFLINK_KINDS)


@pytest.mark.parametrize("method", ["reflink", "hardlink"])
def test_the_method_that_was_asked_for(
    device_dir: Path, device_kind: str, tmp_path: Path, method: str
) -> None:
    world = World(device_dir / "world", tmp_path / "home")
    pair(world)
    done = world.json("apply", "--yes", "--goal", "inodes", "--method", method, *world.search)["done"]
    methods = {method: found["inodes"] for method, found in done["by_method"].items()}
    if method == "hardlink":
        assert methods == {"hardlink": len(FREE)}
    else:
        assert methods == ({"reflink": len(FREE) + REFUSED} if device_kind in REFLINK_KINDS else {})


def test_inodes_of_what_shares_its_bytes_already(device_dir: Path, device_kind: str, tmp_path: Path) -> None:
    """What was reflinked before may be hard-linked: that frees no byte, but an inode each."""
    world = World(device_dir / "world", tmp_path / "home")
    trees = pair(world)
    world.json("apply", "--yes", *world.search)
    names = inodes_of(*trees)
    before = snapshot(*trees)
    document = world.json("report", "--deep", "--goal", "inodes", *world.search)
    done = world.json("apply", "--yes", "--goal", "inodes", *world.search)["done"]
    assert_unchanged(before, snapshot(*trees))
    expected = len(FREE) if device_kind in REFLINK_KINDS else 0
    assert (
        document["totals"]["freeable_inodes"] == done["inodes_freed"] == names - inodes_of(*trees) == expected
    )
    assert done["bytes_freed"] == 0
