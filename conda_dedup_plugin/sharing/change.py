"""One change to one name, as it is written down before it is made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..model import InodeKey, Method


@dataclass(frozen=True, slots=True)
class Change:
    """One name that is given to another inode (hard link), or one inode that is given other extents.

    ``root`` and ``path`` name the target, ``staged`` is where the keeper's new name waits, and the old
    inode after the exchange, as a path in the same tree (empty for reflinks). ``old`` and its size,
    mtime (ns), mode, uid and gid are what the name stood for before.
    """

    method: Method
    root: str
    path: str
    staged: str
    old: InodeKey
    size: int
    mtime_ns: int
    mode: int
    uid: int
    gid: int
    keeper: InodeKey
    keeper_mtime_ns: int


@dataclass(frozen=True, slots=True)
class OpenIntent:
    """A change of a run that died before it could say what came of it."""

    number: int
    run: str
    change: Change
