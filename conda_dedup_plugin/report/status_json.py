"""The status as a JSON document."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from msgspec.structs import asdict

from ..declared import AUTO, AUTO_BUDGET
from ..model import SCHEMA
from .status import command_for, name_of, notes_of

if TYPE_CHECKING:
    from ..distant import Distant
    from ..history import Run
    from ..pending import Check
    from ..status import OnDevice, Status


def _utc(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, timezone.utc).isoformat()


def status_document(status: Status, prog: str) -> dict[str, Any]:
    """What ``status --json`` prints; times as in RFC 3339, in UTC."""
    settings = status.settings
    return {
        "schema": SCHEMA,
        "devices": [_device(one) for one in status.devices],
        "automatic": {
            "on": settings.auto,
            "budget_seconds": settings.auto_budget,
            "on_set_in": status.origins.get(AUTO),
            "budget_set_in": status.origins.get(AUTO_BUDGET),
            "checks": [
                {
                    **_environment(check, status),
                    "checked": _utc(check.checked),
                    "files": check.result.files if check.result else 0,
                    "bytes_freed": check.result.bytes_freed if check.result else 0,
                    "failed": check.result.failed if check.result else 0,
                }
                for check in status.checks
                if check.checked is not None
            ],
        },
        "last_run": None if status.last is None else _run_document(status.last),
        "pending": [
            {
                **_environment(check, status),
                "since": _utc(check.pending.noted),
                "packages": check.pending.linked,
                "running": not check.pending.is_free,
                "command": command_for(check, status, prog),
            }
            for check in status.pending
            if check.pending is not None
        ],
        "interrupted": [
            {
                **_run_document(one.run),
                "changes": one.changes,
                "stagings": one.stagings,
                "prefixes": sorted(one.roots),
                "takes_up": f"{prog} apply",
            }
            for one in status.interrupted
        ],
        "copied": [_distant_document(distant) for distant in status.distant],
        "warnings": status.warnings,
    }


def _device(one: OnDevice) -> dict[str, Any]:
    place, device = one.place, one.place.device
    return {
        "device": device.number,
        "pool": device.pool,
        "mount_point": place.mount_point,
        "directory": place.directory,
        "file_system": device.file_system,
        "reflink": device.reflink if device.certain else None,
        "hardlink": device.hardlink,
        "atomic_exchange": place.exchange,
        "link_limit": device.link_limit,
        "overlay": device.overlay,
        "remote": device.remote,
        "read_only": place.read_only,
        "environments": len(place.environments),
        "caches": len(place.caches),
        "method": one.methods[0].value if one.methods else None,
        "methods": [method.value for method in one.methods],
        "why": one.why.value,
        "held": None if one.held is None else one.held.value,
        "notes": notes_of(one),
    }


def _environment(check: Check, status: Status) -> dict[str, Any]:
    return {"name": name_of(check, status), "prefix": check.prefix}


def _run_document(run: Run) -> dict[str, Any]:
    return {**asdict(run), "started": _utc(run.started), "finished": _utc(run.finished)}


def _distant_document(distant: Distant) -> dict[str, Any]:
    return {
        "name": distant.tree.name,
        "prefix": distant.tree.root,
        "manager": distant.tree.manager.value,
        "device": distant.place.device.number,
        "mount_point": distant.place.mount_point,
        "caches": list(distant.caches),
        "same_file_system": distant.subvolume,
        "shared_by_reflink": distant.by_reflink,
        "setting": distant.setting,
        "value": distant.value or None,
    }
