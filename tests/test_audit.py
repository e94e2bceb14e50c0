"""``report --audit``: when environments were used, what is mixed, what nobody uses; its commands work."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from conda_dedup_plugin import commands
from conda_dedup_plugin.channels import channel_of
from conda_dedup_plugin.demo.wheels import make_wheel
from conda_dedup_plugin.exported import exported_file
from conda_dedup_plugin.model import Manager, Tree, TreeKind
from tests.conftest import MIB, MakeLab
from tests.fire.test_errors import mount
from tests.lab import needs
from tests.lab.forge import Forge, noise
from tests.lab.invariants import assert_unchanged, du, snapshot
from tests.lab.mounts import mounted_file_system
from tests.test_apply import dedup
from tests.test_manners import NOBODY
from tests.test_report import EVIL, World
from tests.test_verify import share

if TYPE_CHECKING:
    from tests.lab.patched import Bench
    from tests.lab.world import CondaLab

DAY = 86_400
P, Q = ("p", "1", "0"), ("q", "1", "0")
SAME = {f"lib/{number}.so": noise(f"same {number}", 20_000) for number in range(3)}
FILES = {dist: {**SAME, f"lib/{dist[0]}.so": noise(dist[0], 30_000)} for dist in (P, Q)}
#: A program that ends at once, whatever it is asked.
PROGRAM = shutil.which("true") or "/bin/true"


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "world", tmp_path / "home")


def audit(world: World, *words: object) -> dict[str, Any]:
    """The audit of everything below the world's root."""
    document = world.json("report", "--audit", *words, "--search", world.root)
    check_schema(document["audit"])
    found: dict[str, Any] = document["audit"]
    return found


def check_schema(document: dict[str, Any]) -> None:
    assert set(document) == {"unused_days", "max_envs", "everything", "environments", "owners", "findings"}
    for one in document["environments"]:
        assert set(one) == {
            "name", "prefix", "owner", "last_used", "later_by", "unknown", "exported", "channels"
        }  # fmt: skip
        assert (one["last_used"] is None) == (one["unknown"] is not None)
    assert sum(document["owners"].values()) == len(document["environments"])
    for finding in document["findings"]:
        assert set(finding) == {"kind", "place", "what", "items", "bytes_freed", "commands"}
        assert finding["commands"] and all(line and line.isprintable() for line in finding["commands"])
        assert type(finding["bytes_freed"]) is int and finding["bytes_freed"] >= 0


def of_kind(document: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [finding for finding in document["findings"] if finding["kind"] == kind]


def program(prefix: Path, name: str = "python", days: float | None = None) -> Path:
    """A program of an environment's own, last read so many days ago."""
    path = prefix / "bin" / name
    path.parent.mkdir(exist_ok=True)
    shutil.copy(PROGRAM, path)
    with path.open("ab") as stream:  # as a patched one: no other is the same
        stream.write(str(path).encode())
    if days is not None:
        age(path, days)
    return path


def age(path: Path, days: float) -> None:
    then = time.time() - days * DAY
    os.utime(path, (then, then))


def keeps_access_times(folder: Path) -> bool:
    """Whether reading an old file here can be seen."""
    probe = folder / "probe"
    probe.write_bytes(b"x")
    os.utime(probe, (1, 1))
    probe.read_bytes()
    return probe.stat().st_atime > 1


# -- use ------------------------------------------------------------------------------------------------


def test_running_its_python_is_a_use(world: World, tmp_path: Path) -> None:
    needs("access times are not kept here", keeps_access_times(tmp_path))
    used, unused = (world.forge.environment(name, {P: FILES[P]}) for name in ("used", "unused"))
    for prefix in (used, unused):
        program(prefix, days=200)
    # what others have too says nothing: its name here was read just now
    os.link(program(used, "other"), unused / "bin/other")
    assert {finding["place"] for finding in of_kind(audit(world), "unused environment")} == {
        str(used), str(unused)
    }  # fmt: skip
    subprocess.run([used / "bin/python"], check=True)
    found = audit(world)
    (finding,) = of_kind(found, "unused environment")
    assert finding["place"] == str(unused)
    assert finding["commands"] == [f"conda env remove --prefix {unused}"]
    last = {one["name"].rpartition("/")[2]: one["last_used"] for one in found["environments"]}
    assert last["unused"] < last["used"]
    assert last["unused"][:10] == time.strftime("%Y-%m-%d", time.gmtime(time.time() - 200 * DAY))
    assert of_kind(audit(world, "--unused-days", 300), "unused environment") == []


def test_bytecode_is_a_sign_of_use_too(world: World) -> None:
    prefix = world.forge.environment("one", {P: FILES[P]})
    cache = prefix / "lib/python3.11/site-packages/pkg/__pycache__"
    cache.mkdir(parents=True)
    (cache / "m.cpython-311.pyc").write_bytes(b"bytecode")
    age(cache / "m.cpython-311.pyc", 100)
    (finding,) = of_kind(audit(world), "unused environment")
    os.utime(cache / "m.cpython-311.pyc")
    assert finding["place"] == str(prefix)
    assert of_kind(audit(world), "unused environment") == []
    os.link(cache / "m.cpython-311.pyc", cache / "other.pyc")
    (one,) = audit(world)["environments"]
    assert one["last_used"] is None and "does not share" in one["unknown"]


@pytest.mark.parametrize("kind", ["here", pytest.param("btrfs", marks=pytest.mark.filesystems)])
def test_our_own_reads_are_no_use(world: World, kind: str, mounted: Any, tmp_path: Path) -> None:
    root = tmp_path if kind == "here" else mounted(kind) / "own-reads"
    root.mkdir(exist_ok=True)
    needs("access times are not kept here", keeps_access_times(root))
    world = World(root / "world2", tmp_path / "home2")
    block = noise("blocks", 300_000)
    for name in ("one", "two"):
        files = {**FILES[P], "lib/patched.so": block + name.encode() * 50 + block, "lib/z.so": block}
        prefix = world.forge.environment(name, {P: files})
        program(prefix)
        site = prefix / "lib/python3.11/site-packages/pkg/__pycache__"
        site.mkdir(parents=True)
        (site / "m.cpython-311.pyc").write_bytes(block)
        (site.parent / "m.py").write_bytes(block)
    every = [path for path in world.root.rglob("*") if path.is_file() and "conda-meta" not in path.parts]
    for path in every:
        age(path, 100)
    before = {(path, path.stat().st_ino): path.stat().st_atime_ns for path in every}
    for words in (("report", "--deep", "--audit"), ("apply", "--yes", "--deep"), ("verify",)):
        world.json(*words, *world.search)
    after = {(path, path.stat().st_ino): path.stat().st_atime_ns for path in every}
    same = before.keys() & after.keys()
    assert len(same) > 6
    assert [path for path, inode in sorted(same) if before[path, inode] != after[path, inode]] == []
    assert len(of_kind(audit(world), "unused environment")) == 2
    if kind != "here":
        shutil.rmtree(root)


@pytest.mark.filesystems
def test_the_mount_decides_what_is_known(tmp_path: Path) -> None:
    """noatime: nothing; relatime: to the day; strictatime: to the second."""
    with mounted_file_system("ext4", tmp_path / "device", 64 * MIB) as point:
        world = World(point / "world", tmp_path / "home")
        path = program(world.forge.environment("one", {}), days=99.5)
        for option, days, later, unused in (
            ("noatime", 90, 0, False),
            ("relatime", 90, DAY, True),
            ("relatime", 99, DAY, False),  # it may have been used 98.5 days ago
            ("strictatime", 99, 0, True),
            ("ro", 90, 0, False),
        ):
            full = {"relatime": "atime,relatime"}.get(option, option)
            subprocess.run(["mount", "-o", f"remount,{full}", point], check=True)
            found = audit(world, "--unused-days", days)
            (one,) = found["environments"]
            assert bool(of_kind(found, "unused environment")) is unused, option
            assert one["later_by"] == later
            assert (one["last_used"] is None) is (option in ("noatime", "ro"))
            if option == "noatime":
                subprocess.run([path], check=True)
                assert "noatime" in one["unknown"]
                text = world.run("report", "--audit", *world.search).stdout
                assert "last use unknown: its file system keeps no access times" in text


@pytest.mark.filesystems
def test_an_overlay_says_nothing(tmp_path: Path) -> None:
    """What lies in a lower layer gets no access times, and nobody tells what does."""
    with mount(tmp_path / "layers", "-t", "tmpfs", "-o", "size=64m,mode=0755", "tmpfs") as layers:
        lower, upper, work = (layers / name for name in ("lower", "upper", "work"))
        for folder in (lower, upper, work):
            folder.mkdir()
        program(Forge(lower).environment("one", {}), days=100)
        options = f"lowerdir={lower},upperdir={upper},workdir={work}"
        with mount(tmp_path / "merged", "-t", "overlay", "-o", options, "overlay") as merged:
            world = World(merged, tmp_path / "home")
            found = audit(world)
            assert of_kind(found, "unused environment") == []
            assert [one["unknown"] for one in found["environments"]] == [
                "access times on overlay say nothing"
            ]


# -- users --------------------------------------------------------------------------------------------------


def test_environments_of_several_users(world: World) -> None:
    needs("giving files away needs root", os.geteuid() == 0)
    for number in range(4):
        program(world.forge.environment(f"mine{number}", {P: FILES[P]}), days=10 + number)
    for number in range(2):
        os.chown(world.forge.environment(f"theirs{number}", {P: FILES[P]}), NOBODY, NOBODY)
    found = audit(world, "--max-envs", 2)
    assert found["owners"] == {"root": 4, "nobody": 2}
    (finding,) = of_kind(found, "too many environments")
    longest = [world.root / "envs/mine3", world.root / "envs/mine2"]
    assert (finding["place"], finding["items"]) == ("root", list(map(str, longest)))
    assert finding["commands"] == [f"conda env remove --prefix {prefix}" for prefix in longest]
    assert finding["bytes_freed"] == du(*longest)
    assert of_kind(audit(world, "--max-envs", 4), "too many environments") == []
    assert of_kind(audit(world), "too many environments") == []


def test_condas_own_environment_never_goes(world: World) -> None:
    base = world.root / "mamba"
    (base / "conda-meta").mkdir(parents=True)
    (base / "conda-meta/history").touch()
    program(base, days=200)
    world.extra["MAMBA_ROOT_PREFIX"] = str(base)
    found = audit(world, "--max-envs", 0)
    assert [one["name"] for one in found["environments"]] == ["base"]
    assert found["findings"] == []


# -- caches -------------------------------------------------------------------------------------------------


def conda_would(lab: CondaLab, kind: str) -> set[str]:
    """The packages or tarballs that conda itself calls unused."""
    listed = json.loads(lab.conda("clean", f"--{kind}", "--dry-run", "--json").stdout)
    return {f"{cache}/{name}" for cache, names in listed[kind]["pkgs_dirs"].items() for name in names}


def in_shell(lab: CondaLab, line: str) -> str:
    """Paste a command into a shell that finds this conda, and conda-dedup."""
    tools = lab.root / "tools"
    tools.mkdir(exist_ok=True)
    script = tools / "conda-dedup"
    script.write_text(f'#!/bin/sh\nPYTHONPATH={Path(__file__).parents[1]} exec {sys.executable} '
                      '-m conda_dedup_plugin.cli "$@" --yes\n')  # fmt: skip
    script.chmod(0o755)
    path = f"{lab.python.parent}:{tools}:{os.environ['PATH']}"
    return lab.run("bash", "-c", line, env={"PATH": path}).stdout


@pytest.mark.integration
def test_unused_packages_and_tarballs_are_those_of_conda(conda_lab: MakeLab) -> None:
    lab = conda_lab()
    state, cache = lab.root / "state", lab.pkgs_dirs[0]
    lab.create("kept", "settings")
    for number in (0, 1):
        lab.create(f"env{number}", f"two-builds=1.0={number}", "prefixed")
        lab.conda("env", "remove", "--name", f"env{number}")
    document = dedup(lab, state, "report", "--audit")["audit"]
    check_schema(document)
    (packages,), (tarballs,) = (of_kind(document, f"unused {kind}") for kind in ("packages", "tarballs"))
    whole, files = conda_would(lab, "packages"), conda_would(lab, "tarballs")
    assert set(packages["items"]) == whole
    assert {f"{cache}/two-builds-1.0-{number}" for number in (0, 1)} < whole
    kept = {path for path in files if Path(path).name.startswith("settings-")}
    assert set(tarballs["items"]) == files - kept and len(kept) == 1
    for finding in (packages, tarballs):
        before = du(cache)
        for line in finding["commands"]:
            in_shell(lab, line)
        assert before - du(cache) == finding["bytes_freed"] > 100_000
    document = dedup(lab, state, "report", "--audit")["audit"]
    assert of_kind(document, "unused packages") == of_kind(document, "unused tarballs") == []
    assert (lab.env_path("kept") / "share/settings/data.bin").exists()
    # with the last environment all tarballs are unused, and conda removes them all
    lab.conda("env", "remove", "--name", "kept")
    document = dedup(lab, state, "report", "--audit")["audit"]
    (tarballs,) = of_kind(document, "unused tarballs")
    assert tarballs["commands"] == [f"CONDA_PKGS_DIRS={cache} conda clean --tarballs"]
    before = du(cache)
    in_shell(lab, tarballs["commands"][0])
    assert before - du(cache) == tarballs["bytes_freed"] > 0


@pytest.mark.integration
def test_what_conda_takes_for_used(conda_lab: MakeLab) -> None:
    """Two builds that share files with each other: conda would keep both, and 'clean' does not."""
    lab = conda_lab()
    state, cache = lab.root / "state", lab.pkgs_dirs[0]
    for number in (0, 1):
        lab.create(f"env{number}", f"two-builds=1.0={number}")
    lab.create("other", "settings")
    dedup(lab, state, "apply", "--yes", "--include-cache")
    for name in ("env0", "env1", "other"):
        lab.conda("env", "remove", "--name", name)
    (found,) = of_kind(dedup(lab, state, "report", "--audit")["audit"], "unused packages")
    assert found["commands"] == [
        f"CONDA_PKGS_DIRS={cache} conda clean --packages",
        f"conda-dedup clean --pkgs-dir {cache}",
    ]
    before = du(cache)
    for line in found["commands"]:
        in_shell(lab, line)
    assert before - du(cache) == found["bytes_freed"] > 0
    assert not any(Path(path).exists() for path in found["items"])


@pytest.mark.parametrize("how", ["hard link", "record", "link without a record"])
def test_what_an_environment_uses_is_none_of_it(world: World, how: str) -> None:
    cache = world.forge.cache(FILES)
    one = world.forge.environment("one", {P: FILES[P]})
    if how != "record":
        for path in FILES[P]:
            (one / path).unlink()
            os.link(cache / "p-1-0" / path, one / path)
    if how == "link without a record":
        (one / "conda-meta/p-1-0.json").unlink()
    for name in ("p-1-0.conda", "q-1-0.tar.bz2"):
        (cache / name).write_bytes(noise(name, 50_000))
    found = audit(world)
    (packages,), (tarballs,) = (of_kind(found, f"unused {kind}") for kind in ("packages", "tarballs"))
    assert packages["items"] == [str(cache / "q-1-0")]
    assert packages["bytes_freed"] == du(cache / "q-1-0")
    # of a package that an environment has copies of, conda knows nothing
    conda = f"CONDA_PKGS_DIRS={cache} conda clean --packages"
    assert packages["commands"] == ([f"cd {cache} && rm -rf -- q-1-0"] if how == "record" else [conda])
    unused = [cache / "q-1-0.tar.bz2"]
    if how == "link without a record":
        unused.insert(0, cache / "p-1-0.conda")
    assert tarballs["items"] == list(map(str, unused))
    assert tarballs["bytes_freed"] == du(*unused)
    # who looks at some environments only cannot say
    document = world.json("report", "--audit", *world.search)["audit"]
    assert not document["everything"]
    assert not of_kind(document, "unused packages") and not of_kind(document, "unused tarballs")


def test_two_caches_that_share_a_file(world: World) -> None:
    """Each cache alone gives nothing back of what the other one has too."""
    caches = [world.forge.cache({P: FILES[P]}, name=f"pkgs{number}") for number in (1, 2)]
    for path in FILES[P]:
        (caches[1] / "p-1-0" / path).unlink()
        os.link(caches[0] / "p-1-0" / path, caches[1] / "p-1-0" / path)
    for finding, cache in zip(of_kind(audit(world), "unused packages"), caches, strict=True):
        assert finding["bytes_freed"] == du(cache / "p-1-0/info")


def test_bytes_are_what_the_device_gives_back(bench: Bench) -> None:
    """An environment has the extents of a cached package that it has no record of."""
    world = World(bench.root / "world", bench.root / "home")
    big = {path: noise(path, 4 * MIB) for path in ("lib/a.so", "lib/b.so")}
    cache = world.forge.cache({P: big})
    one = world.forge.environment("one", {Q: FILES[Q]})
    subprocess.run(["cp", "--reflink=always", cache / "p-1-0/lib/a.so", one / "lib/a.so"], check=True)
    (cache / "p-1-0.conda").write_bytes(noise("archive", 2 * MIB))
    bench.free()
    found = audit(world)
    (packages,), (tarballs,) = (of_kind(found, f"unused {kind}") for kind in ("packages", "tarballs"))
    for finding in (packages, tarballs):
        before = bench.data_used()
        subprocess.run(["rm", "-rf", *finding["items"]], check=True)
        gained = before - bench.data_used()
        assert abs(gained - finding["bytes_freed"]) <= 64 * 1024, (gained, finding["bytes_freed"])
    assert packages["bytes_freed"] // MIB == 4


# -- what is mixed ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "name", "location"),
    [
        ("conda-forge", "conda-forge", "conda-forge"),
        ("conda-forge/linux-64", "conda-forge", "conda-forge"),
        ("https://conda.anaconda.org/conda-forge/linux-64", "conda-forge", "conda-forge"),
        ("https://conda.anaconda.org/t/secret/conda-forge/noarch", "conda-forge", "conda-forge"),
        ("https://conda.anaconda.org/conda-forge/label/dev", "conda-forge/label/dev",
         "conda-forge/label/dev"),
        ("https://repo.anaconda.com/pkgs/main/linux-64", "defaults", "defaults"),
        ("https://repo.continuum.io/pkgs/free/", "defaults", "defaults"),
        ("pkgs/r", "defaults", "defaults"),
        ("defaults", "defaults", "defaults"),
        ("https://me:secret@nexus.example/pkgs/main/noarch", "defaults", "https://nexus.example/pkgs/main"),
        ("https://prefix.dev/conda-forge/osx-arm64", "conda-forge", "https://prefix.dev/conda-forge"),
        ("https://repo.example/mine/linux-64", "https://repo.example/mine", "https://repo.example/mine"),
        ("bioconda", "bioconda", "bioconda"),
        ("<unknown>", "", ""),
        ("http://[", "", ""),
        ("", "", ""),
    ],
)  # fmt: skip
def test_names_of_channels(said: str, name: str, location: str) -> None:
    assert channel_of(said) == (name, location)


@pytest.mark.integration
def test_channels_that_are_mixed(conda_lab: MakeLab) -> None:
    lab = conda_lab()
    state = lab.root / "state"
    urls = {}
    for name in ("pkgs/main", "conda-forge"):
        folder = lab.root / "channels" / name
        shutil.copytree(lab.channel.packages, folder)
        urls[name] = folder.as_uri()
    only = {name: ("--override-channels", "--channel", url) for name, url in urls.items()}
    lab.create("forged", *only["conda-forge"], "settings", "two-builds=1.0=0")
    lab.create("mixed", *only["conda-forge"], "prefixed")
    lab.conda("install", "--name", "mixed", *only["pkgs/main"], "pkgs/main::settings".replace(
        "pkgs/main::", f"{urls['pkgs/main']}::"))  # fmt: skip
    document = dedup(lab, state, "report", "--audit")["audit"]
    channels = {Path(one["prefix"]).name: one["channels"] for one in document["environments"]}
    assert channels["forged"] == ["conda-forge"]
    (mixed,) = of_kind(document, "mixed channels")
    assert mixed["place"] == str(lab.env_path("mixed"))
    assert [item.partition("-1.0")[0].partition("=")[0] for item in mixed["items"]] == ["defaults::settings"]
    (two,) = of_kind(document, "two channels")
    assert two["items"] == ["settings=1.0"] and two["place"] == str(lab.env_path("mixed"))
    assert channels["mixed"] == ["conda-forge", "defaults"]
    (line,) = mixed["commands"]
    assert two["commands"][0] == line.replace("::settings", "::settings=1.0")
    in_shell(lab, line)
    document = dedup(lab, state, "report", "--audit")["audit"]
    assert of_kind(document, "mixed channels") == of_kind(document, "two channels") == []


@pytest.mark.integration
def test_files_of_pip_over_those_of_conda(conda_lab: MakeLab, tmp_path: Path) -> None:
    lab = conda_lab()
    state = lab.root / "state"
    prefix = lab.create("one", "python", "pip", "pure-noarch")
    (module,) = prefix.glob("lib/python3*/site-packages/pure_noarch/module_0.py")
    original = module.read_bytes()
    make_wheel(tmp_path, "clobberer", "1.0", {"pure_noarch/module_0.py": b"# pip's\n" * 900})
    lab.pip(prefix, "install", "--find-links", tmp_path, "clobberer")
    (found,) = of_kind(dedup(lab, state, "report", "--audit")["audit"], "clobbered")
    assert found["items"] == [str(module.relative_to(prefix))]
    for line in found["commands"]:
        in_shell(lab, line)
    assert module.read_bytes() == original
    assert of_kind(dedup(lab, state, "report", "--audit")["audit"], "clobbered") == []


def test_what_conda_and_pip_both_brought(world: World) -> None:
    prefix = world.forge.environment("one", {("My_Pkg", "0.9", "0"): FILES[P], Q: FILES[Q]})
    info = prefix / "lib/python3.11/site-packages/my_pkg-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "RECORD").write_text("my_pkg-1.0.dist-info/RECORD,,\n")
    (finding,) = of_kind(audit(world), "two channels")
    assert finding["what"].endswith("has My_Pkg 0.9 of forge and 1.0 of pypi")
    package = "forge::My_Pkg=0.9=0"
    assert finding["commands"] == [
        f"{prefix}/bin/python -m pip uninstall --yes my-pkg",
        f"conda install --prefix {prefix} --force-reinstall --override-channels --channel forge {package}",
    ]
    (info / "INSTALLER").write_text("conda\n")
    assert of_kind(audit(world), "two channels") == []


# -- exported files -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prefix", "file", "content", "counts"),
    [
        ("envs/one", "envs/one/environment.yml", "", True),
        ("envs/one", "envs/one/explicit.txt", "# x\n@EXPLICIT\n", True),
        ("envs/one", "envs/one/explicit.txt", "numpy\n", False),
        ("envs/one", "envs/one.yml", "", True),
        ("envs/one", "envs/one.txt", "@EXPLICIT\n", True),
        ("envs/one", "envs/one-environment.yml", "", True),
        ("envs/one", "envs/environment.yml", "", False),  # whose?
        ("envs/one", "envs/two.yml", "", False),
        ("envs/one", "envs/one.lock", "", False),  # somebody's lock on it
        ("project/env", "project/conda-lock.yml", "", True),
        ("project/.pixi/envs/default", "project/pixi.lock", "", True),
        ("project/env", "pixi.lock", "", False),
    ],
)
def test_an_exported_file(tmp_path: Path, prefix: str, file: str, content: str, counts: bool) -> None:
    (tmp_path / prefix).mkdir(parents=True)
    tree = Tree(str(tmp_path / prefix), TreeKind.ENVIRONMENT, Manager.CONDA, "one")
    assert exported_file(tree) is None
    (tmp_path / file).write_text(content)
    assert exported_file(tree) == (str(tmp_path / file) if counts else None)


@pytest.mark.parametrize("whose", ["one", "two"])
def test_a_snapshot(tmp_path: Path, whose: str) -> None:
    (tmp_path / "envs/one").mkdir(parents=True)
    snapshots = tmp_path / "snapshots"
    tree = Tree(str(tmp_path / "envs/one"), TreeKind.ENVIRONMENT, Manager.CONDA, "one")
    assert exported_file(tree, str(snapshots)) is None
    made = snapshots / "one-12345678/explicit.txt"
    made.parent.mkdir(parents=True)
    made.write_text(f"# prefix: {tmp_path}/envs/{whose}\n@EXPLICIT\n")
    assert exported_file(tree, str(snapshots)) == (str(made) if whose == "one" else None)


@pytest.mark.integration
def test_the_commands_about_whole_environments(conda_lab: MakeLab) -> None:
    """One is exported, and removed, by the very commands of the report."""
    lab = conda_lab()
    state = lab.root / "state"
    prefix = lab.create("it's", "python", "pip")
    places = lambda found: [one["place"] for one in found]  # noqa: E731
    found = of_kind(dedup(lab, state, "report", "--audit")["audit"], "not exported")
    assert places(found) == [str(prefix)]
    in_shell(lab, found[0]["commands"][0])
    assert "python" in (prefix / "environment.yml").read_text()
    for path in prefix.rglob("*"):
        if path.is_file() and not path.is_symlink():
            age(path, 100)
    document = dedup(lab, state, "report", "--audit")["audit"]
    assert of_kind(document, "not exported") == []
    (finding,) = of_kind(document, "unused environment")
    assert finding["place"] == str(prefix)
    in_shell(lab, finding["commands"][0])
    assert not (prefix / "conda-meta").exists()


@pytest.mark.parametrize("manifest", ["pixi.toml", "pyproject.toml"])
def test_commands_for_a_project_of_pixi(tmp_path: Path, manifest: str) -> None:
    """Its environments are made from its manifest, and nothing else may change them."""
    project = tmp_path / "project"
    (project / ".pixi/envs/test").mkdir(parents=True)
    (project / manifest).touch()
    tree = Tree(str(project / ".pixi/envs/test"), TreeKind.ENVIRONMENT, Manager.PIXI, "project/test")
    where = f"--manifest-path {project / manifest}"
    assert commands.remove_environment(tree) == f"pixi clean {where} --environment test"
    assert commands.from_channel(tree, "conda-forge", ["a=1"]) == f"pixi add conda-forge::a=1 {where}"
    assert commands.uninstall_wheel(tree, "a") == f"pixi remove --pypi a {where}"
    assert commands.reinstall(tree, "a", "a=1", "") == f"pixi reinstall {where} --environment test a"
    # nor does a record run anything
    assert commands.reinstall(tree, "a;id", "a;id=1", "").endswith(" 'a;id'")


# -- the document, the text ---------------------------------------------------------------------------------


def test_the_rest_of_the_report_is_as_without(world: World) -> None:
    world.forge.cache(FILES)
    for name in ("one", "two"):
        world.forge.environment(name, {P: {**FILES[P], "small": b"s"}})
    before = snapshot(world.root)
    plain, audited = (world.json("report", *words, *world.search) for words in ((), ("--audit",)))
    assert "audit" not in plain and list(audited)[-1] == "audit"
    del audited["audit"], audited["walked"], plain["walked"]  # a second may have begun
    assert audited == plain
    text, more = (world.run("report", *words, *world.search).stdout for words in ((), ("--audit",)))
    assert more.startswith(text) and "\nAudit\n" in more and "Audit" not in text
    assert_unchanged(before, snapshot(world.root))


def test_nothing_to_act_on(world: World) -> None:
    prefix = world.forge.environment("one", {P: FILES[P]})
    program(prefix)
    (prefix / "environment.yml").touch()
    assert audit(world)["findings"] == []
    assert "There is nothing to act on." in world.run("report", "--audit", *world.search).stdout


def test_no_name_moves_the_cursor(world: World) -> None:
    """Names with all a terminal might obey: shown escaped, and the commands still mean them."""
    prefix = world.root / f"it's {EVIL}"
    (prefix / "bin").mkdir(parents=True)
    (prefix / "pyvenv.cfg").write_text("home = /usr/bin\n")
    (prefix / "bin/python").symlink_to(sys.executable)
    program(prefix, "tool", days=100)
    cache = world.forge.cache({P: FILES[P]}, name=f"{EVIL}\\ pkgs")
    (cache / "p-1-0.conda").write_bytes(b"x" * 5000)
    world.forge.environment("one", {P: FILES[P]})
    (cache / f"{EVIL}.conda").write_bytes(b"x" * 5000)
    (cache / os.fsdecode(b"q-\xff-0.conda")).write_bytes(b"x" * 5000)
    words = ("--audit", "--search", world.root)
    out = world.run("report", *words).stdout
    assert all(character.isprintable() or character == "\n" for character in out)
    document = audit(world)
    (unused,), (tarballs,) = of_kind(document, "unused environment"), of_kind(document, "unused tarballs")
    assert len(tarballs["items"]) == 2
    for finding in (unused, tarballs):
        for line in finding["commands"]:
            assert line in out
            subprocess.run(["bash", "-c", line], check=True)
    assert not prefix.exists()
    assert sorted(os.listdir(cache)) == ["p-1-0", "p-1-0.conda", "urls.txt"]


@pytest.mark.parametrize("words", [("--unused-days", "0"), ("--max-envs", "-1"), ("--max-envs", "many")])
def test_words_that_make_no_sense(world: World, words: tuple[str, str]) -> None:
    assert world.json("report", "--audit", *words, *world.search, code=2)["error"]


def test_words_of_an_audit_that_is_not_wanted(world: World) -> None:
    document = world.json("report", "--max-envs", 3, *world.search, code=2)
    assert document["error"] == "--unused-days and --max-envs are about an audit."


def test_files_shared_by_us_say_nothing_of_use(world: World) -> None:
    for name in ("one", "two"):
        prefix = world.forge.environment(name, {P: {**FILES[P], "bin/tool": noise("tool", 30_000)}})
        (prefix / "bin/tool").chmod(0o755)
    share(world)
    if (world.root / "envs/one/bin/tool").stat().st_nlink == 1:
        pytest.skip("reflinks: every environment has an inode of its own")
    assert {one["last_used"] for one in audit(world)["environments"]} == {None}
