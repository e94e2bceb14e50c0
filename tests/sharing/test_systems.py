"""What is decided and laid out for macOS and Windows, wherever the tests run."""

from __future__ import annotations

import ctypes
import errno
import struct
import subprocess
import sys

import pytest

from conda_dedup_plugin.model import (
    Device,
    Extent,
    Inode,
    InodeKey,
    Manager,
    Name,
    Reason,
    Scope,
    Tree,
    TreeKind,
)
from conda_dedup_plugin.plan import NO_USER, PlanOptions
from conda_dedup_plugin.policy import in_bundle
from conda_dedup_plugin.reflinks import clone_refused, reflink_refused
from conda_dedup_plugin.sharing import darwin_types, windows_errors, windows_types
from conda_dedup_plugin.sharing.outcome import reason_of

#: Those of the others cannot even be imported.
ELSEWHERE = {
    "linux": set(),
    "darwin": {"sharing.linux"},
    "win32": {"sharing.linux", "sharing.posix", "sharing.darwin", "sharing.clone"},
}
#: Imports every module that conda itself does not load, on a system that is as told.
IMPORT = """
import importlib, os, pkgutil, sys
import conda_dedup_plugin
system, *absent = sys.argv[1:]
if system != sys.platform:
    import ctypes, filelock, msgspec, packaging.version, platformdirs, rich.console, rich.progress
    import ruamel.yaml, sqlite3, subprocess, tarfile, tempfile, threading, uuid, zipfile
    import concurrent.futures, multiprocessing, signal
    sys.platform = system
    gone = ["fcntl", "pwd", "grp", "resource", "posix"] if system == "win32" else []
    sys.modules.update(dict.fromkeys(gone))
    names = "geteuid getuid pread pwrite fchown fchmod statvfs fstatvfs listxattr fwalk O_NOFOLLOW O_PATH"
    if system == "darwin":
        names = "O_PATH O_NOATIME listxattr getxattr setxattr removexattr"
    for name in names.split():
        delattr(os, name)
for module in pkgutil.walk_packages(conda_dedup_plugin.__path__, "conda_dedup_plugin."):
    name = module.name.removeprefix("conda_dedup_plugin.")
    if name not in absent and not name.endswith(("__main__", "plugin", "health", "transaction")):
        if not name.startswith("demo"):
            importlib.import_module(module.name)
print("imported")
"""


@pytest.mark.parametrize("system", sorted(ELSEWHERE))
def test_every_module_can_be_imported(system: str) -> None:
    """On this system, and on Linux also as if it were one of the others."""
    if system != sys.platform and sys.platform != "linux":
        pytest.skip("Linux tells")
    words = [sys.executable, "-c", IMPORT, system, *ELSEWHERE[system]]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.stdout == "imported\n", done.stderr


# -- Windows: numbers and layouts as in winnt.h, ntifs.h, winioctl.h, on 64 bits ----------------------------


@pytest.mark.skipif(ctypes.sizeof(ctypes.c_void_p) != 8, reason="the numbers are those of 64 bits")
@pytest.mark.parametrize(
    ("structure", "size", "offsets"),
    [
        (windows_types.UnicodeString, 16, {"Length": 0, "MaximumLength": 2, "Buffer": 8}),
        (windows_types.ObjectAttributes, 48, {"RootDirectory": 8, "ObjectName": 16, "Attributes": 24}),
        (windows_types.IoStatusBlock, 16, {"Information": 8}),
        (windows_types.BasicInfo, 40, {"LastAccessTime": 8, "LastWriteTime": 16, "FileAttributes": 32}),
        (windows_types.AttributeTagInfo, 8, {"ReparseTag": 4}),
        (windows_types.StandardInfo, 24, {"NumberOfLinks": 16, "DeletePending": 20}),
        (windows_types.NamedInformation, 24, {"RootDirectory": 8, "FileNameLength": 16}),
        (
            windows_types.DuplicateExtents,
            32,
            {"SourceFileOffset": 8, "TargetFileOffset": 16, "ByteCount": 24},
        ),
        (windows_types.FullSize, 32, {"SectorsPerAllocationUnit": 24, "BytesPerSector": 28}),
    ],
)
def test_structures_of_windows(structure: type[ctypes.Structure], size: int, offsets: dict[str, int]) -> None:
    assert ctypes.sizeof(structure) == size
    assert {name: getattr(structure, name).offset for name in offsets} == offsets


def control_code(function: int, method: int, access: int) -> int:
    """CTL_CODE of FILE_DEVICE_FILE_SYSTEM."""
    return 9 << 16 | access << 14 | function << 2 | method


def test_control_codes() -> None:
    assert control_code(209, 0, 2) == windows_types.FSCTL_DUPLICATE_EXTENTS_TO_FILE
    assert control_code(28, 3, 0) == windows_types.FSCTL_GET_RETRIEVAL_POINTERS


def test_a_name_to_rename_to() -> None:
    """The name begins right behind its length, at byte 20, and the whole is no shorter than the structure."""
    made = windows_types.named(0x1234, "é.dll", 3)
    assert struct.unpack_from("<I4xQI", made) == (3, 0x1234, 10)
    assert made[20:30].decode("utf-16-le") == "é.dll"
    assert len(windows_types.named(1, "x", 0)) == 24


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (2, Reason.VANISHED),
        (3, Reason.VANISHED),
        (5, Reason.NO_ACCESS),
        (17, Reason.OTHER_DEVICE),
        (19, Reason.READ_ONLY),
        (32, Reason.BUSY),
        (33, Reason.BUSY),
        (39, Reason.NO_SPACE),
        (50, Reason.UNSUPPORTED),
        (87, Reason.UNSUPPORTED),
        (112, Reason.NO_SPACE),
        (267, Reason.NOT_REGULAR),
        (681, Reason.NOT_REGULAR),
        (1142, Reason.LINK_LIMIT),
        (1224, Reason.TEXT_BUSY),
        (1295, Reason.NO_SPACE),
        (31, None),
    ],
)
def test_errors_of_windows(code: int, reason: Reason | None) -> None:
    """What is expected is a reason to leave a file alone; what is not, a failure."""
    assert reason_of(OSError(windows_errors.errno_of(code), "")) is reason


@pytest.mark.parametrize("cluster", [4096, 65536])
@pytest.mark.parametrize("size", [1, 4095, 4096, 4097, 10**6, (1 << 32) + 5])
def test_ranges_are_of_whole_clusters(size: int, cluster: int) -> None:
    """They follow one another, cover all, end with the cluster of the last byte; none has 4 GiB."""
    ranges = windows_types.shared_ranges(size, cluster)
    end = 0
    for offset, length in ranges:
        assert offset == end
        assert offset % cluster == length % cluster == 0
        assert 0 < length < 1 << 32
        end += length
    assert size <= end < size + cluster


@pytest.mark.parametrize(
    ("path", "native", "volume", "names"),
    [
        ("C:/Users/me/envs/one", "\\??\\C:\\Users\\me\\envs\\one", "C:/", ["Users", "me", "envs", "one"]),
        ("C:\\x", "\\??\\C:\\x", "C:/", ["x"]),
        ("D:/", "\\??\\D:\\", "D:/", []),
        ("//server/share/a/b", "\\??\\UNC\\server\\share\\a\\b", "//server/share/", ["a", "b"]),
        ("\\\\?\\C:\\x", "\\??\\C:\\x", None, None),
    ],
)
def test_paths_of_windows(path: str, native: str, volume: str | None, names: list[str] | None) -> None:
    assert windows_types.native_path(path) == native
    if volume is not None:
        assert windows_types.components(path) == (volume, names)


def test_attributes_that_a_copy_gets() -> None:
    """Never none, which would mean that they stay as they are; what the file system sets is left out."""
    assert windows_types.copied_attributes(0x21) == 0x21
    assert windows_types.copied_attributes(0x200 | 0x800 | 0x8000) == 0x80


def test_times_of_windows() -> None:
    assert windows_types.file_time(0) == 116_444_736_000_000_000
    assert windows_types.file_time(1_600_000_000 * 10**9 + 100) == 132_444_736_000_000_001


def pointers(start: int, *runs: tuple[int, int]) -> bytes:
    header = windows_types.RETRIEVAL_HEADER.pack(len(runs), start)
    return header + b"".join(windows_types.RETRIEVAL_EXTENT.pack(*run) for run in runs)


def test_where_the_bytes_lie_on_windows() -> None:
    """Neighbours are merged, also across two answers; holes are left out."""
    first = pointers(0, (2, 100), (4, -1), (5, 300))
    second = pointers(5, (7, 301))
    assert windows_types.next_cluster(first) == 5
    layout = windows_types.layout_of_pointers([first, second], 4096)
    assert layout.extents == (Extent(0, 409600, 8192), Extent(16384, 1228800, 12288))
    assert (layout.shared, layout.exact) == (False, True)
    assert not windows_types.layout_of_pointers([], 4096).exact


# -- macOS --------------------------------------------------------------------------------------------------


def test_structures_of_macos() -> None:
    assert darwin_types.LOG2PHYS.size == 20
    assert ctypes.sizeof(darwin_types.StatFs) == 2168
    assert (darwin_types.StatFs.f_flags.offset, darwin_types.StatFs.f_fstypename.offset) == (64, 72)
    assert ctypes.sizeof(darwin_types.BsdInfo) == 136
    assert (darwin_types.BsdInfo.pbi_status.offset, darwin_types.BsdInfo.pbi_start_tvsec.offset) == (4, 120)


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (0, None),
        (0x1, None),  # UF_NODUMP
        (0x8000, None),  # UF_HIDDEN
        (0x2, Reason.IMMUTABLE),
        (0x4, Reason.IMMUTABLE),
        (0x20, Reason.UNSUPPORTED),  # UF_COMPRESSED
        (0x80, Reason.UNSUPPORTED),  # UF_DATAVAULT
        (0x20000, Reason.IMMUTABLE),  # SF_IMMUTABLE
        (0x80000, Reason.IMMUTABLE),  # SF_RESTRICTED
        (0x40000000, Reason.IMMUTABLE),  # SF_DATALESS
    ],
)
def test_flags_of_macos(flags: int, reason: Reason | None) -> None:
    assert darwin_types.refused_flags(flags) is reason


def test_where_the_bytes_lie_on_macos() -> None:
    layout = darwin_types.layout_of_runs([(0, 8192, 4096), (4096, 12288, 100), (4196, -1, 50), (4246, 0, 10)])
    assert layout is not None
    assert layout.extents == (Extent(0, 8192, 4196), Extent(4246, 0, 10))
    assert darwin_types.layout_of_runs([(0, -1, 5)]) is None


@pytest.mark.parametrize(
    ("path", "inside"),
    [
        ("/opt/env/python.app/Contents/MacOS/python", True),
        ("/Applications/Some Thing.app/Contents/Resources/env/lib/x.dylib", True),
        ("/opt/env/python.APP/contents/Info.plist", True),
        ("/opt/env/lib/site-packages/flask.app/x.py", False),
        ("/opt/env/app/Contents/x", False),
        ("/opt/env/.app/Contents/x", False),
        ("/opt/env/python.app/ContentsOf/x", False),
    ],
)
def test_applications(path: str, inside: bool) -> None:
    assert in_bundle(path) is inside


def an_inode(path: str, nlink: int = 1, uid: int = 0) -> Inode:
    inode = Inode(InodeKey(1, 2), 8192, 8192, 0o100644, uid, 0, nlink, 0, 0)
    inode.names = [Name(0, path, None)]
    return inode


def scope(selected: bool = True) -> Scope:
    return Scope((Tree("/opt/env", TreeKind.ENVIRONMENT, Manager.CONDA, "env", selected),))


def test_applications_are_left_whole() -> None:
    inside, outside = an_inode("python.app/Contents/MacOS/python"), an_inode("bin/python")
    there, elsewhere = PlanOptions(leave_bundles=True), PlanOptions(leave_bundles=False)
    assert reflink_refused(inside, scope(), there) is Reason.BUNDLE
    assert reflink_refused(inside, scope(), elsewhere) is None
    assert reflink_refused(outside, scope(), there) is None
    assert PlanOptions().leave_bundles is (sys.platform == "darwin")


def test_a_clone_takes_all_names_or_none() -> None:
    in_place = Device(1, "btrfs", True, True)
    cloning = Device(1, "apfs", True, True, in_place=False)
    two = an_inode("bin/python", nlink=2)
    assert clone_refused(two, scope(), in_place) is None
    assert clone_refused(two, scope(), cloning) is Reason.NAMES_OUTSIDE
    assert clone_refused(an_inode("x"), scope(), cloning) is None
    assert clone_refused(an_inode("x"), scope(selected=False), cloning) is Reason.NOT_SELECTED


def test_where_files_have_no_owner() -> None:
    inode = an_inode("x", uid=5)
    assert PlanOptions(euid=NO_USER).may_change(inode)
    assert PlanOptions(euid=0).may_change(inode)
    assert PlanOptions(euid=5).may_change(inode)
    assert not PlanOptions(euid=6).may_change(inode)


def test_a_call_of_windows_elsewhere() -> None:
    from conda_dedup_plugin.sharing import windows_calls

    if sys.platform == "win32":
        assert windows_calls.status_code(0) == 0
        assert windows_calls.status_code(-1073741772) == 2  # STATUS_OBJECT_NAME_NOT_FOUND
        return
    with pytest.raises(OSError, match="ntdll") as caught:
        windows_calls.library("ntdll")
    assert caught.value.errno == errno.ENOSYS
