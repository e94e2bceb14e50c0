"""Conda for tests, from PyPI: the oldest supported one, and any other with the plugin put on top of it.

PyPI has no conda of this decade, but conda-lock carries all of conda 24.7.1; put the import prefix back and
it is an ordinary wheel. What was made stays in the user's cache directory and serves later runs.
"""

from __future__ import annotations

import base64
import csv
import email
import hashlib
import importlib.util
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs
from filelock import FileLock

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

CONDA_LOCK = "4.0.3"
CONDA = "24.7.1"
#: Raised whenever what is cached would be made differently.
LAYOUT = 2
REPOSITORY = Path(__file__).resolve().parents[2]
#: conda 24.7.1's own, but for what PyPI does not have: menuinst and conda-libmamba-solver.
REQUIREMENTS = (
    "archspec >=0.2.3",
    "boltons >=23.0.0",
    "charset-normalizer",
    "conda-package-handling >=2.2.0",
    "distro >=1.5.0",
    "frozendict >=2.4.2",
    "jsonpatch >=1.32",
    "packaging >=23.0",
    "platformdirs >=3.10.0",
    "pluggy >=1.0.0",
    "pycosat >=0.6.3",
    "requests >=2.28.0,<3",
    "ruamel.yaml >=0.11.14,<0.19",
    "setuptools >=60.0.0",
    "tqdm >=4",
    "truststore >=0.8.0",
    "zstandard >=0.15",
)
#: conda-lock leaves conda's shell scripts out. This one does what running pip in an environment needs.
_SHELL_HOOK = b"""conda() {
    case "$1" in
        activate|deactivate|reactivate) eval "$("$CONDA_EXE" shell.posix "$@")" ;;
        *) "$CONDA_EXE" "$@" ;;
    esac
}
"""
_VENDORED = "conda_lock/_vendor/conda/"
_IMPORT_PREFIX = re.compile(r"\bconda_lock\._?vendor\.conda\b")


class Unavailable(Exception):
    """This machine cannot have that conda; the message says why."""


def conda_python() -> Path:
    """The Python whose conda is under test: ``CONDA_DEDUP_TEST_CONDA``, else one with the oldest."""
    if given := os.environ.get("CONDA_DEDUP_TEST_CONDA"):
        return Path(given)
    return oldest_conda()


def oldest_conda() -> Path:
    """The Python of a cached virtual environment with conda 24.7.1, made now if need be."""
    python = supported_python()
    version = ask(python, "import platform; print(platform.python_version())")
    folder = cache_dir() / f"conda-{CONDA}-{CONDA_LOCK}-python-{version}-{LAYOUT}"
    once(folder, lambda: _make_conda(python, folder))
    return folder / "bin/python"


def supported_python() -> Path:
    """A Python that conda 24.7.1 supports: the running one or one on PATH."""
    names = ("python3.12", "python3.11", "python3.10")
    for candidate in (sys.executable, *filter(None, map(shutil.which, names))):
        try:
            version = ask(candidate, "import sys, venv; print(*sys.version_info[:2])")
        except (OSError, subprocess.CalledProcessError):
            continue
        if version in ("3 10", "3 11", "3 12"):
            return Path(candidate)
    raise Unavailable(f"conda {CONDA} needs Python 3.10, 3.11 or 3.12")


def conda_base(below: Path, folder: Path, *, with_plugin: bool) -> Path:
    """A base of its own over the conda of the Python ``below``, which is not changed; returns its Python.

    ``python -m conda`` of the returned one takes ``folder`` as its base (root prefix), and has this
    repository's plugin if so wished.
    """
    layers = ask(below, "import json, site; print(json.dumps(site.getsitepackages()))")
    python = _make_venv(below, folder)
    paths = json.loads(layers)
    if with_plugin:
        wheel = plugin_wheel(folder / "wheel")
        _pip("--python", python, "install", "--no-deps", "--no-index", wheel)
        paths.append(str(installed_apart(python, requirements(wheel))))
    site = Path(ask(python, "import sysconfig; print(sysconfig.get_path('purelib'))"))
    lines = [f"import site; site.addsitedir({path!r})\n" for path in paths]
    (site / "layers.pth").write_text("".join(lines))
    command = folder / "bin/conda"
    # as pip's scripts: a newer conda starts processes that import it again
    start = "if __name__ == '__main__':\n    raise SystemExit(main())\n"
    command.write_text(f"#!{python}\nfrom conda.cli.main import main\n{start}")
    command.chmod(0o755)
    return python


def once(folder: Path, make: Callable[[], object]) -> None:
    """Have ``make`` fill ``folder`` in place, one process at a time, unless that was done before.

    What an interrupted run left is thrown away: only a folder with its marker counts, and a virtual
    environment only while the Python it was made with is there.
    """
    python = folder / "bin/python"
    marker = folder / ".complete"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not marker.exists() or (python.is_symlink() and not python.exists()):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make()
            marker.touch()


def importable(module: str) -> bool:
    """Whether the running Python has ``module``."""
    return importlib.util.find_spec(module) is not None


def make_conda_wheel(source: Path, folder: Path) -> Path:
    """Write the wheel of conda 24.7.1 into ``folder``, out of the wheel of conda-lock at ``source``."""
    info = f"conda-{CONDA}.dist-info"
    files = {}
    with zipfile.ZipFile(source) as archive:
        for member in archive.namelist():
            if member.startswith(_VENDORED) and not member.endswith("/"):
                files["conda/" + member.removeprefix(_VENDORED)] = _restored(archive.read(member))
    files["conda/shell/etc/profile.d/conda.sh"] = _SHELL_HOOK
    requires = "".join(f"Requires-Dist: {requirement}\n" for requirement in REQUIREMENTS)
    files[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: conda\nVersion: {CONDA}\n{requires}".encode()
    files[f"{info}/WHEEL"] = (
        b"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    )
    files[f"{info}/entry_points.txt"] = b"[console_scripts]\nconda = conda.cli.main_pip:main\n"
    files[f"{info}/RECORD"] = _record(files, f"{info}/RECORD")
    target = folder / f"conda-{CONDA}-py3-none-any.whl"
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, data in files.items():
            archive.writestr(path, data)
    return target


def _restored(data: bytes) -> bytes:
    """A vendored file with its imports as they were."""
    try:
        return _IMPORT_PREFIX.sub("conda", data.decode()).encode()
    except UnicodeDecodeError:
        return data


def _record(files: dict[str, bytes], itself: str) -> bytes:
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    for path, data in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        rows.writerow([path, f"sha256={digest}", len(data)])
    rows.writerow([itself, "", ""])
    return text.getvalue().encode()


def _make_conda(python: Path, folder: Path) -> None:
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        _pip("download", "--no-deps", "--dest", scratch, f"conda-lock=={CONDA_LOCK}")
        wheel = make_conda_wheel(next(scratch.glob("conda_lock-*.whl")), scratch)
        made = _make_venv(python, folder)
        _pip("--python", made, "install", wheel)
    ask(made, "import conda.cli.main")


def _make_venv(python: Path, folder: Path) -> Path:
    """A virtual environment without pip that conda takes as a base."""
    run(python, "-m", "venv", "--without-pip", folder)
    (folder / "conda-meta").mkdir(exist_ok=True)
    (folder / "conda-meta/history").touch()
    return folder / "bin/python"


def plugin_wheel(folder: Path) -> Path:
    """The wheel of this repository as it is now."""
    isolation = ["--no-build-isolation"] if importable("hatchling") else []
    _pip("wheel", "--no-deps", *isolation, "--wheel-dir", folder, REPOSITORY)
    return next(folder.glob("*.whl"))


def requirements(wheel: Path) -> list[str]:
    """What a wheel requires, extras apart."""
    with zipfile.ZipFile(wheel) as archive:
        metadata = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        lines = email.message_from_bytes(archive.read(metadata)).get_all("Requires-Dist", [])
    return sorted(line for line in lines if "extra ==" not in line)


def installed_apart(python: Path, required: list[str]) -> Path:
    """A cached directory with what is ``required``, for that Python."""
    version = ask(python, "import sys; print('%d.%d' % sys.version_info[:2])")
    key = hashlib.sha256("\n".join(required).encode()).hexdigest()[:16]
    folder = cache_dir() / f"dependencies-{key}-python-{version}-{LAYOUT}"
    once(folder, lambda: _pip("--python", python, "install", "--target", folder, *required))
    return folder


def cache_dir() -> Path:
    """Where what was made for one run stays for others."""
    return Path(platformdirs.user_cache_dir("conda-dedup-plugin-tests", appauthor=False))


def ask(python: Path | str, code: str) -> str:
    """What ``code`` prints, run by that Python."""
    return run(python, "-c", code).strip()


def _pip(*arguments: object) -> str:
    return run(sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments)


def run(*arguments: object, env: Mapping[str, str] | None = None) -> str:
    """Run a command with ``env`` over our environment, and return what it prints; raises Failed."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "CONDA"))
    } | dict(env or {})
    done = subprocess.run(
        [str(argument) for argument in arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise Failed(done)
    return done.stdout


class Failed(subprocess.CalledProcessError):
    """A command failed; says what it wrote."""

    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        super().__init__(done.returncode, done.args, done.stdout, done.stderr)

    def __str__(self) -> str:
        return f"{super().__str__()}\n--- stdout\n{self.stdout}\n--- stderr\n{self.stderr}"
