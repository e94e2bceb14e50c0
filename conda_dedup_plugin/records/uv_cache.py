"""uv's cache: unpacked wheels, each with the RECORD that it was built with."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ..sites import directories
from .pip_record import dist_info_directories, name_version, read_wheel, read_wheels
from .reading import Records

if TYPE_CHECKING:
    from ..model import Claim


def uv_wheels(root: str) -> dict[tuple[str, str], str]:
    """Return the RECORD of every wheel in ``root`` by (PEP 503 name, version), without reading any."""
    found = {}
    for name in directories(root):
        for directory in dist_info_directories(f"{root}/{name}"):
            found[name_version(directory)] = f"{directory}/RECORD"
    return found


def read_uv_cache(root: str) -> Records:
    """Return what the wheels in ``root``, an ``archive-v0``, say of their files, by path in it.

    A virtual environment that uv keeps there (for ``uv tool run``) has its wheels where any other has them.
    """
    records = Records()
    for name in directories(root):
        archive = f"{root}/{name}"
        claims: dict[str, Claim] = {}
        for directory in dist_info_directories(archive):
            path = f"{directory}/RECORD"
            if os.path.lexists(path):
                claims.update(read_wheel(path, archive, records.warnings))
        if os.path.lexists(f"{archive}/pyvenv.cfg"):
            installed = read_wheels(archive, {})
            claims.update(installed.claims)
            records.warnings += installed.warnings
        for path, claim in claims.items():
            records.claims[f"{name}/{path}"] = claim
    return records
