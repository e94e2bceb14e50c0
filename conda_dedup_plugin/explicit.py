"""The explicit specs of an environment, one line each, and what differs between two lists of them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec

from .channels import without_secrets
from .checks import Changes
from .files import CLOCK_SLACK, came, modified, read_regular
from .records.conda_meta import read_dists
from .records.heads import Heading
from .records.reading import RecordError, decode

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_HISTORY_BYTES = 64 * 1024 * 1024


class Record(Heading, gc=False):
    """What a record says of its package as a whole, and what that needs."""

    files: list[str] | None = None
    depends: list[str] = msgspec.field(default_factory=list)

    @property
    def stem(self) -> str:
        """Name, version and build."""
        return f"{self.name}-{self.version}-{self.build}"

    @property
    def spec(self) -> str:
        """``CHANNEL/SUBDIR::NAME-VERSION-BUILD#DIGEST``, of which parts may be unknown."""
        where = "/".join(part for part in (place_of(self), self.subdir) if part)
        digest = self.dist.digest
        return f"{where}{'::' if where else ''}{self.stem}{'#' if digest else ''}{digest}"


_DECODER = msgspec.json.Decoder(Record)


def read_installed(path: str | os.PathLike[str]) -> Record | None:
    """Read one record; None if it is damaged."""
    try:
        return decode(os.fspath(path), _DECODER)
    except RecordError:
        return None


def place_of(package: Record) -> str:
    """The channel without its subdir, and without what only its user may know."""
    channel = without_secrets(package.dist.channel).rstrip("/")
    return channel.removesuffix(f"/{package.subdir}") if package.subdir else channel


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
