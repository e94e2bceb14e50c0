"""Where package managers keep environments and package caches on this machine, for this user.

Nothing here looks into an environment or a cache: these are the places to look at, many of which
need not exist.
"""

# Paths are plain strings here, as in Tree.root and in what scandir gives.
# ruff: noqa: PTH208, PTH109, PTH112, PTH117, PTH118, PTH120

from __future__ import annotations

import os
import sys

from msgspec import Struct

from conda_dedup_plugin.condarc import expand, load_condarc
from conda_dedup_plugin.files import read_regular

#: A list of environments longer than this is none; as root we read those of every user.
_LIST_BYTES = 1 << 20
#: Directories of a project in which pixi and magic keep its environments.
PROJECT_DIRS = (os.path.join(".pixi", "envs"), os.path.join(".magic", "envs"))


class Roots(Struct, frozen=True):
    """Absolute paths, not resolved, each list in the order of precedence."""

    #: Root prefixes: what ``-n base`` means, conda's before mamba's.
    bases: tuple[str, ...] = ()
    #: Directories whose children are environments known by their last component.
    envs_dirs: tuple[str, ...] = ()
    #: Environments known by their path.
    prefixes: tuple[str, ...] = ()
    #: Directories whose children are the environments of a project.
    project_dirs: tuple[str, ...] = ()
    pkgs_dirs: tuple[str, ...] = ()
    #: rattler's cache directories; the packages are in ``pkgs`` below.
    rattler_dirs: tuple[str, ...] = ()
    #: uv's cache directories; the unpacked wheels are in ``archive-v0`` below.
    uv_dirs: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def known_roots() -> Roots:
    """Return what conda's context knows, else condarc and variables, and what mamba, rattler and pixi use.

    Reads files only; in contrast to conda's ``list_all_known_prefixes`` it does not rewrite
    ``environments.txt`` (a line whose disk is not mounted just now would be lost).
    """
    warnings: list[str] = []
    in_conda = "conda" in sys.modules
    roots = _from_conda() if in_conda else None
    bases, envs_dirs, pkgs_dirs = roots or _from_files(warnings)
    for mamba in _mamba_roots():
        bases.append(mamba)
        envs_dirs.append(os.path.join(mamba, "envs"))
        pkgs_dirs.append(os.path.join(mamba, "pkgs"))
    pkgs_dirs += _expanded("~/.conda/pkgs", "~/.mamba/pkgs")
    prefixes = _expanded(os.environ.get("CONDA_PREFIX", ""))
    prefixes += _environments_txt("~", warnings)
    if in_conda:
        # Other users' files that root may not read (a network file system) are no news.
        prefixes += (path for home in _other_homes() for path in _environments_txt(home, []))
    rattler_dirs = _rattler_dirs()
    pkgs_dirs += (os.path.join(directory, "pkgs") for directory in rattler_dirs)
    return Roots(
        bases=_unique(bases),
        envs_dirs=_unique(envs_dirs),
        prefixes=_unique(prefixes),
        project_dirs=_unique([*_project_dirs(), *_detached_dirs(rattler_dirs)]),
        pkgs_dirs=_unique(pkgs_dirs),
        rattler_dirs=_unique(rattler_dirs),
        uv_dirs=_unique(_uv_dirs()),
        warnings=tuple(warnings),
    )


def _from_conda() -> tuple[list[str], list[str], list[str]] | None:
    """Return the root prefix, envs_dirs and pkgs_dirs of conda's context; None if it can't tell."""
    try:
        from conda.base.context import context

        return [context.root_prefix], list(context.envs_dirs), list(context.pkgs_dirs)
    except Exception:
        # A bad value anywhere in condarc raises one of many types; the files then say what can be read.
        return None


def _from_files(warnings: list[str]) -> tuple[list[str], list[str], list[str]]:
    """Return the same from ``$CONDA_EXE``, condarc files and variables, with conda's defaults."""
    condarc = load_condarc()
    warnings += condarc.warnings
    executable = expand(os.environ.get("CONDA_EXE", ""))
    bases = [os.path.dirname(os.path.dirname(executable))] if executable else []
    # Separators as in conda: PATH's for environments, a comma for caches.
    envs_dirs = list(condarc.paths("envs_dirs", "envs_path", separator=os.pathsep))
    envs_dirs += (os.path.join(base, "envs") for base in bases)
    envs_dirs += _expanded("~/.conda/envs")
    pkgs_dirs = list(condarc.paths("pkgs_dirs", separator=","))
    pkgs_dirs += (os.path.join(base, "pkgs") for base in bases)
    return bases, envs_dirs, pkgs_dirs


def _mamba_roots() -> list[str]:
    roots = _expanded(os.environ.get("MAMBA_ROOT_PREFIX", ""), "~/micromamba", "~/.local/share/mamba")
    return [root for root in roots if os.path.isdir(root)]


def _rattler_dirs() -> list[str]:
    """Return the cache directories of rattler, pixi and magic that may be in use."""
    chosen = _expanded(*(os.environ.get(f"{tool}_CACHE_DIR", "") for tool in ("RATTLER", "PIXI", "MAGIC")))
    caches = _expanded(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    if sys.platform == "darwin":
        caches += _expanded("~/Library/Caches")
    elif sys.platform == "win32":
        caches += _expanded(os.environ.get("LOCALAPPDATA") or "~/AppData/Local")
    if not os.environ.get("RATTLER_CACHE_DIR"):
        chosen += (os.path.join(cache, "rattler", "cache") for cache in caches)
    if not os.environ.get("PIXI_CACHE_DIR"):
        # Used by pixi in place of rattler's where it exists.
        chosen += (os.path.join(cache, "pixi") for cache in caches)
    return chosen


def _project_dirs() -> list[str]:
    """Return where the project around the working directory, and pixi globally, has environments."""
    found: list[str] = []
    try:
        directory = os.getcwd()
    except OSError:  # deleted meanwhile
        directory = ""
    while directory and not found:
        found = [path for name in PROJECT_DIRS if os.path.isdir(path := os.path.join(directory, name))]
        parent = os.path.dirname(directory)
        directory = parent if parent != directory else ""
    return found + [
        os.path.join(home, "envs") for home in _expanded(os.environ.get("PIXI_HOME") or "~/.pixi")
    ]


def _detached_dirs(caches: list[str]) -> list[str]:
    """Return where pixi has the environments of projects, with ``detached-environments = true``."""
    found: list[str] = []
    for cache in caches:
        directory = os.path.join(cache, "envs")
        try:
            found += (os.path.join(directory, name, "envs") for name in sorted(os.listdir(directory)))
        except OSError:
            continue
    return found


def _uv_dirs() -> list[str]:
    if chosen := os.environ.get("UV_CACHE_DIR"):
        return _expanded(chosen)
    if sys.platform == "win32":
        return _expanded(os.path.join(os.environ.get("LOCALAPPDATA") or "~/AppData/Local", "uv", "cache"))
    else:
        return _expanded(os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "uv"))


def _other_homes() -> list[str]:
    """Return every user's home if this is root, as ``conda env list`` has it."""
    if sys.platform == "win32" or os.geteuid() != 0:
        return []
    else:
        import pwd

        return [entry.pw_dir for entry in pwd.getpwall()]


def _environments_txt(home: str, warnings: list[str]) -> list[str]:
    """Return the absolute paths in a user's ``environments.txt``; none if there is no such file."""
    path = expand(os.path.join(home, ".conda", "environments.txt"))
    if not path:
        return []
    try:
        content = read_regular(path, _LIST_BYTES, follow=True)
    except PermissionError as exc:
        warnings.append(f"{path!r} could not be read: {exc.strerror}.")
        return []
    except OSError:
        return []
    lines = (os.fsdecode(line.strip()) for line in content.splitlines())
    return [line for line in lines if os.path.isabs(line) and "\0" not in line]


def _expanded(*paths: str) -> list[str]:
    return [full for path in paths if (full := expand(path))]


def _unique(paths: list[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(paths))
