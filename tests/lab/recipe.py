"""Builds ``recipe/recipe.yaml`` by rattler-build, from a channel on disk and without a network."""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packaging.requirements import Requirement
from ruamel.yaml import YAML

from conda_dedup_plugin import __version__
from tests.lab.conda_wheel import REPOSITORY, run

if TYPE_CHECKING:
    from collections.abc import Sequence

RECIPE = REPOSITORY / "recipe/recipe.yaml"
VARIANTS = REPOSITORY / "recipe/variants.yaml"
#: What the source of the recipe needs; the rest of the repository stays out.
_SOURCE = ("conda_dedup_plugin", "recipe", "pyproject.toml", "README.md", "LICENSE")
#: In a process of its own: its threads, its environment, and a log on stderr that nobody reads.
_BUILD = """
import json, sys
from rattler_build import Stage0Recipe, ToolConfiguration, VariantConfig
recipe, output, python, strategy, *channels = sys.argv[1:]
tools = ToolConfiguration(test_strategy=strategy, use_zstd=False, use_bz2=False, use_sharded=False)
(built,) = Stage0Recipe.from_file(recipe).run_build(
    VariantConfig({"python_min": [python]}), tools, output_dir=output, channels=channels, no_build_id=True
)
print(json.dumps({"packages": [str(path) for path in built.packages], "log": built.log}))
"""
_READ = """
import json, sys
from rattler_build import Package
package = Package.from_file(sys.argv[1])
print(json.dumps({
    "depends": package.depends, "constrains": package.constrains, "noarch": package.noarch,
    "license": package.license, "files": package.files, "tests": [test.to_dict() for test in package.tests],
}))
"""


def recipe() -> dict[str, Any]:
    """The recipe as it is written."""
    return _yaml(RECIPE)


def variants() -> dict[str, Any]:
    """What it is built for."""
    return _yaml(VARIANTS)


def required() -> list[str]:
    """What the recipe requires to run, as pip would write it; Python and conda apart."""
    found = (Requirement(line) for line in recipe()["requirements"]["run"] if "$" not in line)
    return sorted(str(one) for one in found if one.name != "conda")


def _yaml(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = YAML(typ="safe").load(path)
    return found


@dataclass(frozen=True)
class Built:
    """A built package, the channel it lies in, and what rattler-build said."""

    package: Path
    log: str

    @property
    def channel(self) -> str:
        """The URL of the channel that has this package."""
        return self.package.parent.parent.resolve().as_uri()

    def metadata(self) -> dict[str, Any]:
        """What the package says of itself."""
        found: dict[str, Any] = json.loads(run(sys.executable, "-c", _READ, self.package))
        return found


def build(
    folder: Path,
    channels: Sequence[str],
    python: str,
    *,
    version: str = __version__,
    number: int = 0,
    tested: bool = False,
    demo: bool = False,
) -> Built:
    """Build the recipe in ``folder``, for the Python ``python`` of ``channels``; raises if that fails.

    With another ``version`` than the repository's, the source is changed to that. ``tested``: the recipe's
    tests are run, with ``demo`` the demonstration, too.
    """
    source = folder / "source"
    shutil.rmtree(source, ignore_errors=True)
    for name in _SOURCE:
        if (REPOSITORY / name).is_dir():
            shutil.copytree(REPOSITORY / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(REPOSITORY / name, source / name)
    module = source / "conda_dedup_plugin/__init__.py"
    module.write_text(module.read_text().replace(f'"{__version__}"', f'"{version}"'))
    nowhere = "http://127.0.0.1:9"
    environ = {
        "HOME": str(folder / "home"),
        "RATTLER_CACHE_DIR": str(folder / "cache"),
        "http_proxy": nowhere,
        "https_proxy": nowhere,
        "CONDA_DEDUP_BUILD_NUMBER": str(number),
        "CONDA_DEDUP_TEST_DEMO": "yes" if demo else "no",
        **({} if version == __version__ else {"CONDA_DEDUP_VERSION": version}),
    }
    (folder / "home").mkdir(exist_ok=True)
    strategy = "native" if tested else "skip"
    recipe = source / "recipe/recipe.yaml"
    said = run(
        sys.executable, "-c", _BUILD, recipe, folder / "channel", python, strategy, *channels, env=environ
    )
    result = json.loads(said.splitlines()[-1])
    for name in ("source", "home"):
        shutil.rmtree(folder / name)
    return Built(Path(result["packages"][0]), os.linesep.join(result["log"]))
