"""Files of specs, by what stands in them: their names may be any."""

from __future__ import annotations

from ..errors import UsageError
from .conda_lock import read_conda_lock
from .document import parse, read_text, text_of
from .environment_yml import read_environment_yml
from .explicit import is_explicit, read_explicit
from .packages import Package, Specs, in_order, is_range
from .pixi_lock import read_pixi_lock

_FORMATS = (
    "Known are: conda list --explicit, environment.yml, conda env export, conda-lock.yml of version 1, "
    "pixi.lock of versions 4 to 6."
)


def read_file(path: str, platform: str = "") -> Specs:
    """Return the packages that a file names; of lock files those for ``platform``, by default this one.

    UsageError: one sentence, with the line, on what is wrong.
    """
    text = read_text(path)
    name = ""
    warnings: list[str] = []
    if is_explicit(text):
        packages = read_explicit(path, text)
    else:
        document = parse(path, text)
        keys = document.mapping() if document.is_mapping else {}
        if "environments" in keys:
            packages = read_pixi_lock(document, platform or native_platform())
        elif "package" in keys:
            packages = read_conda_lock(document, platform or native_platform())
        elif "dependencies" in keys or ("name" in keys and "channels" in keys):
            name, packages = read_environment_yml(document, warnings)
            name = name or text_of(keys, "prefix").rpartition("/")[2]
        else:
            raise UsageError(f"{path!r} is in no format that is known.", _FORMATS)
    exact = all(_is_exact(package) for package in packages)
    return Specs(name or path.rpartition("/")[2], path, in_order(packages), exact, tuple(warnings))


def _is_exact(package: Package) -> bool:
    return not is_range(package.dist.version) and (package.is_pip or bool(package.dist.build))


def native_platform() -> str:
    """Return what conda calls this machine."""
    import platform

    machine = platform.machine().lower()
    system = {"Linux": "linux", "Darwin": "osx", "Windows": "win"}.get(platform.system(), "linux")
    names = {"x86_64": "64", "amd64": "64", "i686": "32", "i386": "32"}
    if system == "osx" or system == "win":
        names["aarch64"] = "arm64"
    return f"{system}-{names.get(machine, machine)}"
