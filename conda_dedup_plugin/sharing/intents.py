"""What came of one change that a killed run had begun, from what is really there.

Nothing is removed by its name alone: only the keeper's further name, or the old inode when it is
unchanged and its target holds the same bytes, or was given up by somebody. Anything else is somebody's
new content, and is put back or kept.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from msgspec import Struct

from ..model import STAGING_PREFIX, Inode, InodeKey, Method
from . import leases
from .bytecode import taken_apart
from .compare import same_bytes
from .leases import Lease
from .opening import open_name
from .outcome import SkipError
from .staging import OLD_SUFFIX, Staging, Swap
from .system import rename, stat_at

if TYPE_CHECKING:
    from .change import Change
    from .opening import Directories

#: A component of a path is no more, or is something else now.
GONE = (FileNotFoundError, NotADirectoryError)


class _Scene(Struct):
    """What is there now: the inodes at the target and in staging (None: nothing)."""

    change: Change
    swap: Swap | None
    staging: Staging
    staged: str

    @property
    def at_target(self) -> InodeKey | None:
        if self.swap is None:
            return None
        try:
            return self.swap.key()
        except FileNotFoundError:
            return None

    @property
    def at_staged(self) -> InodeKey | None:
        return _key(self.staging.descriptor, self.staged)


def settle(change: Change, directories: Directories, half: bool) -> tuple[str, str]:
    """Complete or take back one change; ``half``: take it back, for another name of it was never begun.

    Returns the state to note, and the path of a file that had to be kept, if any. OSError: it cannot be
    seen to just now.
    """
    below, _, staged = change.staged.rpartition("/")
    if not below.rpartition("/")[2].startswith(STAGING_PREFIX):
        return "dropped", ""  # no run of ours wrote that
    try:
        directory, name = directories.parent(change.root, below)
        staging = Staging.existing(change.root, below, directory, name)
    except GONE:
        staging = None
    try:
        directory, name = directories.parent(change.root, change.path)
        target = _key(directory, name)
    except GONE:
        target = None
    if staging is None:
        return ("done" if _is(target, change.keeper) else "dropped"), ""
    try:
        swap = None if target is None else Swap(change.root, change.path, directory, name, staging, staged)
        scene = _Scene(change, swap, staging, staged)
        _take_further(scene)
        return _resolve(scene, half)
    finally:
        staging.close(directories)


def _resolve(scene: _Scene, half: bool) -> tuple[str, str]:
    change, target, staged = scene.change, scene.at_target, scene.at_staged
    done = "done" if _is(target, change.keeper) else "dropped"
    if staged is None:
        return done, ""
    if _is(staged, change.keeper):
        scene.staging.drop(scene.staged, staged)  # the exchange was never made, or was taken back
        return "dropped", ""
    intact = _is(target, change.keeper) and _keeper_intact(scene)
    if _is(staged, change.old) and _old_unchanged(scene):
        if half and intact and scene.swap is not None and target is not None:
            # another name was not exchanged: on its own it might not be found again (no record speaks of
            # it, damage is looked for in what is shared), and names of one file would be two files
            kept = _give_back(scene.swap, target, staged)
            return ("conflict" if kept else "dropped"), kept
        if not _is(target, change.keeper) or (intact and _same(scene)):
            scene.staging.drop(scene.staged, staged)
            return done, ""
    elif intact and scene.swap is not None and target is not None:
        # somebody's new file, or the old one with somebody's edit: it belongs to the target
        kept = _give_back(scene.swap, target, InodeKey(-1, -1))
        return ("conflict" if kept else "dropped"), kept
    return "conflict", f"{change.root}/{change.staged}"


def _give_back(swap: Swap, keeper: InodeKey, old: InodeKey) -> str:
    """Exchange back; the keeper's name is only kept, and returned, if somebody came by it meanwhile."""
    kept = swap.exchange_back(keeper, old)
    if swap.staging.holds(swap.staged, keeper):
        descriptor = open_name(swap.staging.descriptor, swap.staged, keeper)
        try:
            if leases.take(descriptor) is Lease.BUSY:
                return swap.keep_beside()
            swap.staging.drop(swap.staged, keeper)
        finally:
            os.close(descriptor)
    return kept


def _is(found: InodeKey | None, planned: InodeKey) -> bool:
    """Whether it is the inode of the journal; its device may have another number since."""
    return found is not None and found.number == planned.number


def _key(directory: int, name: str) -> InodeKey | None:
    try:
        stat = stat_at(name, directory)
    except FileNotFoundError:
        return None
    return InodeKey(stat.st_dev, stat.st_ino)


def _old_unchanged(scene: _Scene) -> bool:
    stat = stat_at(scene.staged, scene.staging.descriptor)
    return (stat.st_size, stat.st_mtime_ns) == (scene.change.size, scene.change.mtime_ns)


def _keeper_intact(scene: _Scene) -> bool:
    """Whether nobody wrote to the keeper, nor got its inode number for a new file."""
    if scene.swap is None:
        return False
    stat = stat_at(scene.swap.name, scene.swap.directory)
    return scene.change.keeper_is_as_noted(Inode.of(stat))


def _same(scene: _Scene) -> bool:
    """Whether the target and what is staged hold the same bytes, as they should but for a repair."""
    if scene.change.method is Method.REPAIR:
        return True
    target, staged = scene.at_target, scene.at_staged
    if scene.swap is None or target is None or staged is None:
        return False
    one = open_name(scene.staging.descriptor, scene.staged, staged)
    try:
        other = open_name(scene.swap.directory, scene.swap.name, target)
        try:
            if scene.change.bytecode is not None:
                source = scene.change.bytecode.source
                return taken_apart(one, source).identity == taken_apart(other, source).identity
            size = os.fstat(one).st_size
            return os.fstat(other).st_size == size and same_bytes(one, other, size)
        except SkipError:
            return False
        finally:
            os.close(other)
    finally:
        os.close(one)


def _take_further(scene: _Scene) -> None:
    """Without an atomic exchange the old inode may wait under a further name; bring it to its usual one.

    The keeper has one while a name is given back.
    """
    further = scene.staged + OLD_SUFFIX
    found = _key(scene.staging.descriptor, further)
    if found is not None and _is(found, scene.change.keeper):
        scene.staging.drop(further, found)
    if found is None or not _is(found, scene.change.old):
        return
    if _is(scene.at_target, scene.change.old):
        scene.staging.drop(further, found)
        return
    staged = scene.at_staged
    if staged is not None and _is(staged, scene.change.keeper):
        # the target became somebody's new file before the keeper's name could come over it
        scene.staging.drop(scene.staged, staged)
    if scene.at_staged is None:
        rename(further, scene.staging.descriptor, scene.staged, scene.staging.descriptor)
