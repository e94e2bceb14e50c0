"""From candidates to a plan. Pure: a function of what was looked at."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from .causes import Causes
from .hardlinks import HardlinkRules
from .layouts import BLOCK, apart_bytes, own_bytes
from .model import Goal, Inode, Method, MethodChoice, Reason
from .plan import Group, Held, Plan, PlanOptions, Share

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from .model import Device, InodeKey, Scope


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
    rules = HardlinkRules(scope, devices, options, retimed)
    planner = _Planner(scope, devices, options, rules, Causes(scope, cache_devices))
    groups = [planner.group(inodes) for inodes in candidates]
    return Plan([group for group in groups if group.shares or group.held])


class _Planner:
    """One group at a time."""

    def __init__(
        self,
        scope: Scope,
        devices: Mapping[int, Device],
        options: PlanOptions,
        rules: HardlinkRules,
        causes: Causes,
    ) -> None:
        self._causes = causes
        self._scope = scope
        self._devices = devices
        self._options = options
        self._rules = rules

    def group(self, inodes: Sequence[Inode]) -> Group:
        ranked = sorted(inodes, key=self._rules.keeper_rank)
        together: dict[object, list[Inode]] = {}
        for inode in ranked:
            together.setdefault(self._reach(inode), []).append(inode)
        group = Group(ranked[0])
        for inodes in together.values():
            device = self._devices[inodes[0].key.device]
            units = _units(inodes)
            refused = self._refused(device)
            if refused is not None:
                self._hold_all(group, units, refused)
            elif self._by_reflink(device):
                self._reflink(group, units)
            else:
                self._hardlink(group, units, device)
        return group

    def _reach(self, inode: Inode) -> object:
        """Where its bytes may be shared: extents within a file system, names on a device alone."""
        device = self._devices[inode.key.device]
        return device.pool or device.number if self._by_reflink(device) else device.number

    def _by_reflink(self, device: Device) -> bool:
        if self._options.reflink_only:
            return True
        if self._options.goal is Goal.INODES and device.hardlink and self._either_way:
            return False
        return device.reflink and self._options.method is not MethodChoice.HARDLINK

    @property
    def _either_way(self) -> bool:
        return self._options.method is MethodChoice.AUTO

    def _refused(self, device: Device) -> Reason | None:
        """Why nothing can be shared on this device by the method asked for, if so."""
        if self._options.reflink_only and not device.reflink:
            return Reason.COPIES_ASKED
        if self._options.method is MethodChoice.REFLINK and not device.reflink:
            return Reason.NO_REFLINK
        if not device.reflink and not device.hardlink:
            return Reason.NO_SHARING
        return None

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
            group.held.append(Held(tuple(unit), reason, _held_bytes(unit, group.keeper), cause))

    # -- reflinks ---------------------------------------------------------------------------------

    def _reflink(self, group: Group, units: list[list[Inode]]) -> None:
        keeper, *others = units
        holders = _Holders(units)
        if not self._on_keepers_device(group, keeper):
            self._hold(group, keeper, Reason.OTHER_DEVICE)
        for unit in others:
            if _held_bytes(unit, keeper[0]) == 0 and unit[0].disk_bytes:
                continue  # all of it lies where the keeper's bytes do
            reason = self._reflink_unit(group, unit, keeper[0], holders)
            if reason is not None:
                self._hold(group, unit, reason)

    def _reflink_unit(
        self, group: Group, unit: list[Inode], keeper: Inode, holders: _Holders
    ) -> Reason | None:
        """Plan to reflink a unit, or return why it cannot be."""
        reason = next(filter(None, (reflink_refused(one, self._scope, self._options) for one in unit)), None)
        if reason is None and _shared_outside(unit):
            reason = Reason.SHARED_OUTSIDE
        if reason is None:
            self._share(group, unit, Method.REFLINK, [keeper] * len(unit), holders)
        return reason

    def _share(
        self,
        group: Group,
        unit: list[Inode],
        method: Method,
        keepers: Sequence[Inode],
        holders: _Holders,
    ) -> None:
        for inode, keeper in zip(unit, keepers, strict=True):
            freed, certain = holders.give_up(inode, keeper)
            hazard = inode.hazard if method.shares_extents else max(inode.hazard, keeper.hazard)
            cause = self._causes.of(inode, keeper)
            group.shares.append(Share(inode, keeper, method, hazard, freed, cause=cause, certain=certain))

    # -- hard links -------------------------------------------------------------------------------

    def _hardlink(self, group: Group, units: list[list[Inode]], device: Device) -> None:
        """Give every unit the best keeper it may have; what may have none becomes a keeper itself."""
        keepers: list[Inode] = []
        places = self._rules.new_places()
        holders = _Holders(units)
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
            if keepers and reason is None and not inodes_count and _shared_outside(unit):
                reason = Reason.SHARED_OUTSIDE
            if keepers and reason is None:
                for inode, keeper in zip(unit, chosen, strict=True):
                    places.link(inode, keeper)
                self._share(group, unit, Method.HARDLINK, chosen, holders)
                continue
            first = keepers[0] if keepers else None
            again = any(_place(keeper) == _place(unit[0]) for keeper in keepers)
            for inode in unit:
                places.add(inode)
            keepers += unit
            if again:
                continue  # its bytes are held once already
            # what may be no hard link frees its bytes at least
            either = first is not None and device.reflink and self._either_way
            if either and first is not None and self._reflink_unit(group, unit, first, holders) is None:
                continue
            if group.keeper not in unit:
                self._hold(group, unit, Reason.OTHER_DEVICE if first is None or reason is None else reason)


def reflink_refused(inode: Inode, scope: Scope, options: PlanOptions) -> Reason | None:
    """Why an inode may not be given other extents, if so."""
    trees = scope.trees_of(inode)
    if not any(tree.selected for tree in trees):
        return Reason.NOT_SELECTED
    if any(tree.frozen for tree in trees) and not options.override_frozen:
        return Reason.FROZEN
    if inode.privileged:
        return Reason.SETID
    if options.euid not in (0, inode.uid):
        return Reason.OTHER_OWNER
    if inode.size < BLOCK or (inode.layout is not None and not inode.layout.exact):
        return Reason.NO_BLOCKS
    return None


def _units(inodes: list[Inode]) -> list[list[Inode]]:
    """Inodes that share all their extents already hold their bytes once: one unit; order is kept."""
    units: dict[object, list[Inode]] = {}
    for inode in inodes:
        units.setdefault(_place(inode), []).append(inode)
    return list(units.values())


def _place(inode: Inode) -> object:
    """Return where its bytes lie, as far as that is known: the same for inodes that share all of them."""
    layout = inode.layout
    return layout.extents if layout is not None and layout.exact and layout.extents else inode.key


class _Holders:
    """Counts what holds each place on the device: who gives up the last one frees the bytes there."""

    def __init__(self, units: Sequence[Sequence[Inode]]) -> None:
        self._left = Counter({_place(unit[0]): len(unit) for unit in units})
        self._several = {place for place, count in self._left.items() if count > 1}

    def give_up(self, inode: Inode, keeper: Inode) -> tuple[int, bool]:
        """Return the bytes gained when an inode gets its keeper's, and whether that is certain.

        What several inodes hold may be held outside the scan as well: only how many there are is not told.
        """
        place = _place(inode)
        self._left[place] -= 1
        if place not in self._several:
            return own_bytes(inode), True
        return (0 if self._left[place] else apart_bytes(inode, keeper)), False


def _shared_outside(unit: list[Inode]) -> bool:
    """Whether the bytes of a lone inode are also somebody else's, so that nothing would be gained."""
    layout = unit[0].layout
    return len(unit) == 1 and layout is not None and layout.shared and own_bytes(unit[0]) == 0


def _held_bytes(unit: list[Inode], keeper: Inode) -> int:
    return apart_bytes(max(unit, key=lambda inode: inode.disk_bytes), keeper)
