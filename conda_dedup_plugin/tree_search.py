"""Finding environments and package caches below a directory, for ``--search``."""

# Paths are plain strings here, as in Tree.root and in what scandir gives.
# ruff: noqa: PTH118

from __future__ import annotations

import os

from msgspec import Struct, field

from conda_dedup_plugin.trees import (
    is_build_tree,
    is_environment,
    is_package,
    is_uv_cache,
    is_virtual_environment,
)

_SKIPPED = frozenset({".git", "node_modules", "__pycache__"})
#: Made up by the kernel; there is nothing on any device.
_VIRTUAL = frozenset({"/proc", "/sys"})
#: What an environment that is a base, or has a project in it, may have other environments in.
_IN_ENVIRONMENTS = ("envs", "pkgs")
_ARCHIVES = (".conda", ".tar.bz2")


class SearchResult(Struct):
    """Paths below the directory searched, in the order of walking."""

    environments: list[str] = field(default_factory=list)
    caches: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)


def search(directory: str) -> SearchResult:
    """Walk a directory, itself included, without following symbolic links or entering packages.

    Of an environment only ``envs`` and ``pkgs`` are looked into, of a virtual one nothing. A directory
    counts as a cache here if it has an extracted package with a list of files, or archives beside
    ``urls.txt``: this walk comes through places where a ``urls.txt`` or an ``info/index.json`` alone may be
    anything.
    """
    result = SearchResult()
    pending = [directory]
    while pending:
        current = pending.pop()
        if is_build_tree(current):
            continue
        subdirectories, files = _list(current, result)
        if is_environment(current):
            result.environments.append(current)
            subdirectories = [name for name in subdirectories if name in _IN_ENVIRONMENTS]
        elif "pyvenv.cfg" in files and is_virtual_environment(current):
            result.environments.append(current)
            continue
        elif is_uv_cache(current) or _is_cache(current, subdirectories, files):
            result.caches.append(current)
            continue
        below = (os.path.join(current, name) for name in sorted(subdirectories, reverse=True))
        pending.extend(path for path in below if path not in _VIRTUAL)
    return result


def _list(directory: str, result: SearchResult) -> tuple[list[str], list[str]]:
    """Return the names of the directories worth a look, and of the files."""
    subdirectories: list[str] = []
    files: list[str] = []
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                if not entry.is_dir(follow_symlinks=False):
                    files.append(entry.name)
                elif entry.name not in _SKIPPED:
                    subdirectories.append(entry.name)
    except PermissionError:
        result.unreadable.append(directory)
    except OSError:
        pass  # removed meanwhile
    return subdirectories, files


def _is_cache(directory: str, subdirectories: list[str], files: list[str]) -> bool:
    if "urls.txt" in files and any(name.endswith(_ARCHIVES) for name in files):
        return True
    for name in subdirectories:
        package = os.path.join(directory, name)
        listings = (os.path.join(package, "info", listing) for listing in ("paths.json", "files"))
        if is_package(package) and ("urls.txt" in files or any(map(os.path.isfile, listings))):
            return True
    return False
