"""Environments that their own package manager must copy: on another device than all of its caches."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from msgspec import Struct

from .model import Manager, Method
from .ways import methods_on

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .model import Scope, Tree
    from .places import Place
    from .plan import PlanOptions

#: What says where the packages are, and how a cache beside the environments is called.
_CONDA = ("pkgs_dirs", "pkgs")
_PIXI = ("PIXI_CACHE_DIR", "rattler-cache")
_RATTLER = ("RATTLER_CACHE_DIR", "rattler-cache")
_SETTINGS = {
    Manager.CONDA: _CONDA,
    Manager.MAMBA: _CONDA,
    Manager.PIXI: _PIXI,
    Manager.RATTLER: _RATTLER,
    Manager.MAGIC: _RATTLER,
}


class Distant(Struct, frozen=True):
    """An environment into which every file is copied.

    ``caches`` are those of its manager; ``setting`` set to ``value``, a directory on its own device (empty:
    none was found), ends it. ``subvolume``: a cache lies on the same file system, in another subvolume;
    ``by_reflink``: what is copied can be shared with it all the same.
    """

    tree: Tree
    place: Place
    caches: tuple[str, ...]
    setting: str
    value: str
    subvolume: bool
    by_reflink: bool


def distant_environments(
    scope: Scope, places: Sequence[Place], numbers: dict[str, int], options: PlanOptions
) -> Iterator[Distant]:
    """Yield the selected environments that lie on another device than every cache of their manager.

    ``numbers`` are the devices of all trees of the scope. Where no such cache is in scope, nothing is known.
    """
    pools = {place.device.number: place.device.pool for place in places}
    for place in places:
        for tree in place.environments:
            setting, name = _SETTINGS.get(tree.manager, ("", ""))
            caches = [one for one in scope.trees if one.is_cache and _setting(one) == _family(setting)]
            where = {numbers[one.root] for one in caches if one.root in numbers}
            if not where or place.device.number in where:
                continue
            subvolume = any(pools.get(number) == place.device.pool for number in where)
            if subvolume and setting != _CONDA[0]:
                continue  # rattler makes reflinks
            yield Distant(
                tree,
                place,
                tuple(one.root for one in caches),
                setting,
                _directory(tree.root, place, name),
                subvolume,
                subvolume and Method.REFLINK in methods_on(place.device, options),
            )


def _family(setting: str) -> str:
    return "" if not setting else _CONDA[0] if setting == _CONDA[0] else _RATTLER[0]


def _setting(cache: Tree) -> str:
    """Whose packages a cache has; uv's are no conda packages."""
    return _family(_SETTINGS.get(cache.manager, ("", ""))[0]) or "none"


def _directory(root: str, place: Place, name: str) -> str:
    """Return a directory for packages on the device of an environment, as near to it as can be."""
    parts = root.split("/")
    hidden = next((index for index, part in enumerate(parts) if part in (".pixi", ".magic")), 0)
    parent = os.path.dirname(root)
    if hidden:  # a project's own; the packages are for all projects
        above = ["/".join(parts[: hidden - 1]), "/".join(parts[:hidden])]
    else:
        above = [os.path.dirname(parent), parent] if os.path.basename(parent) == "envs" else [parent]
    for directory in (*above, place.mount_point):
        with suppress(OSError):
            if os.stat(directory).st_dev == place.device.number and os.access(directory, os.W_OK):
                return f"{directory.rstrip('/')}/{name}"
    return ""
