"""A common baseline for near-identical environments: its numbers, its files, and conda's opinion of them."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from ruamel.yaml import YAML

from conda_dedup_plugin.baseline import write_baselines
from conda_dedup_plugin.errors import UsageError
from conda_dedup_plugin.model import Dist
from conda_dedup_plugin.similar import clusters
from conda_dedup_plugin.specs.packages import Package, Specs, in_order
from conda_dedup_plugin.suggest import Gain, Suggestion
from tests.lab.forge import noise
from tests.test_lab import EVERYTHING
from tests.test_report import World

if TYPE_CHECKING:
    from tests.conftest import MakeLab
    from tests.lab.world import CondaLab

COMMON = [(name, "1", "0") for name in "abcdefghi"]
FILES = {
    name: {f"lib/lib{name}.so": noise(name, 20_000), f"share/{name}": b"x" * 9} for name in "abcdefghixy"
}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "world", tmp_path / "home")


def forge(world: World, name: str, *dists: tuple[str, str, str]) -> Path:
    return world.forge.environment(
        name, {dist: {f"{path}{dist[1]}": data for path, data in FILES[dist[0]].items()} for dist in dists}
    )


def used(*roots: Path) -> tuple[int, int]:
    """Disk bytes and inodes of all files below, each inode once, records of conda left out."""
    paths = [path for root in roots for path in root.rglob("*") if path.is_file()]
    found = {path.stat().st_ino: path.stat() for path in paths if path.parent.name != "conda-meta"}
    return sum(stat.st_blocks * 512 for stat in found.values()), len(found)


def test_numbers_against_what_is_really_freed(world: World) -> None:
    # like neither of them, though it has a file of one
    forge(world, "far", ("y", "1", "0"))
    one = forge(world, "one", *COMMON, ("x", "1", "0"))
    two = forge(world, "two", *COMMON, ("x", "2", "0"), ("y", "1", "0"))
    # what is one inode already frees its bytes when both names go
    (two / "lib/liba.so1").unlink()
    os.link(one / "lib/liba.so1", two / "lib/liba.so1")
    document = world.json("suggest", "--threshold", "0.7", *world.search)
    [cluster] = document["clusters"]
    assert [member["name"] for member in cluster["environments"]] == ["one", "two"]
    assert [package["name"] for package in cluster["common"]] == [name for name, _, _ in COMMON]
    assert [[added["name"] for added in member["adds"]] for member in cluster["environments"]] == [
        ["x"],
        ["x", "y"],
    ]
    assert cluster["common_bytes"] == 9 * 20_009
    assert [member["adds_bytes"] for member in cluster["environments"]] == [20_009, 40_018]
    assert cluster["conflicts"] == ["x"]
    assert (cluster["files"], cluster["commands"]) == ([], [])
    # sharing: what apply does
    before = used(one, two)
    world.json("apply", "--yes", "--no-discover", "-p", one, "-p", two)
    after = used(one, two)
    assert cluster["sharing"] == {"bytes_freed": before[0] - after[0], "inodes": before[1] - after[1]}
    # merging: the second environment's packages go where the first has the same
    world.json("undo", "--yes")
    assert used(one, two) == before
    for name, version, _ in COMMON:
        for path in FILES[name]:
            (two / f"{path}{version}").unlink()
    after = used(one, two)
    assert cluster["merging"] == {"bytes_freed": before[0] - after[0], "inodes": before[1] - after[1]}


def test_text_and_files(world: World) -> None:
    forge(world, "one", *COMMON)
    forge(world, "two", *COMMON, ("y", "1", "0"))
    said = world.run("suggest", *world.search).stdout
    assert said.splitlines()[0] == "one, two"
    assert "  all share             9 packages, 180.1 kB\n" in said
    assert "  one adds              nothing\n" in said
    assert "  two adds              1 package, 20.0 kB: y\n" in said
    assert said.endswith("Files and commands for it: --write DIR\n")
    folder = world.home / "of my own"
    trees = sorted(world.root.rglob("*"))
    said = world.run("suggest", "--write", folder, *world.search).stdout
    assert sorted(world.root.rglob("*")) == trees
    assert f"    conda env create --name baseline --file '{folder}/baseline.yml'\n" in said
    assert "    conda create --name one-new --clone baseline\n" in said
    assert f"    conda install --name two-new --channel forge --file '{folder}/two.txt'\n" in said
    assert sorted(path.name for path in folder.iterdir()) == ["baseline.yml", "one.yml", "two.txt", "two.yml"]
    assert (folder / "two.txt").read_text() == "y=1=0\n"
    again = world.run("suggest", "--write", folder, *world.search, code=2).stderr
    assert "baseline.yml' is there already" in again.replace("\n", " ")


def test_nothing_alike_and_wrong_words(world: World) -> None:
    forge(world, "one", *COMMON)
    forge(world, "two", ("y", "1", "0"))
    assert world.run("suggest", *world.search).stdout == "2 environments, no two of which are 90% alike.\n"
    assert world.json("suggest", *world.search)["clusters"] == []
    for words in (("--threshold", "0"), ("--threshold", "nan"), ("--no-builds",)):
        assert "error: " in world.run("suggest", *words, *world.search, code=2).stderr


# -- files --------------------------------------------------------------------------------------------


def package(name: str, version: str = "1.0", build: str = "0", channel: str = "conda-forge") -> Package:
    return Package(Dist(name, version, build, "noarch", "", channel), 10)


def pip(name: str, version: str = "1.0") -> Package:
    return Package(Dist(name, version, "py3-none-any", "pypi", ""), 10)


def suggestion(*members: Specs) -> Suggestion:
    [cluster] = clusters(members, 0.1)
    adds = tuple(
        tuple(package for package in member.packages if package not in cluster.common)
        for member in cluster.members
    )
    return Suggestion(cluster, adds, (), Gain(), Gain())


def specs(name: str, *packages: Package) -> Specs:
    return Specs(name, f"/envs/{name}", in_order(list(packages)))


def load(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = YAML(typ="safe").load(path)
    return loaded


def test_files_say_what_is_needed(tmp_path: Path) -> None:
    one = specs("no", package("a"), package("b", "1!2.0"), pip("p"), pip("q", "1.0+cu118"))
    two = specs("project/default", package("a"), pip("p"), package("c", channel="defaults"))
    [written] = write_baselines([suggestion(one, two)], str(tmp_path), True, {"baseline", "no-new"})
    assert [Path(file).name for file in written.files] == [
        "baseline.yml", "no.yml", "no.txt", "project-default.yml", "project-default.txt"
    ]  # fmt: skip
    channels = ["conda-forge", "defaults"]
    assert load(tmp_path / "baseline.yml") == {
        "name": "baseline-2",
        "channels": channels,
        "dependencies": ["conda-forge::a=1.0=0", "pip", {"pip": ["p==1.0"]}],
    }
    assert load(tmp_path / "no.yml") == {
        "name": "no-new-2",
        "channels": channels,
        "dependencies": ["conda-forge::b=1!2.0=0", "pip", {"pip": ["q==1.0+cu118"]}],
    }
    assert (tmp_path / "project-default.txt").read_text() == "defaults::c=1.0=0\n"
    given = "--channel conda-forge --channel defaults"
    assert list(written.commands) == [
        f"conda env create --name baseline-2 --file {tmp_path}/baseline.yml",
        "conda create --name no-new-2 --clone baseline-2",
        f"conda install --name no-new-2 {given} --file {tmp_path}/no.txt",
        f"conda env update --name no-new-2 --file {tmp_path}/no.yml",
        "conda create --name project-default-new --clone baseline-2",
        f"conda install --name project-default-new {given} --file {tmp_path}/project-default.txt",
    ]


def test_several_clusters_have_directories_of_their_own(tmp_path: Path) -> None:
    two = suggestion(specs("baseline", package("a")), specs("b", package("a")))
    written = write_baselines([two, two], str(tmp_path), False)
    assert load(tmp_path / "cluster-1/baseline.yml")["dependencies"] == ["a=1.0"]
    assert load(tmp_path / "cluster-2/baseline-2.yml") == {
        "name": "baseline-2-new-2", "channels": ["conda-forge"], "dependencies": []
    }  # fmt: skip
    assert "--clone baseline-2" in written[1].commands[1]


def test_a_directory_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    one = suggestion(specs("a", package("a")), specs("b", package("a")))
    with pytest.raises(UsageError, match="file"):
        write_baselines([one], str(tmp_path / "file"), True)
    with pytest.raises(UsageError, match="file"):
        write_baselines([one], str(tmp_path / "file/below"), True)


# -- real conda ---------------------------------------------------------------------------------------


def have(lab: CondaLab, name: str) -> set[tuple[str, ...]]:
    """What conda says is in an environment, pip's packages too."""
    listed = json.loads(lab.conda("list", "--name", name, "--json").stdout)
    return {
        (one["name"], one["version"], "" if one["channel"] == "pypi" else one["build_string"])
        for one in listed
    }


@pytest.mark.integration
def test_conda_takes_the_files_and_the_commands_bring_the_same_back(conda_lab: MakeLab) -> None:
    lab = conda_lab(with_plugin=True)
    several = [spec for spec in EVERYTHING if spec not in ("two-builds", "numpy")]
    lab.create("one", *several, "two-builds=1.0=0")
    lab.create("two", *several, "two-builds=1.0=1")
    lab.pip(lab.env_path("one"), "install", "--no-deps", "pure-wheel")
    words = ("dedup", "suggest", "-n", "one", "-n", "two", "--threshold", "0.6", "--json", "--write")
    for folder, options in (("files", ()), ("no builds", ("--no-builds",))):
        done = lab.conda(*words, lab.root / folder, *options)
        [cluster] = json.loads(done.stdout)["clusters"]
        adds = {member["name"]: [one["name"] for one in member["adds"]] for member in cluster["environments"]}
        assert adds == {"one": ["two-builds", "pure-wheel"], "two": ["two-builds"]}
        for file in cluster["files"]:
            if file.endswith(".yml"):
                lab.conda("env", "create", "--dry-run", "--file", file)
            else:
                lab.conda("create", "--dry-run", "--name", "tried", "--file", file)
    assert (lab.root / "no builds/two.txt").read_text() == "two-builds=1.0\n"
    for command in json.loads(lab.conda(*words, lab.root / "again").stdout)["clusters"][0]["commands"]:
        program, *arguments = shlex.split(command)
        assert program == "conda"
        lab.conda(*arguments)
    for name in ("one", "two"):
        assert have(lab, f"{name}-new") == have(lab, name)
