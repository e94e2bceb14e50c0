"""``python -m conda_dedup_plugin.demo.creation CHANNEL CACHE PREFIX...``: environments made by rattler.

In a process of its own, which can be ended for good: the threads of rattler survive an interrupt, and make
the directories again that are being removed.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from .packages import index_channel, native_subdir

#: What every environment is made of; the channel has them and ``python``.
SPECS = ("numpy", "runtime")


async def create(channel: str, cache: Path, prefixes: list[Path]) -> None:
    """Install :data:`SPECS` into every one of ``prefixes``, by way of the package cache ``cache``."""
    import rattler

    gateway = rattler.Gateway(cache_dir=cache.with_name(".repodata"))
    platforms = [native_subdir(), "noarch"]
    records = await rattler.solve([channel], SPECS, gateway=gateway, platforms=platforms)
    for prefix in prefixes:
        await rattler.install(records, target_prefix=prefix, cache_dir=cache, show_progress=False)


if __name__ == "__main__":
    folder, packages, *targets = sys.argv[1:]
    asyncio.run(create(index_channel(folder), Path(packages), [Path(target) for target in targets]))
    # Without taking Python down, which now and then ends in a segmentation fault while rattler's threads run.
    os._exit(0)
