"""Environments side by side: what two have in common, and which are nearly the same."""

from __future__ import annotations

from collections import defaultdict
from itertools import combinations
from typing import TYPE_CHECKING

from msgspec import Struct, field

from .kinds import NEAR_IDENTICAL
from .matching import Pair, class_of, common_name, name_and_kind, pairs, same
from .specs.packages import canonical, in_order

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from .specs.packages import Package, Specs


class Comparison(Struct):
    """Every package of two environments in one of six classes, and how similar these are, from 0 to 1.

    ``similarity`` is the share of packages that are identical, each name counted once; ``byte_similarity``
    that of the bytes of all different packages, None where no size is known at all. The core ones are the
    same of the packages of a core list.
    """

    a: Specs
    b: Specs
    identical: list[Pair] = field(default_factory=list)
    other_build: list[Pair] = field(default_factory=list)
    other_channel: list[Pair] = field(default_factory=list)
    other_version: list[Pair] = field(default_factory=list)
    only_a: list[Pair] = field(default_factory=list)
    only_b: list[Pair] = field(default_factory=list)
    core: frozenset[str] = frozenset()

    @property
    def differing(self) -> list[Pair]:
        """Every pair that is not identical."""
        return [*self.other_build, *self.other_channel, *self.other_version, *self.only_a, *self.only_b]

    @property
    def similarity(self) -> float:
        """Identical packages of all packages."""
        return _similarity(self.identical, self.differing)

    @property
    def byte_similarity(self) -> float | None:
        """Bytes of identical packages of the bytes of all different packages."""
        same, all_bytes = self.common_bytes, self.all_bytes
        return same / all_bytes if all_bytes else None

    @property
    def common_bytes(self) -> int:
        """Bytes of identical packages."""
        return sum(_size(pair) or 0 for pair in self.identical)

    @property
    def all_bytes(self) -> int:
        """Bytes of all different packages, identical ones once."""
        return self.common_bytes + sum(_all(pair) for pair in self.differing)

    @property
    def unknown_sizes(self) -> int:
        """How many of the different packages have a size that nobody knows."""
        both = sum(
            package is not None and package.size is None for pair in self.differing for package in pair
        )
        return both + sum(_size(pair) is None for pair in self.identical)

    @property
    def core_similarity(self) -> float | None:
        """The similarity of the packages of the core list; None: neither has any."""
        identical = [pair for pair in self.identical if common_name(pair.package) in self.core]
        differing = [pair for pair in self.differing if common_name(pair.package) in self.core]
        return _similarity(identical, differing) if identical or differing else None


def compare(a: Specs, b: Specs, core: Collection[str] = ()) -> Comparison:
    """Compare two environments package by package; ``core`` are names of packages."""
    found = Comparison(a, b, core=frozenset(canonical(name) for name in core))
    for pair in pairs(a, b):
        getattr(found, class_of(pair)).append(pair)
    return found


def _size(pair: Pair) -> int | None:
    sizes = [package.size for package in pair if package is not None and package.size is not None]
    return max(sizes, default=None)


def _all(pair: Pair) -> int:
    return sum(package.size or 0 for package in pair if package is not None)


def _similarity(identical: Sequence[Pair], differing: Sequence[Pair]) -> float:
    total = len(identical) + len(differing)
    return len(identical) / total if total else 1.0


class Cluster(Struct, frozen=True):
    """Environments each of which is nearly identical to another one of them.

    ``common`` is what all of them have; ``bytes_of_all`` counts every package of every member,
    ``bytes_of_union`` every different package once.
    """

    members: tuple[Specs, ...]
    common: tuple[Package, ...]
    bytes_of_all: int
    bytes_of_union: int
    unknown_sizes: int = 0

    @property
    def saving(self) -> int:
        """The bytes that are there more than once."""
        return self.bytes_of_all - self.bytes_of_union


class Compared(Struct, frozen=True):
    """All environments, every pair of them in their order, and the clusters at a threshold."""

    specs: tuple[Specs, ...]
    pairs: tuple[Comparison, ...]
    clusters: tuple[Cluster, ...]
    threshold: float


def compare_all(
    specs: Iterable[Specs], threshold: float = NEAR_IDENTICAL, core: Collection[str] = ()
) -> Compared:
    """Compare every pair of environments; clusters are of those whose similarity reaches ``threshold``."""
    ordered = tuple(sorted(specs, key=lambda some: (some.name, some.source)))
    indexes = list(combinations(range(len(ordered)), 2))
    pairs = tuple(compare(ordered[i], ordered[j], core) for i, j in indexes)
    alike = [both for both, found in zip(indexes, pairs, strict=True) if found.similarity >= threshold]
    return Compared(ordered, pairs, tuple(clusters_of(ordered, alike)), threshold)


def clusters(specs: Sequence[Specs], threshold: float = NEAR_IDENTICAL) -> list[Cluster]:
    """Group environments: those whose similarity reaches ``threshold``, directly or by way of others.

    Largest saving first; an environment that is like no other is in none.
    """
    return list(compare_all(specs, threshold).clusters)


def clusters_of(specs: Sequence[Specs], alike: Iterable[tuple[int, int]]) -> list[Cluster]:
    """Group environments by the pairs that are alike, as indexes of ``specs``."""
    group = list(range(len(specs)))
    for i, j in alike:
        group = [group[i] if of == group[j] else of for of in group]
    members: dict[int, list[Specs]] = defaultdict(list)
    for index, of in enumerate(group):
        members[of].append(specs[index])
    found = [_cluster(some) for some in members.values() if len(some) > 1]
    return sorted(found, key=lambda cluster: (-cluster.saving, [member.source for member in cluster.members]))


def _cluster(members: list[Specs]) -> Cluster:
    members = sorted(members, key=lambda specs: (specs.name, specs.source))
    kinds: dict[tuple[str, bool], list[tuple[Package, list[Package]]]] = defaultdict(list)
    for package in (package for specs in members for package in specs.packages):
        known = kinds[name_and_kind(package)]
        holders = next((holders for first, holders in known if same(first, package)), None)
        if holders is None:
            known.append((package, [package]))
        else:
            holders.append(package)
    all_holders = [holders for known in kinds.values() for _, holders in known]
    sizes = [[one.size for one in holders if one.size is not None] for holders in all_holders]
    return Cluster(
        tuple(members),
        in_order([holders[0] for holders in all_holders if len(holders) == len(members)]),
        sum(max(some) * len(holders) for some, holders in zip(sizes, all_holders, strict=True) if some),
        sum(max(some) for some in sizes if some),
        sum(not some for some in sizes),
    )
