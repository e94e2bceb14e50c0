"""The programs that are compared, and what each says it found."""

from __future__ import annotations

import json
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.benchmarks.truth import MIN_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

REPOSITORY = Path(__file__).parents[2]
OURS = (sys.executable, "-m", "conda_dedup_plugin.cli")


@dataclass(frozen=True)
class Found:
    """Bytes of duplicates in files of MIN_SIZE and more, each inode once: on disk, or by length."""

    size: int
    disk: bool = False


@dataclass(frozen=True)
class Contender:
    """A program by its command for a tree and a scratch folder; ``found`` reads its output and scratch."""

    name: str
    program: str
    command: Callable[[Path, Path], list[str]]
    found: Callable[[Path, Path], Found | None] = lambda output, scratch: None
    #: reads contents, so it takes long
    slow: bool = False
    #: runs with the state and cache that its last run left
    remembers: bool = False


def _ours(root: Path, scratch: Path) -> list[str]:
    return [*OURS, "report", "--json", "--no-discover", "--search", str(root)]


def _ours_found(output: Path, scratch: Path) -> Found:
    return Found(json.loads(output.read_text())["totals"]["duplicate_bytes"], disk=True)


def report_contenders() -> list[Contender]:
    """Who tells what is there twice, ``du`` first: it is what the others are measured by."""
    return [
        Contender("du", "du", lambda root, scratch: ["du", "-sh", str(root)]),
        Contender("ours", sys.executable, _ours, _ours_found),
        Contender("ours, second", sys.executable, _ours, _ours_found, remembers=True),
        Contender("jdupes", "jdupes", lambda root, _: ["jdupes", "-q", "-r", str(root)], _jdupes, slow=True),
        Contender(
            "hardlink", "hardlink", lambda root, _: ["hardlink", "-n", "-v", str(root)], _hardlink, True
        ),
        Contender("rdfind", "rdfind", _rdfind, _rdfind_found, slow=True),
        Contender("rmlint", "rmlint", _rmlint, _rmlint_found, slow=True),
        Contender(
            "duperemove",
            "duperemove",
            lambda root, _: ["duperemove", "-r", str(root)],
            _duperemove,
            slow=True,
        ),
    ]


def _rdfind(root: Path, scratch: Path) -> list[str]:
    return ["rdfind", "-dryrun", "true", "-outputname", str(scratch / "rdfind"), str(root)]


def _rmlint(root: Path, scratch: Path) -> list[str]:
    return ["rmlint", "-T", "df", "--hidden", "-o", f"json:{scratch / 'rmlint'}", str(root)]


def _bytes_of(groups: Iterable[Iterable[str]]) -> Found:
    """What groups of paths with the same content hold twice."""
    found = 0
    for group in groups:
        inodes: dict[int, int] = {}
        for path in group:
            status = os.lstat(path)
            inodes[status.st_ino] = status.st_size
        if inodes and (size := max(inodes.values())) >= MIN_SIZE:
            found += (len(inodes) - 1) * size
    return Found(found)


def _lines(path: Path) -> list[str]:
    return path.read_text(errors="surrogateescape").splitlines()


def _jdupes(output: Path, scratch: Path) -> Found:
    groups: list[list[str]] = [[]]
    for line in _lines(output):
        if line:
            groups[-1].append(line)
        else:
            groups.append([])
    return _bytes_of(groups)


def _hardlink(output: Path, scratch: Path) -> Found:
    """Groups by their first file: ``[DryRun] Linking FIRST to OTHER (-4 KiB)``."""
    groups: dict[str, list[str]] = {}
    for line in _lines(output):
        if told := re.match(r"(?:\[DryRun\] )?Linking (.+) to (.+) \(-.*\)$", line):
            groups.setdefault(told[1], [told[1]]).append(told[2])
    return _bytes_of(groups.values())


def _rdfind_found(output: Path, scratch: Path) -> Found:
    """Lines of ``type id depth size device inode priority name``, ids negative for all but the first."""
    groups: dict[int, list[str]] = {}
    for line in _lines(scratch / "rdfind"):
        if line.startswith("DUPTYPE_"):
            fields = line.split(" ", 7)
            groups.setdefault(abs(int(fields[1])), []).append(fields[7])
    return _bytes_of(groups.values())


def _rmlint_found(output: Path, scratch: Path) -> Found:
    groups: list[list[str]] = []
    for entry in json.loads((scratch / "rmlint").read_text(errors="surrogateescape")):
        if entry.get("type") == "duplicate_file":
            if entry["is_original"]:
                groups.append([])
            groups[-1].append(entry["path"])
    return _bytes_of(groups)


def _duperemove(output: Path, scratch: Path) -> Found:
    """It tells of extents: ``Showing 2 identical extents of length 4096 with id ...``, then where each is."""
    found, length, inodes = 0, 0, set[int]()
    for line in [*_lines(output), "Showing"]:
        if line.startswith("Showing"):
            found += length * max(len(inodes) - 1, 0)
            told = re.search(r"of length (\d+)", line)
            length, inodes = int(told[1]) if told else 0, set()
        elif placed := re.match(r'\S+\t"(.+)"$', line):
            inodes.add(os.lstat(placed[1]).st_ino)
    return Found(found)
