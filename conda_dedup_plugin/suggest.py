"""A common baseline for near-identical environments: what all share, what each adds, and what it saves.

Two ways to save are compared. *Merging*: one environment in the place of all, so that of every package that
several hold only one copy is left, of the files that nobody else holds. *Sharing*: what ``apply`` would free
as they are.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from .engine import analyse
from .inventory import scan
from .matching import name_and_kind, same
from .model import Scope
from .plan import PlanOptions
from .sharing.system import user
from .similar import clusters
from .specs.environment import read_environment
from .trees import is_environment

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from .inventory import Inventory
    from .model import Tree
    from .progress import Progress
    from .settings import Settings
    from .similar import Cluster
    from .specs.packages import Package, Specs


class Gain(NamedTuple):
    """What would be freed: disk bytes and inodes of files."""

    bytes_freed: int = 0
    inodes: int = 0


class Suggestion(Struct, frozen=True):
    """A baseline for a cluster: ``adds[i]`` are the packages of member ``i`` that not all have.

    ``conflicts`` are the names of packages that members have in more than one build: those cannot be
    merged until somebody chooses.
    """

    cluster: Cluster
    adds: tuple[tuple[Package, ...], ...]
    conflicts: tuple[str, ...]
    merging: Gain
    sharing: Gain

    @property
    def members(self) -> tuple[Specs, ...]:
        """The environments."""
        return self.cluster.members

    @property
    def common(self) -> tuple[Package, ...]:
        """The packages that all of them have."""
        return self.cluster.common


class Suggestions(Struct, frozen=True):
    """What was looked at, what is suggested, largest saving first, and what went wrong on the way."""

    environments: tuple[Specs, ...]
    found: tuple[Suggestion, ...]
    warnings: tuple[str, ...]


def suggest(scope: Scope, threshold: float, settings: Settings, progress: Progress) -> Suggestions:
    """Suggest a baseline for every cluster of the selected environments. Changes nothing.

    Virtual environments are left out: there is no Python in them.
    """
    trees = [tree for tree in scope.trees if _may_have_baseline(tree)]
    specs = [read_environment(tree.root, tree.name) for tree in trees]
    found = clusters(specs, threshold)
    inside = {member.source for cluster in found for member in cluster.members}
    members = Scope(tuple(replace(tree, selected=True) for tree in trees if tree.root in inside))
    caches = tuple(replace(tree, selected=False) for tree in scope.trees if tree.is_cache)
    warnings = [*scope.warnings, *(text for one in specs for text in one.warnings)]
    if not found:
        return Suggestions(tuple(specs), (), tuple(warnings))
    inventory = scan(members, 0, progress)
    analysis = analyse(
        Scope(caches + members.trees), _options(settings), settings.floor(settings.goal), progress=progress
    )
    freeable = {
        tree.root: Gain(counted.freeable_bytes, counted.freeable_inodes)
        for tree, counted in zip(analysis.scope.trees, analysis.inventory.trees, strict=True)
    }
    suggestions = [_suggestion(cluster, inventory, freeable) for cluster in found]
    return Suggestions(tuple(specs), tuple(suggestions), tuple(dict.fromkeys(warnings + inventory.warnings)))


def _may_have_baseline(tree: Tree) -> bool:
    return tree.selected and not tree.is_cache and is_environment(tree.root)


def _options(settings: Settings) -> PlanOptions:
    return PlanOptions(
        method=settings.method,
        euid=user(),
        goal=settings.goal,
        hardlink_untracked=settings.hardlink_untracked,
        normalize_bytecode=settings.normalize_bytecode,
    )


def _suggestion(cluster: Cluster, inventory: Inventory, freeable: Mapping[str, Gain]) -> Suggestion:
    redundant, conflicts = _merged(cluster.members)
    shared = [freeable[member.source] for member in cluster.members]
    return Suggestion(
        cluster,
        tuple(_adds(member.packages, cluster.common) for member in cluster.members),
        conflicts,
        _freed(inventory, redundant),
        Gain(sum(gain.bytes_freed for gain in shared), sum(gain.inodes for gain in shared)),
    )


def _adds(packages: Iterable[Package], common: Iterable[Package]) -> tuple[Package, ...]:
    known = set(map(name_and_kind, common))
    return tuple(package for package in packages if name_and_kind(package) not in known)


def _merged(members: Iterable[Specs]) -> tuple[dict[str, set[object]], tuple[str, ...]]:
    """Return of each environment the packages that an earlier one has too, and the names that differ."""
    seen: dict[tuple[str, bool], list[Package]] = defaultdict(list)
    redundant: dict[str, set[object]] = defaultdict(set)
    for member in members:
        for package in member.packages:
            known = seen[name_and_kind(package)]
            if any(same(other, package) for other in known):
                redundant[member.source].add(package.dist.identity)
            else:
                known.append(package)
    return redundant, tuple(sorted({name for (name, _), known in seen.items() if len(known) > 1}))


def _freed(inventory: Inventory, redundant: Mapping[str, Collection[object]]) -> Gain:
    """Count what goes with the files of these packages: inodes that have no other name."""
    roots = [tree.root for tree in inventory.scope.trees]
    freed = inodes = 0
    for inode in inventory.inodes.values():
        gone = sum(
            name.claim is not None and name.claim.dist.identity in redundant.get(roots[name.tree], ())
            for name in inode.names
        )
        if gone and gone == inode.nlink:
            inodes += 1
            freed += inode.disk_bytes if inode.own_bytes is None else inode.own_bytes
    return Gain(freed, inodes)
