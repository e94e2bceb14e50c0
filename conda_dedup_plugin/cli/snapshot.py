"""``snapshot``: the files by which conda makes an environment again."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from ..errors import DedupError, UsageError

if TYPE_CHECKING:
    import argparse

NAME = "snapshot"
HELP = "Write the explicit spec and environment.yml of environments, by which conda makes them again."
EXAMPLES = """\
examples:
  {prog} snapshot -n bert --write ~/snapshots
  {prog} snapshot -p ~/envs/bert -n nlp --json
  conda create -n bert --file ~/snapshots/bert/explicit.txt
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of this verb; dests of our own, for conda reads ``args.name`` and ``args.prefix``."""
    parser.set_defaults(dedup_search=[], dedup_pkgs_dirs=[], dedup_discover=False)
    parser.add_argument("-n", "--name", action="append", default=[], dest="dedup_names", metavar="NAME",
                        help="an environment by name (repeatable)")  # fmt: skip
    parser.add_argument("-p", "--prefix", action="append", default=[], dest="dedup_prefixes",
                        metavar="PREFIX", help="an environment by path (repeatable)")  # fmt: skip
    parser.add_argument("--write", metavar="DIR",
                        help="where each environment gets a directory of its own (default: the setting "
                        "dedup_snapshot_dir)")  # fmt: skip


def execute(options: argparse.Namespace) -> int:
    """Write the files and tell where they are."""
    from ..condarc import expand
    from ..model import SCHEMA
    from ..report import json, text
    from ..settings import load
    from ..snapshot import take
    from ..snapshots import EXPLICIT, YML, write
    from ..trees import is_environment
    from .common import is_named, scope_of

    if not is_named(options):
        raise UsageError("No environment was named.", f"Try: {options.prog} snapshot --name ENV")
    settings = load()
    directory = expand(options.write) if options.write is not None else settings.snapshot_dir
    if not directory:
        raise UsageError("Nobody said where to write.", "Add --write DIR, or set dedup_snapshot_dir.")
    scope = scope_of(options)
    notes = [*settings.warnings, *scope.warnings]
    written = []
    for tree in scope.trees:
        if not is_environment(tree.root):
            raise UsageError(f"{tree.root!r} is no environment of conda.", "Name one with conda-meta in it.")
        snapshot = take(tree.root, tree.name)
        notes += snapshot.warnings
        try:
            folder, changed = write(snapshot, directory)
        except OSError as exc:
            raise DedupError(
                f"The snapshot of env {tree.name!r} cannot be written to {directory!r}: {exc.strerror}.",
                "Name a directory that you may write to: --write DIR.",
            ) from exc
        written.append(
            {
                "name": tree.name,
                "prefix": tree.root,
                "packages": snapshot.packages,
                "explicit": f"{folder}/{EXPLICIT}",
                "yml": f"{folder}/{YML}",
                "changed": changed,
            }
        )
    if options.json:
        document = {"schema": SCHEMA, "environments": written, "warnings": notes}
        sys.stdout.write(json.dump(document) + "\n")
        return 0
    lines = [
        f"env '{one['name']}': {one['packages']} packages in {one['explicit']} and {YML} beside it"
        for one in written
    ]
    text.print_notes(lines, text.console(), options.prog)
    text.print_notes(notes, text.console(stderr=True))
    return 0
