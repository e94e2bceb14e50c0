"""A small world of environments that hold the same bytes more than once, in a directory that goes away again.

Nothing in it is made up: its packages are what is installed here, rattler creates the environments, pip
installs the wheels.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import DedupError
from .distributions import (
    PYTHON_BUILD,
    PYTHON_DEPENDS,
    SITE_PACKAGES,
    distribution_package,
    python_package,
)
from .packages import index_channel, make_package, native_subdir
from .wheels import distribution_wheel, installed_files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import FrameType

#: What pip installs into two environments, each with a big library in it.
WHEELS = ("py-rattler", "msgspec")
#: Left out of numpy, so that the whole takes seconds.
_NUMPY_EXCLUDE = ("*/tests/*", "*.pyi", "*.h", "*.a", "numpy/f2py/*")
_SPECS = ("numpy", "runtime")
_LIBRARY_MAX = 16_000_000
#: What is there while wheels, packages and environments all are.
_ROOM = 800_000_000
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
_IMPORT = """\
import sys, numpy
assert numpy.__file__.startswith(sys.prefix) and numpy.ones((2, 2)).dot([1, 1]).sum() == 4
"""


@dataclass(frozen=True, slots=True)
class World:
    """What :func:`make_world` made: the directory to search and the environments in it."""

    home: Path
    environments: tuple[Path, ...]

    def check_imports(self) -> None:
        """Import numpy with the Python of every environment. DedupError: one does not."""
        for prefix in self.environments:
            command = [str(prefix / "bin/python"), "-I", "-B", "-c", _IMPORT]
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
            if done.returncode:
                raise DedupError(
                    f"numpy does not run in the environment {str(prefix)!r} ({_last_line(done.stderr)}).",
                    "Run the demo where pip installed numpy: in a virtual environment, not in conda's.",
                )


@contextlib.contextmanager
def temporary_home() -> Iterator[Path]:
    """Yield a fresh directory that this process takes for the user's home; leave no trace of either.

    The journal, caches and settings of the user are neither read nor written. The directory also goes when
    the process is interrupted or told to end.
    """
    environ = dict(os.environ)
    main = threading.current_thread() is threading.main_thread()
    ending = [number for number in (signal.SIGTERM, signal.SIGHUP) if main]
    ending = [number for number in ending if signal.getsignal(number) is signal.SIG_DFL]
    for number in ending:
        signal.signal(number, _end)
    folder = Path(tempfile.mkdtemp(prefix="conda-dedup-demo-")).resolve()
    try:
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
        ignored = {
            number: signal.signal(number, signal.SIG_IGN) for number in (*ending, signal.SIGINT) if main
        }
        _remove(folder)
        os.environ.clear()
        os.environ.update(environ)
        for number, handler in ignored.items():
            signal.signal(number, signal.SIG_DFL if number in ending else handler)


def _end(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def _remove(folder: Path) -> None:
    """Remove a tree; what is still being written there by threads of rattler is waited for."""
    for _ in range(100):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.05)


def make_world(folder: Path, say: Callable[[str], None]) -> World:
    """Make packages, wheels and environments in ``folder``; ``say`` gets a line on each step.

    DedupError: what is installed here will not do, or there is no room.
    """
    try:
        _check_room(folder)
        return _make_world(folder, say)
    except BrokenPipeError:
        raise  # whoever read what we say has seen enough
    except (OSError, subprocess.SubprocessError) as exc:
        why = _last_line(exc.stderr) if isinstance(exc, subprocess.CalledProcessError) else str(exc)
        raise DedupError(
            f"The demo could not make its environments ({why}).",
            f"TMPDIR says where; {_ROOM // 1_000_000} MB have to be free there.",
        ) from exc


def _make_world(folder: Path, say: Callable[[str], None]) -> World:
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("numpy", *WHEELS))
    say(f"Making conda packages and wheels of what is installed here: {versions}.")
    channel = _make_channel(folder / "channel")
    for name in WHEELS:
        distribution_wheel(folder / "wheels", name)

    home = folder / "home"
    named, cache = home / "micromamba/envs", home / "micromamba/pkgs"
    say("Creating the environments 'nlp' and 'bert' from one package cache.")
    environments = [_create(named / name, channel, cache, folder) for name in ("nlp", "bert")]
    say("Creating the environment of the project 'shop' from a second package cache, as pixi has one.")
    second = home / ".cache/rattler/cache/pkgs"
    environments.append(_create(home / "shop/.pixi/envs/default", channel, second, folder))
    say("Creating the environment 'vision' from a cache that is emptied afterwards.")
    environments.append(_create(named / "vision", channel, folder / "third", folder))
    say(f"Installing wheels with pip into 'nlp' and 'bert': {' and '.join(WHEELS)}.")
    for prefix in environments[:2]:
        _pip_install(prefix, folder / "wheels")
    for name in ("channel", "wheels", "third"):
        shutil.rmtree(folder / name)
    return World(home, tuple(environments))


def _make_channel(channel: Path) -> str:
    """Write ``python`` (a stub), ``numpy``, and ``runtime``, which has one library in two places."""
    python_package(channel)
    distribution_package(channel, "numpy", exclude=_NUMPY_EXCLUDE)
    numpy = installed_files("numpy", _NUMPY_EXCLUDE)
    libraries = [data for path, data in numpy.items() if ".so" in path and len(data) <= _LIBRARY_MAX]
    if not libraries:
        raise OSError("the numpy here has no libraries")
    library = max(libraries, key=len) + b"\0"  # so that it is like numpy's, but not a further copy of it
    names = ("lib/libruntime.so.1", f"{SITE_PACKAGES}/runtime/lib/libruntime.so.1")
    files = {f"{SITE_PACKAGES}/runtime/__init__.py": b"", **dict.fromkeys(names, library)}
    make_package(channel, "runtime", "1.0", f"{PYTHON_BUILD}_0", files, depends=[PYTHON_DEPENDS])
    return index_channel(channel)


def _create(prefix: Path, channel: str, cache: Path, folder: Path) -> Path:
    """Create an environment by rattler, whose packages are in ``cache``."""
    import rattler

    async def create(specs: Sequence[str]) -> None:
        gateway = rattler.Gateway(cache_dir=folder / "repodata")
        platforms = [native_subdir(), "noarch"]
        records = await rattler.solve([channel], specs, gateway=gateway, platforms=platforms)
        await rattler.install(records, target_prefix=prefix, cache_dir=cache, show_progress=False)

    try:
        asyncio.run(create(_SPECS))
    except Exception as exc:  # one of some forty unrelated types
        raise OSError(f"rattler: {exc}") from exc
    return prefix


def _pip_install(prefix: Path, wheels: Path) -> None:
    """Install :data:`WHEELS` with our pip, run by the environment's own Python."""
    import pip

    # On its path is pip alone: of what is installed beside our pip it would say that it is there already.
    alone = wheels / "pip-alone"
    alone.mkdir(exist_ok=True)
    if not (alone / "pip").is_symlink():
        (alone / "pip").symlink_to(Path(pip.__file__).parent)
    options = ["--quiet", "--no-index", "--no-deps", "--no-cache-dir", "--find-links", str(wheels)]
    command = [str(prefix / "bin/python"), "-B", "-m", "pip", "install", *options, *WHEELS]
    environ = {**os.environ, "PYTHONPATH": str(alone)}
    subprocess.run(command, env=environ, capture_output=True, text=True, check=True, timeout=300)


def _check_room(folder: Path) -> None:
    if shutil.disk_usage(folder).free < _ROOM:
        raise OSError(f"there is too little room in {str(folder.parent)!r}")


def _last_line(text: str) -> str:
    return next(reversed(text.strip().splitlines()), "no reason given")
