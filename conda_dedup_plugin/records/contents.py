"""The files of a package with their sizes, and no digests: sooner read than claims.

What a package cache has in ``info/paths.json`` and what an environment has in its record are lists of the
same kind; the latter has the bytecode too that was compiled in the environment.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec

from .reading import RecordError, decode

if TYPE_CHECKING:
    from collections.abc import Sequence

#: What has no content of its own, and what is made for each environment anew.
_LEFT_OUT = frozenset(
    {
        "softlink",
        "directory",
        "unix_python_entry_point",
        "windows_python_entry_point_script",
        "windows_python_entry_point_exe",
    }
)


class File(msgspec.Struct, gc=False):
    """One file: ``size_in_bytes`` as packed, None where nobody wrote it down (compiled bytecode)."""

    path: str = msgspec.field(name="_path")
    path_type: str | None = None
    size_in_bytes: int | None = None
    prefix_placeholder: str | None = None
    file_mode: str | None = None
    no_link: bool | None = None


class _Listing(msgspec.Struct, gc=False):
    paths: list[File] = []


class _Record(msgspec.Struct, gc=False):
    paths_data: _Listing | None = None


class _Digested(File, gc=False):
    sha256: str | None = None
    sha256_in_prefix: str | None = None


class _DigestedListing(msgspec.Struct, gc=False):
    paths: list[_Digested] = []


class _DigestedRecord(msgspec.Struct, gc=False):
    paths_data: _DigestedListing | None = None


_PACKAGE = msgspec.json.Decoder(_Listing)
_RECORD = msgspec.json.Decoder(_Record)
_DIGESTED = msgspec.json.Decoder(_DigestedRecord)


def installed_stems(prefix: str) -> frozenset[str]:
    """Return the packages of an environment as name-version-build, none if it cannot be listed."""
    try:
        with os.scandir(f"{prefix}/conda-meta") as entries:
            names = [entry.name for entry in entries]
    except OSError:
        return frozenset()
    return frozenset(name[:-5] for name in names if name.endswith(".json") and name[0] != ".")


def cached_files(directory: str) -> list[File] | None:
    """Return the files of an extracted package; None: it is not there, or nobody knows its files."""
    try:
        return _with_content(decode(f"{directory}/info/paths.json", _PACKAGE).paths)
    except (RecordError, MemoryError):
        return None


def installed_files(record: str, digests: bool = False) -> list[File] | None:
    """Return the files that a record of an environment lists; None: it cannot be read, or lists none.

    ``digests`` tell which files were patched; that takes longer, but mamba leaves the placeholder out.
    """
    try:
        if not digests:
            plain = decode(record, _RECORD).paths_data
            return None if plain is None else _with_content(plain.paths)
        digested = decode(record, _DIGESTED).paths_data
    except (RecordError, MemoryError):
        return None
    if digested is None:
        return None
    for file in digested.paths:
        if file.sha256_in_prefix and file.sha256 and file.sha256_in_prefix != file.sha256:
            file.prefix_placeholder = file.prefix_placeholder or "?"
    return _with_content(digested.paths)


def _with_content(files: Sequence[File]) -> list[File]:
    return [file for file in files if file.path_type not in _LEFT_OUT]
