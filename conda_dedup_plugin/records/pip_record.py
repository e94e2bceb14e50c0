"""``*.dist-info/RECORD``: what pip (or uv) says of the wheels it installed."""

from __future__ import annotations

import binascii
import csv
import io
import os
import posixpath
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.utils import canonicalize_name

from ..model import Claim, Dist
from .reading import RecordError, Records, below_root, read_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_SUFFIX = ".dist-info"
_PYTHONS = ("python", "pypy")


def read_wheels(root: str, owned: Mapping[str, Claim]) -> Records:
    """Return what pip says of the environment at ``root``, by path in it.

    ``owned`` are conda's claims: a wheel whose RECORD is among them, or whose INSTALLER is conda, is
    conda's and left out.
    """
    records = Records()
    for directory in _dist_info_directories(root):
        path = f"{directory}/RECORD"
        if _below(path, root) in owned or not os.path.lexists(path) or _is_condas(directory):
            continue
        try:
            _, claims = _read(path, root, records.warnings)
        except RecordError as exc:
            records.warnings.append(str(exc))
            continue
        except MemoryError:
            records.warnings.append(f"{path!r} is too big to be read.")
            continue
        records.claims.update(claims)
    return records


def _is_condas(directory: str) -> bool:
    path = f"{directory}/INSTALLER"
    try:
        return os.path.lexists(path) and read_file(path).strip() == b"conda"
    except RecordError:
        return False


def site_packages(prefix: str) -> list[str]:
    """Return the site-packages directories of an environment that exist, none of them through a link.

    Python 3.10 of conda-forge has a link ``lib/python3.1``: what is found through it is known by the
    other path.
    """
    libraries = []
    for name in _directories(prefix):
        if name == "Lib":
            libraries.append(f"{prefix}/Lib")
        elif name == "lib":
            pythons = (python for python in _directories(f"{prefix}/lib") if python.startswith(_PYTHONS))
            libraries += [f"{prefix}/lib/{python}" for python in pythons]
    found = (f"{library}/site-packages" for library in libraries)
    return [path for path in found if os.path.isdir(path) and not os.path.islink(path)]


def _directories(path: str) -> list[str]:
    try:
        with os.scandir(path) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
    except OSError:
        return []


def dist_infos(prefix: str) -> dict[tuple[str, str], Path]:
    """Return the RECORD of every wheel by (PEP 503 name, version), going by the directories' names alone.

    Conda's own are among them, and a RECORD may be missing.
    """
    found = {}
    for directory in _dist_info_directories(prefix):
        found[_name_version(directory)] = Path(directory, "RECORD")
    return found


def _dist_info_directories(prefix: str) -> Iterator[str]:
    for directory in site_packages(prefix):
        for name in _directories(directory):
            if name.endswith(_SUFFIX):
                yield f"{directory}/{name}"


def _name_version(directory: str) -> tuple[str, str]:
    """Return what a directory is named after; the version is "" if the name does not say."""
    stem = os.path.basename(directory)[: -len(_SUFFIX)]
    name, version = stem.rsplit("-", 1) if "-" in stem else (stem, "")
    return canonicalize_name(name), version


def _metadata_name_version(directory: str) -> tuple[str, str]:
    """Return what METADATA says; RecordError if it cannot be read or says neither."""
    path = f"{directory}/METADATA"
    said: dict[str, str] = {}
    for line in read_file(path).decode("utf-8", "replace").splitlines():
        if not line:
            break
        key, _, value = line.partition(":")
        said.setdefault(key.lower(), value.strip())
    if not said.get("name") or not said.get("version"):
        raise RecordError(f"{path!r} is damaged: it has no name and version.")
    return canonicalize_name(said["name"]), said["version"]


def read_pip_record(record: Path, prefix: str) -> tuple[Dist, dict[str, Claim]]:
    """Read one RECORD: its dist, and its claims by path in the environment, those below it alone.

    RecordError: it cannot be read.
    """
    return _read(os.fspath(record), prefix, [])


def _below(path: str, prefix: str) -> str:
    return path[len(prefix.rstrip(os.sep)) + 1 :].replace(os.sep, "/")


def _read(path: str, prefix: str, warnings: list[str]) -> tuple[Dist, dict[str, Claim]]:
    directory = os.path.dirname(path)
    name, version = _name_version(directory)
    if not name or not version:
        name, version = _metadata_name_version(directory)
    dist = Dist(name, version, "", "pypi", "")
    base = _below(os.path.dirname(directory), prefix) + "/"
    text = read_file(path).decode("utf-8", "surrogateescape")
    claims: dict[str, Claim] = {}
    absolute = 0
    try:
        for row in csv.reader(io.StringIO(text, newline="")):
            where = row[0] if row else ""
            if not where:
                continue
            if where[0] == "/" or "\0" in where:
                absolute += 1
                continue
            where = base + where
            if "/../" in where:
                where = posixpath.normpath(where)
            digest = None
            size = -1
            if len(row) > 1 and row[1].startswith("sha256="):
                digest = _digest(row[1][7:])
            if len(row) > 2 and len(row[2]) < 19 and row[2].isascii() and row[2].isdecimal():
                size = int(row[2])
            claims[where] = Claim(dist, where, digest, size, False, False, True)
    except csv.Error as exc:
        raise RecordError(f"{path!r} is damaged: {exc}.") from exc
    claims, dropped = below_root(claims)
    dropped += absolute
    if dropped:
        warnings.append(f"{path!r} names {dropped} paths outside its environment, which are left out.")
    return dist, claims


def _digest(text: str) -> bytes | None:
    """Return the raw digest of its URL-safe base64 without padding; None if it is no sha256."""
    try:
        digest = binascii.a2b_base64(text.replace("-", "+").replace("_", "/") + "=")
    except ValueError:
        return None
    return digest if len(digest) == 32 else None
