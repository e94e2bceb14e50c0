"""``python -m tests.benchmarks [report|second|scale-envs|apply|all] [options]``, or ``make``, or ``compare``.

Not a part of the tests: it takes minutes to hours, room on the disk, and a machine with nothing else to do.
``make DIR`` makes the tree and leaves it; ``compare OLD.json NEW.json`` tells two commits apart.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING

from tests.benchmarks import applying, automatic, inventory, reporting, results, targets
from tests.benchmarks.options import Options
from tests.benchmarks.tree import Mix, make_tree
from tests.benchmarks.truth import truth_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.benchmarks.results import Part

#: The sub-benchmarks, in the order of ``all``. Others are added here.
BENCHMARKS: dict[str, Callable[[Options], Part]] = {
    "report": reporting.report,
    "second": reporting.second,
    "scale-envs": reporting.scale_envs,
    "apply": applying.apply,
    "automatic": automatic.automatic,
    "inventory": inventory.inventory,
}
_CACHE = "~/.cache/conda-dedup-plugin-tests/benchmarks"


def main() -> int:
    """Run what the command line says."""
    if sys.argv[1:2] == ["compare"]:
        old, new = (json.loads(Path(path).read_text()) for path in sys.argv[2:4])
        print(results.compare(old, new))
        return 0
    words = _parser().parse_args()
    mix = Mix(**{each.name: getattr(words, each.name) for each in fields(Mix)})
    if words.what == "make":
        target = Path(words.directory).absolute()
        make_tree(target, mix, words.cache.expanduser(), offline=words.offline)
        truth = json.dumps(asdict(truth_of(target)), indent=2)
        target.with_name(f"{target.name}.truth.json").write_text(f"{truth}\n")
        print(truth)
        return 0
    workdir = Path(words.workdir or tempfile.mkdtemp(prefix="conda-dedup-benchmark-")).absolute()
    workdir.mkdir(parents=True, exist_ok=True)
    options = Options(
        mix=mix,
        workdir=workdir,
        cache=words.cache.expanduser(),
        tree=words.tree and words.tree.absolute(),
        truth=words.truth,
        rounds=words.rounds,
        slow_rounds=words.slow_rounds,
        cores=tuple(words.cores),
        cold=not words.warm,
        offline=words.offline,
        keep=words.keep,
        only=tuple(words.only),
        steps=tuple(words.steps),
    )
    try:
        return _run(list(BENCHMARKS) if words.what == "all" else [words.what], options, words.output)
    finally:
        if not (words.workdir or words.keep):
            shutil.rmtree(workdir, ignore_errors=True)


def _run(names: list[str], options: Options, output: Path | None) -> int:
    """Run sub-benchmarks; what is done is written after each."""
    # so that what is mounted and made goes when somebody ends this
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    mix = {"tree": "given"} if options.tree else asdict(options.mix)
    parameters = {**mix, "rounds": options.rounds, "slow_rounds": options.slow_rounds}
    parts: dict[str, Part] = {}
    numbers: dict[str, float] = {}
    load = os.getloadavg()[0]  # ratios of a busy machine are worth little, and the document says so
    if load > 1:
        print(f"the machine is busy: a load of {load:.1f}", file=sys.stderr)
    for name in names:
        parts[name] = BENCHMARKS[name](options)
        numbers |= parts[name].numbers
        if output:
            document = results.document(parts, parameters, options.tree or options.workdir)
            document["load_before"] = round(load, 1)
            document["targets"] = list(targets.lines(numbers))
            output.write_text(json.dumps(document, indent=2) + "\n")
    print("\n".join(targets.lines(numbers)))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="?", default="all", choices=[*BENCHMARKS, "all", "make"])
    parser.add_argument("directory", nargs="?", help="for make: where")
    shares = parser.add_argument_group("the tree")
    default = Mix()
    for each in fields(Mix):
        value = getattr(default, each.name)
        shares.add_argument(f"--{each.name}", type=type(value), default=value, help=f"default: {value}")
    shares.add_argument("--tree", type=Path, help="one that exists, instead; nothing is written there")
    shares.add_argument("--truth", type=Path, help="file with the truth about it; written if not there")
    shares.add_argument("--offline", action="store_true", help="of what this Python has installed")
    shares.add_argument("--cache", type=Path, default=Path(_CACHE), help="of wheels")
    runs = parser.add_argument_group("runs")
    runs.add_argument("--rounds", type=int, default=5)
    runs.add_argument("--slow-rounds", type=int, default=1, help="of those that read contents")
    runs.add_argument("--cores", type=int, nargs="+", default=[0, 1], help="0: all (default: 0 1)")
    runs.add_argument("--warm", action="store_true", help="no cold runs (they need root)")
    runs.add_argument("--only", nargs="+", default=[], metavar="NAME", help="du, ours, jdupes ...")
    steps = Options.steps
    runs.add_argument("--steps", type=int, nargs="+", default=steps, help=f"of scale-envs (default: {steps})")
    runs.add_argument("--workdir", type=Path)
    runs.add_argument("--keep", action="store_true", help="do not remove what was made")
    runs.add_argument("--output", type=Path, help="write JSON")
    return parser


if __name__ == "__main__":
    if os.name != "posix":
        sys.exit("Linux only")
    sys.exit(main())
