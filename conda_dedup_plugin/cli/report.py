"""``report``: what is held, what is held twice, what could be freed."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from ..errors import UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from ..audit import Audit
    from ..engine import Analysis
    from ..inventory import Inventory
    from ..report.html import Page

NAME = "report"
HELP = "Show what environments and package caches hold, what they hold twice and what could be freed."
#: Unless --unused-days says otherwise.
_DAYS = 90
EXAMPLES = """\
examples:
  {prog} report --deep
  {prog} report --audit --unused-days 180 --max-envs 20
  {prog} report --no-discover --search ~/projects --json
  {prog} report --html report.html
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of this verb."""
    from .parser import add_plan_options, add_scope_options

    add_scope_options(parser)
    add_plan_options(parser, deep=False)
    parser.add_argument("--fresh", action="store_true",
                        help="walk every tree, also where nothing was added, removed or replaced since the "
                        "last report; sees what was edited in place")  # fmt: skip
    parser.add_argument("--html", metavar="FILE", dest="dedup_html",
                        help="besides write a page with charts to FILE, for any browser, without a network; "
                        "walks every tree; needs: pip install 'conda-dedup-plugin[html]'")  # fmt: skip
    audit = parser.add_argument_group(
        "audit",
        "An exported file is environment.yml, conda-lock.yml, pixi.toml, pixi.lock, explicit.txt or "
        "spec-file.txt in the environment, in its project or, outside of a directory 'envs', beside it; or "
        "NAME.yml or NAME.txt beside it; or a snapshot of it. A text file must say @EXPLICIT.",
    )
    audit.add_argument("--audit", action="store_true",
                       help="tell besides what to look at, with the commands to act: unused environments, "
                       "mixed channels, files of pip's, caches, exports; removes nothing")  # fmt: skip
    audit.add_argument("--unused-days", type=int, metavar="N",
                       help=f"an environment unused for N days is told of (default: {_DAYS})")  # fmt: skip
    audit.add_argument("--max-envs", type=int, metavar="N",
                       help="tell of users with more than N environments")  # fmt: skip


def execute(options: argparse.Namespace) -> int:
    """Print the report."""
    from ..recall import Recall
    from ..report import json, text
    from .common import remember, task_of

    if not options.audit and (options.unused_days, options.max_envs) != (None, None):
        raise UsageError("--unused-days and --max-envs are about an audit.", "Add --audit.")
    page = _page(options)
    audits: list[Audit] = []
    task = task_of(options)
    lasting = not (options.audit or options.deep or task.plan.normalize_bytecode)
    recall = Recall(task.scope, (task.plan, task.min_size)) if lasting else None
    document = recall.find() if recall and not (options.fresh or page) else None
    recalled = document is not None
    if document is None:
        now = time.time()
        analysis = task.analyse(
            _auditor(options, audits) if options.audit else None, whole=False, detailed=bool(page)
        )
        remember(options, analysis)
        document = json.report_document(analysis, now)
        if recall:
            recall.keep(analysis.inventory, document)
    document["warnings"] = [*task.notes, *document["warnings"]]
    if audits and (options.json or page):
        from ..report.audit import audit_document

        document["audit"] = audit_document(audits[0])
    written = _write(page, analysis, document) if page else ""
    if options.json:
        sys.stdout.write(json.dump(document) + "\n")
        return 0
    out = text.console()
    text.print_report(document, options.prog, out)
    if recalled:
        text.print_walked(document, out)
    if audits:
        from ..report.audit import print_audit

        print_audit(audits[0], out)
    if written:
        out.print()
        text.print_written(written, out)
    text.print_notes(document["warnings"], text.console(stderr=True))
    return 0


def _page(options: argparse.Namespace) -> Page | None:
    """Return the page that was asked for; DedupError if it could not be written."""
    if options.dedup_html is None:
        return None
    from ..report.html import Page

    return Page(options.dedup_html, options.prog)


def _write(page: Page, analysis: Analysis, document: dict[str, Any]) -> str:
    """Write a page and return its path."""
    from ..report.detail import detail_document
    from ..report.page_similar import similarity_document

    return page.write(document, detail_document(analysis), similarity_document(analysis.scope, document))


def _auditor(options: argparse.Namespace, audits: list[Audit]) -> Callable[[Inventory], None]:
    """Return what puts an audit of an inventory into ``audits``."""
    from ..audit import AuditOptions, audit, snapshot_directory

    for option, number, least in (
        ("--unused-days", options.unused_days, 1),
        ("--max-envs", options.max_envs, 0),
    ):
        if number is not None and number < least:
            raise UsageError(f"{option} must be at least {least}.", f"Try: {option} 90")
    # who looks at some environments only cannot say what none of them uses
    wanted = AuditOptions(
        _DAYS if options.unused_days is None else options.unused_days,
        options.max_envs,
        options.dedup_discover,
        snapshot_directory(),
        options.prog,
    )
    return lambda inventory: audits.append(audit(inventory, wanted))
