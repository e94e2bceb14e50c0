"""On which devices the trees of a scope lie, and what each of them can. Nothing is written."""

from __future__ import annotations

import os
import stat as stat_module
import sys
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from .model import InodeKey
from .sharing.mounts import mount_point_of, mount_points
from .sharing.opening import open_name
from .sharing.probe import probe
from .sharing.system import names_in, open_root, stat_at

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .model import Device, Scope, Tree

#: So many directories of a tree are searched for a file that can tell what its device can do.
_MOST_DIRECTORIES = 64
#: So many files are asked.
_MOST_ASKED = 64


class Place(Struct, frozen=True):
    """A device, where it is mounted, and the trees on it: selected environments, and all caches.

    ``exchange``: whether it exchanges names in one step; None: that is not known.
    """

    device: Device
    mount_point: str
    #: The uppermost directory on it: that of a subvolume below the mount point, else the mount point.
    directory: str
    exchange: bool | None
    read_only: bool
    environments: tuple[Tree, ...]
    caches: tuple[Tree, ...]


def places_of(scope: Scope) -> tuple[list[Place], list[str]]:
    """Return the devices that selected trees lie on, those of one file system together.

    Also a sentence for each tree that could not be looked at.
    """
    warnings: list[str] = []
    numbers = devices_of(scope.trees)
    together: dict[int, list[Tree]] = {}
    for tree in scope.trees:
        if tree.root in numbers:
            together.setdefault(numbers[tree.root], []).append(tree)
        elif tree.selected:
            warnings.append(f"{tree.root!r} could not be looked at.")
    points = mount_points()
    found = []
    for number, trees in together.items():
        if any(tree.selected for tree in trees):
            try:
                found.append(_place(number, trees, points))
            except OSError as exc:
                warnings.append(f"{trees[0].root!r} could not be looked at: {exc.strerror}.")
    first = {place.device.pool: place.directory for place in sorted(found, key=_path, reverse=True)}
    return sorted(found, key=lambda place: (first[place.device.pool], _path(place))), warnings


def devices_of(trees: Sequence[Tree]) -> dict[str, int]:
    """Return the number of the device of each tree that is there, by its root."""
    found = {}
    for tree in trees:
        with suppress(OSError):
            found[tree.root] = os.stat(tree.root).st_dev
    return found


def _path(place: Place) -> tuple[str, int]:
    return place.directory, place.device.number


def _place(number: int, trees: list[Tree], points: list[str]) -> Place:
    own = sorted(trees, key=lambda tree: not tree.selected)
    descriptor = open_root(own[0].root)
    try:
        device = probe(descriptor)
        exchange, read_only = _mounted_how(descriptor)
    finally:
        os.close(descriptor)
    for tree in own:
        if device.certain:
            break
        device = _ask_files(tree.root, number, device)
    point = mount_point_of(own[0].root, points)
    return Place(
        device=replace(device, number=number),
        mount_point=point,
        directory=_uppermost(own[0].root, number, point),
        exchange=exchange,
        read_only=read_only,
        environments=tuple(tree for tree in own if tree.selected and not tree.is_cache),
        caches=tuple(tree for tree in own if tree.is_cache),
    )


def _mounted_how(directory: int) -> tuple[bool | None, bool]:
    """Whether names can be exchanged in an open directory, and whether nothing can be written there."""
    exchange = None
    read_only = False
    if sys.platform == "linux":
        from .sharing.linux import can_exchange

        exchange = can_exchange(directory)
    if sys.platform != "win32":
        read_only = bool(os.fstatvfs(directory).f_flag & os.ST_RDONLY)
    return exchange, read_only


def _uppermost(path: str, number: int, mount_point: str) -> str:
    """Return the directory above a path, or itself, that is the last one on its device."""
    with suppress(OSError):
        while path != mount_point and (parent := os.path.dirname(path)) != path:
            if os.stat(parent).st_dev != number:
                break
            path = parent
    return path


def _ask_files(root: str, number: int, device: Device) -> Device:
    """Probe the device by the first file of a tree on it that can tell; else what is known of it stays."""
    for count, descriptor in enumerate(_files(root, number)):
        try:
            found = probe(descriptor)
        finally:
            os.close(descriptor)
        device = found
        if found.certain or count > _MOST_ASKED:
            break
    return device


def _files(root: str, number: int) -> Iterator[int]:
    """Yield open files of a tree on a device that are not empty, the uppermost first."""
    waiting = deque([root])
    for _ in range(_MOST_DIRECTORIES):
        if not waiting:
            return
        folder = waiting.popleft()
        with suppress(OSError):
            directory = open_root(folder)
            try:
                for name in sorted(names_in(directory)):
                    stat = stat_at(name, directory)
                    if stat_module.S_ISDIR(stat.st_mode):
                        waiting.append(f"{folder}/{name}")
                    elif stat.st_size and stat.st_dev == number:
                        with suppress(OSError):
                            yield open_name(directory, name, InodeKey(stat.st_dev, stat.st_ino))
            finally:
                os.close(directory)
