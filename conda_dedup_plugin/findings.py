"""What an audit says: an environment with what is known of its use, and findings to act on."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from msgspec import Struct, field

if TYPE_CHECKING:
    from .installed import Installed
    from .model import Tree
    from .usage import Usage

#: How an environment is left out of counts and removals: it is where conda itself lives.
_BASE = "base"


class Kind(str, Enum):
    """What a finding is about; in this order it is told."""

    UNUSED = "unused environment"
    TOO_MANY = "too many environments"
    CLOBBERED = "clobbered"
    MIXED = "mixed channels"
    TWO_CHANNELS = "two channels"
    PACKAGES = "unused packages"
    TARBALLS = "unused tarballs"
    UNEXPORTED = "not exported"


class Finding(Struct, frozen=True):
    """One thing to act on: where, what in a sentence, the commands, one after the other.

    ``items`` names what it is about, packages or paths; ``bytes_freed`` on disk go with the commands.
    """

    kind: Kind
    place: str
    what: str
    commands: tuple[str, ...]
    items: tuple[str, ...] = ()
    bytes_freed: int = 0


class Audited(Struct):
    """An environment: whose it is, when it was used, and what it could be made from again."""

    tree: Tree
    owner: str
    usage: Usage
    exported: str | None
    private_bytes: int
    conda: list[Installed] = field(default_factory=list)
    pip: list[Installed] = field(default_factory=list)

    @property
    def removable(self) -> bool:
        """Whether it may go: conda's own environment never."""
        return self.tree.name != _BASE
