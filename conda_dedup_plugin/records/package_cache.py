"""Package caches: ``info/paths.json`` of every extracted package, the same for conda, mamba and rattler.

conda and mamba add ``info/repodata_record.json``; in a rattler cache there is none, so neither the digest of
the archive nor the channel is known.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from ..model import Claim, Dist
from .reading import RecordError, Records, below_root, decode, read_file, sha256_of

T = TypeVar("T")


class _Path(msgspec.Struct, gc=False):
    path: str = msgspec.field(name="_path")
    path_type: str | None = None
    sha256: str | None = None
    size_in_bytes: int | None = None
    no_link: bool | None = None


class _Paths(msgspec.Struct, gc=False):
    paths: list[_Path] = []


class _Index(msgspec.Struct, gc=False):
    name: str
    version: str
    build: str = ""
    subdir: str | None = None


class _Repodata(msgspec.Struct, gc=False):
    subdir: str | None = None
    sha256: str | None = None
    md5: str | None = None
    channel: Any = None


_PATHS = msgspec.json.Decoder(_Paths)
_INDEX = msgspec.json.Decoder(_Index)
_REPODATA = msgspec.json.Decoder(_Repodata)


def read_cache(root: str) -> Records:
    """Return what the records of every package in the cache at ``root`` say, by path in the cache."""
    records = Records()
    merged = records.claims
    for name in _package_names(root):
        try:
            _, claims = _read(f"{root}/{name}", records.warnings)
        except RecordError as exc:
            records.warnings.append(str(exc))
            continue
        except MemoryError:
            records.warnings.append(f"{root + '/' + name!r} is too big to be read.")
            continue
        for path, claim in claims.items():
            merged[f"{name}/{path}"] = claim
    return records


def package_dirs(cache: str) -> dict[str, Path]:
    """Return the extracted packages of a cache by the name of their directory.

    Empty if there are none or they cannot be listed (the walk of the cache tells).
    """
    return {name: Path(cache, name) for name in _package_names(cache)}


def _package_names(cache: str) -> list[str]:
    try:
        with os.scandir(cache) as entries:
            names = sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
    except OSError:
        return []
    return [name for name in names if os.path.lexists(f"{cache}/{name}/info/index.json")]


def read_package(directory: Path) -> tuple[Dist, dict[str, Claim]]:
    """Read one extracted package: its dist, and its claims by path in the package, none for ``info/``.

    RecordError: its records cannot be read.
    """
    return _read(os.fspath(directory), [])


def _read(directory: str, warnings: list[str]) -> tuple[Dist, dict[str, Claim]]:
    index = decode(f"{directory}/info/index.json", _INDEX)
    repodata = _if_there(f"{directory}/info/repodata_record.json", _REPODATA) or _Repodata()
    dist = Dist(
        index.name,
        index.version,
        index.build,
        repodata.subdir or index.subdir or "",
        repodata.sha256 or repodata.md5 or "",
        repodata.channel if isinstance(repodata.channel, str) else "",
    )
    paths = _if_there(f"{directory}/info/paths.json", _PATHS)
    claims = _legacy(directory, dist) if paths is None else _claims(paths.paths, dist)
    claims, dropped = below_root(claims)
    if dropped:
        warnings.append(f"{directory!r} names {dropped} paths outside the package, which are left out.")
    return dist, claims


def _if_there(path: str, decoder: msgspec.json.Decoder[T]) -> T | None:
    return decode(path, decoder) if os.path.lexists(path) else None


def _claims(paths: list[_Path], dist: Dist) -> dict[str, Claim]:
    claims: dict[str, Claim] = {}
    for said in paths:
        path = said.path
        if said.path_type in ("softlink", "directory") or path.startswith("info/"):
            continue
        size = said.size_in_bytes
        if size is None or size < 0:
            size = -1
        # a file with a placeholder is the original here: patched is what stands in an environment
        claims[path] = Claim(dist, path, sha256_of(said.sha256), size, False, said.no_link is True)
    return claims


def _legacy(directory: str, dist: Dist) -> dict[str, Claim]:
    """What a package without ``paths.json`` says: its files, and which must not be linked."""

    def lines(name: str) -> list[str]:
        path = f"{directory}/info/{name}"
        if not os.path.lexists(path):
            return []
        text = read_file(path).decode("utf-8", "surrogateescape")
        return [line for line in map(str.strip, text.split("\n")) if line]

    no_link = {*lines("no_link"), *lines("no_softlink")}
    return {
        path: Claim(dist, path, no_link=path in no_link)
        for path in lines("files")
        if not path.startswith("info/")
    }
