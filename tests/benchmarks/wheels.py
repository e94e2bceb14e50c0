"""Real wheels, downloaded once, unpacked and compiled once: what environments are made of.

``wheels.txt`` names them. Offline, the distributions that the running Python has serve instead.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import json
import marshal
import os
import re
import shutil
import struct
import subprocess
import sys
import sysconfig
import zipfile
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import astuple, dataclass
from importlib.util import MAGIC_NUMBER
from pathlib import Path
from typing import TYPE_CHECKING

from conda_dedup_plugin.demo.distributions import PYTHON, SITE_PACKAGES
from conda_dedup_plugin.demo.packages import MTIME
from conda_dedup_plugin.demo.wheels import distribution_wheel

if TYPE_CHECKING:
    from collections.abc import Iterator

#: The environment that bytecode was compiled for; every environment's name is as long.
COMPILED_FOR = "bench-000"
#: Not of a conda package python: tests, what others brought, and what its own installation made.
_NOT_STDLIB = ("test", "tests", "site-packages", "__pycache__", "idlelib", "ensurepip")
_GLIBC = ("manylinux_2_28", "manylinux_2_27", "manylinux_2_17", "manylinux2014", "manylinux2010")
_CONSOLE = re.compile(r"^\[console_scripts\]\n(.*?)(?=^\[|\Z)", re.MULTILINE | re.DOTALL)
_REQUIRES = re.compile(r"^Requires-Dist:(.*)$", re.MULTILINE)


@dataclass(frozen=True)
class File:
    """A file by its path in the prefix."""

    path: str
    sha256: str
    size: int
    executable: bool

    @property
    def bytecode(self) -> bool:
        return self.path.endswith(".pyc")


@dataclass(frozen=True)
class Distribution:
    """One unpacked distribution; ``folder`` has its files as a prefix would, compiled."""

    name: str
    version: str
    share: float
    pure: bool
    folder: Path
    files: tuple[File, ...]
    scripts: tuple[str, ...]
    requires: tuple[str, ...]

    @property
    def info(self) -> str:
        """The ``.dist-info``, relative to the prefix; empty of what is no wheel."""
        found = (file.path for file in self.files if file.path.endswith(".dist-info/METADATA"))
        return next(found, "").removesuffix("/METADATA")


def distributions(cache: Path, *, offline: bool = False) -> list[Distribution]:
    """All of ``wheels.txt`` that can be had, and this Python; what is missing in ``cache`` is made."""
    wheels, unpacked = cache / "wheels", cache / "unpacked"
    for folder in (wheels, unpacked):
        folder.mkdir(parents=True, exist_ok=True)
    found = _downloaded(wheels) if not offline else {}
    if not found:
        found = dict.fromkeys(_installed(cache / "installed"), 0.9)
    with ProcessPoolExecutor() as pool:
        python = pool.submit(_python, unpacked)
        rest = list(pool.map(_unpacked, [unpacked] * len(found), found, found.values()))
    return [python.result(), *sorted(rest, key=lambda each: (each.name, each.version))]


def _wanted() -> Iterator[tuple[str, float, str]]:
    for line in Path(__file__).with_name("wheels.txt").read_text().splitlines():
        if line and line[0] != "#":
            pin, share, *platform = line.split()
            yield pin, float(share), platform[0] if platform else "x86_64"


def _downloaded(folder: Path) -> dict[Path, float]:
    """The wheels of ``wheels.txt``, and the share of environments that have each."""

    def one(wanted: tuple[str, float, str]) -> tuple[Path, float] | None:
        pin, share, machine = wanted
        if not (there := _wheel_of(pin, folder)):
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder)]
            command += ["--only-binary", ":all:", "--python-version", PYTHON]
            command += [f"--platform={glibc}_{machine}" for glibc in _GLIBC]
            subprocess.run([*command, pin], stdin=subprocess.DEVNULL, capture_output=True, check=False)
            there = _wheel_of(pin, folder)
        if there is None:
            print(f"no wheel of {pin}: left out", file=sys.stderr)
        return (there, share) if there else None

    with ThreadPoolExecutor(4) as pool:
        return dict(filter(None, pool.map(one, _wanted())))


def _wheel_of(pin: str, folder: Path) -> Path | None:
    name, version = pin.split("==")
    start = f"{name.replace('-', '_')}-{version}-".lower()
    return next((path for path in folder.glob("*.whl") if path.name.lower().startswith(start)), None)


def _installed(folder: Path) -> Iterator[Path]:
    """Wheels of what this Python has installed."""
    for name in sorted({dist.metadata["Name"] for dist in importlib.metadata.distributions()}):
        try:
            yield distribution_wheel(folder, name)
        except (StopIteration, KeyError, OSError):
            continue  # an editable installation, or one without its records


def _unpacked(cache: Path, wheel: Path, share: float) -> Distribution:
    """Unpack a wheel into its folder of the cache, unless it is there."""
    name, version, *_ = wheel.name.removesuffix(".whl").split("-")
    folder = cache / f"{name}-{version}"
    scripts: list[str] = []
    requires: list[str] = []
    if not _done(folder).exists():
        with _making(folder) as target, zipfile.ZipFile(wheel) as archive:
            for member in archive.infolist():
                path = _in_prefix(member.filename)
                if not member.is_dir() and not path.endswith(".dist-info/RECORD"):
                    executable = bool(member.external_attr >> 16 & 0o111)
                    _write(target / path, archive.read(member), executable)
        _describe(folder, folder)
    for file in folder.glob(f"{SITE_PACKAGES}/*.dist-info/*"):
        if file.name == "entry_points.txt" and (console := _CONSOLE.search(file.read_text())):
            scripts = [line.split("=")[0].strip() for line in console[1].splitlines() if "=" in line]
        if file.name == "METADATA":
            lines = file.read_text(errors="replace").splitlines()
            requires = [
                line[15:].split(";")[0].strip() for line in lines if line.startswith("Requires-Dist:")
            ]
    pure = wheel.name.endswith("-none-any.whl")
    name = name.replace("_", "-").lower()
    return Distribution(
        name, version, share, pure, folder, _read(folder), tuple(sorted(set(scripts))), tuple(requires)
    )


def _python(cache: Path) -> Distribution:
    """The running Python as a package: its interpreter, standard library and headers."""
    version = ".".join(map(str, sys.version_info[:3]))
    folder = cache / f"python-{version}"
    if not _done(folder).exists():
        paths = sysconfig.get_paths()
        with _making(folder) as target:
            ignore = shutil.ignore_patterns(*_NOT_STDLIB, "config-*")
            shutil.copytree(paths["stdlib"], target / f"lib/python{PYTHON}", ignore=ignore)
            if Path(paths["include"]).is_dir():
                shutil.copytree(paths["include"], target / f"include/python{PYTHON}")
            _write(target / f"bin/python{PYTHON}", Path(os.path.realpath(sys.executable)).read_bytes(), True)
        _describe(folder, folder)
    return Distribution("python", version, 1.0, False, folder, _read(folder), (), ())


class _making:
    """A folder that gets its name when it is complete."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.target = folder, folder.with_name(f"{folder.name}.part")

    def __enter__(self) -> Path:
        shutil.rmtree(self.target, ignore_errors=True)
        shutil.rmtree(self.folder, ignore_errors=True)
        self.target.mkdir(parents=True)
        return self.target

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            _compile(self.target)
            self.target.rename(self.folder)


def _in_prefix(path: str) -> str:
    """Where pip puts this path of a wheel."""
    top, _, rest = path.partition("/")
    if not top.endswith(".data"):
        return f"{SITE_PACKAGES}/{path}"
    kind, _, rest = rest.partition("/")
    places = {"scripts": "bin/", "data": "", "headers": f"include/python{PYTHON}/"}
    return places.get(kind, f"{SITE_PACKAGES}/") + rest


def _write(path: Path, content: bytes, executable: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(0o755 if executable else 0o644)
    os.utime(path, (MTIME, MTIME))


def _compile(folder: Path) -> None:
    """Compile every module, as for the environment :data:`COMPILED_FOR`."""
    for source in list(folder.rglob("*.py")):
        content = source.read_bytes()
        inside = source.relative_to(folder)
        try:
            code = compile(content, f"/opt/conda/envs/{COMPILED_FOR}/{inside}", "exec", dont_inherit=True)
        except (SyntaxError, ValueError, RecursionError):
            continue  # templates and test data: an installer passes over them, too
        header = MAGIC_NUMBER + struct.pack("<III", 0, MTIME, len(content))
        target = source.parent / "__pycache__" / f"{source.stem}.{sys.implementation.cache_tag}.pyc"
        _write(target, header + marshal.dumps(code), executable=False)


def _done(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.json")


def _describe(folder: Path, target: Path) -> None:
    """Write down size and digest of every file."""
    found = []
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            executable = os.access(path, os.X_OK) if os.geteuid() else bool(path.stat().st_mode & 0o111)
            path_in = path.relative_to(folder).as_posix()
            found.append(astuple(File(path_in, digest, path.stat().st_size, executable)))
    _done(target).write_text(json.dumps(found))


def _read(folder: Path) -> tuple[File, ...]:
    return tuple(File(*row) for row in json.loads(_done(folder).read_text()))


def record_digest(sha256: str) -> str:
    """A digest as RECORD has it."""
    return "sha256=" + base64.urlsafe_b64encode(bytes.fromhex(sha256)).rstrip(b"=").decode()
