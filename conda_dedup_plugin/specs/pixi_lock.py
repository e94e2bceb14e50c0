"""``pixi.lock`` of versions 4 to 6: environments name packages by address, which stand below once each."""

from __future__ import annotations

from collections import defaultdict

from ..model import Dist
from .archives import conda_archive, pip_archive
from .document import Value, text_of
from .packages import Package

ENVIRONMENT = "default"
_VERSIONS = ("4", "5", "6")
#: What tells several packages of one address apart (they are built from sources).
_TELLING = ("name", "version", "build", "subdir")

Entry = dict[str, Value]


def read_pixi_lock(document: Value, platform: str) -> list[Package]:
    """Return the default environment's packages for a platform. UsageError: it is broken, or has none."""
    top = document.mapping()
    version = text_of(top, "version")
    if version not in _VERSIONS:
        place = top.get("version", document)
        raise place.wrong(f"version {version or '(none)'} of pixi's lock files is not known")
    environments = top["environments"].mapping()
    if ENVIRONMENT not in environments:
        raise top["environments"].wrong(f"there is no environment {ENVIRONMENT!r}")
    environment = environments[ENVIRONMENT].mapping()
    platforms = environment["packages"].mapping() if "packages" in environment else {}
    if platform not in platforms:
        known = ", ".join(sorted(platforms)) or "none"
        raise environments[ENVIRONMENT].wrong(
            f"there are no packages for {platform}", f"Add --platform with one of: {known}."
        )
    known_entries = _by_address(top["packages"].items() if "packages" in top else [])
    return [_package(reference, known_entries) for reference in platforms[platform].items()]


def _by_address(entries: list[Value]) -> dict[tuple[str, str], list[Entry]]:
    found = defaultdict(list)
    for entry in entries:
        said = entry.mapping()
        found[_address(entry, said)].append(said)
    return found


def _address(entry: Value, said: Entry) -> tuple[str, str]:
    kind = text_of(said, "kind")  # as versions 4 and 5 say it
    if kind:
        return kind, text_of(said, "url") or text_of(said, "path")
    for kind in ("conda", "pypi"):
        if kind in said:
            return kind, said[kind].text()
    raise entry.wrong("this is neither a conda nor a pypi package")


def _package(reference: Value, known: dict[tuple[str, str], list[Entry]]) -> Package:
    asked = reference.mapping()
    kind, address = _address(reference, asked)
    entries = known.get((kind, address), [])
    said = next((entry for entry in entries if _is_meant(asked, entry)), None)
    if said is None:
        raise reference.wrong(f"{address!r} does not stand among the packages")
    name, version, build, subdir = (text_of(said, key) for key in _TELLING)
    sha256, md5 = text_of(said, "sha256").lower(), text_of(said, "md5").lower()
    if kind == "pypi":
        found = pip_archive(address, name, version, sha256)
    else:
        found = conda_archive(address, sha256, md5)
        built = found.dist if found else Dist("", "", "", "", sha256 or md5, "")
        dist = built._replace(
            name=name or built.name,
            version=version or built.version,
            build=build or built.build,
            subdir=subdir or built.subdir,
        )
        found = Package(dist, None, address, md5) if dist.name else None
    if found is None:
        raise reference.wrong(f"{address!r} names no package")
    return found


def _is_meant(asked: Entry, said: Entry) -> bool:
    return all(text_of(asked, key) == text_of(said, key) for key in _TELLING if key in asked)
