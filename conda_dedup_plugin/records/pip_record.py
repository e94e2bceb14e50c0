"""``*.dist-info/RECORD``: what pip (or uv) says of the wheels it installed."""

from __future__ import annotations

import base64
import binascii
import csv
import io
import os
import posixpath
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.utils import canonicalize_name

from ..model import Claim, Dist
from .reading import RecordError, Records, is_inside, read_file

if TYPE_CHECKING:
    from collections.abc import Iterator

_SUFFIX = ".dist-info"


def read_wheels(root: str, owned: dict[str, Claim]) -> Records:
    """Return what pip says of the environment at ``root``, by path in it.

    ``owned`` are conda's claims: a wheel whose RECORD conda installed is conda's.
    """
    records = Records()
    for directory in _dist_info_directories(root):
        path = f"{directory}/RECORD"
        if path[len(root) + 1 :].replace(os.sep, "/") in owned or not os.path.lexists(path):
            continue
        try:
            _, claims = _read(path, root, records.warnings)
        except RecordError as exc:
            records.warnings.append(str(exc))
            continue
        records.claims.update(claims)
    return records


def site_packages(prefix: str) -> list[str]:
    """Return the site-packages directories of an environment that exist."""
    found = [f"{prefix}/Lib/site-packages"]
    try:
        with os.scandir(f"{prefix}/lib") as entries:
            names = sorted(entry.name for entry in entries)
    except OSError:
        names = []
    found += [f"{prefix}/lib/{name}/site-packages" for name in names if name.startswith(("python", "pypy"))]
    # lib and Lib are one on some systems, and lib/python3.1 may be a link to lib/python3.11
    unique = {os.path.realpath(path): path for path in reversed(found) if os.path.isdir(path)}
    return sorted(unique.values())


def dist_infos(prefix: str) -> dict[tuple[str, str], Path]:
    """Return the RECORD of every wheel in an environment by (PEP 503 name, version), without reading them."""
    found = {}
    for directory in _dist_info_directories(prefix):
        name, version = _name_version(directory)
        found[(name, version)] = Path(directory, "RECORD")
    return found


def _dist_info_directories(prefix: str) -> Iterator[str]:
    for directory in site_packages(prefix):
        try:
            with os.scandir(directory) as entries:
                names = sorted(entry.name for entry in entries if entry.name.endswith(_SUFFIX))
        except OSError:
            continue
        for name in names:
            yield f"{directory}/{name}"


def _name_version(directory: str) -> tuple[str, str]:
    name, _, version = os.path.basename(directory)[: -len(_SUFFIX)].partition("-")
    return canonicalize_name(name), version


def read_pip_record(record: Path, prefix: str) -> tuple[Dist, dict[str, Claim]]:
    """Read one RECORD: its dist, and its claims by path in the environment.

    RecordError: it cannot be read.
    """
    return _read(str(record), prefix, [])


def _read(path: str, prefix: str, warnings: list[str]) -> tuple[Dist, dict[str, Claim]]:
    directory = os.path.dirname(path)
    name, version = _name_version(directory)
    dist = Dist(name, version, "", "pypi", "")
    base = os.path.dirname(directory)[len(prefix) + 1 :].replace(os.sep, "/")
    text = read_file(path).decode("utf-8", "surrogateescape")
    claims = {}
    outside = 0
    try:
        for row in csv.reader(io.StringIO(text, newline="")):
            if not row or not row[0]:
                continue
            where = posixpath.normpath(f"{base}/{row[0]}") if "\0" not in row[0] else ""
            if row[0].startswith("/") or not is_inside(where):
                outside += 1
                continue
            digest = _digest(row[1]) if len(row) > 1 else None
            size = (
                int(row[2])
                if len(row) > 2 and row[2].isascii() and row[2].isdecimal() and len(row[2]) < 19
                else -1
            )
            claims[where] = Claim(dist, where, digest, size, pip=True)
    except csv.Error as exc:
        raise RecordError(f"{path!r} is damaged: {exc}.") from exc
    if outside:
        warnings.append(f"{path!r} names {outside} paths outside its environment, which are left out.")
    return dist, claims


def _digest(text: str) -> bytes | None:
    kind, _, value = text.partition("=")
    if kind != "sha256":
        return None
    try:
        digest = base64.urlsafe_b64decode(value + "=" * (-len(value) % 4))
    except (binascii.Error, ValueError):
        return None
    return digest if len(digest) == 32 else None
