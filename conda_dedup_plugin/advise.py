"""Advice before an environment is made: which one is nearly the same, and how much will be shared."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from .model import TreeKind
from .prediction import Asked, Creation, Predicted, Prediction
from .records.contents import installed_stems

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Set

    from .model import Scope
    from .settings import Settings

__all__ = ["Advice", "Asked", "Creation", "advise"]

#: An environment is near if it has at least this share of the packages.
NEAR = 0.5
#: So many packages are named.
_MOST_NAMED = 3


class Advice(Struct, frozen=True):
    """The nearest environment: how many of how many packages it has, what differs, and what it has besides.

    ``differing`` are the names of packages of which it has another build or version, ``lacking`` of which
    it has none.
    """

    name: str
    prefix: str
    same: int
    packages: int
    differing: tuple[str, ...]
    lacking: tuple[str, ...]
    more: int
    predicted: Predicted

    def __str__(self) -> str:
        """One line for people."""
        from rich.filesize import decimal

        if self.same == self.packages:
            these = "this package" if self.packages == 1 else f"all of these {self.packages} packages"
            line = f"env '{self.name}' has {these} with the same {_plural('build', self.packages)}"
            line += f" and {self.more} more." if self.more else ", and nothing else."
        else:
            line = (
                f"env '{self.name}' has {self.same} of these {self.packages} packages with the same "
                f"{_plural('build', self.same)} ({self._difference()})."
            )
        known, new = self.predicted.known_bytes, self.predicted.new
        line += f" {decimal(self.predicted.shared_bytes)} of {decimal(known)} will be shared"
        return line + (f", {new} {_plural('package', new)} new." if new else ".")

    def _difference(self) -> str:
        parts = []
        if self.differing:
            only = "" if self.lacking or len(self.differing) > _MOST_NAMED else "only "
            verb = "differs" if len(self.differing) == 1 else "differ"
            parts.append(f"{only}{_names(self.differing)} {verb}")
        if self.lacking:
            only = "" if self.differing or len(self.lacking) > _MOST_NAMED else "only "
            parts.append(
                f"{only}{_names(self.lacking)} {'is' if len(self.lacking) == 1 else 'are'} not in it"
            )
        return ", ".join(parts)


def advise(creation: Creation, scope: Scope, settings: Settings, but: Collection[str] = ()) -> Advice | None:
    """Find the environment that is nearest to one that is to be made, none of ``but``; None: none is near.

    Only names of record files are looked at for that; records are read for the nearest one's bytes.
    """
    environments = {tree.root: tree for tree in scope.trees if tree.kind is TreeKind.ENVIRONMENT}
    records = {root: installed_stems(root) for root in environments if root not in but}
    wanted = {asked.stem for asked in creation.packages}
    root = _nearest(wanted, records)
    if root is None:
        return None
    stems = records[root]
    names = {stem.rsplit("-", 2)[0] for stem in stems}
    missing = sorted({asked.name for asked in creation.packages if asked.stem not in stems})
    return Advice(
        environments[root].name,
        root,
        len(wanted & stems),
        len(wanted),
        tuple(name for name in missing if name in names),
        tuple(name for name in missing if name not in names),
        len(stems - wanted),
        Prediction(creation, scope, records, settings).of_all(),
    )


def _nearest(wanted: Set[str], records: Mapping[str, Set[str]]) -> str | None:
    """Return the root whose packages have the largest part in common with ``wanted``, of all of both."""

    def nearness(root: str) -> tuple[float, int]:
        same = len(wanted & records[root])
        return same / len(wanted | records[root]), same

    near = [root for root in records if len(wanted & records[root]) >= max(NEAR * len(wanted), 1)]
    return max(sorted(near), key=nearness, default=None)


def _names(names: Iterable[str]) -> str:
    """Write "a", "a and b", "a, b and c" or "a, b, c and 5 more"."""
    named = list(names)
    if len(named) > _MOST_NAMED:
        named = [*named[:_MOST_NAMED], f"{len(named) - _MOST_NAMED} more"]
    return " and ".join(filter(None, [", ".join(named[:-1]), named[-1]]))


def _plural(word: str, count: int) -> str:
    return word if count == 1 else f"{word}s"
