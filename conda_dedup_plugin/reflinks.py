"""Who may be given other extents, and what is gained by it: the rules of the plan for bytes. Pure."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from .layouts import BLOCK, apart_bytes, own_bytes
from .model import Inode, Reason
from .policy import in_bundle

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .model import Device, Scope
    from .plan import PlanOptions


def reflink_refused(inode: Inode, scope: Scope, options: PlanOptions) -> Reason | None:
    """Why an inode may not be given other extents, if so."""
    trees = scope.trees_of(inode)
    if not any(tree.selected for tree in trees):
        return Reason.NOT_SELECTED
    if any(tree.frozen for tree in trees) and not options.override_frozen:
        return Reason.FROZEN
    if inode.privileged:
        return Reason.SETID
    if not options.may_change(inode):
        return Reason.OTHER_OWNER
    if inode.nodatacow:
        return Reason.NO_COW
    if options.leave_bundles and any(map(in_bundle, scope.paths_of(inode))):
        return Reason.BUNDLE
    if inode.size < BLOCK or (inode.layout is not None and not inode.layout.exact):
        return Reason.NO_BLOCKS
    return None


def clone_refused(inode: Inode, scope: Scope, device: Device) -> Reason | None:
    """Why a clone may not take the place of an inode, if so: it must be one for all of its names."""
    if device.in_place:
        return None
    if inode.nlink > len(inode.names):
        return Reason.NAMES_OUTSIDE
    if not all(tree.selected for tree in scope.trees_of(inode)):
        return Reason.NOT_SELECTED
    return None


def units_of(inodes: list[Inode]) -> list[list[Inode]]:
    """Inodes that share all their extents already hold their bytes once: one unit; order is kept."""
    units: dict[object, list[Inode]] = {}
    for inode in inodes:
        units.setdefault(place_of(inode), []).append(inode)
    return list(units.values())


def place_of(inode: Inode) -> object:
    """Return where its bytes lie, as far as that is known: the same for inodes that share all of them."""
    layout = inode.layout
    return layout.extents if layout is not None and layout.exact and layout.extents else inode.key


class Holders:
    """Counts what holds each place on the device: who gives up the last one frees the bytes there."""

    def __init__(self, units: Sequence[Sequence[Inode]]) -> None:
        self._left = Counter({place_of(unit[0]): len(unit) for unit in units})
        self._several = {place for place, count in self._left.items() if count > 1}

    def give_up(self, inode: Inode, keeper: Inode) -> tuple[int, bool]:
        """Return the bytes gained when an inode gets its keeper's, and whether that is certain.

        What several inodes hold may be held outside the scan as well: only how many there are is not told.
        """
        place = place_of(inode)
        self._left[place] -= 1
        if place not in self._several:
            return own_bytes(inode), True
        return (0 if self._left[place] else apart_bytes(inode, keeper)), False


def shared_outside(unit: list[Inode]) -> bool:
    """Whether the bytes of a lone inode are also somebody else's, so that nothing would be gained."""
    layout = unit[0].layout
    return len(unit) == 1 and layout is not None and layout.shared and own_bytes(unit[0]) == 0


def held_bytes(unit: list[Inode], keeper: Inode) -> int:
    """Return the disk bytes that a unit holds besides the keeper's."""
    return apart_bytes(max(unit, key=lambda inode: inode.disk_bytes), keeper)
