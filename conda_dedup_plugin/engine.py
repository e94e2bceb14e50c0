"""From a scope to a plan: the part that ``report``, ``apply`` and the automatic run have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .candidates import propose
from .evidence import gather
from .inventory import Inventory, scan
from .planner import make_plan

if TYPE_CHECKING:
    from .model import Device, Scope
    from .plan import Plan, PlanOptions

DEFAULT_MIN_SIZE = 4096


@dataclass(frozen=True, slots=True)
class Analysis:
    """What a scope holds and what would be done about it; the totals of both are in the inventory."""

    inventory: Inventory
    plan: Plan
    devices: dict[int, Device]

    @property
    def scope(self) -> Scope:
        """What was looked at."""
        return self.inventory.scope

    @property
    def warnings(self) -> list[str]:
        """What went wrong on the way, a sentence each."""
        return [*self.scope.warnings, *self.inventory.warnings]


def analyse(scope: Scope, options: PlanOptions, min_size: int = DEFAULT_MIN_SIZE) -> Analysis:
    """Walk every tree of ``scope`` and plan; ``min_size`` in bytes. Changes nothing."""
    return analyse_inventory(scan(scope, min_size), options)


def analyse_inventory(inventory: Inventory, options: PlanOptions) -> Analysis:
    """Plan for what an inventory found, and add what the plan says to its totals."""
    scope = inventory.scope
    candidates = [
        group
        for group in propose(inventory.inodes.values())
        if any(tree.selected for inode in group for tree in scope.trees_of(inode))
    ]
    groups, devices = gather(scope, candidates)
    plan = make_plan(scope, groups, devices, options)
    plan.add_to(inventory.totals, inventory.by_class)
    for share in plan.shares:
        owner = next(name.tree for name in share.duplicate.names if scope.trees[name.tree].selected)
        inventory.trees[owner].freeable_bytes += share.freed_bytes
    return Analysis(inventory, plan, devices)
