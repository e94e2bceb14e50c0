"""What tells a person that something goes on: stages of work, shown when one takes longer than a second.

The work itself knows no terminal: it is given a :class:`Progress`, and this one shows nothing.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Advance = Callable[[float], None]


class Progress:
    """Shows nothing."""

    @contextlib.contextmanager
    def stage(self, what: str, total: float) -> Iterator[Advance]:
        """Work on ``total`` units of anything; the function it gives is told of those that are done."""
        yield lambda _: None


class Bar:
    """A bar on a terminal: told of a fraction from 0 to 1, and gone without a trace when closed."""

    def show(self, fraction: float) -> None:
        """Show that so much is done."""
        raise NotImplementedError

    def close(self) -> None:
        """Take the bar away."""
        raise NotImplementedError


class Shown(Progress):
    """Shows a bar for every stage that takes longer than ``patience`` seconds."""

    def __init__(self, make: Callable[[str], Bar], patience: float = 1.0) -> None:
        self._make = make
        self._patience = patience

    @contextlib.contextmanager
    def stage(self, what: str, total: float) -> Iterator[Advance]:
        """As for :class:`Progress`."""
        began = time.monotonic()
        bar: Bar | None = None
        done = shown = 0.0

        def advance(units: float) -> None:
            nonlocal bar, done, shown
            done += units
            now = time.monotonic()
            if now - began < self._patience or now - shown < 0.1:
                return
            if bar is None:
                bar = self._make(what)
            shown = now
            bar.show(min(done / total, 1.0) if total else 1.0)

        try:
            yield advance
        finally:
            if bar is not None:
                bar.close()
