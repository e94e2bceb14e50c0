"""``conda-meta/*.json``: the records of an environment, as conda, mamba and rattler write them.

In a noarch Python package conda's ``_path`` is the path in the package (``site-packages/…``,
``python-scripts/…``) and only ``files`` has the installed one; mamba's and rattler's ``_path`` is the
installed one. conda and mamba write ``sha256_in_prefix`` always, rattler only where it differs from
``sha256``; mamba leaves out ``prefix_placeholder``. The size of a patched file is that before patching
(conda, mamba) or after it (rattler, text files). A file that another package has too is moved aside by
rattler, and ``original_path`` tells where it belongs; conda leaves two records that speak of one path.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

import msgspec

from ..model import Claim, Dist
from .heads import Heading
from .reading import Known, Memo, RecordError, Records, below_root, decode, decode_part, sha256_of

if TYPE_CHECKING:
    from pathlib import Path


class _Path(msgspec.Struct, gc=False):
    path: str = msgspec.field(name="_path")
    original_path: str | None = None
    path_type: str | None = None
    sha256: str | None = None
    sha256_in_prefix: str | None = None
    size_in_bytes: int | None = None
    prefix_placeholder: str | None = None
    no_link: bool | None = None


class _PathsData(msgspec.Struct, gc=False):
    paths: list[_Path] = []


_NULL = msgspec.Raw(b"null")


class _Record(Heading, gc=False):
    noarch: Any = None
    files: msgspec.Raw = _NULL
    paths_data: msgspec.Raw = _NULL


_DECODER = msgspec.json.Decoder(_Record)
_FILES = msgspec.json.Decoder(list[str] | None)
_PATHS_DATA = msgspec.json.Decoder(_PathsData | None)
#: What has no content of its own.
_NO_CONTENT = ("softlink", "directory")
#: What is made in the environment: it has no original in a package.
_ENTRY_POINTS = (
    "unix_python_entry_point",
    "windows_python_entry_point_script",
    "windows_python_entry_point_exe",
)
_MADE_HERE = ("pyc_file", *_ENTRY_POINTS)
#: The directories of a noarch Python package whose files are installed elsewhere.
_SITE_PACKAGES = "site-packages/"
_SCRIPTS = "python-scripts/"
_INSTALLED_SITE_PACKAGES = re.compile(r"(?:lib/[^/]+|Lib)/site-packages/")
#: Scripts but not ``bin/.name-post-link.sh``.
_INSTALLED_SCRIPTS = re.compile(r"(?:bin|Scripts)/(?!\.)")


def read_environment(root: str, memo: Memo | None = None) -> Records:
    """Return what every record of the environment at ``root`` says, by installed path.

    Where two packages have the same path nobody wrote down whose file is there now: such a claim has
    no digest.
    """
    records = Records()
    merged = records.claims
    for path in _record_files(root).values():
        try:
            _, claims = _read(path, records.warnings, memo)
        except RecordError as exc:
            records.warnings.append(str(exc))
            continue
        except MemoryError:
            records.warnings.append(f"{path!r} is too big to be read.")
            continue
        agreed = {both: _of_two(merged[both], claims[both]) for both in merged.keys() & claims.keys()}
        merged.update(claims)
        merged.update(agreed)
    return records


def _of_two(one: Claim, other: Claim) -> Claim:
    """What is sure of a path that two records speak of."""
    agreed = other if one.sha256 == other.sha256 else other._replace(sha256=None, size=-1)
    return agreed._replace(prefixed=one.prefixed or other.prefixed, no_link=one.no_link or other.no_link)


def read_dists(prefix: str) -> dict[str, Path]:
    """Return the record files of an environment by name-version-build, without reading them.

    Empty if there are none or they cannot be listed (the walk of the environment tells).
    """
    from pathlib import Path

    return {stem: Path(path) for stem, path in _record_files(prefix).items()}


def _record_files(prefix: str) -> dict[str, str]:
    directory = f"{prefix}/conda-meta"
    try:
        with os.scandir(directory) as entries:
            names = sorted(entry.name for entry in entries)
    except OSError:
        return {}
    return {name[:-5]: f"{directory}/{name}" for name in names if name.endswith(".json") and name[0] != "."}


def read_record(path: Path) -> tuple[Dist, dict[str, Claim]]:
    """Read one record: its dist, and its claims by installed path, those below the prefix alone.

    ``Claim.path`` is the path in the package, which is where a package cache has the original, or the
    installed path of what was made in the environment. RecordError: it cannot be read.
    """
    return _read(os.fspath(path), [])


def _read(path: str, warnings: list[str], memo: Memo | None = None) -> tuple[Dist, dict[str, Claim]]:
    """Read a record; with a memo the claims may be those of another environment, and not to be changed."""
    record = decode(path, _DECODER)
    dist = record.dist
    python = _is_python(record.noarch)
    said = (dist, python, bytes(record.paths_data), bytes(record.files))
    key = hash(said), len(said[2])
    known = None if memo is None else memo.find(key)
    if known is None:
        paths_data = decode_part(path, said[2], _PATHS_DATA)
        files = decode_part(path, said[3], _FILES) or []
        known = Known(*below_root(_claims(dist, python, files, paths_data.paths if paths_data else [])))
        if memo is not None:
            memo.keep(key, known)
    claims, dropped = known
    if dropped:
        warnings.append(f"{path!r} names {dropped} paths outside its environment, which are left out.")
    return dist, claims


def _claims(dist: Dist, python: bool, files: list[str], paths: list[_Path]) -> dict[str, Claim]:
    """Return what a record says, by installed path; ``python``: of a noarch Python package."""
    claims: dict[str, Claim] = {}
    no_content = set()
    places = _Places(files, paths) if paths and python else None
    for said in paths:
        where = source = said.path
        kind = said.path_type
        if places is not None:
            where, source = places(said)
        elif said.original_path is not None:
            source = said.original_path
        if kind in _NO_CONTENT:
            no_content.add(where)
            continue
        digest = said.sha256
        in_prefix = said.sha256_in_prefix
        prefixed = (
            bool(said.prefix_placeholder)
            or (in_prefix is not None and digest is not None and in_prefix != digest)
            or kind in _ENTRY_POINTS
        )
        size = said.size_in_bytes
        if prefixed or size is None or size < 0:
            size = -1
        claims[where] = Claim(
            dist, source, sha256_of(in_prefix or digest), size, prefixed, said.no_link is True
        )
    for where in files:
        if where not in claims and where not in no_content:
            # older records know no more than this: any of these may be patched, but for bytecode
            claims[where] = Claim(dist, where, prefixed=not where.endswith(".pyc"))
    return claims


class _Places:
    """Where the files of a noarch Python package are in the environment, and where in the package."""

    def __init__(self, files: list[str], paths: list[_Path]) -> None:
        self._files = set(files)
        moved = [
            said.path
            for said in paths
            if said.path.startswith((_SITE_PACKAGES, _SCRIPTS)) and said.path not in self._files
        ]
        #: The paths are those in the package: this is conda's dialect.
        self._in_package = bool(moved)
        self._site_packages = self._scripts = ""
        if moved:
            own = {said.path for said in paths}
            self._site_packages = _site_packages([file for file in files if file not in own], moved)
            windows = any("Scripts/" + path[len(_SCRIPTS) :] in self._files for path in moved)
            self._scripts = "Scripts/" if windows else "bin/"

    def __call__(self, said: _Path) -> tuple[str, str]:
        """Return the installed path and the path in the package; of what was made here, the first twice."""
        path = said.path
        if said.path_type in _MADE_HERE:
            return path, path
        if self._in_package:
            if path.startswith(_SITE_PACKAGES) and path not in self._files:
                return self._site_packages + path[len(_SITE_PACKAGES) :], path
            if path.startswith(_SCRIPTS) and path not in self._files:
                return self._scripts + path[len(_SCRIPTS) :], path
            return path, path
        source = said.original_path or path
        if found := _INSTALLED_SITE_PACKAGES.match(source):
            return path, _SITE_PACKAGES + source[found.end() :]
        if found := _INSTALLED_SCRIPTS.match(source):
            return path, _SCRIPTS + source[found.end() :]
        return path, source


def _site_packages(installed: list[str], sources: list[str]) -> str:
    """Return the site-packages directory, with its slash, that a package's files went to."""
    source = next((path for path in sources if path.startswith(_SITE_PACKAGES)), "/")
    below = len(source) - len(_SITE_PACKAGES)
    return next((path[:-below] for path in installed if path.endswith("/" + source)), _SITE_PACKAGES)


def _is_python(noarch: object) -> bool:
    return (noarch.get("type") if isinstance(noarch, dict) else noarch) == "python"
