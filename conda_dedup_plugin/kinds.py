"""The kinds of things there are, and the reasons for what is done or not: enumerations alone."""

from __future__ import annotations

import enum

#: How similar near-identical environments are at least.
NEAR_IDENTICAL = 0.9


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
    #: those runs of blocks that are equal, where not all are
    BLOCKS = "blocks"
    HARDLINK = "hardlink"
    #: undo: the bytes there are, in an inode of its own
    COPY = "copy"
    #: verify --repair: the bytes there should be
    REPAIR = "repair"
    #: a ``.py`` gets the modification time that its bytecode is to have
    RETIME = "retime"

    @property
    def shares_extents(self) -> bool:
        """Whether the inode stays and gets other extents."""
        return self in (Method.REFLINK, Method.BLOCKS)


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
    PREFIX = "prefix"
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
    BUNDLE = "part of an application, which is signed as a whole"
    OVERLAY = "overlay: sharing lower files would grow the upper layer"
    NO_REFLINK = "device cannot reflink"
    COPIES_ASKED = "independent copies were asked for"
    SHARED_OUTSIDE = "extents shared outside the scan"
    LINK_LIMIT = "link limit"
    NO_COW = "not copied on write (chattr +C)"
    NO_BLOCKS = "smaller than a block, or kept inside the metadata"
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
