"""Who may be hard-linked to whom: the rules of the plan that hold for hard links only. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from .layouts import BLOCK
from .meetings import Places
from .model import Hazard, Reason
from .policy import HARDLINK_REFUSED, in_bundle, takes_any_mtime
from .reflinks import clone_refused, reflink_refused

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .model import Device, Inode, InodeKey, Name, Scope, Tree
    from .plan import PlanOptions


class _Trees(NamedTuple):
    """What the trees have in common in which an inode has its names."""

    any_selected: bool
    all_selected: bool
    cache: bool
    conda_cache: bool
    frozen: bool

    @classmethod
    def of(cls, trees: Sequence[Tree]) -> _Trees:
        return cls(
            any_selected=any(tree.selected for tree in trees),
            all_selected=all(tree.selected for tree in trees),
            cache=any(tree.is_cache for tree in trees),
            conda_cache=any(tree.is_conda_cache for tree in trees),
            frozen=any(tree.frozen for tree in trees),
        )


class HardlinkRules:
    """The rules, for one scope and one set of options."""

    def __init__(
        self,
        scope: Scope,
        devices: Mapping[int, Device],
        options: PlanOptions,
        retimed: Mapping[InodeKey, int] | None = None,
    ) -> None:
        self._scope = scope
        self._devices = devices
        #: The modification time that sources will have when this is shared.
        self._retimed = retimed or {}
        self._options = options
        self._standings: dict[object, tuple[int, bool, bool]] = {}
        #: By the indices of the trees: most inodes have their names in one of a few trees.
        self._trees: dict[tuple[int, ...], _Trees] = {}
        self._refused_classes = dict(HARDLINK_REFUSED)
        if options.hardlink_untracked:
            del self._refused_classes[Hazard.UNTRACKED]

    def new_places(self) -> Places:
        """An empty book of places, for one group."""
        return Places(self._scope)

    def keeper_rank(self, inode: Inode) -> tuple[object, ...]:
        """Sort key: the best keeper first.

        A conda cache's inode, another cache's, one that cannot be replaced anyway, or not even get other
        extents, the one with the most names, the oldest; the key makes the order a total one.
        """
        return (*self._standing(inode), -inode.nlink, inode.mtime_ns, inode.key)

    def _standing(self, inode: Inode) -> tuple[int, bool, bool]:
        """Return what counts before the names and the age of a keeper."""
        device = self._devices[inode.key.device]
        plain = not (device.overlay or device.reflink or self._options.leave_bundles)
        kind: object = None
        if plain:  # nothing else counts, and most files are of few kinds
            kind = (
                tuple([name.tree for name in inode.names]),
                inode.nlink > len(inode.names),
                inode.mode,
                inode.uid,
                inode.hazard,
                inode.capabilities,
                inode.size < BLOCK,
            )
            known = self._standings.get(kind)
            if known is not None:
                return known
        trees = self._trees_of(inode)
        cache = 0 if trees.conda_cache else 1 if trees.cache else 2
        movable = self.immovable(inode) is None
        changeable = (
            reflink_refused(inode, self._scope, self._options) is None
            and clone_refused(inode, self._scope, device) is None
        )
        if plain:
            self._standings[kind] = (cache, movable, changeable)
        return cache, movable, changeable

    def _trees_of(self, inode: Inode) -> _Trees:
        key = tuple([name.tree for name in inode.names])
        found = self._trees.get(key)
        if found is None:
            found = self._trees[key] = _Trees.of(self._scope.trees_of(inode))
        return found

    def immovable(self, inode: Inode) -> Reason | None:
        """Why no name of ``inode`` may be given to any keeper, if so."""
        trees = self._trees_of(inode)
        if not trees.any_selected:
            return Reason.NOT_SELECTED
        if inode.privileged:
            return Reason.SETID
        if self._options.euid == 0 and inode.mode & 0o002:
            return Reason.WRITABLE  # its directory may keep others out; a name elsewhere would let them in
        if inode.hazard in self._refused_classes:
            return self._refused_classes[inode.hazard]
        if self._in_bundle(inode):
            return Reason.BUNDLE
        if trees.conda_cache and not self._options.include_cache:
            return Reason.CACHE_NAME
        if trees.frozen and not self._options.override_frozen:
            return Reason.FROZEN
        if inode.nlink > len(inode.names):
            return Reason.NAMES_OUTSIDE
        if not trees.all_selected:
            return Reason.NOT_SELECTED
        if not self._options.may_change(inode):
            return Reason.OTHER_OWNER
        if not self.in_upper_layer(inode):
            return Reason.OVERLAY
        return None

    def _in_bundle(self, inode: Inode) -> bool:
        return self._options.leave_bundles and any(map(in_bundle, self._scope.paths_of(inode)))

    def choose(
        self, inode: Inode, keepers: Sequence[Inode], places: Places
    ) -> tuple[Inode | None, Reason | None]:
        """Return the best of ``keepers`` for ``inode``, else None and why."""
        reason = self.immovable(inode)
        if reason is not None:
            return None, reason
        if len(keepers) > 1:
            keepers = sorted(keepers, key=lambda keeper: self.distance(inode, keeper))
        for keeper in keepers:
            why = self._refused(inode, keeper, places)
            if why is None:
                return keeper, None
            reason = reason or why
        return None, reason

    def distance(self, inode: Inode, keeper: Inode) -> int:
        """0: a cache has the same file of the same package; 1: the same package; 2: any other keeper."""
        # by build alone: rattler's caches do not say which archive they are from
        own = {(name.claim.dist[:4], name.claim.path) for name in inode.names if name.claim}
        dists = {build for build, _ in own}
        cached = [name.claim for name in keeper.names if name.claim and self._scope.trees[name.tree].is_cache]
        if any((claim.dist[:4], claim.path) in own for claim in cached):
            return 0
        return 1 if any(claim.dist[:4] in dists for claim in cached) else 2

    def _refused(self, inode: Inode, keeper: Inode, places: Places) -> Reason | None:
        """Why ``inode`` may not be linked to this ``keeper``, if so."""
        if keeper.privileged:
            return Reason.SETID
        if self._in_bundle(keeper):
            return Reason.BUNDLE
        if (inode.uid, inode.gid) != (keeper.uid, keeper.gid):
            return Reason.OTHER_OWNER
        if inode.mode != keeper.mode:
            return Reason.OTHER_MODE
        if inode.xattrs != keeper.xattrs:
            return Reason.OTHER_XATTRS
        hazard = max(inode.hazard, keeper.hazard)
        if hazard in self._refused_classes:
            return self._refused_classes[hazard]
        if self._caches_differ(inode, keeper):
            return Reason.CACHE_NAME
        if hazard is Hazard.PACKAGE and not self._as_conda_would(inode, keeper):
            return Reason.PACKAGE
        if self._mtime(inode) != self._mtime(keeper) and not self._takes_mtime(inode, keeper, hazard):
            return Reason.OTHER_MTIME
        if not self._may_keep_frozen(keeper):
            return Reason.FROZEN
        if not self.in_upper_layer(keeper):
            return Reason.OVERLAY
        if places.conflict(inode, keeper):
            return Reason.LOADER
        if hazard is Hazard.PACKAGE and places.meet(inode, keeper):
            return Reason.ONE_ENVIRONMENT
        if places.links(keeper) + len(inode.names) > self._devices[keeper.key.device].link_limit:
            return Reason.LINK_LIMIT
        return None

    def _mtime(self, inode: Inode) -> int:
        return self._retimed.get(inode.key, inode.mtime_ns)

    def _takes_mtime(self, inode: Inode, keeper: Inode, hazard: Hazard) -> bool:
        """Whether it may take its keeper's time; bytecode depends on that of a ``.py``."""
        if hazard is not Hazard.UNTRACKED:
            return takes_any_mtime(hazard)
        return not any(name.path.endswith(".py") for name in (*inode.names, *keeper.names))

    def _caches_differ(self, inode: Inode, keeper: Inode) -> bool:
        """Whether a link would tie a cache to another one; ``conda clean`` would take it for used."""
        if not self._trees_of(inode).cache:
            return False
        caches = {name.tree for name in inode.names if self._scope.trees[name.tree].is_cache}
        keeps = {name.tree for name in keeper.names if self._scope.trees[name.tree].is_cache}
        if self._options.include_cache:
            return False
        return caches != keeps or any(self._scope.trees[tree].is_conda_cache for tree in caches | keeps)

    def _as_conda_would(self, inode: Inode, keeper: Inode) -> bool:
        """Whether the keeper is in a cache or is the same file of the same package elsewhere."""

        def files(names: Sequence[Name]) -> set[tuple[object, str]]:
            return {(name.claim.dist.identity, name.claim.path) for name in names if name.claim}

        if self._trees_of(keeper).cache:
            return True
        return not files(inode.names).isdisjoint(files(keeper.names))

    def _may_keep_frozen(self, keeper: Inode) -> bool:
        """A frozen environment's own inode is left alone; one that its cache holds too is the cache's."""
        if self._options.override_frozen:
            return True
        trees = self._trees_of(keeper)
        return trees.cache or not trees.frozen

    def in_upper_layer(self, inode: Inode) -> bool:
        """False for a file of an overlay that may lie in a lower layer."""
        if not self._devices[inode.key.device].overlay or self._options.same_layer:
            return True
        since = self._options.fresh_since_ns
        return since is not None and inode.ctime_ns >= since
