"""What is declared to conda on every one of its commands, the settings above all: cheap to import."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from conda.plugins.types import CondaSetting

AUTO = "dedup_auto"
METHOD = "dedup_method"
MIN_SIZE = "dedup_min_size"


def safely(hook: Callable[[], Any]) -> Callable[[], list[Any]]:
    """Register what ``hook`` returns, or nothing if it fails: conda goes on without our part."""

    @functools.wraps(hook)
    def registered() -> list[Any]:
        try:
            return [hook()]
        except Exception:
            import logging

            logging.getLogger(__name__).warning("conda-dedup-plugin cannot register %s", hook.__name__)
            return []

    return registered


def conda_settings() -> Iterator[CondaSetting]:
    """Yield the settings for conda's hook ``conda_settings``.

    Declared such that no value makes conda itself fail: a typed parameter with a bad value ends
    ``conda config --show`` and ``--show-sources`` with an error (24.7 to 26.7), and a list or a mapping does
    so even for one of type str. So everything is text for conda, and ``settings.load`` reads it.
    """
    from conda.common import configuration
    from conda.plugins.types import CondaSetting

    # The name matters: ``conda config --set`` tells a parameter's kind by the name of its class.
    class PrimitiveParameter(configuration.PrimitiveParameter):  # type: ignore[misc]
        """A primitive parameter that puts text in the place of a list or a mapping."""

        def load(self, name: str, match: Any) -> Any:
            loaded = super().load(name, match)
            if not isinstance(loaded.value, (str, int, float, type(None))):
                loaded.value = "<a mapping>" if isinstance(loaded.value, Mapping) else "<a list>"
            return loaded

    for name, default, description in (
        (AUTO, "true", "Share duplicates after each command that changes an environment: true or false."),
        (METHOD, "auto", "How conda-dedup shares files: auto, reflink or hardlink."),
        (MIN_SIZE, "4096", "The size in bytes below which conda-dedup leaves files alone."),
    ):
        parameter = PrimitiveParameter(default, element_type=str)
        yield CondaSetting(name=name, description=description, parameter=parameter)
