"""The commands a report names: what to run to act, each as it can be pasted into a shell."""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING

from .model import Manager

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .model import Tree

_MANIFESTS = ("pixi.toml", "mojoproject.toml")
_PIXI = {Manager.PIXI: "pixi", Manager.MAGIC: "magic"}


def quoted(word: str) -> str:
    """Write one word for a shell; what could move the cursor of a terminal in octal, as bash has it."""
    if word.isprintable():
        return shlex.quote(word)
    shown = []
    for character in word:
        if character in "\\'":
            shown.append(f"\\{character}")
        elif character.isprintable():
            shown.append(character)
        else:
            shown += (f"\\{byte:03o}" for byte in os.fsencode(character))
    return f"$'{''.join(shown)}'"


def command(*words: str) -> str:
    """Write a command of words."""
    return " ".join(map(quoted, words))


def conda_of(tree: Tree) -> str:
    """Return the tool that changes the packages of an environment."""
    return "mamba" if tree.manager is Manager.MAMBA else "conda"


def project_of(tree: Tree) -> str:
    """Return the directory of the pixi project an environment is in; empty if it is in none."""
    parts = tree.root.rsplit("/", 3)
    return parts[0] if len(parts) == 4 and parts[1] in (".pixi", ".magic") and parts[2] == "envs" else ""


def _in_project(tree: Tree, *words: str) -> str:
    project = project_of(tree)
    manifest = next((name for name in _MANIFESTS if os.path.lexists(f"{project}/{name}")), "pyproject.toml")
    return command(_PIXI.get(tree.manager, "pixi"), *words, "--manifest-path", f"{project}/{manifest}")


def remove_environment(tree: Tree) -> str:
    """Return what removes an environment."""
    if project_of(tree):
        return f"{_in_project(tree, 'clean')} --environment {quoted(tree.root.rpartition('/')[2])}"
    if tree.manager in (Manager.CONDA, Manager.MAMBA):
        return command(conda_of(tree), "env", "remove", "--prefix", tree.root)
    return command("rm", "-rf", "--", tree.root)


def remove_from(directory: str, names: Iterable[str]) -> str:
    """Return what removes files and directories from a directory."""
    return f"{command('cd', directory)} && {command('rm', '-rf', '--', *names)}"


def export_environment(tree: Tree) -> str:
    """Return what writes down what an environment has, inside it."""
    if tree.manager is Manager.VENV:
        python, target = f"{tree.root}/bin/python", f"{tree.root}/requirements.txt"
        return f"{command(python, '-m', 'pip', 'freeze')} > {quoted(target)}"
    words = (conda_of(tree), "env", "export", "--prefix", tree.root)
    return f"{command(*words)} > {quoted(tree.root + '/environment.yml')}"


def reinstall(tree: Tree, package: str, spec: str, channel: str) -> str:
    """Return what puts the files of conda's ``package`` there again."""
    if project_of(tree):
        name = tree.root.rpartition("/")[2]
        return f"{_in_project(tree, 'reinstall')} {command('--environment', name, package)}"
    return from_channel(tree, channel, [spec], "--force-reinstall")


def uninstall_wheel(tree: Tree, package: str) -> str:
    """Return what removes a package that pip brought."""
    if project_of(tree):
        return _in_project(tree, "remove", "--pypi", package)
    return command(f"{tree.root}/bin/python", "-m", "pip", "uninstall", "--yes", package)


def from_channel(tree: Tree, channel: str, specs: Iterable[str], *options: str) -> str:
    """Return what takes packages from one channel, whichever they are from now."""
    if project_of(tree):
        return _in_project(tree, "add", *(f"{channel}::{spec}" if channel else spec for spec in specs))
    words = [conda_of(tree), "install", "--prefix", tree.root, *options]
    if channel:
        words += ["--override-channels", "--channel", channel]
        specs = [f"{channel}::{spec}" for spec in specs]
    return command(*words, *specs)


def clean_cache(cache: Tree, what: str) -> str:
    """Return what has conda clean one cache of ``--packages`` or ``--tarballs``."""
    return f"CONDA_PKGS_DIRS={quoted(cache.root)} {command('conda', 'clean', what)}"
