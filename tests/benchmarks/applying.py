"""Sub-benchmark of ``apply``: hard links against jdupes, reflinks against duperemove, on fresh copies."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from conda_dedup_plugin.demo.distributions import SITE_PACKAGES
from conda_dedup_plugin.demo.packages import MTIME, native_subdir
from tests.benchmarks.files import copy, write
from tests.benchmarks.measure import Measured, installed, run
from tests.benchmarks.peers import OURS
from tests.benchmarks.reporting import apart, say
from tests.benchmarks.results import Part, Series, table
from tests.lab.mounts import mounted_file_system

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.benchmarks.options import Options

_MIB = 1 << 20
_GIB = 1 << 30
_IMAGE = 8 * _GIB
_PACKAGE = 100


@dataclass(frozen=True)
class Kind:
    """A tree of two environments of the same packages, every file a copy of its own."""

    name: str
    files: int
    smallest: int
    largest: int
    #: what duperemove has to be told to see files as small
    block: tuple[str, ...] = ()


KINDS = (
    Kind("small", 10_000, 4 << 10, 16 << 10, ("-b", "4096")),
    Kind("large", 16, 64 * _MIB, 64 * _MIB),
)


def make(root: Path, kind: Kind, seed: int) -> int:
    """Make the tree of that kind in ``root``; the bytes on disk that one environment holds twice."""
    chance = random.Random(seed)
    suffixes = (".so", ".py", ".json", ".so")
    one, two = root / "envs/one", root / "envs/two"
    for first in range(0, kind.files, _PACKAGE):
        name = f"package-{first // _PACKAGE}"
        entries = []
        for number in range(first, min(first + _PACKAGE, kind.files)):
            content = chance.randbytes(chance.randint(kind.smallest, kind.largest))
            path = f"{SITE_PACKAGES}/{name}/part_{number}{suffixes[number % len(suffixes)]}"
            write(one / path, content, MTIME)
            copy(one / path, two / path, MTIME)
            digest = hashlib.sha256(content).hexdigest()
            entry = {"_path": path, "path_type": "hardlink", "sha256": digest, "sha256_in_prefix": digest}
            entries.append({**entry, "size_in_bytes": len(content)})
        for prefix in (one, two):
            record = json.dumps(_record(name, entries), indent=2).encode()
            write(prefix / f"conda-meta/{name}-1.0-0.json", record, MTIME)
    for prefix in (one, two):
        write(prefix / "conda-meta/history", b"", MTIME)
    return sum(path.stat().st_blocks * 512 for path in (one / SITE_PACKAGES).rglob("*.*"))


def _record(name: str, entries: list[dict[str, object]]) -> dict[str, object]:
    return {
        "build": "0",
        "build_number": 0,
        "channel": "https://conda.anaconda.org/conda-forge",
        "files": [entry["_path"] for entry in entries],
        "link": {"source": "", "type": 3},
        "name": name,
        "paths_data": {"paths": entries, "paths_version": 1},
        "sha256": hashlib.sha256(name.encode()).hexdigest(),
        "subdir": native_subdir(),
        "version": "1.0",
    }


def apply(options: Options) -> Part:
    """``apply`` on many small and a few large files, by hard link and by reflink.

    Each on a file system of its own: what others write on a shared one is waited for by whoever syncs it.
    """
    part = Part()
    for file_system, where, peer, command in (
        ("ext4", "hardlink", "jdupes", _jdupes),
        ("btrfs", "btrfs", "duperemove", _duperemove),
        ("xfs", "xfs", "duperemove", _duperemove),
    ):
        if os.geteuid() or not installed(f"mkfs.{file_system}") or not installed(peer):
            say(f"no {file_system}: needs root, mkfs.{file_system} and {peer}")
            continue
        with (
            tempfile.TemporaryDirectory(dir=options.workdir) as folder,
            mounted_file_system(file_system, Path(folder), _IMAGE) as device,
        ):
            _in(device, where, peer, command, part, options)
    return part


def _jdupes(root: Path, kind: Kind) -> list[str]:
    return ["jdupes", "-q", "-L", "-r", str(root)]


def _duperemove(root: Path, kind: Kind) -> list[str]:
    return ["duperemove", "-q", "-d", "-r", *kind.block, str(root)]


def _ours(root: Path, kind: Kind) -> list[str]:
    return [*OURS, "apply", "--yes", "--json", "--no-discover", "--search", str(root)]


def _in(
    folder: Path,
    where: str,
    peer: str,
    command: Callable[[Path, Kind], list[str]],
    part: Part,
    options: Options,
) -> None:
    """All kinds of trees in a folder of some file system, in turn with this peer."""
    commands = {"ours": _ours, peer: command}
    for kind in KINDS:
        made = folder / kind.name
        expected = make(made, kind, options.mix.seed)
        series = {name: Series(name) for name in commands}
        for number in range(-1, options.rounds):
            for name, make_command in commands.items():
                say(f"apply, {where}, {kind.name}: {name}, round {max(number + 1, 0)} of {options.rounds}")
                with _fresh(made, options.workdir) as (tree, scratch):
                    before = _held(tree)
                    cores = options.cores[0]
                    done = _measure(make_command(tree, kind), scratch, cores, memory=number < 0)
                    share = (before - _held(tree)) / expected
                if number < 0:  # the first round is the one whose memory is looked at
                    series[name].see(done)
                else:
                    series[name].add(done)
                    series[name].found_share = min(share, series[name].found_share or share)
        shutil.rmtree(made)
        title = f"apply/{where}/{kind.name}"
        part.details[title] = {name: each.document() for name, each in series.items()}
        part.show(table(f"{title} (found: freed)", [*series.values()], peer))
        part.numbers[f"{title}/ours:{peer}"] = series["ours"].median("wall") / series[peer].median("wall")
        for name, each in series.items():
            part.numbers[f"{title}/{name}/s"] = each.median("wall")


class _fresh:
    """A copy of a tree on its device, all of it written out, and an empty folder; gone after the block."""

    def __init__(self, made: Path, workdir: Path) -> None:
        self.made, self.workdir = made, workdir

    def __enter__(self) -> tuple[Path, Path]:
        self.tree = self.made.with_name("copy")
        subprocess.run(["cp", "-a", "--reflink=never", self.made, self.tree], check=True)
        _write_out(self.tree)
        self.scratch = Path(tempfile.mkdtemp(dir=self.workdir))
        return self.tree, self.scratch

    def __exit__(self, *_: object) -> None:
        for folder in (self.tree, self.scratch):
            shutil.rmtree(folder)


def _measure(command: list[str], scratch: Path, cores: int, *, memory: bool) -> Measured:
    done = run(command, scratch / "output", environment=apart(scratch), cores=cores, memory=memory)
    if done.returncode:
        say((scratch / "output.err").read_text()[-2000:])
    return done


def _held(tree: Path) -> int:
    """Bytes on the device, which nobody else uses."""
    _write_out(tree)
    status = os.statvfs(tree)
    return (status.f_blocks - status.f_bfree) * status.f_frsize


def _write_out(tree: Path) -> None:
    """Wait until all is on the device, so that no run pays for what was written before it."""
    subprocess.run(["sync", "-f", tree], check=True)
