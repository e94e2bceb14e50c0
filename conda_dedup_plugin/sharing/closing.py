"""Descriptors closed beside the work.

With the last descriptor of an inode without names its blocks are freed. That may wait for the device: a file
system mounted with ``discard`` tells the device of each of them.
"""

from __future__ import annotations

import _thread
import os
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

#: So many lots are closed at the same time, each by a thread of its own.
MOST_LOTS = 2


class Closer:
    """Closes lots of descriptors on which nobody waits any more: they hold no lease."""

    def __init__(self) -> None:
        #: One for each lot that is being closed, locked until it is.
        self._lots: deque[_thread.LockType] = deque()

    def close(self, descriptors: Iterable[int]) -> None:
        """Close them some time soon, and return at once unless much is being closed already."""
        runs = _runs(descriptors)
        if not runs:
            return
        if len(self._lots) >= MOST_LOTS:
            self._lots.popleft().acquire()
        closing = _thread.allocate_lock()
        closing.acquire()
        try:
            _thread.start_new_thread(_close, (runs, closing))
        except RuntimeError:  # this user may have no more threads
            _close(runs, closing)
        self._lots.append(closing)

    def wait(self) -> None:
        """Return when all are closed."""
        while self._lots:
            self._lots.popleft().acquire()


def _runs(descriptors: Iterable[int]) -> list[range]:
    """Return them as runs of one after the other."""
    runs: list[range] = []
    for descriptor in sorted(descriptors):
        if runs and runs[-1].stop == descriptor:
            runs[-1] = range(runs[-1].start, descriptor + 1)
        else:
            runs.append(range(descriptor, descriptor + 1))
    return runs


def _close(runs: list[range], closing: _thread.LockType) -> None:
    for run in runs:
        os.closerange(run.start, run.stop)  # one call: nothing else in Python waits for it
    closing.release()
