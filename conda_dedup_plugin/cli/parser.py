"""The words of the command line, and nothing else: argparse only."""

from __future__ import annotations

import argparse
import textwrap
from typing import NoReturn

from .. import __version__
from ..errors import UsageError
from ..model import Goal, MethodChoice
from ..plan import MIN_EXTENT
from . import (
    apply,
    clean,
    compare,
    demo,
    history,
    overview,
    report,
    run,
    snapshot,
    status,
    suggest,
    undo,
    verify,
)

_VERBS = (report, status, compare, suggest, apply, run, undo, verify, clean, snapshot, history, demo)

#: What is printed as it stands fits into a terminal of 80 columns.
_WIDTH = 78


class _Parser(argparse.ArgumentParser):
    """Raises what is wrong instead of printing it."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message[:1].upper()}{message[1:]}.", f"See: {self.prog} --help")


def build_parser(prog: str) -> argparse.ArgumentParser:
    """Return the parser of every verb; the result of parsing has ``execute``."""
    parser = _Parser(
        prog=prog,
        description="Find and share what conda environments and package caches hold twice.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"conda-dedup-plugin {__version__}")
    parser.set_defaults(execute=overview.execute, quiet=False, verbose=0)
    _add_output_options(parser)
    verbs = parser.add_subparsers(metavar="COMMAND", title="commands")
    for verb in _VERBS:
        added = verbs.add_parser(
            verb.NAME,
            help=verb.HELP,
            description=textwrap.fill(verb.HELP, _WIDTH),
            epilog=verb.EXAMPLES.format(prog=prog),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        added.set_defaults(execute=verb.execute)
        verb.configure(added)
        _add_output_options(added)
        for group in added._action_groups:
            if group.description:
                group.description = textwrap.fill(group.description, _WIDTH - 2)
    return parser


def _add_output_options(parser: argparse.ArgumentParser) -> None:
    """What is printed, as conda's own options say; what stands before the verb holds for the verb."""
    output = parser.add_argument_group("output")
    output.add_argument("--json", action="store_true", default=argparse.SUPPRESS,
                        help="print one JSON document")  # fmt: skip
    output.add_argument("-v", "--verbose", action="count", default=argparse.SUPPRESS,
                        help="write bytes to the last digit")  # fmt: skip
    output.add_argument("-q", "--quiet", action="store_true", default=argparse.SUPPRESS,
                        help="show neither progress nor warnings; where something is changed: "
                        "errors only")  # fmt: skip


def add_tree_options(parser: argparse.ArgumentParser, default: str) -> argparse._ArgumentGroup:
    """Which environments and caches; dests of our own, for conda reads ``args.name`` and ``args.prefix``."""
    parser.set_defaults(dedup_discover=False)
    scope = parser.add_argument_group("scope", default)
    scope.add_argument("-n", "--name", action="append", default=[], dest="dedup_names", metavar="NAME",
                       help="an environment by name (repeatable)")  # fmt: skip
    scope.add_argument("-p", "--prefix", action="append", default=[], dest="dedup_prefixes", metavar="PREFIX",
                       help="an environment by path (repeatable)")  # fmt: skip
    scope.add_argument("--search", action="append", default=[], dest="dedup_search", metavar="DIR",
                       help="every environment and package cache below DIR (repeatable)")  # fmt: skip
    scope.add_argument("--pkgs-dir", action="append", default=[], dest="dedup_pkgs_dirs", metavar="DIR",
                       help="a package cache (repeatable)")  # fmt: skip
    return scope


def add_scope_options(parser: argparse.ArgumentParser) -> None:
    """Which environments and caches, and whether others serve as keepers."""
    scope = add_tree_options(parser, "by default everything that can be found")
    scope.add_argument("--no-discover", action="store_false", dest="dedup_discover", default=True,
                       help="look at nothing but what is named; else the rest serves as keepers")  # fmt: skip


def add_consent_options(parser: argparse.ArgumentParser) -> None:
    """Asking before anything is changed."""
    parser.add_argument("-d", "--dry-run", action="store_true", help="print the plan and change nothing")
    parser.add_argument("-y", "--yes", action="store_true", help="do not ask")


def add_plan_options(parser: argparse.ArgumentParser, deep: bool) -> None:
    """What may be shared how; ``deep``: whether contents are compared unless the user says otherwise."""
    plan = parser.add_argument_group("plan")
    plan.add_argument("--deep", action=argparse.BooleanOptionalAction, default=deep,
                      help="read and compare the files that no record covers, too")  # fmt: skip
    plan.add_argument("--method", choices=[choice.value for choice in MethodChoice],
                      help="how to share (default: the setting dedup_method)")  # fmt: skip
    plan.add_argument("--min-size", type=int, metavar="BYTES",
                      help="leave smaller files alone (default: the setting dedup_min_size)")  # fmt: skip
    plan.add_argument("--min-extent", type=int, metavar="BYTES", default=MIN_EXTENT,
                      help="share no shorter run of blocks within a file that is not equal as a whole "
                      f"(default: {MIN_EXTENT}; copy-on-write file systems only)")  # fmt: skip
    plan.add_argument("--goal", choices=[goal.value for goal in Goal],
                      help="what to save: for inodes, hard links come before reflinks, and no file is too "
                      "small (default: the setting dedup_goal)")  # fmt: skip
    plan.add_argument("--hardlink-untracked", action="store_true", default=None,
                      help="hard-link text and data too that pip or you put there: who edits such a file in "
                      "place edits it for all (default: the setting dedup_hardlink_untracked)")  # fmt: skip
    plan.add_argument("--normalize-bytecode", action="store_true", default=None,
                      help="share what Python compiled from equal sources of pip's, and give those the same "
                      "time (default: the setting dedup_normalize_bytecode)")  # fmt: skip
    plan.add_argument("--include-cache", action="store_true",
                      help="hard-link conda caches within themselves and to each other too; 'conda clean "
                      "--packages' then keeps unused packages ('clean' still finds them)")  # fmt: skip
    plan.add_argument("--override-frozen", action="store_true", help="change frozen environments too")
    plan.add_argument("--same-layer", action="store_true",
                      help="on an overlay: all files lie in its upper layer (a container build)")  # fmt: skip
