"""Makes a listing of each tree: what its files take of the device, and which of them may be shared."""

from __future__ import annotations

import os
from array import array
from typing import TYPE_CHECKING

from .layouts import BLOCK, disk_bytes_of, shared_extents
from .listing import (
    RECORDED,
    Blocks,
    Holding,
    Listing,
    base_key,
    dist_id,
    ident,
    pack_claim,
    pack_row,
    pack_stat,
    sized_key,
)
from .model import Hazard, InodeKey, Totals
from .policy import hazard_of
from .sharing.system import entry_stat, file_system, lstat
from .walking import unreadable, walk

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .model import Claim, Dist, Tree
    from .physical import Layouts

#: Their directories tell the very inode numbers that lstat does.
_TRUE_NUMBERS = frozenset({"ext4", "xfs", "btrfs", "tmpfs"})
_META = "conda-meta/"
_MOST_SAID = 200_000


class _Said:
    """What a claim says of a path, worked out once however many trees have it."""

    __slots__ = ("base", "claim", "dist", "hazard", "packed", "path", "size")

    def __init__(self, path: str, claim: Claim, dist: int) -> None:
        self.claim = claim  # so that its id remains its own
        self.path = path
        self.dist = dist
        self.hazard = hazard_of(path, claim)
        self.base = base_key(claim, self.hazard)
        self.size = -1 if claim.sha256 is None else claim.size
        self.packed = pack_claim(claim, path, dist)


class _Seen:
    """An inode with several names, of which one at least has been seen; in the tree at hand so many."""

    __slots__ = ("blocks", "count", "hazard", "key", "packed", "recorded", "stat", "tree")

    def __init__(self, stat: os.stat_result, key: InodeKey, blocks: Blocks) -> None:
        self.stat = stat
        self.key = key
        self.blocks = blocks
        self.packed = _pack(stat, blocks)
        self.tree = -1
        self.count = 0
        self.hazard = Hazard.NATIVE
        self.recorded = False


class Counter:
    """Lists trees one after the other; of a file that has several names only one is looked at.

    ``min_size`` in bytes: smaller files are counted, and have no row; ``layouts`` tells of extents where
    files share them.
    """

    def __init__(self, min_size: int, layouts: Layouts | None = None) -> None:
        self.min_size = min_size
        self.layouts = layouts
        self.said: dict[int, _Said] = {}
        self._dists: dict[Dist, int] = {}
        #: the dists that no listing has yet
        self.fresh: dict[int, Dist] = {}
        #: by device and number
        self.seen: dict[int, dict[int, _Seen]] = {}

    def walked(self, index: int, tree: Tree, roots: set[str], claims: Mapping[str, Claim]) -> Listing:
        """Return what is in a tree; ``roots`` are those of all trees."""
        task = _Task(self, index, claims)
        warnings = task.listing.warnings
        add, again = task.add, task.again
        last = -1
        seen: Mapping[int, _Seen] = {}
        for below, descriptor, entries in walk(tree, roots, warnings):
            device = os.fstat(descriptor).st_dev
            if device != last:
                last = device
                true = file_system(descriptor) in _TRUE_NUMBERS
                seen = self.seen.setdefault(device, {}) if true else {}
            keep = tree.is_cache or not below.startswith(_META)
            for entry in entries:
                known = seen.get(entry.inode())
                if known is not None:
                    again(below + entry.name, known, keep)
                    continue
                try:
                    stat = entry_stat(entry, descriptor)
                except FileNotFoundError:
                    continue
                except OSError as exc:
                    # a directory that may be listed and not entered
                    warnings.append(unreadable(f"{tree.root}/{below}", exc))
                    break
                add(below + entry.name, stat, keep, descriptor)
        return task.done()

    def listed(self, index: int, tree: Tree, paths: Iterable[str], claims: Mapping[str, Claim]) -> Listing:
        """Return the same of those ``paths`` in a tree that are regular files."""
        task = _Task(self, index, claims)
        for path in paths:
            try:
                stat = lstat(f"{tree.root}/{path}")
            except OSError:
                continue
            if (stat.st_mode & 0o170000) == 0o100000:
                task.add(path, stat, tree.is_cache or not path.startswith(_META), -1)
        return task.done()

    def say(self, path: str, claim: Claim) -> _Said:
        """Work out what a claim says."""
        dist = self._dists.get(claim.dist)
        if dist is None:
            dist = self._dists[claim.dist] = dist_id(claim.dist)
            self.fresh[dist] = claim.dist
        if len(self.said) >= _MOST_SAID:
            self.said.clear()
        said = self.said[id(claim)] = _Said(path, claim, dist)
        return said


class _Task:
    """The tree at hand."""

    def __init__(self, counter: Counter, index: int, claims: Mapping[str, Claim]) -> None:
        self.listing = Listing(index)
        self._counter = counter
        self._index = index
        self._claims = claims
        self._min_size = counter.min_size
        self._said = counter.said
        self._here: list[_Seen] = []
        self._rows: list[bytes] = []
        self._classes = {hazard: Totals() for hazard in Hazard}
        self._end = 0

    def add(self, path: str, stat: os.stat_result, keep: bool, directory: int) -> None:
        """Count a file; ``keep``: it may be shared."""
        if stat.st_nlink > 1:
            self.again(path, self._known(path, stat, directory), keep)
            return
        claim = self._claims.get(path)
        if claim is None:
            said, hazard = None, hazard_of(path, None)
        else:
            said = self._said.get(id(claim))
            if said is None or said.path != path:
                said = self._counter.say(path, claim)
            hazard = said.hazard
        blocks = None
        layouts = self._counter.layouts
        if layouts is not None and not layouts.has_none(stat.st_dev):
            blocks = self._blocks_of(path, stat, directory)
        disk = disk_bytes_of(stat) if blocks is None else blocks.plain
        size = stat.st_size
        counted = self._classes[hazard]
        counted.files += 1
        counted.inodes += 1
        counted.apparent_bytes += size
        counted.disk_bytes += disk
        if said is None:
            counted.unrecorded_bytes += disk
        if blocks is not None and blocks.pool:
            self._hold(blocks, hazard, True, said is not None)
        if keep and size >= self._min_size:
            key = InodeKey(stat.st_dev, stat.st_ino)
            self._row(_pack(stat, blocks or Blocks(disk)), key, size, path, hazard, said)

    def again(self, path: str, known: _Seen, keep: bool) -> None:
        """Count a name of an inode that has several."""
        claim = self._claims.get(path)
        if claim is None:
            said, hazard = None, hazard_of(path, None)
        else:
            said = self._said.get(id(claim))
            if said is None or said.path != path:
                said = self._counter.say(path, claim)
            hazard = said.hazard
        size = known.stat.st_size
        if known.tree != self._index:
            known.tree = self._index
            known.count = 0
            known.hazard = hazard
            known.recorded = False
            self._here.append(known)
        known.count += 1
        known.recorded = known.recorded or said is not None
        counted = self._classes[hazard]
        counted.files += 1
        counted.apparent_bytes += size
        if keep and size >= self._min_size:
            self._row(known.packed, known.key, size, path, hazard, said)

    def done(self) -> Listing:
        """Return what has been counted."""
        listing, counted = self.listing, self.listing.counted
        for totals in self._classes.values():
            counted.files += totals.files
            counted.inodes += totals.inodes
            counted.apparent_bytes += totals.apparent_bytes
            counted.disk_bytes += totals.disk_bytes
            counted.private_bytes += totals.disk_bytes
        listing.classes = {hazard: totals for hazard, totals in self._classes.items() if totals.files}
        linked = listing.linked
        for known in self._here:
            plain = known.blocks.plain
            private = known.count == known.stat.st_nlink
            counted.inodes += 1
            counted.disk_bytes += plain
            counted.private_bytes += plain if private else 0
            if known.blocks.pool:
                self._hold(known.blocks, known.hazard, private, known.recorded)
            linked.idents.append(ident(known.key))
            linked.plain.append(plain)
            linked.kinds.append(known.hazard | known.recorded * RECORDED)
        layouts = self._counter.layouts
        listing.may_share_extents = layouts is None or layouts.anywhere
        listing.rows = b"".join(self._rows)
        listing.dists, self._counter.fresh = self._counter.fresh, {}
        return listing

    def _known(self, path: str, stat: os.stat_result, directory: int) -> _Seen:
        numbers = self._counter.seen.setdefault(stat.st_dev, {})
        known = numbers.get(stat.st_ino)
        if known is None:
            blocks = self._blocks_of(path, stat, directory)
            known = numbers[stat.st_ino] = _Seen(stat, InodeKey(stat.st_dev, stat.st_ino), blocks)
        return known

    def _blocks_of(self, path: str, stat: os.stat_result, directory: int) -> Blocks:
        layouts = self._counter.layouts
        layout = None
        if layouts is not None and not layouts.has_none(stat.st_dev):
            layout, pool = layouts.of(path.rpartition("/")[2], stat.st_dev, directory)
        if layout is None:
            return Blocks(disk_bytes_of(stat))
        begins = self.listing.begins.setdefault(pool, array("Q"))
        begins.extend(extent.physical for extent in layout.extents)
        plain = sum(extent.length for extent in layout.unshared if not extent.encoded)
        own = tuple(extent for extent in layout.unshared if extent.encoded)
        return Blocks(plain, own, shared_extents(layout), pool)

    def _hold(self, blocks: Blocks, hazard: Hazard, private: bool, recorded: bool) -> None:
        if blocks.own or blocks.shared:
            self.listing.holdings.append(Holding(blocks, hazard, private, recorded))

    def _row(
        self, stat: bytes, inode: InodeKey, size: int, path: str, hazard: Hazard, said: _Said | None
    ) -> None:
        key = 0
        claim = b""
        if said is not None:
            claim = said.packed
            if said.base and said.size in (-1, size):
                key = sized_key(said.base, size)
        row = pack_row(stat, hazard, path, claim)
        self._rows.append(row)
        self._end += len(row)
        listing = self.listing
        listing.idents.append(ident(inode))
        listing.keys.append(key)
        listing.ends.append(self._end)


def _pack(stat: os.stat_result, blocks: Blocks) -> bytes:
    own = blocks.plain + BLOCK * len(blocks.own) if blocks.pool else -1
    return pack_stat(stat, disk_bytes_of(stat), own)
