"""Which inodes hold the same bytes, who keeps them, what is shared how, what is not and why.

Pure: a function of what was looked at. Nothing here touches a file system, so that ``report``,
``apply --dry-run`` and ``apply`` speak of the very same plan.
"""

from __future__ import annotations

import heapq
import sys
from typing import TYPE_CHECKING

from msgspec import Struct, field

from .model import NO_USER, Cause, Goal, Hazard, Inode, Method, MethodChoice, Reason, Source, Totals

if TYPE_CHECKING:
    from collections.abc import Iterable

#: Shorter runs would break files into pieces for little.
MIN_EXTENT = 16 * 1024
#: The report names so many groups of duplicates, and a page so many.
LARGEST = 20
PAGE_LARGEST = 200


class PlanOptions(Struct, frozen=True):
    """What the user, the settings and the machine say beforehand.

    ``euid`` is who will share (0 may everything); ``reflink_only``: the user asked for independent
    files; ``fresh_since_ns``: on an overlay, files changed since then lie in the upper layer; ``min_extent``:
    no run of fewer bytes is shared within a file.
    """

    method: MethodChoice = MethodChoice.AUTO
    euid: int = 0
    include_cache: bool = False
    override_frozen: bool = False
    same_layer: bool = False
    reflink_only: bool = False
    fresh_since_ns: int | None = None
    goal: Goal = Goal.BYTES
    hardlink_untracked: bool = False
    normalize_bytecode: bool = False
    #: On macOS an application is signed as a whole, and checked so.
    leave_bundles: bool = sys.platform == "darwin"
    min_extent: int = MIN_EXTENT

    def may_change(self, inode: Inode) -> bool:
        """Whether an inode is ours to change, going by its owner."""
        return self.euid in (0, NO_USER, inode.uid)


class Share(Struct, frozen=True):
    """One inode to be shared with its keeper; ``freed_bytes`` is what the device gains by it.

    Where inodes share their extents already, the bytes are gained by the last of them. With a ``source``,
    both are bytecode that differs in the path and the time of its source alone.
    """

    duplicate: Inode
    keeper: Inode
    method: Method
    hazard: Hazard
    freed_bytes: int
    source: Source | None = None
    cause: Cause = Cause.UNTRACKED
    #: Whether nobody outside the scan can hold the same extents.
    certain: bool = True
    #: The runs of blocks (offset and length in bytes) that are equal, where not the whole file is shared.
    runs: tuple[tuple[int, int], ...] = ()

    @property
    def freed_inodes(self) -> int:
        """How many inodes the device gains."""
        return 1 if self.method is Method.HARDLINK else 0


class Held(Struct, frozen=True):
    """Inodes that hold the same bytes on disk (as one) and stay, and why."""

    inodes: tuple[Inode, ...]
    reason: Reason
    bytes: int
    cause: Cause = Cause.UNTRACKED


class Group(Struct):
    """Inodes with the same content: the keeper, what is shared with it or another, what is held."""

    keeper: Inode
    shares: list[Share] = field(default_factory=list)
    held: list[Held] = field(default_factory=list)

    @property
    def inodes(self) -> list[Inode]:
        """Every inode that is shared or held, and the keeper."""
        duplicates = [share.duplicate for share in self.shares]
        return [self.keeper, *duplicates, *(inode for held in self.held for inode in held.inodes)]

    @property
    def duplicate_bytes(self) -> int:
        """Disk bytes held more than once in this group."""
        return sum(share.freed_bytes for share in self.shares) + sum(held.bytes for held in self.held)


class Plan:
    """Every group with a duplicate, or no more than what they come to.

    ``whole``: the groups are kept, to be executed; else only the largest are, for a report, so ``many``.
    ``start``: so many groups come before the first one.
    """

    def __init__(
        self, groups: Iterable[Group] = (), whole: bool = True, start: int = 0, many: int = LARGEST
    ) -> None:
        self.groups: list[Group] = []
        self.whole = whole
        self.freeable_bytes = 0
        self._held: dict[Reason, tuple[int, int]] = {}
        self._causes = {cause: Totals() for cause in Cause}
        self._largest: list[tuple[int, int, Group]] = []
        self._added = start
        self._many = many
        for group in groups:
            self.add(group)

    def add(self, group: Group) -> None:
        """Take up a group."""
        if self.whole:
            self.groups.append(group)
        size = 0
        for share in group.shares:
            size += share.freed_bytes
            self._causes[share.cause].add_share(share.freed_bytes, share.freed_inodes)
        self.freeable_bytes += size
        for held in group.held:
            size += held.bytes
            self._causes[held.cause].add_held(held.bytes)
            known, count = self._held.get(held.reason, (0, 0))
            self._held[held.reason] = (known + held.bytes, count + len(held.inodes))
        self._added += 1
        # of equal size the first is kept
        self._note((size, -self._added, group))

    def _note(self, entry: tuple[int, int, Group]) -> None:
        if len(self._largest) < self._many:
            heapq.heappush(self._largest, entry)
        elif entry > self._largest[0]:
            heapq.heapreplace(self._largest, entry)

    def merge(self, other: Plan) -> None:
        """Take up all the groups of another plan."""
        self.groups += other.groups
        self.freeable_bytes += other.freeable_bytes
        for reason, (size, count) in other._held.items():
            known, counted = self._held.get(reason, (0, 0))
            self._held[reason] = (known + size, counted + count)
        for cause, totals in other._causes.items():
            self._causes[cause].add(totals)
        for entry in other._largest:
            self._note(entry)

    @property
    def shares(self) -> list[Share]:
        """What ``apply`` does, in order."""
        return [share for group in self.groups for share in group.shares]

    def largest(self) -> list[Group]:
        """Return the groups with the most duplicate bytes, the largest first."""
        return [group for _, _, group in sorted(self._largest, reverse=True)]

    def held_by_reason(self) -> dict[Reason, tuple[int, int]]:
        """Return (bytes, inodes) of what stays, by reason, most bytes first."""
        return dict(sorted(self._held.items(), key=lambda item: -item[1][0]))

    def by_cause(self) -> dict[Cause, Totals]:
        """Return duplicate, freeable and held bytes, and freeable inodes, for every cause."""
        return self._causes


def add_to(group: Group, totals: Totals, by_class: dict[Hazard, Totals]) -> None:
    """Add duplicate, freeable and held bytes of a group to what an inventory counted."""
    for share in group.shares:
        for total in (totals, by_class.setdefault(share.hazard, Totals())):
            total.add_share(share.freed_bytes, share.freed_inodes)
            total.uncertain_bytes += 0 if share.certain else share.freed_bytes
    for held in group.held:
        for total in (totals, by_class.setdefault(held.inodes[0].hazard, Totals())):
            total.add_held(held.bytes)
