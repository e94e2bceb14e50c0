"""Medians, ratios, tables and the JSON document."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.benchmarks.measure import Measured

SCHEMA = 1
#: A part's numbers by name.
Numbers = dict[str, float]


@dataclass
class Part:
    """What one sub-benchmark measured. ``numbers`` are what targets and comparisons are about."""

    numbers: Numbers = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)

    def show(self, text: str) -> None:
        """Print a table of it, as soon as there is one."""
        print(text, flush=True)


@dataclass
class Series:
    """The runs of one program under the same conditions."""

    name: str
    runs: list[Measured] = field(default_factory=list)
    peak_bytes: int | None = None
    found_share: float | None = None

    def add(self, run: Measured) -> None:
        self.runs.append(run)
        self.see(run)

    def see(self, run: Measured) -> None:
        """Take a run for its memory only."""
        if run.peak_bytes is not None:
            self.peak_bytes = max(self.peak_bytes or 0, run.peak_bytes)

    def median(self, what: str) -> float:
        return float(statistics.median(getattr(run, what) for run in self.runs))

    def document(self) -> dict[str, Any]:
        medians = {
            what: round(self.median(what), 4) for what in ("wall", "cpu", "device_bytes", "read_bytes")
        }
        return {
            "medians": medians,
            "peak_bytes": self.peak_bytes,
            "found_share": self.found_share,
            "wall": [round(run.wall, 4) for run in self.runs],
            "cpu": [round(run.cpu, 4) for run in self.runs],
            "returncodes": sorted({run.returncode for run in self.runs}),
        }


def table(title: str, series: Sequence[Series], base: str) -> str:
    """A table of medians with ratios to ``base``, as Markdown."""
    series = [each for each in series if each.runs]
    lines = [
        f"### {title}",
        "",
        f"| | wall s | x {base} | CPU s | peak MB | read MB | from device MB | found |",
    ]
    lines.append("|---|---:|---:|---:|---:|---:|---:|---:|")
    bases = {each.name: each.median("wall") for each in series}
    for each in series:
        ratio = f"{each.median('wall') / bases[base]:.2f}" if base in bases else "-"
        peak = "-" if each.peak_bytes is None else f"{each.peak_bytes / 1e6:.0f}"
        found = "-" if each.found_share is None else f"{each.found_share:.1%}"
        failed = {run.returncode for run in each.runs} - {0}
        name = f"{each.name} (exit {max(failed, key=abs)})" if failed else each.name
        lines.append(
            f"| {name} | {each.median('wall'):.2f} | {ratio} | {each.median('cpu'):.2f} | {peak} "
            f"| {each.median('read_bytes') / 1e6:.0f} | {each.median('device_bytes') / 1e6:.0f} | {found} |"
        )
    return "\n".join([*lines, ""])


def document(parts: Mapping[str, Part], parameters: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """What ``--output`` writes: nothing in it names the machine or a path."""
    return {
        "schema": SCHEMA,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": _git("rev-parse", "HEAD"),
        "changed": bool(_git("status", "--porcelain", "--untracked-files=no")),
        "machine": machine(folder),
        "parameters": dict(parameters),
        "parts": {name: {"numbers": part.numbers, "details": part.details} for name, part in parts.items()},
    }


def machine(folder: Path) -> dict[str, Any]:
    """The class of machine that this is; the file system is that of ``folder``."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / (1 << 30)),
        "file_system": _output("findmnt", "-no", "FSTYPE", "-T", str(folder)),
        "kernel": platform.release(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def compare(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """The numbers that both documents have, and how the new one's relate to the old one's."""
    lines = [f"{old['commit'][:10]} ({old['date']}) -> {new['commit'][:10]} ({new['date']})"]
    for what in ("machine", "parameters"):
        differing = {key for key in {*old[what], *new[what]} if old[what].get(key) != new[what].get(key)}
        if differing:
            lines.append(f"not the same {what}: {', '.join(sorted(differing))}")
    lines += ["", f"{'number':52}{'old':>12}{'new':>12}{'new/old':>10}"]
    for part, was in old["parts"].items():
        now = new["parts"].get(part, {"numbers": {}})["numbers"]
        for name in [name for name in was["numbers"] if name in now]:
            before, after = was["numbers"][name], now[name]
            ratio = f"{after / before:.2f}" if before else "-"
            lines.append(f"{name:52}{before:12.3f}{after:12.3f}{ratio:>10}")
    return "\n".join(lines)


def _git(*words: str) -> str:
    return _output("git", "-C", str(Path(__file__).parents[2]), *words)


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
