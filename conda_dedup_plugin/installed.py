"""Which channel every package of an environment is from, as its record says."""

from __future__ import annotations

from typing import NamedTuple

from .channels import channel_of
from .specs.environment import read_environment
from .specs.packages import PYPI


class Installed(NamedTuple):
    """A package of an environment.

    ``channel`` is what people call its channel, ``location`` what conda finds that by.
    """

    name: str
    version: str
    build: str
    channel: str
    location: str

    @property
    def spec(self) -> str:
        """What names this very build."""
        return "=".join(filter(None, (self.name, self.version, self.build)))


def installed(prefix: str) -> tuple[list[Installed], list[Installed]]:
    """Return what conda and what pip installed in an environment, as far as its records can be read."""
    conda, pip = [], []
    for package in read_environment(prefix).packages:
        dist = package.dist
        if package.is_pip:
            pip.append(Installed(dist.name, dist.version, "", PYPI, ""))
            continue
        said = dist.channel
        if "://" not in said and "://" in package.url:
            said = package.url.rpartition("/")[0]
        conda.append(Installed(dist.name, dist.version, dist.build, *channel_of(said)))
    return conda, pip
