"""Environments and caches forged by hand: real files, with records in conda's dialect."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path

from conda_dedup_plugin.model import Manager, Scope, Tree, TreeKind


@dataclass
class Forge:
    """Makes environments and caches below ``root``."""

    root: Path
    trees: list[Tree] = field(default_factory=list)

    def environment(self, name, packages, *, selected=True, frozen=False, root=None) -> Path:
        """``packages``: {(name, version, build): {path: bytes}}; every file is a copy of its own."""
        prefix = (root or self.root) / "envs" / name
        (prefix / "conda-meta").mkdir(parents=True, exist_ok=True)
        (prefix / "conda-meta" / "history").touch()
        if frozen:
            (prefix / "conda-meta" / "frozen").touch()
        for dist, files in packages.items():
            self._record(prefix, dist, files)
            self._write(prefix, files)
        self.trees.append(
            Tree(os.path.realpath(prefix), TreeKind.ENVIRONMENT, Manager.CONDA, name, selected, frozen)
        )
        return prefix

    def cache(self, packages, *, manager=Manager.CONDA, name="pkgs", selected=True, root=None) -> Path:
        """The same for a package cache, with ``info/``."""
        cache = (root or self.root) / name
        cache.mkdir(parents=True, exist_ok=True)
        if manager is Manager.CONDA:
            (cache / "urls.txt").touch()
        for (dist, version, build), files in packages.items():
            package = cache / f"{dist}-{version}-{build}"
            self._write(package, files)
            info = package / "info"
            info.mkdir()
            index = {
                "name": dist,
                "version": version,
                "build": build,
                "subdir": "linux-64",
                "build_number": 0,
            }
            (info / "index.json").write_text(json.dumps(index))
            (info / "repodata_record.json").write_text(
                json.dumps({**index, "sha256": _archive_digest(dist, version, build), "channel": "forge"})
            )
            paths = [
                {"_path": path, "path_type": "hardlink", "sha256": digest(data), "size_in_bytes": len(data)}
                for path, data in files.items()
            ]
            (info / "paths.json").write_text(json.dumps({"paths": paths, "paths_version": 1}))
        self.trees.append(Tree(os.path.realpath(cache), TreeKind.CACHE, manager, name, selected))
        return cache

    def scope(self) -> Scope:
        return Scope(tuple(sorted(self.trees, key=lambda tree: (not tree.is_cache, tree.root))))

    def _write(self, base: Path, files) -> None:
        for path, data in files.items():
            target = base / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
            os.utime(target, (1_600_000_000, 1_600_000_000))

    def _record(self, prefix: Path, dist, files) -> None:
        name, version, build = dist
        record = {
            "name": name,
            "version": version,
            "build": build,
            "build_number": 0,
            "subdir": "linux-64",
            "channel": "forge",
            "sha256": _archive_digest(*dist),
            "files": list(files),
            "paths_data": {
                "paths_version": 1,
                "paths": [
                    {
                        "_path": path,
                        "path_type": "hardlink",
                        "sha256": digest(data),
                        "sha256_in_prefix": digest(data),
                        "size_in_bytes": len(data),
                    }
                    for path, data in files.items()
                ],
            },
        }
        (prefix / "conda-meta" / f"{name}-{version}-{build}.json").write_text(json.dumps(record))


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _archive_digest(*dist: str) -> str:
    return digest("-".join(dist).encode())


def noise(seed: str, size: int) -> bytes:
    """Bytes that no compression and no other seed makes the same."""
    return hashlib.shake_256(seed.encode()).digest(size)
