"""A conda base as installers make it: a prefix of packages from a channel, conda being one of them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.lab.world import CondaLab, rattler_create


@dataclass(frozen=True)
class BaseLab(CondaLab):
    """A world whose conda is the one in a base of packages at ``base``, run by its own ``bin/conda``.

    With ``user`` commands run as that user id, of the group of the same number.
    """

    base: Path = Path()
    user: int | None = None

    @property
    def process_options(self) -> dict[str, Any]:
        """Another user, with no more groups than one."""
        if self.user is None:
            return {}
        return {"user": self.user, "group": self.user, "extra_groups": []}

    @property
    def environ(self) -> dict[str, str]:
        """No program of ours is on the path, which conda would take for a subcommand."""
        return super().environ | {"PATH": f"{self.base / 'bin'}:{os.defpath}"}

    def configure(self, **settings: Any) -> None:
        """Write condarc anew, with ``settings`` over those that this world was made with."""
        super().configure(**{**self.settings, **settings})

    @property
    def conda_command(self) -> tuple[object, ...]:
        """That of the base."""
        return (self.base / "bin/conda",)

    def dedup(self, *arguments: object) -> dict[str, Any]:
        """Run ``conda dedup <arguments> --json``."""
        document: dict[str, Any] = json.loads(self.conda("dedup", *arguments, "--json").stdout)
        return document

    def installed(self) -> dict[str, str]:
        """The versions of what is in the base, as conda tells."""
        listed = json.loads(self.conda("list", "--name", "base", "--json").stdout)
        return {one["name"]: one["version"] for one in listed}

    def install_base(self, *specs: str) -> None:
        """Make the base, as installers do: by another program than conda, and compiled."""
        cache = self.root / "installer"
        rattler_create(self.base, specs, self.settings["channels"], cache)
        shutil.rmtree(cache)
        for path in (self.base / "conda-meta").iterdir():
            path.chmod(0o644)  # rattler's are for one user
        command = (self.base / "bin/python", "-m", "compileall", "-q", "-j", "2", self.base / "lib")
        self.run(*command, check=False)
        if self.user is not None:
            give_away(self.base, self.user)


def give_away(folder: Path, user: int) -> None:
    """Let ``folder`` with all that is in it belong to another user, and to the group of the same number."""
    subprocess.run(["chown", "-hR", f"{user}:{user}", str(folder)], check=True)


def bring(channel: Path, target: Path) -> Path:
    """A copy of a channel where others may read it; its files are other names of the same inodes."""

    def link(source: str, copy: str) -> None:
        try:
            os.link(source, copy)
        except OSError:
            shutil.copy2(source, copy)
        os.chmod(copy, 0o644)

    shutil.copytree(channel, target, copy_function=link)
    return target
