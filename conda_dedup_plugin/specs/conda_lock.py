"""``conda-lock.yml`` of version 1: one list of packages for every platform."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..model import Dist
from .archives import conda_archive, pip_archive
from .document import Value, text_of

if TYPE_CHECKING:
    from .packages import Package

#: ``conda-lock install`` takes these unless told otherwise.
_CATEGORIES = ("main", "dev")


def read_conda_lock(document: Value, platform: str) -> list[Package]:
    """Return the packages for a platform. UsageError: it is broken, or has none for it."""
    top = document.mapping()
    if text_of(top, "version") not in ("", "1"):
        raise top["version"].wrong(f"version {text_of(top, 'version')} of conda-lock files is not known")
    entries = [(entry, entry.mapping()) for entry in top["package"].items()]
    platforms = sorted({text_of(said, "platform") for _, said in entries})
    if entries and platform not in platforms:
        raise top["package"].wrong(
            f"there are no packages for {platform}", f"Add --platform with one of: {', '.join(platforms)}."
        )
    return [
        _package(entry, said)
        for entry, said in entries
        if text_of(said, "platform") == platform and (text_of(said, "category") or "main") in _CATEGORIES
    ]


def _package(entry: Value, said: dict[str, Value]) -> Package:
    name, version, url = (text_of(said, key) for key in ("name", "version", "url"))
    hashes = said["hash"].mapping() if "hash" in said else {}
    sha256, md5 = text_of(hashes, "sha256").lower(), text_of(hashes, "md5").lower()
    if not name:
        raise entry.wrong("this package has no name")
    if text_of(said, "manager") in ("pip", "pypi"):
        found = pip_archive(url, name, version, sha256)
    else:
        found = conda_archive(url, sha256, md5)
        if found is None:
            raise said.get("url", entry).wrong(f"{url!r} is no address of a conda package")
        built = found.dist
        dist = Dist(name, version or built.version, built.build, built.subdir, built.digest, built.channel)
        found = found._replace(dist=dist)
    if found is None:
        raise entry.wrong("this package has no name")
    return found
