"""A baseline as files that conda reads, and the commands by which environments are made from them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from .channels import channel_name
from .errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from .specs.packages import Package
    from .suggest import Suggestion

_BASELINE = "baseline"
#: What a name of a file is made of.
_ODD = re.compile(r"[^\w.+-]+")


class Written(Struct, frozen=True):
    """The files of one baseline, and the commands, in their order, that make environments of them."""

    files: tuple[str, ...]
    commands: tuple[str, ...]


def write_baselines(
    suggestions: Sequence[Suggestion], directory: str, builds: bool, taken: Collection[str] = ()
) -> list[Written]:
    """Write each baseline into ``directory``, or directories of their own there if there are several.

    ``builds``: whether files tell builds too, which other platforms do not have; ``taken`` are names of
    environments. UsageError: something is there already, or nothing can be written.
    """
    names = set(taken)
    written = []
    for number, suggestion in enumerate(suggestions, 1):
        folder = Path(directory) / f"cluster-{number}" if len(suggestions) > 1 else Path(directory)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            written.append(_write(suggestion, folder.resolve(), builds, names))
        except FileExistsError as exc:
            raise UsageError(
                f"{str(exc.filename)!r} is there already.", "Nothing is overwritten: name another directory."
            ) from exc
        except OSError as exc:
            raise UsageError(
                f"{str(exc.filename)!r} cannot be written: {exc.strerror}.",
                "Name a directory that you may write to: --write DIR.",
            ) from exc
    return written


def _write(suggestion: Suggestion, folder: Path, builds: bool, taken: set[str]) -> Written:
    packages = [package for member in suggestion.members for package in member.packages]
    channels = list(dict.fromkeys(filter(None, map(_channel, packages))))
    baseline = _free(_BASELINE, taken)
    path = folder / f"{_BASELINE}.yml"
    _write_yaml(path, baseline, channels, suggestion.common, builds)
    files = [path]
    commands = [f"conda env create --name {baseline} --file {shlex.quote(str(path))}"]
    stems = {_BASELINE}
    for member, adds in zip(suggestion.members, suggestion.adds, strict=True):
        stem = _free(_ODD.sub("-", member.name).lstrip(".-") or "env", stems)
        name = _free(f"{stem}-new", taken)
        commands.append(f"conda create --name {name} --clone {baseline}")
        path = folder / f"{stem}.yml"
        _write_yaml(path, name, channels, adds, builds)
        files.append(path)
        lines = [_spec(package, channels, builds) for package in adds if not package.is_pip]
        if lines:
            text = folder / f"{stem}.txt"
            with text.open("x", encoding="utf-8") as stream:
                stream.write("".join(f"{line}\n" for line in lines))
            files.append(text)
            commands.append(
                f"conda install --name {name} {_options(channels)}--file {shlex.quote(str(text))}"
            )
        if any(package.is_pip for package in adds):
            commands.append(f"conda env update --name {name} --file {shlex.quote(str(path))}")
    return Written(tuple(map(str, files)), tuple(commands))


def _write_yaml(
    path: Path, name: str, channels: list[str], packages: Iterable[Package], builds: bool
) -> None:
    from ruamel.yaml import YAML

    packages = list(packages)
    dependencies: list[Any] = [_spec(one, channels, builds) for one in packages if not one.is_pip]
    pip = [f"{one.dist.name}=={one.dist.version}" for one in packages if one.is_pip]
    if pip:
        # conda wants pip among what it installs, even where that is there already
        if not any(one.dist.name == "pip" and not one.is_pip for one in packages):
            dependencies.append("pip")
        dependencies.append({"pip": pip})
    document: dict[str, Any] = {"name": name}
    if channels:
        document["channels"] = channels
    document["dependencies"] = dependencies
    yaml = YAML()
    yaml.default_flow_style = False
    yaml.width = 1 << 16
    yaml.indent(mapping=2, sequence=4, offset=2)
    with path.open("x", encoding="utf-8") as stream:
        yaml.dump(document, stream)


def _spec(package: Package, channels: Collection[str], builds: bool) -> str:
    dist = package.dist
    channel = _channel(package)
    # where there is one channel, nothing needs to be said; what a URL has in it, not every reader takes
    said = f"{channel}::" if len(channels) > 1 and channel and "://" not in channel else ""
    build = f"={dist.build}" if builds and dist.build else ""
    return f"{said}{dist.name}={dist.version}{build}"


def _channel(package: Package) -> str:
    return "" if package.is_pip else channel_name(package.dist.channel)


def _options(channels: Iterable[str]) -> str:
    return "".join(f"--channel {shlex.quote(channel)} " for channel in channels)


def _free(name: str, taken: set[str]) -> str:
    """Return the name, or the first of NAME-2, NAME-3 … that is not taken yet; it is now."""
    found, number = name, 1
    while found in taken:
        number += 1
        found = f"{name}-{number}"
    taken.add(found)
    return found
