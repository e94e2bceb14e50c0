"""What came of sharing: values, not log lines."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from msgspec import Struct

from ..model import Method, Reason

if TYPE_CHECKING:
    from ..model import Inode


class Outcome(Struct, frozen=True):
    """What came of one planned share.

    Either ``method`` says how it was shared and ``bytes_freed`` what that gained, or ``reason`` why it
    was left alone (``detail`` names paths where the reason needs them), or ``error`` what went wrong.
    """

    duplicate: Inode
    method: Method | None = None
    bytes_freed: int = 0
    reason: Reason | None = None
    detail: str = ""
    #: In how many pieces the file lay on its device before and after, where that is known.
    extents: tuple[int, int] | None = None
    error: str = ""


class SkipError(OSError):
    """One file is left alone, for a reason of our own."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(errno.ECANCELED, reason.value)
        self.reason = reason


class ChangedError(OSError):
    """What lies there now is not what was planned."""

    def __init__(self, path: str) -> None:
        super().__init__(errno.ESTALE, "not the planned file", path)


#: What an errno met while sharing one file says of that file. The rest is no skip but a failure.
_REASONS = {
    errno.EMLINK: Reason.LINK_LIMIT,
    errno.EXDEV: Reason.OTHER_DEVICE,
    errno.EPERM: Reason.IMMUTABLE,
    errno.EACCES: Reason.NO_ACCESS,
    errno.ENOSPC: Reason.NO_SPACE,
    errno.EDQUOT: Reason.NO_SPACE,
    errno.EROFS: Reason.READ_ONLY,
    errno.ETXTBSY: Reason.TEXT_BUSY,
    errno.EINVAL: Reason.UNSUPPORTED,
    errno.EOPNOTSUPP: Reason.UNSUPPORTED,
    errno.ENOTSUP: Reason.UNSUPPORTED,  # on Linux the same number
    errno.ENOSYS: Reason.UNSUPPORTED,
    errno.ENOENT: Reason.VANISHED,
    errno.ENOTDIR: Reason.NOT_REGULAR,
    errno.ELOOP: Reason.NOT_REGULAR,
    errno.ESTALE: Reason.CHANGED,
    errno.EAGAIN: Reason.BUSY,
    errno.EMFILE: Reason.DESCRIPTORS,
    errno.ENFILE: Reason.DESCRIPTORS,
    errno.ENAMETOOLONG: Reason.UNSUPPORTED,
}


def reason_of(error: OSError) -> Reason | None:
    """Why a file was left alone, for every errno that is expected; None for the others."""
    return _REASONS.get(error.errno or 0)


def outcome_of_error(duplicate: Inode, error: OSError) -> Outcome:
    """Turn what stopped the sharing of one file into its outcome: a skip if it was to be expected."""
    reason = error.reason if isinstance(error, SkipError) else reason_of(error)
    if reason is None:
        return Outcome(duplicate, error=str(error))
    return Outcome(duplicate, reason=reason)
