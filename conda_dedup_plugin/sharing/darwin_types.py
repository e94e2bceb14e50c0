"""What macOS hands out and takes, byte by byte, and what its numbers mean. Pure."""

from __future__ import annotations

import ctypes
import struct

from ..layouts import append
from ..model import Extent, Layout, Reason

#: renameatx_np(2), clonefile(2), copyfile(3), fcntl(2); from the SDK's headers.
RENAME_SWAP = 0x2
CLONE_NOFOLLOW = 0x1
CLONE_NOOWNERCOPY = 0x2
COPYFILE_ACL = 0x1
COPYFILE_STAT = 0x2
COPYFILE_XATTR = 0x4
COPYFILE_METADATA = COPYFILE_ACL | COPYFILE_STAT | COPYFILE_XATTR
F_GETPATH = 50
F_FULLFSYNC = 51
F_LOG2PHYS_EXT = 65
F_BARRIERFSYNC = 85
MAXPATHLEN = 1024
ACL_TYPE_EXTENDED = 0x100
PROC_PIDTBSDINFO = 3
SZOMB = 5

#: st_flags(2): what cannot be changed, and what the system itself has done something to.
_UF_IMMUTABLE = 0x2
_UF_APPEND = 0x4
_UF_COMPRESSED = 0x20
_UF_DATAVAULT = 0x80
_SUPER_USER = 0xFFFF0000
#: Of the flags, those that a copy has from where it is made rather than from what it is made of.
_NOT_KEPT = 0x40  # UF_TRACKED

#: struct log2phys: flags, contiguous bytes, offset on the device; packed to 4 bytes.
LOG2PHYS = struct.Struct("=Iqq")


class StatFs(ctypes.Structure):
    """struct statfs, with 64-bit inode numbers."""

    _fields_ = (
        ("f_bsize", ctypes.c_uint32),
        ("f_iosize", ctypes.c_int32),
        ("f_blocks", ctypes.c_uint64),
        ("f_bfree", ctypes.c_uint64),
        ("f_bavail", ctypes.c_uint64),
        ("f_files", ctypes.c_uint64),
        ("f_ffree", ctypes.c_uint64),
        ("f_fsid", ctypes.c_int32 * 2),
        ("f_owner", ctypes.c_uint32),
        ("f_type", ctypes.c_uint32),
        ("f_flags", ctypes.c_uint32),
        ("f_fssubtype", ctypes.c_uint32),
        ("f_fstypename", ctypes.c_char * 16),
        ("f_mntonname", ctypes.c_char * 1024),
        ("f_mntfromname", ctypes.c_char * 1024),
        ("f_flags_ext", ctypes.c_uint32),
        ("f_reserved", ctypes.c_uint32 * 7),
    )


class BsdInfo(ctypes.Structure):
    """struct proc_bsdinfo, of which the state and the time of the start are wanted."""

    _fields_ = (
        ("pbi_flags", ctypes.c_uint32),
        ("pbi_status", ctypes.c_uint32),
        ("pbi_xstatus", ctypes.c_uint32),
        ("pbi_pid", ctypes.c_uint32),
        ("pbi_ppid", ctypes.c_uint32),
        ("pbi_ids", ctypes.c_uint32 * 6),
        ("rfu_1", ctypes.c_uint32),
        ("pbi_comm", ctypes.c_char * 16),
        ("pbi_name", ctypes.c_char * 32),
        ("pbi_nfiles", ctypes.c_uint32),
        ("pbi_pgid", ctypes.c_uint32),
        ("pbi_pjobc", ctypes.c_uint32),
        ("e_tdev", ctypes.c_uint32),
        ("e_tpgid", ctypes.c_uint32),
        ("pbi_nice", ctypes.c_int32),
        ("pbi_start_tvsec", ctypes.c_uint64),
        ("pbi_start_tvusec", ctypes.c_uint64),
    )


def refused_flags(flags: int) -> Reason | None:
    """Why a file with these flags is left alone; None: it need not be.

    The flag of a compressed file belongs to how its bytes are kept, which sharing would change.
    """
    if flags & (_UF_IMMUTABLE | _UF_APPEND | _SUPER_USER):
        return Reason.IMMUTABLE
    if flags & (_UF_COMPRESSED | _UF_DATAVAULT):
        return Reason.UNSUPPORTED
    return None


def kept_flags(flags: int) -> int:
    """Return those of a file's flags that go with it when it is copied."""
    return flags & ~_NOT_KEPT


def layout_of_runs(runs: list[tuple[int, int, int]]) -> Layout | None:
    """Put together (logical, physical, length) as F_LOG2PHYS_EXT tells them; a place of -1 is a hole.

    None: nothing was told. Who else holds an extent is never told, so that all count as unshared.
    """
    extents: list[Extent] = []
    for logical, physical, length in runs:
        if physical >= 0:
            append(extents, Extent(logical, physical, length))
    return Layout(tuple(extents), shared=False, exact=True) if extents else None
