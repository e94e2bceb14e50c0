"""How whole files are reflinked on this system: by one of three classes that are used alike."""

from __future__ import annotations

import sys

if sys.platform == "win32":
    from .duplicate import Duplicator as Reflinker
elif sys.platform == "darwin":
    from .clone import Cloner as Reflinker
else:
    from .reflink import Reflinker

#: Whether an inode can be given extents of its own again in place; else it gets a private copy.
UNSHARES = sys.platform == "linux"

__all__ = ["Reflinker", "UNSHARES"]
