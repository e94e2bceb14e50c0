"""Reading one record file: never a link, a pipe or a bomb, and what is wrong in one sentence."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

import msgspec

from ..errors import DedupError

if TYPE_CHECKING:
    from ..model import Claim

T = TypeVar("T")

#: No record is bigger; conda's own largest have some tens of MB.
MOST_BYTES = 256 * 1024 * 1024
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0) | os.O_CLOEXEC


class RecordError(DedupError):
    """A record cannot be used; the message names the file and the reason."""


@dataclass(slots=True)
class Records:
    """What the records of one tree say: claims by path in the tree, and what is wrong with them."""

    claims: dict[str, Claim] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def read_file(path: str, most: int = MOST_BYTES) -> bytes:
    """Return the content of a regular file of at most ``most`` bytes.

    RecordError: it is none, is bigger, or cannot be read.
    """
    try:
        descriptor = os.open(path, _FLAGS)
    except OSError as exc:
        raise RecordError(f"{path!r} cannot be read: {exc.strerror}.") from exc
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise RecordError(f"{path!r} cannot be read: it is no regular file.")
        if found.st_size > most:
            raise RecordError(f"{path!r} is left out: it has {found.st_size} bytes, which no record has.")
        with open(descriptor, "rb", closefd=False) as stream:
            return stream.read(most + 1)
    except OSError as exc:
        raise RecordError(f"{path!r} cannot be read: {exc.strerror}.") from exc
    finally:
        os.close(descriptor)


def decode(path: str, decoder: msgspec.json.Decoder[T]) -> T:
    """Read a JSON file into what ``decoder`` wants. RecordError: it cannot be."""
    content = read_file(path)
    try:
        return decoder.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise RecordError(f"{path!r} is damaged: {exc}.") from exc


def sha256_of(text: str | None) -> bytes | None:
    """Return the raw digest, or None where there is none or it is no sha256."""
    if text is None or len(text) != 64:
        return None
    try:
        return bytes.fromhex(text)
    except ValueError:
        return None


def is_inside(path: str) -> bool:
    """Whether a recorded path is a plain one below its root: nothing absolute, no dots, no NUL."""
    if not path or path[0] == "/" or "\0" in path or "\\" in path:
        return False
    if "." not in path and "//" not in path:
        return path[-1] != "/"
    return all(part not in ("", ".", "..") for part in path.split("/"))
