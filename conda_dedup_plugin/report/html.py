"""``report --html``: one file that needs no network, made of the documents of a report."""

from __future__ import annotations

import json
import os
import secrets
import stat
from contextlib import suppress
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from .. import __version__
from ..errors import DedupError
from .markup import plain
from .page_bars import bars_section
from .page_lists import audit_section, duplicates_section, held_section, notes_section, totals_section
from .page_similar import similarity_section
from .page_treemap import treemap_section

if TYPE_CHECKING:
    from .markup import Chart
    from .text import Document


_SECTIONS = {
    "totals": "In all",
    "environments": "Environments",
    "packages": "Packages",
    "similarity": "Likeness",
    "duplicates": "Duplicates",
    "held": "Held back",
    "audit": "Audit",
    "notes": "Notes",
}
#: The page may do nothing but show itself.
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; "
    "base-uri 'none'; form-action 'none'"
)


class Page:
    """The file that a page is to be written to. DedupError: that cannot be.

    ``prog`` is what to call to act on what it says.
    """

    def __init__(self, path: str, prog: str) -> None:
        self._given = path
        self._prog = prog
        self._plotly = _plotly()
        try:
            self._path = Path(os.path.realpath(Path(path).expanduser()))
            self._check()
        except (OSError, RuntimeError) as exc:
            raise self._error(_said(exc)) from exc

    def _check(self) -> None:
        """Find out before everything is walked whether that will be in vain."""
        parent = self._path.parent
        if not parent.is_dir():
            raise self._error(f"there is no directory {os.fspath(parent)!r}")
        with suppress(FileNotFoundError):
            mode = self._path.stat().st_mode
            if stat.S_ISDIR(mode):
                raise self._error("it is a directory")
            if not stat.S_ISREG(mode):
                raise self._error("it is no regular file")
        if not os.access(parent, os.W_OK | os.X_OK):
            raise self._error("you may not write to its directory")

    def _error(self, why: str) -> DedupError:
        return DedupError(
            f"The page {self._given!r} cannot be written: {why}.",
            "Name a file in a directory that you may write to.",
        )

    def write(self, report: Document, detail: Document, similar: Document) -> str:
        """Write the page in one step, in place of a file that is there; return its path."""
        content = _page(report, detail, similar, self._plotly, self._prog).encode("utf-8", "backslashreplace")
        temporary = self._path.parent / f".report-{secrets.token_hex(6)}.tmp"
        try:
            try:
                with open(temporary, "xb") as stream:
                    stream.write(content)
                temporary.replace(self._path)
            finally:
                temporary.unlink(missing_ok=True)
        except OSError as exc:
            raise self._error(_said(exc)) from exc
        return os.fspath(self._path)


def _said(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _plotly() -> str:
    """Return plotly.js, which draws the charts."""
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as exc:
        raise DedupError(
            "A page needs plotly, which is not installed.", "Run: pip install 'conda-dedup-plugin[html]'"
        ) from exc
    return str(get_plotlyjs())


def _page(report: Document, detail: Document, similar: Document, plotly: str, prog: str) -> str:
    """Put the page together."""
    parts: list[tuple[str, Chart | None]] = [
        (totals_section(report, prog), None),
        bars_section(report, detail),
        treemap_section(report, detail),
        similarity_section(similar),
        (duplicates_section(report, detail), None),
        (held_section(report), None),
        (audit_section(report.get("audit")), None),
        (notes_section(report), None),
    ]
    charts = {
        chart.name: {"traces": chart.traces, "layout": chart.layout, "narrow": chart.narrow}
        for _, chart in parts
        if chart is not None
    }
    body = "\n".join(html for html, _ in parts)
    links = "".join(
        f'<li><a href="#{name}">{title}</a></li>'
        for name, title in _SECTIONS.items()
        if f'<section id="{name}"' in body
    )
    title = f"{_many(report['environments'], 'environment')}, {_many(report['caches'], 'cache')}"
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<title>conda dedup report: {title}</title>
<link rel="icon" href="data:,">
<style>
{_asset("page.css")}</style>
</head>
<body>
<header>
<h1>conda dedup report</h1>
<p>{title}, walked <time datetime="{plain(report["walked"])}">{plain(report["walked"])}</time>
by conda-dedup-plugin {plain(__version__)}</p>
<nav aria-label="Parts of the page"><ul>{links}</ul></nav>
</header>
<main>
<noscript><p>Charts need JavaScript; the tables behind them have the same numbers.</p></noscript>
{body}
</main>
<script type="application/json" id="charts">{_data(charts)}</script>
<script type="text/plain" id="plotly">{plotly}</script>
<script>
{_asset("page.js")}</script>
</body>
</html>
"""


def _many(trees: list[Document], what: str) -> str:
    return f"{len(trees):,} {what}" if len(trees) == 1 else f"{len(trees):,} {what}s"


def _data(charts: Document) -> str:
    """Write JSON so that nothing in it can end a script."""
    text = json.dumps(charts, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _asset(name: str) -> str:
    return resources.files(__package__).joinpath("page", name).read_text("utf-8")
