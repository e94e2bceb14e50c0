"""What was written must be on the device before a durable name may point to it.

A kernel tells only once that something written to a file system was lost: nothing on it is shared by this
process from then on.
"""

from __future__ import annotations

import _thread
import errno
import os
from contextlib import suppress

from .probe import probe
from .system import open_entry, open_root, sync_file_system

#: The error numbers of devices to which something was written that was lost, by their numbers.
_lost: dict[int, int] = {}


def make_durable(descriptor: int, device: int) -> None:
    """Make everything durable that was written to the ``device`` on which an open file lies.

    OSError: something was lost, now or earlier; with ENOSYS, this system cannot do it at once for all.
    """
    if device in _lost:
        raise OSError(_lost[device], os.strerror(_lost[device]))
    try:
        sync_file_system(descriptor)
    except OSError as exc:
        if exc.errno != errno.ENOSYS:
            _lost[device] = exc.errno or errno.EIO
        raise


def begin(path: str) -> None:
    """Have written out beside the work what was written to the device of a file whose names may be exchanged.

    Whoever makes it durable afterwards has less to wait for. For a device that can reflink nobody waits, and
    a remote one might take long.
    """
    with suppress(OSError, RuntimeError):  # gone, or this user may have no more threads
        folder, _, name = path.rpartition("/")
        directory = open_root(folder)
        try:
            descriptor = open_entry(name, directory)
        finally:
            os.close(directory)
        begun = False
        try:
            device = probe(descriptor)
            if not (device.reflink or device.remote):
                _thread.start_new_thread(_sync, (descriptor,))
                begun = True
        finally:
            if not begun:
                os.close(descriptor)


def _sync(descriptor: int) -> None:
    try:
        with suppress(OSError):  # it is remembered
            make_durable(descriptor, os.fstat(descriptor).st_dev)
    finally:
        os.close(descriptor)
