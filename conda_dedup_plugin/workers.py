"""Work shared out to processes, where that is worth it: one more for each further processor.

A process is a fork of this one, and has all that this one has; what it finds out comes back through a file
without a name. Wherever a fork is not safe, or not worth it, all is done here.
"""

from __future__ import annotations

import os
import pickle
import signal
import struct
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import IO

R = TypeVar("R")

#: So long (seconds) it is done alone, in case it is done then.
_PATIENCE = 0.05
#: A task is a number in a pipe; so many fit for sure.
_TASK = struct.Struct("<I")
_MOST_TASKS = 8000


def processors() -> int:
    """Return how many processes can really run at the same time."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    else:
        return 1  # elsewhere a fork is not safe, or is none


def spread(tasks: int, work: Callable[[int], R], patience: float = _PATIENCE) -> Iterator[R]:
    """Yield what ``work`` returns for every number below ``tasks``, in whatever order it is done.

    What ``work`` changes elsewhere may be lost: it may be done by another process. ``patience`` in seconds.
    """
    began = time.monotonic()
    number = 0
    while number < tasks and (time.monotonic() - began < patience or not _may_fork(tasks - number)):
        yield work(number)
        number += 1
    if number < tasks:
        yield from _Team(range(number, tasks), work).results()


def _may_fork(tasks: int) -> bool:
    """Whether a fork is safe and there is somebody to give it work; threads do not survive one."""
    return 1 < tasks <= _MOST_TASKS and processors() > 1 and _threads() == 1


def _threads() -> int:
    """Return how many threads there are, those that Python knows nothing of among them."""
    try:
        return len(list(Path("/proc/self/task").iterdir()))
    except OSError:
        return threading.active_count()


class _Team(Generic[R]):
    """A process and its forks at work on the same tasks."""

    def __init__(self, tasks: range, work: Callable[[int], R]) -> None:
        self._tasks = tasks
        self._work = work
        self._members: dict[int, IO[bytes]] = {}

    def results(self) -> Iterator[R]:
        """Do the work."""
        reader, writer = os.pipe()
        done: set[int] = set()
        try:
            os.write(writer, b"".join(map(_TASK.pack, self._tasks)))
            os.close(writer)
            writer = -1
            for _ in range(min(processors(), len(self._tasks)) - 1):
                self._fork(reader)
            while (number := _next(reader)) is not None:
                result = self._work(number)
                done.add(number)
                yield result
            for number, result in self._finished():
                done.add(number)
                yield result
        finally:
            os.close(reader)
            if writer >= 0:
                os.close(writer)
            self._dismiss()
        # whoever was stopped by somebody has left something to do
        for number in self._tasks:
            if number not in done:
                yield self._work(number)

    def _fork(self, reader: int) -> None:
        if sys.platform != "win32":
            file = tempfile.TemporaryFile(prefix="conda-dedup-")  # noqa: SIM115 (closed in _dismiss)
            try:
                child = os.fork()
            except OSError:
                file.close()
                return
            if child:
                self._members[child] = file
                return
            try:
                # an interrupt is the first process' to tell of
                signal.signal(signal.SIGINT, signal.SIG_DFL)
                while (number := _next(reader)) is not None:
                    pickle.dump((number, self._work(number)), file, pickle.HIGHEST_PROTOCOL)
                file.flush()
            finally:
                os._exit(0)

    def _finished(self) -> Iterator[tuple[int, R]]:
        for child, file in list(self._members.items()):
            os.waitpid(child, 0)
            file.seek(0)
            with suppress(EOFError, pickle.UnpicklingError):
                while True:
                    yield pickle.load(file)
            del self._members[child]
            file.close()

    def _dismiss(self) -> None:
        for child, file in self._members.items():
            file.close()
            if sys.platform != "win32":
                with suppress(OSError):
                    os.kill(child, signal.SIGKILL)
                    os.waitpid(child, 0)
        self._members.clear()


def _next(reader: int) -> int | None:
    """Take the next task; None: there is none."""
    task = os.read(reader, _TASK.size)
    return _TASK.unpack(task)[0] if task else None
