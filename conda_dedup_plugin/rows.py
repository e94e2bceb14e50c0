"""A change as a row of the journal's table, and back."""

from __future__ import annotations

import os
from typing import Any

import msgspec

from .model import InodeKey, Method
from .sharing.change import Bytecode, Change, Entry

#: So many columns has the table.
COLUMNS = 20


def row_of(number: int, run: str, state: str, change: Change, freed: int) -> tuple[object, ...]:
    """Return the row of a change, in the order of the table's columns."""
    return (
        number, run, state, change.method.value, os.fsencode(change.root), os.fsencode(change.path),
        os.fsencode(change.staged), str(change.old.device), str(change.old.number), change.size,
        change.mtime_ns, change.mode, change.uid, change.gid, str(change.keeper.device),
        str(change.keeper.number), change.keeper_mtime_ns, freed, change.keeper_size,
        b"" if change.bytecode is None else msgspec.msgpack.encode(change.bytecode),
    )  # fmt: skip


def path_of(value: bytes) -> str:
    """Return a path as it stands in the table. ValueError: nobody of us wrote that."""
    path = os.fsdecode(value)
    if "\0" in path:
        raise ValueError("a path with a null byte")
    return path


def entry_of(row: tuple[Any, ...]) -> Entry:
    """Return the change of a row of its table; what follows the table's own columns is left out."""
    number, run, _, method, root, path, staged, device, inode, *numbers, kdev, kino, kmtime = row[:17]
    size, mtime, mode, uid, gid = numbers
    keeper_size, bytecode = row[18:20]
    return Entry(
        number=number,
        run=run,
        change=Change(
            method=Method(method),
            root=path_of(root),
            path=path_of(path),
            staged=path_of(staged),
            old=InodeKey(int(device), int(inode)),
            size=size,
            mtime_ns=mtime,
            mode=mode,
            uid=uid,
            gid=gid,
            keeper=InodeKey(int(kdev), int(kino)),
            keeper_mtime_ns=kmtime,
            keeper_size=keeper_size,
            bytecode=msgspec.msgpack.decode(bytecode, type=Bytecode) if bytecode else None,
        ),
    )
