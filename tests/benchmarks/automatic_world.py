"""What the benchmark of the automatic run works on: a channel of packages as real ones are, and two condas.

The sources are the standard library's, a few modules to a package, so modules have the sizes and compile in
the time that modules do; libraries are noise with sizes as libraries have them.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

from conda_dedup_plugin.demo.distributions import (
    PYTHON_BUILD,
    PYTHON_DEPENDS,
    SITE_PACKAGES,
    compiled,
    distribution_package,
    noarch_package,
    python_package,
)
from conda_dedup_plugin.demo.packages import PLACEHOLDER, Entry, index_channel, make_package
from tests.lab.channel import TestChannel
from tests.lab.conda_wheel import cache_dir, conda_base, once
from tests.lab.world import CondaLab

if TYPE_CHECKING:
    from collections.abc import Iterator

#: The package of which the second environment has another build.
OTHER = "native-1"
#: Of one hundred packages so many are Python's without an architecture, and so many of them have Python.
NOARCH, EXTENSIONS = 45, 15
_KIB = 1024


def channel(packages: int) -> TestChannel:
    """A cached channel with a metapackage ``everything`` that needs so many packages, itself included."""
    recipe = Path(__file__).read_bytes() + str(packages).encode() + PYTHON_BUILD.encode()
    folder = cache_dir() / f"benchmark-channel-{hashlib.sha256(recipe).hexdigest()[:16]}"
    once(folder, lambda: _build(folder / "channel", packages))
    return TestChannel(folder)


def bases(below: Path, folder: Path) -> dict[bool, Path]:
    """Two condas that differ in nothing but whether the plugin is installed, by that."""
    made = {}
    for with_plugin in (False, True):
        made[with_plugin] = conda_base(below, folder / f"base-{with_plugin}", with_plugin=True)
    site = next((folder / "base-False/lib").glob("python*/site-packages"))
    for path in site.glob("conda_dedup*"):
        shutil.rmtree(path)
    return made


def lab(root: Path, python: Path, packages: int, envs_dir: Path | None = None) -> CondaLab:
    """A world of one of them, with its own home and package cache."""
    envs_dirs = (envs_dir,) if envs_dir else ()
    return CondaLab(root, python, channel(packages), envs_dirs=envs_dirs)


def neighbours(lab: CondaLab, of: str, count: int) -> None:
    """More environments that are hard-linked to one, as conda's from one cache are; conda knows them."""
    source = lab.env_path(of)
    for number in range(count):
        target = lab.env_path(f"{of}-{number}")
        shutil.copytree(source, target, symlinks=True, copy_function=_link, ignore=_no_records)
        shutil.copytree(source / "conda-meta", target / "conda-meta")
        with open(lab.environments_txt, "a") as stream:
            stream.write(f"{target}\n")


def _link(source: str, target: str) -> None:
    os.link(source, target, follow_symlinks=False)


def _no_records(folder: str, names: list[str]) -> set[str]:
    return {"conda-meta"} & set(names)


def _build(folder: Path, packages: int) -> None:
    noarch, extensions = (packages * each // 100 for each in (NOARCH, EXTENSIONS))
    natives = packages - noarch - extensions - 3
    sources = _sources()
    python_package(folder)
    distribution_package(folder, "pip", exclude=("*.exe",))
    names = []
    for number in range(noarch):
        name = f"pure-{number}"
        modules = _modules(name, sources, random.Random(name))
        noarch_package(folder, name, "1.0", modules, entry_points=_points(name, number))
        names.append(name)
    for number in range(extensions):
        name = f"extension-{number}"
        chance = random.Random(name)
        modules = _modules(name, sources, chance)
        modules |= {
            f"{_import_name(name)}/_{part}.so": _noise(chance, _size(chance, 200)) for part in range(6)
        }
        files = {f"{SITE_PACKAGES}/{path}": data for path, data in (modules | compiled(modules)).items()}
        build = f"{PYTHON_BUILD}_0"
        make_package(folder, name, "1.0", build, files, depends=[PYTHON_DEPENDS, names[number % len(names)]])
        names.append(name)
    for number in range(natives):
        name = f"native-{number}"
        for build in range(2 if name == OTHER else 1):
            files_of = dict(_native(name, build))
            depends = [f"native-{number // 2}"] if number else []
            make_package(folder, name, "1.0", f"h{build}", files_of, depends=depends, build_number=build)
        names.append(name)
    make_package(folder, "everything", "1.0", "0", {}, depends=["python", *names])
    index_channel(folder)


def _sources() -> list[tuple[str, bytes]]:
    """The modules of the standard library, by name."""
    folder = Path(sysconfig.get_path("stdlib"))
    found = [*sorted(folder.glob("*.py")), *sorted(folder.glob("[a-z]*/*.py"))]
    found = [path for path in found if not {"site-packages", "test", "tests", "lib2to3"} & {*path.parts}]
    return [(path.stem.strip("_"), path.read_bytes()) for path in found]


def _modules(name: str, sources: list[tuple[str, bytes]], chance: random.Random) -> dict[str, bytes]:
    """Some modules, none with the bytes of another package's."""
    package = _import_name(name)
    picked = chance.sample(sources, chance.choice((6, 12, 24, 48, 72)))
    made = {f"{package}/__init__.py": b"def main():\n    return 0\n"}
    for number, (stem, data) in enumerate(picked):
        made[f"{package}/{stem}_{number}.py"] = data + f"\n# of {name}\nNAME = {name!r}\n".encode()
    return made


def _points(name: str, number: int) -> list[str]:
    return [f"{name} = {_import_name(name)}:main"] if number % 3 == 0 else []


def _native(name: str, build: int) -> Iterator[tuple[str, Entry | bytes]]:
    """Libraries, headers, data, and a few files with the prefix."""
    chance = random.Random(f"{name} {build}")
    for part in range(chance.choice((1, 2, 3, 6))):
        data = _noise(chance, _size(chance, 400))
        if part == 0:
            data += PLACEHOLDER.encode() + b"/share\0" + _noise(chance, 512)
        yield f"lib/lib{name}-{part}.so.1", Entry(data, True, "binary" if part == 0 else None)
        yield f"lib/lib{name}-{part}.so", Entry(target=f"lib{name}-{part}.so.1")
    for part in range(chance.choice((5, 20, 60, 120))):
        line = f"extern int {name.replace('-', '_')}_{part}_{build}(const char *, size_t);\n".encode()
        yield f"include/{name}/{part}.h", line * (_size(chance, 6) // len(line) + 1)
    text = f"prefix={PLACEHOLDER}\nlibs=-l{name} {build}\n".encode()
    yield f"lib/pkgconfig/{name}.pc", Entry(text, prefix="text")
    yield f"share/{name}/data", _noise(chance, _size(chance, 30))


def _size(chance: random.Random, median: int) -> int:
    """A size in bytes about a median in KiB, as sizes of files are: most small, a few very big."""
    return min(int(chance.lognormvariate(0, 1.3) * median * _KIB), 40 << 20)


def _noise(chance: random.Random, size: int) -> bytes:
    return chance.randbytes(size)


def _import_name(name: str) -> str:
    return name.replace("-", "_")
