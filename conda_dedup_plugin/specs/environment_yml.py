"""``environment.yml``, as people write it and as ``conda env export`` does."""

from __future__ import annotations

import re

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from ..channels import SUBDIR
from ..model import Dist
from .archives import conda_archive, digests, pip_archive
from .document import Value, text_of
from .packages import PYPI, Package

_CONDA = re.compile(r"(?:(?P<channel>[^\[\]]+?)::)?(?P<name>[A-Za-z0-9_][\w.-]*)\s*(?P<rest>.*)\Z", re.S)
_EXACT = re.compile(r"={2,3}\s*([^\s,|*=<>!~]+)\Z")
_KEY = re.compile(r"(\w+)\s*=\s*(?:'([^']*)'|\"([^\"]*)\"|([^,\]]+))")


def read_environment_yml(document: Value, warnings: list[str]) -> tuple[str, list[Package]]:
    """Return the name and the packages of an environment file. UsageError: it is broken."""
    top = document.mapping()
    packages: list[Package] = []
    for entry in top["dependencies"].items() if "dependencies" in top else []:
        if not entry.is_mapping:
            packages.append(_conda(entry))
            continue
        for key, value in entry.mapping().items():
            if key != "pip":
                raise entry.wrong(f"{key!r} is no kind of dependency that is known")
            packages += _pip_section(value, warnings)
    return text_of(top, "name"), packages


def _conda(entry: Value) -> Package:
    text = entry.text().strip()
    if "://" in text.partition("[")[0]:
        url, _, fragment = text.partition("#")
        found = conda_archive(url, *(digests(fragment) or ("", "")))
        if found is not None:
            return found
    said = _CONDA.match(text)
    if said is None:
        raise entry.wrong(f"{text!r} is no spec of a package")
    rest, _, bracket = said["rest"].partition("[")
    keys = {key: a or b or c.strip() for key, a, b, c in _KEY.findall(bracket)}
    version, build = _version_build(rest.strip())
    channel = said["channel"] or keys.get("channel", "")
    subdir = ""
    stem, _, last = channel.rpartition("/")
    if stem and SUBDIR.fullmatch(last):
        channel, subdir = stem, last
    version = keys.get("version", version)
    digest = keys.get("sha256", "") or keys.get("md5", "")
    dist = Dist(
        said["name"], version, keys.get("build", build), keys.get("subdir", subdir), digest.lower(), channel
    )
    return Package(dist, None, keys.get("url", ""), keys.get("md5", "").lower())


def _version_build(rest: str) -> tuple[str, str]:
    """Split what stands behind a name: ``=1.2=py_0``, ``==1.2``, ``>=1,<2``, ``1.2.* py_0``."""
    if exact := _EXACT.match(rest):
        return exact[1], ""
    if rest.startswith("=") and not rest.startswith("=="):
        version, _, build = rest[1:].strip().partition("=")
        if build:
            return version.strip(), build.strip()
        return (f"={version.strip()}" if version.strip() else ""), ""
    words = rest.split()
    if len(words) == 2 and not re.search(r"[<>=!~,|]\Z", words[0]) and not re.match(r"[<>=!~,|]", words[1]):
        return words[0].removeprefix("=="), words[1]
    return "".join(words), ""


def _pip_section(section: Value, warnings: list[str]) -> list[Package]:
    packages = []
    for entry in section.items():
        text = entry.text().strip()
        found = _pip(text)
        if found is not None:
            packages.append(found)
        elif text.startswith("-") or "/" in text or text.startswith("."):
            line = entry.node.start_mark.line + 1
            warnings.append(f"{entry.path!r}, line {line}: {text!r} names no package, and is left out.")
        else:
            raise entry.wrong(f"{text!r} is no requirement of pip")
    return packages


def _pip(text: str) -> Package | None:
    try:
        said = Requirement(re.split(r"\s+(?:#|--hash)", text, maxsplit=1)[0])
    except InvalidRequirement:
        return pip_archive(text) if text.partition("#")[0].endswith(".whl") else None
    if said.url:
        return pip_archive(said.url, said.name)
    clauses = list(said.specifier)
    exact = len(clauses) == 1 and clauses[0].operator in ("==", "===") and "*" not in clauses[0].version
    version = clauses[0].version if exact else str(said.specifier)
    return Package(Dist(canonicalize_name(said.name), version, "", PYPI, ""))
