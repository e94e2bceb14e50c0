"""The explicit specs of an environment, one line each, and what differs between two lists of them."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

import msgspec

from .files import CLOCK_SLACK, came, modified, read_regular
from .records.conda_meta import read_dists
from .records.reading import RecordError, decode

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_HISTORY_BYTES = 64 * 1024 * 1024
#: What conda puts into an URL for who may read a channel: a user with a password, or a token.
_SECRETS = re.compile(r"(?<=://)[^/@]*@|/t/[^/]+(?=/)")


class Installed(msgspec.Struct, gc=False):
    """What a record in ``conda-meta`` says of its package as a whole."""

    name: str
    version: str
    build: str = ""
    channel: str | None = None
    subdir: str | None = None
    url: str | None = None
    md5: str | None = None
    sha256: str | None = None
    depends: list[str] = []
    files: list[str] = []

    @property
    def stem(self) -> str:
        """Name, version and build."""
        return f"{self.name}-{self.version}-{self.build}"

    @property
    def digest(self) -> str:
        """The sha256 of the archive, else its md5, else nothing."""
        return self.sha256 or self.md5 or ""

    @property
    def spec(self) -> str:
        """``CHANNEL/SUBDIR::NAME-VERSION-BUILD#DIGEST``, of which parts may be unknown."""
        where = "/".join(part for part in (channel_of(self), self.subdir) if part)
        return f"{where}{'::' if where else ''}{self.stem}{'#' if self.digest else ''}{self.digest}"


class Changes(msgspec.Struct):
    """What differs between two lists of specs; ``changed`` has pairs of the old and the new spec."""

    added: list[str] = []
    removed: list[str] = []
    changed: list[tuple[str, str]] = []


_DECODER = msgspec.json.Decoder(Installed)


def read_installed(path: str | os.PathLike[str]) -> Installed | None:
    """Read one record; None if it is damaged."""
    try:
        return decode(os.fspath(path), _DECODER)
    except RecordError:
        return None


def channel_of(package: Installed) -> str:
    """The channel without its subdir, and without what only its user may know."""
    channel = without_secrets(package.channel or "").rstrip("/")
    return channel.removesuffix(f"/{package.subdir}") if package.subdir else channel


def without_secrets(url: str) -> str:
    """An URL without the password or the token in it."""
    return _SECRETS.sub("", url)


def specs_of(prefix: str, known: Iterable[str] = (), since: float | None = None) -> list[str]:
    """Return the explicit specs of an environment, sorted; ``known``: those at an earlier time ``since``.

    A record is read only if it came after that, or is not known.
    """
    by_stem = {stem_of(spec): spec for spec in known} if since is not None else {}
    specs = []
    for stem, path in read_dists(prefix).items():
        spec = by_stem.get(stem)
        if spec is None or spec == stem or came(path) >= (since or 0.0) - CLOCK_SLACK:
            found = read_installed(path)
            spec = stem if found is None else found.spec
        specs.append(spec)
    return sorted(specs)


def stem_of(spec: str) -> str:
    """Name, version and build of a spec."""
    return spec.rpartition("::")[2].partition("#")[0]


def changes(before: Iterable[str], after: Iterable[str]) -> Changes:
    """What differs: ``changed`` is a package of the same name whose version, build or source is another."""
    old, new = set(before), set(after)
    gone = {_name(spec): spec for spec in sorted(old - new)}
    come = {_name(spec): spec for spec in sorted(new - old)}
    both = sorted(gone.keys() & come.keys())
    return Changes(
        added=[spec for name, spec in sorted(come.items()) if name not in gone],
        removed=[spec for name, spec in sorted(gone.items()) if name not in come],
        changed=[(gone[name], come[name]) for name in both],
    )


def _name(spec: str) -> str:
    return stem_of(spec).rsplit("-", 2)[0]


def undone(prefix: str, after: Sequence[str], known: Iterable[str], since: float) -> list[str] | None:
    """Return the specs before the last transaction that conda noted since a time; None: it noted none.

    conda's history knows no digests: those come from what was ``known`` of the packages that went.
    """
    history = f"{prefix}/conda-meta/history"
    if modified(history) < since - CLOCK_SLACK:
        return None
    try:
        lines = os.fsdecode(read_regular(history, _HISTORY_BYTES)).splitlines()
    except OSError:
        return None
    start = max((number for number, line in enumerate(lines) if line.startswith("==> ")), default=len(lines))
    last = [line for line in lines[start:] if line[:1] in ("+", "-")]
    if not last:
        return None
    by_stem = {stem_of(spec): spec for spec in known}
    linked = {stem_of(line[1:]) for line in last if line[0] == "+"}
    unlinked = {stem_of(line[1:]): line[1:] for line in last if line[0] == "-"}
    kept = [spec for spec in after if stem_of(spec) not in linked]
    there = {stem_of(spec) for spec in kept}
    back = [by_stem.get(stem, spec) for stem, spec in unlinked.items() if stem not in there]
    return sorted(kept + back)
