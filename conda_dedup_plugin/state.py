"""Where we remember things: the user's state directory, who runs, and locks that nobody waits for."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import tempfile
from typing import TYPE_CHECKING

from .errors import StateError
from .files import real_path

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from contextlib import ExitStack
    from pathlib import Path

_APP = "conda-dedup"


def state_directory() -> Path:
    """Return the user's state directory for this program, made if missing.

    StateError: it cannot be made or written to.
    """
    path = _state_path()
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        usable = os.access(path, os.W_OK | os.X_OK)
        ours = _is_ours(path)
    except OSError as exc:
        raise StateError(f"the state directory {str(path)!r} cannot be made ({exc.strerror})") from exc
    if not usable:
        raise StateError(f"the state directory {str(path)!r} cannot be written to")
    if not ours:
        raise _foreign(path)
    return path


def existing_state_directory() -> Path | None:
    """Return the same without making it, for who only reads; None where there is none."""
    path = _state_path()
    try:
        ours = _is_ours(path)
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise StateError(f"the state directory {str(path)!r} cannot be read ({exc.strerror})") from exc
    if not ours:
        raise _foreign(path)
    return path


def _state_path() -> Path:
    import platformdirs

    return platformdirs.user_state_path(_APP, appauthor=False)


def _is_ours(path: Path) -> bool:
    """Whether nobody else may have written what is in it."""
    found, parent = path.stat(), path.parent.stat()
    ours = True
    if sys.platform != "win32":  # there it is in the user's profile, where nobody else may write
        writable = 0o022 if os.geteuid() == 0 else 0o002  # a group of their own is usual for users
        ours = found.st_uid == os.geteuid() and not found.st_mode & writable
        ours = ours and (os.geteuid() != 0 or parent.st_uid == 0)
    return ours


def _foreign(path: Path) -> StateError:
    # what a journal says is done to files, so nobody else may have written it (sudo may keep HOME)
    return StateError(
        f"the state directory {str(path)!r} belongs to, or can be written to by, another user",
        "Set XDG_STATE_HOME to a directory of your own.",
    )


def environment_directory(root: str, make: bool = True) -> Path:
    """Return the directory that holds what we remember of the tree at ``root``, made if so wished."""
    with contextlib.suppress(OSError):  # a component that changes this very moment
        root = real_path(root)
    digest = hashlib.sha256(os.fsencode(root)).hexdigest()[:16]
    path = state_directory() / "envs" / digest
    try:
        if make:
            path.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise StateError(f"the state directory {str(path)!r} cannot be made ({exc.strerror})") from exc
    return path


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a file of ours in one step; readers see the old or the new content."""
    descriptor, temporary = tempfile.mkstemp(prefix=path.name, dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


@contextlib.contextmanager
def lock(root: str) -> Iterator[bool]:
    """Hold the lock on the tree at ``root``; yields at once whether it could be had.

    The kernel frees the lock of a process that died.
    """
    from filelock import FileLock, Timeout

    held = FileLock(str(environment_directory(root) / "lock"))
    try:
        held.acquire(timeout=0)
    except Timeout:
        yield False
        return
    except OSError as exc:
        raise StateError(f"the lock of {root!r} cannot be taken ({exc.strerror})") from exc
    try:
        yield True
    finally:
        held.release()


def lock_all(stack: ExitStack, roots: Iterable[str], needed: bool = True) -> set[str]:
    """Lock every tree that will be changed, while ``stack`` lasts; return those another run is working on.

    StateError: no lock can be had at all, and they are ``needed``.
    """
    locked = set()
    for root in sorted(roots):
        try:
            if not stack.enter_context(lock(root)):
                locked.add(root)
        except StateError:
            if needed:
                raise
    return locked


def process_identity(pid: int) -> str:
    """Return what tells this process from a later one of the same number.

    Empty if there is none, or if it is dead and nobody has waited for it yet.
    """
    from .sharing.system import process_started

    return process_started(pid)


def is_running(identity: str) -> bool:
    """Whether the process of an identity still runs."""
    parts = identity.split("/")
    return len(parts) == 3 and parts[1].isdigit() and process_identity(int(parts[1])) == identity
