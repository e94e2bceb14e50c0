"""What the name of a package's archive says: every explicit spec is an address of one."""

from __future__ import annotations

import re
from urllib.parse import unquote

from packaging.utils import (
    InvalidSdistFilename,
    InvalidWheelFilename,
    canonicalize_name,
    parse_sdist_filename,
    parse_wheel_filename,
)

from ..channels import SUBDIR
from ..model import Dist
from .packages import PYPI, Package

_HEX = re.compile(r"[0-9a-fA-F]+\Z")
_SUFFIXES = (".conda", ".tar.bz2")
_MD5, _SHA256 = 32, 64


def conda_archive(url: str, sha256: str = "", md5: str = "", subdir: str = "") -> Package | None:
    """Return the package that a conda archive's address names; None if it names none."""
    address = url.partition("#")[0].partition("?")[0].replace("\\", "/")
    channel, _, file = address.rstrip("/").rpartition("/")
    suffix = next((suffix for suffix in _SUFFIXES if file.endswith(suffix)), None)
    if suffix is None:
        return None
    parts = unquote(file[: -len(suffix)]).rsplit("-", 2)
    if len(parts) != 3 or not all(parts):
        return None
    stem, _, last = channel.rpartition("/")
    if SUBDIR.fullmatch(last):
        subdir, channel = last, stem
    else:
        channel = ""  # a file that somebody downloaded
    name, version, build = parts
    return Package(Dist(name, version, build, subdir, sha256 or md5, channel), None, url, md5)


def pip_archive(url: str, name: str = "", version: str = "", sha256: str = "") -> Package | None:
    """Return the package of a wheel's or a source archive's address, what is given first; None: no name."""
    file = unquote(url.partition("#")[0].partition("?")[0].rstrip("/").rpartition("/")[2])
    tags = ""
    try:
        if file.endswith(".whl"):
            found, number, _, _ = parse_wheel_filename(file)
            tags = "-".join(".".join(sorted(part.split("."))) for part in file[:-4].split("-")[-3:])
        else:
            found, number = parse_sdist_filename(file)
        name, version = name or found, version or str(number)
    except (InvalidWheelFilename, InvalidSdistFilename):
        pass  # a directory, or a repository
    return Package(Dist(canonicalize_name(name), version, tags, PYPI, sha256), None, url) if name else None


def digests(text: str) -> tuple[str, str] | None:
    """Return (sha256, md5) of what stands behind ``#`` in an explicit spec; None if it is neither."""
    digest = text.removeprefix("sha256:").removeprefix("md5:").lower()
    if not _HEX.match(digest) or len(digest) not in (_MD5, _SHA256):
        return None
    return (digest, "") if len(digest) == _SHA256 else ("", digest)
