"""All staging directories of one run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..model import STAGING_PREFIX
from .staging import Staging

if TYPE_CHECKING:
    from ..journal import Journal
    from .opening import Directories


class Stagings:
    """The staging directories of one run, each written down before it is made."""

    def __init__(self, journal: Journal, directories: Directories) -> None:
        self._journal = journal
        self._directories = directories
        self._open: dict[tuple[str, str], Staging] = {}

    def __len__(self) -> int:
        return len(self._open)

    def near(self, root: str, path: str, device: int) -> Staging:
        """Return the one at the root of the tree, or else beside ``path``, so that it is on ``device``."""
        staging = self._at(root, "")
        return staging if staging.device == device else self._at(root, path.rpartition("/")[0])

    def _at(self, root: str, below: str) -> Staging:
        found = self._open.get((root, below))
        if found is None:
            self._journal.staging(root, f"{below}/{STAGING_PREFIX}{self._journal.run}".lstrip("/"))
            found = Staging.make(self._journal.run, root, below, self._directories)
            self._open[(root, below)] = found
        return found

    def close(self) -> None:
        """Remove those in which nothing is left."""
        while self._open:
            staging = self._open.popitem()[1]
            if not staging.close(self._directories):
                self._journal.left.append((staging.root, staging.path))
