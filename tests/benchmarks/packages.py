"""Conda packages of unpacked distributions: how they lie in a cache, and what conda writes about them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from conda_dedup_plugin.demo.distributions import PYTHON, PYTHON_BUILD, PYTHON_DEPENDS, SITE_PACKAGES
from conda_dedup_plugin.demo.packages import MTIME, PLACEHOLDER, native_subdir
from tests.benchmarks.files import copy, write

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.benchmarks.wheels import Distribution, File

CHANNEL = "https://conda.anaconda.org/conda-forge"
#: The other keys of conda-forge's records are about so many bytes.
_OTHER_KEYS = 3000
_HARDLINK, _COPY = 1, 3


def script(name: str, prefix: str) -> bytes:
    """A console script as pip and conda write it; ``PLACEHOLDER`` is the prefix in a package."""
    lines = (
        f"#!{prefix}/bin/python{PYTHON}\nimport re\nimport sys\nfrom {name.replace('-', '_')} import main\n"
    )
    return (lines + "if __name__ == '__main__':\n    sys.exit(main())\n").encode()


@dataclass(frozen=True)
class Package:
    """A distribution as a conda package; pure ones are noarch, as on conda-forge."""

    dist: Distribution
    cache: Path

    @cached_property
    def stem(self) -> str:
        """``name-version-build``."""
        return f"{self.dist.name}-{self.dist.version}-{self._build}"

    @property
    def folder(self) -> Path:
        """Where the package cache has it."""
        return self.cache / self.stem

    @cached_property
    def packed(self) -> list[tuple[str, File]]:
        """The files of the package and their paths there."""
        return [
            (self._inside(file.path), file)
            for file in self.dist.files
            if not (self.dist.pure and file.bytecode)
        ]

    @cached_property
    def compiled(self) -> list[File]:
        """The bytecode that conda compiles in each environment."""
        return [file for file in self.dist.files if self.dist.pure and file.bytecode]

    @property
    def scripts(self) -> list[str]:
        """The console scripts, by their paths in the prefix."""
        return [f"bin/{name}" for name in self.dist.scripts]

    def extract(self) -> None:
        """Write the package into the cache."""
        for path, file in self.packed:
            copy(self.dist.folder / file.path, self.folder / path, MTIME, executable=file.executable)
        if not self.dist.pure:
            for path in self.scripts:
                write(self.folder / path, script(path[4:], PLACEHOLDER), MTIME, executable=True)
        entries = [entry for entry in self._entries({}) if "sha256" in entry]
        for entry in entries:
            del entry["sha256_in_prefix"]
        info = self.folder / "info"
        write(info / "index.json", _json(self._index()), MTIME)
        write(info / "paths.json", _json({"paths": entries, "paths_version": 1}), MTIME)
        write(info / "files", "".join(f"{entry['_path']}\n" for entry in entries).encode(), MTIME)
        about = {"home": "https://example.org", "license": "BSD-3-Clause", "summary": self.dist.name}
        write(info / "about.json", _json(about), MTIME)
        write(info / "repodata_record.json", _json(self._repodata()), MTIME)
        if self.dist.pure:
            link = {"type": "python", "entry_points": [f"{name} = x:main" for name in self.dist.scripts]}
            write(info / "link.json", _json({"noarch": link, "package_metadata_version": 1}), MTIME)

    def record(self, digests: dict[str, str], *, copied: bool) -> bytes:
        """``conda-meta/*.json``; ``digests`` are those of patched scripts in the prefix, by path."""
        paths = [file.path for _, file in self.packed] + [file.path for file in self.compiled]
        top = self._repodata() | {
            "extracted_package_dir": str(self.folder),
            "files": paths + self.scripts,
            "link": {"source": str(self.folder), "type": _COPY if copied else _HARDLINK},
            "package_tarball_full_path": f"{self.folder}.conda",
            "paths_data": 0,
            "requested_spec": "None",
        }
        if self.dist.pure:
            top["package_type"] = "noarch_python"
        scripts = (entry for _, entry in self._script_entries(digests))
        body = self._paths_text + b"".join(b",\n" + _json(entry) for entry in scripts)
        return _json(top).replace(b'"paths_data": 0', b'"paths_data": {"paths": [' + body + b"]}", 1)

    @cached_property
    def _paths_text(self) -> bytes:
        """The unchanging entries of ``paths_data``, as they are the same in every environment."""
        whole = _json([entry for _, entry in self._file_entries()])
        return whole.strip().removeprefix(b"[").removesuffix(b"]").strip()

    def _entries(self, digests: dict[str, str]) -> list[dict[str, Any]]:
        both = (*self._file_entries(), *self._script_entries(digests))
        return [entry for _, entry in both]

    def _file_entries(self) -> Iterator[tuple[str, dict[str, Any]]]:
        for path, file in self.packed:
            entry: dict[str, Any] = {"_path": path, "path_type": "hardlink", "sha256": file.sha256}
            yield path, entry | {"sha256_in_prefix": file.sha256, "size_in_bytes": file.size}

    def _script_entries(self, digests: dict[str, str]) -> Iterator[tuple[str, dict[str, Any]]]:
        for path in self.scripts:
            if self.dist.pure:
                yield path, {"_path": path, "path_type": "unix_python_entry_point"}
                continue
            packed = script(path[4:], PLACEHOLDER)
            digest = hashlib.sha256(packed).hexdigest()
            yield (
                path,
                {
                    "_path": path,
                    "file_mode": "text",
                    "path_type": "hardlink",
                    "prefix_placeholder": PLACEHOLDER,
                    "sha256": digest,
                    "sha256_in_prefix": digests.get(path, digest),
                    "size_in_bytes": len(packed),
                },
            )

    def _inside(self, path: str) -> str:
        """The path in the package of a file of the prefix."""
        if not self.dist.pure:
            return path
        if path.startswith(f"{SITE_PACKAGES}/"):
            return path.removeprefix(f"lib/python{PYTHON}/")
        return f"python-scripts/{path[4:]}" if path.startswith("bin/") else path

    @property
    def _build(self) -> str:
        kind = "pyhd8ed1ab" if self.dist.pure else PYTHON_BUILD
        return f"{kind}_0" if self.dist.name != "python" else "h0_0_cpython"

    def _index(self) -> dict[str, Any]:
        noarch = {"noarch": "python"} if self.dist.pure else {}
        depends = [PYTHON_DEPENDS, *self.dist.requires] if self.dist.name != "python" else []
        return {
            "build": self._build,
            "build_number": 0,
            "depends": depends,
            "license": "BSD-3-Clause",
            "name": self.dist.name,
            "subdir": "noarch" if self.dist.pure else native_subdir(),
            "timestamp": MTIME * 1000,
            "version": self.dist.version,
            **noarch,
        }

    def _repodata(self) -> dict[str, Any]:
        """What the channel says of the package: with the rest of a record's keys 3 kB and more."""
        index = self._index()
        digest = hashlib.sha256(self.stem.encode()).hexdigest()
        subdir = f"{CHANNEL}/{index['subdir']}"
        length = _OTHER_KEYS - len(_json(index))
        constrains = [f"{self.dist.name}-{number} >={number}.0,<{number + 1}.0a0" for number in range(999)]
        return index | {
            "channel": subdir,
            "constrains": constrains[: max(length, 0) // len(constrains[0] + '    "",\n')],
            "fn": f"{self.stem}.conda",
            "md5": digest[:32],
            "sha256": digest,
            "size": sum(file.size for file in self.dist.files) // 4,
            "url": f"{subdir}/{self.stem}.conda",
        }


def _json(value: object) -> bytes:
    """As conda writes it."""
    return json.dumps(value, indent=2, sort_keys=True, separators=(",", ": ")).encode()
