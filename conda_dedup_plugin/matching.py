"""Which packages of two environments are each other's counterparts, and whether they are the same build."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

from .channels import channel_name
from .specs.packages import Package, canonical, is_range, name_of, order
from .versions import newer, satisfies

if TYPE_CHECKING:
    from .specs.packages import Specs

_MD5, _SHA256 = 32, 64


class Pair(NamedTuple):
    """The same package in both; one of them is None if only the other has it."""

    a: Package | None
    b: Package | None

    @property
    def package(self) -> Package:
        """The one there is, A's if there are two."""
        found = self.a or self.b
        assert found is not None
        return found


def class_of(pair: Pair) -> str:
    """Return the name of the class in :class:`Comparison` that a pair belongs to."""
    if pair.a is None or pair.b is None:
        return "only_a" if pair.b is None else "only_b"
    if not _same_version(pair.a, pair.b):
        return "other_version"
    return _class_of_version(pair.a, pair.b)


def same(a: Package, b: Package) -> bool:
    """Whether two packages are the same build, as far as both say what they are."""
    if a.dist == b.dist:
        return True
    if name_of(a) != name_of(b) or a.is_pip != b.is_pip:
        return False
    return _same_version(a, b) and _class_of_version(a, b) == "identical"


def _same_version(a: Package, b: Package) -> bool:
    one, other = a.dist.version, b.dist.version
    if one == other:
        return True
    pip = a.is_pip or b.is_pip
    if is_range(one) or is_range(other):
        return satisfies(one, other, pip)
    return pip and newer(one, other, pip) == 0  # 1.0 and 1.0.0 are one to pip


def _class_of_version(a: Package, b: Package) -> str:
    """The class of two packages of one name and version."""
    if a.is_pip != b.is_pip:
        return "other_channel"
    one, other = a.dist, b.dist
    equal = _same_digest(a, b)
    if equal:
        return "identical"
    if _differ(one.build, other.build) or _differ(one.subdir, other.subdir):
        return "other_build"
    if _differ(channel_name(one.channel), channel_name(other.channel)) and not a.is_pip:
        return "other_channel"
    return "identical" if equal is None else "other_build"


def _same_digest(a: Package, b: Package) -> bool | None:
    """Whether the archives are the same ones; None: that cannot be told."""
    one, other = a.dist.digest, b.dist.digest
    if len(one) == len(other) == _SHA256:
        return one == other
    one, other = _md5(a), _md5(b)
    return one == other if one and other else None


def _md5(package: Package) -> str:
    return package.md5 or (package.dist.digest if len(package.dist.digest) == _MD5 else "")


def _differ(one: str, other: str) -> bool:
    """Whether both are said and differ; a ``*`` leaves the rest open."""
    if not one or not other or one == other:
        return False
    if "*" in one or "*" in other:
        from fnmatch import fnmatchcase

        return not (fnmatchcase(one, other) or fnmatchcase(other, one))
    return True


def pairs(a: Specs, b: Specs) -> list[Pair]:
    """Find of every package its counterpart: by name, conda's with conda's first, equal ones first."""
    left, right = list(a.packages), list(b.packages)
    found: list[Pair] = []
    for key in (name_and_kind, common_name):
        names: dict[object, list[Package]] = defaultdict(list)
        for package in right:
            names[key(package)].append(package)
        rest = []
        for package in left:
            candidates = names.get(key(package))
            if not candidates:
                rest.append(package)
                continue
            match = next((other for other in candidates if same(package, other)), candidates[0])
            candidates.remove(match)
            found.append(Pair(package, match))
        left, right = rest, [package for packages in names.values() for package in packages]
    found += [Pair(package, None) for package in left]
    found += [Pair(None, package) for package in right]
    return sorted(found, key=lambda pair: (common_name(pair.package), order(pair.package)))


def name_and_kind(package: Package) -> tuple[str, bool]:
    """What the same package has in common: its name, and whether it is pip's."""
    return name_of(package), package.is_pip


def common_name(package: Package) -> str:
    """The name by which a package of conda's may be one of pip's."""
    return canonical(package.dist.name)
