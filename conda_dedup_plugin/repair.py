"""Bringing back what a damaged inode should hold: from a cache, another environment, or an archive."""

from __future__ import annotations

import os
import shlex
import time
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

from msgspec import Struct, field

from . import archives, history, state
from .apply import Applied
from .journal import NoJournal
from .model import Manager, Method, Reason
from .sharing.copying import copy_bytes, digest_of
from .sharing.opening import open_inode
from .sharing.outcome import Outcome
from .sharing.private import Copy, Privatizer

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from .inventory import Inventory
    from .journal import Journal
    from .model import Inode, Name, Scope, Tree
    from .verify import Damage, Verified


_FROZEN = "its environment is frozen: add --override-frozen"


class Beyond(Struct, frozen=True):
    """A damaged name that nothing here can bring back, and what the user can do."""

    path: str
    advice: str


class Repair(Struct):
    """What is to be done: a copy of the right content for the names of each damaged inode."""

    scope: Scope
    copies: list[Copy] = field(default_factory=list)
    #: Where the right content comes from, by the ``id()`` of the copy's inode.
    sources: dict[int, str] = field(default_factory=dict)
    beyond: list[Beyond] = field(default_factory=list)


def plan_repair(
    verified: Verified, journal: Journal | None, kept: Collection[str] = (), override_frozen: bool = False
) -> Repair:
    """Find the right content for every damaged name; those at the (absolute) paths ``kept`` stay."""
    inventory = verified.inventory
    scope = inventory.scope
    repair = Repair(scope)
    chains = history.chains(history.shared(journal)) if journal else {}
    donors = _donors(inventory)
    for damage in verified.damages:
        for digest, damaged in damage.names.items():
            names = [name for name in damaged if _path(scope, name) not in kept]
            frozen = [name for name in names if scope.trees[name.tree].frozen and not override_frozen]
            repair.beyond += [Beyond(_path(scope, name), _FROZEN) for name in frozen]
            names = [name for name in names if name not in frozen]
            if not names:
                continue
            copy, source = _copy(inventory, damage, digest, names, donors)
            if copy is None:
                repair.beyond += [Beyond(_path(scope, name), _advice(scope, name)) for name in names]
                continue
            for name in names:
                chain = chains.get((scope.trees[name.tree].root, name.path))
                if chain:
                    copy = Copy(copy.duplicate, chain[0].change.keeper_mtime_ns, copy.write, digest)
            repair.copies.append(copy)
            repair.sources[id(copy.duplicate)] = source
    return repair


def _path(scope: Scope, name: Name) -> str:
    return f"{scope.trees[name.tree].root}/{name.path}"


def _donors(inventory: Inventory) -> dict[bytes, list[Inode]]:
    """Return the inodes that records say hold a content, those in caches first."""
    scope = inventory.scope
    donors: dict[bytes, list[Inode]] = {}
    for inode in inventory.inodes.values():
        for digest in {name.claim.sha256 for name in inode.names if name.claim}:
            if digest is not None:
                donors.setdefault(digest, []).append(inode)
    for inodes in donors.values():
        inodes.sort(key=lambda inode: not any(tree.is_cache for tree in scope.trees_of(inode)))
    return donors


def _copy(
    inventory: Inventory, damage: Damage, digest: bytes, names: list[Name], donors: dict[bytes, list[Inode]]
) -> tuple[Copy | None, str]:
    """Return the task for these names and the path of the file or archive with the right content."""
    scope = inventory.scope
    own = damage.inode.alone()
    own.names = list(names)
    for donor in donors.get(digest, []):
        if donor.key != damage.inode.key and _holds(scope, donor, digest):
            write = partial(_write_inode, scope, donor)
            return Copy(own, donor.mtime_ns, write, digest), scope.paths_of(donor)[0]
    for archive, member in _archived(scope, names):
        mtime_ns = archives.find_member(archive, member, digest)
        if mtime_ns is not None:
            return Copy(own, mtime_ns, partial(archives.write_member, archive, member), digest), archive
    return None, ""


def _holds(scope: Scope, inode: Inode, digest: bytes) -> bool:
    try:
        descriptor = open_inode(scope, inode)
    except OSError:
        return False
    try:
        return digest_of(descriptor) == digest
    except OSError:
        return False
    finally:
        os.close(descriptor)


def _write_inode(scope: Scope, donor: Inode, target: int) -> None:
    descriptor = open_inode(scope, donor)
    try:
        copy_bytes(descriptor, target)
    finally:
        os.close(descriptor)


def _archived(scope: Scope, names: list[Name]) -> Iterator[tuple[str, str]]:
    """Yield (archive, path in it) for what caches may still have in packed form."""
    for name in names:
        claim = name.claim
        if claim is None or claim.pip or claim.prefixed:
            continue
        for tree in scope.trees:
            if tree.is_cache:
                for suffix in archives.SUFFIXES:
                    yield f"{tree.root}/{claim.dist}{suffix}", claim.path


def _advice(scope: Scope, name: Name) -> str:
    """What a user can do about a name that cannot be repaired."""
    tree, claim = scope.trees[name.tree], name.claim
    if claim is None:
        return "no record says what it should hold"
    if tree.manager is Manager.UV:
        return f"run 'uv cache clean {claim.dist.name}' and install it again"
    if tree.is_cache:
        package = f"{tree.root}/{name.path.split('/')[0]}"
        return f"remove {package!r} and install {claim.dist.name} again"
    return f"reinstall it: {_reinstall(tree, name)}"


def _reinstall(tree: Tree, name: Name) -> str:
    claim = name.claim
    if claim is None:
        return ""
    dist = claim.dist
    if claim.pip:
        python = shlex.quote(f"{tree.root}/bin/python")
        pip = f"{python} -m pip install --force-reinstall --no-deps"
        if tree.manager is Manager.VENV and not os.path.lexists(f"{tree.root}/bin/pip"):
            pip = f"uv pip install --python {python} --reinstall --no-deps"
        return f"{pip} {dist.name}=={dist.version}"
    if tree.manager in (Manager.PIXI, Manager.MAGIC):
        return f"{tree.manager.value} reinstall {dist.name}"
    program = "mamba" if tree.manager is Manager.MAMBA else "conda"
    prefix = shlex.quote(tree.root)
    return f"{program} install --force-reinstall -p {prefix} {dist.name}={dist.version}={dist.build}"


def carry_out(repair: Repair, journal: Journal, command: str) -> Applied:
    """Give every damaged name the right content. ``command`` is noted in the journal.

    StateError: the journal cannot be written to. What is done is complete.
    """
    applied = Applied()
    scope = repair.scope
    with ExitStack() as stack:
        trees = {tree.root for copy in repair.copies for tree in scope.trees_of(copy.duplicate)}
        locked = state.lock_all(stack, trees, not isinstance(journal, NoJournal))
        applied.run = journal.begin(command)
        for outcome in _outcomes(repair, journal, locked):
            inode = outcome.duplicate
            paths = scope.paths_of(inode)
            applied.add(outcome, inode.size, paths[0])
            if outcome.method is not None:
                for name in inode.names:
                    history.note_move(journal, (scope.trees[name.tree].root, name.path), inode.key)
        journal.finish()
        history.compact(journal, time.time())
    return applied


def _outcomes(repair: Repair, journal: Journal, locked: set[str]) -> Iterator[Outcome]:
    ready = []
    for copy in repair.copies:
        if any(tree.root in locked for tree in repair.scope.trees_of(copy.duplicate)):
            yield Outcome(copy.duplicate, reason=Reason.LOCKED)
        else:
            ready.append(copy)
    with Privatizer(repair.scope, journal, Method.REPAIR) as privatizer:
        yield from privatizer.run(ready)
