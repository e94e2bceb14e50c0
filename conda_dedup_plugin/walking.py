"""The regular files of a tree, by one walk.

Directories are opened one below the other without following symbolic links, so that a walk never
leaves its tree, whatever its owner does meanwhile.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from .environments import is_package_cache
from .model import STAGING_PREFIX
from .sharing.system import lstat, open_directory, open_root, scan

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .model import Tree


class Folder(NamedTuple):
    """A directory of a tree: its path there with a slash (empty for the root), open, and its files."""

    below: str
    descriptor: int
    files: list[os.DirEntry[str]]


class Listed(NamedTuple):
    """A file that was looked at by its path: in the place of an entry of a directory."""

    name: str
    found: os.stat_result

    def inode(self) -> int:
        """Return its number."""
        return self.found.st_ino


def listed_folder(tree: Tree, path: str) -> tuple[str, int, list[Listed]]:
    """Return a regular file as the only one of a directory; nothing if there is none."""
    below, _, name = path.rpartition("/")
    below = f"{below}/" if below else ""
    try:
        stat = lstat(f"{tree.root}/{path}")
    except OSError:
        return below, -1, []
    return below, -1, [Listed(name, stat)] if (stat.st_mode & 0o170000) == 0o100000 else []


def walk(tree: Tree, roots: set[str], warnings: list[str]) -> Iterator[Folder]:
    """Yield every directory of ``tree`` with its regular files, depth first; at most one a level is open.

    Of the files it says what their directory does. Trees inside the tree, of which ``roots`` has the others,
    are none of it.
    """
    try:
        descriptor = open_root(tree.root, listed=True)
    except OSError as exc:
        warnings.append(unreadable(tree.root, exc))
        return
    #: (open directory, its path with a slash, names of its directories still to be seen)
    levels: list[tuple[int, str, list[str]]] = []
    try:
        levels.append((descriptor, "", []))
        yield Folder("", descriptor, _files(tree, descriptor, "", levels[-1][2], warnings))
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
                warnings.append(unreadable(f"{tree.root}/{path}", exc))
                continue
            levels.append((descriptor, path + "/", []))
            files = _files(tree, descriptor, path + "/", levels[-1][2], warnings)
            yield Folder(path + "/", descriptor, files)
    finally:
        for descriptor, _, _ in levels:
            os.close(descriptor)


def _files(
    tree: Tree, descriptor: int, below: str, directories: list[str], warnings: list[str]
) -> list[os.DirEntry[str]]:
    """Return the regular files of one open directory; its directories go to ``directories``.

    An environment inside another one is none of its files.
    """
    files: list[os.DirEntry[str]] = []
    try:
        entries = scan(descriptor)
    except OSError as exc:
        warnings.append(unreadable(f"{tree.root}/{below}", exc))
        return files
    if below and not tree.is_cache and "conda-meta" in [entry.name for entry in entries]:
        return files
    for entry in entries:
        try:
            if entry.is_file(follow_symlinks=False):
                files.append(entry)
            elif entry.is_dir(follow_symlinks=False):
                directories.append(entry.name)
        except FileNotFoundError:
            continue
        except OSError as exc:
            # a directory that may be listed and not entered
            warnings.append(unreadable(f"{tree.root}/{below}", exc))
            break
    return files


def unreadable(path: str, error: OSError) -> str:
    """Return the warning for what cannot be read."""
    return f"{path!r} cannot be read ({error.strerror}); it is left out"


def _is_foreign(tree: Tree, name: str) -> bool:
    """Whether the child ``name`` of the root is no part of the tree: our staging, a base's cache."""
    if name.startswith(STAGING_PREFIX):
        return True
    return not tree.is_cache and name == "pkgs" and is_package_cache(f"{tree.root}/{name}")
