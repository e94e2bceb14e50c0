"""Which inode is each name on disk, now: one walk of every tree, inode-centred."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct, field

from .counting import Counter
from .layouts import CompressedSizes
from .model import Hazard, Totals, TreeTotals
from .physical import Layouts
from .progress import Progress
from .records import Memo, read_claims
from .shelf import Shelf
from .tally import Tally
from .workers import processors, spread

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .listing import Build, Folders, Listing, Parts
    from .model import Claim, Dist, Inode, InodeKey, Scope

#: So many claims are kept for the trees to come. Each of several processes keeps fewer, for they add up, and
#: reads again what it forgot.
_MOST_CLAIMS = 160_000
_MOST_CLAIMS_EACH = 64_000


class Inventory(Struct):
    """What the trees of a scope hold.

    ``trees[i]`` counts tree ``i`` of the scope; ``totals`` and ``by_class`` count the selected trees
    together; ``shelf`` has every name of a file of at least the minimal size.
    """

    scope: Scope
    trees: list[TreeTotals] = field(default_factory=list)
    totals: Totals = field(default_factory=Totals)
    by_class: dict[Hazard, Totals] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    #: For each tree the paths that pip took from conda: (conda's package, pip's).
    clobbered: dict[int, dict[str, tuple[Dist, Dist]]] = field(default_factory=dict)
    sizes: CompressedSizes = field(default_factory=CompressedSizes)
    shelf: Shelf = field(default_factory=Shelf)
    #: For each cache its builds, and the bytes on disk that each alone holds.
    builds: dict[int, dict[Build, int]] = field(default_factory=dict)
    #: For each tree what tells whether it is still as it was when it was walked.
    folders: dict[int, Folders] = field(default_factory=dict)
    #: For each tree what each kind of a package's files takes, if every package was counted apart.
    parts: dict[int, Parts] = field(default_factory=dict)
    #: The numbers of the devices on which there are files.
    devices: set[int] = field(default_factory=set)
    #: False: no files of any device share extents, as far as they can be asked.
    may_share_extents: bool = True
    _inodes: dict[InodeKey, Inode] | None = None

    @property
    def inodes(self) -> dict[InodeKey, Inode]:
        """Those of at least the minimal size with every name seen, as objects.

        They are made when they are first asked for; whoever can take one group after the other asks the
        shelf.
        """
        if self._inodes is None:
            self._inodes = self.shelf.inodes()
        return self._inodes

    @inodes.setter
    def inodes(self, inodes: dict[InodeKey, Inode]) -> None:
        self._inodes = inodes

    @property
    def is_unpacked(self) -> bool:
        """Whether somebody has asked for the inodes, and may have noted something with them."""
        return self._inodes is not None


def scan(scope: Scope, min_size: int, progress: Progress | None = None, detailed: bool = False) -> Inventory:
    """Walk every tree of ``scope`` and read its records.

    ``min_size`` in bytes: smaller files are counted, but no candidates. What cannot be read costs a
    warning. ``detailed``: every package is counted apart.
    """
    inventory = Inventory(scope)
    roots = {tree.root for tree in scope.trees}
    counter = Counter(min_size, Layouts(), detailed)
    memo = Memo(_MOST_CLAIMS if processors() == 1 else _MOST_CLAIMS_EACH, counter.forget)
    with (
        Tally(inventory) as tally,
        (progress or Progress()).stage("Looking at every file", len(scope.trees)) as advance,
    ):

        def listing_of(index: int) -> Listing:
            tree = scope.trees[index]
            records = read_claims(tree, memo)
            listing = counter.walked(index, tree, roots, records.claims)
            listing.warnings = records.warnings + listing.warnings
            listing.clobbered = records.clobbered
            return listing

        for listing in spread(len(scope.trees), listing_of):
            tally.add(listing)
            advance(1)
    return inventory


def scan_listed(scope: Scope, listed: Mapping[int, Mapping[str, Claim]], min_size: int) -> Inventory:
    """Look at nothing but the listed paths: for each index of a tree, path in it and claim.

    A path that does not exist, is no regular file, or lies in a tree inside the tree, is left out.
    """
    inventory = Inventory(scope)
    counter = Counter(min_size)
    with Tally(inventory) as tally:
        for index, claims in listed.items():
            tree = scope.trees[index]
            inside = tuple(
                other.root[len(tree.root) + 1 :] + "/"
                for other in scope.trees
                if other.root.startswith(tree.root + "/")
            )
            paths = (path for path in claims if not path.startswith(inside))
            tally.add(counter.listed(index, tree, paths, claims))
    return inventory
