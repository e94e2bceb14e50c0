"""A channel with conda in it: of distributions as pip installed them, each a conda package.

What is compiled is good for one Python only, the one that the stub ``python`` of the channel stands for.
"""

from __future__ import annotations

import configparser
import json
import os
import re
import subprocess
import tempfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.markers import default_environment
from packaging.requirements import Requirement

from conda_dedup_plugin.demo.packages import MTIME, Entry, index_channel, make_package
from conda_dedup_plugin.demo.wheels import record
from tests.lab import conda_wheel
from tests.lab.channel import noise, pure_modules

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

#: Of these, the tests make environments.
NATIVE, PURE = "native", "pure-noarch"
NATIVE_FILES = tuple(f"lib/libnative{number}.so" for number in range(6))
NATIVE_SIZE = 256 << 10
#: conda is told to take its classic solver.
_NOT_BUILT = ("conda-libmamba-solver", "conda-rattler-solver", "libmambapy")
_LOCAL = ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json")


@dataclass(frozen=True)
class Interpreter:
    """What a stub has to know of the Python it stands for."""

    home: Path
    version: str
    layers: tuple[str, ...]

    @classmethod
    def of(cls, python: Path) -> Interpreter:
        """Ask the executable ``python``."""
        code = (
            "import json, os, site, sys\n"
            "base = os.path.realpath(getattr(sys, '_base_executable', None) or sys.executable)\n"
            "version = '.'.join(map(str, sys.version_info[:3]))\n"
            "print(json.dumps([base, version, site.getsitepackages()]))"
        )
        home, version, layers = json.loads(conda_wheel.ask(python, code))
        return cls(Path(home), version, tuple(layers))

    @property
    def minor(self) -> str:
        """The version without its last number."""
        return self.version.rpartition(".")[0]

    @property
    def site_packages(self) -> str:
        """Where packages are in an environment of it."""
        return f"lib/python{self.minor}/site-packages"

    @property
    def depends(self) -> str:
        """What a package compiled for it depends on."""
        return f"python {self.minor}.*"


@dataclass(frozen=True)
class BaseChannel:
    """A channel with conda, what it needs, what the plugin needs, and the two packages for environments."""

    folder: Path

    @property
    def url(self) -> str:
        """The channel's URL."""
        return self.folder.resolve().as_uri()

    @property
    def wheels(self) -> Path:
        """No wheels are here."""
        return self.folder / "noarch"


@dataclass(frozen=True)
class _Distribution:
    """An installed distribution as a package to be."""

    name: str
    version: str
    requires: tuple[Requirement, ...]
    files: Mapping[str, bytes]
    info: str

    @property
    def native(self) -> bool:
        """Whether it was compiled for one Python."""
        return any(path.endswith(".so") for path in self.files)


def build_base_channel(folder: Path, below: Path, more: Iterable[Path]) -> None:
    """Make a channel of the conda of the Python ``below`` and of what lies in the directories ``more``."""
    interpreter = Interpreter.of(below)
    _python_package(folder, interpreter)
    natives = {path: noise(900 + number, NATIVE_SIZE) for number, path in enumerate(NATIVE_FILES)}
    elf = b"\x7fELF\x02\x01\x01" + bytes(9)
    make_package(folder, NATIVE, "1.0", "0", {path: elf + data for path, data in natives.items()})
    modules = {f"site-packages/{path}": data for path, data in pure_modules("pure_noarch").items()}
    make_package(folder, PURE, "1.0", "pyh_0", modules, noarch="python", depends=["python"])
    everything = _distributions(list(interpreter.layers))
    condas = _required_by("conda", everything)
    _add(folder, below, [*condas, *_distributions([str(layer) for layer in more])])


def build_channel(folder: Path, python: Path, layers: Iterable[Path]) -> None:
    """Make a channel of the distributions in the directories ``layers``, which are for that ``python``."""
    _add(folder, python, _distributions([str(layer) for layer in layers]))


def _add(folder: Path, python: Path, distributions: list[_Distribution]) -> None:
    interpreter = Interpreter.of(python)
    found = list({(one.name, one.version): one for one in distributions}.values())
    compiled = _compiled(python, [one for one in found if one.native])
    for one in found:
        depends = _depends(one, found, interpreter)
        files = {**one.files, f"{one.info}/INSTALLER": b"conda\n"}
        files[f"{one.info}/METADATA"] = _metadata(one, found, interpreter)
        files |= record(one.info, files)
        if one.native:
            files |= compiled[one.name, one.version]
            build = f"py{interpreter.minor.replace('.', '')}_0"
            placed = {f"{interpreter.site_packages}/{path}": data for path, data in files.items()}
            depends.insert(0, interpreter.depends)
            make_package(folder, one.name, one.version, build, placed, depends=depends)
        else:
            placed = {f"site-packages/{path}": data for path, data in files.items()}
            make_package(
                folder,
                one.name,
                one.version,
                "pyh_0",
                placed,
                noarch="python",
                depends=["python", *depends],
                entry_points=_scripts(one),
            )
    index_channel(folder)


def _distributions(layers: list[str]) -> list[_Distribution]:
    found: dict[tuple[str, str], _Distribution] = {}
    for one in metadata.distributions(path=layers):
        name, files = _name(one.metadata["Name"]), {}
        for file in one.files or ():
            path = file.as_posix()
            local = file.parent.suffix == ".dist-info" and file.name in _LOCAL
            if not (path.startswith(("..", "/")) or path.endswith(".pyc") or local):
                files[path] = Path(str(file.locate())).read_bytes()
        info = next((path.rpartition("/")[0] for path in files if path.endswith(".dist-info/METADATA")), "")
        if info:
            requires = tuple(map(Requirement, one.requires or ()))
            found.setdefault((name, one.version), _Distribution(name, one.version, requires, files, info))
    return list(found.values())


def _required_by(name: str, found: list[_Distribution]) -> list[_Distribution]:
    """The distributions that one needs, it included, less a solver whose library is no distribution."""
    by_name = {one.name: one for one in found if one.name not in _NOT_BUILT}
    needed, new = set(), {name}
    while new:
        needed |= new
        requires = (line for one in new for line in by_name[one].requires)
        new = {_name(line.name) for line in requires} & by_name.keys() - needed
    return [by_name[one] for one in sorted(needed)]


def _depends(one: _Distribution, found: list[_Distribution], interpreter: Interpreter) -> list[str]:
    """What a package depends on: of what its distribution requires, that which is there at all."""
    depends = []
    for required in one.requires:
        if _applies(required, interpreter):
            name = _name(required.name)
            if _is_met(required, found):
                depends.append(f"{name} {required.specifier}".strip())
            elif any(other.name == name for other in found):
                depends.append(name)
    return depends


def _metadata(one: _Distribution, found: list[_Distribution], interpreter: Interpreter) -> bytes:
    """Its METADATA; conda's without what that conda did without before."""
    lines = one.files[f"{one.info}/METADATA"].decode().splitlines(keepends=True)
    if one.name == "conda":
        lines = [line for line in lines if not _is_unmet(line, found, interpreter)]
    return "".join(lines).encode()


def _is_unmet(line: str, found: list[_Distribution], interpreter: Interpreter) -> bool:
    key, _, value = line.partition(": ")
    if key != "Requires-Dist":
        return False
    required = Requirement(value.strip())
    return _applies(required, interpreter) and not _is_met(required, found)


def _applies(required: Requirement, interpreter: Interpreter) -> bool:
    here = {**default_environment(), "python_version": interpreter.minor}
    here |= {"python_full_version": interpreter.version, "extra": ""}
    return required.marker is None or required.marker.evaluate(here)


def _is_met(required: Requirement, found: list[_Distribution]) -> bool:
    versions = (other.version for other in found if other.name == _name(required.name))
    return any(required.specifier.contains(version, prereleases=True) for version in versions)


def _scripts(one: _Distribution) -> list[str]:
    """The commands that come with a distribution; that of conda is as in a base."""
    if one.name == "conda":
        return ["conda = conda.cli.main:main"]
    points = configparser.ConfigParser(delimiters=("=",))
    points.optionxform = str  # type: ignore[assignment, method-assign]
    points.read_string(one.files.get(f"{one.info}/entry_points.txt", b"").decode())
    if not points.has_section("console_scripts"):
        return []
    return [f"{name} = {point}" for name, point in points.items("console_scripts")]


def _name(name: str) -> str:
    """The name of a distribution's conda package; that of ``ruamel.yaml`` has a dot, requirements may not."""
    name = re.sub(r"[-_]+", "-", name).lower()
    return name.replace("ruamel-yaml", "ruamel.yaml").replace("backports-zstd", "backports.zstd")


def _compiled(python: Path, distributions: list[_Distribution]) -> dict[tuple[str, str], dict[str, bytes]]:
    """The bytecode of each, valid beside its sources once they are installed."""
    made = {}
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        for number, one in enumerate(distributions):
            for path, data in one.files.items():
                if path.endswith(".py"):
                    target = scratch / str(number) / path
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(data)
                    os.utime(target, (MTIME, MTIME))
        # templates do not compile
        command = [str(python), "-m", "compileall", "-q", "-j", "2", str(scratch)]
        subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
        for number, one in enumerate(distributions):
            top = scratch / str(number)
            made[one.name, one.version] = {
                path.relative_to(top).as_posix(): path.read_bytes() for path in top.rglob("*.pyc")
            }
    return made


def _python_package(channel: Path, interpreter: Interpreter) -> None:
    """A ``python`` whose environments are virtual environments of the interpreter."""
    home, minor = interpreter.home, interpreter.minor
    config = f"home = {home.parent}\ninclude-system-site-packages = false\nversion = {interpreter.version}\n"
    files: dict[str, Entry | bytes] = {
        "pyvenv.cfg": config.encode(),
        f"bin/python{minor}": Entry(target=str(home)),
        "bin/python3": Entry(target=f"python{minor}"),
        "bin/python": Entry(target=f"python{minor}"),
        f"{interpreter.site_packages}/README.txt": b"Packages of this environment.\n",
    }
    extra = {"python_site_packages_path": interpreter.site_packages}
    make_package(channel, "python", interpreter.version, "stub_0_cpython", files, extra_index=extra)
