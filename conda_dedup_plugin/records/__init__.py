"""What package managers wrote down of their files: digests, without reading any content."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..model import Manager
from .conda_meta import read_environment
from .package_cache import read_cache
from .pip_record import read_wheels
from .reading import Memo, RecordError, Records
from .uv_cache import read_uv_cache

if TYPE_CHECKING:
    from ..model import Claim, Dist, Tree

__all__ = ["Memo", "RecordError", "Records", "read_claims"]


def read_claims(tree: Tree, memo: Memo | None = None) -> Records:
    """Read every record of a tree. A damaged one costs a warning that names it, never the run.

    What pip says of a path counts for more than what conda says: pip was there later. With a ``memo`` what
    several environments have alike is read once.
    """
    if tree.is_cache:
        return read_uv_cache(tree.root) if tree.manager is Manager.UV else read_cache(tree.root)
    records = read_environment(tree.root, memo)
    wheels = read_wheels(tree.root, records.claims, memo)
    records.clobbered = _clobbered(records.claims, wheels.claims)
    records.claims.update(wheels.claims)
    records.warnings += wheels.warnings
    return records


def _clobbered(conda: dict[str, Claim], pip: dict[str, Claim]) -> dict[str, tuple[Dist, Dist]]:
    """Return (conda's dist, pip's) of every path that both have, where the content is not known to be equal.

    Bytecode has no digest, and says no more than its source does.
    """
    found = {}
    for path in sorted(conda.keys() & pip.keys()):
        one, other = conda[path], pip[path]
        if path.endswith(".pyc") or (one.sha256 is not None and one.sha256 == other.sha256):
            continue
        found[path] = (one.dist, other.dist)
    return found
