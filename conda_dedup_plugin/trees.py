"""What one directory is: an environment or a package cache, made by whom, and called what."""

# Paths are plain strings here, as in Tree.root and in what scandir gives.
# ruff: noqa: PTH112, PTH113, PTH118, PTH119, PTH120

from __future__ import annotations

import os
import re
import stat
from typing import TYPE_CHECKING

from conda_dedup_plugin.files import read_regular, real_path
from conda_dedup_plugin.kinds import Manager, TreeKind

if TYPE_CHECKING:
    from conda_dedup_plugin.discovery_roots import Roots
    from conda_dedup_plugin.model import Tree

#: How the directories begin in which conda-build works; what is in them is gone or moved in a minute.
BUILD_TREES = ("_h_env_placehold", "_test_env", "_build_env")
#: The directories of uv's cache in which the unpacked wheels are.
_UV_ARCHIVES = re.compile(r"archive-v\d+")
#: Names of virtual environments that say nothing without the project's.
_PROJECTS_OWN = (".venv", "venv", ".env", "env")
#: How much of conda-meta/history tells who made the environment.
_HISTORY_BYTES = 4096
#: ``# cmd: /opt/conda/bin/conda create -n two --clone one``
_CLONING = re.compile(rb"^# cmd: [^\n]*\screate\s[^\n]*--clone[\s=]", re.MULTILINE)
#: ``# cmd: /opt/mamba env/bin/micromamba create`` but not ``# cmd: /opt/mambaforge/bin/conda create``.
_MAMBA_COMMAND = re.compile(
    rb"^# cmd: (?:[^\n]*?[/\\])?(?:micro)?mamba(?:\.exe|-script\.py)?(?:\s|$)", re.MULTILINE
)


def is_build_tree(path: str) -> bool:
    """Whether a path lies in a directory that conda-build works in."""
    return any(part.startswith(BUILD_TREES) for part in path.replace(os.sep, "/").split("/"))


def is_environment(path: str) -> bool:
    """Whether a directory is an environment, by its ``conda-meta``, and no build tree."""
    return not is_build_tree(path) and os.path.isdir(os.path.join(path, "conda-meta"))


def is_virtual_environment(path: str) -> bool:
    """Whether a directory is an environment of venv, virtualenv or uv: no conda has its records there."""
    if is_build_tree(path) or os.path.isdir(os.path.join(path, "conda-meta")):
        return False
    try:
        return stat.S_ISREG(os.lstat(os.path.join(path, "pyvenv.cfg")).st_mode)
    except OSError:
        return False


def is_uv_cache(path: str) -> bool:
    """Whether a directory is an ``archive-v0`` of uv's cache: called so, with an unpacked wheel in it."""
    if not _UV_ARCHIVES.fullmatch(os.path.basename(path)) or os.path.lexists(os.path.join(path, "urls.txt")):
        return False
    return any(
        directory.endswith(".dist-info")
        for archive in _directories(path)
        for directory in _directories(archive)
    )


def uv_caches(path: str) -> list[str]:
    """Return the directories with unpacked wheels of uv's cache at ``path``; it may be such a one itself."""
    return [each for each in (path, *sorted(_children(path))) if is_uv_cache(each)]


def is_package_cache(path: str) -> bool:
    """Whether a directory is a package cache: it has ``urls.txt``, or an extracted package."""
    if is_environment(path):
        return False
    return os.path.isfile(os.path.join(path, "urls.txt")) or any(map(is_package, _children(path)))


def is_package(path: str) -> bool:
    """Whether a directory is an extracted package."""
    return os.path.isfile(os.path.join(path, "info", "index.json"))


def environment_tree(path: str, roots: Roots) -> Tree:
    """Return the environment, virtual or not, at ``path``, which may lead to it through symbolic links."""
    from conda_dedup_plugin.model import Tree

    root = real_path(path)
    return Tree(
        root=root,
        kind=TreeKind.ENVIRONMENT,
        manager=_environment_manager(root, roots),
        name=_environment_name(path, root, roots),
        frozen=os.path.lexists(os.path.join(root, "conda-meta", "frozen")),
        cloned=bool(_CLONING.search(_history(root))),
    )


def cache_tree(root: str, roots: Roots) -> Tree:
    """Return the package cache at the real path ``root``."""
    from conda_dedup_plugin.model import Tree

    return Tree(root, TreeKind.CACHE, _cache_manager(root, roots), _cache_name(root))


def uv_cache_tree(root: str) -> Tree:
    """Return the part of uv's cache with the unpacked wheels, by its real path."""
    from conda_dedup_plugin.model import Tree

    return Tree(root, TreeKind.CACHE, Manager.UV, _cache_name(root))


def _environment_name(path: str, root: str, roots: Roots) -> str:
    if root in {real_path(base) for base in roots.bases}:
        return "base"
    # As conda has it: the name in the envs_dir, even if that is a link to an environment elsewhere.
    if os.path.dirname(path) in roots.envs_dirs:
        return os.path.basename(path)
    name = os.path.basename(root)
    directory = os.path.dirname(root)
    if directory in {real_path(envs_dir) for envs_dir in roots.envs_dirs}:
        return name
    project, hidden, _ = _split_project(directory)
    if _is_detached(root, roots):
        project = os.path.dirname(directory)
    elif not hidden and not (name in _PROJECTS_OWN and is_virtual_environment(root)):
        return name or root
    return f"{os.path.basename(project)}/{name}"


def _is_detached(root: str, roots: Roots) -> bool:
    """Whether pixi keeps an environment outside its project, in SOMEWHERE/PROJECT-HASH/envs."""
    project, last = os.path.split(os.path.dirname(root))
    if last != "envs" or os.path.basename(project) in (".pixi", ".magic"):
        return False
    if os.path.lexists(os.path.join(root, "conda-meta", "pixi")):
        return True
    places = (os.path.join(cache, "envs") for cache in roots.rattler_dirs)
    return os.path.dirname(project) in map(real_path, places)


def _split_project(directory: str) -> tuple[str, str, str]:
    """Split PROJECT/.pixi/envs; the second and third part are empty for anything else."""
    parent, last = os.path.split(directory)
    project, hidden = os.path.split(parent)
    return (
        (project, hidden, last) if last == "envs" and hidden in (".pixi", ".magic") else (directory, "", "")
    )


def _cache_name(root: str) -> str:
    """Return the last components up to one that says more than ``pkgs``, ``cache`` and ``archive-v0``."""
    parts = root.split("/")
    start = len(parts) - 1
    while start > 1 and (parts[start] in ("pkgs", "cache") or _UV_ARCHIVES.fullmatch(parts[start])):
        start -= 1
    return "/".join(parts[start:])


def _environment_manager(root: str, roots: Roots) -> Manager:
    if is_virtual_environment(root):
        return Manager.VENV
    _, hidden, _ = _split_project(os.path.dirname(root))
    if hidden == ".magic":
        return Manager.MAGIC
    if hidden or _is_detached(root, roots) or os.path.lexists(os.path.join(root, "conda-meta", "pixi")):
        return Manager.PIXI
    if not os.path.lexists(os.path.join(root, "conda-meta", "history")):
        return Manager.RATTLER
    return Manager.MAMBA if _MAMBA_COMMAND.search(_history(root)) else Manager.CONDA


def _history(root: str) -> bytes:
    """Return the beginning of conda's history: who made the environment. Nothing if it cannot be read."""
    try:
        return read_regular(os.path.join(root, "conda-meta", "history"), _HISTORY_BYTES)
    except OSError:
        return b""


def _cache_manager(root: str, roots: Roots) -> Manager:
    """Tell rattler's caches from conda's, for which the stricter rules hold."""
    if os.path.lexists(os.path.join(root, "urls.txt")):
        return Manager.CONDA
    if any(root.startswith(f"{real_path(place)}/") for place in roots.rattler_dirs):
        return Manager.RATTLER
    # rattler locks NAME-VERSION-BUILD beside it; mamba's only lock is pkgs/pkgs.lock.
    if any(os.path.lexists(f"{child}.lock") for child in _children(root) if is_package(child)):
        return Manager.RATTLER
    return Manager.CONDA


def _directories(path: str) -> list[str]:
    try:
        with os.scandir(path) as entries:
            return [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []


def _children(path: str) -> list[str]:
    try:
        with os.scandir(path) as entries:
            return [entry.path for entry in entries if not entry.is_file(follow_symlinks=False)]
    except OSError:
        return []
