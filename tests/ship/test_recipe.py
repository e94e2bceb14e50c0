"""The recipe says what pyproject.toml says, and what is built from it passes its own tests, offline."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from packaging.requirements import Requirement

from conda_dedup_plugin import __version__
from tests.lab import conda_wheel, needs, recipe
from tests.lab.conda_wheel import REPOSITORY

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

if TYPE_CHECKING:
    from tests.lab.base_channel import BaseChannel
    from tests.ship.conftest import Shipped


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    """The table ``project`` of pyproject.toml."""
    found: dict[str, Any] = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    return found


def test_the_recipe_says_what_pyproject_says(project: dict[str, Any]) -> None:
    said = recipe.recipe()
    assert recipe.required() == sorted(project["dependencies"])
    assert any(line.startswith("conda >=") for line in said["requirements"]["run"])
    constraints = {Requirement(line).name for line in said["requirements"]["run_constraints"]}
    extras = project["optional-dependencies"]
    extra = [Requirement(line) for line in (*extras["html"], *extras["demo"])]
    assert constraints == {one.name for one in extra if one.specifier}
    assert [str(one) for one in extra if one.specifier] == [
        str(Requirement(line)) for line in said["requirements"]["run_constraints"]
    ]
    points = dict(line.split(" = ") for line in said["build"]["python"]["entry_points"])
    assert points == project["scripts"]
    assert said["about"]["summary"] == project["description"]
    assert said["about"]["license"] == project["license"]
    assert recipe.variants() == {"python_min": [project["requires-python"].removeprefix(">=")]}


def test_the_version_is_that_of_the_module() -> None:
    (default,) = re.findall(r'CONDA_DEDUP_VERSION", default="(.+?)"', recipe.RECIPE.read_text())
    assert default == __version__


def test_what_is_in_the_package(shipped: Shipped, project: dict[str, Any], conda_minor: str) -> None:
    assert shipped.first.package.name.startswith(f"conda-dedup-plugin-{__version__}-py")
    found = shipped.first.metadata()
    assert found["noarch"] == "python"
    depends = [line for line in found["depends"] if not line.startswith(("python ", "conda "))]
    assert sorted(str(Requirement(line)) for line in depends) == sorted(project["dependencies"])
    assert f"python >={conda_minor}" in found["depends"]
    info = f"site-packages/conda_dedup_plugin-{__version__}.dist-info"
    files = set(found["files"])
    assert {f"{info}/entry_points.txt", f"{info}/licenses/LICENSE"} <= files
    modules = {
        f"site-packages/{path.relative_to(REPOSITORY).as_posix()}"
        for path in (REPOSITORY / "conda_dedup_plugin").rglob("*.py")
    }
    assert modules == {path for path in files if path.endswith(".py")}
    assert not [path for path in files if "tests" in path or path.startswith("bin/")]


def test_the_tests_of_the_recipe(tmp_path: Path, base_channel: BaseChannel, conda_minor: str) -> None:
    """What is imported, ``pip check``, and the help of every command, in an environment with nothing else."""
    needs("needs the package rattler_build", conda_wheel.importable("rattler_build"))
    built = recipe.build(tmp_path, [base_channel.url], conda_minor, tested=True)
    assert "all tests passed" in built.log
    assert "No broken requirements found." in built.log
    assert "usage: conda dedup" in built.log
    assert f"conda-dedup-plugin {__version__}" in built.log


@pytest.mark.soak
def test_the_demonstration_in_the_tests_of_the_recipe(
    tmp_path: Path, base_channel: BaseChannel, conda_minor: str, conda_below: Path
) -> None:
    """The same with the extra ``demo``, of the oldest rattler that may be."""
    from tests.lab.base_channel import build_channel

    needs("needs the package rattler_build", conda_wheel.importable("rattler_build"))
    more = conda_wheel.installed_apart(conda_below, ["numpy", "py-rattler==0.20"])
    build_channel(tmp_path / "more", conda_below, [more])
    channels = [base_channel.url, (tmp_path / "more").as_uri()]
    built = recipe.build(tmp_path, channels, conda_minor, tested=True, demo=True)
    assert re.search(r"on disk: .* MB before, .* MB after", built.log)


def test_the_source_distribution_makes_the_same_wheel(tmp_path: Path) -> None:
    """It has the licence and README, and is enough to build the recipe of a release from."""
    needs("needs the package hatchling", conda_wheel.importable("hatchling"))
    for folder, source in (("sdist", REPOSITORY), ("direct", REPOSITORY)):
        kind = "sdist" if folder == "sdist" else "wheel"
        _hatchling(source, tmp_path / folder, kind)
    (archive,) = (tmp_path / "sdist").glob("*.tar.gz")
    stem = f"conda_dedup_plugin-{__version__}"
    assert archive.name == f"{stem}.tar.gz"
    with tarfile.open(archive) as opened:
        names = {member.name.removeprefix(f"{stem}/") for member in opened}
        opened.extractall(tmp_path / "unpacked", filter="data")
    assert {"LICENSE", "README.md", "CHANGELOG.md", "pyproject.toml", "recipe/recipe.yaml"} <= names
    assert not [name for name in names if "__pycache__" in name or name.startswith(".hypothesis")]
    _hatchling(tmp_path / "unpacked" / stem, tmp_path / "indirect", "wheel")
    assert _members(tmp_path / "indirect") == _members(tmp_path / "direct")
    assert f"{stem}.dist-info/licenses/LICENSE" in _members(tmp_path / "direct")
    (wheel,) = (tmp_path / "direct").glob("*.whl")
    with zipfile.ZipFile(wheel) as opened:
        points = opened.read(f"{stem}.dist-info/entry_points.txt").decode()
    assert "[conda]\nconda-dedup-plugin = conda_dedup_plugin.plugin\n" in points


def _hatchling(source: Path, target: Path, kind: str) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "--target", kind, "--directory", str(target)]
    subprocess.run(command, cwd=source, check=True, capture_output=True)


def _members(folder: Path) -> dict[str, int]:
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return {member.filename: member.CRC for member in archive.infolist()}
