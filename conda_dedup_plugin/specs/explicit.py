"""``conda list --explicit``, with ``#md5``, ``#sha256:…`` or without."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .archives import conda_archive, digests, pip_archive
from .document import wrong

if TYPE_CHECKING:
    from .packages import Package

MARKER = "@EXPLICIT"
#: conda-lock writes pip's packages so: conda does not see them.
_PIP = "# pip "


def is_explicit(text: str) -> bool:
    """Whether a text has the marker of an explicit list in a line of its own."""
    return any(line.strip() == MARKER for line in text.splitlines())


def read_explicit(path: str, text: str) -> list[Package]:
    """Return the packages of an explicit list. UsageError: a line names none."""
    packages = []
    for number, line in enumerate(text.split("\n"), 1):
        line = line.strip()
        if line.startswith(_PIP):
            packages.append(_pip(path, number, line[len(_PIP) :]))
        elif line and line[0] != "#" and line != MARKER:
            url, _, fragment = line.partition("#")
            found = digests(fragment) if fragment else ("", "")
            if found is None:
                raise wrong(path, number, f"{fragment!r} is neither an md5 nor a sha256")
            package = conda_archive(url.strip(), *found)
            if package is None:
                raise wrong(path, number, f"{url.strip()!r} is no address of a conda package")
            packages.append(package._replace(url=url.strip()))
    return packages


def _pip(path: str, number: int, line: str) -> Package:
    name, _, address = line.partition(" @ ")
    url, _, digest = address.partition(" --hash=sha256:")
    found = pip_archive(url.strip(), name.strip(), "", digest.strip()) if url.strip() else None
    if found is None:
        raise wrong(path, number, f"{line!r} is no address of a wheel")
    return found
