"""Sub-benchmarks of ``report``: against ``du`` and the peers, again, and with more environments."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tests.benchmarks.measure import Measured, can_drop_caches, drop_caches, installed, run
from tests.benchmarks.peers import REPOSITORY, Contender, report_contenders
from tests.benchmarks.results import Part, Series, table
from tests.benchmarks.tree import Mix, make_tree
from tests.benchmarks.truth import Truth, truth_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.benchmarks.options import Options

_MB = 1e6


@contextmanager
def a_tree(options: Options, mix: Mix) -> Iterator[tuple[Path, Truth]]:
    """The tree that was asked for, or one made for the block, and the truth about it."""
    if options.tree:
        yield options.tree, _known_truth(options.tree, options.truth)
        return
    root = options.workdir / f"tree-{mix.envs}"
    if root.exists() and options.keep:
        yield root, _known_truth(root, options.truth)
        return
    say(f"making {mix.envs} environments")
    shutil.rmtree(root, ignore_errors=True)
    try:
        make_tree(root, mix, options.cache, offline=options.offline)
        yield root, _known_truth(root, None if not options.keep else options.truth)
    finally:
        if not options.keep:
            say("removing the tree")
            shutil.rmtree(root, ignore_errors=True)


def _known_truth(root: Path, file: Path | None) -> Truth:
    if file and file.exists():
        return Truth(**json.loads(file.read_text()))
    say("reading the whole tree for the truth")
    truth = truth_of(root)
    if file:
        file.write_text(json.dumps(asdict(truth), indent=2) + "\n")
    return truth


class Bench:
    """Runs contenders on a tree in turn."""

    def __init__(self, root: Path, truth: Truth, options: Options) -> None:
        self.root, self.truth, self.options = root, truth, options
        self._temporary = tempfile.TemporaryDirectory(dir=options.workdir)
        self.scratch = Path(self._temporary.name)

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_: object) -> None:
        self._temporary.cleanup()

    def once(self, contender: Contender, *, cold: bool, cores: int, memory: bool) -> Measured:
        """One run in a home of its own, so that nobody's state is read or changed."""
        home = self.scratch / f"home-{contender.name}"
        if not contender.remembers:
            shutil.rmtree(home, ignore_errors=True)
        home.mkdir(exist_ok=True)
        if cold:
            drop_caches()
        return run(
            contender.command(self.root, self.scratch),
            self._output(contender),
            environment=apart(home),
            cores=cores,
            memory=memory,
        )

    def series(self, contenders: list[Contender], *, cold: bool, cores: int) -> list[Series]:
        """Rounds of all in turn, A B A B; who reads contents has fewer rounds of its own."""
        found: list[Series] = []
        fast = [each for each in contenders if not each.slow]
        slow = [each for each in contenders if each.slow]
        for group, rounds in ((fast, self.options.rounds), (slow, self.options.slow_rounds)):
            all_of = {each.name: Series(each.name) for each in group}
            for each in group if not (cold or group is slow) else ():
                # the first run fills the caches, and is the one whose memory is looked at
                all_of[each.name].see(self.once(each, cold=False, cores=cores, memory=True))
            for number in range(rounds):
                for each in group:
                    say(f"{each.name}, round {number + 1} of {rounds}")
                    done = self.once(each, cold=cold, cores=cores, memory=each.slow)
                    all_of[each.name].add(done)
                    if number == 0 and done.returncode == 0:
                        all_of[each.name].found_share = self._found(each)
            found += all_of.values()
        return found

    def _output(self, contender: Contender) -> Path:
        return self.scratch / f"{contender.name}.out"

    def _found(self, contender: Contender) -> float | None:
        found = contender.found(self._output(contender), self.scratch)
        if found is None:
            return None
        true = self.truth.duplicate_disk_bytes_4k if found.disk else self.truth.duplicate_bytes_4k
        return found.size / true if true else None


def report(options: Options) -> Part:
    """``report`` against ``du`` and every peer that is installed."""
    part = Part()
    contenders = [each for each in report_contenders() if installed(each.program)]
    wanted = [each for each in contenders if not options.only or each.name in options.only]
    with a_tree(options, options.mix) as (root, truth), Bench(root, truth, options) as bench:
        part.details["truth"] = asdict(truth)
        part.numbers["report/paths"] = truth.paths
        for cold in (False, True):
            if cold and not (options.cold and can_drop_caches()):
                continue
            for cores in options.cores:
                chosen = [each for each in wanted if not each.slow or (cores == 0 and not cold)]
                series = bench.series(chosen, cold=cold, cores=cores)
                _add(part, series, {each.name for each in chosen if each.slow}, cold, cores)
    return part


def _add(part: Part, series: list[Series], slow: set[str], cold: bool, cores: int) -> None:
    """Put series into the part: the document, the table and the numbers."""
    where = f"{'cold' if cold else 'warm'}/{f'{cores}-core' if cores else 'all-cores'}"
    part.details[where] = {each.name: each.document() for each in series}
    part.show(table(f"report, {where.replace('/', ', ')}", series, "du"))
    walls = {each.name: each.median("wall") for each in series}
    times = {each.name: each.median("cpu") for each in series}
    for name, wall in walls.items():
        part.numbers[f"report/{where}/{name}/s"] = wall
    if "ours" not in walls:
        return
    if "du" in walls:
        part.numbers[f"report/{where}/ours:du"] = walls["ours"] / walls["du"]
        part.numbers[f"report/{where}/ours:du/cpu"] = times["ours"] / times["du"]
    if "ours, second" in walls:
        part.numbers[f"report/{where}/second:first"] = walls["ours, second"] / walls["ours"]
    if peers := [wall for name, wall in walls.items() if name in slow]:
        part.numbers[f"report/{where}/fastest-peer:ours"] = min(peers) / walls["ours"]
    for each in series:
        if each.name == "ours" and each.peak_bytes is not None and not cores:
            part.numbers["report/peak-MB"] = each.peak_bytes / _MB
        if each.name == "ours" and each.found_share is not None and not cores:
            part.numbers["report/found-share"] = each.found_share


def second(options: Options) -> Part:
    """The second report of an unchanged tree against the first."""
    part = Part()
    names = ("ours", "ours, second")
    with a_tree(options, options.mix) as (root, truth), Bench(root, truth, options) as bench:
        chosen = [each for each in report_contenders() if each.name in names]
        series = bench.series(chosen, cold=False, cores=0)
        first, again = (next(each for each in series if each.name == name) for name in names)
        part.numbers["second/second:first"] = again.median("wall") / first.median("wall")
        part.details = {each.name: each.document() for each in series}
        part.show(table("second report", series, "ours"))
    return part


def scale_envs(options: Options) -> Part:
    """Reports of ever more small environments: the time for each path."""
    part = Part()
    per_path: dict[int, float] = {}
    for envs in options.steps:
        # links nearly all, so that 200 of them fit on a disk
        mix = replace(options.mix, envs=envs, size=0.15, linked=1.0, copied=0.02, pip=0.05)
        alone = replace(options, tree=None, truth=None, keep=False)
        with a_tree(alone, mix) as (root, truth), Bench(root, truth, alone) as bench:
            chosen = [each for each in report_contenders() if each.name in ("du", "ours")]
            series = {each.name: each for each in bench.series(chosen, cold=False, cores=0)}
            per_path[envs] = series["ours"].median("wall") / truth.paths
            part.numbers[f"scale-envs/{envs}/us-per-path"] = per_path[envs] * 1e6
            part.numbers[f"scale-envs/{envs}/ours:du"] = series["ours"].median("wall") / series["du"].median(
                "wall"
            )
            part.numbers[f"scale-envs/{envs}/peak-MB"] = (series["ours"].peak_bytes or 0) / _MB
            part.details[str(envs)] = {name: each.document() for name, each in series.items()}
            part.details[str(envs)]["truth"] = asdict(truth)
            part.show(table(f"report, {envs} environments, {truth.paths:,} paths", [*series.values()], "du"))
    first, last = min(per_path), max(per_path)
    part.numbers[f"scale-envs/{last}-envs:{first}-envs/per-path"] = per_path[last] / per_path[first]
    return part


def apart(home: Path) -> dict[str, str]:
    """The environment variables of a user who has nothing yet."""
    folders = {"XDG_STATE_HOME": "state", "XDG_CACHE_HOME": "cache", "XDG_CONFIG_HOME": "config"}
    made = {name: str(home / folder) for name, folder in {**folders, "XDG_DATA_HOME": "data"}.items()}
    # our bytecode is kept after the warming run, as it is when pip installs us
    python = {"PYTHONPATH": str(REPOSITORY), "PYTHONDONTWRITEBYTECODE": ""}
    return {**made, **python, "HOME": str(home)}


def say(text: str) -> None:
    """Tell what is being done."""
    print(text, file=sys.stderr, flush=True)
