"""Which sources several environments have compiled alike: bytecode that differs in path and time alone."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from contextlib import closing
from typing import TYPE_CHECKING

from msgspec import Struct

from . import pyc
from .candidates import recorded_key
from .digests import DigestCache, Known
from .model import Hazard, Inode, Name
from .sharing.bytecode import taken_apart
from .sharing.opening import Directories, as_planned, open_inode
from .sharing.system import lstat

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .model import InodeKey, Scope
    from .progress import Progress


class Unit(Struct):
    """A source in one environment, and everything that is compiled from it, by the name of the file."""

    source: Inode
    compiled: dict[str, Inode]

    @property
    def inodes(self) -> list[Inode]:
        """The bytecode."""
        return list(self.compiled.values())


def find_units(scope: Scope, inodes: Iterable[Inode], progress: Progress) -> list[list[Unit]]:
    """Group the sources whose bytecode, all of it, is the same but for path and time, and valid.

    Bytecode that records pair up already is none of it.
    """
    places: dict[str, dict[int, dict[str, Inode]]] = defaultdict(lambda: defaultdict(dict))
    for inode in inodes:
        if inode.hazard is not Hazard.BYTECODE or recorded_key(inode) is not None:
            continue
        for name in inode.names:
            source = pyc.source_of(name.path)
            if source is not None and not scope.trees[name.tree].is_cache:
                places[source][name.tree][name.path.rpartition("/")[2]] = inode
    wanted = {source: trees for source, trees in places.items() if len(trees) > 1}
    groups: dict[object, list[Unit]] = defaultdict(list)
    with (
        progress.stage("Reading bytecode", len(wanted)) as advance,
        Directories() as directories,
        closing(DigestCache()) as cache,
    ):
        reader = _Reader(scope, directories, cache)
        for source, trees in wanted.items():
            for tree, compiled in trees.items():
                unit = _unit(scope, tree, source, compiled)
                if unit is None:
                    continue
                identity = reader.identity(unit, source)
                if identity is not None:
                    groups[source, unit.source.size, unit.inodes[0].key.device, identity].append(unit)
            directories.trim()
            advance(1)
        reader.remember()
    return [list(_once(units)) for units in groups.values() if len(units) > 1]


def _once(units: Iterable[Unit]) -> Iterator[Unit]:
    """Leave out what has the very same bytecode as one before: that is shared already."""
    seen: set[frozenset[InodeKey]] = set()
    for unit in units:
        keys = frozenset(inode.key for inode in unit.inodes)
        if keys not in seen:
            seen.add(keys)
            yield unit


def _unit(scope: Scope, tree: int, source: str, compiled: dict[str, Inode]) -> Unit | None:
    """Return the unit of a source; None if there is none, or something else is compiled from it too."""
    root = scope.trees[tree].root
    below, _, name = source.rpartition("/")
    try:
        stat = lstat(f"{root}/{source}")
        with os.scandir(f"{root}/{below}/__pycache__" if below else f"{root}/__pycache__") as entries:
            present = [entry.name for entry in entries]
    except OSError:
        return None
    if stat.st_mode & 0o170000 != 0o100000:
        return None
    if {found for found in present if pyc.is_compiled_of(found, name)} != compiled.keys():
        return None
    inode = Inode.of(stat)
    inode.names.append(Name(tree, source, None))
    return Unit(inode, compiled)


class _Reader:
    """Reads bytecode, or knows it from the last time."""

    def __init__(self, scope: Scope, directories: Directories, cache: DigestCache) -> None:
        self._scope = scope
        self._directories = directories
        self._cache = cache
        self._fresh: list[tuple[Inode, Known]] = []

    def remember(self) -> None:
        """Write down what was read."""
        self._cache.put(self._fresh)

    def identity(self, unit: Unit, source: str) -> frozenset[tuple[str, bytes]] | None:
        """Return what units agree in that may share; None if some of it is not valid for its source."""
        found = set()
        for name, inode in unit.compiled.items():
            code = self._code(inode, source, unit.source)
            if code is None:
                return None
            found.add((name, code))
        return frozenset(found)

    def _code(self, inode: Inode, source: str, of: Inode) -> bytes | None:
        """Return a digest of the code; None if it is not valid for its source."""
        known = self._cache.get(inode)
        own = hashlib.sha256(os.fsencode(source)).digest()
        if not known.code.startswith(own):
            code = self._read(inode, source)
            if code is None:
                return None
            header = pyc.HEADER.pack(*code.header)
            known = known._replace(code=own + header + _digest(code))
            self._fresh.append((inode, known))
        read = known.code[len(own) :]
        valid = pyc.Header(*pyc.HEADER.unpack_from(read)).fits(of.mtime_ns, of.size)
        return read[pyc.HEADER.size :] if valid else None

    def _read(self, inode: Inode, source: str) -> pyc.Code | None:
        try:
            descriptor = open_inode(self._scope, inode, self._directories)
        except OSError:
            return None
        try:
            code = taken_apart(descriptor, source)
            return code if as_planned(os.fstat(descriptor), inode) else None
        except OSError:
            return None
        finally:
            os.close(descriptor)


def _digest(code: pyc.Code) -> bytes:
    """Return a digest of what two files agree in that are the same code."""
    digest = hashlib.sha256(repr(code.header._replace(mtime=0)).encode())
    for part in code.parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.digest()
