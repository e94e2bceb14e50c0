"""Every step of a run: something happens, a kill for example, between any two calls that it makes.

Counted are the calls and returns of our own functions that touch files, and of every function of the
standard library that these call, so that there is a step before and after each system call.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable, Collection
from types import FrameType

import conda_dedup_plugin

_PACKAGE = os.path.dirname(conda_dedup_plugin.__file__)
_PARTS = tuple(
    os.path.join(_PACKAGE, part)
    for part in ("sharing", "journal.py", "database.py", "apply.py", "undo.py", "repair.py", "history.py")
)


#: What changes anything on disk: killed between two of the others, a run leaves the same behind.
_CHANGING = frozenset(
    ("link", "unlink", "mkdir", "rmdir", "rename", "replace", "utime", "write", "pwrite", "truncate",
     "ftruncate", "fchmod", "fchown", "setxattr", "copy_file_range", "ioctl", "execute", "executemany")
)  # fmt: skip


def count_steps(operation: Callable[[], object]) -> int:
    """Do it in a child and return how many steps it takes."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        steps = _Steps(frozenset(), lambda step: None)
        try:
            steps.during(operation)
            os.write(writing, str(steps.count).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        count = answer.read()
    os.waitpid(child, 0)
    assert count, "it failed"
    return int(count)


def changing_steps(operation: Callable[[], object]) -> list[int]:
    """Do it in a child and return the steps right before each call that changes something on disk."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        steps = _Steps(frozenset(), lambda step: None)
        code = 1
        try:
            steps.during(operation)
            with os.fdopen(writing, "w") as answer:
                answer.write(" ".join(map(str, steps.changing)))
            code = 0
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading) as answer:
        found = [int(step) for step in answer.read().split()]
    assert os.waitpid(child, 0)[1] == 0, "it failed"
    return found


def run_and_kill(operation: Callable[[], object], step: int) -> bool:
    """Do it in a child that is killed at a step; returns whether it came so far."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            _Steps({step}, lambda _: os.kill(os.getpid(), signal.SIGKILL)).during(operation)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or status == 0, f"it failed by itself before step {step}"
    return os.WIFSIGNALED(status)


def run_with(
    operation: Callable[[], object], steps: Collection[int], action: Callable[[int], object]
) -> None:
    """Do it in a child in which ``action(step)`` happens at each of some steps."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            _Steps(frozenset(steps), action).during(operation)
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0


class _Steps:
    def __init__(self, wanted: Collection[int], action: Callable[[int], object]) -> None:
        self.count = 0
        self.changing: list[int] = []
        self._wanted = wanted
        self._action = action

    def during(self, operation: Callable[[], object]) -> None:
        sys.setprofile(self._see)
        try:
            operation()
        finally:
            sys.setprofile(None)

    def _see(self, frame: FrameType, event: str, argument: object) -> None:
        if frame.f_code.co_filename.startswith(_PARTS):
            self.count += 1
            called = getattr(argument, "__name__", "") if event == "c_call" else ""
            if called in _CHANGING or (event == "call" and frame.f_code.co_name == "_call"):
                self.changing.append(self.count)
            if self.count in self._wanted:
                self._action(self.count)
