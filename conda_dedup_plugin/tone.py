"""How much is said and how exactly: set once by the command line, for all that it prints."""

from __future__ import annotations

from msgspec import Struct

#: So wide is a column of bytes, rounded and exact.
_ROUNDED, _EXACT = 9, 21


class _Tone(Struct):
    quiet: bool = False
    exact: bool = False


_tone = _Tone()


def set_tone(quiet: bool, exact: bool) -> None:
    """Leave warnings and progress out; write bytes to the last digit."""
    _tone.quiet, _tone.exact = quiet, exact


def is_quiet() -> bool:
    """Whether warnings and progress are left out."""
    return _tone.quiet


def is_exact() -> bool:
    """Whether bytes are written to the last digit."""
    return _tone.exact


def amount(size: int) -> str:
    """Write "1.2 GB" or, exactly, "1,234,567,890 bytes"."""
    if _tone.exact:
        return f"{size:,} {'byte' if size == 1 else 'bytes'}"
    from rich.filesize import decimal

    return decimal(size)


def aligned(size: int) -> str:
    """Write the same as wide as all others of a column."""
    return f"{amount(size):>{_EXACT if _tone.exact else _ROUNDED}}"
