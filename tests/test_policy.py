"""What a file is, by its path, its record and its first bytes."""

from __future__ import annotations

import pytest

from conda_dedup_plugin.model import Claim, Dist, Hazard
from conda_dedup_plugin.policy import hazard_of, is_native_head, loader_sensitive

DIST = Dist("numpy", "2.0", "py311_0", "linux-64", "00")


def claim(path, **more):
    return Claim(DIST, path, **more)


@pytest.mark.parametrize(
    ("path", "said", "hazard"),
    [
        ("lib/libz.so.1.2.13", True, Hazard.NATIVE),
        ("lib/libz.a", True, Hazard.NATIVE),
        ("lib/python3.11/site-packages/x/_core.cpython-311-x86_64-linux-gnu.so", True, Hazard.NATIVE),
        ("Library/bin/zlib.dll", True, Hazard.NATIVE),
        ("lib/python3.11/site-packages/x/__pycache__/a.cpython-311.pyc", True, Hazard.BYTECODE),
        ("lib/python3.11/site-packages/x/a.py", True, Hazard.PACKAGE),
        ("lib/python3.11/site-packages/x/a.py", False, Hazard.UNTRACKED),
        ("lib/libz.so.conf", True, Hazard.PACKAGE),
        ("etc/ssl.cnf", True, Hazard.MUTABLE),
        ("var/lib/x.so", True, Hazard.MUTABLE),
        ("ssl/cacert.pem", True, Hazard.MUTABLE),
        ("share/data.sqlite3", True, Hazard.MUTABLE),
        ("share/etc/x", True, Hazard.PACKAGE),
    ],
)
def test_by_path(path, said, hazard):
    assert hazard_of(path, claim(path) if said else None) is hazard


def test_by_record():
    assert hazard_of("lib/libpython3.11.so", claim("lib/libpython3.11.so", prefixed=True)) is Hazard.PREFIXED
    assert hazard_of("lib/x.so", claim("lib/x.so", no_link=True)) is Hazard.MUTABLE
    assert hazard_of("x/a.py", claim("x/a.py", pip=True)) is Hazard.UNTRACKED
    assert hazard_of("x/a.so", claim("x/a.so", pip=True)) is Hazard.NATIVE
    # in a cache, what counts is the path in the package
    assert hazard_of("pkg-1-0/etc/x", claim("etc/x")) is Hazard.MUTABLE


@pytest.mark.parametrize("head", [b"\x7fELF\x02", b"MZ\x90", b"!<arch>\nx", b"\xcf\xfa\xed\xfe"])
def test_native_heads(head):
    assert is_native_head(head)


@pytest.mark.parametrize("head", [b"#!/bin/sh", b"", b"PK\x03\x04", b"ELF"])
def test_other_heads(head):
    assert not is_native_head(head)


@pytest.mark.parametrize(
    ("path", "sensitive"),
    [
        ("lib/libz.so.1", False),
        ("lib/libz.dylib", False),
        ("x/numpy.libs/libopenblas64_p-r0.so", False),
        ("x/_core.cpython-311-x86_64-linux-gnu.so", True),
        ("x/libcore.cpython-311-x86_64-linux-gnu.so", True),
        ("x/libcore.abi3.so", True),
        ("x/_core.so", True),
        ("x/_core.pyd", True),
        ("bin/zlib.dll", True),
        ("bin/tool", False),
        ("lib/libz.a", False),
        ("x/a.pyc", False),
    ],
)
def test_what_a_loader_tells_apart(path, sensitive):
    assert loader_sensitive(path) is sensitive
