"""What Windows hands out and takes, byte by byte, and what its numbers mean. Pure."""

from __future__ import annotations

import ctypes
import struct

from ..layouts import append
from ..model import Extent, Layout

#: Access rights and how others may open the file meanwhile (winnt.h).
DELETE = 0x00010000
SYNCHRONIZE = 0x00100000
READ = 0x00120089  # FILE_GENERIC_READ
WRITE = 0x00120116  # FILE_GENERIC_WRITE
READ_ATTRIBUTES = 0x0080
WRITE_ATTRIBUTES = 0x0100
LIST_AND_TRAVERSE = 0x00120021 | READ_ATTRIBUTES
SHARE_READ = 0x1
SHARE_WRITE = 0x2
SHARE_DELETE = 0x4
SHARE_ALL = SHARE_READ | SHARE_WRITE | SHARE_DELETE
#: Nobody may write to it, or have it open for that; it may be renamed.
SHARE_NO_WRITE = SHARE_READ | SHARE_DELETE
ATTRIBUTE_NORMAL = 0x80
#: Changed by backups, sync programs and the search index: archive, normal, not indexed, pinned, unpinned.
NOT_COMPARED = 0x20 | ATTRIBUTE_NORMAL | 0x2000 | 0x80000 | 0x100000
ATTRIBUTE_REPARSE_POINT = 0x400
#: What of the attributes goes with a copy: read-only, hidden, system, archive, not indexed.
_COPIED = 0x1 | 0x2 | 0x4 | 0x20 | 0x2000
#: SECURITY_INFORMATION, and the right to change the list of who may do what.
OWNER_GROUP_AND_DACL = 0x7
DACL = 0x4
WRITE_DACL = 0x40000
#: NtCreateFile: what to do, and how.
OPEN = 1
CREATE = 2
DIRECTORY_FILE = 0x1
SYNCHRONOUS = 0x20
NON_DIRECTORY_FILE = 0x40
OPEN_REPARSE_POINT = 0x200000
CASE_INSENSITIVE = 0x40
#: FILE_INFORMATION_CLASS of NtSetInformationFile, FS_INFORMATION_CLASS, FILE_INFO_BY_HANDLE_CLASS.
RENAME_INFORMATION = 10
LINK_INFORMATION = 11
DISPOSITION_INFORMATION = 13
DISPOSITION_INFORMATION_EX = 64
RENAME_INFORMATION_EX = 65
FULL_SIZE_INFORMATION = 7
BASIC_INFO = 0
STANDARD_INFO = 1
ATTRIBUTE_TAG_INFO = 9
REMOTE_PROTOCOL_INFO = 13
REMOTE_PROTOCOL_SIZE = 116
#: Deleted, and replaced, at once, whoever has it open; also if it is marked as read-only.
DISPOSE_POSIX = 0x1 | 0x2 | 0x10
RENAME_POSIX = 0x1 | 0x2 | 0x40
#: GetVolumeInformationByHandleW.
SUPPORTS_HARD_LINKS = 0x00400000
SUPPORTS_BLOCK_REFCOUNTING = 0x08000000
FSCTL_DUPLICATE_EXTENTS_TO_FILE = 0x00098344
FSCTL_GET_RETRIEVAL_POINTERS = 0x00090073
QUERY_LIMITED_INFORMATION = 0x1000
STILL_ACTIVE = 259

#: One call shares less than 4 GiB.
_MOST_SHARED = 1 << 30
#: RETRIEVAL_POINTERS_BUFFER: how many extents, the first cluster; for each: the next cluster, the place.
RETRIEVAL_HEADER = struct.Struct("<I4xq")
RETRIEVAL_EXTENT = struct.Struct("<qq")


class UnicodeString(ctypes.Structure):
    """UNICODE_STRING; lengths in bytes."""

    _fields_ = (
        ("Length", ctypes.c_uint16),
        ("MaximumLength", ctypes.c_uint16),
        ("Buffer", ctypes.c_wchar_p),
    )


class ObjectAttributes(ctypes.Structure):
    """OBJECT_ATTRIBUTES: a name, relative to an open directory if there is one."""

    _fields_ = (
        ("Length", ctypes.c_uint32),
        ("RootDirectory", ctypes.c_void_p),
        ("ObjectName", ctypes.POINTER(UnicodeString)),
        ("Attributes", ctypes.c_uint32),
        ("SecurityDescriptor", ctypes.c_void_p),
        ("SecurityQualityOfService", ctypes.c_void_p),
    )


class IoStatusBlock(ctypes.Structure):
    """IO_STATUS_BLOCK."""

    _fields_ = (("Status", ctypes.c_void_p), ("Information", ctypes.c_void_p))


class BasicInfo(ctypes.Structure):
    """FILE_BASIC_INFO; times in 100 ns since 1601, 0: as it is."""

    _fields_ = (
        ("CreationTime", ctypes.c_int64),
        ("LastAccessTime", ctypes.c_int64),
        ("LastWriteTime", ctypes.c_int64),
        ("ChangeTime", ctypes.c_int64),
        ("FileAttributes", ctypes.c_uint32),
    )


class AttributeTagInfo(ctypes.Structure):
    """FILE_ATTRIBUTE_TAG_INFO."""

    _fields_ = (("FileAttributes", ctypes.c_uint32), ("ReparseTag", ctypes.c_uint32))


class StandardInfo(ctypes.Structure):
    """FILE_STANDARD_INFO."""

    _fields_ = (
        ("AllocationSize", ctypes.c_int64),
        ("EndOfFile", ctypes.c_int64),
        ("NumberOfLinks", ctypes.c_uint32),
        ("DeletePending", ctypes.c_uint8),
        ("Directory", ctypes.c_uint8),
    )


class NamedInformation(ctypes.Structure):
    """FILE_RENAME_INFORMATION and FILE_LINK_INFORMATION, but for the name at their end."""

    _fields_ = (
        ("Flags", ctypes.c_uint32),
        ("RootDirectory", ctypes.c_void_p),
        ("FileNameLength", ctypes.c_uint32),
    )


class DuplicateExtents(ctypes.Structure):
    """DUPLICATE_EXTENTS_DATA."""

    _fields_ = (
        ("FileHandle", ctypes.c_void_p),
        ("SourceFileOffset", ctypes.c_int64),
        ("TargetFileOffset", ctypes.c_int64),
        ("ByteCount", ctypes.c_int64),
    )


class FullSize(ctypes.Structure):
    """FILE_FS_FULL_SIZE_INFORMATION."""

    _fields_ = (
        ("TotalAllocationUnits", ctypes.c_int64),
        ("CallerAvailableAllocationUnits", ctypes.c_int64),
        ("ActualAvailableAllocationUnits", ctypes.c_int64),
        ("SectorsPerAllocationUnit", ctypes.c_uint32),
        ("BytesPerSector", ctypes.c_uint32),
    )

    @property
    def cluster(self) -> int:
        """The bytes of a cluster."""
        return int(self.SectorsPerAllocationUnit) * int(self.BytesPerSector)


def copied_attributes(attributes: int) -> int:
    """Return those of a file's attributes that its copy gets, which are never none."""
    return attributes & _COPIED or ATTRIBUTE_NORMAL


def named(directory: int, name: str, flags: int) -> bytes:
    """Return what renames, or links, to ``name`` below an open directory."""
    raw = name.encode("utf-16-le", "surrogatepass")
    header = NamedInformation(flags, directory, len(raw))
    start = NamedInformation.FileNameLength.offset + 4
    # as long as the structure at least, which ends with room for one character
    return (bytes(header)[:start] + raw).ljust(ctypes.sizeof(header), b"\0")


def native_path(root: str) -> str:
    """Return an absolute path as the kernel has it: drives below ``??``, shares below ``UNC`` there."""
    path = root.replace("/", "\\")
    if path.startswith("\\\\?\\"):
        path = path[4:]
    elif path.startswith("\\\\"):
        path = "UNC" + path[1:]
    return "\\??\\" + path


def components(root: str) -> tuple[str, list[str]]:
    """Split an absolute path in the root of its volume, with a slash at the end, and the names below."""
    path = root.replace("\\", "/").rstrip("/")
    if path.startswith("//"):
        server, share, *names = [part for part in path.split("/") if part]
        return f"//{server}/{share}/", names
    drive, *names = [part for part in path.split("/") if part]
    return f"{drive}/", names


def shared_ranges(size: int, cluster: int) -> list[tuple[int, int]]:
    """Cut a file into (offset, length), all of whole clusters: the last one may reach beyond its end."""
    end = -(-size // cluster) * cluster
    most = max(_MOST_SHARED // cluster, 1) * cluster
    return [(offset, min(most, end - offset)) for offset in range(0, end, most)]


def file_time(nanoseconds: int) -> int:
    """Return a time since 1970 in Windows' own count, 100 ns since 1601."""
    return nanoseconds // 100 + 116_444_736_000_000_000


def layout_of_pointers(answers: list[bytes], cluster: int) -> Layout:
    """Put together what FSCTL_GET_RETRIEVAL_POINTERS answers; a place of -1 is a hole.

    Who else holds an extent is not told, so that all count as unshared.
    """
    extents: list[Extent] = []
    for answer in answers:
        count, virtual = RETRIEVAL_HEADER.unpack_from(answer)
        for index in range(count):
            place = RETRIEVAL_HEADER.size + index * RETRIEVAL_EXTENT.size
            following, physical = RETRIEVAL_EXTENT.unpack_from(answer, place)
            length = following - virtual
            if physical >= 0:
                append(extents, Extent(virtual * cluster, physical * cluster, length * cluster))
            virtual = following
    return Layout(tuple(extents), shared=False, exact=bool(extents))


def next_cluster(answer: bytes) -> int:
    """Return where an answer of FSCTL_GET_RETRIEVAL_POINTERS stopped."""
    count, start = RETRIEVAL_HEADER.unpack_from(answer)
    if not count:
        return int(start)
    place = RETRIEVAL_HEADER.size + (count - 1) * RETRIEVAL_EXTENT.size
    return int(RETRIEVAL_EXTENT.unpack_from(answer, place)[0])
