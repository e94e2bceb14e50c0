"""The same bytes, once: finds and shares what conda environments and package caches hold twice."""

__version__ = "0.1.0"
