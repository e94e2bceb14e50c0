"""Real package managers in a world of their own: nothing of the user's is read or written."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from conda_dedup_plugin.demo.packages import native_subdir
from tests.lab.conda_wheel import Failed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from tests.lab.channel import TestChannel

_FOREIGN = (
    "CONDA", "_CE_", "_CONDA", "MAMBA", "RATTLER", "PIXI", "PIP_", "PYTHON", "UV_", "XDG_", "VIRTUAL_ENV"
)  # fmt: skip


@dataclass(frozen=True)
class CondaLab:
    """A home directory, a conda, its configuration, package caches and environments.

    ``python`` runs conda (``python -m conda``) and is its base. The first of ``envs_dirs`` is where named
    environments go, the first of ``pkgs_dirs`` the cache. ``settings`` win over what condarc has from here.
    """

    root: Path
    python: Path
    channel: TestChannel
    pkgs_dirs: tuple[Path, ...] = ()
    envs_dirs: tuple[Path, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("pkgs_dirs", "envs_dirs"):
            if not getattr(self, name):
                object.__setattr__(self, name, (self.root / name.removesuffix("_dirs"),))
        for folder in (self.home, self.root / "tmp", *self.pkgs_dirs, *self.envs_dirs):
            folder.mkdir(parents=True, exist_ok=True)
        self.configure(**self.settings)

    @property
    def home(self) -> Path:
        """The user's home directory; the XDG directories are below."""
        return self.root / "home"

    @property
    def condarc(self) -> Path:
        """The only configuration file of conda that has anything in it."""
        return self.root / "condarc"

    @property
    def state_home(self) -> Path:
        """``XDG_STATE_HOME``."""
        return self.home / "state"

    @property
    def rattler_cache(self) -> Path:
        """``RATTLER_CACHE_DIR``; its packages are in ``pkgs`` below."""
        return self.root / "rattler"

    @property
    def environ(self) -> dict[str, str]:
        """The whole environment of a command in this world."""
        outer = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
        return outer | {
            "HOME": str(self.home),
            "XDG_CACHE_HOME": str(self.home / "cache"),
            "XDG_CONFIG_HOME": str(self.home / "config"),
            "XDG_DATA_HOME": str(self.home / "data"),
            "XDG_STATE_HOME": str(self.state_home),
            "CONDARC": str(self.condarc),
            "RATTLER_CACHE_DIR": str(self.rattler_cache),
            "TMPDIR": str(self.root / "tmp"),
            "LC_ALL": "C.UTF-8",
            "COLUMNS": "120",
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_FIND_LINKS": str(self.channel.wheels),
            "PIP_NO_INDEX": "1",
            "PIP_ROOT_USER_ACTION": "ignore",
        }

    @property
    def process_options(self) -> dict[str, Any]:
        """What more a process of this world is started with."""
        return {}

    def configure(self, **settings: Any) -> None:
        """Write condarc anew, with ``settings`` over those of the laboratory."""
        base: dict[str, Any] = {
            "always_yes": True,
            "auto_update_conda": False,
            "channels": [self.channel.url],
            "envs_dirs": [str(folder) for folder in self.envs_dirs],
            "notify_outdated_conda": False,
            "number_channel_notices": 0,
            "offline": True,
            "pkgs_dirs": [str(folder) for folder in self.pkgs_dirs],
            "report_errors": False,
            "solver": "classic",
        }
        # JSON is YAML
        self.condarc.write_text(json.dumps(base | settings, indent=2))

    @property
    def conda_command(self) -> tuple[object, ...]:
        """What runs conda."""
        return (self.python, "-m", "conda")

    def conda(
        self,
        *arguments: object,
        env: Mapping[str, str] | None = None,
        check: bool = True,
        input: str | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run ``conda <arguments>`` with ``env`` over :attr:`environ`; raises on failure if ``check``."""
        return self.run(*self.conda_command, *arguments, env=env, check=check, input=input)

    def run(
        self,
        *command: object,
        env: Mapping[str, str] | None = None,
        check: bool = True,
        input: str | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run any command in this world, in its root directory."""
        done = subprocess.run(
            [str(word) for word in command],
            env={**self.environ, **(env or {})},
            cwd=self.root,
            input=input,
            **self.process_options,
            stdin=None if input is not None else subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
        if check and done.returncode:
            raise Failed(done)
        return done

    def create(self, name: str, *specs: str) -> Path:
        """Create a named environment by conda and return its prefix."""
        self.conda("create", "--name", name, *specs)
        return self.env_path(name)

    def rattler(self, prefix: Path, *specs: str) -> Path:
        """Create an environment at ``prefix`` by rattler, with this world's rattler cache."""
        rattler_create(prefix, specs, self.channel.url, self.rattler_cache)
        return prefix

    def pip(self, prefix: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
        """Run the pip that is installed in the environment at ``prefix``; it knows the test wheels alone."""
        return self.python_in(prefix, "-m", "pip", *arguments)

    def python_in(self, prefix: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
        """Run the Python of the environment at ``prefix``."""
        return self.run(prefix / "bin/python", *arguments)

    def env_path(self, name: str) -> Path:
        """The prefix of a named environment."""
        return self.envs_dirs[0] / name

    @property
    def environments_txt(self) -> Path:
        """conda's list of known environments."""
        return self.home / ".conda/environments.txt"


def rattler_create(prefix: Path, specs: Sequence[str], channel: str | list[str], cache_dir: Path) -> None:
    """Solve and install ``specs`` of one channel or several by rattler, with all caches in ``cache_dir``."""
    import rattler

    channels = [channel] if isinstance(channel, str) else channel

    async def create() -> None:
        gateway = rattler.Gateway(cache_dir=cache_dir / "repodata")
        platforms = [native_subdir(), "noarch"]
        records = await rattler.solve(channels, list(specs), gateway=gateway, platforms=platforms)
        # rattler's programs have their packages there
        packages = cache_dir / "pkgs"
        await rattler.install(records, target_prefix=prefix, cache_dir=packages, show_progress=False)

    asyncio.run(create())
