"""``conda-meta/*.json`` without the files: what a record says of a package as a whole, sooner read."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from ..model import Dist
from .reading import decode

if TYPE_CHECKING:
    from pathlib import Path


class Head(NamedTuple):
    """One package of an environment.

    ``size``: bytes of its files, None where the record does not say; ``wheels`` are the paths of the
    ``RECORD`` files it brought.
    """

    dist: Dist
    size: int | None
    url: str
    md5: str
    wheels: list[str]


class _File(msgspec.Struct, gc=False):
    size_in_bytes: int | None = None
    path_type: str | None = None


class _Files(msgspec.Struct, gc=False):
    paths: list[_File] = []


class Heading(msgspec.Struct, gc=False):
    """What a record says of its package as a whole; ``channel`` is no text in some old ones."""

    name: str
    version: str
    build: str = ""
    subdir: str | None = None
    sha256: str | None = None
    md5: str | None = None
    channel: Any = None
    url: str | None = None

    @property
    def dist(self) -> Dist:
        """The package; its digest is the sha256 of the archive, else the md5."""
        return Dist(
            self.name,
            self.version,
            self.build,
            self.subdir or "",
            self.sha256 or self.md5 or "",
            self.channel if isinstance(self.channel, str) else "",
        )


class _Record(Heading, gc=False):
    files: list[str] | None = None
    paths_data: _Files | None = None


class _Named(Heading, gc=False):
    files: list[str] | None = None
    noarch: Any = None


class Names(NamedTuple):
    """What a package installed where; ``compiled``: its bytecode was made there, and has no digest."""

    dist: Dist
    paths: frozenset[str]
    compiled: bool


_DECODER = msgspec.json.Decoder(_Record)
_NAMED = msgspec.json.Decoder(_Named)
_NO_CONTENT = ("softlink", "directory")


def read_head(path: Path) -> Head:
    """Read what one record says of its package as a whole. RecordError: it cannot be read."""
    record = decode(os.fspath(path), _DECODER)
    files = record.files or []
    said = record.paths_data.paths if record.paths_data else []
    sizes = [file.size_in_bytes for file in said if file.path_type not in _NO_CONTENT]
    known = [size for size in sizes if size is not None and size >= 0]
    nobody_knows = not known and bool(sizes or (files and not said))
    wheels = [file for file in files if file.endswith(".dist-info/RECORD")]
    return Head(record.dist, None if nobody_knows else sum(known), record.url or "", record.md5 or "", wheels)


def read_names(path: str) -> Names:
    """Read whose files a record lists, and what they are called. RecordError: it cannot be read."""
    record = decode(path, _NAMED)
    noarch = record.noarch.get("type") if isinstance(record.noarch, dict) else record.noarch
    return Names(record.dist, frozenset(record.files or ()), noarch == "python")
