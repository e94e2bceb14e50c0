"""Where a duplicate comes from, going by records and places. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .model import Cause, Hazard

if TYPE_CHECKING:
    from collections.abc import Collection

    from .model import Dist, Inode, Scope


class Causes:
    """Tells the cause of a duplicate, for one scope; ``cache_devices``: where package caches are."""

    def __init__(self, scope: Scope, cache_devices: Collection[int]) -> None:
        self._scope = scope
        self._cache_devices = cache_devices

    def of(self, inode: Inode, keeper: Inode) -> Cause:
        """Return why ``inode`` holds what ``keeper`` holds as well."""
        if inode.hazard is Hazard.BYTECODE:
            return Cause.BYTECODE
        if self._same_package_in_one_tree(inode, keeper):
            return Cause.WITHIN_PACKAGE
        caches, others = self._caches(inode), self._caches(keeper)
        if caches and others and caches != others:
            return Cause.OTHER_CACHE
        if inode.key.device != keeper.key.device:
            return Cause.OTHER_DEVICE
        conda = {name.claim.dist[:4] for name in inode.names if name.claim and not name.claim.pip}
        if not conda:
            return self._unpackaged(inode, keeper)
        if conda & {name.claim.dist[:4] for name in keeper.names if name.claim}:
            away = self._cache_devices and inode.key.device not in self._cache_devices
            return Cause.OTHER_DEVICE if away else Cause.COPY
        if any(name.claim and not name.claim.pip for name in keeper.names):
            return Cause.OTHER_BUILD
        return self._unpackaged(keeper, inode)

    def _unpackaged(self, inode: Inode, keeper: Inode) -> Cause:
        """The cause where no conda package speaks of ``inode``."""
        paths = {name.path for name in inode.names} & {name.path for name in keeper.names}
        trees = self._scope.trees_of(inode) + self._scope.trees_of(keeper)
        if paths and any(tree.cloned for tree in trees):
            return Cause.CLONE
        return Cause.PIP if any(name.claim for name in inode.names) else Cause.UNTRACKED

    def _caches(self, inode: Inode) -> set[int]:
        return {name.tree for name in inode.names if self._scope.trees[name.tree].is_cache}

    def _same_package_in_one_tree(self, inode: Inode, keeper: Inode) -> bool:
        return not self._packages(inode).isdisjoint(self._packages(keeper))

    def _packages(self, inode: Inode) -> set[tuple[int, Dist]]:
        return {(name.tree, name.claim.dist) for name in inode.names if name.claim}
