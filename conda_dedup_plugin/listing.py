"""What one tree holds, as columns of numbers and packed rows: cheap to make, to hand on and to put away.

A row is one name of a file that may be shared. Objects are made only of the rows that somebody asks for:
see :mod:`.shelf`.
"""

from __future__ import annotations

import zlib
from array import array
from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from msgspec import Struct, field

from .model import Claim, Dist, Hazard, InodeKey, Totals, TreeTotals

if TYPE_CHECKING:
    import os

    from .model import Extent

#: The low 64 bits of a number.
LOW = (1 << 64) - 1
#: For each dist (0: no record speaks of the files) and hazard class: disk bytes, and the length of the
#: extents of which that is not known file by file.
Parts = dict[tuple[int, Hazard], tuple[int, int]]
#: Keeps the inode numbers of one device from those of another.
_SPREAD = 0x9E3779B97F4A7C15
#: In the kinds of what has several names, beside the hazard class.
RECORDED = 8


#: What tells one build of a package: rattler's caches do not say from which archive.
Build: TypeAlias = tuple[str, ...]


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


class Linked(Struct):
    """The inodes of a tree that have several names: a column each, an element for every inode."""

    idents: array[int] = field(default_factory=lambda: array("Q"))
    plain: array[int] = field(default_factory=lambda: array("q"))
    #: the hazard class, and whether a record speaks of it
    kinds: bytearray = field(default_factory=bytearray)


class Folders(Struct):
    """The directories of a tree, and its records, with a stamp that changes when they do."""

    #: their paths, compressed
    packed: bytes = b""
    stamps: array[int] = field(default_factory=lambda: array("Q"))
    #: when one of them changed last, in nanoseconds since the epoch
    newest: int = 0
    _paths: list[str] = field(default_factory=list)

    def add(self, path: str, stat: os.stat_result) -> None:
        """Note one of them as it is now."""
        self._paths.append(path)
        self.stamps.append(stamp(stat))
        if stat.st_mtime_ns > self.newest or stat.st_ctime_ns > self.newest:
            self.newest = max(stat.st_mtime_ns, stat.st_ctime_ns)

    def pack(self) -> None:
        """Put the paths away, once all are there."""
        self.packed = zlib.compress("\0".join(self._paths).encode("utf-8", "surrogatepass"), 1)
        self._paths = []

    @staticmethod
    def unpacked(packed: bytes) -> list[str]:
        """Return the paths. zlib.error, ValueError: these are none."""
        return zlib.decompress(packed).decode("utf-8", "surrogatepass").split("\0")


class Listing(Struct):
    """The tree at ``index``: what is counted of it, and a row for every name that may be shared.

    Of what several names share, ``classes`` counts the names alone; the rest is in ``linked``. The columns
    have an element for every row: ``idents`` tells its inode, ``keys`` its content going by the records
    (0: they do not say), ``starts`` where it begins in ``rows``.
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
    starts: array[int] = field(default_factory=lambda: array("Q"))
    rows: bytes = b""
    #: the numbers of those it lies on
    devices: set[int] = field(default_factory=set)
    #: False: no files of any device share extents, as far as was asked up to now
    may_share_extents: bool = True
    #: the dists that rows of this listing, and of later ones, speak of
    dists: dict[int, Dist] = field(default_factory=dict)
    folders: Folders = field(default_factory=Folders)
    #: of a cache: for each build that has a row, the bytes on disk that it alone holds there
    builds: dict[Build, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    #: the paths that pip took from conda: (conda's package, pip's)
    clobbered: dict[str, tuple[Dist, Dist]] = field(default_factory=dict)
    #: empty unless it was asked for
    parts: Parts = field(default_factory=dict)


def spread(device: int) -> int:
    """Return what is added to the inode numbers of a device to tell them from those of others."""
    return device * _SPREAD & LOW


def ident(key: InodeKey) -> int:
    """Return 64 bits that tell an inode from all others: nearly always, and never the last word."""
    return (key.number + spread(key.device)) & LOW


def stamp(stat: os.stat_result) -> int:
    """Return 64 bits that change with what a directory has, or a record says."""
    return (stat.st_mtime_ns + 3 * stat.st_ctime_ns + 5 * stat.st_ino + 7 * stat.st_size) & LOW


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
    return ((base + size * _SPREAD) & LOW) or 1
