"""What the numbers have to be: one line each, ``name value target ok|SHORT``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


@dataclass(frozen=True)
class Target:
    """A number of a part by its name, and the most or the least it may be."""

    number: str
    most: float | None = None
    least: float | None = None

    def line(self, value: float) -> str:
        good = (self.most is None or value <= self.most) and (self.least is None or value >= self.least)
        limit = f"<={self.most:g}" if self.most is not None else f">={self.least:g}"
        return f"{self.number} {value:.3f} {limit} {'ok' if good else 'SHORT'}"


TARGETS = (
    # the report
    Target("report/warm/all-cores/ours:du", most=1.0),
    Target("report/warm/1-core/ours:du", most=1.3),
    Target("report/warm/all-cores/fastest-peer:ours", least=25),
    Target("report/peak-MB", most=300),
    Target("report/paths", least=500_000),
    Target("scale-envs/200-envs:20-envs/per-path", most=1.25),
    # the second report
    Target("report/warm/all-cores/second:first", most=0.25),
    Target("second/second:first", most=0.25),
    # apply
    Target("apply/hardlink/small/ours:jdupes", most=1.5),
    Target("apply/hardlink/large/ours:jdupes", most=1.0),
    Target("apply/btrfs/small/ours:duperemove", most=1.0),
    Target("apply/btrfs/large/ours:duperemove", most=1.0),
    Target("apply/xfs/small/ours:duperemove", most=1.0),
    Target("apply/xfs/large/ours:duperemove", most=1.0),
    # the automatic run
    Target("automatic/create/added-percent", most=3),
    Target("automatic/nothing-to-do/added-ms", most=50),
    Target("automatic/every-command/import-ms", most=3),
    # memory and scale beyond one run
    Target("inventory/10M:100k/per-path", most=1.5),
    Target("inventory/10M/peak-MB", most=600),
)


def lines(numbers: Mapping[str, float]) -> Iterator[str]:
    """The targets of all that was measured."""
    for target in TARGETS:
        if target.number in numbers:
            yield target.line(numbers[target.number])
