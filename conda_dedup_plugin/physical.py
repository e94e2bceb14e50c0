"""Asks where files lie on their devices, where files can share extents."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from .sharing.extents import layout_of
from .sharing.probe import probe
from .sharing.system import open_entry

if TYPE_CHECKING:
    from .model import Device, Layout
    from .walking import Found


class Layouts:
    """The extents of files that a walk finds; knows what each device can, once a file of it was asked."""

    def __init__(self) -> None:
        self._devices: dict[int, Device] = {}

    def of(self, file: Found) -> tuple[Layout | None, str]:
        """Return the extents of a file and the name of its file system; None where files share none.

        None, too, for a file that cannot be opened.
        """
        device = self._devices.get(file.stat.st_dev)
        if device is not None and device.certain and not device.reflink:
            return None, device.pool
        try:
            descriptor = open_entry(file.path.rpartition("/")[2], file.directory)
        except OSError:
            return None, ""
        try:
            if device is None or not device.certain:
                device = self._devices[file.stat.st_dev] = probe(descriptor)
            return (layout_of(descriptor) if device.reflink else None), device.pool
        except OSError:
            return None, ""
        finally:
            os.close(descriptor)
