"""Who gives his bytecode to whom: the plan for sources that are compiled alike. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import pyc
from .hardlinks import HardlinkRules
from .layouts import own_bytes
from .model import Cause, Hazard, Method, MethodChoice, Reason, Source
from .plan import Group, Held, PlanOptions, Share

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from .compiled import Unit
    from .meetings import Places
    from .model import Device, Inode, Scope


def plan_bytecode(
    scope: Scope, groups: Iterable[Sequence[Unit]], devices: Mapping[int, Device], options: PlanOptions
) -> list[Group]:
    """Plan the sharing of bytecode among units that have the same.

    The times and paths in it differ, so that only a hard link can share it: where the user wants none,
    nothing is.
    """
    if options.reflink_only or options.method is MethodChoice.REFLINK:
        return []
    planner = _Planner(scope, devices, options)
    return [group for units in groups for group in planner.groups(units)]


class _Planner:
    def __init__(self, scope: Scope, devices: Mapping[int, Device], options: PlanOptions) -> None:
        self._scope = scope
        self._devices = devices
        self._options = options
        self._rules = HardlinkRules(scope, devices, options)

    def groups(self, units: Sequence[Unit]) -> list[Group]:
        """Return a group for each compiled file of a source (there is mostly one)."""
        names = sorted(units[0].compiled)
        ranked = sorted(units, key=lambda unit: self._rules.keeper_rank(unit.compiled[names[0]]))
        groups = {name: Group(ranked[0].compiled[name]) for name in names}
        keepers: list[Unit] = []
        places = {name: self._rules.new_places() for name in names}
        for unit in ranked:
            keeper, reason = self._keeper(unit, keepers, places)
            if keeper is None:
                if keepers and any(tree.selected for tree in self._scope.trees_of(unit.source)):
                    for name, inode in unit.compiled.items():
                        held = Held((inode,), reason or Reason.BYTECODE, own_bytes(inode), Cause.BYTECODE)
                        groups[name].held.append(held)
                keepers.append(unit)
                for name, inode in unit.compiled.items():
                    places[name].add(inode)
                continue
            source = Source(unit.source, _time(unit.source, keeper.source), keeper.source)
            for name, inode in unit.compiled.items():
                places[name].link(inode, keeper.compiled[name])
                groups[name].shares.append(
                    Share(
                        inode,
                        keeper.compiled[name],
                        Method.HARDLINK,
                        Hazard.BYTECODE,
                        own_bytes(inode),
                        source,
                        Cause.BYTECODE,
                    )
                )
        return [group for group in groups.values() if group.shares or group.held]

    def _keeper(
        self, unit: Unit, keepers: Sequence[Unit], places: Mapping[str, Places]
    ) -> tuple[Unit | None, Reason | None]:
        reason = self._refused(unit)
        if reason is not None:
            return None, reason
        for keeper in keepers:
            why = self._refused_time(unit, keeper)
            for name, inode in unit.compiled.items():
                _, refused = self._rules.choose(inode, [keeper.compiled[name]], places[name])
                why = why or refused
            if why is None:
                return keeper, None
            reason = reason or why
        return None, reason

    def _refused(self, unit: Unit) -> Reason | None:
        """Why no keeper's bytecode can be given to a unit, if so."""
        if any(inode.nlink > 1 for inode in unit.inodes):
            return Reason.BYTECODE  # its other names have sources of their own
        source: Inode = unit.source
        if not self._options.may_change(source):
            return Reason.OTHER_OWNER
        return None if self._rules.in_upper_layer(source) else Reason.OVERLAY

    def _refused_time(self, unit: Unit, keeper: Unit) -> Reason | None:
        if _time(unit.source, keeper.source) == unit.source.mtime_ns:
            return None
        return Reason.NAMES_OUTSIDE if unit.source.nlink > 1 else None


def _time(source: Inode, keeper: Inode) -> int:
    """Return the time that a source is to have: its own, if that is the keeper's as far as headers tell."""
    same = pyc.seconds(source.mtime_ns) == pyc.seconds(keeper.mtime_ns)
    return source.mtime_ns if same else keeper.mtime_ns
