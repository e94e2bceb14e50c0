"""Makes a listing of each tree: what its files take of the device, and which of them may be shared."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from .claimed import Sayings
from .layouts import disk_bytes_of
from .listing import LOW, RECORDED, Holding, Listing, sized_key, spread
from .model import Hazard, Totals
from .packing import pack_name
from .parts import PartCounter
from .physical import blocks_of
from .policy import hazard_of
from .seen import Seen, own_bytes_of, pack_seen
from .sharing.system import entry_stat, file_system
from .walking import listed_folder, unreadable, walk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from .listing import Build
    from .model import Claim, Tree
    from .physical import Layouts

#: Their directories tell the very inode numbers that lstat does.
_TRUE_NUMBERS = frozenset({"ext4", "xfs", "btrfs", "tmpfs"})
_META = "conda-meta/"


class Counter:
    """Lists trees one after the other; of a file that has several names only one is looked at.

    ``min_size`` in bytes: smaller files are counted, and have no row; ``layouts`` tells of extents where
    files share them; ``detailed``: every package is counted apart.
    """

    def __init__(self, min_size: int, layouts: Layouts | None = None, detailed: bool = False) -> None:
        self._min_size = min_size
        self._detailed = detailed
        self._layouts = layouts
        self._sayings = Sayings()
        #: by device and number
        self._seen: dict[int, dict[int, Seen]] = {}

    def forget(self, claims: Iterable[Claim]) -> None:
        """Forget what claims say: no tree to come has them."""
        self._sayings.forget(claims)

    def walked(self, index: int, tree: Tree, roots: set[str], claims: Mapping[str, Claim]) -> Listing:
        """Return what is in a tree; ``roots`` are those of all trees."""
        listing = Listing(index)
        folders = walk(tree, roots, listing.warnings)
        return self._count(listing, tree, folders, claims, entry_stat)

    def listed(self, index: int, tree: Tree, paths: Iterable[str], claims: Mapping[str, Claim]) -> Listing:
        """Return the same of those ``paths`` in a tree that are regular files."""
        folders = (listed_folder(tree, path) for path in paths)
        return self._count(Listing(index), tree, folders, claims, lambda entry, _: entry.found)

    def _count(
        self,
        listing: Listing,
        tree: Tree,
        folders: Iterable[tuple[str, int, list[Any]]],
        claims: Mapping[str, Claim],
        stat_of: Callable[[Any, int], os.stat_result],
    ) -> Listing:
        """Count the files of a tree, directory by directory."""
        # A million files come by here: what is done for each is done in this one place.
        classes = [Totals() for _ in Hazard]
        parts = PartCounter() if self._detailed else None
        here: list[Seen] = []
        cached: list[tuple[Seen, Build]] = []
        rows: list[bytes] = []
        idents, keys, starts = listing.idents, listing.keys, listing.starts
        said_of, claim_of, index, least = self._sayings.by_id.get, claims.get, listing.index, self._min_size
        folders_of = listing.folders
        end = spot = 0
        again = not tree.is_cache  # no other tree has the claims of a cache
        device = -1
        seen: dict[int, Seen] = {}
        known_numbers = False
        for below, descriptor, entries in folders:
            # of what is listed and not walked, each entry may be on another device
            if descriptor < 0:
                found = entries[0].found.st_dev if entries else device
            else:
                itself = os.fstat(descriptor)
                found = itself.st_dev
                folders_of.add(below, itself)
            if found != device:
                device = found
                listing.devices.add(device)
                spot = spread(device)
                seen = self._seen.setdefault(device, {})
                known_numbers = descriptor >= 0 and file_system(descriptor) in _TRUE_NUMBERS
            ask = self._layouts is not None and not self._layouts.has_none(device)
            keep = tree.is_cache or not below.startswith(_META)
            records = below == _META
            for entry in entries:
                path = below + entry.name
                known = seen.get(entry.inode()) if known_numbers else None
                if known is None:
                    try:
                        stat = stat_of(entry, descriptor)
                    except FileNotFoundError:
                        continue
                    except OSError as exc:
                        # a directory that may be listed and not entered
                        listing.warnings.append(unreadable(f"{tree.root}/{below}", exc))
                        break
                    if records:
                        folders_of.add(path, stat)
                    if stat.st_nlink > 1:
                        known = self._known(listing, entry.name, stat, descriptor)
                claim = claim_of(path)
                if claim is None:
                    said, hazard = None, hazard_of(path, None)
                else:
                    said = said_of(id(claim))
                    if said is None or said.path != path:
                        said = self._sayings.say(path, claim, again)
                    hazard = said.hazard
                counted = classes[hazard] if parts is None else parts[said.dist if said else 0, hazard]
                counted.files += 1
                if known is not None:
                    size = known.size
                    counted.apparent_bytes += size
                    if known.tree != index:
                        known.tree, known.count, known.hazard, known.recorded = index, 0, hazard, False
                        known.dist = 0 if said is None else said.dist
                        here.append(known)
                    known.count += 1
                    if said is not None:
                        known.recorded = True
                    if size < least or not keep:
                        continue
                    packed = known.packed
                    idents.append(known.ident)
                else:
                    size = stat.st_size
                    disk = disk_bytes_of(stat)
                    blocks = None
                    if ask:
                        blocks = blocks_of(self._layouts, listing.begins, entry.name, stat, descriptor)
                        disk = blocks.plain
                        if blocks.own or blocks.shared:
                            listing.holdings.append(Holding(blocks, hazard, True, said is not None))
                            if parts is not None:
                                parts.hold(said.dist if said else 0, hazard, blocks)
                    counted.inodes += 1
                    counted.apparent_bytes += size
                    counted.disk_bytes += disk
                    if said is None:
                        counted.unrecorded_bytes += disk
                    if size < least or not keep:
                        continue
                    packed = pack_seen(stat, blocks)
                    idents.append((stat.st_ino + spot) & LOW)
                if said is None:
                    keys.append(0)
                    row = packed + pack_name(hazard, path, b"")
                else:
                    if not said.packed:
                        self._sayings.complete(said)
                    stale = not said.base or said.size not in (-1, size)
                    keys.append(0 if stale else sized_key(said.base, size))
                    row = packed + pack_name(hazard, path, said.packed)
                    if tree.is_cache:
                        build = said.claim.dist[:4]
                        alone = listing.builds.setdefault(build, 0)
                        if known is None:
                            listing.builds[build] = alone + own_bytes_of(disk, blocks)
                        elif known.count == 1:
                            cached.append((known, build))
                rows.append(row)
                starts.append(end)
                end += len(row)
        listing.rows = b"".join(rows)
        folders_of.pack()
        for one, of in cached:
            if one.count == one.nlink:
                listing.builds[of] += own_bytes_of(one.blocks.plain, one.blocks)
        if parts is not None:
            for known in here:
                parts.link(known.dist, known.hazard, known.blocks)
            listing.parts = parts.settle(classes)
        return self._done(listing, classes, here)

    def _done(self, listing: Listing, classes: list[Totals], here: list[Seen]) -> Listing:
        """Return a listing with what is counted of its tree."""
        counted, linked = listing.counted, listing.linked
        for totals in classes:
            counted.files += totals.files
            counted.inodes += totals.inodes
            counted.apparent_bytes += totals.apparent_bytes
            counted.disk_bytes += totals.disk_bytes
            counted.private_bytes += totals.disk_bytes
        listing.classes = {hazard: classes[hazard] for hazard in Hazard if classes[hazard].files}
        plain = [known.blocks.plain for known in here]
        counted.inodes += len(here)
        counted.disk_bytes += sum(plain)
        counted.private_bytes += sum([known.blocks.plain for known in here if known.count == known.nlink])
        listing.holdings += [
            Holding(known.blocks, known.hazard, known.count == known.nlink, known.recorded)
            for known in here
            if known.blocks.own or known.blocks.shared
        ]
        linked.idents.extend([known.ident for known in here])
        linked.plain.extend(plain)
        linked.kinds.extend([known.hazard | known.recorded * RECORDED for known in here])
        listing.may_share_extents = self._layouts is None or self._layouts.anywhere
        listing.dists = self._sayings.new_dists()
        return listing

    def _known(self, listing: Listing, name: str, stat: os.stat_result, directory: int) -> Seen:
        numbers = self._seen.setdefault(stat.st_dev, {})
        known = numbers.get(stat.st_ino)
        if known is None:
            known = numbers[stat.st_ino] = Seen(
                stat, blocks_of(self._layouts, listing.begins, name, stat, directory)
            )
        return known
