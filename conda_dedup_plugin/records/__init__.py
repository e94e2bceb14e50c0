"""What package managers wrote down of their files: digests, without reading any content."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .conda_meta import read_environment
from .package_cache import read_cache
from .pip_record import read_wheels
from .reading import RecordError, Records

if TYPE_CHECKING:
    from ..model import Tree

__all__ = ["RecordError", "Records", "read_claims"]


def read_claims(tree: Tree) -> Records:
    """Read every record of a tree. A damaged one costs a warning that names it, never the run.

    What pip says of a path counts for more than what conda says: pip was there later.
    """
    if tree.is_cache:
        return read_cache(tree.root)
    records = read_environment(tree.root)
    wheels = read_wheels(tree.root, records.claims)
    records.claims.update(wheels.claims)
    records.warnings += wheels.warnings
    return records
