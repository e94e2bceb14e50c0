"""Descriptors closed beside the work.

With the last descriptor of an inode without names its blocks are freed. That may wait for the device: a file
system mounted with ``discard`` tells the device of each of them.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

#: So many lots are closed at the same time, each by a thread of its own.
MOST_LOTS = 2


class Closer:
    """Closes lots of descriptors on which nobody waits any more: they hold no lease."""

    def __init__(self) -> None:
        self._lots: deque[tuple[threading.Thread, int]] = deque()

    def __len__(self) -> int:
        """How many descriptors may still be open."""
        while self._lots and not self._lots[0][0].is_alive():
            self._lots.popleft()
        return sum(count for _, count in self._lots)

    def close(self, descriptors: Iterable[int]) -> None:
        """Close them some time soon, and return at once unless much is being closed already."""
        runs = _runs(descriptors)
        if not runs:
            return
        while len(self._lots) >= MOST_LOTS:
            self._lots.popleft()[0].join()
        thread = threading.Thread(target=_close, args=(runs,), name="conda-dedup-close")
        try:
            thread.start()
        except RuntimeError:  # no more threads for this user
            _close(runs)
        else:
            self._lots.append((thread, sum(map(len, runs))))

    def wait(self) -> None:
        """Return when all are closed."""
        while self._lots:
            self._lots[0][0].join()
            self._lots.popleft()


def _runs(descriptors: Iterable[int]) -> list[range]:
    """Return them as runs of one after the other."""
    runs: list[range] = []
    for descriptor in sorted(descriptors):
        if runs and runs[-1].stop == descriptor:
            runs[-1] = range(runs[-1].start, descriptor + 1)
        else:
            runs.append(range(descriptor, descriptor + 1))
    return runs


def _close(runs: list[range]) -> None:
    for run in runs:
        os.closerange(run.start, run.stop)  # one call: nothing else in Python waits for it
