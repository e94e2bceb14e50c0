"""Running a program and what it took: time, processor, memory, bytes read; its children's included."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_EVERY = 0.02
#: No program is waited for longer, in seconds.
_LONGEST = 3600
_DROP = Path("/proc/sys/vm/drop_caches")


@dataclass(frozen=True)
class Measured:
    """One run. Seconds and bytes; ``peak_bytes`` is None where memory was not looked at."""

    wall: float
    cpu: float
    #: of all processes together at one moment, shared pages counted once (PSS)
    peak_bytes: int | None
    #: from the device, and by read() from anywhere
    device_bytes: int
    read_bytes: int
    returncode: int


def run(
    command: Sequence[str],
    output: Path,
    *,
    environment: Mapping[str, str] | None = None,
    cores: int = 0,
    memory: bool = False,
) -> Measured:
    """Run to the end, standard output to a file; on ``cores`` processors, 0 being all.

    ``memory`` looks at the processes all the time, which takes some time itself.
    """
    pinned = ["taskset", "-c", ",".join(map(str, sorted(os.sched_getaffinity(0))[:cores]))] if cores else []
    with output.open("wb") as file, output.with_suffix(".err").open("wb") as errors:
        start = time.perf_counter()
        process = subprocess.Popen(
            [*pinned, *command],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=errors,
            env={**os.environ, "LC_ALL": "C.UTF-8", **(environment or {})},
            start_new_session=True,
        )
        watch = _Memory(process.pid) if memory else None
        alarm = threading.Timer(_LONGEST, os.killpg, (process.pid, signal.SIGKILL))
        alarm.start()
        try:
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        finally:
            alarm.cancel()
        wall = time.perf_counter() - start
        counted = _io(process.pid)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    return Measured(
        wall=wall,
        cpu=usage.ru_utime + usage.ru_stime,
        peak_bytes=watch.stop() if watch else None,
        device_bytes=counted.get("read_bytes", 0),
        read_bytes=counted.get("rchar", 0),
        returncode=process.returncode,
    )


def can_drop_caches() -> bool:
    """Whether a cold run is possible here."""
    return os.access(_DROP, os.W_OK)


def drop_caches() -> None:
    """Forget what was read from any device, names and inodes too."""
    os.sync()
    _DROP.write_text("3")


def installed(program: str) -> bool:
    """Whether there is such a program."""
    return shutil.which(program) is not None


def _io(pid: int) -> dict[str, int]:
    """The counters of an ended process that nobody has waited for yet, with those of its children."""
    try:
        lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    except OSError:
        return {}
    return {name: int(value) for name, _, value in (line.partition(": ") for line in lines)}


class _Memory(threading.Thread):
    """Looks at a process and all below it."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.pid, self.peak, self.ended = pid, 0, threading.Event()
        self.start()

    def run(self) -> None:
        while not self.ended.wait(_EVERY):
            self.peak = max(self.peak, sum(_resident(pid) for pid in _family(self.pid)))

    def stop(self) -> int:
        """The most it was, in bytes."""
        self.ended.set()
        self.join()
        return self.peak


def _family(pid: int) -> Iterator[int]:
    yield pid
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            for child in Path(f"/proc/{pid}/task/{task}/children").read_text().split():
                yield from _family(int(child))
    except OSError:
        return  # ended meanwhile


def _resident(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:")), 0)
