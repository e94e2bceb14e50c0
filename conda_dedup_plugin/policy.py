"""Hazard classes: what a file is, by its path, its record and its first bytes, and what may be done to it.

Pure: nothing here touches a file system.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from .model import Hazard, Reason

if TYPE_CHECKING:
    from .model import Claim

_NATIVE = re.compile(r"\.(?:so(?:\.\d+)*|dylib|dll|pyd|a)$")
_LOADABLE = re.compile(r"\.(?:so(?:\.\d+)*|dylib|dll|pyd)$")
#: Libraries the dynamic linker finds by soname; extension modules carry an ABI tag instead.
_PLAIN_LIBRARY = re.compile(r"(?:^|/)lib[^/]*\.(?:so(?:\.\d+)*|dylib)$")
_ABI_TAG = re.compile(r"\.(?:cpython-|pypy|abi3\.|graalpy)")
#: What the code signature of an application on macOS seals.
_BUNDLE = re.compile(r"[^/]\.app/Contents/", re.IGNORECASE)
#: What has none of these, nor ".so" in it, is not native by its name: sooner told than by the pattern.
_NATIVE_SUFFIXES = (".dylib", ".dll", ".pyd", ".a")
_MUTABLE_SUFFIXES = (".pem", ".db", ".sqlite", ".sqlite3", ".mdb", ".ldb", ".lock")
_MUTABLE_DIRECTORIES = ("etc/", "var/")
_NATIVE_MAGIC = (
    b"\x7fELF",
    b"MZ",
    b"!<arch>\n",
    b"\xfe\xed\xfa\xce",
    b"\xfe\xed\xfa\xcf",
    b"\xce\xfa\xed\xfe",
    b"\xcf\xfa\xed\xfe",
    b"\xca\xfe\xba\xbe",
)
#: How many first bytes :func:`is_native_head` wants to see.
HEAD_BYTES = 8

#: Why a hard link is refused to a class, whatever the keeper; absent: it may be allowed.
HARDLINK_REFUSED: dict[Hazard, Reason] = {
    Hazard.UNTRACKED: Reason.UNTRACKED,
    Hazard.MUTABLE: Reason.MUTABLE,
    Hazard.PREFIXED: Reason.PREFIXED,
}


def hazard_of(path: str, claim: Claim | None) -> Hazard:
    """Return the hazard class of the file at ``path`` (relative to its tree) with what its record says."""
    if claim is not None:
        if claim.prefixed:
            return Hazard.PREFIXED
        if claim.no_link:
            return Hazard.MUTABLE
        path = claim.path
    if path.startswith(_MUTABLE_DIRECTORIES) or path.endswith(_MUTABLE_SUFFIXES):
        return Hazard.MUTABLE
    if path.endswith(".pyc"):
        return Hazard.BYTECODE
    if (".so" in path or path.endswith(_NATIVE_SUFFIXES)) and _NATIVE.search(path):
        return Hazard.NATIVE
    if claim is None or claim.pip:
        return Hazard.UNTRACKED
    return Hazard.PACKAGE


def is_native_head(head: bytes) -> bool:
    """Whether a file that begins with ``head`` is ELF, Mach-O, PE or a static library."""
    return head.startswith(_NATIVE_MAGIC)


def loader_sensitive(path: str) -> bool:
    """Whether hard-linking this file to another of the same environment changes what the loader sees.

    True for whatever is dlopen-ed by path (Python extension modules, plug-ins); False for plain
    libraries (``lib*.so*``, ``lib*.dylib``) and for what no loader maps.
    """
    if not _LOADABLE.search(path):
        return False
    return not _PLAIN_LIBRARY.search(path) or bool(_ABI_TAG.search(path))


def in_bundle(path: str) -> bool:
    """Whether a path lies in an application of macOS; applies there alone."""
    return bool(_BUNDLE.search(path))


def takes_any_mtime(hazard: Hazard) -> bool:
    """Whether a file of this class may take its keeper's modification time."""
    return hazard in (Hazard.NATIVE, Hazard.BYTECODE)
