"""The small files of an environment's state: read without a lock, written under one nobody waits for."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from typing import TYPE_CHECKING, TypeVar

import msgspec

from .state import write_atomically

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

T = TypeVar("T")
_LOCK = "writing"


def load(path: str | os.PathLike[str], kind: type[T]) -> T | None:
    """Return what a file says; None if there is none, or it is damaged."""
    try:
        with open(path, "rb") as stream:
            return msgspec.json.decode(stream.read(), type=kind)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def update(path: Path, kind: type[T], change: Callable[[T | None], T | None]) -> bool:
    """Write what ``change`` makes of what is there now; None: nothing is written. Whether it was.

    Who reads sees the old or the new content. Where another process is writing at this very moment nothing
    is done, for nobody waits.
    """
    with alone(path.parent) as ours:
        changed = change(load(path, kind)) if ours else None
        if changed is None:
            return False
        write_atomically(path, msgspec.json.encode(changed))
        return True


def forget(directory: Path, is_gone: Callable[[], bool]) -> None:
    """Remove all that a directory remembers of what ``is_gone``, unless somebody is writing there."""
    with contextlib.suppress(OSError), alone(directory) as ours:
        if ours and is_gone():
            shutil.rmtree(directory, ignore_errors=True)


@contextlib.contextmanager
def alone(directory: Path) -> Iterator[bool]:
    """Be the only one who writes in a directory; yields at once whether that could be had.

    The kernel frees the lock of a process that died. On Linux and macOS it is no ``filelock``, whose
    import takes more time than a hook may.
    """
    if sys.platform == "win32":
        from filelock import FileLock, Timeout

        held = FileLock(directory / _LOCK)
        try:
            held.acquire(timeout=0)
        except (Timeout, OSError):
            yield False
            return
        try:
            yield True
        finally:
            held.release()
    else:
        import fcntl

        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(directory / _LOCK, flags, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # who has just forgotten the directory has removed the file; a new one has a lock of its own
                ours = os.path.samestat(os.fstat(descriptor), os.stat(directory / _LOCK))
            except OSError:
                ours = False
            yield ours
        finally:
            os.close(descriptor)
