"""What is shipped, and the worlds it is shipped to."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from tests.lab import conda_wheel, needs, recipe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.lab.base_channel import BaseChannel
    from tests.lab.conda_base import BaseLab

#: The version after the repository's, as far as these tests go.
NEXT = "1000.0"
NOBODY = 65534
_TOOLS = ["hatchling", "pip"]


class MakeWorld(Protocol):
    """What the fixture :func:`make_world` gives."""

    def __call__(self, *, user: int | None = None, own: Path | None = None, **settings: Any) -> BaseLab: ...


@dataclass(frozen=True)
class Shipped:
    """The built packages, each in a channel of its own, and whether dependencies are as old as may be."""

    base: BaseChannel
    first: recipe.Built
    second: recipe.Built
    lowest: bool

    @property
    def channels(self) -> dict[str, Path]:
        """The directory of each channel: conda's, and those of the two versions."""
        first, second = (built.package.parents[1] for built in (self.first, self.second))
        return {"conda": self.base.folder, "first": first, "second": second}


@pytest.fixture(scope="session")
def base_channel(run_dir: Path, conda_below: Path) -> BaseChannel:
    """conda and all that it and the plugin need, as packages; see :mod:`tests.lab.base_channel`.

    Beside the oldest conda, the oldest of all that the plugin requires.
    """
    for module in ("rattler", "packaging"):
        needs(f"needs the package {module}", conda_wheel.importable(module))
    from tests.lab.base_channel import BaseChannel, build_base_channel

    folder = run_dir / "base-channel"

    def make() -> None:
        required = recipe.required()
        if is_oldest():
            required = [line.replace(">=", "==") for line in required]
        more = [conda_wheel.installed_apart(conda_below, lines) for lines in (required, _TOOLS)]
        build_base_channel(folder / "channel", conda_below, more)

    conda_wheel.once(folder, make)
    return BaseChannel(folder / "channel")


@pytest.fixture(scope="session")
def conda_minor(conda_below: Path) -> str:
    """The version of Python below conda."""
    return conda_wheel.ask(conda_below, "import sys; print('%d.%d' % sys.version_info[:2])")


@pytest.fixture(scope="session")
def shipped(run_dir: Path, base_channel: BaseChannel, conda_minor: str) -> Shipped:
    """The recipe, built as it is and as the next version."""
    needs("needs the package rattler_build", conda_wheel.importable("rattler_build"))
    folder = run_dir / "shipped"
    answer = folder / "built.json"

    def make() -> None:
        said = []
        for name, version in (("first", conda_dedup_version()), ("second", NEXT)):
            (folder / name).mkdir()
            built = recipe.build(folder / name, [base_channel.url], conda_minor, version=version)
            said.append([str(built.package), built.log])
        answer.write_text(json.dumps(said))

    conda_wheel.once(folder, make)
    first, second = (recipe.Built(Path(path), log) for path, log in json.loads(answer.read_text()))
    return Shipped(base_channel, first, second, is_oldest())


@pytest.fixture
def make_world(shipped: Shipped, conda_below: Path) -> Iterator[Callable[..., BaseLab]]:
    """Makes worlds with a base that has conda alone; ``user``: everything in it belongs to that user.

    ``own`` is the directory in which such a world is made, with ``like`` it has
    the base and the channels of another world.
    """
    from tests.lab.base_channel import BaseChannel, Interpreter
    from tests.lab.conda_base import BaseLab, bring, give_away

    made: list[Path] = []

    def make(
        *, user: int | None = None, own: Path | None = None, like: BaseLab | None = None, **settings: Any
    ) -> BaseLab:
        if user is not None:
            needs("root, to be somebody else", os.geteuid() == 0)
            python = Interpreter.of(conda_below).home
            needs(f"others may not run {python}", may_run(python, user))
        # others may not enter pytest's directories
        root = Path(tempfile.mkdtemp(dir=own)).resolve()
        made.append(root)
        root.chmod(0o755)
        if like is None:
            for name, folder in shipped.channels.items():
                bring(folder, root / "channels" / name)
        channels = like.root / "channels" if like else root / "channels"
        lab = BaseLab(
            root,
            Path(sys.executable),
            BaseChannel(channels / "conda"),
            settings={
                "add_pip_as_python_dependency": False,
                "channels": [(channels / name).as_uri() for name in ("first", "conda")],
                **settings,
            },
            base=like.base if like else root / "conda",
            user=user,
        )
        if user is not None:
            for folder in (lab.home, root / "tmp", *lab.pkgs_dirs, *lab.envs_dirs):
                give_away(folder, user)
        return lab

    yield make
    for root in made:
        shutil.rmtree(root, ignore_errors=True)  # its file system may be gone


def may_run(program: Path, user: int) -> bool:
    """Whether that user may run a program."""
    try:
        command = [str(program), "-c", ""]
        return subprocess.run(command, user=user, group=user, extra_groups=[], cwd="/").returncode == 0
    except OSError:
        return False


def base_specs(shipped: Shipped) -> list[str]:
    """What a base is made of before the plugin comes: conda, and the oldest of what both need."""
    if not shipped.lowest:
        return ["conda"]
    shared = ("packaging", "platformdirs", "pluggy", "ruamel.yaml")
    return ["conda", *(line for line in lowest() if line.partition("=")[0] in shared)]


def lowest() -> list[str]:
    """The oldest version of each requirement, as conda writes it."""
    return [line.replace(">=", "=") for line in recipe.required()]


def is_oldest() -> bool:
    """Whether the tests are about the oldest conda."""
    return "CONDA_DEDUP_TEST_CONDA" not in os.environ


def conda_dedup_version() -> str:
    """The version of the repository."""
    from conda_dedup_plugin import __version__

    return __version__
