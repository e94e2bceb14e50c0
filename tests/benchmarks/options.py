"""What a sub-benchmark is told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.tree import Mix


@dataclass(frozen=True)
class Options:
    """The options of the command line."""

    mix: Mix
    workdir: Path
    cache: Path
    tree: Path | None = None
    #: a file with the truth about the tree: read if there, else written
    truth: Path | None = None
    rounds: int = 5
    slow_rounds: int = 1
    #: numbers of processors to run on, 0 being all
    cores: tuple[int, ...] = (0, 1)
    cold: bool = True
    offline: bool = False
    keep: bool = False
    #: names of contenders; none for all
    only: tuple[str, ...] = ()
    #: for scale-envs: how many environments
    steps: tuple[int, ...] = (20, 50, 100, 200)
