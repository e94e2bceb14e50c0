"""Writes conda packages and a channel of them: the standard library makes them, rattler indexes them.

The packages are ``.conda`` files as conda and rattler read them, stored rather than compressed: they never
travel, so making and extracting them costs what copying costs.
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import struct
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from msgspec import Struct

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping, Sequence

#: What stands in packages for the prefix, as long as conda-build's: package managers may only shorten it.
PLACEHOLDER = ("/opt/conda-dedup/_h_env" + "_placehold" * 30)[:255]
#: Modification time of every packed file, in seconds; the same bytes in, the same archive out.
MTIME = 1_700_000_000

_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_ZSTD_BLOCK = 1 << 17
_MACHINES = {"x86_64": "64", "amd64": "64", "i686": "32", "arm64": "arm64"}
_SYSTEMS = {"linux": "linux", "darwin": "osx", "win32": "win"}


class Entry(Struct, frozen=True):
    """One file of a package.

    ``prefix`` says that ``content`` holds :data:`PLACEHOLDER` and how it is to be patched: ``binary`` keeps
    the size by padding with NULs. ``no_link`` forbids linking it into environments. With ``target`` it is a
    symbolic link to there, and ``content`` is not used.
    """

    content: bytes = b""
    executable: bool = False
    prefix: Literal["text", "binary"] | None = None
    no_link: bool = False
    target: str = ""


def native_subdir() -> str:
    """The conda subdir of packages for this machine, such as ``linux-64``."""
    system = _SYSTEMS[sys.platform]
    machine = platform.machine().lower()
    return f"{system}-{_MACHINES.get(machine, machine)}"


def make_package(
    channel: str | os.PathLike[str],
    name: str,
    version: str,
    build: str,
    files: Mapping[str, Entry | bytes],
    *,
    subdir: str | None = None,
    noarch: Literal["python", "generic"] | None = None,
    depends: Sequence[str] = (),
    build_number: int = 0,
    entry_points: Sequence[str] = (),
    extra_index: Mapping[str, Any] | None = None,
) -> Path:
    """Write one package into ``channel`` and return its path; :func:`index_channel` makes it known.

    ``files`` are by their path in the package (``site-packages/...`` for ``noarch="python"``), bytes being an
    ordinary file. ``subdir`` is that of this machine unless ``noarch``. ``entry_points`` are lines like
    ``tool = package.module:function``, for ``noarch="python"`` only. ``extra_index`` is added to the index.
    """
    subdir = "noarch" if noarch else subdir or native_subdir()
    entries = {path: _as_entry(files[path]) for path in sorted(files)}
    index = {
        "name": name,
        "version": version,
        "build": build,
        "build_number": build_number,
        "depends": list(depends),
        "license": "BSD-3-Clause",
        "subdir": subdir,
        "timestamp": MTIME * 1000,
        **({"noarch": noarch} if noarch else {}),
        **(extra_index or {}),
    }
    info = _info_files(index, entries, noarch, entry_points)
    stem = f"{name}-{version}-{build}"
    target = Path(channel, subdir, f"{stem}.conda")
    target.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for member, data in (
            ("metadata.json", b'{"conda_pkg_format_version": 2}'),
            (f"pkg-{stem}.tar.zst", _store(_tar(entries))),
            (f"info-{stem}.tar.zst", _store(_tar(info))),
        ):
            archive.writestr(zipfile.ZipInfo(member), data)
    return target


def index_channel(channel: str | os.PathLike[str]) -> str:
    """Write ``repodata.json`` for every subdir of ``channel`` and return the channel's URL."""
    import asyncio

    from rattler.index import index_fs

    root = Path(channel).resolve()
    for subdir in ("noarch", native_subdir()):
        (root / subdir).mkdir(parents=True, exist_ok=True)
    asyncio.run(index_fs(root, write_zst=False, write_shards=False, force=True))
    return root.as_uri()


def _as_entry(value: Entry | bytes) -> Entry:
    return value if isinstance(value, Entry) else Entry(value)


def _info_files(
    index: Mapping[str, Any],
    entries: Mapping[str, Entry],
    noarch: str | None,
    entry_points: Sequence[str],
) -> dict[str, Entry]:
    """The ``info/`` directory of a package."""
    about = {"license": index["license"], "summary": f"{index['name']} for demonstrations and tests"}
    info = {
        "index.json": _json(index),
        "paths.json": _json({"paths": [_path_record(p, e) for p, e in entries.items()], "paths_version": 1}),
        "files": _lines(entries),
        "about.json": _json(about),
    }
    if unlinkable := [path for path, entry in entries.items() if entry.no_link]:
        info["no_link"] = _lines(unlinkable)
    if noarch:
        link: dict[str, Any] = {"type": noarch}
        if noarch == "python":
            link["entry_points"] = list(entry_points)
        info["link.json"] = _json({"noarch": link, "package_metadata_version": 1})
    return {f"info/{path}": Entry(content) for path, content in info.items()}


def _path_record(path: str, entry: Entry) -> dict[str, Any]:
    """The line of ``info/paths.json`` about one file."""
    content = b"" if entry.target else entry.content
    record: dict[str, Any] = {
        "_path": path,
        "path_type": "softlink" if entry.target else "hardlink",
        "sha256": hashlib.sha256(content).hexdigest(),
        "size_in_bytes": len(content),
    }
    if entry.no_link:
        record["no_link"] = True
    if entry.prefix:
        record |= {"prefix_placeholder": PLACEHOLDER, "file_mode": entry.prefix}
    return record


def _tar(entries: Mapping[str, Entry]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path, entry in entries.items():
            member = tarfile.TarInfo(path)
            member.mtime = MTIME
            member.mode = 0o775 if entry.executable else 0o664
            if entry.target:
                member.type, member.linkname, member.mode = tarfile.SYMTYPE, entry.target, 0o777
                archive.addfile(member)
            else:
                member.size = len(entry.content)
                archive.addfile(member, io.BytesIO(entry.content))
    return buffer.getvalue()


def _store(data: bytes) -> bytes:
    """``data`` as one Zstandard frame of raw blocks (RFC 8878, 3.1.1), made without a compressor."""
    window_128_kib = bytes([7 << 3])
    parts = [_ZSTD_MAGIC, b"\0", window_128_kib]
    for start in range(0, max(len(data), 1), _ZSTD_BLOCK):
        block = data[start : start + _ZSTD_BLOCK]
        last = start + _ZSTD_BLOCK >= len(data)
        parts += [struct.pack("<I", len(block) << 3 | last)[:3], block]
    return b"".join(parts)


def _json(value: object) -> bytes:
    return json.dumps(value, indent=2, sort_keys=True).encode()


def _lines(paths: Iterable[str]) -> bytes:
    return "".join(f"{path}\n" for path in paths).encode()
