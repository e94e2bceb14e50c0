"""The packages of an existing environment: conda's records, and what pip brought besides."""

from __future__ import annotations

import os

from ..records.conda_meta import read_dists
from ..records.heads import read_head
from ..records.pip_record import read_packages
from ..records.reading import RecordError
from .packages import Package, Specs, in_order


def read_environment(prefix: str, name: str = "") -> Specs:
    """Return the packages of the environment at ``prefix``; what cannot be read costs a warning."""
    packages: list[Package] = []
    owned: set[str] = set()
    warnings: list[str] = []
    for path in read_dists(prefix).values():
        try:
            record = read_head(path)
        except RecordError as exc:
            warnings.append(str(exc))
            continue
        except MemoryError:
            warnings.append(f"{os.fspath(path)!r} is too big to be read.")
            continue
        owned.update(record.wheels)
        packages.append(Package(record.dist, record.size, record.url, record.md5))
    packages += [Package(dist, size) for dist, size in read_packages(prefix, owned) if dist.name]
    named = name or prefix.rstrip("/").rpartition("/")[2]
    return Specs(named, prefix, in_order(packages), True, tuple(warnings))
