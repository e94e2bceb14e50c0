"""One change to one name, as it is written down before it is made."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from ..model import Method

if TYPE_CHECKING:
    from ..model import Inode, InodeKey


class Bytecode(msgspec.Struct, frozen=True):
    """What undoing wants to know of bytecode that was given the keeper's.

    ``filename`` is the path of the source that stood in it, ``sha256`` (raw) that of its content; its source
    at ``source`` in the same tree had the time ``before`` and got ``given`` (ns).
    """

    filename: bytes
    sha256: bytes
    source: str
    before: int
    given: int


class Change(Struct, frozen=True):
    """One name that is given to another inode (hard link), or one inode that is given other extents.

    ``root`` and ``path`` name the target, ``staged`` is where the keeper's new name waits, and the old
    inode after the exchange, as a path in the same tree (empty for reflinks in place). ``old`` and its size,
    mtime (ns), mode, uid and gid are what the name stood for before; the keeper's size is -1 where an older
    journal does not tell it, and then that of the old inode.
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
    keeper_size: int = -1
    bytecode: Bytecode | None = None

    @classmethod
    def of(
        cls,
        method: Method,
        root: str,
        path: str,
        staged: str,
        old: Inode,
        keeper: Inode,
        bytecode: Bytecode | None = None,
    ) -> Change:
        """What is about to be done to one name of ``old``, which is as it was planned, like its keeper."""
        return cls(
            method=method,
            root=root,
            path=path,
            staged=staged,
            old=old.key,
            size=old.size,
            mtime_ns=old.mtime_ns,
            mode=old.mode,
            uid=old.uid,
            gid=old.gid,
            keeper=keeper.key,
            keeper_mtime_ns=keeper.mtime_ns,
            keeper_size=keeper.size,
            bytecode=bytecode,
        )

    @property
    def replaced(self) -> bool:
        """Whether the name was given to another inode: its keeper's, or a clone of that."""
        return self.method is Method.HARDLINK or (self.method is Method.REFLINK and bool(self.staged))

    def keeper_is_as_noted(self, inode: Inode) -> bool:
        """Whether the keeper, as ``inode``, has the size and mtime that it was noted with."""
        size = self.size if self.keeper_size < 0 else self.keeper_size
        return (inode.size, inode.mtime_ns) == (size, self.keeper_mtime_ns)


class Entry(Struct, frozen=True):
    """A change as it stands in the journal: its number there, and the run that it is of."""

    number: int
    run: str
    change: Change
