"""A home and processes that leave no trace, however this process ends (but for what cannot be caught)."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import FrameType
    from typing import Any, TypeAlias

    _Handler: TypeAlias = Callable[[int, FrameType | None], Any] | int | signal.Handlers | None

#: Variables that would let the user's own package managers and settings look in.
_FOREIGN = (
    "CONDA",
    "_CE_",
    "_CONDA",
    "MAMBA",
    "RATTLER",
    "PIXI",
    "MAGIC",
    "PIP_",
    "PYTHON",
    "XDG_",
    "VIRTUAL_ENV",
)
_ENDINGS = [signal.SIGINT, signal.SIGTERM]
if sys.platform != "win32":
    _ENDINGS.append(signal.SIGHUP)


@contextlib.contextmanager
def temporary_home() -> Iterator[Path]:
    """Yield a fresh directory that this process takes for the user's home; leave no trace of either.

    The journal, caches and settings of the user are neither read nor written. The directory also goes when
    the process is interrupted or told to end.
    """
    environ = dict(os.environ)
    handlers = _handle_endings()
    folder = None
    try:
        with undisturbed():
            folder = Path(tempfile.mkdtemp(prefix="conda-dedup-demo-")).resolve()
        for name in environ:
            if name.startswith(_FOREIGN):
                del os.environ[name]
        (folder / "tmp").mkdir()
        os.environ |= {
            "HOME": str(folder),
            "TMPDIR": str(folder / "tmp"),
            "XDG_STATE_HOME": str(folder / "state"),
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_ROOT_USER_ACTION": "ignore",
        }
        yield folder
    finally:
        with undisturbed():
            os.environ.clear()
            os.environ.update(environ)
            if folder:
                shutil.rmtree(folder)
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _handle_endings() -> dict[int, _Handler]:
    """Let what would end this process raise an exception instead; return the handlers there were."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    default = [number for number in _ENDINGS if signal.getsignal(number) is signal.SIG_DFL]
    return {number: signal.signal(number, _end) for number in default}


def _end(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Let an interrupt, or what would end this process, take effect at the end of the block."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    handlers = {number: signal.getsignal(number) for number in _ENDINGS}
    handlers = {number: handler for number, handler in handlers.items() if callable(handler)}
    for number in handlers:
        signal.signal(number, lambda number, _: came.append(number))
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    if came:
        signal.raise_signal(came[0])


def run(*command: object, path: Sequence[str] = ()) -> str:
    """Run a command to its end and return the last line of its complaint; empty if it went well.

    ``path`` is its PYTHONPATH. Nothing of it runs any more when this is interrupted.
    """
    words = [str(word) for word in command]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
    process = None
    try:
        with undisturbed():
            process = subprocess.Popen(words, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        _, complaint = process.communicate()
    finally:
        if process:
            process.kill()
            process.wait()
    if process.returncode == 0:
        return ""
    lines = complaint.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else f"exit code {process.returncode}"
