"""Whether two open files hold the same bytes."""

from __future__ import annotations

from .system import pread

#: Both chunks fit into the cache of a processor.
_CHUNK = 256 * 1024


def same_bytes(first: int, second: int, size: int) -> bool:
    """Compare ``size`` bytes of two descriptors, without mapping them (a truncated map kills)."""
    offset = 0
    while offset < size:
        wanted = min(_CHUNK, size - offset)
        one = pread(first, wanted, offset)
        if len(one) == 0 or one != pread(second, len(one), offset):
            return False
        offset += len(one)
    return True
