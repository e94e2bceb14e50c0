"""``conda-meta/*.json``: the records of an environment, in conda's and in rattler's dialect.

In a noarch Python package conda's ``_path`` is the path in the package (``site-packages/…``), and only
``files`` has the installed one; rattler's ``_path`` is the installed one. conda writes
``sha256_in_prefix`` always, rattler only where it differs from ``sha256``. Where a file was patched,
``size_in_bytes`` is the size before.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import msgspec

from ..model import Claim, Dist
from .reading import RecordError, Records, decode, is_inside, sha256_of

if TYPE_CHECKING:
    from pathlib import Path


class _Path(msgspec.Struct, gc=False):
    path: str = msgspec.field(name="_path")
    path_type: str | None = None
    sha256: str | None = None
    sha256_in_prefix: str | None = None
    size_in_bytes: int | None = None
    prefix_placeholder: str | None = None
    no_link: bool | None = None


class _PathsData(msgspec.Struct, gc=False):
    paths: list[_Path] = []


class _Record(msgspec.Struct, gc=False):
    name: str
    version: str
    build: str = ""
    subdir: str | None = None
    sha256: str | None = None
    md5: str | None = None
    channel: Any = None
    noarch: Any = None
    files: list[str] = []
    paths_data: _PathsData | None = None


_DECODER = msgspec.json.Decoder(_Record)
_ENTRY_POINTS = (
    "unix_python_entry_point",
    "windows_python_entry_point_script",
    "windows_python_entry_point_exe",
)
_NO_FILES = ("softlink", "directory", *_ENTRY_POINTS)
#: Directories of a noarch Python package and the end of what they become in an environment.
_SITE_PACKAGES = "site-packages/"
_SCRIPTS = "python-scripts/"


def read_environment(root: str) -> Records:
    """Return what every record of the environment at ``root`` says, by installed path."""
    records = Records()
    for path in read_dists(root).values():
        try:
            _, claims = _read(str(path), records.warnings)
        except RecordError as exc:
            records.warnings.append(str(exc))
            continue
        records.claims.update(claims)
    return records


def read_dists(prefix: str) -> dict[str, Path]:
    """Return the record files of an environment by name-version-build, without reading them."""
    from pathlib import Path

    try:
        with os.scandir(f"{prefix}/conda-meta") as entries:
            return {entry.name[:-5]: Path(entry.path) for entry in entries if entry.name.endswith(".json")}
    except OSError:
        return {}


def read_record(path: Path) -> tuple[Dist, dict[str, Claim]]:
    """Read one record: its dist, and its claims by installed path. RecordError: it cannot be read."""
    return _read(str(path), [])


def _read(path: str, warnings: list[str]) -> tuple[Dist, dict[str, Claim]]:
    record = decode(path, _DECODER)
    dist = Dist(
        record.name,
        record.version,
        record.build,
        record.subdir or "",
        record.sha256 or record.md5 or "",
        record.channel if isinstance(record.channel, str) else "",
    )
    claims: dict[str, Claim] = {}
    installed = _Installed(record.files)
    #: What ``files`` has and ``paths`` says nothing of: bytecode, entry points.
    others = set(record.files)
    paths = record.paths_data.paths if record.paths_data else []
    for said in paths:
        where = installed(said.path)
        others.discard(where)
        if said.path_type in _NO_FILES:
            if said.path_type in _ENTRY_POINTS:
                claims[where] = Claim(dist, where, prefixed=True)
            continue
        digest = said.sha256_in_prefix or said.sha256
        prefixed = bool(said.prefix_placeholder) or (
            said.sha256 is not None
            and said.sha256_in_prefix is not None
            and said.sha256 != said.sha256_in_prefix
        )
        size = -1 if prefixed or said.size_in_bytes is None else said.size_in_bytes
        # what is compiled in the environment has its path there, and no original in a cache
        source = where if said.path_type == "pyc_file" else said.path
        claims[where] = Claim(dist, source, sha256_of(digest), size, prefixed, bool(said.no_link))
    for where in others:
        claims[where] = Claim(dist, where, prefixed=not where.endswith(".pyc"))
    outside = [where for where in claims if not is_inside(where)]
    if outside:
        warnings.append(f"{path!r} names {len(outside)} paths outside its environment, which are left out.")
        for where in outside:
            del claims[where]
    return dist, claims


class _Installed:
    """Where the files of a package are in an environment, given their paths in the package."""

    def __init__(self, files: list[str]) -> None:
        self._files = set(files)
        below = (file.partition(_SITE_PACKAGES)[0] for file in files if _SITE_PACKAGES in file)
        self._site_packages = next(below, "") + _SITE_PACKAGES
        self._scripts = "Scripts/" if any(file.startswith("Scripts/") for file in files) else "bin/"

    def __call__(self, path: str) -> str:
        """Return the installed path; that in the package where it is the same, or not known."""
        if path in self._files:
            return path
        if path.startswith(_SITE_PACKAGES):
            return self._site_packages + path[len(_SITE_PACKAGES) :]
        if path.startswith(_SCRIPTS):
            return self._scripts + path[len(_SCRIPTS) :]
        return path
