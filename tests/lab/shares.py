"""Inodes, shares and journals for tests that work on a few files only."""

from __future__ import annotations

import os
from pathlib import Path

from conda_dedup_plugin.journal import Journal
from conda_dedup_plugin.model import (
    Hazard,
    Inode,
    Manager,
    Method,
    Name,
    Scope,
    Tree,
    TreeKind,
)
from conda_dedup_plugin.plan import Share
from conda_dedup_plugin.sharing.hardlink import Hardlinker
from conda_dedup_plugin.sharing.opening import open_inode
from conda_dedup_plugin.sharing.probe import probe
from conda_dedup_plugin.sharing.reflink import Reflinker


def one_tree(root: Path) -> Scope:
    """A scope of one environment at ``root``."""
    return Scope((Tree(os.path.realpath(root), TreeKind.ENVIRONMENT, Manager.CONDA, root.name),))


def inode_of(root: Path, *paths: str, hazard: Hazard = Hazard.NATIVE) -> Inode:
    """The inode that ``paths`` (relative to ``root``) are names of, as an inventory would tell."""
    inode = Inode.of(os.lstat(root / paths[0]))
    inode.names = [Name(0, path, None) for path in paths]
    inode.hazard = hazard
    return inode


def share_of(root: Path, keeper: str, *paths: str, method: Method = Method.HARDLINK) -> Share:
    """The plan to give ``paths`` (names of one inode) the keeper's inode."""
    duplicate = inode_of(root, *paths)
    return Share(duplicate, inode_of(root, keeper), method, Hazard.NATIVE, duplicate.disk_bytes)


def devices_of(scope: Scope, share: Share):
    try:
        descriptor = open_inode(scope, share.keeper)
    except OSError:
        descriptor = open_inode(scope, share.duplicate)
    try:
        return {share.keeper.key.device: probe(descriptor)}
    finally:
        os.close(descriptor)


def hardlink(root: Path, journal: Path, *shares: Share):
    """Run a Hardlinker over ``shares`` with a journal at ``journal``; returns the outcomes."""
    scope = one_tree(root)
    book = Journal.open(journal)
    try:
        book.begin("test")
        with Hardlinker(scope, book, devices_of(scope, shares[0])) as linker:
            outcomes = list(linker.run(shares))
        book.finish()
        return outcomes
    finally:
        book.close()


def reflink(root: Path, journal: Path, *shares: Share):
    """The same with a Reflinker."""
    scope = one_tree(root)
    book = Journal.open(journal)
    try:
        book.begin("test")
        with Reflinker(scope, book) as linker:
            outcomes = list(linker.run(shares))
        book.finish()
        return outcomes
    finally:
        book.close()


def leftovers(root: Path) -> list[str]:
    """What a run left behind in a tree; there should be nothing."""
    return sorted(str(path) for path in root.rglob("*conda-dedup*"))
