"""What was written must be on the device before a durable name may point to it.

A kernel tells only once that something written to a file system was lost: nothing on it is shared by this
process from then on.
"""

from __future__ import annotations

import _thread
import errno
import os
from contextlib import suppress

from .system import open_root, sync_file_system

#: What was said of a device when something written to it was lost, by its number.
_lost: dict[int, OSError] = {}


def make_durable(descriptor: int, device: int) -> None:
    """Make everything durable that was written to the ``device`` on which an open file lies.

    OSError: something was lost, now or earlier; with ENOSYS, this system cannot do it at once for all.
    """
    if device in _lost:
        raise OSError(_lost[device].errno, _lost[device].strerror)
    try:
        sync_file_system(descriptor)
    except OSError as exc:
        if exc.errno != errno.ENOSYS:
            _lost[device] = exc
        raise


def begin(root: str) -> None:
    """Have written out beside the work what was written to the device of a directory.

    Whoever makes it durable afterwards has less to wait for.
    """
    with suppress(OSError, RuntimeError):  # gone, or this user may have no more threads
        descriptor = open_root(root, listed=True)
        try:
            _thread.start_new_thread(_sync, (descriptor,))
        except BaseException:
            os.close(descriptor)
            raise


def _sync(descriptor: int) -> None:
    try:
        with suppress(OSError):  # it is remembered
            make_durable(descriptor, os.fstat(descriptor).st_dev)
    finally:
        os.close(descriptor)
