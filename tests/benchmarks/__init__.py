"""Benchmarks; run by hand (``python -m tests.benchmarks``), never a part of the tests."""
