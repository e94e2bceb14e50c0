"""What claims say, worked out once for all the trees that have them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .listing import base_key, dist_id
from .packing import pack_claim
from .policy import hazard_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .model import Claim, Dist

#: So many are kept.
_MOST = 200_000


class Said:
    """What a claim says of a path, worked out once however many trees have it.

    ``base`` and ``packed``, the claim as rows have it, only if there are any.
    """

    __slots__ = ("base", "claim", "dist", "hazard", "packed", "path", "size")

    def __init__(self, path: str, claim: Claim, dist: int) -> None:
        self.claim = claim  # so that its id remains its own
        self.dist = dist
        self.path = claim.path if claim.path == path else path  # the walk's own need not be kept
        self.hazard = hazard_of(path, claim)
        self.size = -1 if claim.sha256 is None else claim.size
        self.base = 0
        self.packed = b""


class Sayings:
    """What claims said in earlier trees; several environments have the very same claims.

    A dist has a number, which is the same wherever it is worked out.
    """

    def __init__(self) -> None:
        #: by the id of the claim
        self.by_id: dict[int, Said] = {}
        self._dists: dict[Dist, int] = {}
        self._fresh: dict[int, Dist] = {}

    def say(self, path: str, claim: Claim, again: bool) -> Said:
        """Return what a claim says; ``again``: other trees may have it, too."""
        dist = self._dists.get(claim.dist)
        if dist is None:
            dist = self._dists[claim.dist] = dist_id(claim.dist)
            self._fresh[dist] = claim.dist
        said = Said(path, claim, dist)
        if again:
            if len(self.by_id) >= _MOST:
                self.by_id.clear()
            self.by_id[id(claim)] = said
        return said

    def forget(self, claims: Iterable[Claim]) -> None:
        """Forget what they say."""
        for claim in claims:
            self.by_id.pop(id(claim), None)

    def complete(self, said: Said) -> None:
        """Work out what rows say with a claim."""
        said.base = base_key(said.claim, said.hazard)
        said.packed = pack_claim(said.claim, said.path, said.dist)

    def new_dists(self) -> dict[int, Dist]:
        """Return those that rows speak of since this was asked last."""
        found, self._fresh = self._fresh, {}
        return found
