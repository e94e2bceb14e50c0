"""Compiled programs with their prefix in them, installed twice: they run, and differ in few blocks."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from conda_dedup_plugin.demo.packages import PLACEHOLDER
from tests.lab.real_packages import PREFIXED, PYTHON, TERMINAL
from tests.lab.real_pair import Pair, make_pair

if TYPE_CHECKING:
    from pathlib import Path

    from tests.lab.channel import TestChannel

pytestmark = pytest.mark.integration

BLOCK = 4096
#: What an environment's Python says of itself. It knows its own place, but certificates and terminals are
#: looked for by the prefixes in libcrypto and libtinfow.
ASK = f"""
import _curses, _hashlib, _ssl, curses, json, re, ssl, sys, sysconfig
curses.setupterm({TERMINAL!r})
paths = [sys.exec_prefix, sys.base_prefix, *sys.path[1:], *sysconfig.get_paths().values()]
paths += [_curses.__file__, _hashlib.__file__, _ssl.__file__, sysconfig.get_makefile_filename()]
paths += [ssl.get_default_verify_paths().openssl_cafile, ssl.get_default_verify_paths().openssl_capath]
with open("/proc/self/maps") as maps:
    names = {{line.split(maxsplit=5)[-1].strip() for line in maps}}
print(json.dumps({{
    "prefix": sys.prefix,
    "paths": paths,
    "configured": [sysconfig.get_config_var("prefix"), sysconfig.get_config_var("LIBDIR")],
    "libraries": sorted(filter(re.compile(".*/lib(crypto|ssl|tinfow)[.]so").match, names)),
    "openssl": ssl.OPENSSL_VERSION.split()[1],
    "version": sys.version.split()[0],
    "tabs": curses.tigetnum("it"),
}}))
"""


@pytest.fixture(scope="module", params=["conda", "rattler"])
def pair(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    conda_python: Path,
    real_channel: TestChannel,
) -> Pair:
    return make_pair(tmp_path_factory.mktemp("real"), conda_python, real_channel, request.param)


def test_each_environment_runs_and_finds_its_own_files(pair: Pair) -> None:
    for prefix in pair.prefixes:
        said = json.loads(pair.lab.run(prefix / "bin/python", "-B", "-c", ASK).stdout)
        assert said["prefix"] == str(prefix)
        assert not [path for path in said["paths"] if not f"{path}/".startswith(f"{prefix}/")]
        assert said["configured"] == [str(prefix), f"{prefix}/lib"]
        names = ("libcrypto.so.3", "libssl.so.3", "libtinfow.so.6.4")
        assert said["libraries"] == [f"{prefix}/lib/{name}" for name in names]
        assert said["tabs"] == 7
        versions = {
            name: json.loads((pair.cached(name) / "info/index.json").read_text())["version"]
            for name in PREFIXED
        }
        assert (said["version"], said["openssl"]) == (versions["python"], versions["openssl"])


def test_scripts_and_settings_name_their_environment(pair: Pair) -> None:
    for prefix in pair.prefixes:
        assert "pydoc" in pair.lab.run(prefix / f"bin/pydoc{PYTHON}").stdout
        told = pair.lab.run(prefix / "bin/ncursesw6-config", "--terminfo-dirs").stdout.strip()
        assert told == f"{prefix}/share/terminfo"


def test_binaries_have_their_prefix_in_them_and_few_other_blocks(pair: Pair) -> None:
    placeholder = PLACEHOLDER.encode()
    binaries = pair.binaries()
    assert len(binaries) == 4
    total = equal = 0
    for path, original in binaries:
        before = original.read_bytes()
        first, second = ((prefix / path).read_bytes() for prefix in pair.prefixes)
        assert len(before) == len(first) == len(second)
        for prefix, data in zip(pair.prefixes, (first, second), strict=True):
            assert placeholder not in data
            assert data.count(bytes(prefix)) == before.count(placeholder) > 0
        blocks = range(0, len(before), BLOCK)
        same = sum(
            before[at : at + BLOCK] == first[at : at + BLOCK] == second[at : at + BLOCK] for at in blocks
        )
        print(f"{path}: {same} of {len(blocks)} blocks the same, {before.count(placeholder)} prefixes")
        assert same < len(blocks)
        total += len(blocks)
        equal += same
    assert equal / total > 0.9
