"""Whether an environment could be made again from a file that lies with it."""

from __future__ import annotations

# Paths are plain strings here, as in Tree.root.
# ruff: noqa: PTH113, PTH119
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from .commands import project_of
from .files import read_regular
from .model import Manager
from .sites import directories

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
_SUFFIXES = (".yml", ".yaml", ".txt", ".pin.txt")
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
    return _snapshot(snapshots, tree.root) if snapshots else None


def _is_list(path: str, tree: Tree) -> bool:
    """Whether a text file lists what conda (or pip, of a virtual environment) can install."""
    if tree.manager is Manager.VENV:
        return True
    try:
        return b"@EXPLICIT" in read_regular(path, _HEAD, follow=True).split()
    except OSError:
        return False


def _snapshot(directory: str, root: str) -> str | None:
    """Return the explicit spec of a snapshot that says to be of the environment at ``root``."""
    own = f"# prefix: {root}".encode("utf-8", "replace")
    for path in directories(directory):
        explicit = f"{directory}/{path}/explicit.txt"
        with suppress(OSError):
            if own in read_regular(explicit, _HEAD).splitlines():
                return explicit
    return None
