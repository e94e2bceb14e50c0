"""Compiled Python files as bytes: what is their header, and where they hold the path of their source. Pure.

Two environments' ``.pyc`` of the same source differ in the source's modification time, which stands in the
header, and in ``co_filename``, which CPython corrects when it loads the file (``_imp._fix_co_filename``,
called by ``importlib._bootstrap_external._compile_bytecode``). The format of the header is that of PEP 552.
"""

from __future__ import annotations

import re
import struct
from typing import NamedTuple

HEADER = struct.Struct("<4sIII")
#: ``pkg/__pycache__/module.cpython-311.opt-1.pyc``, of CPython alone.
_COMPILED = re.compile(
    r"(?P<directory>(?:.*/)?)__pycache__/(?P<stem>[^/]+)\.cpython-3\d+(?:\.opt-[^./]+)?\.pyc"
)
#: marshal's types of text: of up to 255 ASCII characters, of any other, and those of interned text.
_SHORT, _LONG, _INTERNED = b"zZ", b"aAut", b"ZAt"
#: Set in the type of what is referred to later.
_REFERRED = 0x80
_LONGEST_SHORT = 255
_LONGEST_PATH = 4096


class Header(NamedTuple):
    """The first 16 bytes: ``mtime`` (seconds) and ``size`` of the source modulo 2**32, if ``flags`` are 0."""

    magic: bytes
    flags: int
    mtime: int
    size: int

    @classmethod
    def of(cls, content: bytes) -> Header | None:
        """Return the header of a file; None if it is too short."""
        return cls(*HEADER.unpack_from(content)) if len(content) > HEADER.size else None

    def fits(self, mtime_ns: int, size: int) -> bool:
        """Whether CPython takes such a file as valid for a source with this mtime (ns) and size."""
        return self.flags == 0 and (self.mtime, self.size) == (seconds(mtime_ns), size & 0xFFFFFFFF)


def seconds(mtime_ns: int) -> int:
    """Return a modification time as it stands in a header."""
    return mtime_ns // 10**9 & 0xFFFFFFFF


def source_of(path: str) -> str | None:
    """Return the path of the source that a path in ``__pycache__`` is compiled from; None if it is none."""
    found = _COMPILED.fullmatch(path)
    return f"{found['directory']}{found['stem']}.py" if found else None


def is_compiled_of(name: str, source: str) -> bool:
    """Whether the name of a file in ``__pycache__`` says that it is made from a source of this name."""
    own = source_of(f"__pycache__/{name}")
    return name.endswith(".pyc") and name.startswith(source.removesuffix("py")) and own in (None, source)


class Code(NamedTuple):
    """A compiled file taken apart: its path of the source (None: it holds none), and what is around that.

    ``parts`` are the bytes before, between and after that path; but for the last one each ends in a byte
    that tells whether the path there is interned (1) and referred to (2).
    """

    header: Header
    filename: bytes | None
    parts: tuple[bytes, ...]

    @property
    def identity(self) -> tuple[object, ...]:
        """What two files agree in that are the same code of sources at other paths and of other times."""
        return (self.header._replace(mtime=0), self.parts)

    def written(self, filename: bytes, mtime_ns: int) -> bytes:
        """Return the file for a source at another path (as :attr:`filename` has it) with another mtime."""
        header = HEADER.pack(*self.header._replace(mtime=seconds(mtime_ns)))
        *before, last = self.parts
        return b"".join((header, *(part[:-1] + _text(filename, part[-1]) for part in before), last))


def take_apart(content: bytes, source: str) -> Code | None:
    """Take apart the content of a compiled file; ``source`` is the path of its source in its tree.

    None: it has no header, or holds two different paths that end like its source's.
    """
    header = Header.of(content)
    if header is None:
        return None
    body = content[HEADER.size :]
    suffix = b"/" + source.encode("utf-8", "surrogatepass")
    filename: bytes | None = None
    parts = []
    start = 0
    found = body.find(suffix)
    while found >= 0:
        end = found + len(suffix)
        text = _text_before(body, end, len(suffix))
        if text is not None and end - len(text.path) - text.prefix >= start:
            if filename not in (None, text.path):
                return None
            filename = text.path
            where = end - len(text.path) - text.prefix
            parts.append(body[start:where] + bytes((_kind(body[where]),)))
            start = end
        found = body.find(suffix, end)
    parts.append(body[start:])
    return Code(header, filename, tuple(parts))


class _Text(NamedTuple):
    """A path as marshal writes it, after ``prefix`` bytes of type and length."""

    path: bytes
    prefix: int


def _text_before(body: bytes, end: int, least: int) -> _Text | None:
    """Return the longest absolute path that ends at ``end`` and is there as marshal writes text."""
    found = None
    earliest = max(end - _LONGEST_PATH, 2)
    start = end - least
    while start >= earliest:
        length = end - start
        if body[start - 1] == length and body[start - 2] & ~_REFERRED in _SHORT:
            found = _Text(body[start:end], 2)
        elif start >= 5 and body[start - 5] & ~_REFERRED in _LONG and _length(body, start) == length:
            found = _Text(body[start:end], 5)
        start = body.rfind(b"/", 0, start)
    return found


def _length(body: bytes, start: int) -> int:
    return int.from_bytes(body[start - 4 : start], "little")


def _kind(kind: int) -> int:
    """Return whether a type of marshal is that of interned (1) and referred to (2) text."""
    return (kind & ~_REFERRED in _INTERNED) | (2 if kind & _REFERRED else 0)


def _text(path: bytes, kind: int) -> bytes:
    """Return a path as marshal writes it (marshal.c, ``w_complex_object``)."""
    interned = kind & 1
    if not path.isascii():
        form, length = b"ut"[interned], struct.pack("<I", len(path))
    elif len(path) > _LONGEST_SHORT:
        form, length = b"aA"[interned], struct.pack("<I", len(path))
    else:
        form, length = b"zZ"[interned], bytes((len(path),))
    return bytes((form | (_REFERRED if kind & 2 else 0),)) + length + path
