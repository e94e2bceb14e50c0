"""``compare``: environments by their explicit specs, side by side."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UsageError
from ..kinds import NEAR_IDENTICAL

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from rich.console import Console

    from ..specs.packages import Specs

NAME = "compare"
HELP = "Compare environments, or files of specs, package by package; find those that are nearly the same."
EXAMPLES = """\
examples:
  {prog} compare bert nlp
  {prog} compare bert environment.yml --core pytorch,numpy
  {prog} compare --all --threshold 0.8 --json

A and B are names or prefixes of environments, or files: conda list --explicit
(with --md5 or without), environment.yml, conda env export, conda-lock.yml,
pixi.lock.
"""
_PLATFORM = re.compile(r"[a-z0-9]+-[a-z0-9_]+\Z")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of this verb."""
    from .parser import add_scope_options

    parser.add_argument("dedup_compared", nargs="*", metavar="A B",
                        help="two environments or files")  # fmt: skip
    parser.add_argument("--all", action="store_true", dest="dedup_all",
                        help="every pair of environments, and clusters of near-identical ones")  # fmt: skip
    parser.add_argument("--threshold", type=float, default=NEAR_IDENTICAL, metavar="SHARE",
                        help="with --all: how similar near-identical environments are at least, from 0 to 1 "
                        f"(default: {NEAR_IDENTICAL})")  # fmt: skip
    parser.add_argument("--core", default="", metavar="NAMES",
                        help="packages to compare apart, with commas between")  # fmt: skip
    parser.add_argument("--platform", default="", metavar="SUBDIR",
                        help="of lock files: the packages for SUBDIR (default: this machine's)")  # fmt: skip
    add_scope_options(parser)


def execute(options: argparse.Namespace) -> int:
    """Compare two, or all."""
    words = options.dedup_compared
    core = [name.strip() for name in options.core.split(",") if name.strip()]
    if not 0 < options.threshold <= 1:
        raise UsageError("--threshold must be more than 0 and at most 1.", "Try 0.9, the default.")
    if options.platform and not _PLATFORM.match(options.platform):
        raise UsageError(f"--platform {options.platform!r} is no subdir of conda.", "Try linux-64.")
    if options.dedup_all and words:
        raise UsageError("--all compares all environments.", "Name none, or leave out --all.")
    if options.dedup_all:
        _compare_all(options, core)
    elif len(words) == 2:
        _compare_two(options, words, core)
    else:
        raise UsageError("Two environments or files are compared.", "Name two of them, or add --all.")
    return 0


def _compare_all(options: argparse.Namespace, core: list[str]) -> None:
    from ..report import compare as report
    from ..similar import compare_all
    from ..specs.environment import read_environment
    from .common import scope_of

    scope = scope_of(options)
    trees = [tree for tree in scope.trees if tree.selected and not tree.is_cache]
    found = compare_all([read_environment(tree.root, tree.name) for tree in trees], options.threshold, core)
    warnings = [*scope.warnings, *(text for specs in found.specs for text in specs.warnings)]
    _tell(options, report.all_document(found), warnings, lambda out: report.print_all(found, out))


def _compare_two(options: argparse.Namespace, words: list[str], core: list[str]) -> None:
    from ..report import compare as report
    from ..similar import compare
    from ..specs.sizes import Sizes
    from .common import scope_of

    a, b = (_read(word, options.platform) for word in words)
    warnings = [*a.warnings, *b.warnings]
    if any(package.size is None for package in (*a.packages, *b.packages)):
        scope = scope_of(options)
        warnings += scope.warnings
        sizes = Sizes(scope)
        a, b = sizes.of(a), sizes.of(b)
    found = compare(a, b, core)
    _tell(options, report.pair_document(found), warnings, lambda out: report.print_pair(found, out))


def _read(word: str, platform: str) -> Specs:
    """Read what one word means: a path if it has a slash, else an environment's name, else a file's."""
    from ..condarc import expand
    from ..environments import Request, find
    from ..specs.environment import read_environment
    from ..specs.files import read_file

    path = expand(word)
    is_path = "/" in word or word in (".", "..")
    if path and not Path(path).is_dir() and (is_path or (Path(path).exists() and not _is_known(word))):
        return read_file(path, platform)
    named = Request(prefixes=(word,), discover=False) if is_path else Request(names=(word,), discover=False)
    tree = find(named).trees[0]
    return read_environment(tree.root, tree.name)


def _is_known(name: str) -> bool:
    from ..environments import Request, find

    return any(tree.name == name for tree in find(Request()).trees if not tree.is_cache)


def _tell(
    options: argparse.Namespace,
    document: dict[str, Any],
    warnings: list[str],
    write: Callable[[Console], None],
) -> None:
    from ..report import json, text

    if options.json:
        sys.stdout.write(json.dump({**document, "warnings": warnings}) + "\n")
        return
    write(text.console())
    text.print_notes(warnings, text.console(stderr=True))
