"""Reading one record file: never a link, a pipe or a bomb, and what is wrong in one sentence."""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import msgspec
from msgspec import Struct, field

from ..errors import DedupError
from ..files import read_regular

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ..model import Claim, Dist

T = TypeVar("T")

#: No record is bigger (the largest of conda have some MB); what is read takes up to 18 times as much memory.
MOST_BYTES = 64 * 1024 * 1024
#: A listing of paths, each between "\n/" and "\n", that has none of these has plain paths only.
_SUSPICIOUS = ("//", "/.", "/\n", "\0")


class RecordError(DedupError):
    """A record cannot be used; the message names the file and the reason."""


class Records(Struct):
    """What the records of one tree say: claims by path in the tree, and what is wrong with them."""

    claims: dict[str, Claim] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    #: What pip replaced of conda's: (conda's dist, pip's) by path; not what pip has the same content for.
    clobbered: dict[str, tuple[Dist, Dist]] = field(default_factory=dict)


class Known(NamedTuple):
    """What is known of one record: its claims (by path; of a wheel by line), and how many were dropped."""

    claims: dict[str, Claim]
    dropped: int = 0


class Memo:
    """What records say that several environments have alike: claims are shared then, and made once.

    It is for one run, and keeps ``most`` claims; which go for others, ``forgotten`` is told.
    """

    def __init__(self, most: int, forgotten: Callable[[Iterable[Claim]], None]) -> None:
        self._most = most
        self._forgotten = forgotten
        #: by what tells a record from others; what was asked for last is last
        self._known: dict[object, Known] = {}

    def find(self, key: object) -> Known | None:
        """Return what is known of a record."""
        known = self._known.pop(key, None)
        if known is not None:
            self._known[key] = known
        return known

    def keep(self, key: object, known: Known) -> None:
        """Keep what a record says, and forget as much of what was not asked for the longest."""
        self._known[key] = known
        surplus = sum(len(one.claims) for one in self._known.values()) - self._most
        while surplus > 0 and len(self._known) > 1:
            claims = self._known.pop(next(iter(self._known))).claims
            surplus -= len(claims)
            self._forgotten(claims.values())


def read_file(path: str) -> bytes:
    """Return the content of a regular file of at most :data:`MOST_BYTES`.

    RecordError: it is none, is bigger, or cannot be read.
    """
    try:
        return read_regular(path, MOST_BYTES, whole=True)
    except OSError as exc:
        raise RecordError(f"{path!r} cannot be read: {exc.strerror}.") from exc


def decode(path: str, decoder: msgspec.json.Decoder[T]) -> T:
    """Read a JSON file into what ``decoder`` wants. RecordError: it cannot be."""
    return decode_part(path, read_file(path), decoder)


def decode_part(path: str, content: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    """Do the same with what was read of the file, or a part of it."""
    try:
        return decoder.decode(content)
    except (msgspec.MsgspecError, ValueError, RecursionError) as exc:
        raise RecordError(f"{path!r} is damaged: {exc}.") from exc


def sha256_of(text: str | None) -> bytes | None:
    """Return the raw digest, or None where there is none or it is no sha256."""
    if text is None or len(text) != 64:
        return None
    try:
        digest = bytes.fromhex(text)
    except ValueError:
        return None
    # fromhex skips spaces
    return digest if len(digest) == 32 else None


def normalised(path: str) -> str | None:
    """Return a recorded path as a plain one below its root; None if it is empty, absolute or leaves it."""
    if not path or path[0] == "/" or "\0" in path:
        return None
    plain = posixpath.normpath(path)
    return None if plain in (".", "..") or plain.startswith("../") else plain


def below_root(claims: dict[str, Claim]) -> tuple[dict[str, Claim], int]:
    """Return the claims by normalised path, and how many were dropped: their path is none below the root.

    Nearly always these are the very same claims, which is found out by one look at all paths at once.
    """
    listing = "\n/" + "\n/".join(claims) + "\n"
    if not claims or not any(odd in listing for odd in _SUSPICIOUS):
        return claims, 0
    kept: dict[str, Claim] = {}
    dropped = 0
    for path, claim in claims.items():
        plain = normalised(path)
        if plain is None:
            dropped += 1
        else:
            kept[plain] = claim._replace(path=plain) if claim.path == path else claim
    return kept, dropped
