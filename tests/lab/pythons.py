"""The Pythons of this machine, for what must hold for every one of them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

#: The minor versions of CPython that are supported.
MINORS = range(10, 15)


@cache
def pythons() -> list[str]:
    """Return one executable of each supported version there is, the one that runs the tests first."""
    found = [sys.executable]
    roots = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser() / "versions"
    for minor in MINORS:
        if minor == sys.version_info.minor:
            continue
        name = f"python3.{minor}"
        candidates = [shutil.which(name) or "", *map(str, roots.glob(f"*/bin/{name}"))]
        found += next(([path] for path in candidates if path and _runs(path)), [])
    return found


def _runs(python: str) -> bool:
    """A shim may stand for a version that is not there."""
    return subprocess.run([python, "-c", ""], capture_output=True, check=False).returncode == 0
