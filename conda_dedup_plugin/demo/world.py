"""A small world of environments that hold the same bytes more than once.

Nothing in it is made up: its packages are what is installed here, rattler creates the environments, pip
installs the wheels.
"""

from __future__ import annotations

import importlib.metadata
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from ..errors import DedupError
from . import creation
from .distributions import (
    PYTHON_BUILD,
    PYTHON_DEPENDS,
    SITE_PACKAGES,
    distribution_package,
    python_package,
)
from .packages import make_package
from .shelter import run, undisturbed
from .wheels import distribution_wheel, installed_files

if TYPE_CHECKING:
    from collections.abc import Callable

#: What pip installs into two environments, each with a big library in it.
WHEELS = ("py-rattler", "msgspec")
#: Left out of numpy, so that the whole takes seconds.
_NUMPY_EXCLUDE = ("*/tests/*", "*.pyi", "*.h", "*.a", "numpy/f2py/*")
_LIBRARY_MAX = 16_000_000
#: What is there while wheels, packages and environments all are.
_ROOM = 800_000_000
_IMPORT = """\
import sys, numpy
assert numpy.__file__.startswith(sys.prefix) and numpy.ones((2, 2)).dot([1, 1]).sum() == 4
"""


class World(Struct, frozen=True):
    """What :func:`make_world` made: the directory to search and the environments in it."""

    home: Path
    environments: tuple[Path, ...]

    def check_imports(self) -> None:
        """Import numpy with the Python of every environment. DedupError: one does not."""
        for prefix in self.environments:
            complaint = run(prefix / "bin/python", "-I", "-B", "-c", _IMPORT)
            if complaint:
                raise DedupError(
                    f"numpy does not run in the environment {str(prefix)!r} ({complaint}).",
                    "Run the demo where pip installed numpy: in a virtual environment, not in conda's.",
                )


def make_world(folder: Path, say: Callable[[str], None]) -> World:
    """Make packages, wheels and environments in ``folder``; ``say`` gets a line on each step.

    DedupError: what is installed here will not do, or there is no room.
    """
    try:
        _check_room(folder)
        return _make_world(folder, say)
    except BrokenPipeError:
        raise  # whoever read what we say has seen enough
    except OSError as exc:
        raise DedupError(
            f"The demo could not make its environments ({exc}).",
            f"TMPDIR says where; {_ROOM // 1_000_000} MB have to be free there.",
        ) from exc


def _make_world(folder: Path, say: Callable[[str], None]) -> World:
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("numpy", *WHEELS))
    say(f"Making conda packages and wheels of what is installed here: {versions}.")
    _make_channel(folder / "channel")
    for name in WHEELS:
        distribution_wheel(folder / "wheels", name)

    home = folder / "home"
    named, project = home / "micromamba/envs", home / "shop/.pixi/envs"
    nlp, bert, vision, shop = named / "nlp", named / "bert", named / "vision", project / "default"
    say("Creating the environments 'nlp' and 'bert' from one package cache.")
    _create(folder / "channel", home / "micromamba/pkgs", nlp, bert)
    say("Creating the environment of the project 'shop' from a second package cache, as pixi has one.")
    _create(folder / "channel", home / ".cache/rattler/cache/pkgs", shop)
    say("Creating the environment 'vision' from a cache that is emptied afterwards.")
    _create(folder / "channel", folder / "third", vision)
    say(f"Installing wheels with pip into 'nlp' and 'bert': {' and '.join(WHEELS)}.")
    _pip_install(folder / "wheels", nlp, bert)
    for name in ("channel", "wheels", "third"):
        shutil.rmtree(folder / name)
    return World(home, (nlp, bert, vision, shop))


def _make_channel(channel: Path) -> None:
    """Write ``python`` (a stub), ``numpy``, and ``runtime``, which has one library in two places."""
    python_package(channel)
    with undisturbed():  # compile() turns an interrupt into a SyntaxError, and those are passed over there
        distribution_package(channel, "numpy", exclude=_NUMPY_EXCLUDE)
    numpy = installed_files("numpy", _NUMPY_EXCLUDE)
    libraries = [data for path, data in numpy.items() if ".so" in path and len(data) <= _LIBRARY_MAX]
    if not libraries:
        raise OSError("the numpy here has no libraries")
    library = max(libraries, key=len) + b"\0"  # so that it is like numpy's, but not a further copy of it
    names = ("lib/libruntime.so.1", f"{SITE_PACKAGES}/runtime/lib/libruntime.so.1")
    files = {f"{SITE_PACKAGES}/runtime/__init__.py": b"", **dict.fromkeys(names, library)}
    make_package(channel, "runtime", "1.0", f"{PYTHON_BUILD}_0", files, depends=[PYTHON_DEPENDS])


def _create(channel: Path, cache: Path, *prefixes: Path) -> None:
    """Create environments by rattler, whose packages are in ``cache``."""
    # It finds what we find, however that came onto our path.
    complaint = run(sys.executable, "-m", creation.__name__, channel, cache, *prefixes, path=sys.path)
    if complaint:
        raise OSError(f"rattler: {complaint}")


def _pip_install(wheels: Path, *prefixes: Path) -> None:
    """Install :data:`WHEELS` with our pip, run by the environments' own Python."""
    import pip

    # On its path is pip alone: of what is installed beside our pip it would say that it is there already.
    alone = wheels / "pip-alone"
    alone.mkdir()
    (alone / "pip").symlink_to(Path(pip.__file__).parent)
    options = ["--quiet", "--no-index", "--no-deps", "--no-cache-dir", "--find-links", wheels]
    for prefix in prefixes:
        python = prefix / "bin/python"
        complaint = run(python, "-B", "-m", "pip", "install", *options, *WHEELS, path=[str(alone)])
        if complaint:
            raise OSError(f"pip: {complaint}")


def _check_room(folder: Path) -> None:
    if shutil.disk_usage(folder).free < _ROOM:
        raise OSError(f"there is too little room in {str(folder.parent)!r}")
