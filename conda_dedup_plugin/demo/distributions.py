"""What goes into demonstration packages: a Python that runs, and installed distributions."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import marshal
import struct
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from conda_dedup_plugin.demo.packages import MTIME, Entry, make_package
from conda_dedup_plugin.demo.wheels import dist_info, info_folder, installed_files, record

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
#: The site-packages of an environment with :func:`python_package`, relative to its prefix.
SITE_PACKAGES = f"lib/python{PYTHON}/site-packages"
#: What a package compiled for that Python depends on.
PYTHON_DEPENDS = f"python >={PYTHON},<{sys.version_info.major}.{sys.version_info.minor + 1}.0a0"
#: The start of the build string of such a package.
PYTHON_BUILD = f"py{sys.version_info.major}{sys.version_info.minor}"


def python_package(channel: str | os.PathLike[str]) -> Path:
    """A package ``python`` of this interpreter's version whose environments are virtual environments of it.

    ``bin/python`` there runs, sees only the environment's own site-packages and names the environment as
    ``sys.prefix``. The package is good for this machine alone.
    """
    home = _interpreter()
    version = ".".join(map(str, sys.version_info[:3]))
    config = f"home = {home.parent}\ninclude-system-site-packages = false\nversion = {version}\n"
    files: dict[str, Entry | bytes] = {
        "pyvenv.cfg": config.encode(),
        f"bin/python{PYTHON}": Entry(target=str(home)),
        "bin/python3": Entry(target=f"python{PYTHON}"),
        "bin/python": Entry(target=f"python{PYTHON}"),
        f"{SITE_PACKAGES}/README.txt": b"Packages of this environment.\n",
    }
    extra = {"python_site_packages_path": SITE_PACKAGES}
    return make_package(channel, "python", version, "stub_0_cpython", files, extra_index=extra)


def distribution_package(
    channel: str | os.PathLike[str],
    distribution: str,
    *,
    build_number: int = 0,
    exclude: Sequence[str] = (),
    extra_files: Mapping[str, Entry | bytes] | None = None,
    depends: Sequence[str] = (),
    bytecode: bool = True,
) -> Path:
    """The installed ``distribution`` as a package for this machine, ``py311_0`` being a build string of it.

    Its files are those below site-packages but for those that match a pattern of ``exclude`` (as
    :func:`fnmatch.fnmatch` does, on the path below site-packages). ``extra_files`` are by their path in the
    prefix and win. ``bytecode``: modules come compiled, as conda-build does it.
    """
    sources = installed_files(distribution, exclude)
    info = info_folder(sources)
    sources[f"{info}/INSTALLER"] = b"conda\n"
    sources |= record(info, sources)
    files: dict[str, Entry | bytes] = {f"{SITE_PACKAGES}/{path}": data for path, data in sources.items()}
    if bytecode:
        files |= {f"{SITE_PACKAGES}/{path}": data for path, data in compiled(sources).items()}
    files |= extra_files or {}
    return make_package(
        channel,
        distribution.lower(),
        importlib.metadata.version(distribution),
        f"{PYTHON_BUILD}_{build_number}",
        files,
        depends=[PYTHON_DEPENDS, *depends],
        build_number=build_number,
    )


def noarch_package(
    channel: str | os.PathLike[str],
    name: str,
    version: str,
    modules: Mapping[str, bytes],
    *,
    entry_points: Sequence[str] = (),
    depends: Sequence[str] = ("python",),
    build_number: int = 0,
) -> Path:
    """A ``noarch: python`` package of ``modules``, by their path below site-packages.

    conda compiles them on linking; ``entry_points`` are lines like ``tool = package.module:function``.
    """
    files = {**modules, **dist_info(name, version, modules, entry_points, "conda")}
    return make_package(
        channel,
        name,
        version,
        f"pyh_{build_number}",
        {f"site-packages/{path}": data for path, data in files.items()},
        noarch="python",
        depends=depends,
        build_number=build_number,
        entry_points=entry_points,
    )


def compiled(sources: Mapping[str, bytes]) -> dict[str, bytes]:
    """The ``__pycache__`` files of the ``.py`` among ``sources``, valid beside them when installed."""
    made = {}
    for path, source in sources.items():
        if not path.endswith(".py"):
            continue
        try:
            code = compile(source, path, "exec", dont_inherit=True)
        except (SyntaxError, ValueError):
            continue  # templates and test data: an installer passes over them, too
        header = importlib.util.MAGIC_NUMBER + struct.pack("<III", 0, MTIME, len(source))
        made[importlib.util.cache_from_source(path)] = header + marshal.dumps(code)
    return made


def _interpreter() -> Path:
    """The real interpreter below any virtual environment."""
    return Path(getattr(sys, "_base_executable", None) or sys.executable).resolve()
