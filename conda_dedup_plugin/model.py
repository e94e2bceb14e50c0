"""The words of the project as data: no I/O here, and nothing that knows of conda.

Sizes are integers of bytes. *Disk bytes* are ``st_blocks * 512``. Paths inside a tree are relative
to its root, with ``/`` between components, decoded with ``os.fsdecode``.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import os

#: Set-user-id and set-group-id: files with either are never shared.
SETID_BITS = 0o6000
SCHEMA = 1
#: Our staging directories begin so; they stand at the root of a tree, and only during a run.
STAGING_PREFIX = ".conda-dedup-"


class TreeKind(enum.Enum):
    """What a directory in scope is."""

    ENVIRONMENT = "environment"
    CACHE = "cache"


class Manager(enum.Enum):
    """Which package manager made a tree; decides the dialect of its records and the rules for caches."""

    CONDA = "conda"
    MAMBA = "mamba"
    RATTLER = "rattler"
    PIXI = "pixi"
    MAGIC = "magic"
    UV = "uv"
    #: a virtual environment: it has a ``pyvenv.cfg`` and no ``conda-meta``
    VENV = "venv"


class Method(enum.Enum):
    """How two inodes come to share their bytes, or names to a private copy of them."""

    REFLINK = "reflink"
    HARDLINK = "hardlink"
    #: undo: the bytes there are, in an inode of its own
    COPY = "copy"
    #: verify --repair: the bytes there should be
    REPAIR = "repair"
    #: a ``.py`` gets the modification time that its bytecode is to have
    RETIME = "retime"


class MethodChoice(enum.Enum):
    """What the user asked for: ``auto`` is a reflink where the device can, else a hard link."""

    AUTO = "auto"
    REFLINK = "reflink"
    HARDLINK = "hardlink"


class Goal(enum.Enum):
    """What is to be saved: a reflink saves no inode."""

    BYTES = "bytes"
    INODES = "inodes"


class Cause(enum.Enum):
    """Where a duplicate comes from."""

    PIP = "pip"
    COPY = "copy"
    OTHER_DEVICE = "other_device"
    CLONE = "clone"
    BYTECODE = "bytecode"
    WITHIN_PACKAGE = "within_package"
    OTHER_BUILD = "other_build"
    OTHER_CACHE = "other_cache"
    UNTRACKED = "untracked"


class Hazard(enum.IntEnum):
    """What a file is, as far as sharing it is a hazard; a higher value is stricter."""

    NATIVE = 0
    BYTECODE = 1
    PACKAGE = 2
    UNTRACKED = 3
    MUTABLE = 4
    PREFIXED = 5


class Reason(enum.Enum):
    """Why a duplicate stays, or a share was skipped; the value is what users read."""

    # known when planning
    NAMES_OUTSIDE = "more names outside the scan"
    NOT_SELECTED = "not among the selected environments"
    CACHE_NAME = "cache name"
    OTHER_DEVICE = "other device"
    OTHER_OWNER = "other owner"
    OTHER_MODE = "other mode"
    OTHER_XATTRS = "other extended attributes or ACL"
    OTHER_MTIME = "other modification time"
    WRITABLE = "others may write to it"
    SETID = "setuid, setgid or file capabilities"
    FROZEN = "frozen environment"
    LOADER = "loader identity"
    MUTABLE = "may be changed in place"
    UNTRACKED = "not a package's file"
    PACKAGE = "neither in a cache nor the same file of the same package"
    ONE_ENVIRONMENT = "two text or data files of one environment"
    PREFIXED = "patched with the prefix"
    OVERLAY = "overlay: sharing lower files would grow the upper layer"
    NO_REFLINK = "device cannot reflink"
    COPIES_ASKED = "independent copies were asked for"
    SHARED_OUTSIDE = "extents shared outside the scan"
    LINK_LIMIT = "link limit"
    NO_SHARING = "no way of sharing on this device"
    # found when sharing
    CHANGED = "changed since it was looked at"
    DIFFERENT = "content differs"
    BUSY = "open for writing"
    VANISHED = "no longer there"
    NOT_REGULAR = "not a regular file below its tree"
    TOO_YOUNG = "changed less than 5 s ago on a network file system"
    NO_ACCESS = "permission denied"
    IMMUTABLE = "immutable or append-only"
    NO_SPACE = "no space left on the device, or in the quota"
    READ_ONLY = "read-only file system"
    TEXT_BUSY = "being executed"
    NOT_SHARED = "the file system shared nothing"
    UNSUPPORTED = "not supported by the file system"
    CONFLICT = "written through both names while being shared; both contents kept"
    LOCKED = "another run is working on it"
    DESCRIPTORS = "too many open files"
    KEEPER_GONE = "its keeper could not be used"
    BYTECODE = "not all bytecode of its source can be shared"
    STALE = "not valid for its source"


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


@dataclass(frozen=True, slots=True)
class Tree:
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


@dataclass(frozen=True, slots=True)
class Scope:
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


class Layout(NamedTuple):
    """The extents of one file: (logical, physical, length) in bytes, neighbours merged.

    ``shared``: some extent is referenced more than once. ``exact``: every extent has a physical place
    of its own (not inline, not still to be written).
    """

    extents: tuple[tuple[int, int, int], ...]
    shared: bool
    exact: bool


@dataclass(slots=True)
class Inode:
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
    #: The sha256 (raw) of its content where that was read; ``b""``: read far enough to know that no other
    #: file holds the same; None: it was not looked at.
    content: bytes | None = None

    @classmethod
    def of(cls, stat: os.stat_result) -> Inode:
        """The inode that an lstat speaks of, without names."""
        return cls(
            key=InodeKey(stat.st_dev, stat.st_ino),
            size=stat.st_size,
            disk_bytes=stat.st_blocks * 512,
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


@dataclass(frozen=True, slots=True)
class Source:
    """The ``.py`` that bytecode is compiled from: ``inode``, which is to get another modification time (ns).

    ``keeper`` is the source of the keeper's bytecode, where one is shared.
    """

    inode: Inode
    mtime_ns: int
    keeper: Inode | None = None


@dataclass(slots=True)
class Totals:
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

    def add_share(self, size: int, inodes: int) -> None:
        """Count what could be freed, in bytes and inodes."""
        self.duplicate_bytes += size
        self.freeable_bytes += size
        self.freeable_inodes += inodes

    def add_held(self, size: int) -> None:
        """Count bytes that stay."""
        self.duplicate_bytes += size
        self.held_bytes += size


@dataclass(slots=True)
class TreeTotals:
    """What one environment or cache holds: the numbers of an E of the JSON schema."""

    files: int = 0
    inodes: int = 0
    apparent_bytes: int = 0
    disk_bytes: int = 0
    private_bytes: int = 0
    freeable_bytes: int = 0
    freeable_inodes: int = 0


@dataclass(frozen=True, slots=True)
class Device:
    """What one device can do; ``link_limit`` is the most names an inode may have."""

    number: int
    file_system: str
    reflink: bool
    hardlink: bool
    overlay: bool = False
    remote: bool = False
    link_limit: int = 65_000
    #: Whether the file that was asked could tell; somebody else's cannot.
    certain: bool = True
