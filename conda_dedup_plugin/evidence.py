"""What must be looked at for candidates only: attributes, first bytes, extents, and their devices."""

from __future__ import annotations

import os
from itertools import chain
from typing import TYPE_CHECKING

from .model import Hazard
from .policy import HEAD_BYTES, is_native_head
from .sharing.extents import is_nodatacow, layout_of
from .sharing.opening import Directories, open_inode, xattrs_of
from .sharing.probe import probe
from .sharing.system import is_bare, pread, refused, user

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .layouts import CompressedSizes
    from .model import Device, Inode, Scope

_CAPABILITIES = b"security.capability"


def gather(
    scope: Scope,
    candidates: Iterable[Sequence[Inode]],
    devices: dict[int, Device],
    sizes: CompressedSizes,
) -> list[list[Inode]]:
    """Look at every candidate and return the groups again; ``devices`` gets those they lie on.

    An inode that cannot be opened (gone, or not ours to read) leaves its group. Extents are asked for
    only where they can be shared; their sizes are the inode's disk bytes then.
    """
    groups: list[list[Inode]] = []
    known = list(candidates)
    probe_devices(scope, known, devices)
    with Directories() as directories:
        for inodes in known:
            group = [inode for inode in inodes if _look(scope, inode, devices, directories)]
            if len(group) > 1:
                groups.append(group)
            directories.trim()
    _measure(known, devices, sizes)
    return groups


def _measure(
    candidates: Iterable[Sequence[Inode]], devices: dict[int, Device], sizes: CompressedSizes
) -> None:
    """Set what files whose extents are known take of their device."""
    found = [inode for inode in chain.from_iterable(candidates) if inode.layout is not None]
    for inode in found:
        if inode.layout is not None and inode.layout.encoded:
            sizes.add(devices[inode.key.device].pool, inode.layout)
    for inode in found:
        if inode.layout is not None:
            inode.disk_bytes = sizes.disk_bytes(devices[inode.key.device].pool, inode.layout)


def probe_devices(scope: Scope, candidates: Iterable[Sequence[Inode]], devices: dict[int, Device]) -> None:
    """Probe every device that is not known by the first file of it that can tell."""
    for inode in chain.from_iterable(candidates):
        device = devices.get(inode.key.device)
        if device is not None and device.certain:
            continue
        try:
            descriptor = open_inode(scope, inode)
        except OSError:
            continue
        try:
            devices[inode.key.device] = probe(descriptor)
        finally:
            os.close(descriptor)


def _is_plain(scope: Scope, inode: Inode, devices: dict[int, Device]) -> bool:
    """Whether there is nothing to be found that the walk has not found: most files need not be opened."""
    device = devices.get(inode.key.device)
    mode = inode.mode
    if device is None or device.reflink or not device.certain:
        return False
    if mode & 0o111 and inode.hazard in (Hazard.PACKAGE, Hazard.UNTRACKED):
        return False
    if not (mode & 0o004 or user() == 0 or (mode & 0o400 and inode.uid == user())):
        return False  # it may be that it cannot be read
    name = inode.names[0]
    if name.path.count("/") > Directories.DEEPEST:
        return False
    return is_bare(f"{scope.trees[name.tree].root}/{name.path}")


def _look(scope: Scope, inode: Inode, devices: dict[int, Device], directories: Directories) -> bool:
    if _is_plain(scope, inode, devices):
        return True
    try:
        descriptor = open_inode(scope, inode, directories)
    except OSError:
        return False
    try:
        if refused(os.fstat(descriptor)) is not None:
            return False
        inode.xattrs = xattrs_of(descriptor)
        inode.capabilities = _CAPABILITIES in inode.xattrs
        if devices[inode.key.device].reflink:
            inode.layout = layout_of(descriptor)
            inode.nodatacow = is_nodatacow(descriptor)
        executable = inode.mode & 0o111 and inode.hazard in (Hazard.PACKAGE, Hazard.UNTRACKED)
        if executable and is_native_head(pread(descriptor, HEAD_BYTES, 0)):
            inode.hazard = Hazard.NATIVE
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True
