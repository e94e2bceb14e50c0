"""What is equal of files that are not: the plan for blocks of patched binaries and of other builds. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from .candidates import content_key
from .causes import Causes
from .hardlinks import HardlinkRules
from .layouts import BLOCK, common_bytes, in_blocks, packed_bytes, total
from .model import Cause, Hazard, Method, MethodChoice
from .plan import Group, Held, PlanOptions, Share
from .reflinks import reflink_refused

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from .model import Device, Extent, Inode, InodeKey, Scope

#: Finds the runs (offset, length in bytes) of blocks of a size, within extents of the first inode, that the
#: second one has as well.
Compare: TypeAlias = "Callable[[Inode, Inode, Sequence[Extent], int], list[tuple[int, int]]]"
#: An inode is compared with so many others at most.
_MOST_COMPARED = 4


def propose_blocks(
    inodes: Iterable[Inode], shared: Collection[InodeKey], options: PlanOptions
) -> list[list[Inode]]:
    """Group inodes of the same size at the same path of the same package, with different contents.

    ``shared`` are those that get all their bytes from another one anyway.
    """
    if options.method is MethodChoice.HARDLINK:
        return []
    groups: dict[tuple[object, ...], dict[object, Inode]] = {}
    for inode in inodes:
        if inode.size < max(options.min_extent, BLOCK) or inode.hazard is Hazard.BYTECODE:
            continue
        claim = next((name.claim for name in inode.names if name.claim is not None), None)
        if claim is not None and inode.key not in shared:
            place = (claim.pip, claim.dist.name, claim.path, inode.size)
            groups.setdefault(place, {}).setdefault(
                (content_key(inode) or inode.key, inode.key.device), inode
            )
    return [list(found.values()) for found in groups.values() if len(found) > 1]


class BlockPlanner:
    """Plans one group at a time; ``compare`` reads what must be read."""

    def __init__(
        self,
        scope: Scope,
        devices: Mapping[int, Device],
        options: PlanOptions,
        compare: Compare,
        cache_devices: Collection[int] = (),
    ) -> None:
        self._scope = scope
        self._devices = devices
        self._options = options
        self._rules = HardlinkRules(scope, devices, options)
        self._causes = Causes(scope, cache_devices)
        self._compare = compare

    def groups(self, inodes: Sequence[Inode]) -> list[Group]:
        """Return a group for each file system on which one can be shared with another."""
        together: dict[str, list[Inode]] = {}
        for inode in sorted(inodes, key=self._rules.keeper_rank):
            device = self._devices[inode.key.device]
            able = device.reflink and not inode.nodatacow
            if able and inode.layout is not None and inode.layout.exact:
                together.setdefault(device.pool, []).append(inode)
        found = (group for members in together.values() for group in self._groups(members))
        return [group for group in found if group.shares or group.held]

    def _groups(self, ranked: Sequence[Inode]) -> list[Group]:
        keepers: list[Group] = []
        for inode in ranked:
            if not self._shared(inode, keepers):
                keepers.append(Group(inode))
        return keepers

    def _shared(self, inode: Inode, keepers: Sequence[Group]) -> bool:
        """Share blocks of an inode with the first keeper that has them, if there is one."""
        if not any(tree.selected for tree in self._scope.trees_of(inode)) or inode.layout is None:
            return False
        own = inode.layout.unshared
        least = self._options.min_extent
        if total(own) < least:
            return False
        ordered = sorted(keepers, key=lambda group: self._rules.distance(inode, group.keeper))
        for group in ordered[:_MOST_COMPARED]:
            equal = self._compare(inode, group.keeper, own, self._devices[inode.key.device].block_size)
            same = not _builds(inode).isdisjoint(_builds(group.keeper))
            runs = [(offset, length) for offset, length in equal if length >= least]
            # what they have in common already is equal, too
            alike = sum(length for _, length in equal) + _common(inode, group.keeper)
            if not runs or (not same and 2 * alike < total(inode.layout.extents)):
                continue
            freed = self._gain(inode, own, runs)
            if freed < BLOCK:  # what is left, written anew, would take what was gained
                continue
            whole = runs == [(0, inode.size)]
            cause = self._cause(inode, group.keeper)
            reason = reflink_refused(inode, self._scope, self._options)
            if reason is None:
                method = Method.REFLINK if whole else Method.BLOCKS
                some = () if whole else tuple(runs)
                share = Share(inode, group.keeper, method, inode.hazard, freed, cause=cause, runs=some)
                group.shares.append(share)
            else:
                group.held.append(Held((inode,), reason, freed, cause))
            return True
        return False

    def _cause(self, inode: Inode, keeper: Inode) -> Cause:
        return Cause.PREFIX if inode.hazard is Hazard.PREFIXED else self._causes.of(inode, keeper)

    def _gain(self, inode: Inode, own: Sequence[Extent], runs: Sequence[tuple[int, int]]) -> int:
        """Return the disk bytes that are free when these runs of its own extents are shared."""
        length = sum(in_blocks(length) for _, length in runs)
        if not self._devices[inode.key.device].pins_extents:
            return packed_bytes(inode, length)
        # what is left is written anew, perhaps block by block, which nothing can compress
        return packed_bytes(inode, total(own)) - (total(own) - length)


def _builds(inode: Inode) -> set[tuple[str, ...]]:
    # by build alone: rattler's caches do not say which archive they are from
    return {name.claim.dist[:4] for name in inode.names if name.claim}


def _common(inode: Inode, other: Inode) -> int:
    if inode.layout is None or other.layout is None:
        return 0
    return common_bytes(inode.layout, other.layout)
