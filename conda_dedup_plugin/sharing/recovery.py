"""Completing what killed runs left half done: tree by tree, every change that they left open."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from .. import state
from ..files import real_path
from ..model import Method
from .intents import GONE, settle
from .opening import Directories
from .sources import settle_time
from .staging import Staging

if TYPE_CHECKING:
    from ..journal import Journal
    from .change import Change, Entry


def recover(journal: Journal) -> list[str]:
    """Complete or take back every change that a dead run left open.

    A tree that another run is working on is left to it: the run that seems dead may live where its
    process cannot be seen. Returns a sentence for each file that had to be kept, or could not be seen to.
    """
    notes = []
    intents = journal.open_intents()
    roots = {intent.change.root for intent in intents}
    half = {
        _whole(intent)
        for intent in intents
        if intent.change.method is not Method.RETIME and _is_not_begun(intent.change)
    }
    roots |= {root for _, root, _ in journal.left_stagings()}
    for root in sorted(roots):
        if not _is_there(root):
            continue  # it may be mounted again
        with state.lock(root) as ours:
            if ours:
                notes += _recover_tree(journal, root, half)
    for entry in journal.left_repairs():
        change = entry.change
        journal.moved((change.root, change.path), change.old, change.keeper, change.keeper_mtime_ns)
        journal.resolve([(entry.number, "dropped", 0)])
    return notes


def _whole(intent: Entry) -> tuple[str, object]:
    """What is done as a whole or not at all: all names of an old inode, or all that a copy gets.

    All bytecode of one source, too.
    """
    change = intent.change
    if change.bytecode is not None:
        return intent.run, (change.root, change.bytecode.source)
    return intent.run, change.keeper if change.method is Method.COPY else change.old


def _is_not_begun(change: Change) -> bool:
    """Whether a run has not come to this name."""
    try:
        return os.lstat(f"{change.root}/{change.path}").st_ino == change.old.number
    except (OSError, ValueError):
        return False


def _is_there(root: str) -> bool:
    """Whether a tree is where it was, and not somewhere else by way of a link."""
    try:
        return os.path.isdir(root) and real_path(root) == root
    except OSError:
        return False


def _settle(intent: Entry, directories: Directories, half: set[tuple[str, object]]) -> tuple[str, str]:
    if intent.change.method is not Method.RETIME:
        return settle(intent.change, directories, _whole(intent) in half)
    try:
        return settle_time(intent.change, directories), ""
    except GONE:
        return "dropped", ""


def _recover_tree(journal: Journal, root: str, half: set[tuple[str, object]]) -> list[str]:
    notes = []
    results = []
    with Directories() as directories:
        intents = [intent for intent in journal.open_intents() if intent.change.root == root]
        # the bytecode there is in the end tells the time that its source is to have
        for intent in sorted(intents, key=lambda intent: intent.change.method is Method.RETIME):
            try:
                found, kept = _settle(intent, directories, half)
            except OSError as exc:
                path = f"{root}/{intent.change.path}"
                notes.append(
                    f"what an interrupted run left of {path!r} could not be seen to ({exc.strerror})"
                )
                continue
            finally:
                directories.close()
            if found == "done" and intent.change.method is Method.COPY:
                found = "dropped"  # a private copy is nothing to take back
            results.append((intent.number, found, 0))
            if kept:
                notes.append(f"another content of {root}/{intent.change.path!r} was kept as {kept!r}")
        if results:
            journal.resolve(results)
        for run, tree, path in journal.left_stagings():
            if tree == root and _remove_staging(directories, tree, path):
                journal.forget_staging(run, tree, path)
    return notes


def _remove_staging(directories: Directories, root: str, path: str) -> bool:
    """Remove what is left of a staging directory; return whether it is gone."""
    gone = False
    try:
        parent, name = directories.parent(root, path)
        staging = Staging.existing(root, path, parent, name)
        try:
            staging.drop_copies()
        finally:
            gone = staging.close(directories)
    except GONE:
        return True
    except OSError:
        return gone
    return gone
