"""A report that is still true: nothing was added, removed or replaced in any of its trees since.

Every directory tells when its entries changed, and every record of conda's when it was written; so it is
enough to look at those. What was edited in place is not seen. A file of the user's, and a cache: without it,
everything is walked.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
import zlib
from array import array
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec

from . import __version__
from .errors import StateError
from .listing import Folders, stamp
from .state import state_directory, write_atomically
from .workers import spread

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .inventory import Inventory
    from .model import Scope

_FOLDER = "reports"
_FORMAT = 1
#: So many reports are kept, the latest.
_MOST = 4
#: What changed so shortly (ns) before a walk may have changed during it without a new time stamp.
_YOUNG_NS = 2 * 10**9
#: What sharing changes without any directory's notice, it writes down here.
_JOURNAL = ("journal.sqlite", "journal.sqlite-wal")


class _Tree(msgspec.Struct):
    """The directories and records of a tree, and their stamps, packed."""

    root: str
    paths: bytes
    stamps: bytes


class _Kept(msgspec.Struct):
    """A report as it is kept; ``key`` is all that it depends on besides the trees."""

    key: str
    document: bytes
    trees: list[_Tree]


class Recall:
    """The reports of one user on one scope, made with the same options."""

    def __init__(self, scope: Scope, options: object) -> None:
        self._scope = scope
        self._began = time.time()
        said = (_FORMAT, __version__, scope, options)
        self._key = hashlib.sha256(repr(said).encode("utf-8", "surrogatepass")).hexdigest()

    def find(self) -> dict[str, Any] | None:
        """Return the document of a report that would come out the same now, as far as can be seen."""
        path = self._path()
        if path is None:
            return None
        try:
            kept = msgspec.msgpack.decode(path.read_bytes(), type=_Kept)
            if kept.key != self._with_journal() or not all(
                spread(len(kept.trees), lambda number: _is_as_it_was(kept.trees[number]))
            ):
                return None
            document: dict[str, Any] = json.loads(kept.document)
        except (OSError, msgspec.MsgspecError, zlib.error, ValueError):
            return None
        return document

    def keep(self, inventory: Inventory, document: dict[str, Any]) -> None:
        """Keep a report on an inventory that was made since; not if anything could not be read."""
        path = self._path()
        newest = max((folders.newest for folders in inventory.folders.values()), default=0)
        if path is None or inventory.warnings or newest > int(self._began * 1e9) - _YOUNG_NS:
            return
        trees = [
            _Tree(self._scope.trees[index].root, folders.packed, folders.stamps.tobytes())
            for index, folders in inventory.folders.items()
        ]
        # names of files may be no text, which JSON alone can say
        said = json.dumps(document).encode()
        with suppress(OSError):
            path.parent.mkdir(exist_ok=True)
            kept = _Kept(self._with_journal(), said, trees)
            write_atomically(path, msgspec.msgpack.encode(kept))
            for old in sorted(path.parent.iterdir(), key=lambda file: -file.stat().st_mtime_ns)[_MOST:]:
                old.unlink()

    def _path(self) -> Path | None:
        try:
            return state_directory() / _FOLDER / f"{self._key[:16]}.bin"
        except StateError:
            return None

    def _with_journal(self) -> str:
        return f"{self._key} {list(_journal())}"


def forget() -> None:
    """Forget all reports: extents were shared, of which neither a directory nor a journal tells."""
    with suppress(OSError, StateError):
        for path in (state_directory() / _FOLDER).iterdir():
            path.unlink()


def _journal() -> Iterator[tuple[int, int]]:
    for name in _JOURNAL:
        with suppress(OSError, StateError):
            found = (state_directory() / name).stat()
            yield found.st_size, found.st_mtime_ns


def _is_as_it_was(tree: _Tree) -> bool:
    stamps: array[int] = array("Q")
    stamps.frombytes(tree.stamps)
    paths = Folders.unpacked(tree.paths)
    try:
        return all(
            stamp(os.lstat(f"{tree.root}/{path}")) == there for path, there in zip(paths, stamps, strict=True)
        )
    except OSError:
        return False
