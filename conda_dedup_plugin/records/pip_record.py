"""``*.dist-info/RECORD``: what pip (or uv) says of the wheels it installed."""

from __future__ import annotations

import binascii
import csv
import io
import math
import os
import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING

from ..model import Claim, Dist
from ..sites import directories, site_packages
from .reading import Known, Memo, RecordError, Records, below_root, read_file

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

_SUFFIX = ".dist-info"
#: A RECORD with any of these is no mere list of lines with commas.
_ODD = ('"', "\r", "\0")
_SEPARATORS = re.compile(r"[-_.]+")
#: No wheel has more tags; a file that says so may mean billions.
_MOST_TAGS = 1000


def read_wheels(root: str, owned: Mapping[str, Claim], memo: Memo | None = None) -> Records:
    """Return what pip says of the environment at ``root``, by path in it.

    ``owned`` are conda's claims: a wheel whose RECORD is among them, or whose INSTALLER is conda, is
    conda's and left out.
    """
    records = Records()
    for directory in _dist_info_directories(root):
        path = f"{directory}/RECORD"
        if _below(path, root) in owned or not os.path.lexists(path) or _is_condas(directory):
            continue
        records.claims.update(read_wheel(path, root, records.warnings, memo))
    return records


def read_wheel(path: str, root: str, warnings: list[str], memo: Memo | None = None) -> dict[str, Claim]:
    """Return the claims of one RECORD by path below ``root``; none, and a warning, if it is damaged."""
    try:
        return _read(path, root, warnings, memo)[1]
    except RecordError as exc:
        warnings.append(str(exc))
    except MemoryError:
        warnings.append(f"{path!r} is too big to be read.")
    return {}


def read_packages(prefix: str, owned: Collection[str]) -> Iterator[tuple[Dist, int | None]]:
    """Yield every wheel of an environment and the bytes of its files, None where nobody wrote them down.

    ``owned`` are the paths of the RECORD files that conda brought: those, and whose INSTALLER is conda,
    are conda's and left out. Of what is damaged, or without a RECORD, the name says what it is.
    """
    for directory in _dist_info_directories(prefix):
        path = f"{directory}/RECORD"
        if _below(path, prefix) in owned or _is_condas(directory):
            continue
        sizes = []
        try:
            if os.path.lexists(path):
                dist, claims = _read(path, prefix, [])
                sizes = [claim.size for claim in claims.values() if claim.size >= 0]
            else:
                dist = Dist(*_name_version(directory), _tags(directory, []), "pypi", "")
        except (RecordError, MemoryError):
            dist = Dist(*name_version(directory), "", "pypi", "")
        yield dist, sum(sizes) if sizes else None


def _is_condas(directory: str) -> bool:
    path = f"{directory}/INSTALLER"
    try:
        return os.path.lexists(path) and read_file(path).strip() == b"conda"
    except RecordError:
        return False


def dist_infos(prefix: str) -> dict[tuple[str, str], Path]:
    """Return the RECORD of every wheel by (PEP 503 name, version), going by the directories' names alone.

    Conda's own are among them, and a RECORD may be missing.
    """
    found = {}
    for directory in _dist_info_directories(prefix):
        found[name_version(directory)] = Path(directory, "RECORD")
    return found


def _dist_info_directories(prefix: str) -> Iterator[str]:
    for directory in site_packages(prefix):
        yield from dist_info_directories(directory)


def dist_info_directories(directory: str) -> list[str]:
    """Return the ``*.dist-info`` directories in a directory."""
    return [f"{directory}/{name}" for name in directories(directory) if name.endswith(_SUFFIX)]


def name_version(directory: str) -> tuple[str, str]:
    """Return what a directory is named after; the version is "" if the name does not say."""
    stem = os.path.basename(directory)[: -len(_SUFFIX)]
    name, version = stem.rsplit("-", 1) if "-" in stem else (stem, "")
    return _canonical(name), version


def _canonical(name: str) -> str:
    """Return a name as PEP 503 has it."""
    return _SEPARATORS.sub("-", name).lower()


def _name_version(directory: str) -> tuple[str, str]:
    """Return what the name of a directory says, else METADATA; RecordError if neither says both."""
    name, version = name_version(directory)
    return (name, version) if name and version else _metadata_name_version(directory)


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
    return _canonical(said["name"]), said["version"]


def _tags(directory: str, warnings: list[str]) -> str:
    """Return what a wheel was built for, as file names of wheels have it; "" if nobody wrote that down."""
    path = f"{directory}/WHEEL"
    if not os.path.lexists(path):
        return ""
    try:
        text = read_file(path).decode("utf-8", "replace")
    except RecordError as exc:
        warnings.append(str(exc))
        return ""
    said = [line[4:].strip() for line in text.splitlines() if line[:4].lower() == "tag:"]
    if sum(math.prod(part.count(".") + 1 for part in tag.split("-")) for tag in said) > _MOST_TAGS:
        return ""
    from packaging.tags import parse_tag  # what has no WHEEL file needs none

    try:
        tags = {tag for line in said for tag in parse_tag(line)}
    except ValueError:
        return ""
    split = [(tag.interpreter, tag.abi, tag.platform) for tag in tags]
    parts = [sorted(set(part)) for part in zip(*split, strict=True)]
    if len(tags) == math.prod(map(len, parts)):
        return "-".join(".".join(part) for part in parts)
    return ",".join(sorted(map(str, tags)))


def read_pip_record(record: Path, prefix: str) -> tuple[Dist, dict[str, Claim]]:
    """Read one RECORD: its dist, and its claims by path in the environment, those below it alone.

    RecordError: it cannot be read.
    """
    return _read(os.fspath(record), prefix, [])


def _below(path: str, prefix: str) -> str:
    return path[len(prefix.rstrip(os.sep)) + 1 :].replace(os.sep, "/")


def _read(
    path: str, prefix: str, warnings: list[str], memo: Memo | None = None
) -> tuple[Dist, dict[str, Claim]]:
    directory = os.path.dirname(path)
    name, version = _name_version(directory)
    dist = Dist(name, version, _tags(directory, warnings), "pypi", "")
    base = _below(f"{os.path.dirname(directory)}/", prefix)
    text = read_file(path).decode("utf-8", "surrogateescape")
    claims: dict[str, Claim] = {}
    absolute = 0
    lines = text.split("\n")
    known = Known({})
    is_odd = any(odd in text for odd in _ODD) or max(map(len, lines)) > csv.field_size_limit()
    if is_odd:
        try:
            rows: Iterable[list[str]] = list(csv.reader(io.StringIO(text, newline="")))
        except csv.Error as exc:
            raise RecordError(f"{path!r} is damaged: {exc}.") from exc
    else:
        # what another environment has the same line for is known; as a rule that is all but the scripts
        known = (memo.find((dist, base)) if memo is not None else None) or Known({})
        claims = {claim.path: claim for claim in map(known.claims.get, lines) if claim is not None}
        rows = [line.split(",") for line in lines if line not in known.claims]
    for row in rows:
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
        claims[where] = known.claims[",".join(row)] = Claim(dist, where, digest, size, False, False, True)
    if memo is not None and not is_odd:
        memo.keep((dist, base), known)
    claims, dropped = below_root(claims)
    dropped += absolute
    if dropped:
        warnings.append(f"{path!r} names {dropped} paths outside {prefix!r}, which are left out.")
    return dist, claims


def _digest(text: str) -> bytes | None:
    """Return the raw digest of its URL-safe base64 without padding; None if it is no sha256."""
    try:
        digest = binascii.a2b_base64(text.replace("-", "+").replace("_", "/") + "=")
    except ValueError:
        return None
    return digest if len(digest) == 32 else None
