"""Which inodes may hold the same bytes, going by the records alone: a proposal, never a proof. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from .listing import base_of, sized_key
from .model import Hazard

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .inventory import Inventory
    from .model import Inode

#: What two inodes agree in when their records say that they hold the same bytes.
ContentKey: TypeAlias = tuple[object, ...]


def content_key(inode: Inode) -> ContentKey | None:
    """Return what identifies the content: its digest, else (dist, path in dist); None if unknown.

    A digest whose record names another size than the inode's is stale and counts for nothing. What pip
    compiled has neither: it differs in every environment. What was read counts where no digest does.
    """
    if inode.content is None:
        return recorded_key(inode)
    return (inode.size, inode.content) if inode.content else None


def recorded_key(inode: Inode) -> ContentKey | None:
    """Return the same going by the records alone."""
    identity: ContentKey | None = None
    for name in inode.names:
        claim = name.claim
        if claim is None:
            continue
        if claim.sha256 is not None:
            if claim.size in (-1, inode.size):
                return (inode.size, claim.sha256)
        elif identity is None and not claim.pip:
            identity = (inode.size, claim.dist.identity, claim.path)
    if identity is not None and inode.hazard is Hazard.BYTECODE:
        return identity
    return None


def proposals(inventory: Inventory) -> Iterator[list[Inode]]:
    """Yield the groups of an inventory, one at a time; what was noted with its inodes counts, if anything."""
    if inventory.is_unpacked:
        yield from propose(inventory.inodes.values())
    else:
        for grouping in inventory.shelf.groupings():
            yield from checked(grouping.groups())


def checked(groups: Iterable[tuple[int, list[Inode]]]) -> Iterator[list[Inode]]:
    """Yield the same groups, with no inode that belongs to another one."""
    for key, inodes in groups:
        for group in propose(inodes):
            # what has two names that records do not agree about is in the group of the other one, too
            if _packed(content_key(group[0])) == key:
                yield group


def _packed(key: ContentKey | None) -> int:
    """Return what stands for a content in a listing."""
    if key is None:
        return 0
    size, *said = key
    assert isinstance(size, int)
    return sized_key(base_of(*said), size)


def propose(inodes: Iterable[Inode]) -> list[list[Inode]]:
    """Group the inodes that may hold the same bytes; groups of one are left out."""
    groups: dict[ContentKey, list[Inode]] = {}
    for inode in inodes:
        key = content_key(inode)
        if key is not None:
            groups.setdefault(key, []).append(inode)
    return [group for group in groups.values() if len(group) > 1]
