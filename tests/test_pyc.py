"""Compiled files of every Python there is: taken apart, put together, and equal where the code is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from conda_dedup_plugin import pyc
from tests.lab.pythons import pythons

SOURCE = '''"""A module."""
import functools
class A:
    def b(self, x=lambda y: y): return [z for z in x]
def f(plaza):
    def g(): return plaza
    return g
NAME = {name!r}
'''


def compiled(
    python: str, root: Path, name: str = "module", text: str = SOURCE, *, mtime: int = 1_700_000_000
) -> Path:
    source = root / "lib/site-packages/pkg" / f"{name}.py"
    source.parent.mkdir(parents=True, exist_ok=True)
    source.write_text(text.format(name=name))
    os.utime(source, (mtime, mtime))
    subprocess.run([python, "-m", "compileall", "-q", str(source)], check=True)
    return next((source.parent / "__pycache__").glob(f"{name}.cpython-3*.pyc"))


@pytest.mark.parametrize("python", pythons())
@pytest.mark.parametrize("other", ["other", "a/longer/one", "x" * 240, "sch\u00f6n", "plaza/" + "y" * 20])
def test_the_same_source_elsewhere(tmp_path: Path, python: str, other: str) -> None:
    one = compiled(python, tmp_path / "one")
    two = compiled(python, tmp_path / other, mtime=1_600_000_000)
    assert one.read_bytes() != two.read_bytes()
    path = "lib/site-packages/pkg/module.py"
    first, second = (pyc.take_apart(found.read_bytes(), path) for found in (one, two))
    assert first is not None
    assert second is not None
    assert first.identity == second.identity
    assert first.filename == os.fsencode(tmp_path / "one" / path)
    assert second.filename == os.fsencode(tmp_path / other / path)
    assert first.header.fits(1_700_000_000 * 10**9 + 5, (tmp_path / "one" / path).stat().st_size)
    assert not second.header.fits(1_700_000_000 * 10**9, (tmp_path / "one" / path).stat().st_size)
    # each can be made from the other, to the byte
    assert first.written(second.filename, 1_600_000_000 * 10**9) == two.read_bytes()
    assert second.written(first.filename, 1_700_000_000 * 10**9) == one.read_bytes()


def test_another_source_is_another_code(tmp_path: Path) -> None:
    one = compiled(sys.executable, tmp_path / "one")
    two = compiled(sys.executable, tmp_path / "two", text=SOURCE.replace("return g", "return f"))
    first, second = (
        pyc.take_apart(found.read_bytes(), "lib/site-packages/pkg/module.py") for found in (one, two)
    )
    assert first is not None
    assert second is not None
    assert first.header.size == second.header.size
    assert first.identity != second.identity


def test_a_name_that_is_no_path_stays(tmp_path: Path) -> None:
    """Text that ends like the path of the source, in the code itself, makes two files differ or none."""
    text = SOURCE + "OTHER = '/elsewhere/lib/site-packages/pkg/module.py'\n"
    one = compiled(sys.executable, tmp_path / "one", text=text)
    assert pyc.take_apart(one.read_bytes(), "lib/site-packages/pkg/module.py") is None


@pytest.mark.parametrize(
    "content", [b"", b"x" * 16, b"x" * 17, b"\0" * 400, b"/lib/site-packages/pkg/module.py" * 9]
)
def test_anything(content: bytes) -> None:
    code = pyc.take_apart(content, "lib/site-packages/pkg/module.py")
    assert code is None or code.filename is None


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("lib/a/__pycache__/b.cpython-311.pyc", "lib/a/b.py"),
        ("__pycache__/b.cpython-311.opt-2.pyc", "b.py"),
        ("a/__pycache__/b.c.cpython-310.pyc", "a/b.c.py"),
        ("a/b.pyc", None),
        ("a/__pycache__/b.pypy310.pyc", None),
        ("a/__pycache__/b.cpython-311.pyc.1234", None),
    ],
)
def test_source_of(path: str, source: str | None) -> None:
    assert pyc.source_of(path) == source


def test_siblings() -> None:
    assert pyc.is_compiled_of("b.cpython-311.pyc", "b.py")
    assert pyc.is_compiled_of("b.pypy310.pyc", "b.py")
    assert not pyc.is_compiled_of("bc.cpython-311.pyc", "b.py")
