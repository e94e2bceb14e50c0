"""The same bytes, once: finds and shares what conda environments and package caches hold twice.

For other programs there is one module, :mod:`conda_dedup_plugin.api`; all others may change at any time.
"""

__version__ = "0.1.0"
__all__ = ["__version__", "api"]


def __getattr__(name: str) -> object:
    """Import the module ``api`` when it is first asked for."""
    if name == "api":
        import importlib

        return importlib.import_module(f"{__name__}.api")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
