"""``compare`` over six real environments: the clusters a person would name, and numbers counted again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from conda_dedup_plugin.demo.distributions import distribution_package, python_package
from conda_dedup_plugin.demo.packages import index_channel, make_package, native_subdir
from conda_dedup_plugin.demo.wheels import make_wheel
from tests.lab.channel import TestChannel, noise
from tests.lab.world import CondaLab

pytestmark = pytest.mark.integration

REPOSITORY = Path(__file__).parents[1]
PLAIN = tuple(f"plain-{number}" for number in range(14))
#: What is there with each BLAS.
NUMERIC = ("numpy", "scipy", "libblas", "libcblas")
BASE = ("python", *PLAIN, *(f"{name}=*=openblas_py312*" for name in NUMERIC))
WHEELS = ("wheel-one", "wheel-two", "wheel-three")


@dataclass(frozen=True)
class Six:
    lab: CondaLab
    prefixes: dict[str, Path]

    def run(self, *words: object, width: int = 80) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "conda_dedup_plugin.cli", "compare", *map(str, words)],
            env={**self.lab.environ, "PYTHONPATH": str(REPOSITORY), "COLUMNS": str(width)},
            cwd=self.lab.root, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip

    def json(self, *words: object) -> dict[str, Any]:
        done = self.run(*words, "--json")
        assert (done.returncode, done.stderr) == (0, ""), done
        return json.loads(done.stdout)

    @property
    def scope(self) -> tuple[object, ...]:
        return ("--no-discover", *(word for path in self.prefixes.values() for word in ("-p", path)))


def build(folder: Path) -> TestChannel:
    made = TestChannel(folder)
    channel = made.packages
    python_package(channel)
    distribution_package(channel, "pip", exclude=("*.exe",), bytecode=False)
    python = {"share/python.txt": b"an older one\n" * 900}
    make_package(channel, "python", "3.8.1", "older_0_cpython", python)
    for number, name in enumerate((*PLAIN, "more-one", "more-two")):
        files = {f"share/{name}": noise(number, 5000 + 700 * number)}
        make_package(channel, name, "1.0", "h1234567_0", files)
    for seed, built in enumerate(("openblas_py312", "mkl_py312", "openblas_py38"), 100):
        for name in NUMERIC:
            files = {f"lib/{name}.so": noise(seed * len(name), 20_000 + seed)}
            make_package(channel, name, "1.26", f"{built}h{seed:07x}_0", files, depends=["python"])
    index_channel(channel)
    for number, name in enumerate(WHEELS):
        make_wheel(made.wheels, name, "2.0", {f"wheel_{number}.py": b"# so much\n" * (500 + number)})
    return made


@pytest.fixture(scope="module")
def six(tmp_path_factory, conda_python) -> Six:
    folder = tmp_path_factory.mktemp("six")
    quick = {"add_pip_as_python_dependency": False}
    lab = CondaLab(folder / "lab", conda_python, build(folder / "channel"), settings=quick)
    mkl = [spec.replace("openblas", "mkl") for spec in BASE]
    py38 = [spec.replace("py312", "py38") for spec in BASE]
    lab.create("nlp", *BASE)
    # rattler writes its records in another way
    lab.rattler(lab.env_path("bert"), *(spec.replace("=*=", " * ") for spec in BASE), "more-one")
    lab.create("bert-tuned", *BASE, "more-two")
    lab.create("fast", *mkl)
    lab.create("old", "python=3.8.1", *py38[1:])
    lab.create("web", "python", "pip", "plain-0")
    lab.pip(lab.env_path("web"), "install", *WHEELS)
    names = ("nlp", "bert", "bert-tuned", "fast", "old", "web")
    return Six(lab, {name: lab.env_path(name) for name in names})


def recount(prefix: Path) -> dict[str, tuple[tuple[str, ...], int]]:
    """What an environment holds, counted on the disk: by name, what it is and the bytes of its files."""
    found = {}
    for path in (prefix / "conda-meta").glob("*.json"):
        record = json.loads(path.read_text())
        files = [
            prefix / said["_path"]
            for said in record["paths_data"]["paths"]
            if said["path_type"] == "hardlink"
        ]
        size = sum(file.stat().st_size for file in files)
        found[record["name"]] = ((record["version"], record["build"], record["sha256"]), size)
    for info in prefix.glob("lib/python*/site-packages/wheel_*.dist-info"):
        name, version = info.name.removesuffix(".dist-info").split("-")
        lines = (info / "RECORD").read_text().splitlines()
        sizes = [int(size) for size in (line.rsplit(",", 1)[1] for line in lines) if size]
        found[name.replace("_", "-")] = ((version,), sum(sizes))
    return found


def by_hand(a: Path, b: Path) -> tuple[int, int, int, int]:
    """Identical packages and all of two environments; bytes that are the same, and all different ones."""
    one, other = recount(a), recount(b)
    same = [name for name in one.keys() & other.keys() if one[name][0] == other[name][0]]
    common = sum(one[name][1] for name in same)
    rest = sum(size for side in (one, other) for name, (_, size) in side.items() if name not in same)
    return len(same), len(one.keys() | other.keys()), common, common + rest


def test_the_clusters_a_person_would_name(six):
    document = six.json("--all", *six.scope)
    assert document["schema"] == 1
    assert [specs["name"] for specs in document["environments"]] == sorted(six.prefixes)
    (cluster,) = document["clusters"]
    assert cluster["names"] == ["bert", "bert-tuned", "nlp"]
    assert cluster["common_packages"] == len(BASE)
    counted = [recount(six.prefixes[name]) for name in cluster["names"]]
    union = {(name, *what): size for side in counted for name, (what, size) in side.items()}
    assert cluster["bytes_of_all"] == sum(size for side in counted for _, size in side.values())
    assert cluster["bytes_of_union"] == sum(union.values())
    assert cluster["saving"] == cluster["bytes_of_all"] - cluster["bytes_of_union"]
    # with another BLAS four packages of nineteen differ
    (cluster,) = six.json("--all", "--threshold", "0.75", *six.scope)["clusters"]
    assert "fast" in cluster["names"]
    assert "web" not in cluster["names"]


def test_every_pair_agrees_with_a_recount(six):
    document = six.json("--all", *six.scope)
    assert len(document["pairs"]) == 15
    for pair in document["pairs"]:
        same, total, common, everything = by_hand(Path(pair["a"]), Path(pair["b"]))
        assert pair["identical"] == same
        assert pair["similarity"] == same / total
        assert (pair["common_bytes"], pair["all_bytes"]) == (common, everything)
        assert pair["byte_similarity"] == common / everything
        assert pair["unknown_sizes"] == 0


def test_two_of_them_by_name_and_by_prefix(six):
    found = six.json("nlp", six.prefixes["fast"], "--core", "NumPy,scipy,plain-0")
    classes = found["classes"]
    assert sorted(entry["name"] for entry in classes["other_build"]) == sorted(NUMERIC)
    assert all(entry["difference"] == "BLAS openblas against mkl; hash" for entry in classes["other_build"])
    assert found["core_similarity"] == 1 / 3
    found = six.json("nlp", "old")["classes"]
    (entry,) = found["other_version"]
    assert entry["difference"].endswith("; A is newer")
    assert {entry["difference"] for entry in found["other_build"]} == {"python 3.12 against 3.8; hash"}
    found = six.json("bert", "bert-tuned")["classes"]
    assert [entry["name"] for entry in found["only_a"]] == ["more-one"]
    assert [entry["name"] for entry in found["only_b"]] == ["more-two"]
    # made by rattler and by conda, from one channel
    assert found["other_channel"] == found["other_build"] == []


def test_text_fits_80_columns_and_is_plain(six):
    for words in (("nlp", "fast"), ("nlp", "web", "--core", "numpy"), ("--all", *six.scope)):
        done = six.run(*words)
        assert (done.returncode, done.stderr) == (0, "")
        assert max(map(len, done.stdout.splitlines())) <= 80
        assert "\x1b" not in done.stdout
        assert done.stdout == six.run(*words).stdout
    said = six.run("nlp", "fast").stdout
    assert "Same version, other build: 4" in said
    assert "BLAS openblas against mkl" in said
    assert "bert, bert-tuned, nlp" in six.run("--all", *six.scope).stdout


def test_files_that_conda_wrote(six, tmp_path):
    lab = six.lab
    wrote = {
        "explicit": ("list", "--explicit"),
        "md5": ("list", "--explicit", "--md5"),
        "export": ("env", "export"),
        "no-builds": ("env", "export", "--no-builds"),
    }
    for env in ("bert-tuned", "web"):
        for name in ("md5", "export") if env == "web" else wrote:
            file = tmp_path / f"{env}-{name}"
            file.write_text(lab.conda(*wrote[name], "--name", env).stdout)
            found = six.json(env, file)
            pips = len(WHEELS) if env == "web" and name == "md5" else 0
            assert len(found["classes"]["only_a"]) == pips
            for other in ("other_build", "other_channel", "other_version", "only_b"):
                assert found["classes"][other] == [], (env, name, other)
            # the environment's records say how many bytes those are
            assert found["unknown_sizes"] == 0
            assert found["b"]["exact"] is (name != "no-builds")
    # another environment than the one that was exported
    same, total, common, everything = by_hand(six.prefixes["nlp"], six.prefixes["bert-tuned"])
    found = six.json("nlp", tmp_path / "bert-tuned-md5")
    assert (found["similarity"], found["byte_similarity"]) == (same / total, common / everything)


def test_lock_files_of_the_same_packages(six, tmp_path):
    records = [json.loads(path.read_text()) for path in (six.prefixes["nlp"] / "conda-meta").glob("*.json")]
    locked = [
        {"name": r["name"], "version": r["version"], "manager": "conda", "platform": native_subdir(),
         "url": r["url"], "hash": {"sha256": r["sha256"]}}
        for r in records
    ]  # fmt: skip
    (tmp_path / "conda-lock.yml").write_text(json.dumps({"version": 1, "package": locked}))
    pixi = {
        "version": 6,
        "environments": {"default": {"packages": {native_subdir(): [{"conda": r["url"]} for r in records]}}},
        "packages": [{"conda": r["url"], "sha256": r["sha256"]} for r in records],
    }
    (tmp_path / "pixi.lock").write_text(json.dumps(pixi))
    for name in ("conda-lock.yml", "pixi.lock"):
        found = six.json("nlp", tmp_path / name)
        assert (found["similarity"], found["byte_similarity"]) == (1, 1)


def test_bytes_that_only_a_cache_knows(six, tmp_path):
    url = f"{six.lab.channel.url}/{native_subdir()}"
    (tmp_path / "one").write_text(f"@EXPLICIT\n{url}/plain-3-1.0-h1234567_0.conda\n")
    unknown = "nowhere-1.0-0.conda"
    (tmp_path / "two").write_text(f"@EXPLICIT\n{url}/plain-3-1.0-h1234567_0.conda\n{url}/{unknown}\n")
    found = six.json(tmp_path / "one", tmp_path / "two", "--no-discover", "--pkgs-dir", six.lab.pkgs_dirs[0])
    assert (found["common_bytes"], found["all_bytes"], found["unknown_sizes"]) == (7100, 7100, 1)
    said = six.run(tmp_path / "one", tmp_path / "two").stdout
    assert "nobody knows the size of 1 package" in said


WRONG = {
    ("nlp",): "Two environments or files are compared.",
    ("nlp", "web", "old"): "Two environments or files are compared.",
    ("nlp", "--all"): "--all compares all environments.",
    ("--all", "--threshold", "0"): "--threshold must be",
    ("nlp", "absent"): "There is no environment named 'absent'.",
    ("nlp", "./absent"): "cannot be read",
    ("nlp", "broken.yml"): "broken.yml', line 3: ",
    ("nlp", "binary"): "line 1: this is no text",
    ("nlp", "/"): "There is no environment at '/'.",
    ("nlp", "web", "--platform", "x"): "--platform 'x' is no subdir",
}


@pytest.mark.parametrize("words", WRONG, ids=" ".join)
def test_what_is_wrong_is_one_sentence_and_exit_code_2(six, words):
    (six.lab.root / "broken.yml").write_text("name: x\ndependencies:\n  - numpy: scipy\n")
    (six.lab.root / "binary").write_bytes(b"\x7fELF\0\0")
    done = six.run(*words)
    assert (done.returncode, done.stdout) == (2, "")
    error, *hint = done.stderr.splitlines()
    assert error.startswith("conda-dedup: error: ")
    assert WRONG[words] in error
    assert len(hint) <= 1
    document = json.loads(six.run(*words, "--json").stdout)
    assert WRONG[words] in document["error"]


def test_conda_says_the_same_and_orders_versions_by_itself(six, plugin_python):
    words = ["compare", "nlp", "old", "--core", "numpy,plain-1"]
    done = six.lab.run(plugin_python, "-m", "conda", "dedup", *words, "--json")
    document = json.loads(done.stdout)
    assert document == six.json(*words[1:])
    assert document["core_similarity"] == 1 / 2
    done = six.lab.run(plugin_python, "-m", "conda", "dedup", "compare", "nlp", "broken", check=False)
    assert (done.returncode, done.stdout) == (2, "")


def test_nothing_is_written(six):
    before = {path: os.stat(path).st_mtime_ns for path in six.prefixes["nlp"].rglob("*") if path.is_file()}
    six.json("--all", *six.scope)
    assert before == {path: os.stat(path).st_mtime_ns for path in before}
    assert not (six.lab.state_home / "conda-dedup").exists()
