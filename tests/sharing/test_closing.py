"""Closing beside the work: all that was given is closed, nothing else is, and waiting waits for all of it."""

from __future__ import annotations

import os

from conda_dedup_plugin.sharing import closing
from conda_dedup_plugin.sharing.closing import Closer

LOT = 40


def opened(folder, count) -> list[int]:
    """Descriptors of files without names."""
    found = []
    for number in range(count):
        path = folder / str(number)
        path.write_bytes(b"x" * 4096)
        found.append(os.open(path, os.O_RDONLY))
        path.unlink()
    return found


def is_open(descriptor) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def test_what_was_given_is_closed_and_nothing_between(tmp_path):
    """Descriptors that lie between two of a lot are other people's."""
    descriptors = opened(tmp_path, LOT)
    given, others = descriptors[::3] + descriptors[1::3], descriptors[2::3]
    closer = Closer()
    try:
        closer.close(given)
        closer.wait()
        assert not any(map(is_open, given))
        assert all(map(is_open, others))
    finally:
        for descriptor in filter(is_open, descriptors):
            os.close(descriptor)


def test_no_more_than_two_lots_are_open_at_a_time(tmp_path):
    """Who closes faster than the device frees waits: descriptors are few."""
    lots = [opened(tmp_path, LOT) for _ in range(5)]
    closer = Closer()
    for number, lot in enumerate(lots):
        closer.close(lot)
        done = lots[: max(0, number + 1 - closing.MOST_LOTS)]
        assert not any(is_open(descriptor) for old in done for descriptor in old)
    closer.wait()
    assert not any(is_open(descriptor) for lot in lots for descriptor in lot)


def test_without_another_thread(tmp_path, monkeypatch):
    """A user may have no more threads; then they are closed at once."""

    def refuse(*words):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(closing._thread, "start_new_thread", refuse)
    descriptors = opened(tmp_path, LOT)
    closer = Closer()
    closer.close(descriptors)
    assert not any(map(is_open, descriptors))
    closer.wait()
