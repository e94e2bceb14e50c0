"""``clean``: packages that only seem to be used, and what interrupted runs left."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from ..errors import StateError

if TYPE_CHECKING:
    import argparse

    from ..leftovers import Leftover
    from ..unused import Unused

NAME = "clean"
HELP = "Remove cached packages that only seem to be used, and what interrupted runs left, after asking."
EXAMPLES = """\
examples:
  {prog} clean --dry-run
  {prog} clean --yes
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of this verb; every environment is looked at, for any may use a package."""
    from .parser import add_consent_options, add_tree_options

    add_tree_options(parser, "by default everything that can be found")
    parser.set_defaults(dedup_discover=True)
    add_consent_options(parser)


def execute(options: argparse.Namespace) -> int:
    """Print or remove what can go."""
    from ..interrupted import finish_interrupted
    from ..report import json, text, upkeep
    from .common import agreed, require_consent

    require_consent(options)
    notes: list[str] = []
    if not options.dry_run:
        try:
            notes += finish_interrupted()[1]
        except StateError as exc:
            notes.append(str(exc))
    unused, leftovers = _look(options, notes)
    gone: tuple[list[Unused], list[Leftover]] | None = None
    if not options.dry_run:
        if not options.yes:
            upkeep.print_cleanable(unused, leftovers, text.console())
            if (unused or leftovers) and not agreed("Remove them?"):
                return 1
        gone = _remove(options, unused, notes)
    if options.json:
        document = json.clean_document(unused, leftovers, gone)
        document["warnings"] = notes
        sys.stdout.write(json.dump(document) + "\n")
        return 0
    if not options.quiet:
        if gone is None:
            upkeep.print_cleanable(unused, leftovers, text.console())
        else:
            upkeep.print_cleaned(*gone, text.console())
        text.print_notes(notes, text.console(stderr=True))
    return 0


def _look(options: argparse.Namespace, notes: list[str]) -> tuple[list[Unused], list[Leftover]]:
    from ..inventory import scan
    from ..leftovers import find_leftovers
    from ..unused import find_unused
    from .common import scope_of

    scope = scope_of(options)
    inventory = scan(scope, 0)
    notes += [*scope.warnings, *inventory.warnings]
    return find_unused(inventory), find_leftovers(scope)


def _remove(
    options: argparse.Namespace, agreed: list[Unused], notes: list[str]
) -> tuple[list[Unused], list[Leftover]]:
    """Look again, for the answer may have taken its time, and remove what was agreed to."""
    from ..inventory import scan
    from ..leftovers import find_leftovers, remove_leftovers
    from ..unused import find_unused, remove_unused
    from .common import scope_of

    scope = scope_of(options)
    inventory = scan(scope, 0)
    paths = {package.path for package in agreed}
    packages, failed = remove_unused([one for one in find_unused(inventory) if one.path in paths])
    leftovers, kept = remove_leftovers(find_leftovers(scope), inventory)
    notes += [*failed, *kept]
    return packages, leftovers
