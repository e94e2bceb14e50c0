"""How many bytes packages take that a file names: as a record in a cache or an environment says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from ..records.conda_meta import read_dists
from ..records.heads import read_head
from ..records.package_cache import package_dirs, read_package
from ..records.pip_record import dist_infos, read_pip_record
from ..records.reading import RecordError
from .packages import name_of

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from ..model import Claim, Scope, Tree
    from .packages import Package, Specs


class Sizes:
    """Sizes by name, version, build and subdir; a record is read when it is asked for."""

    def __init__(self, scope: Scope) -> None:
        self._records: dict[str, list[Path]] = {}
        self._cached: dict[str, list[Path]] = {}
        self._wheels: dict[tuple[str, str], list[tuple[Path, str]]] = {}
        for tree in scope.trees:
            self._add(tree)

    def _add(self, tree: Tree) -> None:
        if tree.is_cache:
            for stem, directory in package_dirs(tree.root).items():
                self._cached.setdefault(stem, []).append(directory)
            return
        for stem, path in read_dists(tree.root).items():
            self._records.setdefault(stem, []).append(path)
        for wheel, record in dist_infos(tree.root).items():
            self._wheels.setdefault(wheel, []).append((record, tree.root))

    def of(self, specs: Specs) -> Specs:
        """Return the same packages with the sizes that are known."""
        return replace(specs, packages=tuple(self._sized(package) for package in specs.packages))

    def _sized(self, package: Package) -> Package:
        if package.size is not None:
            return package
        found = self._wheel(package) if package.is_pip else self._conda(package)
        return package._replace(size=next((size for size in found if size is not None), None))

    def _conda(self, package: Package) -> Iterable[int | None]:
        wanted = package.dist
        stem = f"{wanted.name}-{wanted.version}-{wanted.build}"
        for path in self._records.get(stem, ()):
            try:
                head = read_head(path)
            except (RecordError, MemoryError):
                continue
            if not wanted.subdir or head.dist.subdir in ("", wanted.subdir):
                yield head.size
        for directory in self._cached.get(stem, ()):
            try:
                dist, claims = read_package(directory)
            except (RecordError, MemoryError):
                continue
            if not wanted.subdir or dist.subdir in ("", wanted.subdir):
                yield _total(claims)

    def _wheel(self, package: Package) -> Iterable[int | None]:
        wanted = package.dist
        for record, root in self._wheels.get((name_of(package), wanted.version), ()):
            try:
                dist, claims = read_pip_record(record, root)
            except (RecordError, MemoryError):
                continue
            if not wanted.build or dist.build in ("", wanted.build):
                yield _total(claims)


def _total(claims: dict[str, Claim]) -> int | None:
    sizes = [claim.size for claim in claims.values() if claim.size >= 0]
    return sum(sizes) if sizes or not claims else None
