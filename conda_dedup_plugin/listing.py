"""What one tree holds, as columns of numbers and packed rows: cheap to make, to hand on and to put away.

A row is one name of a file that may be shared. Objects are made only of the rows that somebody asks for:
see :mod:`.shelf`.
"""

from __future__ import annotations

import struct
from array import array
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple

from .model import Claim, Dist, Hazard, Inode, InodeKey, Name, Totals, TreeTotals

if TYPE_CHECKING:
    import os

    from .model import Extent

#: device, number (low and high half), size, disk bytes, mtime, ctime, own bytes (-1: not asked), mode, uid,
#: gid, names
_STAT = struct.Struct("<QQQqqQQqIIII")
#: hazard, bytes of the path, bytes of the claim
_HEAD = struct.Struct("<BIH")
#: dist, flags, size
_CLAIM = struct.Struct("<QBq")
_PREFIXED, _NO_LINK, _PIP, _DIGEST, _SAME_PATH, _BELOW_PACKAGE = (1 << bit for bit in range(6))
_DIGEST_BYTES = 32
_LOW = (1 << 64) - 1
#: Times from here on are before 1970: those of ext4 and XFS go beyond 63 bits of nanoseconds.
_BEFORE_1970 = _LOW - (1 << 62)
_MOST = (1 << 63) - 1
#: For each dist (0: no record speaks of the files) and hazard class: disk bytes, and the length of the
#: extents of which that is not known file by file.
Parts = dict[tuple[int, Hazard], tuple[int, int]]
#: Keeps the inode numbers of one device from those of another.
_SPREAD = 0x9E3779B97F4A7C15
#: In the kinds of what has several names, beside the hazard class.
RECORDED = 8


class Blocks(NamedTuple):
    """What one inode takes of its device.

    ``plain`` bytes it alone has. Of the ``own`` extents, too, but what they take must be estimated;
    ``shared`` are those that other inodes have as well.
    """

    plain: int
    own: tuple[Extent, ...] = ()
    shared: tuple[Extent, ...] = ()
    pool: str = ""


class Holding(NamedTuple):
    """Extents that must be looked up in a ledger, and the file of the tree that has them."""

    blocks: Blocks
    hazard: Hazard
    #: every name of the file is in this tree
    private: bool
    recorded: bool


@dataclass(slots=True)
class Linked:
    """The inodes of a tree that have several names: a column each, an element for every inode."""

    idents: array[int] = field(default_factory=lambda: array("Q"))
    plain: array[int] = field(default_factory=lambda: array("q"))
    #: the hazard class, and whether a record speaks of it
    kinds: bytearray = field(default_factory=bytearray)


@dataclass(slots=True)
class Folders:
    """The directories of a tree, and its records, with a stamp that changes when they do."""

    paths: list[str] = field(default_factory=list)
    stamps: array[int] = field(default_factory=lambda: array("Q"))
    #: when one of them changed last, in nanoseconds since the epoch
    newest: int = 0

    def add(self, path: str, stat: os.stat_result) -> None:
        """Note one of them as it is now."""
        self.paths.append(path)
        self.stamps.append(stamp(stat))
        if stat.st_mtime_ns > self.newest or stat.st_ctime_ns > self.newest:
            self.newest = max(stat.st_mtime_ns, stat.st_ctime_ns)


@dataclass(slots=True)
class Listing:
    """The tree at ``index``: what is counted of it, and a row for every name that may be shared.

    Of what several names share, ``classes`` counts the names alone; the rest is in ``linked``. The columns
    have an element for every row: ``idents`` tells its inode, ``keys`` its content going by the records
    (0: they do not say), ``ends`` where it ends in ``rows``.
    """

    index: int
    counted: TreeTotals = field(default_factory=TreeTotals)
    classes: dict[Hazard, Totals] = field(default_factory=dict)
    linked: Linked = field(default_factory=Linked)
    holdings: list[Holding] = field(default_factory=list)
    #: for each file system where compressed extents begin
    begins: dict[str, array[int]] = field(default_factory=dict)
    idents: array[int] = field(default_factory=lambda: array("Q"))
    keys: array[int] = field(default_factory=lambda: array("Q"))
    ends: array[int] = field(default_factory=lambda: array("Q"))
    rows: bytes = b""
    #: False: no files of any device share extents, as far as was asked up to now
    may_share_extents: bool = True
    #: the dists that rows of this listing, and of later ones, speak of
    dists: dict[int, Dist] = field(default_factory=dict)
    folders: Folders = field(default_factory=Folders)
    warnings: list[str] = field(default_factory=list)
    #: the paths that pip took from conda: (conda's package, pip's)
    clobbered: dict[str, tuple[Dist, Dist]] = field(default_factory=dict)
    #: empty unless it was asked for
    parts: Parts = field(default_factory=dict)


def spread(device: int) -> int:
    """Return what is added to the inode numbers of a device to tell them from those of others."""
    return device * _SPREAD & _LOW


def ident(key: InodeKey) -> int:
    """Return 64 bits that tell an inode from all others: nearly always, and never the last word."""
    return (key.number + spread(key.device)) & _LOW


def stamp(stat: os.stat_result) -> int:
    """Return 64 bits that change with what a directory has, or a record says."""
    return (stat.st_mtime_ns + 3 * stat.st_ctime_ns + 5 * stat.st_ino + 7 * stat.st_size) & _LOW


def dist_id(dist: Dist) -> int:
    """Return 64 bits for a dist."""
    return int.from_bytes(blake2b(repr(tuple(dist)).encode(), digest_size=8).digest(), "little")


def base_key(claim: Claim, hazard: Hazard) -> int:
    """Return 64 bits for what a claim says of the content; 0 if it says nothing. See :func:`sized_key`."""
    if claim.sha256 is not None:
        return base_of(claim.sha256)
    if hazard is Hazard.BYTECODE and not claim.pip:
        return base_of(claim.dist.identity, claim.path)
    return 0


def base_of(*said: object) -> int:
    """Return 64 bits for a digest, or for the place of a file in its package."""
    if isinstance(said[0], bytes):
        return int.from_bytes(said[0][:8], "little")
    return int.from_bytes(blake2b(repr(said).encode(), digest_size=8).digest(), "little")


def sized_key(base: int, size: int) -> int:
    """Return the key of a content: of that size."""
    return ((base + size * _SPREAD) & _LOW) or 1


def pack_stat(stat: os.stat_result, disk_bytes: int, own_bytes: int) -> bytes:
    """Pack what a row says of its inode; ``own_bytes`` are -1 where that was not asked."""
    return _STAT.pack(
        stat.st_dev & _LOW,
        stat.st_ino & _LOW,
        stat.st_ino >> 64,
        stat.st_size,
        disk_bytes,
        stat.st_mtime_ns & _LOW,
        stat.st_ctime_ns & _LOW,
        own_bytes,
        stat.st_mode,
        stat.st_uid,
        stat.st_gid,
        stat.st_nlink,
    )


def pack_claim(claim: Claim, path: str, dist: int) -> bytes:
    """Pack what a record says of a file at ``path``; ``dist`` is the number of its dist."""
    size = min(claim.size, _MOST)
    flags = claim.prefixed * _PREFIXED | claim.no_link * _NO_LINK | claim.pip * _PIP
    said = b""
    if claim.path == path:
        flags |= _SAME_PATH
    elif path.partition("/")[2] == claim.path:
        flags |= _BELOW_PACKAGE
    else:
        said = _encoded(claim.path)
    if claim.sha256 is not None:
        return _CLAIM.pack(dist, flags | _DIGEST, size) + claim.sha256 + said
    return _CLAIM.pack(dist, flags, size) + said


def pack_name(hazard: Hazard, path: str, claim: bytes) -> bytes:
    """Pack what a row says besides its inode; ``claim`` is empty if no record speaks of the file."""
    name = _encoded(path)
    return _HEAD.pack(hazard, len(name), len(claim)) + name + claim


def _encoded(path: str) -> bytes:
    return path.encode("utf-8", "surrogatepass")


def _time(packed: int) -> int:
    return packed if packed < _BEFORE_1970 else packed - _LOW - 1


class Unpacker:
    """Makes objects of packed rows; equal claims are one object."""

    #: So many claims are kept.
    _MOST = 50_000

    def __init__(self) -> None:
        self.dists: dict[int, Dist] = {}
        self._claims: dict[tuple[bytes, str], Claim] = {}

    def key(self, row: bytes) -> InodeKey:
        """Return whose name a row is."""
        device, low, high = _STAT.unpack_from(row)[:3]
        return InodeKey(device, high << 64 | low)

    def inode(self, row: bytes) -> Inode:
        """Return the inode of a row, without any name."""
        device, low, high, size, disk, mtime, ctime, own, mode, uid, gid, links = _STAT.unpack_from(row)
        key = InodeKey(device, high << 64 | low)
        inode = Inode(key, size, disk, mode, uid, gid, links, _time(mtime), _time(ctime))
        if own >= 0:
            inode.own_bytes = own
        return inode

    def name(self, row: bytes, tree: int) -> tuple[Name, Hazard]:
        """Return the name that a row of the tree is, and its hazard class."""
        hazard, length, size = _HEAD.unpack_from(row, _STAT.size)
        start = _STAT.size + _HEAD.size
        path = row[start : start + length].decode("utf-8", "surrogatepass")
        claim = self._claim(row[start + length :], path) if size else None
        return Name(tree, path, claim), Hazard(hazard)

    def _claim(self, packed: bytes, path: str) -> Claim:
        dist, flags, size = _CLAIM.unpack_from(packed)
        said = path.partition("/")[2] if flags & _BELOW_PACKAGE else path if flags & _SAME_PATH else ""
        claim = self._claims.get((packed, said))
        if claim is not None:
            return claim
        start = _CLAIM.size
        digest = None
        if flags & _DIGEST:
            digest = packed[start : start + _DIGEST_BYTES]
            start += _DIGEST_BYTES
        claim = Claim(
            self.dists[dist],
            said or packed[start:].decode("utf-8", "surrogatepass"),
            digest,
            size,
            bool(flags & _PREFIXED),
            bool(flags & _NO_LINK),
            bool(flags & _PIP),
        )
        if len(self._claims) >= self._MOST:
            self._claims.clear()
        self._claims[packed, said] = claim
        return claim
