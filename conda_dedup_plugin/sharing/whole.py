"""How whole files are reflinked on this system, and that taken back: classes that are used alike."""

from __future__ import annotations

import sys

from .unshare import Unsharer

if sys.platform == "win32":
    from .duplicate import ClusterUnsharer as Unsharer
    from .duplicate import Duplicator as Reflinker
elif sys.platform == "darwin":
    from .clone import Cloner as Reflinker
else:
    from .reflink import Reflinker

#: Whether anybody tells if the extents of a file are another one's as well.
TELLS_SHARED = sys.platform == "linux"

__all__ = ["Reflinker", "TELLS_SHARED", "Unsharer"]
