"""The settings: from conda's context where conda runs us, else from condarc files and variables."""

from __future__ import annotations

import reprlib
import sys
from collections.abc import Callable
from enum import Enum
from typing import TypeVar

from msgspec import Struct

from conda_dedup_plugin.condarc import Condarc, Found, expand, load_condarc
from conda_dedup_plugin.declared import (
    ADVISE,
    AUTO,
    AUTO_BUDGET,
    GOAL,
    HARDLINK_UNTRACKED,
    METHOD,
    MIN_SIZE,
    NORMALIZE_BYTECODE,
    NOTIFY_BYTES,
    NOTIFY_DAYS,
    SNAPSHOT_DIR,
)
from conda_dedup_plugin.kinds import Goal, MethodChoice

T = TypeVar("T")
E = TypeVar("E", bound=Enum)
Lookup = Callable[[str], Found | None]

_NAMES = (
    AUTO,
    METHOD,
    MIN_SIZE,
    GOAL,
    HARDLINK_UNTRACKED,
    NORMALIZE_BYTECODE,
    AUTO_BUDGET,
    NOTIFY_BYTES,
    NOTIFY_DAYS,
    SNAPSHOT_DIR,
    ADVISE,
)
_TRUE = frozenset({"true", "yes", "on", "y", "1"})
_FALSE = frozenset({"false", "no", "off", "n", "0"})
#: Where conda has a value from that no file or variable has: the default, mostly.
_CONDAS_OWN = "conda's settings"
_UNSET = frozenset({"", "none", "null", "~"})


class Settings(Struct, frozen=True):
    """What the user set; ``warnings`` has a sentence for every value that could not be used."""

    #: Share what a conda command brought, after the command.
    auto: bool = True
    method: MethodChoice = MethodChoice.AUTO
    #: Files of fewer bytes are left alone.
    min_size: int = 4096
    goal: Goal = Goal.BYTES
    #: Hard-link text and data that no conda package brought, too.
    hardlink_untracked: bool = False
    #: Share the bytecode of equal sources, and give those the same modification time.
    normalize_bytecode: bool = False
    #: So many seconds the run after a conda command may take.
    auto_budget: int = 5
    #: The user is told of an environment that could free more bytes; 0: never.
    notify_bytes: int = 1_000_000_000
    #: For so many days the user is not told of the same environment again.
    notify_days: int = 7
    #: Where a snapshot is written after each transaction; "": nowhere.
    snapshot_dir: str = ""
    #: Tell before an environment is made which one is nearly the same.
    advise: bool = True
    warnings: tuple[str, ...] = ()

    def floor(self, goal: Goal) -> int:
        """Return the least size in bytes that counts: for inodes any, but no empty file is ever shared."""
        return 1 if goal is Goal.INODES else max(self.min_size, 1)


def load() -> Settings:
    """Return the settings as they are now. Never raises: a bad value is the default and a warning."""
    warnings: list[str] = []
    lookup = _conda_lookup()
    if lookup is None:
        condarc = _condarc(warnings)
        lookup = condarc.plugin
    default = Settings()
    return Settings(
        auto=_value(lookup, AUTO, _boolean, default.auto, "true or false", warnings),
        method=_value(lookup, METHOD, _method, default.method, "auto, reflink or hardlink", warnings),
        min_size=_value(lookup, MIN_SIZE, _number, default.min_size, "a number of bytes", warnings),
        goal=_value(lookup, GOAL, _goal, default.goal, "bytes or inodes", warnings),
        hardlink_untracked=_value(
            lookup, HARDLINK_UNTRACKED, _boolean, default.hardlink_untracked, "true or false", warnings
        ),
        normalize_bytecode=_value(
            lookup, NORMALIZE_BYTECODE, _boolean, default.normalize_bytecode, "true or false", warnings
        ),
        auto_budget=_value(
            lookup, AUTO_BUDGET, _number, default.auto_budget, "a number of seconds", warnings
        ),
        notify_bytes=_value(
            lookup, NOTIFY_BYTES, _number, default.notify_bytes, "a number of bytes", warnings
        ),
        notify_days=_value(lookup, NOTIFY_DAYS, _number, default.notify_days, "a number of days", warnings),
        snapshot_dir=_value(
            lookup, SNAPSHOT_DIR, _directory, default.snapshot_dir, "an absolute path", warnings
        ),
        advise=_value(lookup, ADVISE, _boolean, default.advise, "true or false", warnings),
        warnings=tuple(warnings),
    )


def sharing_is_automatic() -> bool:
    """Whether files are shared after each command; on Windows, where much is in use, only when asked for."""
    return sys.platform != "win32"


def always_copy() -> bool:
    """Whether the user wants independent files (``--copy``, ``always_copy``). Never raises."""
    if "conda.base.context" in sys.modules:
        try:
            from conda.base.context import context

            return bool(context.always_copy)
        except Exception:
            pass  # a broken context: the files say it as well
    found = _condarc([]).scalar("always_copy", "copy")
    return found is not None and bool(_boolean(found.value))


def origins() -> dict[str, str]:
    """Return which file or variable has each setting that is set. Never raises."""
    lookup = _conda_lookup() or _condarc([]).plugin
    found = {name: lookup(name) for name in _NAMES}
    return {
        name: one.where
        for name, one in found.items()
        if one is not None and not _is_unset(one.value) and one.where != _CONDAS_OWN
    }


def _conda_lookup() -> Lookup | None:
    """Return what looks a setting up in conda's context, or None where conda can't be asked."""
    if "conda.base.context" not in sys.modules:
        return None
    try:
        from conda.base.context import context

        plugins = context.plugins
        values = {name: getattr(plugins, name) for name in _NAMES}
        sources = tuple(plugins.raw_data.items())
    except Exception:
        # The plugin is not registered (``--no-plugins``, conda as a library), or conda's context is broken.
        return None

    def lookup(name: str) -> Found:
        where = next((str(source) for source, raw in reversed(sources) if name in raw), _CONDAS_OWN)
        variable = f"$CONDA_PLUGINS_{name.upper()}"
        return Found(values[name], variable if where == "envvars" else where)

    return lookup


def _condarc(warnings: list[str]) -> Condarc:
    try:
        condarc = load_condarc()
    except Exception as exc:
        # The contract of load(): whatever is wrong with files of the user, conda's commands go on.
        warnings.append(f"The condarc files could not be read: {type(exc).__name__}.")
        return Condarc()
    warnings += condarc.warnings
    return condarc


def _value(
    lookup: Lookup,
    name: str,
    parse: Callable[[object], T | None],
    default: T,
    wanted: str,
    warnings: list[str],
) -> T:
    found = lookup(name)
    if found is None or _is_unset(found.value):
        return default
    value = parse(found.value)
    if value is not None:
        return value
    shown = getattr(default, "value", default)
    warnings.append(
        f"The setting {name} is {reprlib.repr(found.value)} in {found.where}, which is not {wanted}; "
        f"{str(shown).lower() or 'none'} is used."
    )
    return default


def _is_unset(value: object) -> bool:
    return value is None or (isinstance(value, str) and value.strip().lower() in _UNSET)


def _boolean(value: object) -> bool | None:
    text = _text(value)
    return True if text in _TRUE else False if text in _FALSE else None


def _method(value: object) -> MethodChoice | None:
    return _choice(MethodChoice, value)


def _goal(value: object) -> Goal | None:
    return _choice(Goal, value)


def _choice(choices: type[E], value: object) -> E | None:
    text = _text(value)
    return next((choice for choice in choices if choice.value == text), None)


def _number(value: object) -> int | None:
    text = _text(value)
    # More digits than any size has: int() refuses thousands of them.
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 18 else None


def _directory(value: object) -> str | None:
    """A relative path would mean another directory at each command."""
    path = value.strip() if isinstance(value, str) else ""
    return expand(path) if path[:1] in ("/", "~", "$") else None


def _text(value: object) -> str:
    return str(value).strip().lower() if isinstance(value, (str, int)) else ""
