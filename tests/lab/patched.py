"""Environments whose binaries were patched with their prefix, and the packages that these came from."""

from __future__ import annotations

import base64
import ctypes
import hashlib
import io
import json
import os
import random
import struct
import subprocess
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conda_dedup_plugin.cli import main
from conda_dedup_plugin.model import Manager
from conda_dedup_plugin.sharing.extents import layout_of
from tests.lab.forge import Forge, digest
from tests.lab.invariants import free_bytes

KIB = 1 << 10
MIB = 1 << 20
#: What a package has in the place of a prefix: as long as any prefix may be.
PLACEHOLDER = ("/opt/" + "placehold_" * 25)[:255]
DIST = ("py", "3", "0")
SITE = "lib/python3.12/site-packages"


def noise(seed: int, size: int) -> bytes:
    """The same for the same seed, not compressible."""
    return random.Random(seed).randbytes(size)


def half_noise(seed: int, size: int) -> bytes:
    """The same, but half of it are zeros."""
    chance = random.Random(seed)
    return b"".join(chance.randbytes(KIB) + bytes(KIB) for _ in range(-(-size // (2 * KIB))))[:size]


def marked(data: bytes, *places: int) -> bytes:
    """The original of a binary: with the placeholder at each of these offsets."""
    found = bytearray(data)
    for place in places:
        found[place : place + 256] = PLACEHOLDER.encode() + b"\0"
    return bytes(found)


def patched(data: bytes, prefix: Path) -> bytes:
    """What a package manager makes of a binary: the size stays."""
    return data.replace(PLACEHOLDER.encode() + b"\0", os.fsencode(prefix).ljust(256, b"\0"))


#: A package of a few MiB: two binaries to be patched (one compresses well), one whose size is no multiple of
#: a block, and files that no prefix is in.
FILES = {
    "lib/libpython.so": marked(noise(1, 3 * MIB), 5000, 1 * MIB - 100, 3 * MIB - 40_000),
    "lib/libtcl.so": marked(half_noise(2, 2 * MIB), 300_000),
    "bin/program": marked(noise(3, MIB + 1234), 128 * KIB),
    "share/data.bin": noise(4, 300 * KIB),
    "share/short": b"less than a block",
}
#: How many blocks of :data:`FILES` are not shared: a placeholder lies in one or two, and before the first one
#: of libpython there is a single equal block.
DIFFERENT_BLOCKS = {"lib/libpython.so": 5, "lib/libtcl.so": 1, "bin/program": 1}


class PatchedForge(Forge):
    """Makes environments with files patched, and says so in the records."""

    def environment(self, name: str, packages: Any, **more: Any) -> Path:
        prefix = (more.get("root") or self.root) / "envs" / name
        made = {
            dist: {path: patched(data, prefix) for path, data in files.items()}
            for dist, files in packages.items()
        }
        super().environment(name, made, **more)
        for dist, files in packages.items():
            record_file = prefix / f"conda-meta/{'-'.join(dist)}.json"
            record = json.loads(record_file.read_text())
            for said in record["paths_data"]["paths"]:
                data = files[said["_path"]]
                if PLACEHOLDER.encode() in data:
                    said |= {"prefix_placeholder": PLACEHOLDER, "file_mode": "binary", "sha256": digest(data)}
            record_file.write_text(json.dumps(record))
        return prefix

    def rattler_cache(self, packages: Any, name: str = "rattler/pkgs") -> Path:
        """A cache as rattler leaves it: nothing says which archive a package is from."""
        cache = self.cache(packages, manager=Manager.RATTLER, name=name)
        for record in cache.glob("*/info/repodata_record.json"):
            record.unlink()
            (cache / f"{record.parents[1].name}.lock").touch()
        return cache

    def wheel(self, prefix: Path, name: str, version: str, files: dict[str, bytes]) -> None:
        """Put into site-packages what pip would: ``files`` and a RECORD."""
        site = prefix / SITE
        info = f"{name}-{version}.dist-info"
        files = files | {
            f"{info}/WHEEL": b"Wheel-Version: 1.0\nTag: cp312-cp312-linux_x86_64\n",
            f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode(),
            f"{info}/INSTALLER": b"pip\n",
        }
        self._write(site, files)
        rows = [
            f"{path},sha256={base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b'=').decode()},"
            f"{len(data)}"
            for path, data in files.items()
        ]
        (site / info / "RECORD").write_text("\n".join([*rows, f"{info}/RECORD,,", ""]))


@dataclass
class Bench:
    """A directory on a file system of some kind, and the command line at work on it, in this process."""

    root: Path
    point: Path
    kind: str

    def __post_init__(self) -> None:
        self.forge = PatchedForge(self.root)

    @property
    def pins(self) -> bool:
        """Whether a whole extent stays while any block of it is in use."""
        return self.kind.startswith("btrfs")

    @property
    def compressed(self) -> bool:
        """Whether what is written is compressed."""
        return self.kind == "btrfs-zstd"

    def free(self) -> int:
        """Free bytes, when everything has come to rest."""
        return free_bytes(self.point)

    def data_used(self) -> int:
        """What the file system says its files take; with some metadata, where it does not tell them apart."""
        free = self.free()
        if not self.pins:
            numbers = os.statvfs(self.point)
            return numbers.f_blocks * numbers.f_frsize - free
        text = _output("btrfs", "filesystem", "df", "--raw", str(self.point))
        (line,) = (line for line in text.splitlines() if line.startswith("Data"))
        return int(line.rpartition("used=")[2])

    def run(self, verb: str, *words: object, code: int = 0) -> dict[str, Any]:
        """Run a command with ``--json`` and return its document; it has to end with ``code``."""
        out = io.StringIO()
        with redirect_stdout(out):
            found = main([verb, *map(str, words), "--json"])
        assert found == code, out.getvalue()
        document: dict[str, Any] = json.loads(out.getvalue())
        return document

    def report(self, *words: object) -> dict[str, Any]:
        return self.run("report", *self._search, *words)

    def planned(self, *words: object) -> list[dict[str, Any]]:
        """The shares of a dry run."""
        found: list[dict[str, Any]] = self.run("apply", "--dry-run", *self._search, *words)["shares"]
        return found

    def apply(self, *words: object) -> dict[str, Any]:
        """Share; nothing may fail."""
        document = self.run("apply", "--yes", *self._search, *words)
        assert document["failed"] == []
        return document

    def undo(self) -> dict[str, Any]:
        return self.run("undo", "--yes", "--search", self.root)

    def verify(self) -> dict[str, Any]:
        return self.run("verify", *self._search)

    @property
    def _search(self) -> tuple[object, ...]:
        return ("--no-discover", "--search", self.root)


def extents(path: Path) -> int:
    """In how many pieces a file lies on its device."""
    return len(layout(path).extents)


def layout(path: Path) -> Any:
    """Where a file lies on its device."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return layout_of(descriptor)
    finally:
        os.close(descriptor)


def btrfs_du(*paths: Path) -> tuple[int, int, int]:
    """(total, exclusive, set shared) bytes of paths together, by ``btrfs filesystem du``."""
    rows = _output("btrfs", "filesystem", "du", "--raw", "-s", *map(str, paths)).splitlines()[1:]
    numbers = [[int(word) for word in row.split()[:3]] for row in rows]
    total, exclusive, shared = (sum(column) for column in zip(*numbers, strict=True))
    return total, exclusive, shared


def reflink_copy(source: Path, target: Path) -> None:
    """``cp -a --reflink=always``"""
    _output("cp", "-a", "--reflink=always", str(source), str(target))


def syncfs(path: Path) -> None:
    """Have everything written."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        assert ctypes.CDLL(None).syncfs(descriptor) == 0
    finally:
        os.close(descriptor)


def uint64(number: int) -> bytes:
    return struct.pack("=Q", number)


def _output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
