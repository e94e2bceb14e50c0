"""What it costs to ask where files lie: ``python -m tests.benchmarks.extents [--files N] [--rounds N]``.

On a fresh btrfs and a fresh XFS (as root): a walk that counts by extents, in turn with one that does not and
with ``du``, over environments of which the second and third are reflinks of the first. Prints a line each.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from conda_dedup_plugin.counting import Counter
from conda_dedup_plugin.inventory import Inventory
from conda_dedup_plugin.model import Manager, Scope, Tree, TreeKind
from conda_dedup_plugin.physical import Layouts
from conda_dedup_plugin.tally import Tally
from tests.lab.mounts import REFLINK_KINDS, mounted_file_system

if TYPE_CHECKING:
    from collections.abc import Callable

GIB = 1 << 30


def make(root: Path, files: int) -> list[Path]:
    """Three environments of that many files each, of 1 to 64 KiB."""
    first = root / "one"
    for number in range(files):
        folder = first / "lib" / str(number // 200)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.so").write_bytes(os.urandom(1024 << number % 7))
    (first / "conda-meta").mkdir()
    (first / "conda-meta/history").touch()
    for name in ("two", "three"):
        subprocess.run(["cp", "-a", "--reflink=always", first, root / name], check=True)
    os.sync()
    return [first, root / "two", root / "three"]


def count(trees: list[Path], layouts: Layouts | None) -> int:
    """Count as a report does; the disk bytes."""
    scope = Scope(tuple(Tree(str(tree), TreeKind.ENVIRONMENT, Manager.CONDA, tree.name) for tree in trees))
    inventory = Inventory(scope)
    counter = Counter(4096, layouts)
    with Tally(inventory) as tally:
        for index, tree in enumerate(scope.trees):
            tally.add(counter.walked(index, tree, {tree.root}, {}))
    return inventory.totals.disk_bytes


def du(trees: list[Path]) -> int:
    """The bytes of ``du -s``."""
    done = subprocess.run(["du", "-sc", "-B1", *trees], check=True, capture_output=True, text=True)
    return int(done.stdout.splitlines()[-1].split()[0])


def timed(work: Callable[[], int]) -> tuple[float, int]:
    """Seconds that it takes, and its result."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def main() -> None:
    """Print the medians of all rounds, as JSON with ``--json``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = {}
    for kind in REFLINK_KINDS:
        with (
            tempfile.TemporaryDirectory() as folder,
            mounted_file_system(kind, Path(folder), 2 * GIB) as device,
        ):
            trees = make(device, options.files)
            ways: dict[str, Callable[[], int]] = {
                "du": lambda trees=trees: du(trees),
                "without extents": lambda trees=trees: count(trees, None),
                "by extents": lambda trees=trees: count(trees, Layouts()),
            }
            times: dict[str, list[tuple[float, int]]] = {way: [] for way in ways}
            for _ in range(options.rounds):
                for way, work in ways.items():
                    times[way].append(timed(work))
            found[kind] = {
                way: {"seconds": statistics.median(each[0] for each in done), "bytes": done[-1][1]}
                for way, done in times.items()
            }
    if options.json:
        print(json.dumps({"files": 3 * options.files, "kinds": found}, indent=2))
        return
    for kind, ways_of in found.items():
        for way, result in ways_of.items():
            ratio = result["seconds"] / ways_of["du"]["seconds"]
            print(f"{kind:12}{way:18}{result['seconds']:8.3f} s{ratio:7.2f} x du{result['bytes']:14,} bytes")


if __name__ == "__main__":
    main()
