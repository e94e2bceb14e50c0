"""Which channel every installed package is from, as its record says."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

import msgspec

from .records.conda_meta import read_dists
from .records.pip_record import dist_infos
from .records.reading import RecordError, decode, read_file

if TYPE_CHECKING:
    from pathlib import Path

DEFAULTS, FORGE, PYPI = "defaults", "conda-forge", "pypi"
_SUBDIR = re.compile(r"noarch|(linux|osx|win|emscripten|wasi|freebsd|zos)-\w+")
_TOKEN = re.compile(r"^/t/[^/]+")
#: Parts of ``defaults``, by the last two components of their URL or their name.
_DEFAULTS = re.compile(r"(.*/)?pkgs/(main|r|free|pro|msys2|archive|mro)|defaults|main|anaconda")
_HOSTS = ("conda.anaconda.org", "repo.anaconda.com", "repo.continuum.io")


class _Record(msgspec.Struct, gc=False):
    name: str
    version: str
    build: str = ""
    channel: Any = None
    url: str | None = None
    files: list[str] | None = None


_DECODER = msgspec.json.Decoder(_Record)


class Installed(NamedTuple):
    """A package of an environment.

    ``channel`` is what people call its channel, ``location`` what conda finds that by.
    """

    name: str
    version: str
    build: str
    channel: str
    location: str

    @property
    def spec(self) -> str:
        """What names this very build."""
        return "=".join(filter(None, (self.name, self.version, self.build)))


def channel_of(channel: str) -> tuple[str, str]:
    """Return what people call a channel, and what conda finds it by (no password, no token, no subdir)."""
    text = channel.rstrip("/")
    if "://" not in text:
        name = text.rpartition("/")[0] if _SUBDIR.fullmatch(text.rpartition("/")[2]) else text
        name = DEFAULTS if _DEFAULTS.fullmatch(name) else name
        return ("", "") if name in ("", "<unknown>", "@") else (name, name)
    try:
        url = urlsplit(text)
    except ValueError:
        return "", ""
    path = _TOKEN.sub("", url.path)
    if _SUBDIR.fullmatch(path.rpartition("/")[2]):
        path = path.rpartition("/")[0]
    host = url.netloc.rpartition("@")[2]
    location = f"{url.scheme}://{host}{path}"
    name = path.strip("/")
    if _DEFAULTS.fullmatch(name) and (host in _HOSTS or "/" in name):
        return DEFAULTS, DEFAULTS if host in _HOSTS else location
    if host in _HOSTS:
        return name, name
    return (FORGE if name.rpartition("/")[2] == FORGE else location), location


def installed(prefix: str) -> tuple[list[Installed], list[Installed]]:
    """Return what conda and what pip installed in an environment, as far as its records can be read."""
    conda = []
    owned: set[str] = set()
    for path in read_dists(prefix).values():
        try:
            record = decode(os.fspath(path), _DECODER)
        except RecordError:
            continue
        said = record.channel if isinstance(record.channel, str) else ""
        if "://" not in said and record.url and "://" in record.url:
            said = record.url.rpartition("/")[0]
        conda.append(Installed(record.name, record.version, record.build, *channel_of(said)))
        owned.update(file for file in record.files or () if file.endswith(".dist-info/RECORD"))
    pip = [
        Installed(name, version, "", PYPI, "")
        for (name, version), path in dist_infos(prefix).items()
        if os.path.relpath(path, prefix) not in owned and not _is_condas(path)
    ]
    return conda, pip


def _is_condas(record: Path) -> bool:
    """Whether conda put a wheel there; or nobody says that it is one."""
    try:
        return not record.exists() or read_file(f"{record.parent}/INSTALLER").strip() == b"conda"
    except (OSError, RecordError):
        return False
