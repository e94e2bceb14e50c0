"""Asks where files lie on their devices, where files can share extents."""

from __future__ import annotations

import os
from array import array
from typing import TYPE_CHECKING

from .layouts import disk_bytes_of, shared_extents
from .listing import Blocks
from .sharing.extents import layout_of
from .sharing.probe import probe
from .sharing.system import open_entry

if TYPE_CHECKING:
    from .model import Device, Layout


class Layouts:
    """The extents of files that a walk finds; knows what each device can, once a file of it was asked."""

    def __init__(self) -> None:
        self._devices: dict[int, Device] = {}
        self._asked: set[int] = set()

    @property
    def anywhere(self) -> bool:
        """Whether files share extents on any device that was asked, or may: nobody could tell."""
        return not all(map(self.has_none, self._asked))

    def has_none(self, number: int) -> bool:
        """Whether it is known that no files of a device share extents."""
        device = self._devices.get(number)
        return device is not None and device.certain and not device.reflink

    def of(self, name: str, number: int, directory: int) -> tuple[Layout | None, str]:
        """Return the extents of a file of an open directory and the name of its file system.

        None where files share none, and for a file that cannot be opened. ``number`` is its device's.
        """
        self._asked.add(number)
        try:
            descriptor = open_entry(name, directory)
        except OSError:
            return None, ""
        try:
            device = self._devices.get(number)
            if device is None or not device.certain:
                device = self._devices[number] = probe(descriptor)
            return (layout_of(descriptor) if device.reflink else None), device.pool
        except OSError:
            return None, ""
        finally:
            os.close(descriptor)


def blocks_of(
    layouts: Layouts | None, begins: dict[str, array[int]], name: str, stat: os.stat_result, directory: int
) -> Blocks:
    """Return what a file of an open directory takes of its device.

    Where its extents begin is noted in ``begins`` for each file system.
    """
    layout = None
    if layouts is not None and not layouts.has_none(stat.st_dev):
        layout, pool = layouts.of(name, stat.st_dev, directory)
    if layout is None:
        return Blocks(disk_bytes_of(stat))
    begins.setdefault(pool, array("Q")).extend(extent.physical for extent in layout.extents)
    plain = sum(extent.length for extent in layout.unshared if not extent.encoded)
    own = tuple(extent for extent in layout.unshared if extent.encoded)
    return Blocks(plain, own, shared_extents(layout), pool)
