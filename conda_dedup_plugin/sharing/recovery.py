"""Completing what a killed run left half done, from its intents and from what is really there.

Nothing is removed by its name alone: only the keeper's inode, or the old one when it is unchanged and
its target holds the same bytes. Anything else is somebody's new file and is put back or kept.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from ..model import InodeKey
from .compare import same_bytes
from .linux import exchange
from .opening import Directories, open_name
from .staging import OLD_SUFFIX

if TYPE_CHECKING:
    from ..journal import Change, Journal


def recover(journal: Journal) -> list[str]:
    """Complete or take back every change that a dead run left open.

    Returns a sentence for each file that had to be kept beside another one.
    """
    kept = []
    results = []
    with Directories() as directories:
        for intent in journal.open_intents():
            state, path = _recover(intent.change, directories)
            directories.close()
            results.append((intent.number, state, 0))
            if path:
                kept.append(
                    f"a file that another program wrote during an interrupted run was kept as {path!r}"
                )
    if results:
        journal.resolve(results)
    return kept


def _recover(change: Change, directories: Directories) -> tuple[str, str]:
    """Return the state to note, and the path of a file that had to be kept in staging, if any."""
    try:
        target_dir, target = directories.parent(change.root, change.path)
        staging_dir, staged = directories.parent(change.root, change.staged)
    except OSError:
        return "dropped", ""  # the environment is gone, or staging is: nothing is left to do
    at_target = _key(target_dir, target)
    _drop_further(change, staging_dir, staged, at_target)
    at_staged = _key(staging_dir, staged)
    state, kept = "done" if at_target == change.keeper else "dropped", ""
    if at_staged == change.keeper:
        os.unlink(staged, dir_fd=staging_dir)
    elif at_staged == change.old and _superseded(change, staging_dir, staged, target_dir, target, at_target):
        os.unlink(staged, dir_fd=staging_dir)
    elif at_staged is not None and at_target == change.keeper:
        exchange(staging_dir, staged, target_dir, target)
        state = "dropped"
        if _key(staging_dir, staged) == change.keeper:
            os.unlink(staged, dir_fd=staging_dir)
        else:
            kept = f"{change.root}/{change.staged}"
    elif at_staged is not None:
        kept = f"{change.root}/{change.staged}"
    with contextlib.suppress(OSError):
        parent, name = directories.parent(change.root, change.staged.rpartition("/")[0])
        os.rmdir(name, dir_fd=parent)
    return ("conflict" if kept else state), kept


def _key(directory: int, name: str) -> InodeKey | None:
    try:
        stat = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None
    return InodeKey(stat.st_dev, stat.st_ino)


def _superseded(
    change: Change, staging_dir: int, staged: str, target_dir: int, target: str, at_target: InodeKey | None
) -> bool:
    """Whether the old inode in staging is unchanged, and its bytes are at the target or given up there."""
    stat = os.stat(staged, dir_fd=staging_dir, follow_symlinks=False)
    if (stat.st_size, stat.st_mtime_ns) != (change.size, change.mtime_ns):
        return False
    if at_target != change.keeper:
        return True  # the target was deleted, or replaced, after the exchange: its old content is given up
    old = open_name(staging_dir, staged, change.old)
    try:
        keeper = open_name(target_dir, target, change.keeper)
        try:
            return os.fstat(keeper).st_size == change.size and same_bytes(old, keeper, change.size)
        finally:
            os.close(keeper)
    finally:
        os.close(old)


def _drop_further(change: Change, staging_dir: int, staged: str, at_target: InodeKey | None) -> None:
    """Without an atomic exchange the old inode may wait under a further name; bring it to its usual one."""
    further = staged + OLD_SUFFIX
    if _key(staging_dir, further) != change.old:
        return
    if at_target == change.old:
        os.unlink(further, dir_fd=staging_dir)
    else:
        os.rename(further, staged, src_dir_fd=staging_dir, dst_dir_fd=staging_dir)
