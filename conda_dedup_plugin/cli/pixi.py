"""``pixi dedup``, which is ``pixi-dedup`` for pixi: the same words, about the project that one is in."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from ..discovery_roots import PROJECT_DIRS
from ..environments import is_environment
from ..errors import UsageError
from . import main as cli_main

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line as ``conda-dedup`` does; by default it is about the project's environments."""
    return cli_main(arguments, prog="pixi dedup", adapt=_in_project)


def _in_project(words: Sequence[str], options: argparse.Namespace) -> list[str]:
    """Name the environments of the project, if the verb has a scope and nothing is named.

    ``run`` takes what the command changed, which need not be there yet.
    """
    from .common import is_named
    from .run import NAME as RUN

    verb = next((index for index, word in enumerate(words) if not word.startswith("-")), len(words))
    if not hasattr(options, "dedup_prefixes") or is_named(options) or words[verb] == RUN:
        return list(words)
    named = [word for prefix in _environments() for word in ("-p", str(prefix))]
    return [*words[: verb + 1], *named, *words[verb + 1 :]]


def _environments() -> list[Path]:
    """Return the environments of the nearest project. UsageError: there is none."""
    home = Path(os.environ.get("PIXI_HOME") or "~/.pixi").expanduser()
    for place in _places():
        found = []
        for directory in (place / name for name in PROJECT_DIRS):
            # what pixi keeps globally is no project
            if directory.is_dir() and not _is_same(directory, home / "envs"):
                found += [child for child in sorted(directory.iterdir()) if is_environment(str(child))]
        if found:
            return found
    raise UsageError(
        "There is no pixi project with environments here.",
        "Run 'pixi install' before, or name environments with --prefix, --name or --search.",
    )


def _places() -> list[Path]:
    """Return where the project may be, the nearest first."""
    root = os.environ.get("PIXI_PROJECT_ROOT")
    if root:
        return [Path(root)]
    try:
        here = Path.cwd()
    except OSError:  # deleted meanwhile
        return []
    return [here, *here.parents]


def _is_same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False
