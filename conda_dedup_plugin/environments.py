"""Which environments and package caches a run is about: names, paths and discovery become a Scope."""

from __future__ import annotations

# Paths are plain strings here, as in Tree.root and in what scandir gives.
# ruff: noqa: PTH112, PTH118, PTH119, PTH120
import os

from msgspec import Struct, field
from msgspec.structs import replace

from conda_dedup_plugin.condarc import expand
from conda_dedup_plugin.discovery_roots import Roots, known_roots
from conda_dedup_plugin.errors import UsageError
from conda_dedup_plugin.files import real_path
from conda_dedup_plugin.model import Scope, Tree, TreeKind
from conda_dedup_plugin.tree_search import search
from conda_dedup_plugin.trees import (
    cache_tree,
    environment_tree,
    is_build_tree,
    is_environment,
    is_package_cache,
    is_uv_cache,
    is_virtual_environment,
    uv_cache_tree,
    uv_caches,
)

__all__ = ["Request", "find", "is_build_tree", "is_environment", "is_package_cache"]

#: How many existing names a hint offers.
MAX_SUGGESTIONS = 5


class Request(Struct, frozen=True):
    """What the user named: environments by name or path, directories to search, caches."""

    names: tuple[str, ...] = ()
    prefixes: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    pkgs_dirs: tuple[str, ...] = ()
    #: Whether what was not named comes in too, as donors.
    discover: bool = True

    @property
    def named(self) -> bool:
        """Whether anything was named at all."""
        return bool(self.names or self.prefixes or self.search or self.pkgs_dirs)


def find(request: Request) -> Scope:
    """Return the trees ``request`` is about: caches first, then environments, each by its real path.

    With nothing named, everything discovered is selected. Otherwise only what is named is, and what
    is discovered besides comes unselected, or not at all without ``discover``. What is gone or is no
    environment is passed over in discovery; named, it raises UsageError.
    """
    if not request.named and not request.discover:
        raise UsageError(
            "Nothing was named, and nothing is to be discovered.",
            "Name an environment with --name or --prefix, or a directory with --search.",
        )
    roots = known_roots()
    finder = _Finder(roots, warnings=list(roots.warnings))
    if request.discover or request.names:
        finder.discover()
    chosen: set[str] = set() if request.named else set(finder.trees)
    for prefix in request.prefixes:
        chosen.add(finder.environment(prefix))
    for name in request.names:
        chosen.add(finder.by_name(name))
    for directory in request.pkgs_dirs:
        chosen |= finder.cache(directory)
    for directory in request.search:
        chosen |= finder.below(directory)
    if request.discover:
        # The caches beside what was named; with nothing named, also those beside what was discovered.
        beside = finder.add_sibling_caches()
        chosen |= set() if request.named else beside
    trees = [replace(tree, selected=root in chosen) for root, tree in _once(finder.trees, chosen).items()]
    if not request.discover:
        trees = [tree for tree in trees if tree.selected]
    return Scope(
        tuple(sorted(trees, key=lambda tree: (not tree.is_cache, tree.root))),
        tuple(dict.fromkeys(finder.warnings)),
    )


class _Finder(Struct):
    """Collects trees by their real path, in the order found: the first one of a name is meant by it."""

    roots: Roots
    warnings: list[str]
    trees: dict[str, Tree] = field(default_factory=dict)
    #: The paths environments were found under, which need not be the real ones.
    listed: list[str] = field(default_factory=list)

    def discover(self) -> None:
        """Add everything at the known places."""
        for base in self.roots.bases:
            self._add_environment(base)
        for directory in self.roots.envs_dirs:
            self._add_children(directory)
        for prefix in self.roots.prefixes:
            self._add_environment(prefix)
        for directory in self.roots.project_dirs:
            self._add_children(directory)
        for directory in self.roots.pkgs_dirs:
            self._add_cache(directory)
        for directory in self.roots.uv_dirs:
            for path in uv_caches(directory):
                self._add_cache(path)

    def add_sibling_caches(self) -> set[str]:
        """Add ``ROOT/pkgs`` of every environment that is ROOT or ROOT/envs/NAME; return their roots."""
        bases: dict[str, None] = {}
        for path in (*self.listed, *(root for root, tree in self.trees.items() if not tree.is_cache)):
            bases[path] = None
            if os.path.basename(os.path.dirname(path)) == "envs":
                bases[os.path.dirname(os.path.dirname(path))] = None
        found = (self._add_cache(os.path.join(base, "pkgs")) for base in bases)
        return {root for root in found if root}

    def environment(self, prefix: str) -> str:
        """Add the environment at a path the user gave; return its real path."""
        path = expand(prefix)
        root = self._add_environment(path, virtual=True) if path else None
        if root is None:
            if path and is_build_tree(path):
                raise UsageError(f"{path!r} is a build tree of conda-build.", "Its files are not shared.")
            raise UsageError(
                f"There is no environment at {path or prefix!r}.",
                "An environment is a directory with conda-meta, or pyvenv.cfg, in it; "
                "use --name for one known by its name.",
            )
        return root

    def by_name(self, name: str) -> str:
        """Return the real path of the first environment with this name."""
        names: dict[str, str] = {}
        for root, tree in self.trees.items():
            if not tree.is_cache:
                names.setdefault(tree.name, root)
        if name not in names:
            raise UsageError(f"There is no environment named {name!r}.", _suggest(name, list(names)))
        return names[name]

    def cache(self, directory: str) -> set[str]:
        """Add the package cache, or uv's, at a path the user gave; an empty one is a warning."""
        path = expand(directory)
        if not path or not os.path.isdir(path):
            raise UsageError(
                f"There is no directory {path or directory!r}.", "Name an existing package cache, or none."
            )
        found = {root for cache in uv_caches(path) or [path] if (root := self._add_cache(cache))}
        if not found:
            self.warnings.append(f"{path!r} holds no packages and is no package cache.")
        return found

    def below(self, directory: str) -> set[str]:
        """Add every environment and package cache below a directory; none is a warning."""
        path = expand(directory)
        if not path or not os.path.isdir(path):
            raise UsageError(
                f"There is no directory {path or directory!r} to search.",
                "Name an existing directory with --search.",
            )
        result = search(real_path(path))
        found = {self._add_environment(root, virtual=True) for root in result.environments}
        found |= {self._add_cache(root) for root in result.caches}
        if result.unreadable:
            more = len(result.unreadable) - 1
            others = f" and {more} more" if more else ""
            self.warnings.append(f"{result.unreadable[0]!r}{others} could not be searched.")
        if not found:
            self.warnings.append(f"There is no environment and no package cache below {path!r}.")
        return {root for root in found if root}

    def _add_environment(self, path: str, virtual: bool = False) -> str | None:
        """Add the environment at a path, a virtual one only if so wished."""
        root = real_path(path)
        conda = self._accessible(os.path.join(root, "conda-meta")) and is_environment(root)
        if not conda and not (virtual and is_virtual_environment(root)):
            return None
        self.listed.append(path)
        known = self.trees.get(root)
        if known is None or known.kind is not TreeKind.ENVIRONMENT:
            self.trees[root] = environment_tree(path, self.roots)
        return root

    def _add_cache(self, path: str) -> str | None:
        uv = is_uv_cache(path)
        if not uv and (not self._accessible(path) or not is_package_cache(path)):
            return None
        root = real_path(path)
        if root not in self.trees:
            self.trees[root] = uv_cache_tree(root) if uv else cache_tree(root, self.roots)
        return root

    def _add_children(self, directory: str) -> None:
        try:
            with os.scandir(directory) as entries:
                children = sorted(entry.path for entry in entries)
        except PermissionError as exc:
            self.warnings.append(f"{directory!r} could not be read: {exc.strerror}.")
            return
        except OSError:
            return
        for child in children:
            self._add_environment(child)

    def _accessible(self, path: str) -> bool:
        """Whether the path exists; one that may not be looked at is a warning."""
        try:
            os.stat(path)  # noqa: PTH116
        except PermissionError as exc:
            self.warnings.append(f"{path!r} could not be read: {exc.strerror}.")
            return False
        except OSError:
            return False
        return True


def _once(trees: dict[str, Tree], chosen: set[str]) -> dict[str, Tree]:
    """Leave out what is another tree once more, by way of a bind mount; what was chosen stays."""
    seen: dict[tuple[int, int], str] = {}
    for root in sorted(trees, key=lambda root: root not in chosen):
        try:
            found = os.stat(root)  # noqa: PTH116
        except OSError:
            continue
        seen.setdefault((found.st_dev, found.st_ino), root)
    return {root: tree for root, tree in trees.items() if root in seen.values()}


def _suggest(name: str, known: list[str]) -> str:
    """Return a hint with the closest few of the known names."""
    if not known:
        return "No environment was found at all; name one by its path with --prefix."
    import difflib

    closest = difflib.get_close_matches(name, known, n=MAX_SUGGESTIONS, cutoff=0.0)
    shown = ", ".join(repr(item) for item in closest)
    more = len(known) - len(closest)
    others = f" and {more} more" if more > 0 else ""
    return f"Known names: {shown}{others}; any other environment can be named by its path with --prefix."
