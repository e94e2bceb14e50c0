"""Snapshots: what conda needs to make an environment again, as an explicit spec and as environment.yml."""

from __future__ import annotations

import io
import os
from collections import Counter
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from .channels import without_secrets
from .explicit import Record, place_of, read_installed
from .files import read_regular
from .records.conda_meta import read_dists
from .records.pip_record import dist_infos

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

_ARCHIVES = (".conda", ".tar.bz2")
_ORIGIN_BYTES = 1 << 20
_ANACONDA = "https://conda.anaconda.org/"


class Snapshot(Struct, frozen=True):
    """The contents of both files; ``warnings`` has a sentence for everything that is in neither."""

    prefix: str
    name: str
    explicit: str
    yml: str
    packages: int
    warnings: tuple[str, ...]


class _Origin(msgspec.Struct):
    """``direct_url.json``: where pip had a package from that came from no index."""

    url: str
    vcs_info: dict[str, Any] | None = None
    archive_info: dict[str, Any] | None = None


def take(prefix: str, name: str) -> Snapshot:
    """Read the records of the environment at ``prefix``; of what pip installed, the metadata alone."""
    warnings: list[str] = []
    packages = []
    for stem, path in read_dists(prefix).items():
        package = read_installed(path)
        if package is None:
            warnings.append(f"The record of {stem} is damaged: it is not in the snapshot of env '{name}'.")
        else:
            packages.append(package)
    wheels = list(_wheels(prefix, packages, name, warnings))
    explicit = _explicit(prefix, _in_order(packages), name, warnings)
    return Snapshot(
        prefix, name, explicit, _yml(packages, wheels, name), len(packages) + len(wheels), tuple(warnings)
    )


def _in_order(packages: Sequence[Record]) -> list[Record]:
    """Each after what it depends on, for conda links the packages of such a file as they stand there."""
    by_name = {package.name: package for package in sorted(packages, key=lambda package: package.name)}
    ordered: dict[str, Record] = {}
    seen: set[str] = set()
    for start in by_name:
        waiting = [(start, False)]
        while waiting:
            name, is_ready = waiting.pop()
            if is_ready:
                ordered[name] = by_name[name]
            elif name in by_name and name not in seen:
                seen.add(name)
                waiting.append((name, True))
                needed = {spec.split()[0] for spec in by_name[name].depends if spec.strip()}
                waiting += [(other, False) for other in sorted(needed, reverse=True)]
    return list(ordered.values())


def _explicit(prefix: str, packages: Sequence[Record], name: str, warnings: list[str]) -> str:
    platform = next((one.subdir for one in packages if one.subdir and one.subdir != "noarch"), "noarch")
    lines = [
        "# This file makes the environment again: conda create --name NAME --file FILE",
        f"# platform: {platform}",
        f"# prefix: {_plain(prefix)}",
        "@EXPLICIT",
    ]
    for package in packages:
        url = without_secrets(package.url or "")
        if not url.endswith(_ARCHIVES) or url != _plain(url):
            lines.append(f"# no url: {_plain(package.spec)}")
            warnings.append(f"{package.stem} of env '{name}' has no url: no explicit spec can bring it back.")
        elif package.md5:
            lines.append(f"{url}#{package.md5}")
        else:  # conda took no other digest there for long
            lines += [f"# sha256 of the next: {package.sha256}"] if package.sha256 else []
            lines.append(url)
    return "\n".join(lines) + "\n"


def _yml(packages: Sequence[Record], wheels: Sequence[str], name: str) -> str:
    from ruamel.yaml import YAML

    used = Counter(place_of(package) for package in packages if package.channel)
    channels = [channel.removeprefix(_ANACONDA) for channel, _ in used.most_common()]
    dependencies: list[Any] = sorted(f"{one.name}={one.version}={one.build}" for one in packages)
    if wheels:
        dependencies.append({"pip": sorted(wheels)})
    stream = io.StringIO()
    yaml = YAML()
    yaml.width = 10**6
    yaml.dump({"name": name, "channels": channels, "dependencies": dependencies}, stream)
    return stream.getvalue()


def _wheels(prefix: str, packages: Sequence[Record], name: str, warnings: list[str]) -> Iterator[str]:
    """Yield what pip installed, in pip's words, but for what conda brought."""
    condas = {
        os.path.dirname(file) for package in packages for file in package.files or () if ".dist-info/" in file
    }
    for (wheel, version), record in dist_infos(prefix).items():
        directory = record.parent
        if os.path.relpath(directory, prefix) in condas or not (directory / "METADATA").is_file():
            continue
        origin = _origin(directory)
        if origin is None:
            yield f"{wheel}=={version}" if version else wheel
            continue
        url = without_secrets(origin.url)
        vcs = origin.vcs_info or {}
        if vcs.get("vcs") and vcs.get("commit_id"):
            yield f"{wheel} @ {vcs['vcs']}+{url}@{vcs['commit_id']}"
        elif origin.archive_info is not None:
            yield f"{wheel} @ {url}"
        else:
            yield f"{wheel}=={version}" if version else wheel
            warnings.append(
                f"{wheel} of env '{name}' was installed from {url}: pip would look for it in an index."
            )


def _origin(directory: Path) -> _Origin | None:
    try:
        content = read_regular(os.fspath(directory / "direct_url.json"), _ORIGIN_BYTES)
        return msgspec.json.decode(content, type=_Origin)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def _plain(text: str) -> str:
    """The text on one line."""
    return "".join(character if character.isprintable() else "?" for character in text)
