"""Where pip installs in an environment: looked at after every command, so cheap to import."""

# Paths are plain strings here, as in Tree.root and in what scandir gives.
# ruff: noqa: PTH112, PTH114

from __future__ import annotations

import os

_PYTHONS = ("python", "pypy")


def site_packages(prefix: str) -> list[str]:
    """Return the site-packages directories of an environment that exist, none of them through a link.

    Python 3.10 of conda-forge has a link ``lib/python3.1``: what is found through it is known by the
    other path.
    """
    libraries = []
    for name in directories(prefix):
        if name == "Lib":
            libraries.append(f"{prefix}/Lib")
        elif name == "lib":
            pythons = (python for python in directories(f"{prefix}/lib") if python.startswith(_PYTHONS))
            libraries += [f"{prefix}/lib/{python}" for python in pythons]
    found = (f"{library}/site-packages" for library in libraries)
    return [path for path in found if os.path.isdir(path) and not os.path.islink(path)]


def directories(path: str) -> list[str]:
    """Return the names of the directories in a directory, without links; none if it cannot be listed."""
    try:
        with os.scandir(path) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
    except OSError:
        return []
