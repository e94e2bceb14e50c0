"""From a scope to a plan: the part that ``report``, ``apply`` and the automatic run have in common."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from .block_plan import BlockPlanner, propose_blocks
from .blocks import BlockReader
from .bytecode_plan import plan_bytecode
from .candidates import checked, proposals
from .collection import no_collection
from .compiled import find_units
from .contents import read_contents
from .evidence import gather, probe_devices
from .inventory import Inventory, scan
from .model import Goal
from .planner import Planner
from .progress import Progress
from .reckoning import Reckoning
from .workers import spread

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

    from .model import Device, Inode, InodeKey, Scope
    from .plan import Group, Plan, PlanOptions
    from .shelf import Grouping

DEFAULT_MIN_SIZE = 4096
#: So many groups are looked at together.
_GROUPS = 2048


class Analysis(Struct, frozen=True):
    """What a scope holds and what would be done about it; the totals of both are in the inventory."""

    inventory: Inventory
    reckoning: Reckoning
    #: What could be freed besides if bytecode were normalised; None: it is, or nobody has looked.
    normalizable_bytes: int | None = None
    #: Whether files without records were compared too.
    deep: bool = False
    goal: Goal = Goal.BYTES

    @property
    def plan(self) -> Plan:
        """What would be done."""
        return self.reckoning.plan

    @property
    def devices(self) -> dict[int, Device]:
        """The devices of what may be shared, by number."""
        return self.reckoning.devices

    @property
    def scope(self) -> Scope:
        """What was looked at."""
        return self.inventory.scope

    @property
    def warnings(self) -> list[str]:
        """What went wrong on the way, a sentence each."""
        return [*self.scope.warnings, *self.inventory.warnings]


def analyse(
    scope: Scope,
    options: PlanOptions,
    min_size: int = DEFAULT_MIN_SIZE,
    deep: bool = False,
    progress: Progress | None = None,
    look: Callable[[Inventory], None] | None = None,
    whole: bool = True,
    detailed: bool = False,
) -> Analysis:
    """Walk every tree of ``scope`` and plan; ``min_size`` in bytes. Changes nothing.

    ``deep``: what no record covers is read and compared as well. ``look`` is shown the inventory with
    files of every size before. Not ``whole``: what the plan comes to is enough, for a report; ``detailed``:
    for its page.
    """
    progress = progress or Progress()
    with no_collection():
        inventory = scan(scope, min_size if look is None else 0, progress, detailed)
        if look is not None:
            look(inventory)
            inventory.inodes = {
                key: inode for key, inode in inventory.inodes.items() if inode.size >= min_size
            }
        return analyse_inventory(inventory, options, deep, progress, whole, detailed)


def analyse_inventory(
    inventory: Inventory,
    options: PlanOptions,
    deep: bool = False,
    progress: Progress | None = None,
    whole: bool = True,
    detailed: bool = False,
) -> Analysis:
    """Plan for what an inventory found, and add what the plan says to its totals."""
    scope = inventory.scope
    progress = progress or Progress()
    if deep:
        inventory.warnings += read_contents(scope, inventory.inodes.values(), progress)
    bytecode: list[Group] = []
    normalizable = None if options.normalize_bytecode else 0
    devices: dict[int, Device] = {}
    if deep or options.normalize_bytecode:
        bytecode = _bytecode(inventory, devices, options, progress)
    wanted = bytecode if options.normalize_bytecode else []
    retimed = {
        share.source.inode.key: share.source.mtime_ns
        for group in wanted
        for share in group.shares
        if share.source is not None
    }
    # what bytecode could be paired up otherwise waits until this is done
    taken = {inode.key for group in wanted for inode in group.inodes}
    cache_devices = _cache_devices(scope)
    planner = Planner(scope, devices, options, cache_devices, retimed)
    if not (inventory.may_share_extents or inventory.is_unpacked or bytecode or whole):
        reckoning = _spread(inventory, planner, devices, progress, detailed)
        reckoning.add_to(inventory)
        return Analysis(inventory, reckoning, normalizable, deep, options.goal)
    candidates = _candidates(scope, proposals(inventory), taken)
    reckoning = Reckoning(scope, whole, detailed=detailed)
    reckoning.devices = devices
    groups = list(planner.groups(gather(scope, candidates, devices, inventory.sizes)))
    shared = taken | {share.duplicate.key for group in groups for share in group.shares}
    if inventory.may_share_extents and not _have_no_extents(inventory, devices):
        # what is linked to a keeper gets the blocks that the keeper has by then
        groups = _blocks(inventory, devices, options, shared, cache_devices) + groups
    if wanted is not bytecode:
        more = (share for group in bytecode for share in group.shares if share.duplicate.key not in shared)
        normalizable = sum(share.freed_bytes for share in more)
    for group in (*groups, *wanted):
        reckoning.take(group)
    reckoning.add_to(inventory)
    return Analysis(inventory, reckoning, normalizable, deep, options.goal)


def _spread(
    inventory: Inventory, planner: Planner, devices: dict[int, Device], progress: Progress, detailed: bool
) -> Reckoning:
    """Plan some groups at a time, by several processes where that pays, and keep none of them."""
    scope = inventory.scope
    reckoning = Reckoning(scope, whole=False, detailed=detailed)
    start = 0
    with progress.stage("Planning", len(inventory.shelf)) as advance:
        for grouping in inventory.shelf.groupings():

            def part(number: int, grouping: Grouping = grouping, start: int = start) -> Reckoning:
                begin = number * _GROUPS
                found = Reckoning(scope, whole=False, start=start + begin, detailed=detailed)
                candidates = _candidates(scope, checked(grouping.groups(begin, begin + _GROUPS)))
                for group in planner.groups(gather(scope, candidates, devices, inventory.sizes)):
                    found.take(group)
                found.devices = devices
                return found

            parts = -(-len(grouping) // _GROUPS)
            for found in spread(parts, part):
                reckoning.merge(found)
                advance(len(inventory.shelf) / parts)
            start += len(grouping)
    return reckoning


def _candidates(
    scope: Scope, groups: Iterable[list[Inode]], taken: Collection[InodeKey] = ()
) -> Iterator[list[Inode]]:
    """Yield the groups that a selected tree has a part in."""
    selected = [tree.selected for tree in scope.trees]
    for inodes in groups:
        group = [inode for inode in inodes if inode.key not in taken] if taken else inodes
        if len(group) > 1 and any(selected[name.tree] for inode in group for name in inode.names):
            yield group


def _bytecode(
    inventory: Inventory, devices: dict[int, Device], options: PlanOptions, progress: Progress
) -> list[Group]:
    """Plan what can be shared of bytecode that differs in path and time; adds to ``devices``."""
    scope = inventory.scope
    units = find_units(scope, inventory.inodes.values(), progress)
    compiled = [[inode for unit in group for inode in unit.inodes] for group in units]
    looked_at = gather(scope, compiled, devices, inventory.sizes)
    seen = {inode.key for group in looked_at for inode in group}
    units = [[unit for unit in group if all(inode.key in seen for inode in unit.inodes)] for group in units]
    return plan_bytecode(scope, [group for group in units if len(group) > 1], devices, options)


def _blocks(
    inventory: Inventory,
    devices: dict[int, Device],
    options: PlanOptions,
    shared: set[InodeKey],
    cache_devices: set[int],
) -> list[Group]:
    """Plan what can be shared of files whose content is not the same; adds to ``devices``."""
    scope = inventory.scope
    proposed = [
        group
        for group in propose_blocks(inventory.inodes.values(), shared, options)
        if any(tree.selected for inode in group for tree in scope.trees_of(inode))
    ]
    probe_devices(scope, proposed, devices)
    able = {number for number, device in devices.items() if device.reflink and device.blocks}
    proposed = [[inode for inode in group if inode.key.device in able] for group in proposed]
    looked_at = gather(scope, [group for group in proposed if len(group) > 1], devices, inventory.sizes)
    with BlockReader(scope) as reader:
        planner = BlockPlanner(scope, devices, options, reader.compare, cache_devices)
        return [group for inodes in looked_at for group in planner.groups(inodes)]


def _have_no_extents(inventory: Inventory, devices: Mapping[int, Device]) -> bool:
    """Whether it has turned out that no device has files that can share extents."""
    known = [devices.get(number) for number in inventory.devices]
    return all(device is not None and device.certain and not device.reflink for device in known)


def _cache_devices(scope: Scope) -> set[int]:
    devices = set()
    for tree in scope.trees:
        if tree.is_cache:
            with suppress(OSError):
                devices.add(Path(tree.root).stat().st_dev)
    return devices
