"""What differs in the build strings of two builds of one version."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .specs.packages import Package

_PYTHON = re.compile(r"(?:py|cp|pypy)(\d)(\d*)\Z")
_BLAS = ("mkl", "nomkl", "openblas", "blis", "accelerate", "netlib")
_MPI = ("nompi", "openmpi", "mpich", "impi", "msmpi")
_DEVICE = re.compile(r"(cpu|gpu|cuda|cu|rocm)(\d*)\Z")
_NUMPY = re.compile(r"np(\d)(\d+)\Z")
_HASH = re.compile(r"[hg][0-9a-f]{5,}\Z")
#: Tags are written one after the other, as in py312h06a4308 and np126py312.
_TAGS = re.compile(
    r"(?:pypy|py|cp|np)\d+|h[0-9a-f]{7}(?=_|-|\.|\Z)|g[0-9a-f]{7,}(?=_|-|\.|\Z)"
    r"|(?:cpu|gpu|cuda|cu|rocm)\d*(?=[^a-z]|\Z)|[a-z]+|\d+",
    re.I,
)
_ORDER = ("python", "numpy", "BLAS", "MPI", "variant", "hash", "number", "tags")


def explain(a: Package, b: Package) -> str:
    """Say in a few words what differs in two builds, A's first: "python 3.11 against 3.12; hash"."""
    one, other = a.dist, b.dist
    said = []
    if one.subdir and other.subdir and one.subdir != other.subdir:
        said.append(f"subdir {one.subdir} against {other.subdir}")
    if a.is_pip or b.is_pip:
        if one.build != other.build:
            said.append(f"wheel for {one.build or '?'} against {other.build or '?'}")
    elif one.build != other.build:
        said += _differences(one.build, other.build)
    return "; ".join(said) or "another archive of the same build string"


def _differences(one: str, other: str) -> list[str]:
    left, right = parts_of(one), parts_of(other)
    said = []
    for what in _ORDER:
        a, b = left.get(what, ""), right.get(what, "")
        if a == b:
            continue
        if what in ("hash", "tags"):
            said.append(f"{a} against {b}" if what == "tags" and a and b else what)
        else:
            said.append(f"{what} {a or 'none'} against {b or 'none'}")
    return said


def parts_of(build: str) -> dict[str, str]:
    """Take a build string apart: python, numpy, BLAS, MPI, variant (cpu, cuda…), hash, number, other tags."""
    found: dict[str, str] = {}
    rest, _, number = build.rpartition("_")
    if number.isdecimal():
        found["number"] = number
    else:
        rest = build
        if build.isdecimal():
            return {"number": build}
        leading = re.match(r"(\d+)_(\D.*)\Z", build)  # 0_cpython, 1_cp312
        middle = re.match(r"(.*)_(\d+)_(\D.*)\Z", build)  # hab00c5b_0_cpython
        if leading:
            found["number"], rest = leading[1], leading[2]
        elif middle:
            found["number"], rest = middle[2], f"{middle[1]}_{middle[3]}"
    for word in _TAGS.findall(rest):
        what, value = _meaning(word.lower())
        found[what] = f"{found[what]} {value}" if what in found else value
    return found


def _meaning(word: str) -> tuple[str, str]:
    if python := _PYTHON.match(word):
        kind = "pypy " if word.startswith("pypy") else ""
        return "python", f"{kind}{python[1]}.{python[2]}" if python[2] else f"{kind}{python[1]}"
    if numpy := _NUMPY.match(word):
        return "numpy", f"{numpy[1]}.{numpy[2]}"
    if word in _BLAS:
        return "BLAS", word
    if word in _MPI:
        return "MPI", word
    if device := _DEVICE.match(word):
        name = {"cu": "cuda"}.get(device[1], device[1])
        return "variant", f"{name} {device[2]}".strip()
    return ("hash", word) if _HASH.match(word) else ("tags", word)
