"""The status, as people read it."""

from __future__ import annotations

import shlex
from datetime import datetime
from typing import TYPE_CHECKING

from rich.text import Text

from ..declared import AUTO, AUTO_BUDGET, GOAL, METHOD
from ..model import Method, Reason
from ..tone import amount
from ..ways import Why
from .text import printable
from .words import files

if TYPE_CHECKING:
    from rich.console import Console

    from ..distant import Distant
    from ..history import Run
    from ..pending import Check
    from ..status import OnDevice, Status

#: The text has so many last checks.
_MOST_CHECKS = 5
_WHY = {
    Why.ALWAYS_COPY: "independent copies are asked for (always_copy)",
    Why.GOAL_INODES: f"{GOAL} is inodes",
    Why.METHOD_REFLINK: f"{METHOD} is reflink",
    Why.METHOD_HARDLINK: f"{METHOD} is hardlink",
    Why.CAN_REFLINK: "the device can reflink",
    Why.CANNOT_REFLINK: "the device cannot reflink",
}
_SET_BY = {
    Why.GOAL_INODES: GOAL,
    Why.METHOD_REFLINK: METHOD,
    Why.METHOD_HARDLINK: METHOD,
}
_METHODS = {Method.REFLINK: "reflinks", Method.BLOCKS: "equal blocks", Method.HARDLINK: "hard links"}


def print_status(status: Status, prog: str, out: Console) -> None:
    """Print the devices, the automatic run, what was done last and what is pending."""
    if not status.devices:
        out.print("No environment or package cache was found.")
    pool = None
    for one in status.devices:
        if pool is not None and one.place.device.pool != pool:
            out.print()
        _print_device(one, status, one.place.device.pool == pool, out)
        pool = one.place.device.pool
    out.print()
    settings = status.settings
    if settings.auto:
        seconds = f", at most {settings.auto_budget} s" if settings.auto_budget else ", noted only: 0 s"
        origin = _set_in(status, AUTO_BUDGET)
        line(out, "Automatic", f"on, after each conda command{seconds}{origin}")
    else:
        line(out, "Automatic", f"off: {AUTO} is false{_set_in(status, AUTO)}")
    checked = [check for check in status.checks if check.checked is not None]
    for check in checked[:_MOST_CHECKS]:
        line(out, "  checked", _check(check, status))
    if len(checked) > _MOST_CHECKS:
        line(out, "", f"and {len(checked) - _MOST_CHECKS:,} more before; all of them with: --json")
    line(out, "Last run", "none" if status.last is None else run_line(status.last))
    _print_pending(status, prog, out)
    for distant in status.distant:
        out.print()
        _print_distant(distant, out)


def _print_device(one: OnDevice, status: Status, again: bool, out: Console) -> None:
    place, device = one.place, one.place.device
    what = f"{device.file_system}, the same file system as above" if again else device.file_system
    out.print(Text(f"{printable(place.directory)}  ({what})", style="bold"))
    counts = [(len(place.environments), "environment"), (len(place.caches), "package cache")]
    line(out, "  holds", ", ".join(f"{count:,} {name}{'' if count == 1 else 's'}" for count, name in counts))
    line(out, "  can", "; ".join(filter(None, (_able(one), _unable(one)))))
    why = _WHY[one.why] + _set_in(status, _SET_BY.get(one.why, ""))
    if one.held is not None:
        line(out, "  shared by", f"nothing: {why}")
        if one.held.value not in why:
            line(out, "", one.held.value)
    else:
        line(out, "  shared by", f"{_methods(one.methods)}: {why}")
    for note in notes_of(one):
        line(out, "  note", note)


def _able(one: OnDevice) -> str:
    device = one.place.device
    able = ["reflinks"] if device.reflink else []
    able += [f"hard links (up to {device.link_limit:,} names)"] if device.hardlink else []
    return ", ".join([*able, "atomic exchange"] if one.place.exchange else able)


def _unable(one: OnDevice) -> str:
    device = one.place.device
    unable = [] if device.reflink or not device.certain else ["reflinks"]
    unable += [] if device.hardlink else ["hard links"]
    unable += ["atomic exchange"] if one.place.exchange is False else []
    unknown = [] if device.certain else ["reflinks"]
    unknown += ["atomic exchange"] if one.place.exchange is None else []
    return "; ".join(
        [f"no {', no '.join(unable)}"] * bool(unable) + [f"unknown: {', '.join(unknown)}"] * bool(unknown)
    )


def _methods(methods: tuple[Method, ...]) -> str:
    first, *others = (_METHODS[method] for method in methods)
    return f"{first}, else {' and '.join(others)}" if others else first


def notes_of(one: OnDevice) -> list[str]:
    """Return what else is to be known of sharing on a device, half a sentence each."""
    place, device = one.place, one.place.device
    found = []
    if device.remote:
        found.append("writers on other machines are not seen; files changed less than 5 s ago are left alone")
    if one.held is Reason.OVERLAY:
        found.append("what a command brought is shared after it; apply --same-layer shares the rest")
    if place.exchange is False:
        found.append("names are replaced by renaming, not exchanged")
    if place.read_only:
        found.append("it is mounted read-only: nothing can be shared")
    if not device.certain and Method.REFLINK not in one.methods:
        found.append("no file there is yours to ask whether it can reflink")
    return found


def _check(check: Check, status: Status) -> str:
    result = check.result
    done = f"{files(result.files)} shared, {amount(result.bytes_freed)} freed" if result else ""
    failed = f", {result.failed:,} failed" if result and result.failed else ""
    return f"{_local(check.checked or 0)}  {printable(name_of(check, status))}: {done}{failed}"


def run_line(run: Run) -> str:
    """Write in a line when a run was, what it was and what came of it."""
    state = "" if run.finished else " (running)" if run.running else " (interrupted)"
    size = ("-" if run.bytes_freed < 0 else "") + amount(abs(run.bytes_freed))
    return f"{_local(run.started)}  {printable(run.command)}{state}: {files(run.names)}, {size} freed"


def _print_pending(status: Status, prog: str, out: Console) -> None:
    if not status.pending and not status.interrupted:
        line(out, "Pending", "nothing")
    for check in status.pending:
        command = command_for(check, status, prog)
        left = check.pending
        if left is not None and not left.is_free:
            line(out, "Pending", f"env '{printable(name_of(check, status))}': a command is at work on it")
        else:
            line(out, "Pending", f"env '{printable(name_of(check, status))}': waits for the next command")
            line(out, "", f"or now: {printable(command)}")
    for one in status.interrupted:
        what = [f"{one.changes:,} changes half done"] if one.changes else []
        what += [f"{len(one.stagings):,} staging directories left"] if one.stagings else []
        line(out, "Interrupted", f"{_local(one.run.started)}  {printable(one.run.command)} ({one.run.id})")
        line(out, "", ", ".join(what))
        for root in sorted(one.roots):
            line(out, "", f"in {printable(root)}")
        line(out, "", f"the next run sees to it, or now: {prog} apply")


def command_for(check: Check, status: Status, prog: str) -> str:
    """Return the command that takes up what is pending in an environment."""
    name = status.names.get(check.prefix, "")
    named = name and list(status.names.values()).count(name) == 1 and "/" not in name
    return f"{prog} apply {'-n' if named else '-p'} {shlex.quote(name if named else check.prefix)}"


def name_of(check: Check, status: Status) -> str:
    """Return what an environment is called, its path if it is not in scope."""
    return status.names.get(check.prefix, check.prefix)


def _print_distant(distant: Distant, out: Console) -> None:
    where = "another subvolume" if distant.subvolume else "another device"
    many = "its package cache" if len(distant.caches) == 1 else "all its package caches"
    value = printable(distant.value or f"a directory on {distant.place.mount_point}")
    out.print(Text(f"warning: '{printable(distant.tree.name)}' lies on {where} than {many}:"))
    line(out, "", f"{distant.tree.manager.value} copies every file into it")
    if distant.by_reflink:
        line(out, "", "(apply can share by reflink what was copied)")
    if distant.setting == "pkgs_dirs":
        line(out, "", f"to end that, set in condarc: pkgs_dirs: [{value}]")
    else:
        line(out, "", f"to end that, set: {distant.setting}={value}")


def _set_in(status: Status, setting: str) -> str:
    return f" (set in {printable(status.origins[setting])})" if setting in status.origins else ""


def line(out: Console, what: str, text: str) -> None:
    """Print a line below those of the other things that are told."""
    out.print(Text(f"{what:14}{text}".rstrip()))


def _local(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M")
