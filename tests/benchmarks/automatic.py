"""What conda users feel of the plugin: ``python -m tests.benchmarks.automatic [--packages N] [--rounds N]``.

Two real condas that differ in nothing but the plugin are timed in turn: making a second environment beside
the cache, the same on another device (where conda copies and the plugin shares), an install with nothing to
do, and a command that has nothing to do with us. Prints medians, differences, ratios, and the plugin's own
time; ``CONDA_DEDUP_TEST_CONDA`` names a Python with another conda.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.benchmarks.automatic_world import OTHER, bases, lab, neighbours
from tests.benchmarks.results import Part
from tests.lab.conda_wheel import conda_python

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.benchmarks.options import Options
    from tests.lab.world import CondaLab

#: What is promised: of an environment of 100 packages, and in seconds.
CREATE, NOTHING, COMMAND = 1.03, 0.050, 0.003
_IMPORTED = re.compile(r"^import time:\s*\d+ \|\s*(\d+) \|\s*(\S+)$", re.M)
_WHAT_CONDA_DOES = """
import json, sys, time
import argparse, conda.cli.main, conda.plugins.manager, conda.plugins.types
import conda.cli.conda_argparse, conda.core.path_actions
known = set(sys.modules)
start = time.perf_counter()
import conda_dedup_plugin.plugin as plugin
imported = time.perf_counter()
hooks = {name: getattr(plugin, name) for name in dir(plugin) if name.startswith("conda_")}
found = {name: list(hook()) for name, hook in hooks.items()}
registered = time.perf_counter()
for one in found["conda_subcommands"]:
    parser = argparse.ArgumentParser()
    if getattr(one, "configure_parser", None):
        one.configure_parser(parser)
configured = time.perf_counter()
ours = sorted(name for name in set(sys.modules) - known)
print(json.dumps([imported - start, registered - imported, configured - registered, ours]))
"""


def main() -> None:
    """Print what :func:`measure` finds."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.automatic", description=__doc__)
    add_options(parser)
    options = parser.parse_args()
    found = measure(options)
    if options.json:
        print(json.dumps(found, indent=2))
        return
    for name, case in found.items():
        print(name, "  ".join(f"{key}={_shown(value)}" for key, value in case.items()))


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare what :func:`measure` wants."""
    parser.add_argument("--packages", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=7, help="of creating; five times as many of the others")
    parser.add_argument("--neighbours", type=int, default=3, help="so many more environments there are")
    parser.add_argument("--only", default="create,device,nothing,command,import")
    parser.add_argument("--keep", type=Path, help="a directory for the condas, to profile them afterwards")
    parser.add_argument("--json", action="store_true")


def measure(options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Time every case, with and without the plugin in turn."""
    found = {}
    with tempfile.TemporaryDirectory(prefix="conda-dedup-benchmark-") as name:
        folder = Path(options.keep or name)
        pythons = bases(conda_python(), folder)
        wanted = options.only.split(",")
        if {"create", "nothing", "command"} & set(wanted):
            labs = {plugin: _world(folder, python, options) for plugin, python in pythons.items()}
            if "create" in wanted:
                found["create"] = _judged(_creating(labs, options.rounds), ratio=CREATE)
            if "nothing" in wanted:
                found["nothing to do"] = _judged(
                    _turns(labs, 5 * options.rounds, _conda("install", "-n", "one", "everything")), NOTHING
                )
            if "command" in wanted:
                shown = _conda("config", "--show", "channels")
                found["any command"] = _judged(_turns(labs, 10 * options.rounds, shown))
        if "device" in wanted:
            with tempfile.TemporaryDirectory(prefix="conda-dedup-", dir="/dev/shm") as memory:
                far = {
                    plugin: _world(folder, python, options, Path(memory) / str(plugin))
                    for plugin, python in pythons.items()
                }
                found["create on another device"] = _judged(_creating(far, options.rounds))
        if "import" in wanted:
            found["import"] = _importing(pythons[True], 10 * options.rounds)
    return found


def _world(folder: Path, python: Path, options: argparse.Namespace, envs_dir: Path | None = None) -> CondaLab:
    """An environment, its cache, and others beside it."""
    made = lab(
        folder / f"{python.parents[1].name}-{'far' if envs_dir else 'near'}",
        python,
        options.packages,
        envs_dir,
    )
    if not made.env_path("one").exists():
        made.create("one", "everything")
        neighbours(made, "one", options.neighbours)
        os.sync()
    return made


def _conda(*words: str) -> Callable[[CondaLab], tuple[float, float, str]]:
    """Time a command: seconds on the clock and of processors, and what it said on stderr."""

    def timed(made: CondaLab) -> tuple[float, float, str]:
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        done = made.conda(*words)
        seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
        used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return seconds, used, done.stderr

    return timed


def _creating(labs: dict[bool, CondaLab], rounds: int) -> dict[bool, list[tuple[float, float, str]]]:
    """Make a near-identical environment, and remove it again."""
    create = _conda("create", "-n", "two", "everything", f"{OTHER}=1.0=h0")

    def once(made: CondaLab) -> tuple[float, float, str]:
        os.sync()
        found = create(made)
        shutil.rmtree(made.env_path("two"))
        return found

    return _turns(labs, rounds, once)


def _turns(
    labs: dict[bool, CondaLab], rounds: int, run: Callable[[CondaLab], tuple[float, float, str]]
) -> dict[bool, list[tuple[float, float, str]]]:
    """A B, B A and so on, after a round that does not count."""
    found: dict[bool, list[tuple[float, float, str]]] = {False: [], True: []}
    for number in range(rounds + 1):
        for plugin in (False, True) if number % 2 else (True, False):
            one = run(labs[plugin])
            if number:
                found[plugin].append(one)
    return found


def _judged(
    found: dict[bool, list[tuple[float, float, str]]], more: float = 0.0, ratio: float = 0.0
) -> dict[str, Any]:
    wall = {plugin: statistics.median(one[0] for one in runs) for plugin, runs in found.items()}
    used = {plugin: statistics.median(one[1] for one in runs) for plugin, runs in found.items()}
    # of pairs, for the machine has other things to do as well
    pairs = list(zip(found[False], found[True], strict=True))
    difference = statistics.median(b[0] - a[0] for a, b in pairs)
    judged = {
        "without": wall[False],
        "with": wall[True],
        "difference": difference,
        "ratio": wall[True] / wall[False],
        "cpu_without": used[False],
        "cpu_with": used[True],
        "cpu_difference": statistics.median(b[1] - a[1] for a, b in pairs),
        "cpu_ratio": used[True] / used[False],
        "least_without": min(one[0] for one in found[False]),
        "least_with": min(one[0] for one in found[True]),
        "said": found[True][-1][2].strip(),
    }
    if more:
        judged |= {"target": more, "ok": difference <= more}
    if ratio:
        judged |= {"target": ratio, "ok": judged["ratio"] <= ratio}
    return judged


def _importing(python: Path, rounds: int) -> dict[str, Any]:
    """What every command pays: by conda's own steps in process, and by -X importtime."""
    steps: list[list[float]] = []
    imports = []
    ours: list[str] = []
    with tempfile.TemporaryDirectory() as home:
        environment = {"PATH": os.environ["PATH"], "HOME": home, "CONDARC": os.devnull}
        for _ in range(rounds):
            done = _run(environment, python, "-c", _WHAT_CONDA_DOES)
            *times, ours = json.loads(done.stdout)
            steps.append(times)
            code = "import conda.cli.main, conda.plugins.types, conda_dedup_plugin.plugin"
            done = _run(environment, python, "-X", "importtime", "-c", code)
            imports += [
                int(found[1]) / 1e6
                for found in _IMPORTED.finditer(done.stderr)
                if found[2] == "conda_dedup_plugin.plugin"
            ]
    imported, registered, configured = (statistics.median(step) for step in zip(*steps, strict=True))
    whole = statistics.median(sum(step) for step in steps)
    return {
        "importtime": statistics.median(imports),
        "imported": imported,
        "registered": registered,
        "configured": configured,
        "whole": whole,
        "modules": len(ours),
        "said": " ".join(ours),
        "target": COMMAND,
        "ok": max(whole, statistics.median(imports)) <= COMMAND,
    }


def _run(environment: dict[str, str], *words: object) -> subprocess.CompletedProcess[str]:
    command = [str(word) for word in words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True)


def _shown(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def automatic(options: Options) -> Part:
    """The same as a part of the suite."""
    parser = argparse.ArgumentParser()
    add_options(parser)
    found = measure(parser.parse_args(["--rounds", str(options.rounds)]))
    part = Part(details={"cases": found})
    part.numbers = {
        "automatic/create/added-percent": 100 * (found["create"]["ratio"] - 1),
        "automatic/create/added-percent/cpu": 100 * (found["create"]["cpu_ratio"] - 1),
        "automatic/nothing-to-do/added-ms": 1000 * found["nothing to do"]["difference"],
        "automatic/every-command/import-ms": 1000 * found["import"]["whole"],
    }
    for name, case in found.items():
        part.show(f"{name}: " + "  ".join(f"{key}={_shown(value)}" for key, value in case.items()))
    return part


if __name__ == "__main__":
    sys.exit(main())
