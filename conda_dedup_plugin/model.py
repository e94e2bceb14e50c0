"""The words of the project as data: no I/O here, and nothing that knows of conda.

Sizes are integers of bytes. *Disk bytes* are ``st_blocks * 512``. Paths inside a tree are relative
to its root, with ``/`` between components, decoded with ``os.fsdecode``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from msgspec import Struct, field
from msgspec.structs import replace

from .kinds import Cause, Goal, Hazard, Manager, Method, MethodChoice, Reason, TreeKind
from .layouts import Extent, Layout, disk_bytes_of
from .totals import Totals, TreeTotals

if TYPE_CHECKING:
    import os

__all__ = [
    "Cause",
    "Claim",
    "Device",
    "Dist",
    "Extent",
    "Goal",
    "Hazard",
    "Inode",
    "InodeKey",
    "Layout",
    "Manager",
    "Method",
    "MethodChoice",
    "NO_USER",
    "Name",
    "Reason",
    "SCHEMA",
    "SETID_BITS",
    "STAGING_PREFIX",
    "Scope",
    "Source",
    "Totals",
    "Tree",
    "TreeKind",
    "TreeTotals",
]

#: Set-user-id and set-group-id: files with either are never shared.
SETID_BITS = 0o6000
SCHEMA = 1
#: In the place of a user, where files have no owner that could be compared (Windows).
NO_USER = -1
#: Our staging directories begin so; they stand at the root of a tree, and only during a run.
STAGING_PREFIX = ".conda-dedup-"


class Dist(NamedTuple):
    """One build of one package: name, version, build string, subdir and the digest of its archive.

    ``digest`` is the archive's sha256, else its md5, else empty; ``channel`` is for display and never
    compared alone. For a pip package ``build`` has the tags of its wheel and ``subdir`` is ``pypi``.
    """

    name: str
    version: str
    build: str
    subdir: str
    digest: str
    channel: str = ""

    @property
    def identity(self) -> tuple[str, str, str, str, str]:
        """What two records must agree in to speak of the same build."""
        return (self.name, self.version, self.build, self.subdir, self.digest)

    def __str__(self) -> str:
        built = self.build and self.subdir != "pypi"
        return "-".join((self.name, self.version, self.build) if built else (self.name, self.version))


class Claim(NamedTuple):
    """What a record says of one file.

    ``sha256`` is the raw digest of the content as installed, or None where the record has none;
    ``size`` is the size it belongs to, or -1 where the record does not say. ``path`` is the path in the
    dist (a cache's own path; for noarch Python ``site-packages/...`` where known). ``prefixed``: the
    package manager patched the prefix into it. ``no_link``: the package forbids linking it.
    """

    dist: Dist
    path: str
    sha256: bytes | None = None
    size: int = -1
    prefixed: bool = False
    no_link: bool = False
    pip: bool = False


class Tree(Struct, frozen=True):
    """An environment (prefix) or a package cache, by its real path."""

    root: str
    kind: TreeKind
    manager: Manager
    name: str
    #: False: its files may be keepers, but none of them is replaced and it has no row in the report.
    selected: bool = True
    #: CEP 22: marked as frozen by ``conda-meta/frozen``.
    frozen: bool = False
    #: Made by ``conda create --clone``.
    cloned: bool = False

    @property
    def is_cache(self) -> bool:
        """Whether this is a package cache."""
        return self.kind is TreeKind.CACHE

    @property
    def is_conda_cache(self) -> bool:
        """Whether hard links inside would mislead ``conda clean`` (rattler's caches count none)."""
        return self.is_cache and self.manager in (Manager.CONDA, Manager.MAMBA)


class Scope(Struct, frozen=True):
    """The trees a run looks at, no tree twice, and what went wrong while finding them."""

    trees: tuple[Tree, ...]
    warnings: tuple[str, ...] = ()

    def trees_of(self, inode: Inode) -> list[Tree]:
        """Return the tree of each name of an inode."""
        return [self.trees[name.tree] for name in inode.names]

    def paths_of(self, inode: Inode) -> list[str]:
        """Return every known name of an inode as an absolute path."""
        return [f"{self.trees[name.tree].root}/{name.path}" for name in inode.names]


class Name(NamedTuple):
    """One name of an inode: the index of its tree in the scope, its path there, what a record says."""

    tree: int
    path: str
    claim: Claim | None


class InodeKey(NamedTuple):
    """What the kernel knows an inode by."""

    device: int
    number: int


class Inode(Struct):
    """One inode of at least the minimal size, with every name of it that was seen."""

    key: InodeKey
    size: int
    disk_bytes: int
    mode: int
    uid: int
    gid: int
    nlink: int
    mtime_ns: int
    ctime_ns: int
    names: list[Name] = field(default_factory=list)
    hazard: Hazard = Hazard.NATIVE
    #: Extended attributes, ACL and labels, as one comparable value; looked at for candidates only.
    xattrs: bytes = b""
    #: Has file capabilities.
    capabilities: bool = False
    #: Where its bytes lie on the device, where that can be asked for; looked at for candidates only.
    layout: Layout | None = None
    #: Disk bytes that it alone holds, at least; None: the same as all, as far as anybody has asked.
    own_bytes: int | None = None
    #: The sha256 (raw) of its content where that was read; ``b""``: read far enough to know that no other
    #: file holds the same; None: it was not looked at.
    content: bytes | None = None
    #: Never copied on write (``chattr +C`` on btrfs): such a file cannot share extents with any other.
    nodatacow: bool = False

    @classmethod
    def of(cls, stat: os.stat_result) -> Inode:
        """The inode that an lstat speaks of, without names."""
        return cls(
            key=InodeKey(stat.st_dev, stat.st_ino),
            size=stat.st_size,
            disk_bytes=disk_bytes_of(stat),
            mode=stat.st_mode,
            uid=stat.st_uid,
            gid=stat.st_gid,
            nlink=stat.st_nlink,
            mtime_ns=stat.st_mtime_ns,
            ctime_ns=stat.st_ctime_ns,
        )

    def alone(self) -> Inode:
        """The same inode without its names: for those that a task is about."""
        return replace(self, names=[])

    @property
    def privileged(self) -> bool:
        """Whether it is setuid or setgid, or has file capabilities: such files are never shared."""
        return bool(self.mode & SETID_BITS) or self.capabilities


class Source(Struct, frozen=True):
    """The ``.py`` that bytecode is compiled from: ``inode``, which is to get another modification time (ns).

    ``keeper`` is the source of the keeper's bytecode, where one is shared.
    """

    inode: Inode
    mtime_ns: int
    keeper: Inode | None = None


class Device(Struct, frozen=True):
    """What one device can do; ``link_limit`` is the most names an inode may have.

    ``pool`` names the file system: subvolumes of btrfs are devices of their own, and share extents.
    """

    number: int
    file_system: str
    reflink: bool
    hardlink: bool
    overlay: bool = False
    remote: bool = False
    link_limit: int = 65_000
    #: Whether the file that was asked could tell; somebody else's cannot.
    certain: bool = True
    pool: str = ""
    #: Extents begin and end at multiples of so many bytes.
    block_size: int = 4096
    #: Whether a reflink leaves the inode as it is; else a clone takes its place (macOS).
    in_place: bool = True
    #: Whether parts of files can be shared.
    blocks: bool = True

    @property
    def pins_extents(self) -> bool:
        """Whether an extent stays as a whole while any byte of it is in use (btrfs)."""
        return self.file_system == "btrfs"
