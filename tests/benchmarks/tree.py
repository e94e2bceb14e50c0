"""The tree of a benchmark: environments and one package cache, of real wheels, the same for the same seed.

The mix is that of people who train and serve models (see ``wheels.txt``): about 35,000 paths in an
environment, a few huge libraries and thousands of small modules with their bytecode. The shares follow what
was found in fifteen environments made by real conda and pip: most conda packages are links into the cache,
duplicates come from pip's wheels in several environments, from environments made with ``--copy``, from
bytecode that conda compiles in each, and from caches that were cleaned since.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import struct
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from conda_dedup_plugin.demo.distributions import PYTHON, SITE_PACKAGES
from conda_dedup_plugin.demo.packages import MTIME
from tests.benchmarks.files import copy, link, write
from tests.benchmarks.packages import CHANNEL, Package, script
from tests.benchmarks.wheels import COMPILED_FOR, Distribution, distributions, record_digest

if TYPE_CHECKING:
    from collections.abc import Iterable

#: Who has them has them from pip: the first to be installed so.
_PIP_FIRST = (
    "torch", "transformers", "tokenizers", "safetensors", "accelerate", "datasets", "huggingface-hub",
    "diffusers", "openai", "langchain", "langchain-core", "langchain-community", "ray",
)  # fmt: skip
_DAY = 86400
#: What the default mix takes, and room to spare.
_CACHE_BYTES, _ENVIRONMENT_BYTES = 4_000_000_000, 700_000_000


@dataclass(frozen=True)
class Mix:
    """What the tree is like; shares are from 0 to 1."""

    envs: int = 20
    seed: int = 0
    #: of the conda packages of an environment: links into the cache; the others lie in inodes of their own
    linked: float = 0.9
    #: of the environments: made with --copy
    copied: float = 0.15
    #: of the distributions: pip's wheels in every environment that has them
    pip: float = 0.15
    #: of the files of an environment: edited in place, or replaced
    edited: float = 0.001
    #: of the packages that an environment would have by ``wheels.txt``
    size: float = 1.0


def make_tree(root: Path, mix: Mix, cache: Path, *, offline: bool = False) -> None:
    """Make ``envs/`` and ``pkgs/`` in ``root``, which must not exist or be empty."""
    found = distributions(cache, offline=offline)
    by_pip = _by_pip(found, mix)
    root.mkdir(parents=True, exist_ok=True)
    if any(root.iterdir()):
        raise SystemExit(f"{root} is not empty")
    needed = _CACHE_BYTES + round(mix.envs * mix.size * _ENVIRONMENT_BYTES)
    if shutil.disk_usage(root).free < needed:
        raise SystemExit(f"{root} has not the {needed / 1e9:.0f} GB that the tree may need")
    packages = [Package(dist, root / "pkgs") for dist in found if dist.name not in by_pip]
    stems = sorted(package.stem for package in packages)
    write(root / "pkgs/urls.txt", "".join(f"{CHANNEL}/{stem}.conda\n" for stem in stems).encode(), MTIME)
    with ProcessPoolExecutor(initializer=_know, initargs=(packages, found)) as pool:
        list(pool.map(_extract, range(len(packages))))
        list(pool.map(partial(_make, root, mix), range(mix.envs)))


#: What the processes of the pool work on.
_packages: list[Package] = []
_found: list[Distribution] = []


def _know(packages: list[Package], found: list[Distribution]) -> None:
    _packages[:], _found[:] = packages, found


def _extract(index: int) -> None:
    _packages[index].extract()


def _by_pip(found: Iterable[Distribution], mix: Mix) -> set[str]:
    """The names that are installed by pip."""
    chance = random.Random(f"{mix.seed} pip")
    names = sorted({dist.name for dist in found} - {"python", "pip"})
    ranks = {name: (name not in _PIP_FIRST, chance.random()) for name in names}
    return set(sorted(names, key=lambda name: ranks[name])[: round(mix.pip * len(names))])


def _make(root: Path, mix: Mix, number: int) -> None:
    """Make one environment."""
    name = f"bench-{number + 1:03}"
    Environment(root, name, mix, random.Random(f"{mix.seed} {name}"), number).make()


class Environment:
    """One environment in the making."""

    def __init__(self, root: Path, name: str, mix: Mix, chance: random.Random, number: int) -> None:
        self.prefix = root / "envs" / name
        self.pkgs = root / "pkgs"
        self.name, self.mix, self.chance = name, mix, chance
        self.copied = chance.random() < mix.copied
        self.mtime = MTIME + _DAY * (number + 1)
        #: what may be edited, by path in the prefix
        self.files: list[str] = []
        self.seen: set[str] = set()

    def make(self) -> None:
        """Install what it has, conda's before pip's."""
        packages = {(package.dist.name, package.dist.version): package for package in _packages}
        chosen: dict[str, Distribution] = {}
        for dist in _found:
            share = dist.share * (self.mix.size if dist.name != "python" else 1)
            if self.chance.random() < (share / 2 if dist.name in chosen else share):
                chosen[dist.name] = dist
        write(self.prefix / "conda-meta/history", b"==> 2026-01-01 00:00:00 <==\n", self.mtime)
        by_pip = []
        for dist in chosen.values():
            if package := packages.get((dist.name, dist.version)):
                self._conda(package)
            else:
                by_pip.append(dist)
        for dist in by_pip:
            self._pip(dist)
        self._edit()

    def _conda(self, package: Package) -> None:
        """As conda does it: link or copy from the cache, patch, compile, write the record."""
        linked = not self.copied and self.chance.random() < self.mix.linked
        for path, file in package.packed:
            if not self._first(file.path):
                continue  # another package has it too, and both records speak of it
            source, target = package.folder / path, self.prefix / file.path
            if linked:
                link(source, target)
            else:
                copy(source, target, MTIME, executable=file.executable)
        for file in package.compiled:
            if self._first(file.path):
                copy(package.dist.folder / file.path, self.prefix / file.path, self.mtime)
        digests = {}
        for path in package.scripts:
            content = script(path[4:], str(self.prefix))
            write(self.prefix / path, content, self.mtime, executable=True)
            digests[path] = hashlib.sha256(content).hexdigest()
        record = package.record(digests, copied=self.copied)
        write(self.prefix / "conda-meta" / f"{package.stem}.json", record, self.mtime)
        if package.dist.name == "python":
            for name in ("python", "python3"):
                (self.prefix / "bin" / name).symlink_to(f"python{PYTHON}")

    def _pip(self, dist: Distribution) -> None:
        """As pip does it: inodes of its own with today's time, bytecode for these sources, RECORD."""
        rows = []
        for file in dist.files:
            target = self.prefix / file.path
            if not self._first(file.path):
                continue
            if file.bytecode:
                write(target, self._bytecode((dist.folder / file.path).read_bytes()), self.mtime)
                rows.append(f"{_from_site(file.path)},,\n")
            else:
                copy(dist.folder / file.path, target, self.mtime, executable=file.executable)
                rows.append(f"{_from_site(file.path)},{record_digest(file.sha256)},{file.size}\n")
        made = {f"bin/{name}": script(name, str(self.prefix)) for name in dist.scripts}
        made[f"{dist.info}/INSTALLER"] = b"pip\n"
        made[f"{dist.info}/REQUESTED"] = b""
        for path, content in made.items():
            write(self.prefix / path, content, self.mtime, executable=path.startswith("bin/"))
            digest = record_digest(hashlib.sha256(content).hexdigest())
            rows.append(f"{_from_site(path)},{digest},{len(content)}\n")
        rows.append(f"{_from_site(dist.info)}/RECORD,,\n")
        write(self.prefix / dist.info / "RECORD", "".join(sorted(rows)).encode(), self.mtime)

    def _first(self, path: str) -> bool:
        """Whether no package had that path yet."""
        if path in self.seen:
            return False
        self.seen.add(path)
        if not path.endswith(".pyc"):
            self.files.append(path)
        return True

    def _bytecode(self, content: bytes) -> bytes:
        """Bytecode with the time of the source and its path in this environment."""
        header = content[:8] + struct.pack("<I", self.mtime) + content[12:16]
        return header + content[16:].replace(f"/{COMPILED_FOR}/".encode(), f"/{self.name}/".encode())

    def _edit(self) -> None:
        """Edit some files: in place if they are this environment's alone, else as editors replace them."""
        for path in self.chance.sample(self.files, round(self.mix.edited * len(self.files))):
            target = self.prefix / path
            content = bytearray(target.read_bytes())
            if self.chance.random() < 0.5 and content:
                content[-1] ^= 1
            else:
                content += b"\n# edited\n" + self.name.encode()
            if target.stat().st_nlink > 1:
                target.unlink()
            write(target, bytes(content), self.mtime + _DAY)


def _from_site(path: str) -> str:
    if path.startswith(f"{SITE_PACKAGES}/"):
        return path.removeprefix(f"{SITE_PACKAGES}/")
    return os.path.relpath(path, SITE_PACKAGES)
