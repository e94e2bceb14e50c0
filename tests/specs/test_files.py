"""Files of specs in every dialect, and in none: packages, or one sentence with the line."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from hypothesis import strategies as st

from conda_dedup_plugin.errors import UsageError
from conda_dedup_plugin.specs.document import MOST_BYTES
from conda_dedup_plugin.specs.files import read_file
from conda_dedup_plugin.specs.packages import Specs
from tests.property.test_readers import EXAMPLES, SHORT, damaged, fuzz

SHA, OTHER, MD5 = "a" * 64, "b" * 64, "c" * 32
FORGE = "https://conda.anaconda.org/conda-forge"

EXPLICIT = f"""\
# This file may be used to create an environment using:
# $ conda create --name <env> --file <this file>
# platform: linux-64
@EXPLICIT
{FORGE}/linux-64/_x86_64-microarch-level-3-2_zen.conda#{MD5}
{FORGE}/noarch/tzdata-2024a-h0c530f3_0.tar.bz2#sha256:{SHA}
file:///srv/pkgs/zlib-1.3-0.conda#{OTHER}
{FORGE}/linux-64/xz-5.2.6-h166bdaf_0.tar.bz2
# pip Typing.Extensions @ https://files.example/typing_extensions-4.9.0-py3-none-any.whl --hash=sha256:{SHA}
"""
ENVIRONMENT = """\
name: bert
channels:
  - conda-forge
dependencies:
  - python=3.12
  - numpy=1.26.4=py312hc5e2394_0
  - conda-forge/linux-64::scipy==1.11.4
  - pandas >=2,<3   # text behind
  - "pytorch 2.1.* *cuda*"
  - zlib
  - six[version='>=1.16', build=py_0]
  - pip:
    - Requests==2.31.0
    - typing_extensions>=4
    - -r more.txt
    - tool @ https://files.example/tool-1.0-py2.py3-none-any.whl
prefix: /opt/envs/bert
"""
CONDA_LOCK = f"""\
version: 1
metadata:
  platforms: [linux-64, osx-64]
package:
  - name: numpy
    version: 1.10
    manager: conda
    platform: linux-64
    dependencies: {{python: '>=3.12'}}
    url: {FORGE}/linux-64/numpy-1.10-py312h1234567_0.conda
    hash: {{md5: {MD5}, sha256: {SHA}}}
    category: main
    optional: false
  - name: numpy
    version: '1.9'
    manager: conda
    platform: osx-64
    url: {FORGE}/osx-64/numpy-1.9-py312h7654321_0.conda
    hash: {{md5: {MD5}}}
  - name: sphinx
    version: 7.0
    manager: conda
    platform: linux-64
    url: {FORGE}/noarch/sphinx-7.0-py_0.conda
    category: docs
    optional: true
  - name: Requests
    version: 2.31.0
    manager: pip
    platform: linux-64
    url: https://files.example/requests-2.31.0-py3-none-any.whl
    hash: {{sha256: {OTHER}}}
"""
PIXI_6 = f"""\
version: 6
environments:
  default:
    channels:
    - url: {FORGE}/
    packages:
      linux-64:
      - conda: {FORGE}/linux-64/numpy-1.26.4-py312h1234567_0.conda
      - conda: ./recipe
        build: first
      - pypi: https://files.example/Requests-2.31.0-py3-none-any.whl
      - pypi: ./
      osx-arm64:
      - conda: {FORGE}/noarch/tzdata-2024a-0.conda
packages:
- conda: {FORGE}/linux-64/numpy-1.26.4-py312h1234567_0.conda
  sha256: {SHA}
  md5: {MD5}
  size: 12
- conda: ./recipe
  name: mine
  version: '0.1'
  build: second
  subdir: linux-64
- conda: ./recipe
  name: mine
  version: '0.1'
  build: first
  subdir: linux-64
- conda: {FORGE}/noarch/tzdata-2024a-0.conda
- pypi: https://files.example/Requests-2.31.0-py3-none-any.whl
  name: requests
  version: 2.31.0
  sha256: {OTHER}
- pypi: ./
  name: project
  version: 0.1.0
"""


def pixi_of_old(version: int) -> str:
    return f"""\
version: {version}
environments:
  default:
    packages:
      linux-64:
      - conda: {FORGE}/linux-64/numpy-1.26.4-py312h1234567_0.conda
      - pypi: https://files.example/requests-2.31.0.tar.gz
packages:
- kind: conda
  name: numpy
  version: 1.26.4
  build: py312h1234567_0
  subdir: linux-64
  url: {FORGE}/linux-64/numpy-1.26.4-py312h1234567_0.conda
  sha256: {SHA}
  md5: {MD5}
- kind: pypi
  name: requests
  version: 2.31.0
  url: https://files.example/requests-2.31.0.tar.gz
  sha256: {OTHER}
"""


EVERY = {
    "explicit.txt": EXPLICIT,
    "environment.yml": ENVIRONMENT,
    "conda-lock.yml": CONDA_LOCK,
    "pixi.lock": PIXI_6,
    "pixi-4.lock": pixi_of_old(4),
    "pixi-5.lock": pixi_of_old(5),
}


def read(folder: Path, content: str | bytes, name: str = "file", platform: str = "linux-64") -> Specs:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_file(str(path), platform)


def said(specs: Specs) -> list[tuple[str, ...]]:
    return [(*package.dist, package.md5) for package in specs.packages]


def test_explicit(tmp_path):
    specs = read(tmp_path, EXPLICIT, "explicit.txt")
    assert (specs.name, specs.exact) == ("explicit.txt", True)
    assert said(specs) == [
        ("_x86_64-microarch-level", "3", "2_zen", "linux-64", MD5, FORGE, MD5),
        ("tzdata", "2024a", "h0c530f3_0", "noarch", SHA, FORGE, ""),
        ("xz", "5.2.6", "h166bdaf_0", "linux-64", "", FORGE, ""),
        ("zlib", "1.3", "0", "", OTHER, "", ""),
        ("typing-extensions", "4.9.0", "py3-none-any", "pypi", SHA, "", ""),
    ]


def test_environment_yml(tmp_path):
    specs = read(tmp_path, ENVIRONMENT)
    assert (specs.name, specs.exact) == ("bert", False)
    assert [(p.dist.name, p.dist.version, p.dist.build, p.dist.subdir) for p in specs.packages] == [
        ("numpy", "1.26.4", "py312hc5e2394_0", ""),
        ("pandas", ">=2,<3", "", ""),
        ("python", "=3.12", "", ""),
        ("pytorch", "2.1.*", "*cuda*", ""),
        ("scipy", "1.11.4", "", "linux-64"),
        ("six", ">=1.16", "py_0", ""),
        ("zlib", "", "", ""),
        ("requests", "2.31.0", "", "pypi"),
        ("tool", "1.0", "py2.py3-none-any", "pypi"),
        ("typing-extensions", ">=4", "", "pypi"),
    ]
    assert [one.partition(", ")[2] for one in specs.warnings] == [
        "line 15: '-r more.txt' names no package, and is left out."
    ]


def test_conda_lock_of_one_platform(tmp_path):
    specs = read(tmp_path, CONDA_LOCK)
    # 1.10 without quotes is not 1.1
    assert said(specs) == [
        ("numpy", "1.10", "py312h1234567_0", "linux-64", SHA, FORGE, MD5),
        ("requests", "2.31.0", "py3-none-any", "pypi", OTHER, "", ""),
    ]
    assert said(read(tmp_path, CONDA_LOCK, platform="osx-64")) == [
        ("numpy", "1.9", "py312h7654321_0", "osx-64", MD5, FORGE, MD5)
    ]


def test_pixi_lock(tmp_path):
    specs = read(tmp_path, PIXI_6)
    assert specs.exact
    assert said(specs) == [
        ("mine", "0.1", "first", "linux-64", "", "", ""),
        ("numpy", "1.26.4", "py312h1234567_0", "linux-64", SHA, FORGE, MD5),
        ("project", "0.1.0", "", "pypi", "", "", ""),
        ("requests", "2.31.0", "py3-none-any", "pypi", OTHER, "", ""),
    ]


@pytest.mark.parametrize("version", [4, 5])
def test_pixi_lock_of_before(tmp_path, version):
    assert said(read(tmp_path, pixi_of_old(version))) == [
        ("numpy", "1.26.4", "py312h1234567_0", "linux-64", SHA, FORGE, MD5),
        ("requests", "2.31.0", "", "pypi", OTHER, "", ""),
    ]


BROKEN = {
    "no address": (EXPLICIT.replace(f"{FORGE}/linux-64/xz-5.2.6-h166bdaf_0.tar.bz2", "xz=5.2.6"), 8),
    "no digest": (EXPLICIT.replace(OTHER, "xyz"), 7),
    "no wheel": (EXPLICIT.replace(" @ ", " at "), 9),
    "a list in a spec": (ENVIRONMENT.replace("- zlib", "- [zlib]"), 10),
    "no name": (ENVIRONMENT.replace("- zlib", "- '>=1.2'"), 10),
    "no requirement": (ENVIRONMENT.replace("Requests==2.31.0", "Requests 2 ="), 13),
    "another kind": (ENVIRONMENT.replace("- pip:", "- npm:"), 12),
    "dependencies are text": ("name: x\nchannels: []\ndependencies: numpy\n", 3),
    "indentation": (ENVIRONMENT.replace("  - zlib", "\t- zlib"), 10),
    "not closed": ("name: x\ndependencies:\n  - [a, b\n  - c: }\n", 4),
    "hash is a list": (CONDA_LOCK.replace(f"{{sha256: {OTHER}}}", "[1]"), 32),
    "url of nothing": (CONDA_LOCK.replace("numpy-1.10-py312h1234567_0.conda", ""), 10),
    "another version": (CONDA_LOCK.replace("version: 1\n", "version: 2\n"), 1),
    "not among packages": (PIXI_6.replace("      - pypi: ./\n", "      - pypi: ./elsewhere\n"), 12),
    "no default": (PIXI_6.replace("  default:", "  prod:"), 3),
    "version of pixi": (PIXI_6.replace("version: 6", "version: 9"), 1),
    "a scalar": (PIXI_6.replace("  sha256: " + SHA, "  sha256: [1]"), 17),
    "neither": (PIXI_6.replace("- conda: ./recipe\n  name", "- none: ./recipe\n  name", 1), 20),
    "nul": (b"name: x\nchannels: []\n\0", 3),
    "latin": (b"name: x\n# caf\xe9\n", 2),
}


@pytest.mark.parametrize("what", BROKEN)
def test_what_is_broken_is_told_with_its_line(tmp_path, what):
    content, line = BROKEN[what]
    with pytest.raises(UsageError) as caught:
        read(tmp_path, content)
    assert str(caught.value).startswith(f"{str(tmp_path / 'file')!r}, line {line}: "), caught.value
    assert str(caught.value).endswith(".")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("platform", ["zos-z", "osx-arm64"])
def test_a_platform_that_is_not_there(tmp_path, platform):
    for content in (CONDA_LOCK, pixi_of_old(5)):
        with pytest.raises(UsageError, match=f"no packages for {platform}") as caught:
            read(tmp_path, content, platform=platform)
        assert "linux-64" in caught.value.hint


def test_no_file_at_all(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with open(tmp_path / "huge", "wb") as stream:
        stream.truncate(MOST_BYTES + 1)
    for name, why in {
        "absent": "No such file",
        "pipe": "no regular file",
        "huge": "bytes",
        ".": "regular",
    }.items():
        with pytest.raises(UsageError, match=why):
            read_file(str(tmp_path / name))
    for content in ("", "# nothing\n", "just text\n", "[1, 2]\n", "a: b\n", "version: 6\n"):
        with pytest.raises(UsageError, match=r"empty|no format"):
            read(tmp_path, content)
    with pytest.raises(UsageError, match="nested too deeply"):
        read(tmp_path, "a: " + "[" * 5000)


def test_a_document_that_names_itself_ends(tmp_path):
    bomb = "a: &a [x, x]\n" + "".join(f"b{n}: &b{n} [*a, *a]\n" for n in range(3))
    read(tmp_path, f"{bomb}name: x\nchannels: &c [*c]\ndependencies: []\n")


# -- anything at all --------------------------------------------------------------------------------------

LINE = re.compile(r", line \d+: ")


@pytest.mark.parametrize("examples", EXAMPLES)
@pytest.mark.parametrize("name", EVERY)
def test_anything_is_packages_or_one_sentence(tmp_path, name, examples):
    valid = EVERY[name].encode()
    as_tokens = re.sub(rb"(?m)(: |- )([^\n\"'{]+)$", rb'\1"\2"', valid)

    @fuzz(examples, content=damaged(as_tokens, SHORT) | damaged(valid, SHORT) | st.binary(max_size=300))
    def check(content: bytes) -> None:
        try:
            specs = read(tmp_path, content)
        except UsageError as exc:
            assert str(tmp_path / "file") in str(exc)
            assert "\n" not in str(exc)
            return
        for package in specs.packages:
            assert package.dist.name
            assert all(isinstance(word, str) for word in package.dist)

    check()
