"""Whether an environment could be made again from a file that lies with it."""

from __future__ import annotations

# Paths are plain strings here, as in Tree.root.
# ruff: noqa: PTH113, PTH119
import os
from typing import TYPE_CHECKING

from .commands import project_of
from .files import read_regular
from .model import Manager

if TYPE_CHECKING:
    from .model import Tree

#: In the environment or in the directory of its project.
FILES = (
    "environment.yml",
    "environment.yaml",
    "pixi.toml",
    "pixi.lock",
    "conda-lock.yml",
    "conda-lock.yaml",
    "explicit.txt",
    "spec-file.txt",
    "conda-linux-64.lock",
)
#: What makes a virtual environment again.
_VENV_FILES = ("requirements.txt", "pylock.toml", "uv.lock", "poetry.lock", "Pipfile.lock", "pdm.lock")
#: Beside an environment of a directory of many, under the environment's name.
_SUFFIXES = (".yml", ".yaml", ".lock", ".txt", ".pin.txt")
#: So far into a file its ``@EXPLICIT`` is.
_HEAD = 65_536


def exported_file(tree: Tree, snapshots: str | None = None) -> str | None:
    """Return a file to make an environment from: inside it, beside it, in its project, or a snapshot."""
    parent, name = os.path.split(tree.root)
    names = FILES + (_VENV_FILES if tree.manager is Manager.VENV else ())
    places = [tree.root, project_of(tree) or (parent if os.path.basename(parent) != "envs" else "")]
    found = [f"{place}/{file}" for place in places if place for file in names]
    found += (f"{parent}/{name}{suffix}" for suffix in _SUFFIXES)
    found += (f"{parent}/{name}-{file}" for file in FILES)
    for path in found:
        if os.path.isfile(path) and (not path.endswith(".txt") or _is_list(path, tree)):
            return path
    return _snapshot(snapshots, name) if snapshots else None


def _is_list(path: str, tree: Tree) -> bool:
    """Whether a text file lists what conda (or pip, of a virtual environment) can install."""
    if tree.manager is Manager.VENV:
        return True
    try:
        return b"@EXPLICIT" in read_regular(path, _HEAD, follow=True).split()
    except OSError:
        return False


def _snapshot(directory: str, name: str) -> str | None:
    """Return what a snapshot of an environment of this name left, be it a directory or a file."""
    try:
        with os.scandir(directory) as entries:
            names = sorted(entry.name for entry in entries)
    except OSError:
        return None
    return next((f"{directory}/{one}" for one in names if one == name or one.startswith(f"{name}.")), None)
