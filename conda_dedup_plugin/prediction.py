"""How much of an environment that conda is about to make will be shared, going by records alone.

What conda links itself from a package cache on the same device is shared at once, small files too; what it
copies is shared after the command with whoever holds the same on that file system. Files that get the prefix
are each environment's own, but for equal blocks where a file system can share those.
"""

# Paths are plain strings here, as in Tree.root and in what scandir gives.
# ruff: noqa: PTH112, PTH116

from __future__ import annotations

import os
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from msgspec import Struct

from .errors import DedupError
from .files import READ, real_path
from .model import NO_USER, Claim, Dist, Hazard, Manager, MethodChoice, TreeKind
from .plan import MIN_EXTENT
from .policy import HARDLINK_REFUSED, hazard_of
from .records.contents import File, cached_files, installed_files
from .sharing.probe import file_system_at, probe
from .sharing.system import user

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence, Set

    from .model import Device, Scope
    from .settings import Settings

_NOBODY = Dist("", "", "", "", "")


class Asked(NamedTuple):
    """A package that is to be installed: its name and name-version-build; ``noarch``: of Python."""

    name: str
    stem: str
    noarch: bool = False


class Creation(Struct, frozen=True):
    """What conda is about to make: packages, below which existing directory, from which caches.

    ``copies``: the user wants independent files; ``automatic``: duplicates are shared after the command.
    """

    packages: tuple[Asked, ...]
    place: str
    caches: tuple[str, ...] = ()
    copies: bool = False
    automatic: bool = True


class Predicted(Struct, frozen=True):
    """Apparent bytes of packages that have a record somewhere; ``new``: so many packages have none."""

    shared_bytes: int = 0
    known_bytes: int = 0
    new: int = 0


class Prediction:
    """Looks packages up, one after the other; ``records`` has what each environment has, as
    name-version-build, by its root.
    """

    def __init__(
        self, creation: Creation, scope: Scope, records: Mapping[str, Set[str]], settings: Settings
    ) -> None:
        self._creation = creation
        self._records = records
        self._settings = settings
        pool = file_system_at(creation.place)
        self._device_number = _device_number(creation.place)
        caches = [tree.root for tree in scope.trees if tree.kind is TreeKind.CACHE]
        self._caches = list(dict.fromkeys([*map(real_path, creation.caches), *caches]))
        self._near = {root for root in (*self._caches, *records) if pool and file_system_at(root) == pool}
        #: Hard links are made among files of one owner alone.
        self._owned = {root for root in self._near if user() in (NO_USER, _owner(root))}
        #: Environments near first: theirs are the records to ask for what was compiled.
        self._environments = sorted(records, key=lambda root: (root not in self._near, root))
        self._by_mamba = {tree.root for tree in scope.trees if tree.manager is Manager.MAMBA}
        self._python = next((one.stem for one in creation.packages if one.name == "python"), "")

    def of_all(self) -> Predicted:
        """Add up what is predicted of every package."""
        shared = known = new = 0
        for asked in self._creation.packages:
            holders = self._holders(asked.stem)
            new += not holders
            root, files = self._files_of(asked, holders)
            linked, given = self._is_linked(asked.stem), self._is_given(holders)
            for file in files:
                size = file.size_in_bytes
                if size is not None and size >= 0:
                    is_shared = self._is_shared(file, size, linked, given)
                else:
                    # compiled by conda for each environment, never linked
                    size = _size(f"{root}/{file.path}") if file.path_type == "pyc_file" else 0
                    is_shared = self._is_shared(file, size, False, given)
                known += size
                shared += size if is_shared else 0
        return Predicted(shared, known, new)

    def _holders(self, stem: str) -> list[str]:
        """Return the roots of the caches and environments that have a package, caches first."""
        caches = [root for root in self._caches if os.path.isdir(f"{root}/{stem}/info")]
        return caches + [root for root in self._environments if stem in self._records[root]]

    def _files_of(self, asked: Asked, holders: Sequence[str]) -> tuple[str, list[File]]:
        """Return the files of a package, none if nobody can tell them, and the root where they are."""
        stem = asked.stem
        if asked.noarch:
            # of the same Python, for that compiles the same
            near = (root for root in holders if root in self._near)
            compiled = next((root for root in near if self._python in self._records.get(root, ())), "")
            if compiled and (files := self._installed(compiled, stem)) is not None:
                return compiled, files
        for root in holders:
            cached = root not in self._records
            files = cached_files(f"{root}/{stem}") if cached else self._installed(root, stem)
            if files is not None:
                return root, [file for file in files if file.path_type != "pyc_file"]
        return "", []

    def _installed(self, root: str, stem: str) -> list[File] | None:
        return installed_files(f"{root}/conda-meta/{stem}.json", digests=root in self._by_mamba)

    def _is_linked(self, stem: str) -> bool:
        """Whether conda will hard-link this package: the first of its caches that has it is on the device.

        A kernel may let nobody but root link what is another user's; conda copies it then.
        """
        if self._creation.copies:
            return False
        for cache in self._creation.caches:
            if os.path.isdir(f"{cache}/{stem}/info"):
                may_link = user() in (NO_USER, 0, _owner(f"{cache}/{stem}"))
                return may_link and _device_number(cache) == self._device_number
        return False

    def _is_given(self, holders: Iterable[str]) -> bool:
        """Whether what conda copies of a package can be shared afterwards with who has it."""
        if not self._creation.automatic:
            return False
        if self._reflinks:
            return not self._near.isdisjoint(holders)
        return self._may_hardlink and not self._owned.isdisjoint(holders)

    def _is_shared(self, file: File, size: int, linked: bool, given: bool) -> bool:
        if file.prefix_placeholder:
            blocks = given and self._shares_blocks and file.file_mode == "binary"
            return blocks and size >= max(MIN_EXTENT, self._floor)
        if linked and not file.no_link:
            return True
        if not given or size < self._floor:
            return False
        return self._reflinks or _hazard(file) not in HARDLINK_REFUSED

    @cached_property
    def _floor(self) -> int:
        return self._settings.floor(self._settings.goal)

    @cached_property
    def _device(self) -> Device | None:
        """The device, as one of the records on it shows it; None: there is none."""
        for root in self._environments:
            if root in self._near and (found := _probe(f"{root}/conda-meta/history")):
                return found
        for root in self._caches:
            if root in self._near and (found := _probe(f"{root}/urls.txt")):
                return found
        return None

    @cached_property
    def _reflinks(self) -> bool:
        device = self._device
        return device is not None and device.reflink and self._settings.method is not MethodChoice.HARDLINK

    @cached_property
    def _shares_blocks(self) -> bool:
        return self._reflinks and self._device is not None and self._device.blocks

    @cached_property
    def _may_hardlink(self) -> bool:
        """Whether hard links are made afterwards; on an overlay what is there may be in a lower layer."""
        device = self._device
        if self._creation.copies or device is None or self._settings.method is MethodChoice.REFLINK:
            return False
        return device.hardlink and not device.overlay


def _hazard(file: File) -> Hazard:
    return hazard_of(file.path, Claim(_NOBODY, file.path, no_link=file.no_link is True))


def _probe(path: str) -> Device | None:
    try:
        descriptor = os.open(path, READ)
    except OSError:
        return None
    try:
        return probe(descriptor)
    except (OSError, DedupError):
        return None
    finally:
        os.close(descriptor)


def _device_number(path: str) -> int | None:
    try:
        return os.stat(path).st_dev
    except OSError:
        return None


def _owner(path: str) -> int | None:
    try:
        return os.stat(path).st_uid
    except OSError:
        return None


def _size(path: str) -> int:
    try:
        return os.lstat(path).st_size
    except OSError:
        return 0
