"""What the functions of :mod:`conda_dedup_plugin.api` are given and return: plain, frozen data.

Sizes are in bytes of disk, where an inode counts once.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from .engine import Analysis

#: One path or several.
Paths: TypeAlias = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]


@dataclass(frozen=True, slots=True)
class Options:
    """What may be shared how; None: as the settings say. The options of ``conda dedup apply``, in short."""

    method: Literal["auto", "reflink", "hardlink"] | None = None
    goal: Literal["bytes", "inodes"] | None = None
    #: Files of fewer bytes are left alone.
    min_size: int | None = None
    hardlink_untracked: bool | None = None
    normalize_bytecode: bool | None = None
    include_cache: bool = False
    override_frozen: bool = False
    #: On an overlay: all files lie in its upper layer (a container build).
    same_layer: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """An environment or a package cache, by its real path; ``manager``: "conda", "rattler", "venv", …

    ``files`` counts names; ``apparent_bytes`` counts the size of every name, ``disk_bytes`` an inode once,
    and ``private_bytes`` those that no other environment or cache in the scan holds.
    """

    path: str
    name: str
    manager: str
    files: int
    apparent_bytes: int
    disk_bytes: int
    private_bytes: int


@dataclass(frozen=True, slots=True)
class Scan:
    """What there is. ``disk_bytes`` is what all of it takes together."""

    environments: tuple[Found, ...]
    caches: tuple[Found, ...]
    disk_bytes: int
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Share:
    """A file to be shared with its keeper: all of its paths, and the bytes that frees.

    ``method``: "reflink", "blocks" (those that are equal) or "hardlink".
    """

    method: str
    keeper: str
    paths: tuple[str, ...]
    bytes: int


@dataclass(frozen=True, slots=True)
class Kept:
    """Duplicates that stay as they are, for one reason."""

    reason: str
    inodes: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What :func:`apply` would do, and what is held back. The same plan can be given to :func:`apply`."""

    shares: tuple[Share, ...]
    held: tuple[Kept, ...]
    freeable_bytes: int
    freeable_inodes: int
    warnings: tuple[str, ...]
    _analysis: Analysis = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Failure:
    """A file that could not be shared, for a reason that was not to be expected."""

    path: str
    error: str


@dataclass(frozen=True, slots=True)
class Applied:
    """What was done: ``run`` is its number in the journal, for ``undo --run``; "": none was kept.

    ``names`` counts paths; ``left_alone`` is what was planned and then not done.
    """

    run: str
    inodes: int
    names: int
    bytes_freed: int
    inodes_freed: int
    left_alone: tuple[Kept, ...]
    failed: tuple[Failure, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Shared:
    """What was shared of an installation; ``unfinished``: the time was over, a later run does the rest."""

    names: int = 0
    bytes_freed: int = 0
    failed: int = 0
    unfinished: bool = False
    warnings: tuple[str, ...] = ()
