"""What is remembered of environments: by several processes at once, by killed ones, of what is gone."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from conda_dedup_plugin import pending
from conda_dedup_plugin.automatic import Command, share_changed
from conda_dedup_plugin.explicit import Changes, changes, specs_of
from conda_dedup_plugin.remembering import alone, load, update
from conda_dedup_plugin.settings import Settings
from conda_dedup_plugin.state import environment_directory
from tests.lab.forge import Forge, noise
from tests.test_manners import home, register

__all__ = ["home"]

FORK = multiprocessing.get_context("fork")
WRITERS = 8


class Counts(msgspec.Struct):
    """How often each process wrote; ``text`` is long, and all of one letter."""

    counts: dict[str, int] = {}
    text: str = ""


def write_until(path: Path, me: str, until: float, written) -> None:
    """Count in a field of one's own, and look all the time that nothing is torn or goes back."""
    own = refused = 0
    seen: dict[str, int] = {}
    while time.monotonic() < until or not own:  # on a busy machine one may come late

        def count(there: Counts | None, own: int = own) -> Counts:
            there = there or Counts()
            assert there.counts.get(me, 0) == own, "a write was lost"
            there.counts[me] = own + 1
            there.text = me[-1] * 20_000
            return there

        if update(path, Counts, count):
            own += 1
        else:
            refused += 1
        content = path.read_bytes() if path.exists() else b"{}"
        now = msgspec.json.decode(content, type=Counts)
        assert len(set(now.text)) <= 1, "torn"
        assert all(now.counts.get(name, 0) >= number for name, number in seen.items()), "went back"
        seen = now.counts
    written.put((me, own, refused))


@pytest.mark.parametrize("seconds", [3, pytest.param(30, marks=pytest.mark.soak)])
def test_no_record_is_torn_or_lost(home: Path, seconds: int) -> None:
    path = environment_directory("/envs/one") / "check.json"
    written = FORK.Queue()
    until = time.monotonic() + seconds
    writers = [
        FORK.Process(target=write_until, args=(path, f"writer {number}", until, written))
        for number in range(WRITERS)
    ]
    for writer in writers:
        writer.start()
    told = [written.get(timeout=seconds + 60) for _ in writers]
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    found = load(path, Counts)
    assert found is not None
    assert found.counts == {me: own for me, own, _ in told}
    assert all(own for _, own, _ in told)
    assert sum(refused for *_, refused in told)
    assert sorted(os.listdir(path.parent)) == ["check.json", "writing"]


def hold(directory: Path) -> subprocess.Popen[str]:
    """Another process that writes in a directory and never ends."""
    code = (
        "import sys, time, pathlib\n"
        "from conda_dedup_plugin.remembering import alone\n"
        "with alone(pathlib.Path(sys.argv[1])) as ours:\n"
        "    print(ours, flush=True)\n"
        "    time.sleep(600)\n"
    )
    root = str(Path(pending.__file__).parents[1])
    holder = subprocess.Popen(
        [sys.executable, "-c", code, directory],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": root},
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "True\n"
    return holder


@pytest.mark.parametrize("stop", [False, True], ids=["at work", "stopped"])
def test_nobody_waits_for_a_writer_and_a_killed_one_holds_nothing(
    home: Path, tmp_path: Path, stop: bool
) -> None:
    prefix = str(Forge(tmp_path).environment("one", {("p", "1", "0"): {"lib/p.so": noise("p", 9000)}}))
    assert pending.done(prefix, ["p-1-0"], pending.Result(0, 0))
    holder = hold(environment_directory(prefix))
    try:
        if stop:
            holder.send_signal(signal.SIGSTOP)
        assert not pending.note(prefix, ["q-1-0"])
        assert not pending.clear(prefix)
        assert not pending.done(prefix, [], pending.Result(1, 1))
        check = pending.read(prefix)
        assert (check.specs, check.pending) == (["p-1-0"], None)
        assert [found.prefix for found in pending.remembered()] == [prefix]
    finally:
        holder.kill()
        holder.communicate()
    assert pending.note(prefix, ["q-1-0"])
    work = pending.read(prefix).pending
    assert work is not None and work.linked == ["q-1-0"]


def test_what_is_gone_is_not_forgotten_while_somebody_writes(home: Path, tmp_path: Path) -> None:
    prefix = Forge(tmp_path).environment("one", {})
    assert pending.note(str(prefix), [])
    directory = environment_directory(str(prefix))
    shutil.rmtree(prefix)
    with alone(directory) as ours:
        assert ours
        assert list(pending.remembered()) == []
        assert (directory / "check.json").exists()
    assert list(pending.remembered()) == []
    assert not directory.exists()


def test_a_renamed_environment_is_another(home: Path, tmp_path: Path) -> None:
    one = Forge(tmp_path).environment("one", {})
    assert pending.done(str(one), [], pending.Result(0, 0))
    one.rename(one.with_name("two"))
    assert pending.read(str(one.with_name("two"))).checked is None
    assert list(pending.remembered()) == []
    assert pending.read(str(one)).checked is None


def test_the_file_of_an_earlier_version(home: Path, tmp_path: Path) -> None:
    prefix = Forge(tmp_path).environment("one", {("p", "1", "0"): {}, ("q", "1", "0"): {}})
    old = {
        "prefix": str(prefix),
        "checked": time.time() + 5,
        "specs": ["p-1-0", "r-1-0"],
        "result": {"files": 1, "bytes_freed": 2, "failed": 0},
        "pending": {"process": "boot/1/2", "noted": 5.0, "linked": ["p-1-0"], "copies": True, "wheels": []},
    }
    (environment_directory(str(prefix)) / "check.json").write_text(json.dumps(old))
    check = pending.read(str(prefix))
    assert check.specs == old["specs"]
    assert check.pending is not None and check.pending.copies
    specs = specs_of(str(prefix), check.specs, check.checked)
    assert [spec.partition("#")[0] for spec in specs] == ["forge/linux-64::p-1-0", "forge/linux-64::q-1-0"]
    assert pending.done(str(prefix), specs, pending.Result(0, 0))
    now = pending.read(str(prefix)).changes
    assert now == Changes(added=[specs[1]], removed=["r-1-0"])


# -- transactions -----------------------------------------------------------------------------------------


def history(prefix: Path, *lines: str) -> None:
    with (prefix / "conda-meta/history").open("a") as stream:
        stream.write("\n".join(["==> 2026-01-01 00:00:00 <==", "# cmd: conda install", *lines, ""]))


def check(tmp_path: Path, prefix: Path, began: float) -> pending.Check:
    list(share_changed(Settings(), Command("install", began, {}, target=str(prefix))))
    return pending.read(str(prefix))


def test_the_specs_before_and_after_a_transaction(home: Path, tmp_path: Path) -> None:
    forge = Forge(tmp_path)
    prefix = forge.environment("one", {("p", "1", "0"): {}, ("q", "1", "0"): {}})
    register(tmp_path / "home", forge)
    (tmp_path / "home/.conda").mkdir(exist_ok=True)
    began = time.time()
    history(prefix, "+forge/linux-64::p-1-0", "+forge/linux-64::q-1-0")
    first = check(tmp_path, prefix, began)
    assert [spec.partition("#")[0] for spec in first.specs] == [
        "forge/linux-64::p-1-0",
        "forge/linux-64::q-1-0",
    ]
    assert all(len(spec.partition("#")[2]) == 64 for spec in first.specs)
    assert first.before == []
    assert first.changes == Changes(added=first.specs)
    (prefix / "conda-meta/p-1-0.json").unlink()
    (prefix / "conda-meta/q-1-0.json").unlink()
    forge.environment("one", {("p", "2", "0"): {}, ("r", "1", "0"): {}})
    began = time.time()
    history(
        prefix,
        "-forge/linux-64::p-1-0",
        "-forge/linux-64::q-1-0",
        "+forge/linux-64::p-2-0",
        "+forge/linux-64::r-1-0",
    )
    second = check(tmp_path, prefix, began)
    assert second.before == first.specs
    assert second.changes == Changes(
        added=[second.specs[1]], removed=[first.specs[1]], changed=[(first.specs[0], second.specs[0])]
    )
    assert second.transaction is not None and second.transaction >= began
    # a further check without a transaction keeps what the last one was
    assert pending.done(str(prefix), second.specs, pending.Result(0, 0), time.time() + 5)
    assert pending.read(str(prefix)).changes == second.changes


def test_what_is_compared() -> None:
    before = ["c/linux-64::a-1-0#x", "c/linux-64::b-1-0#x", "c/linux-64::d-e-1-0#x"]
    after = ["c/linux-64::a-1-0#x", "d/linux-64::b-1-0#x", "c/linux-64::e-1-0#x"]
    assert changes(before, after) == Changes(
        added=[after[2]], removed=[before[2]], changed=[(before[1], after[1])]
    )
