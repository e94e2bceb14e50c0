"""Which of two versions is newer, and whether one is among those asked for.

By conda's own order where conda can be imported, by that of ``packaging`` otherwise; of pip's packages
always by the latter.
"""

from __future__ import annotations

import re
from typing import Any

from packaging.version import InvalidVersion, Version

from .specs.packages import is_range

_CLAUSE = re.compile(r"\s*(>=|<=|===|==|!=|~=|>|<|=|\^)?\s*([^\s<>=!~^]+)\s*\Z")


def newer(a: str, b: str, pip: bool = False) -> int | None:
    """Return 1 if ``a`` is newer than ``b``, -1 if older, 0 if they mean the same; None: nobody can tell."""
    if a == b:
        return 0
    if is_range(a) or is_range(b):
        return None
    both = None if pip else _by_conda(a, b)
    if both is None:
        try:
            both = Version(a), Version(b)
        except InvalidVersion:
            return None
    one, other = both
    return 0 if one == other else 1 if one > other else -1


def _by_conda(a: str, b: str) -> tuple[Any, Any] | None:
    """Both as conda sees them; None where there is no conda, or it takes one of them for no version."""
    try:
        from conda.models.version import VersionOrder

        return VersionOrder(a), VersionOrder(b)
    except Exception:
        return None


def satisfies(version: str, wanted: str, pip: bool = False) -> bool:
    """Whether a version is among those a range asks for; of two ranges, whether they are the same.

    What is not understood is taken as satisfied: a file that leaves a version open says no more.
    """
    if version == wanted or not wanted or not version:
        return True
    if is_range(version):
        return not is_range(wanted) and satisfies(wanted, version, pip)
    return any(
        all(_meets(version, clause, pip) for clause in choice.split(",") if clause.strip())
        for choice in wanted.split("|")
    )


def _meets(version: str, clause: str, pip: bool) -> bool:
    found = _CLAUSE.match(clause)
    if found is None:
        return True
    operator, text = found[1] or "==", found[2]
    fuzzy = text.endswith("*") or operator == "="
    if text == "*":
        return True
    if fuzzy and operator in ("=", "==", "!="):
        start = text.rstrip("*").rstrip(".")
        begins = version == start or version.startswith((start + ".", start + "+"))
        if text.endswith("*") and not text.endswith(".*"):
            begins = version.startswith(start)
        return begins != (operator == "!=")
    if operator == "===":
        return version == text
    text = text.rstrip("*").rstrip(".")
    order = newer(version, text, pip)
    if order is None:
        return True
    if operator == "~=":
        return order >= 0 and (version + ".").startswith(text.rpartition(".")[0] + ".")
    return {"==": order == 0, "!=": order != 0, ">=": order >= 0, "<=": order <= 0, ">": order > 0,
            "<": order < 0}.get(operator, True)  # fmt: skip
