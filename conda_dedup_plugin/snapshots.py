"""Where snapshots are kept: one directory for each environment, with what it was earlier beside it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import time
from typing import TYPE_CHECKING

from .errors import DedupError
from .snapshot import Snapshot, take

if TYPE_CHECKING:
    from .model import Tree

EXPLICIT = "explicit.txt"
YML = "environment.yml"
#: So many earlier snapshots of an environment are kept.
KEPT = 10
_EARLIER = re.compile(r"\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d\.\d{3}Z")


def keep(directory: str, tree: Tree) -> list[str]:
    """Write a snapshot if the environment changed since the last; return what to tell. Never raises."""
    if not directory or not os.path.isdir(f"{tree.root}/conda-meta"):
        return []
    try:
        snapshot = take(tree.root, tree.name)
        changed = write(snapshot, directory)[1]
    except (DedupError, OSError, ValueError) as exc:
        what = exc.strerror if isinstance(exc, OSError) and exc.strerror else exc
        return [f"the snapshot of env '{tree.name}' could not be written: {what}"]
    return list(snapshot.warnings) if changed else []


def write(snapshot: Snapshot, directory: str) -> tuple[str, bool]:
    """Write both files below ``directory``; return where, and whether anything was not there already.

    What was there is kept in a subdirectory named after its time. OSError: something cannot be written.
    """
    folder = _folder(snapshot, directory)
    contents = {EXPLICIT: snapshot.explicit, YML: snapshot.yml}
    encoded = {name: text.encode("utf-8", "replace") for name, text in contents.items()}
    if all(_read(f"{folder}/{name}") == content for name, content in encoded.items()):
        return folder, False
    os.makedirs(folder, exist_ok=True)
    _keep_earlier(folder)
    for name, content in encoded.items():
        _write(folder, name, content)
    return folder, True


def _folder(snapshot: Snapshot, directory: str) -> str:
    """A directory called as the environment is, unless another one has it already."""
    name = re.sub(r"[^\w.+-]", "_", snapshot.name).lstrip(".") or "environment"
    folder = f"{directory}/{name}"
    own = next(line for line in snapshot.explicit.splitlines() if line.startswith("# prefix: "))
    there = _read(f"{folder}/{EXPLICIT}")
    if there is None or own.encode("utf-8", "replace") in there.splitlines():
        return folder
    return f"{folder}-{hashlib.sha256(os.fsencode(snapshot.prefix)).hexdigest()[:8]}"


def _read(path: str) -> bytes | None:
    try:
        with open(path, "rb") as stream:
            return stream.read()
    except OSError:
        return None


def _keep_earlier(folder: str) -> None:
    """Keep what is there under the time at which it was written, and remove what is too old."""
    try:
        written = os.stat(f"{folder}/{EXPLICIT}").st_mtime_ns
    except FileNotFoundError:
        return
    seconds, rest = divmod(written, 10**9)
    stamp = f"{time.strftime('%Y-%m-%dT%H-%M-%S', time.gmtime(seconds))}.{rest // 10**6:03}Z"
    os.makedirs(f"{folder}/{stamp}", exist_ok=True)
    for name in (EXPLICIT, YML):
        if os.path.exists(f"{folder}/{name}") and not os.path.lexists(f"{folder}/{stamp}/{name}"):
            shutil.copy2(f"{folder}/{name}", f"{folder}/{stamp}/{name}")
    for old in sorted(filter(_EARLIER.fullmatch, os.listdir(folder)))[:-KEPT]:
        for name in (EXPLICIT, YML):
            with contextlib.suppress(OSError):
                os.unlink(f"{folder}/{old}/{name}")
        with contextlib.suppress(OSError):  # with anything else in it, it stays
            os.rmdir(f"{folder}/{old}")


def _write(folder: str, name: str, content: bytes) -> None:
    """Replace a file in one step; it may be read by whom the umask lets."""
    temporary = f"{folder}/.{name}.{os.getpid()}"
    try:
        with open(temporary, "xb") as stream:
            stream.write(content)
        os.replace(temporary, f"{folder}/{name}")
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
