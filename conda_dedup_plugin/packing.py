"""Rows as bytes: what one name of a file says of its inode, of its path and of what a record claims."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from .listing import LOW
from .model import Claim, Hazard, Inode, InodeKey, Name

if TYPE_CHECKING:
    import os

    from .model import Dist

#: device, number (low and high half), size, disk bytes, mtime, ctime, own bytes (-1: not asked), mode, uid,
#: gid, names
_STAT = struct.Struct("<QQQqqQQqIIII")
#: So many bytes of a row tell its inode from all others.
KEY_BYTES = 24
_HAZARDS = tuple(Hazard)
#: hazard, bytes of the path, bytes of the claim
_HEAD = struct.Struct("<BIH")
#: dist, flags, size
_CLAIM = struct.Struct("<QBq")
#: So many first bytes of a row tell how many it has.
HEAD_BYTES = _STAT.size + _HEAD.size
_PREFIXED, _NO_LINK, _PIP, _DIGEST, _SAME_PATH, _BELOW_PACKAGE = (1 << bit for bit in range(6))
_DIGEST_BYTES = 32
#: Times from here on are before 1970: those of ext4 and XFS go beyond 63 bits of nanoseconds.
_BEFORE_1970 = LOW - (1 << 62)
_MOST = (1 << 63) - 1


def pack_stat(stat: os.stat_result, disk_bytes: int, own_bytes: int) -> bytes:
    """Pack what a row says of its inode; ``own_bytes`` are -1 where that was not asked."""
    return _STAT.pack(
        stat.st_dev & LOW,
        stat.st_ino & LOW,
        stat.st_ino >> 64,
        stat.st_size,
        disk_bytes,
        stat.st_mtime_ns & LOW,
        stat.st_ctime_ns & LOW,
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


def row_length(packed: bytes, start: int) -> int:
    """Return how many bytes the row has that begins at ``start``; struct.error: its head is not all there."""
    _, length, size = _HEAD.unpack_from(packed, start + _STAT.size)
    return HEAD_BYTES + int(length) + int(size)


def _encoded(path: str) -> bytes:
    return path.encode("utf-8", "surrogatepass")


def _time(packed: int) -> int:
    return packed if packed < _BEFORE_1970 else packed - LOW - 1


class Unpacker:
    """Makes objects of packed rows; equal claims are one object."""

    #: So many claims and names are kept.
    _MOST = 20_000

    def __init__(self) -> None:
        self.dists: dict[int, Dist] = {}
        self._claims: dict[tuple[bytes, str], Claim] = {}
        #: by what rows say besides their inode: the path, the claim, the hazard class
        self._names: dict[bytes, tuple[str, Claim | None, Hazard]] = {}

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
        packed = row[_STAT.size :]
        known = self._names.get(packed)
        if known is None:
            if len(self._names) >= self._MOST:
                self._names.clear()
            known = self._names[packed] = self._unpacked(packed)
        path, claim, hazard = known
        return Name(tree, path, claim), hazard

    def _unpacked(self, packed: bytes) -> tuple[str, Claim | None, Hazard]:
        hazard, length, size = _HEAD.unpack_from(packed)
        end = _HEAD.size + length
        path = packed[_HEAD.size : end].decode("utf-8", "surrogatepass")
        return path, self._claim(packed[end:], path) if size else None, _HAZARDS[hazard]

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
