"""Whether what is shared is still what the records say: damage of one name is damage of all of them."""

from __future__ import annotations

import os
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING

from msgspec import Struct, field

from . import history
from .inventory import Inventory, scan
from .model import Inode, Scope
from .progress import Progress
from .sharing.copying import digest_of
from .sharing.opening import as_planned, open_inode
from .sharing.system import lstat

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .journal import Journal
    from .model import InodeKey, Name
    from .sharing.change import Entry

#: So many files are read at once.
_READERS = 4


class Damage(Struct, frozen=True):
    """One inode that is not what it should be.

    ``names`` are those whose record wants another content, by the digest (raw sha256) that it wants;
    without any digest (bytecode, or a quick look) they are under ``b""``: the inode was changed since it
    was shared. ``found`` is the digest there is, ``outside`` counts names that no tree in scope has.
    """

    inode: Inode
    names: Mapping[bytes, list[Name]]
    found: bytes = b""

    @property
    def outside(self) -> int:
        """How many names nobody knows of."""
        return max(self.inode.nlink - len(self.inode.names), 0)


class Verified(Struct):
    """What came of looking; ``bytes`` were read of ``inodes`` shared ones, ``unknown`` have no digest."""

    inventory: Inventory
    inodes: int = 0
    bytes: int = 0
    unknown: int = 0
    damages: list[Damage] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def verify(
    scope: Scope, journal: Journal | None, quick: bool = False, progress: Progress | None = None
) -> Verified:
    """Look at every inode that a selected tree shares with anything.

    Contents are compared with the digests of the records; what has none, and everything under ``quick``,
    by size and mtime with the journal. The trees that are not selected are only walked if something is
    wrong, to tell who shares it.
    """
    own = Scope(tuple(tree for tree in scope.trees if tree.selected))
    chains = history.chains(history.shared(journal)) if journal else {}
    found = Verified(scan(own, 1))
    found.warnings += [*scope.warnings, *found.inventory.warnings]
    stamps = _stamps(chains)
    shared = [inode for inode in found.inventory.inodes.values() if inode.nlink > 1]
    digests = {} if quick else _digests(found, shared, progress or Progress())
    bad = [inode.key for inode in shared if _is_bad(inode, digests.get(inode.key), stamps.get(inode.key))]
    if not bad:
        return found
    whole = scan(scope, 1)
    found.inventory = whole
    for key in bad:
        inode = whole.inodes.get(key)
        if inode is not None:
            found.damages.append(_damage(inode, digests.get(key, b"")))
    return found


def _stamps(chains: Mapping[tuple[str, str], list[Entry]]) -> dict[InodeKey, bool]:
    """Return for each inode that the journal knows, its keepers, whether size and mtime are as noted."""
    stamps: dict[InodeKey, bool] = {}
    for (root, path), chain in chains.items():
        with suppress(OSError):
            inode = Inode.of(lstat(f"{root}/{path}"))
            stamps[inode.key] = stamps.get(inode.key, True) and chain[0].change.keeper_is_as_noted(inode)
    return stamps


def _digests(found: Verified, shared: Iterable[Inode], progress: Progress) -> dict[InodeKey, bytes]:
    """Read every inode for which some record has a digest."""
    scope = found.inventory.scope
    known = []
    for inode in shared:
        if _wanted(inode):
            known.append(inode)
        else:
            found.unknown += 1

    def read(inode: Inode) -> bytes | str:
        try:
            descriptor = open_inode(scope, inode)
            try:
                digest = digest_of(descriptor)
                if not as_planned(os.fstat(descriptor), inode):
                    return "it was changed while it was read"
                return digest
            finally:
                os.close(descriptor)
        except OSError as exc:
            return exc.strerror or str(exc)

    digests: dict[InodeKey, bytes] = {}
    total = sum(inode.size for inode in known)
    with (
        progress.stage("Verifying", total) as advance,
        ThreadPoolExecutor(min(_READERS, os.cpu_count() or 1)) as readers,
    ):
        for inode, digest in zip(known, readers.map(read, known), strict=True):
            advance(inode.size)
            if isinstance(digest, str):
                found.warnings.append(f"{scope.paths_of(inode)[0]!r} could not be verified: {digest}")
                continue
            found.inodes += 1
            found.bytes += inode.size
            digests[inode.key] = digest
    return digests


def _wanted(inode: Inode) -> dict[bytes, list[Name]]:
    """Return the names of an inode by the digest that their record wants."""
    wanted: dict[bytes, list[Name]] = defaultdict(list)
    for name in inode.names:
        if name.claim is not None and name.claim.sha256 is not None:
            wanted[name.claim.sha256].append(name)
    return wanted


def _is_bad(inode: Inode, digest: bytes | None, as_noted: bool | None) -> bool:
    if digest is not None:
        return any(wanted != digest for wanted in _wanted(inode))
    return as_noted is False


def _damage(inode: Inode, digest: bytes) -> Damage:
    wanted = {want: names for want, names in _wanted(inode).items() if digest and want != digest}
    return Damage(inode, wanted or {b"": list(inode.names)}, digest)
