"""``demo``: everything once, on real environments made for it, without conda and without a network."""

from __future__ import annotations

import shlex
import sys
import time
from typing import TYPE_CHECKING, Any

from ..errors import DedupError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable
    from pathlib import Path

    from ..engine import Analysis

NAME = "demo"
HELP = "Make a few environments in a temporary directory, report on them, share, report again."
EXAMPLES = """\
examples:
  {prog} demo
  {prog} demo --json
"""
_NEEDED = {"rattler": "py-rattler", "numpy": "numpy", "pip": "pip"}
_ELSEWHERE = "Try another file system: TMPDIR says where the demo works."


def configure(parser: argparse.ArgumentParser) -> None:
    """Add nothing: a demonstration has no options."""


def execute(options: argparse.Namespace) -> int:
    """Show ``report``, ``apply`` and ``report`` at work, and count the bytes on disk before and after."""
    _check_needed()
    from ..demo.measure import contents, disk_bytes, settle
    from ..demo.shelter import temporary_home
    from ..demo.world import make_world
    from ..report.json import dump
    from ..tone import amount

    say = _to_stderr if options.json else _to_stdout
    with temporary_home() as folder:
        world = make_world(folder, say)
        world.check_imports()
        settle(world.home)
        before, content = disk_bytes(world.home), contents(world.home)
        shown = _show(world.home, options.prog, None if options.json else say)
        after = disk_bytes(world.home)
        if contents(world.home) != content:
            raise DedupError("The content of a file has changed.", "This must not be; please report it.")
        world.check_imports()
    if after >= before:
        raise DedupError(f"Nothing was freed: {before} bytes on disk before, {after} after.", _ELSEWHERE)
    if options.json:
        sys.stdout.write(dump({**shown, "disk_bytes_before": before, "disk_bytes_after": after}) + "\n")
    else:
        say("\nEvery environment still imports numpy, and no file has other content. All is removed again.")
        say(f"on disk: {amount(before)} before, {amount(after)} after")
    return 0


def _show(home: Path, prog: str, say: Callable[[str], None] | None) -> dict[str, Any]:
    """Do what the verbs do on everything below ``home``; return their documents, print with ``say``."""
    from ..apply import apply_plan
    from ..demo.measure import is_overlay
    from ..engine import analyse
    from ..environments import Request, find
    from ..model import SCHEMA
    from ..plan import PlanOptions
    from ..report import json, text
    from ..sharing.system import user

    layer = is_overlay(home)
    plan_options = PlanOptions(euid=user(), same_layer=layer)
    words = f"--no-discover --search {shlex.quote(str(home))}" + (" --same-layer" if layer else "")

    def look(verb: str) -> Analysis:
        if say:
            say(f"\n$ {prog} {verb} {words}")
        scope = find(Request(search=(str(home),), discover=False))
        return analyse(scope, plan_options, deep=True)

    def report() -> dict[str, Any]:
        analysis = look("report --deep")
        document = json.report_document(analysis, time.time())
        if say:
            text.print_report(document, prog, text.console())
            text.print_notes(document["warnings"], text.console(stderr=True))
        return document

    before = report()
    analysis = look("apply --yes")
    applied = apply_plan(analysis, f"{prog} demo")
    if say:
        text.print_applied(applied, text.console())
        text.print_notes([*analysis.warnings, *applied.notes], text.console(stderr=True))
    for path, error in applied.failed:
        raise DedupError(f"{path!r} could not be shared: {error}.", _ELSEWHERE)
    done = json.apply_document(analysis, applied)
    return {"schema": SCHEMA, "before": before, "apply": done, "after": report()}


def _check_needed() -> None:
    """Whether the extra is installed: modules to run, distributions to make packages of."""
    import importlib.metadata

    for module, distribution in _NEEDED.items():
        try:
            importlib.import_module(module)
            importlib.metadata.version(distribution)
        except ImportError as exc:
            raise DedupError(
                f"The demo needs py-rattler, numpy and pip, but {distribution} is not installed.",
                "Install it with: pip install 'conda-dedup-plugin[demo]'",
            ) from exc


def _to_stdout(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _to_stderr(line: str) -> None:
    sys.stderr.write(f"{line}\n")
