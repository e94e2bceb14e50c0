"""What condarc files and ``CONDA_*`` variables say, for where there is no conda to ask."""

# Paths are plain strings here, as in Tree.root and in what scandir gives.
# ruff: noqa: PTH100, PTH111, PTH116, PTH117, PTH119, PTH120

from __future__ import annotations

import os
import reprlib
import stat
from typing import TYPE_CHECKING, NamedTuple

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: A condarc file above this many bytes is refused: parsing it would take minutes.
MAX_BYTES = 1 << 20

# conda's SEARCH_PATH (conda/base/constants.py), with micromamba's own files where it reads them.
_SYSTEM = ("/etc/conda", "/var/lib/conda") if os.name != "nt" else ("C:/ProgramData/conda",)
_DIRECTORIES = (*_SYSTEM, "$MAMBA_ROOT_PREFIX", "$CONDA_ROOT", "$XDG_CONFIG_HOME/conda", "~/.config/conda")
_SEARCH_PATH = (
    *(f"{place}/{name}" for place in _DIRECTORIES for name in (".condarc", "condarc", "condarc.d")),
    "~/.conda/.condarc",
    "~/.conda/condarc",
    "~/.conda/condarc.d",
    "~/.condarc",
    "~/.mambarc",
    "$CONDA_PREFIX/.condarc",
    "$CONDA_PREFIX/condarc",
    "$CONDA_PREFIX/condarc.d",
    "$CONDARC",
)
_FILE_NAMES = (".condarc", "condarc", ".mambarc")
_SUFFIXES = (".yml", ".yaml")


class Found(NamedTuple):
    """A value, as it is in the file or variable, and the file's path or the variable's name."""

    value: object
    where: str


class Condarc(Struct, frozen=True):
    """The condarc files that could be read, the most general first, and what went wrong with the others.

    The order is conda's, and so is the merging, but for the flags ``#!final``, ``#!top`` and
    ``#!bottom``, which are ignored. Variables of the environment are more specific than any file.
    """

    files: tuple[tuple[str, Mapping[object, object]], ...] = ()
    warnings: tuple[str, ...] = ()

    def scalar(self, *names: str) -> Found | None:
        """Return the most specific value under one of ``names`` (a name and its aliases)."""
        for name in names:
            variable = f"CONDA_{name.upper()}"
            if variable in os.environ:
                return Found(os.environ[variable], f"${variable}")
        for path, content in reversed(self.files):
            for name in names:
                if name in content:
                    return Found(content[name], path)
        return None

    def plugin(self, name: str) -> Found | None:
        """Return the most specific value of a plugin's setting (``plugins:``, ``CONDA_PLUGINS_...``)."""
        variable = f"CONDA_PLUGINS_{name.upper()}"
        if variable in os.environ:
            return Found(os.environ[variable], f"${variable}")
        for path, content in reversed(self.files):
            plugins = content.get("plugins")
            if isinstance(plugins, dict) and name in plugins:
                return Found(plugins[name], path)
        return None

    def paths(self, *names: str, separator: str) -> tuple[str, ...]:
        """Return the directories listed under ``names``, absolute, each once, the most specific first.

        ``separator`` is what stands between them in a variable of the environment.
        """
        listed: list[object] = []
        for name in names:
            listed += os.environ.get(f"CONDA_{name.upper()}", "").split(separator)
        for _, content in reversed(self.files):
            for name in names:
                value = content.get(name)
                listed += value if isinstance(value, list) else [value]
        texts = (item.strip() for item in listed if isinstance(item, str))
        expanded = (expand(text) for text in texts)
        return tuple(dict.fromkeys(path for path in expanded if path))


def expand(path: str) -> str | None:
    """Return ``path`` absolute, with ``~`` and variables expanded as conda does; None if it is none."""
    try:
        if path and "\0" not in path:
            return os.path.abspath(os.path.expanduser(os.path.expandvars(path)))
    except OSError:  # a relative path, and the working directory is gone
        pass
    return None


def load_condarc() -> Condarc:
    """Read every condarc file in conda's search path; a bad one becomes a warning, never an error."""
    files: dict[str, Mapping[object, object]] = {}
    warnings: list[str] = []
    for path in dict.fromkeys(_candidates(warnings)):
        try:
            files[path] = _parse(path)
        except OSError as exc:
            warnings.append(f"The condarc file {path!r} could not be read: {exc.strerror or exc}.")
        except ValueError as exc:
            warnings.append(f"The condarc file {path!r} is ignored: {exc}.")
    return Condarc(tuple(files.items()), tuple(warnings))


def _candidates(warnings: list[str]) -> Iterator[str]:
    for template in _SEARCH_PATH:
        path = os.path.expanduser(os.path.expandvars(_with_root(template)))
        if not os.path.isabs(path):
            # A variable that is not set, or $CONDARC relative to here; conda takes the latter too.
            if path.startswith("$"):
                continue
            path = expand(path) or path
        try:
            mode = os.stat(path).st_mode
        except (OSError, ValueError):  # not there, or where we may not look: as good as not there
            continue
        if stat.S_ISREG(mode) and (os.path.basename(path) in _FILE_NAMES or path.endswith(_SUFFIXES)):
            yield path
        elif stat.S_ISDIR(mode):
            try:
                with os.scandir(path) as entries:
                    yield from sorted(e.path for e in entries if e.name.endswith(_SUFFIXES) and e.is_file())
            except OSError as exc:
                warnings.append(f"The directory {path!r} could not be read: {exc.strerror or exc}.")


def _with_root(template: str) -> str:
    """Fill in ``$CONDA_ROOT`` where only ``$CONDA_EXE`` is set: activation exports no more than that."""
    executable = os.environ.get("CONDA_EXE", "")
    if "CONDA_ROOT" in os.environ or not os.path.isabs(executable):
        return template
    return template.replace("$CONDA_ROOT", os.path.dirname(os.path.dirname(executable)))


def _parse(path: str) -> Mapping[object, object]:
    """Return the mapping in a file; ValueError, with half a sentence, if there is none."""
    with open(path, "rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ValueError(f"it has more than {MAX_BYTES} bytes")
    from ruamel.yaml import YAML

    try:
        value = YAML(typ="safe", pure=True).load(content.decode("utf-8-sig"))
    except Exception as exc:
        # Not only YAMLError: RecursionError on deep nesting, ValueError on impossible dates, TypeError on
        # unhashable keys. None of them may stop a conda command.
        mark = getattr(exc, "problem_mark", None)
        line = f" in line {mark.line + 1}" if mark is not None else ""
        raise ValueError(f"it is not valid YAML{line} ({type(exc).__name__})") from exc
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ValueError(f"it holds {reprlib.repr(value)} and no mapping")
    return value
