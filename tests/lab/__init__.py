"""The laboratory: real package managers, real environments, real file systems."""

from __future__ import annotations

import os

import pytest


def needs(reason: str, condition: object) -> None:
    """Go on if ``condition``; else skip the test with ``reason``, or fail it in CI."""
    if condition:
        return
    if os.environ.get("CI"):
        pytest.fail(f"needed in CI: {reason}", pytrace=False)
    pytest.skip(reason)
