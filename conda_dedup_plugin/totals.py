"""What is counted: of everything, and of each tree. Pure."""

from __future__ import annotations

from msgspec import Struct


class Totals(Struct):
    """Counted bytes: the T of the JSON schema.

    ``files`` counts names, ``inodes`` and all ``*_bytes`` but ``apparent_bytes`` count inodes once;
    ``duplicate_bytes == freeable_bytes + held_bytes``, in disk bytes.
    """

    files: int = 0
    inodes: int = 0
    apparent_bytes: int = 0
    disk_bytes: int = 0
    duplicate_bytes: int = 0
    freeable_bytes: int = 0
    held_bytes: int = 0
    unrecorded_bytes: int = 0
    freeable_inodes: int = 0
    #: Of the disk bytes, what compressed files take: no file system says how much that is.
    estimated_bytes: int = 0
    #: Of the freeable bytes, what stays if somebody outside the scan holds the same extents, too.
    uncertain_bytes: int = 0

    def add(self, other: Totals) -> None:
        """Add what is counted in another one."""
        for counted in self.__struct_fields__:
            setattr(self, counted, getattr(self, counted) + getattr(other, counted))

    def add_share(self, size: int, inodes: int) -> None:
        """Count what could be freed, in bytes and inodes."""
        self.duplicate_bytes += size
        self.freeable_bytes += size
        self.freeable_inodes += inodes

    def add_held(self, size: int) -> None:
        """Count bytes that stay."""
        self.duplicate_bytes += size
        self.held_bytes += size


class TreeTotals(Struct):
    """What one environment or cache holds: the numbers of an E of the JSON schema."""

    files: int = 0
    inodes: int = 0
    apparent_bytes: int = 0
    disk_bytes: int = 0
    private_bytes: int = 0
    freeable_bytes: int = 0
    freeable_inodes: int = 0
