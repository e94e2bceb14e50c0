"""The JSON documents. All bytes are integers of bytes; every document has ``schema``."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from msgspec.structs import asdict

from ..apply import Applied
from ..model import SCHEMA
from ..plan import LARGEST
from ..redundant import redundant_caches

if TYPE_CHECKING:
    from ..engine import Analysis
    from ..errors import DedupError
    from ..history import Run
    from ..leftovers import Leftover
    from ..model import Inode, Scope
    from ..plan import Group
    from ..repair import Repair
    from ..undo import Undoing
    from ..unused import Unused
    from ..verify import Damage, Verified


def dump(document: dict[str, Any]) -> str:
    """Render a document; names that are no valid UTF-8 appear as lone surrogates, escaped."""
    return json.dumps(document, indent=2)


def error_document(error: DedupError) -> dict[str, Any]:
    """What is printed when nothing could be done."""
    return {"schema": SCHEMA, "error": str(error), "hint": error.next_step}


def report_document(analysis: Analysis, walked: float) -> dict[str, Any]:
    """What ``report --json`` prints of what was ``walked`` then, in seconds since the epoch."""
    inventory, scope = analysis.inventory, analysis.scope
    trees: dict[bool, list[dict[str, Any]]] = {False: [], True: []}
    for tree, counted in zip(scope.trees, inventory.trees, strict=True):
        if tree.selected:
            trees[tree.is_cache].append(
                {"name": tree.name, "prefix": tree.root, "manager": tree.manager.value, **asdict(counted)}
            )
    return {
        "schema": SCHEMA,
        "walked": datetime.fromtimestamp(walked, timezone.utc).isoformat(timespec="seconds"),
        "environments": trees[False],
        "caches": trees[True],
        "totals": asdict(inventory.totals),
        "by_class": {
            hazard.name.lower(): asdict(totals) for hazard, totals in sorted(inventory.by_class.items())
        },
        "by_cause": {
            cause.value: {
                "duplicate_bytes": totals.duplicate_bytes,
                "freeable_bytes": totals.freeable_bytes,
                "held_bytes": totals.held_bytes,
                "freeable_inodes": totals.freeable_inodes,
            }
            for cause, totals in analysis.plan.by_cause().items()
        },
        "deep": analysis.deep,
        "goal": analysis.goal.value,
        "normalizable_bytes": analysis.normalizable_bytes,
        "held": [
            {"reason": reason.value, "bytes": size, "inodes": inodes}
            for reason, (size, inodes) in analysis.plan.held_by_reason().items()
        ],
        "clobbered": [
            {"environment": scope.trees[tree].root, "path": path, "conda": str(conda), "pip": str(pip)}
            for tree, paths in inventory.clobbered.items()
            for path, (conda, pip) in paths.items()
        ],
        "redundant_caches": [
            asdict(cache) for cache in redundant_caches(inventory, analysis.reckoning.twins)
        ],
        "largest": [group_document(scope, group) for group in analysis.plan.largest()[:LARGEST]],
        "warnings": analysis.warnings,
    }


def group_document(scope: Scope, group: Group) -> dict[str, Any]:
    """Return what a report says of files with the same content."""
    duplicates = [share.duplicate for share in group.shares]
    duplicates += [inode for held in group.held for inode in held.inodes]
    return {
        "bytes": group.duplicate_bytes,
        "keeper": scope.paths_of(group.keeper)[0],
        "names": [path for inode in duplicates for path in scope.paths_of(inode)],
        "extents": {scope.paths_of(inode)[0]: _extents(inode) for inode in (group.keeper, *duplicates)},
    }


def _extents(inode: Inode) -> int | None:
    """In how many pieces a file lies on its device; None where that was not asked or is not told."""
    return None if inode.layout is None else len(inode.layout.extents)


def apply_document(analysis: Analysis, applied: Applied | None) -> dict[str, Any]:
    """What ``apply --json`` prints; without an outcome (``--dry-run``) with every planned share."""
    document: dict[str, Any] = {"schema": SCHEMA, "planned": asdict(analysis.inventory.totals)}
    if applied is None:
        document["dry_run"] = True
        document["shares"] = [
            {
                "method": share.method.value,
                "bytes": share.freed_bytes,
                "extents": _extents(share.duplicate),
                "keeper": analysis.scope.paths_of(share.keeper)[0],
                "names": analysis.scope.paths_of(share.duplicate),
            }
            for share in analysis.plan.shares
        ]
    done = applied or Applied()
    document["done"] = {
        "inodes": done.inodes,
        "bytes_freed": done.bytes_freed,
        "inodes_freed": done.inodes_freed,
        "by_method": {
            method.value: {"inodes": inodes, "bytes_freed": size}
            for method, (inodes, size) in done.by_method.items()
        },
        "blocks": [
            {"path": path, "extents_before": before, "extents_after": after, "bytes_freed": size}
            for path, before, after, size in done.pieces
        ],
    }
    document |= _left_alone(done)
    document["warnings"] = [*analysis.warnings, *done.notes]
    return document


def _left_alone(done: Applied) -> dict[str, Any]:
    return {
        "skipped": [
            {"reason": reason.value, "inodes": inodes, "bytes": size}
            for reason, (inodes, size) in done.skipped.items()
        ],
        "failed": [{"path": path, "error": error} for path, error in done.failed],
    }


def undo_document(undoing: Undoing, applied: Applied | None) -> dict[str, Any]:
    """What ``undo --json`` prints; without an outcome (``--dry-run``) with every name."""
    inodes = undoing.inodes
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "planned": {
            "inodes": len(inodes),
            "names": sum(len(inode.names) for inode in inodes),
            "bytes_needed": undoing.bytes_needed,
        },
    }
    if applied is None:
        document["dry_run"] = True
        document["copies"] = [
            {"bytes": inode.disk_bytes, "names": undoing.scope.paths_of(inode)} for inode in inodes
        ]
    done = applied or Applied()
    document["done"] = {"inodes": done.inodes, "names": done.names, "bytes_used": -done.bytes_freed}
    return document | _left_alone(done)


def verify_document(verified: Verified, repair: Repair | None, applied: Applied | None) -> dict[str, Any]:
    """What ``verify --json`` prints, with what was or would be repaired if that was asked for."""
    scope = verified.inventory.scope
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "verified": {"inodes": verified.inodes, "bytes": verified.bytes, "unknown": verified.unknown},
        "damaged": [_damage(scope, damage) for damage in verified.damages],
    }
    if repair is not None:
        done = applied or Applied()
        document["repair"] = {
            "planned": [
                {"names": scope.paths_of(copy.duplicate), "from": repair.sources[id(copy.duplicate)]}
                for copy in repair.copies
            ],
            "beyond": [asdict(beyond) for beyond in repair.beyond],
            "done": {"inodes": done.inodes, "names": done.names},
            **_left_alone(done),
        }
    return document


def _damage(scope: Scope, damage: Damage) -> dict[str, Any]:
    trees = {name.tree: scope.trees[name.tree] for name in damage.inode.names}
    return {
        "names": scope.paths_of(damage.inode),
        "environments": [tree.name for tree in trees.values() if not tree.is_cache],
        "caches": [tree.root for tree in trees.values() if tree.is_cache],
        "names_outside": damage.outside,
        "sha256": damage.found.hex() or None,
        "expected": [
            {
                "path": f"{scope.trees[name.tree].root}/{name.path}",
                "package": str(name.claim.dist) if name.claim else None,
                "sha256": digest.hex() or None,
            }
            for digest, names in damage.names.items()
            for name in names
        ],
    }


def clean_document(
    unused: list[Unused], leftovers: list[Leftover], gone: tuple[list[Unused], list[Leftover]] | None
) -> dict[str, Any]:
    """What ``clean --json`` prints; without ``gone`` it was a dry run."""
    removed, cleared = gone or ([], [])
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "unused": [asdict(package) for package in unused],
        "leftovers": [str(left) for left in leftovers],
        "removed": [package.path for package in removed] + [str(left) for left in cleared],
        "bytes_freed": sum(package.bytes_freed for package in removed),
    }
    if gone is None:
        document["dry_run"] = True
    return document


def history_document(runs: list[Run]) -> dict[str, Any]:
    """What ``history --json`` prints; times as in RFC 3339, in UTC."""

    def when(seconds: float | None) -> str | None:
        return None if seconds is None else datetime.fromtimestamp(seconds, timezone.utc).isoformat()

    return {
        "schema": SCHEMA,
        "runs": [
            {**asdict(run), "started": when(run.started), "finished": when(run.finished)} for run in runs
        ],
    }
