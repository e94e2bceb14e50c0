"""Environments in which conda and pip, or several channels, get into each other's way. Pure."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from packaging.utils import canonicalize_name

from .channels import DEFAULTS, FORGE
from .commands import from_channel, reinstall, uninstall_wheel
from .findings import Finding, Kind
from .installed import Installed
from .specs.packages import PYPI

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .findings import Audited
    from .inventory import Inventory
    from .model import Tree


def find_clobbered(inventory: Inventory, environments: Iterable[Audited]) -> Iterable[Finding]:
    """Tell where pip's files took the place of conda's."""
    known = {one.tree.root: one for one in environments}
    for index, paths in inventory.clobbered.items():
        one = known[inventory.scope.trees[index].root]
        conda = {found.name: found for found in one.conda}
        for pair in sorted(set(paths.values()), key=str):
            theirs, pips = pair
            same = tuple(path for path, both in paths.items() if both == pair)
            package = conda.get(theirs.name, Installed(*theirs[:3], "", ""))
            yield Finding(
                Kind.CLOBBERED,
                one.tree.root,
                f"'{one.tree.name}': {_files(len(same))} of conda's {theirs} now from pip's {pips}",
                _back_to_conda(one.tree, pips.name, package),
                same,
            )


def _files(count: int) -> str:
    return "1 file" if count == 1 else f"{count:,} files"


def _back_to_conda(tree: Tree, wheel: str, package: Installed) -> tuple[str, ...]:
    again = reinstall(tree, package.name, package.spec, package.location)
    return (uninstall_wheel(tree, wheel), again)


def find_mixed(environments: Iterable[Audited]) -> Iterable[Finding]:
    """Tell of environments with packages of both ``defaults`` and conda-forge."""
    for one in environments:
        of = {name: [found for found in one.conda if found.channel == name] for name in (DEFAULTS, FORGE)}
        fewer, more = sorted(of.values(), key=len)
        if fewer:
            yield Finding(
                Kind.MIXED,
                one.tree.root,
                f"'{one.tree.name}' has {len(of[DEFAULTS]):,} packages of {DEFAULTS} "
                f"and {len(of[FORGE]):,} of {FORGE}",
                (from_channel(one.tree, more[0].location, [found.name for found in fewer]),),
                tuple(f"{found.channel}::{found.spec}" for found in fewer),
            )


def find_twice(environments: Iterable[Audited]) -> Iterable[Finding]:
    """What conda and pip both brought into one environment."""
    for one in environments:
        wheels = {wheel.name: wheel for wheel in one.pip}
        for package in one.conda:
            wheel = wheels.get(canonicalize_name(package.name))
            if wheel is not None:
                versions = f"{package.version} of {package.channel or 'conda'} and {wheel.version} of {PYPI}"
                yield Finding(
                    Kind.TWO_CHANNELS,
                    one.tree.root,
                    f"'{one.tree.name}' has {package.name} {versions}",
                    _back_to_conda(one.tree, wheel.name, package),
                    (package.name,),
                )


def find_two_channels(environments: Sequence[Audited]) -> Iterable[Finding]:
    """The same version of a package from several channels, all that is so in the same places in one."""
    where: dict[tuple[str, str], dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for index, one in enumerate(environments):
        for package in one.conda:
            if package.channel:
                where[package.name, package.version][package.channel].append(index)
    alike: dict[tuple[tuple[str, tuple[int, ...]], ...], list[tuple[str, str]]] = defaultdict(list)
    for package_of, channels in where.items():
        if len(channels) > 1:
            alike[tuple(sorted((name, tuple(found)) for name, found in channels.items()))].append(package_of)
    for places, packages in alike.items():
        # the channel of most environments, conda-forge where there are as many
        keep, homes = max(places, key=lambda place: (len(place[1]), place[0] == FORGE, place[0]))
        names = {name for name, _ in packages}
        kept = environments[homes[0]].conda
        location = next(one.location for one in kept if one.name in names and one.channel == keep)
        specs = [f"{name}={version}" for name, version in sorted(packages)]
        rest = sorted({index for name, found in places if name != keep for index in found})
        shown = ", ".join(
            f"{name} in {_names(environments[index].tree.name for index in found)}" for name, found in places
        )
        yield Finding(
            Kind.TWO_CHANNELS,
            environments[rest[0]].tree.root,
            f"{len(specs):,} of the same {'package' if len(specs) == 1 else 'packages'} from {shown}",
            tuple(from_channel(environments[index].tree, location, specs) for index in rest),
            tuple(specs),
        )


def _names(names: Iterable[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)
