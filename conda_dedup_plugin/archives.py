"""One file out of a package's archive, as package caches keep them: ``.conda`` and ``.tar.bz2``."""

from __future__ import annotations

import errno
import hashlib
import importlib
import os
import stat as stat_module
import tarfile
import zipfile
from typing import IO, TYPE_CHECKING, Any

from .files import READ
from .sharing.copying import write_at

if TYPE_CHECKING:
    from collections.abc import Iterator

_CHUNK = 1024 * 1024
SUFFIXES = (".conda", ".tar.bz2")
#: Whoever can unpack zstandard: Python itself from 3.14 on, or what conda depends on.
_ZSTANDARD = ("compression.zstd", "backports.zstd")


def find_member(archive: str, member: str, digest: bytes) -> int | None:
    """Return the mtime (ns) of a file in an archive if it has this raw sha256.

    ``None``: there is no such archive or file, it is damaged, or nothing here can unpack it.
    """
    found = hashlib.sha256()
    try:
        for mtime, chunk in _content(archive, member):
            found.update(chunk)
            if found.digest() == digest:
                return mtime
    except Exception:  # every decompressor has errors of its own, that are nothing but an Exception
        return None
    return None


def write_member(archive: str, member: str, descriptor: int) -> None:
    """Write a file of an archive to an open, empty one. OSError: the archive is damaged."""
    offset = 0
    try:
        for _, chunk in _content(archive, member):
            write_at(descriptor, chunk, offset)
            offset += len(chunk)
    except Exception as exc:
        raise OSError(errno.EIO, os.strerror(errno.EIO), archive) from exc


def _content(archive: str, member: str) -> Iterator[tuple[int, bytes]]:
    """Yield (mtime in ns, chunk) of one regular file, at least once if there is such a file."""
    for info, stream in _members(archive):
        if info.name == member and stream is not None:
            while True:
                chunk = stream.read(_CHUNK)
                yield int(info.mtime * 10**9), chunk
                if not chunk:
                    return


def _members(archive: str) -> Iterator[tuple[tarfile.TarInfo, IO[bytes] | None]]:
    # a fifo must keep nobody waiting
    with open(os.open(archive, READ), "rb") as file:
        if stat_module.S_ISREG(os.fstat(file.fileno()).st_mode):
            yield from _packed(archive, file)


def _packed(archive: str, file: IO[bytes]) -> Iterator[tuple[tarfile.TarInfo, IO[bytes] | None]]:
    if archive.endswith(".tar.bz2"):
        with tarfile.open(fileobj=file, mode="r:bz2") as unpacked:
            for info in unpacked:
                yield info, unpacked.extractfile(info) if info.isreg() else None
        return
    with zipfile.ZipFile(file) as outer:
        for name in outer.namelist():
            if name.startswith("pkg-") and name.endswith(".tar.zst"):
                with (
                    outer.open(name) as packed,
                    _decompress(packed) as plain,
                    tarfile.open(fileobj=plain, mode="r|") as unpacked,
                ):
                    for info in unpacked:
                        yield info, unpacked.extractfile(info) if info.isreg() else None


def _decompress(packed: IO[bytes]) -> Any:
    for name in _ZSTANDARD:
        try:
            return importlib.import_module(name).ZstdFile(packed)
        except ImportError:
            continue
    return importlib.import_module("zstandard").ZstdDecompressor().stream_reader(packed)
