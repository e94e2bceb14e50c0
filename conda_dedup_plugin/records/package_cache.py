"""Package caches: ``info/paths.json`` of every extracted package, the same for conda and rattler."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec

from ..model import Claim, Dist
from .reading import RecordError, Records, decode, is_inside, read_file, sha256_of


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
    for name, directory in package_dirs(root).items():
        try:
            _, claims = _read(str(directory), records.warnings)
        except RecordError as exc:
            records.warnings.append(str(exc))
            continue
        for path, claim in claims.items():
            records.claims[f"{name}/{path}"] = claim
    return records


def package_dirs(cache: str) -> dict[str, Path]:
    """Return the extracted packages of a cache by the name of their directory."""
    found = {}
    try:
        with os.scandir(cache) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False) and os.path.lexists(f"{entry.path}/info/index.json"):
                    found[entry.name] = Path(entry.path)
    except OSError:
        pass
    return found


def read_package(directory: Path) -> tuple[Dist, dict[str, Claim]]:
    """Read one extracted package: its dist, and its claims by path in the package.

    RecordError: its records cannot be read.
    """
    return _read(str(directory), [])


def _read(directory: str, warnings: list[str]) -> tuple[Dist, dict[str, Claim]]:
    index = decode(f"{directory}/info/index.json", _INDEX)
    repodata = _Repodata()
    if os.path.lexists(f"{directory}/info/repodata_record.json"):
        repodata = decode(f"{directory}/info/repodata_record.json", _REPODATA)
    dist = Dist(
        index.name,
        index.version,
        index.build,
        repodata.subdir or index.subdir or "",
        repodata.sha256 or repodata.md5 or "",
        repodata.channel if isinstance(repodata.channel, str) else "",
    )
    if os.path.lexists(f"{directory}/info/paths.json"):
        claims = {
            said.path: Claim(
                dist,
                said.path,
                sha256_of(said.sha256),
                -1 if said.size_in_bytes is None else said.size_in_bytes,
                no_link=bool(said.no_link),
            )
            for said in decode(f"{directory}/info/paths.json", _PATHS).paths
            if said.path_type not in ("softlink", "directory")
        }
    else:
        claims = _legacy(directory, dist)
    outside = [path for path in claims if not is_inside(path)]
    if outside:
        warnings.append(f"{directory!r} names {len(outside)} paths outside the package, which are left out.")
        for path in outside:
            del claims[path]
    return dist, claims


def _legacy(directory: str, dist: Dist) -> dict[str, Claim]:
    """What a package without ``paths.json`` says: its files, and which must not be linked."""

    def lines(name: str) -> list[str]:
        if not os.path.lexists(f"{directory}/info/{name}"):
            return []
        text = read_file(f"{directory}/info/{name}").decode("utf-8", "surrogateescape")
        return [line.strip() for line in text.splitlines() if line.strip()]

    no_link = set(lines("no_link"))
    return {path: Claim(dist, path, no_link=path in no_link) for path in lines("files")}
