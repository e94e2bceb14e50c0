"""One package with what its record says, all packages of one environment or file, and their names."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from msgspec import Struct
from packaging.utils import canonicalize_name

if TYPE_CHECKING:
    from ..model import Dist

PYPI = "pypi"
#: What is no version but says which are wanted: ``>=1.2``, ``1.2.*``, ``=1.2``; empty: any.
_RANGE = re.compile(r"[*<>=~|,^@]|!=|\A\Z")


class Package(NamedTuple):
    """A package of an environment or a file.

    ``size``: apparent bytes of its files, None: nobody knows. Where a file leaves the version open,
    ``dist.version`` is the range it asks for. ``md5`` is known besides ``dist.digest``, or is it.
    """

    dist: Dist
    size: int | None = None
    url: str = ""
    md5: str = ""

    @property
    def is_pip(self) -> bool:
        """Whether pip or uv brought it."""
        return self.dist.subdir == PYPI


class Specs(Struct, frozen=True):
    """All packages of one environment or file, by name, conda's first.

    ``source`` is the prefix or the path of the file. ``exact``: every package has a version and a build.
    """

    name: str
    source: str
    packages: tuple[Package, ...]
    exact: bool = True
    warnings: tuple[str, ...] = ()


def in_order(packages: list[Package]) -> tuple[Package, ...]:
    """Sort packages as :class:`Specs` has them."""
    return tuple(sorted(packages, key=order))


def order(package: Package) -> tuple[bool, Dist, str]:
    """What packages are sorted by."""
    return package.is_pip, package.dist, package.url


def name_of(package: Package) -> str:
    """The name by which two packages are one: of pip's as PEP 503 has it, of conda's in small letters."""
    return canonical(package.dist.name) if package.is_pip else package.dist.name.lower()


@lru_cache(maxsize=16384)
def canonical(name: str) -> str:
    """A name as PEP 503 has it; there are few of them in many environments."""
    return canonicalize_name(name)


def is_range(version: str) -> bool:
    """Whether a version is none, but says which ones are wanted."""
    return _RANGE.search(version) is not None
