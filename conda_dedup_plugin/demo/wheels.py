"""Wheels made from files at hand or from an installed distribution, for pip to install without an index."""

from __future__ import annotations

import base64
import fnmatch
import hashlib
import importlib.metadata
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping, Sequence

_LOCAL = ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json")


def make_wheel(
    folder: str | os.PathLike[str],
    name: str,
    version: str,
    modules: Mapping[str, bytes],
    *,
    entry_points: Sequence[str] = (),
) -> Path:
    """Write a pure Python wheel of ``modules``, by their path below site-packages, and return its path."""
    files = {**modules, **dist_info(name, version, modules, entry_points)}
    return _write(Path(folder, f"{name.replace('-', '_')}-{version}-py3-none-any.whl"), files)


def distribution_wheel(
    folder: str | os.PathLike[str], distribution: str, exclude: Iterable[str] = ()
) -> Path:
    """Write the wheel that the installed ``distribution`` may have come from, less its scripts."""
    files = dict(installed_files(distribution, exclude))
    info = info_folder(files)
    files |= record(info, files)
    tags = [line for line in files[f"{info}/WHEEL"].decode().splitlines() if line.startswith("Tag:")]
    stem = info.removesuffix(".dist-info")
    return _write(Path(folder, f"{stem}-{tags[0].removeprefix('Tag:').strip()}.whl"), files)


def dist_info(
    name: str, version: str, files: Mapping[str, bytes], entry_points: Sequence[str] = (), installer: str = ""
) -> dict[str, bytes]:
    """The ``.dist-info`` of a distribution of ``files``, all paths below site-packages.

    ``installer`` is who claims to have installed it; none for what lies in a wheel.
    """
    folder = f"{name.replace('-', '_')}-{version}.dist-info"
    made = {
        f"{folder}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode(),
        f"{folder}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    if installer:
        made[f"{folder}/INSTALLER"] = f"{installer}\n".encode()
    if entry_points:
        made[f"{folder}/entry_points.txt"] = "\n".join(["[console_scripts]", *entry_points, ""]).encode()
    return made | record(folder, {**files, **made})


def installed_files(distribution: str, exclude: Iterable[str] = ()) -> dict[str, bytes]:
    """Content of an installed distribution by path below site-packages.

    Without what only the installation made: scripts, bytecode, RECORD and the like; and without what matches
    a pattern of ``exclude`` (as :func:`fnmatch.fnmatch` does).
    """
    found = {}
    for file in importlib.metadata.files(distribution) or ():
        path = file.as_posix()
        foreign = path.startswith(("../", "/")) or path.endswith(".pyc")
        local = file.parent.suffix == ".dist-info" and file.name in _LOCAL
        if not (foreign or local or any(fnmatch.fnmatch(path, pattern) for pattern in exclude)):
            found[path] = Path(str(file.locate())).read_bytes()
    return found


def info_folder(files: Iterable[str]) -> str:
    """The one ``.dist-info`` among ``files``."""
    return next(path.removesuffix("/METADATA") for path in files if path.endswith(".dist-info/METADATA"))


def record(folder: str, files: Mapping[str, bytes]) -> dict[str, bytes]:
    """The RECORD of ``files`` in the ``.dist-info`` called ``folder``."""
    lines = [f"{path},{_digest(data)},{len(data)}\n" for path, data in sorted(files.items())]
    return {f"{folder}/RECORD": "".join([*lines, f"{folder}/RECORD,,\n"]).encode()}


def _digest(data: bytes) -> str:
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def _write(target: Path, files: Mapping[str, bytes]) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for path, data in files.items():
            archive.writestr(zipfile.ZipInfo(path), data)
    return target
