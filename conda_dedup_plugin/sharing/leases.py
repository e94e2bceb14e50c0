"""Read leases: the kernel's word that nobody has a file open, or mapped, for writing.

While a lease is held, whoever opens the file for writing waits until it is given back (with
O_NONBLOCK: gets EAGAIN). See fcntl(2), F_SETLEASE.
"""

from __future__ import annotations

import enum
import errno
import signal
import sys

if sys.platform == "linux":
    import fcntl

    #: A signal that is ignored by default.
    _IGNORED = int(signal.SIGURG)

#: Whether this system has leases at all; elsewhere a file is looked at instead.
EXIST = sys.platform == "linux"
_SETSIG = 10
_UNSUPPORTED = frozenset(
    {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EPERM, errno.ENOTTY}
)


class Lease(enum.Enum):
    """What came of asking for a lease."""

    HELD = "held"
    BUSY = "busy"
    UNSUPPORTED = "unsupported"


def take(descriptor: int) -> Lease:
    """Take a read lease on a file open read-only, or ask whether the one held is unbroken.

    ``BUSY``: somebody has it open for writing, or waits to. Only the answer of taking it (again) can
    be trusted. The default signal of a broken lease, SIGIO, would kill the process, so another one that
    is ignored by default is set first. PermissionError: neither ours nor CAP_LEASE.
    """
    if sys.platform != "linux":
        return Lease.UNSUPPORTED
    else:
        try:
            fcntl.fcntl(descriptor, _SETSIG, _IGNORED)  # each time: a lease that is lost loses it
            fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        except OSError as exc:
            if exc.errno == errno.EAGAIN:
                return Lease.BUSY
            if exc.errno in _UNSUPPORTED:
                return Lease.UNSUPPORTED
            raise
        return Lease.HELD


def give_back(descriptor: int) -> None:
    """Let waiting writers go on. Giving back what was never held is harmless."""
    if sys.platform == "linux":
        try:
            fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        except OSError as exc:
            if exc.errno not in _UNSUPPORTED | {errno.EAGAIN}:
                raise
