"""The time an automatic run may take, what becomes of the rest, and what pip did without conda."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from conda_dedup_plugin import apply, automatic, changes, pending
from conda_dedup_plugin.apply import apply_plan
from conda_dedup_plugin.automatic import Command, lines, share_changed
from conda_dedup_plugin.engine import analyse
from conda_dedup_plugin.files import CLOCK_SLACK
from conda_dedup_plugin.plan import PlanOptions
from conda_dedup_plugin.settings import Settings
from conda_dedup_plugin.sharing import batches
from conda_dedup_plugin.state import environment_directory
from tests.lab import needs
from tests.lab.forge import Forge, noise
from tests.lab.invariants import assert_unchanged, snapshot
from tests.test_manners import add_wheel, home, in_child, register

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["home"]

SITE = "lib/python3.11/site-packages"
PACKAGES = {
    (f"p{number}", "1", "0"): {f"lib/p{number}-{part}.so": noise(f"{number} {part}", 9000) for part in "ab"}
    for number in range(4)
}
WHEELS = {f"w{number}": {f"w{number}/ext.so": noise(f"w{number}", 9000)} for number in range(4)}
#: So many files of an environment are held twice.
FILES = 12
#: The time after it is over, in seconds.
LATE = 1000.0


class Clock:
    """A clock that stands still until it is told how often it may be looked at; from then on it is late."""

    def __init__(self, looks: int) -> None:
        self.looks = looks

    def __call__(self) -> float:
        self.looks -= 1
        return 0.0 if self.looks >= 0 else LATE


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock by which the time is over; that of batches goes on, with a batch for every file."""
    clock = Clock(10**9)

    class Time:
        monotonic = clock
        time = staticmethod(time.time)

    for module in (automatic, apply):
        monkeypatch.setattr(module, "time", Time)
    monkeypatch.setattr(batches, "MOST_NAMES", 1)
    return clock


def world(tmp_path: Path, *names: str) -> tuple[Forge, list[Path]]:
    """Environments with the same packages and wheels, every file a copy of its own."""
    forge = Forge(tmp_path)
    prefixes = [forge.environment(name, PACKAGES) for name in names]
    for prefix in prefixes:
        for name, files in WHEELS.items():
            add_wheel(prefix, name, files)
    register(tmp_path / "home", forge)
    return forge, prefixes


def left(one: Path, two: Path) -> list[str]:
    """What two environments still hold twice."""
    found = sorted(path.relative_to(one) for path in one.rglob("*.so"))
    assert len(found) == FILES
    return [str(path) for path in found if not os.path.samefile(one / path, two / path)]


def install(*prefixes: Path, began: float) -> Command:
    """A command that brought every package to each of them, and all that is older is pip's."""
    return Command("install", began, {str(prefix): set(PACKAGES) for prefix in prefixes})


def elsewhere(tmp_path: Path) -> Command:
    return Command("create", time.time() + 1, {}, target=str(tmp_path / "elsewhere"))


def told(settings: Settings, command: Command) -> list[str]:
    return list(lines(settings, share_changed(settings, command), "conda dedup"))


def over(*names: str) -> str:
    words = " ".join(f"-n {name}" for name in names)
    shown = ", ".join(f"'{name}'" for name in names)
    return (
        f"the 5 s for sharing are over; the rest of env{'s' * (len(names) > 1)} {shown} "
        f"is taken up after the next command, or now by: conda dedup apply {words}"
    )


@pytest.mark.parametrize("in_process", [False, True], ids=["that died", "the same"])
@pytest.mark.parametrize("looks", [1, 2, 4, 6, 9, 12, 15, 18, 21])
def test_the_rest_is_taken_up_by_the_next_runs(
    home: Path, tmp_path: Path, clock: Clock, looks: int, in_process: bool
) -> None:
    """Wherever the time is over, something was done, and nothing is lost or done by halves."""
    began = time.time() - 1
    forge, (one, two) = world(tmp_path, "one", "two")
    needs("a file system without reflinks", not _reflinks(forge))
    before = snapshot(one, two)
    rounds = 0
    command = install(two, began=began)

    def once() -> None:
        clock.looks = looks
        lasting = told(Settings(), command)
        unfinished = pending.read(str(two)).pending is not None
        assert (over("two") in lasting) == unfinished
        assert len([line for line in lasting if "are over" in line]) == unfinished

    while rounds == 0 or pending.read(str(two)).pending is not None:
        much = len(left(one, two))
        if in_process:
            once()
        else:
            in_child(once)
        assert len(left(one, two)) < much, "it makes no progress"
        command = elsewhere(tmp_path)
        rounds += 1
    assert left(one, two) == []
    assert rounds > 1 or looks > 15, "the time was never over"
    assert_unchanged(before, snapshot(one, two), allow_mtime=lambda path: path.endswith(".so"))
    clock.looks = 10**9
    assert told(Settings(), elsewhere(tmp_path)) == []


def _reflinks(forge: Forge) -> bool:
    return any(device.reflink for device in analyse(forge.scope(), PlanOptions()).devices.values())


def test_environments_that_are_not_begun_stay_pending(home: Path, tmp_path: Path, clock: Clock) -> None:
    began = time.time() - 1
    _, (one, two, three) = world(tmp_path, "one", "two", "three")
    clock.looks = 1
    assert told(Settings(), install(two, three, began=began))[-1] == over("two", "three")
    # all of it: packages, and wheels by their time
    work = pending.read(str(three)).pending
    assert work is not None
    assert work.linked == sorted("-".join(dist) for dist in PACKAGES)
    assert work.noted == pytest.approx(began)
    assert pending.read(str(three)).checked is None
    clock.looks = 10**9
    assert len(told(Settings(), elsewhere(tmp_path))) == 2
    assert left(one, two) == left(one, three) == []


def test_copies_stay_copies_when_put_off(home: Path, tmp_path: Path, clock: Clock) -> None:
    forge, (one, two, three) = world(tmp_path, "one", "two", "three")
    needs("a file system without reflinks", not _reflinks(forge))
    clock.looks = 1
    transactions = {str(prefix): set(PACKAGES) for prefix in (two, three)}
    told(Settings(), Command("install", time.time() - 1, transactions, copies=True))
    clock.looks = 10**9
    told(Settings(), elsewhere(tmp_path))
    assert len(left(one, two)) == len(left(one, three)) == FILES


def test_the_own_environment_comes_first(home: Path, tmp_path: Path) -> None:
    """Then what was left behind, at last what pip did without conda."""
    began = time.time() - 1
    _, (own, behind, piped, _) = world(tmp_path, "y-own", "x-behind", "a-piped", "b")
    in_child(lambda: pending.note(str(behind), []))
    pending.done(str(piped), [], pending.Result(0, 0))
    os.utime(piped / SITE, (time.time() + 5, time.time() + 5))
    command = install(own, began=began)
    found = changes.changed_environments(automatic.everything(), command)
    assert list(found) == [str(own), str(behind), str(piped)]


def test_zero_does_nothing_and_notes(home: Path, tmp_path: Path) -> None:
    began = time.time() - 1
    _, (one, two) = world(tmp_path, "one", "two")
    none = Settings(auto_budget=0)
    assert told(none, install(two, began=began)) == []
    assert told(none, elsewhere(tmp_path)) == []
    assert len(left(one, two)) == FILES
    assert len(told(Settings(), elsewhere(tmp_path))) == 1
    assert left(one, two) == []


def test_what_is_not_begun_is_counted(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan whose time is over before it begins: one batch."""
    monkeypatch.setattr(batches, "MOST_NAMES", 1)
    forge, (one, two) = world(tmp_path, "one", "two")
    analysis = analyse(forge.scope(), PlanOptions())
    applied = apply_plan(analysis, "test", until=time.monotonic())
    assert applied.inodes + applied.later == len(analysis.plan.shares)
    assert 1 <= applied.inodes <= 2  # the next one is asked for before a batch is done
    rest = apply_plan(analyse(forge.scope(), PlanOptions()), "test", until=time.monotonic() + 600)
    assert (rest.inodes, rest.later) == (applied.later, 0)
    assert left(one, two) == []


# -- pip without conda ------------------------------------------------------------------------------------


@pytest.fixture
def seen(home: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Two environments that were seen to, with nothing left to do."""
    began = time.time() - 1
    _, (one, two) = world(tmp_path, "one", "two")
    told(Settings(), install(one, two, began=began))
    assert left(one, two) == []
    time.sleep(2 * CLOCK_SLACK)
    return one, two


def pip(*prefixes: Path) -> Iterator[Path]:
    """Install a wheel with a module that lies in site-packages itself."""
    for prefix in prefixes:
        add_wheel(prefix, "new", {"_new.so": noise("new", 9000), "new/ext.so": noise("new ext", 9000)})
        yield prefix / SITE


def test_pip_without_conda_is_found_by_its_state(
    seen: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = pip(*seen)
    (line,) = told(Settings(), elsewhere(tmp_path))
    assert line.startswith("2 files of env ")
    for path in ("_new.so", "new/ext.so"):
        assert os.path.samefile(one / path, two / path)
    # our own work in site-packages is no reason to look again
    looked: list[object] = []
    look = automatic.look
    monkeypatch.setattr(automatic, "look", lambda *words: looked.append(words) or look(*words))
    for _ in range(2):
        assert told(Settings(), elsewhere(tmp_path)) == []
    assert looked == []


def test_pip_before_a_command_on_the_same_environment(seen: tuple[Path, Path], tmp_path: Path) -> None:
    """The command is not taken for all that there was since the last check."""
    one, two = pip(*seen)
    time.sleep(2 * CLOCK_SLACK)
    told(Settings(), Command("install", time.time(), {str(seen[1]): {("p0", "1", "0")}}))
    assert os.path.samefile(one / "new/ext.so", two / "new/ext.so")


def test_only_what_was_seen_before_is_found_by_its_state(home: Path, tmp_path: Path) -> None:
    """Something was announced there and taken back, and so it is remembered."""
    _, (one, two) = world(tmp_path, "one", "two")
    for prefix in pip(one, two):
        pending.note(str(prefix).removesuffix(f"/{SITE}"), [])
        pending.clear(str(prefix).removesuffix(f"/{SITE}"))
    assert told(Settings(), elsewhere(tmp_path)) == []
    assert not os.path.samefile(one / SITE / "_new.so", two / SITE / "_new.so")


def test_an_environment_of_somebody_else_is_not_found_by_its_state(
    seen: tuple[Path, Path], tmp_path: Path
) -> None:
    needs("root, to give files away", os.geteuid() == 0)
    list(pip(*seen))
    for prefix in seen:
        os.chown(prefix, 12345, 12345)
    assert told(Settings(), elsewhere(tmp_path)) == []


def test_what_conda_brought_is_not_taken_for_pips(seen: tuple[Path, Path], tmp_path: Path) -> None:
    """While we were switched off, say, with copies for a reason."""
    for prefix in seen:
        record = next((prefix / "conda-meta").glob("p0-*.json"))
        list(pip(prefix))
        text = record.read_text().replace(
            '"files": [', f'"files": ["{SITE}/new-1.0.dist-info/RECORD", "{SITE}/_new.so", '
        )
        record.write_text(text)
    assert told(Settings(), elsewhere(tmp_path)) == []
    assert not os.path.samefile(*(prefix / SITE / "_new.so" for prefix in seen))


def test_what_is_gone_is_forgotten(seen: tuple[Path, Path], tmp_path: Path) -> None:
    remembered = [environment_directory(str(prefix)) for prefix in seen]
    seen[0].rename(tmp_path / "moved")
    assert told(Settings(), elsewhere(tmp_path)) == []
    assert [check.prefix for check in pending.remembered()] == [str(seen[1])]
    assert [path.exists() for path in remembered] == [False, True]
