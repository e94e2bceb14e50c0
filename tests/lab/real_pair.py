"""Two environments of the packages of :mod:`tests.lab.real_packages`; little but their prefixes differs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from tests.lab.real_packages import PREFIXED
from tests.lab.world import CondaLab

if TYPE_CHECKING:
    from pathlib import Path

    from tests.lab.channel import TestChannel


@dataclass(frozen=True)
class Pair:
    """Two environments of the same packages, and what these were in the cache."""

    lab: CondaLab
    short: Path
    long: Path
    cache: Path

    @property
    def prefixes(self) -> tuple[Path, Path]:
        return self.short, self.long

    def cached(self, package: str) -> Path:
        """The directory of a package in the cache."""
        (found,) = (path.parent.parent for path in self.cache.glob(f"{package}-*/info/index.json"))
        return found

    def binaries(self) -> list[tuple[str, Path]]:
        """Each binary with the prefix in it: its path, and the original in the cache."""
        return [
            (original.relative_to(self.cached(package)).as_posix(), original)
            for package, patterns in PREFIXED.items()
            for pattern in patterns
            for original in self.cached(package).glob(pattern)
        ]


def make_pair(root: Path, python: Path, channel: TestChannel, manager: Literal["conda", "rattler"]) -> Pair:
    """The environments ``a`` and another of a longer name, and the cache, all below ``root``."""
    # there is no pip in the channel
    lab = CondaLab(root / "lab", python, channel, settings={"add_pip_as_python_dependency": False})
    short, long = root / "a", root / "an-environment-of-a-long-name"
    for prefix in (short, long):
        if manager == "conda":
            lab.conda("create", "--prefix", prefix, "python")
        else:
            lab.rattler(prefix, "python")
    return Pair(lab, short, long, lab.pkgs_dirs[0] if manager == "conda" else lab.rattler_cache / "pkgs")
