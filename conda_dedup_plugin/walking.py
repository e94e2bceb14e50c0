"""The regular files of a tree, by one walk.

Directories are opened one below the other without following symbolic links, so that a walk never
leaves its tree, whatever its owner does meanwhile.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from .environments import is_package_cache
from .model import STAGING_PREFIX
from .sharing.system import entry_stat, lstat, open_directory, open_root, scan

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .model import Tree


class Found(NamedTuple):
    """A regular file: its path in the tree, its lstat, and its open directory (-1: not open)."""

    path: str
    stat: os.stat_result
    directory: int


def listed_files(tree: Tree, paths: Iterable[str]) -> Iterator[Found]:
    """Yield those of ``paths`` in a tree that are regular files, with their lstat."""
    for path in paths:
        try:
            stat = lstat(f"{tree.root}/{path}")
        except OSError:
            continue
        if (stat.st_mode & 0o170000) == 0o100000:
            yield Found(path, stat, -1)


def walk(tree: Tree, roots: set[str], warnings: list[str]) -> Iterator[Found]:
    """Yield every regular file of ``tree``, depth first, with at most one descriptor a level open."""
    try:
        descriptor = open_root(tree.root, listed=True)
    except OSError as exc:
        warnings.append(_unreadable(tree.root, exc))
        return
    #: (open directory, its path with a slash, names of its directories still to be seen)
    levels: list[tuple[int, str, list[str]]] = []
    try:
        levels.append((descriptor, "", []))
        yield from _files(tree, descriptor, "", levels[-1][2], warnings)
        while levels:
            parent, below, pending = levels[-1]
            if not pending:
                os.close(parent)
                levels.pop()
                continue
            name = pending.pop()
            path = below + name
            if f"{tree.root}/{path}" in roots or (not below and _is_foreign(tree, name)):
                continue
            try:
                descriptor = open_directory(name, parent, listed=True)
            except FileNotFoundError:
                continue
            except OSError as exc:
                warnings.append(_unreadable(f"{tree.root}/{path}", exc))
                continue
            levels.append((descriptor, path + "/", []))
            yield from _files(tree, descriptor, path + "/", levels[-1][2], warnings)
    finally:
        for descriptor, _, _ in levels:
            os.close(descriptor)


def _files(
    tree: Tree, descriptor: int, below: str, directories: list[str], warnings: list[str]
) -> Iterator[Found]:
    """Yield the regular files of one open directory; its directories go to ``directories``.

    An environment inside another one is none of its files.
    """
    try:
        entries = scan(descriptor)
    except OSError as exc:
        warnings.append(_unreadable(f"{tree.root}/{below}", exc))
        return
    if below and not tree.is_cache and any(entry.name == "conda-meta" for entry in entries):
        return
    for entry in entries:
        try:
            if entry.is_file(follow_symlinks=False):
                yield Found(below + entry.name, entry_stat(entry, descriptor), descriptor)
            elif entry.is_dir(follow_symlinks=False):
                directories.append(entry.name)
        except FileNotFoundError:
            continue
        except OSError as exc:
            # a directory that may be listed and not entered
            warnings.append(_unreadable(f"{tree.root}/{below}", exc))
            return


def _unreadable(path: str, error: OSError) -> str:
    return f"{path!r} cannot be read ({error.strerror}); it is left out"


def _is_foreign(tree: Tree, name: str) -> bool:
    """Whether the child ``name`` of the root is no part of the tree: our staging, a base's cache."""
    if name.startswith(STAGING_PREFIX):
        return True
    return not tree.is_cache and name == "pkgs" and is_package_cache(f"{tree.root}/{name}")
