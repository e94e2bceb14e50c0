"""Finishing what was interrupted, before anybody looks at the files."""

from __future__ import annotations


def finish_interrupted() -> tuple[bool, list[str]]:
    """Finish what runs began that were killed; whether there was anything, and what to tell of it.

    It gives names other inodes: what was looked at before must be looked at again. StateError: the
    journal cannot be used.
    """
    from .journal import Journal
    from .sharing.recovery import recover

    journal = Journal.open()
    try:
        anything = bool(journal.open_intents() or journal.left_stagings())
        return anything, recover(journal) if anything else []
    finally:
        journal.close()
