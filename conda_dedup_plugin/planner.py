"""From candidates to a plan. Pure: a function of what was looked at."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .causes import Causes
from .hardlinks import HardlinkRules
from .model import Goal, Inode, Method, Reason
from .plan import Group, Held, Plan, PlanOptions, Share
from .reflinks import Holders, clone_refused, held_bytes, place_of, reflink_refused, shared_outside, units_of
from .shapes import Shapes
from .ways import way_on

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from .model import Device, InodeKey, Scope
    from .ways import Way


def make_plan(
    scope: Scope,
    candidates: Iterable[Sequence[Inode]],
    devices: Mapping[int, Device],
    options: PlanOptions,
    cache_devices: Collection[int] = (),
    retimed: Mapping[InodeKey, int] | None = None,
) -> Plan:
    """Plan the sharing of groups of inodes that are said to hold the same bytes.

    ``devices`` knows every device number that occurs, ``cache_devices`` are those of package caches,
    ``retimed`` has the modification time (ns) that the sources of shared bytecode will have. Groups in which
    no selected tree holds anything twice are left out.
    """
    return Plan(Planner(scope, devices, options, cache_devices, retimed).groups(candidates))


class Planner:
    """Plans one group after the other: what :func:`make_plan` does, for those who want no more at a time."""

    def __init__(
        self,
        scope: Scope,
        devices: Mapping[int, Device],
        options: PlanOptions,
        cache_devices: Collection[int] = (),
        retimed: Mapping[InodeKey, int] | None = None,
    ) -> None:
        self._causes = Causes(scope, cache_devices)
        self._scope = scope
        self._devices = devices
        self._options = options
        self._rules = HardlinkRules(scope, devices, options, retimed)
        self._retimed = bool(retimed)
        self._ways: dict[int, Way] = {}
        self._shapes = Shapes(scope, self._group)

    def groups(self, candidates: Iterable[Sequence[Inode]]) -> Iterator[Group]:
        """Yield what is planned for each group of candidates that holds anything twice."""
        for inodes in candidates:
            ranked = sorted(inodes, key=self._rules.keeper_rank)
            group = self._shapes.group(ranked) if self._is_plain(ranked) else self._group(ranked)
            if group.shares or group.held:
                yield group

    def _is_plain(self, inodes: Sequence[Inode]) -> bool:
        """Whether nothing counts for a group but what its shape tells."""
        if self._options.leave_bundles or self._retimed:
            return False
        devices = [self._devices[number] for number in {inode.key.device for inode in inodes}]
        names = sum(inode.nlink for inode in inodes)
        return not any(device.reflink or device.overlay or names > device.link_limit for device in devices)

    def _way(self, inode: Inode) -> Way:
        number = inode.key.device
        way = self._ways.get(number)
        if way is None:
            way = self._ways[number] = way_on(self._devices[number], self._options)
        return way

    def _group(self, ranked: Sequence[Inode]) -> Group:
        together: dict[object, list[Inode]] = {}
        for inode in ranked:
            together.setdefault(self._reach(inode), []).append(inode)
        group = Group(ranked[0])
        for inodes in together.values():
            units = units_of(inodes)
            way = self._way(inodes[0])
            if way.refused is not None:
                self._hold_all(group, units, way.refused)
            elif way.reflink:
                self._reflink(group, units)
            else:
                self._hardlink(group, units, way.either)
        return group

    def _reach(self, inode: Inode) -> object:
        """Where its bytes may be shared: extents within a file system, names on a device alone."""
        device = self._devices[inode.key.device]
        if not self._way(inode).reflink:
            return device.number
        return device.pool or device.number, inode.nodatacow

    def _hold_all(self, group: Group, units: list[list[Inode]], reason: Reason) -> None:
        for unit in units:
            if group.keeper not in unit:
                self._hold(
                    group, unit, reason if self._on_keepers_device(group, unit) else Reason.OTHER_DEVICE
                )

    def _on_keepers_device(self, group: Group, unit: list[Inode]) -> bool:
        return self._reach(unit[0]) == self._reach(group.keeper)

    def _hold(self, group: Group, unit: list[Inode], reason: Reason) -> None:
        """Count a unit as held, if a selected tree has a name of it."""
        if any(tree.selected for inode in unit for tree in self._scope.trees_of(inode)):
            cause = self._causes.of(unit[0], group.keeper)
            group.held.append(Held(tuple(unit), reason, held_bytes(unit, group.keeper), cause))

    # -- reflinks ---------------------------------------------------------------------------------

    def _reflink(self, group: Group, units: list[list[Inode]]) -> None:
        keeper, *others = units
        holders = Holders(units)
        if not self._on_keepers_device(group, keeper):
            apart = any(one.nodatacow for one in (keeper[0], group.keeper))
            self._hold(group, keeper, Reason.NO_COW if apart else Reason.OTHER_DEVICE)
        for unit in others:
            if held_bytes(unit, keeper[0]) == 0 and unit[0].disk_bytes:
                continue  # all of it lies where the keeper's bytes do
            reason = self._reflink_unit(group, unit, keeper[0], holders)
            if reason is not None:
                self._hold(group, unit, reason)

    def _reflink_unit(
        self, group: Group, unit: list[Inode], keeper: Inode, holders: Holders
    ) -> Reason | None:
        """Plan to reflink a unit, or return why it cannot be."""
        reason = next(filter(None, map(self._reflink_refused, unit)), None)
        if reason is None and shared_outside(unit):
            reason = Reason.SHARED_OUTSIDE
        if reason is None:
            self._share(group, unit, Method.REFLINK, [keeper] * len(unit), holders)
        return reason

    def _reflink_refused(self, inode: Inode) -> Reason | None:
        device = self._devices[inode.key.device]
        return reflink_refused(inode, self._scope, self._options) or clone_refused(inode, self._scope, device)

    def _share(
        self,
        group: Group,
        unit: list[Inode],
        method: Method,
        keepers: Sequence[Inode],
        holders: Holders,
    ) -> None:
        for inode, keeper in zip(unit, keepers, strict=True):
            freed, certain = holders.give_up(inode, keeper)
            hazard = inode.hazard if method.shares_extents else max(inode.hazard, keeper.hazard)
            cause = self._causes.of(unit[0], keeper)  # the bytes are those of all of them
            group.shares.append(Share(inode, keeper, method, hazard, freed, cause=cause, certain=certain))

    # -- hard links -------------------------------------------------------------------------------

    def _hardlink(self, group: Group, units: list[list[Inode]], either_way: bool) -> None:
        """Give every unit the best keeper it may have; what may have none becomes a keeper itself."""
        keepers: list[Inode] = []
        places = self._rules.new_places()
        holders = Holders(units)
        inodes_count = self._options.goal is Goal.INODES
        if inodes_count:  # among those that share their bytes there are inodes to gain
            units = [[inode] for unit in units for inode in unit]
        for unit in units:
            chosen: list[Inode] = []
            reason: Reason | None = None
            for inode in unit:
                keeper, why = self._rules.choose(inode, keepers, places)
                if keeper is None:
                    reason = reason or why
                else:
                    chosen.append(keeper)
            if keepers and reason is None and not inodes_count and shared_outside(unit):
                reason = Reason.SHARED_OUTSIDE
            if keepers and reason is None:
                for inode, keeper in zip(unit, chosen, strict=True):
                    places.link(inode, keeper)
                self._share(group, unit, Method.HARDLINK, chosen, holders)
                continue
            first = keepers[0] if keepers else None
            again = any(place_of(keeper) == place_of(unit[0]) for keeper in keepers)
            for inode in unit:
                places.add(inode)
            keepers += unit
            if again:
                continue  # its bytes are held once already
            # what may be no hard link frees its bytes at least
            if either_way and first is not None and self._reflink_unit(group, unit, first, holders) is None:
                continue
            if group.keeper not in unit:
                self._hold(group, unit, Reason.OTHER_DEVICE if first is None or reason is None else reason)
