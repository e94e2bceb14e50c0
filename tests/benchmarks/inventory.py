"""Ten million paths that are no files: what plan and report cost for each, and in how much memory.

The listings of trees are made up as a walk would have made them: package files that all environments link
to the cache, copies of them in some, bytecode of their own in each. Making them is not counted.
"""

from __future__ import annotations

import gc
import multiprocessing
import resource
import time
from typing import TYPE_CHECKING, NamedTuple

from conda_dedup_plugin.candidates import checked
from conda_dedup_plugin.engine import Analysis
from conda_dedup_plugin.inventory import Inventory
from conda_dedup_plugin.listing import Listing, base_key, dist_id, ident, sized_key
from conda_dedup_plugin.model import (
    Claim,
    Device,
    Dist,
    Goal,
    Hazard,
    InodeKey,
    Manager,
    Scope,
    Totals,
    Tree,
    TreeKind,
    TreeTotals,
)
from conda_dedup_plugin.packing import pack_claim, pack_name, pack_stat
from conda_dedup_plugin.plan import PlanOptions
from conda_dedup_plugin.planner import Planner
from conda_dedup_plugin.reckoning import Reckoning
from conda_dedup_plugin.report.json import report_document
from conda_dedup_plugin.tally import Tally
from tests.benchmarks.results import Part

if TYPE_CHECKING:
    from tests.benchmarks.options import Options

SMALL, LARGE = 100_000, 10_000_000
#: So many trees have the same packages: a cache, and environments beside it.
_WORLD = 20
_MOST_FILES = 25_000
_PER_PACKAGE = 250
#: One environment in so many was made with --copy.
_COPIED = 5
_DEVICE = Device(1, "ext4", reflink=False, hardlink=True)


class Stat(NamedTuple):
    """What a listing takes of an lstat."""

    st_ino: int
    st_size: int
    st_nlink: int
    st_dev: int = 1
    st_mtime_ns: int = 10**18
    st_ctime_ns: int = 10**18
    st_mode: int = 0o100644
    st_uid: int = 0
    st_gid: int = 0


class Measured(NamedTuple):
    """One size: seconds of processor time for each path, and the peak of resident memory."""

    paths: int
    micros: float
    peak_bytes: int
    duplicate_bytes: int


def make(tree: int, files: int) -> Listing:
    """Make the listing of a tree; the first of each world of trees is a cache."""
    world, index = divmod(tree, _WORLD)
    cache = index == 0
    copied = not cache and index % _COPIED == 0
    links = 1 + sum(number % _COPIED != 0 for number in range(1, _WORLD))
    listing = Listing(tree, may_share_extents=False)
    rows: list[bytes] = []
    end = 0
    for number in range(files):
        package, place = divmod(number, _PER_PACKAGE)
        dist = Dist(f"package{package}", "1.0", f"h{world}_0", "linux-64", f"{world}-{package}")
        own = place % 3 == 0  # bytecode that each environment compiles
        if own and cache:
            continue
        path = f"lib/python3.11/site-packages/package{package}/module{place}.py{'c' if own else ''}"
        said = Claim(
            dist, path, None if own else (world << 32 | number).to_bytes(8, "little") * 4, -1 if own else 8192
        )
        hazard = Hazard.BYTECODE if own else Hazard.PACKAGE
        alone = own or copied
        inode = ((tree + 1 if alone else 0) << 40 | world << 24) + number
        stat = Stat(inode, 8192, 1 if alone else links)
        at = f"package{package}-1.0/{path}" if cache else path
        claim = pack_claim(said, at, dist_id(dist))
        listing.dists[dist_id(dist)] = dist
        row = pack_stat(stat, 8192, -1) + pack_name(hazard, at, claim)
        rows.append(row)
        key = InodeKey(1, inode)
        listing.idents.append(ident(key))
        listing.keys.append(sized_key(base_key(said, hazard), 8192))
        listing.starts.append(end)
        end += len(row)
        if not alone:
            listing.linked.idents.append(ident(key))
            listing.linked.plain.append(8192)
            listing.linked.kinds.append(hazard)
    listing.rows = b"".join(rows)
    count = len(rows)
    listing.counted = TreeTotals(count, count, 8192 * count, 8192 * count)
    listing.classes = {Hazard.PACKAGE: Totals(count, count, 8192 * count, 8192 * count)}
    return listing


def measure(paths: int) -> Measured:
    """Tally, plan and report that many made-up paths."""
    trees = max(1, round(paths / (_WORLD * _MOST_FILES))) * _WORLD
    files = min(_MOST_FILES, paths // trees)
    kinds = (TreeKind.ENVIRONMENT if number % _WORLD else TreeKind.CACHE for number in range(trees))
    scope = Scope(
        tuple(Tree(f"/t/{number:05}", kind, Manager.CONDA, f"{number}") for number, kind in enumerate(kinds))
    )
    inventory = Inventory(scope)
    spent = 0.0
    gc.disable()  # as the engine does

    def clock(began: float) -> None:
        nonlocal spent
        spent += time.process_time() - began

    tally = Tally(inventory)
    for index in range(trees):
        listing = make(index, files)
        began = time.process_time()
        tally.add(listing)
        clock(began)
    began = time.process_time()
    tally.finish()
    planner = Planner(scope, {1: _DEVICE}, PlanOptions())
    reckoning = Reckoning(scope, whole=False)
    for grouping in inventory.shelf.groupings():
        for group in planner.groups(checked(grouping.groups())):
            reckoning.take(group)
    reckoning.add_to(inventory)
    document = report_document(Analysis(inventory, reckoning, goal=Goal.BYTES), 0.0)
    clock(began)
    rows = len(inventory.shelf)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return Measured(rows, spent / rows * 1e6, peak, document["totals"]["duplicate_bytes"])


def inventory(options: Options) -> Part:
    """Measure both sizes, each in a process of its own."""
    part = Part()
    found = {}
    for paths in (SMALL, LARGE):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            one = found[paths] = pool.apply(measure, (paths,))
        part.show(f"{one.paths:>12,} paths{one.micros:8.2f} us each{one.peak_bytes / 1e6:8.0f} MB at most")
        part.details[str(paths)] = one._asdict()
    part.numbers["inventory/10M:100k/per-path"] = found[LARGE].micros / found[SMALL].micros
    part.numbers["inventory/10M/peak-MB"] = found[LARGE].peak_bytes / 1e6
    return part
