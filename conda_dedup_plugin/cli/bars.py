"""Progress bars: conda's own where conda runs us and has them, else one of rich; none without a terminal."""

from __future__ import annotations

import sys
from typing import Any

from ..progress import Bar, Progress, Shown
from ..tone import is_quiet


def progress_for(quiet: bool) -> Progress:
    """Return what shows progress on stderr to the one who waits, if anybody does."""
    if quiet or is_quiet() or not sys.stderr.isatty():
        return Progress()
    return Shown(_bar)


def _bar(what: str) -> Bar:
    # conda's bar is written to stdout, which need not be a terminal when stderr is
    if "conda.base.context" in sys.modules and sys.stdout.isatty():
        try:
            from conda.reporters import get_progress_bar

            return _CondaBar(get_progress_bar(f"{what} "))
        except Exception:
            pass  # an older conda has no reporters, a broken one none that work
    return _RichBar(what)


class _CondaBar(Bar):
    """The progress bar of conda's reporter backend."""

    def __init__(self, bar: Any) -> None:
        self._bar = bar

    def show(self, fraction: float) -> None:
        """Show that so much is done."""
        self._bar.update_to(fraction)

    def close(self) -> None:
        """Finish the bar."""
        self._bar.finish()
        self._bar.close()


class _RichBar(Bar):
    """A bar with the time that is left."""

    def __init__(self, what: str) -> None:
        from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        from ..report.text import console

        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
        self._progress = RichProgress(*columns, console=console(stderr=True), transient=True)
        self._task = self._progress.add_task(what, total=1.0)
        self._progress.start()

    def show(self, fraction: float) -> None:
        """Show that so much is done."""
        self._progress.update(self._task, completed=fraction)

    def close(self) -> None:
        """Take the bar away."""
        self._progress.stop()
