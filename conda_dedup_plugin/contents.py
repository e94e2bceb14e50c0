"""Files that no record speaks of are read: no more of each than tells it from the others of its size.

The size tells most files apart, the first and last bytes most of the rest. Of files with a digest in a
record none is read as a whole, and of several with the same digest one at most.
"""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from .candidates import recorded_key
from .digests import DigestCache, Known
from .sharing.copying import digest_of
from .sharing.opening import Directories, as_planned, open_inode
from .sharing.system import pread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from .model import Inode, Scope
    from .progress import Progress

#: So many bytes are read at each end.
_END = 4096
#: So many files are read at once, and by one thread in turn.
_READERS = 4
_CHUNK = 64


class _Entry:
    """Inodes that records say hold the same bytes, or one that they say nothing of."""

    __slots__ = ("digest", "inodes", "known")

    def __init__(self, inodes: list[Inode], digest: bytes) -> None:
        self.inodes = inodes
        #: The content's sha256 (raw) as a record has it; empty: no record has.
        self.digest = digest
        self.known = Known()

    @property
    def whole(self) -> bytes:
        return self.digest or self.known.whole


def read_contents(scope: Scope, inodes: Iterable[Inode], progress: Progress) -> list[str]:
    """Note for every inode without a recorded digest whether, and with which, it shares its content.

    Sets ``Inode.content``. Returns a sentence for what could not be read. Nothing is read of a size that
    no selected tree has twice.
    """
    warnings: list[str] = []
    classes = list(_classes(scope, inodes))
    cache = DigestCache()
    try:
        entries = [entry for members in classes for entry in members]
        for entry in entries:
            entry.known = cache.get(entry.inodes[0])
        unread = [entry for entry in entries if not entry.known.ends]
        with progress.stage("Reading the ends of files", len(unread)) as advance:
            _read(scope, cache, unread, _ends_of, lambda _: advance(1), warnings)
        alike = [members for found in classes for members in _alike(found)]
        unread = [entry for members in alike for entry in members if not entry.whole]
        with progress.stage("Reading files", sum(entry.inodes[0].size for entry in unread)) as advance:
            _read(scope, cache, unread, _whole_of, lambda entry: advance(entry.inodes[0].size), warnings)
        _note(classes)
    finally:
        cache.close()
    return warnings


def _classes(scope: Scope, inodes: Iterable[Inode]) -> Iterator[list[_Entry]]:
    """Yield what there is of each size, where that may be a duplicate that no record tells."""
    sizes: dict[int, list[Inode]] = defaultdict(list)
    for inode in inodes:
        sizes[inode.size].append(inode)
    for found in sizes.values():
        if len(found) < 2:
            continue
        entries: list[_Entry] = []
        by_key: dict[object, _Entry] = {}
        for inode in found:
            key = recorded_key(inode)
            if key is None:
                entries.append(_Entry([inode], b""))
            elif key in by_key:
                by_key[key].inodes.append(inode)
            else:
                # (size, digest), or of bytecode (size, dist, path): that is equal in every environment
                digest = key[1] if len(key) == 2 and isinstance(key[1], bytes) else b""
                by_key[key] = _Entry([inode], digest)
                entries.append(by_key[key])
        selected = any(tree.selected for inode in found for tree in scope.trees_of(inode))
        if selected and len(entries) > 1 and not all(entry.digest for entry in entries):
            yield entries


def _alike(entries: Sequence[_Entry]) -> Iterator[list[_Entry]]:
    """Yield those that have the same ends, where one of them has no digest."""
    by_ends: dict[bytes, list[_Entry]] = defaultdict(list)
    for entry in entries:
        if entry.known.ends:
            by_ends[entry.known.ends].append(entry)
    for found in by_ends.values():
        if len(found) > 1 and not all(entry.digest for entry in found):
            yield found


def _note(classes: Iterable[Sequence[_Entry]]) -> None:
    """Set the content of what no record has a digest of."""
    for entries in classes:
        counts: dict[bytes, int] = defaultdict(int)
        for entry in entries:
            counts[entry.whole] += 1
        for entry in entries:
            if entry.digest:
                continue
            if entry.whole and (counts[entry.whole] > 1 or len(entry.inodes) > 1):
                content = entry.whole
            elif len(entry.inodes) > 1:
                continue  # the records' word on what they pair up stands
            else:
                content = b""
            for inode in entry.inodes:
                inode.content = content


def _read(
    scope: Scope,
    cache: DigestCache,
    entries: Sequence[_Entry],
    read: Callable[[int, Inode], Known],
    done: Callable[[_Entry], None],
    warnings: list[str],
) -> None:
    """Read one inode of each entry, several at once, and remember it."""

    def read_some(some: Sequence[_Entry]) -> list[Known | OSError]:
        found: list[Known | OSError] = []
        with Directories() as directories:
            for entry in some:
                try:
                    found.append(_read_one(scope, entry.inodes[0], directories, read))
                except OSError as exc:
                    found.append(exc)
                directories.trim()
        return found

    # those of one directory after one another, and no thread with more than its part of what is big
    ordered = sorted(entries, key=lambda entry: entry.inodes[0].names[0][:2])
    size = max(1, min(_CHUNK, len(ordered) // (4 * _READERS)))
    parts = [ordered[start : start + size] for start in range(0, len(ordered), size)]
    with ThreadPoolExecutor(min(_READERS, os.cpu_count() or 1)) as readers:
        for part, found in zip(parts, readers.map(read_some, parts), strict=True):
            fresh = []
            for entry, known in zip(part, found, strict=True):
                if isinstance(known, OSError):
                    path = scope.paths_of(entry.inodes[0])[0]
                    warnings.append(f"{path!r} could not be compared: {known.strerror or known}")
                    entry.known = Known()
                else:
                    entry.known = known._replace(code=entry.known.code)
                    fresh.append((entry.inodes[0], entry.known))
                done(entry)
            cache.put(fresh)


def _read_one(
    scope: Scope, inode: Inode, directories: Directories, read: Callable[[int, Inode], Known]
) -> Known:
    descriptor = open_inode(scope, inode, directories)
    try:
        known = read(descriptor, inode)
        if not as_planned(os.fstat(descriptor), inode):
            raise OSError(0, "it was changed while it was read")
        return known
    finally:
        os.close(descriptor)


def _ends_of(descriptor: int, inode: Inode) -> Known:
    head = pread(descriptor, _END, 0)
    tail = pread(descriptor, _END, max(inode.size - _END, _END))
    ends = hashlib.blake2b(head + tail, digest_size=16).digest()
    return Known(ends, hashlib.sha256(head + tail).digest() if inode.size <= 2 * _END else b"")


def _whole_of(descriptor: int, inode: Inode) -> Known:
    return Known(_ends_of(descriptor, inode).ends, digest_of(descriptor))
