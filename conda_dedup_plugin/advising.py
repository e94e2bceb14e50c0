"""What conda's hook knows of an environment that is to be made, and the advice on it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence


def advice_on(command: str, records: Sequence[Any]) -> str | None:
    """Return the advice on what conda is about to make; None: there is none, or nobody wants it."""
    from conda.base.context import context

    if context.json or context.quiet or context.download_only:
        return None
    from .settings import load, sharing_is_automatic

    settings = load()
    if not settings.advise:
        return None
    from .advise import Asked, Creation, advise
    from .environments import Request, find
    from .files import existing_parent, real_path

    target = _place(command, context)
    creation = Creation(
        packages=tuple(
            Asked(
                record.name,
                f"{record.name}-{record.version}-{record.build}",
                getattr(record.noarch, "value", record.noarch) == "python",
            )
            for record in records
        ),
        place=existing_parent(target),
        caches=tuple(context.pkgs_dirs),
        copies=bool(context.always_copy),
        automatic=settings.auto and settings.auto_budget > 0 and sharing_is_automatic(),
    )
    advice = advise(creation, find(Request()), settings, but={real_path(target)})
    return None if advice is None else str(advice)


def _place(command: str, context: Any) -> str:
    """Return where an environment is to be made, or the directory that it will be in."""
    from conda.base.constants import UNUSED_ENV_NAME

    from .environments import is_environment
    from .files import existing_parent

    target = str(context.target_prefix or "")
    # of an old conda's "env create" the file has the name; of a dry run nobody need say it
    elsewhere = command == "env_create" and is_environment(target)
    if elsewhere or Path(target).name in ("", UNUSED_ENV_NAME):
        return next((path for path in context.envs_dirs if os.access(existing_parent(path), os.W_OK)), target)
    return target
