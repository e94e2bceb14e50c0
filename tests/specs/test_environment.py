"""The packages of an environment: conda's records, and what pip brought besides."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import strategies as st

from conda_dedup_plugin.model import Dist
from conda_dedup_plugin.specs.environment import read_environment
from tests.property.test_readers import CONDA_META, EXAMPLES, damaged, fuzz

SHA, MD5 = "a" * 64, "c" * 32
SITE = "lib/python3.12/site-packages"


def write(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def record(prefix: Path, name: str, paths: list[dict[str, object]], **more: object) -> None:
    said = {"name": name, "version": "1", "build": "0", "subdir": "noarch", "sha256": SHA, "md5": MD5,
            "url": f"https://x/{name}-1-0.conda", "channel": "https://x/noarch",
            "files": [path["_path"] for path in paths], "paths_data": {"paths": paths}, **more}  # fmt: skip
    write(prefix / f"conda-meta/{name}-1-0.json", json.dumps(said))


def test_conda_and_pip(tmp_path):
    prefix = tmp_path / "bert"
    record(prefix, "patched", [
        {"_path": "bin/x", "path_type": "hardlink", "size_in_bytes": 30, "prefix_placeholder": "/p"},
        {"_path": "bin/y", "path_type": "softlink", "size_in_bytes": 7},
        {"_path": "x.pyc", "path_type": "pyc_file"},
    ])  # fmt: skip
    record(prefix, "meta", [])
    record(prefix, "old", [{"_path": "z"}], paths_data=None)
    record(prefix, "six", [{"_path": f"{SITE}/six-1.dist-info/RECORD", "size_in_bytes": 5}])
    for name, text in {
        "six-1": "six.py,,100\n",
        "Typing_Extensions-4.9": "a.py,sha256=x,100\nb.py,,20\nc.pyc,,\n",
        "bare-2": "",
    }.items():
        write(prefix / SITE / f"{name}.dist-info/RECORD", text)
    write(prefix / SITE / "conda_made-3.dist-info/INSTALLER", "conda\n")
    write(prefix / SITE / "unrecorded-5.dist-info/METADATA", "Name: unrecorded\n")
    specs = read_environment(str(prefix))
    assert (specs.name, specs.source, specs.exact, specs.warnings) == ("bert", str(prefix), True, ())
    assert [(one.dist.name, one.size) for one in specs.packages] == [
        ("meta", 0), ("old", None), ("patched", 30), ("six", 5),
        ("bare", None), ("typing-extensions", 120), ("unrecorded", None),
    ]  # fmt: skip
    first = specs.packages[0]
    assert first.dist == Dist("meta", "1", "0", "noarch", SHA, "https://x/noarch")
    assert (first.url, first.md5, first.is_pip) == ("https://x/meta-1-0.conda", MD5, False)
    assert specs.packages[-1].is_pip
    assert read_environment(str(prefix), "nlp").name == "nlp"


@pytest.mark.parametrize("examples", EXAMPLES)
def test_any_record_is_a_package_or_a_warning(tmp_path, examples):
    record(tmp_path, "sound", [])

    @fuzz(examples, content=damaged(CONDA_META) | st.binary(max_size=300))
    def check(content: bytes) -> None:
        (tmp_path / "conda-meta/broken.json").write_bytes(content)
        specs = read_environment(str(tmp_path))
        assert "sound" in [one.dist.name for one in specs.packages]
        assert len(specs.packages) + len(specs.warnings) == 2
        assert all("broken.json" in warning for warning in specs.warnings)
        assert all(one.size is None or one.size >= 0 for one in specs.packages)

    check()
