"""The functions for other programs: README's examples as they stand there, and what they promise."""

from __future__ import annotations

import dataclasses
import inspect
import json
import os
import re
import subprocess
import sys
import typing
from pathlib import Path

import pytest

from conda_dedup_plugin import api, cli
from tests.lab.channel import TestChannel
from tests.lab.forge import Forge, noise
from tests.lab.invariants import assert_unchanged, snapshot

PROJECT = Path(__file__).resolve().parents[1]
LIBRARY = b"\x7fELF" + noise("library", 200_000)
OTHER = b"\x7fELF" + noise("other", 100_000)
PACKAGE = {("numpy", "1.0", "0"): {"lib/libnumpy.so": LIBRARY}}
MORE = {**PACKAGE, ("other", "2.0", "0"): {"lib/libother.so": OTHER}}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's home of its own, where nothing is known yet."""
    for name in [name for name in os.environ if name.startswith(("XDG_", "CONDA_P", "RATTLER", "MAMBA"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@pytest.fixture
def two(tmp_path: Path) -> list[Path]:
    """Two environments with the same package, each file a copy of its own."""
    forge = Forge(tmp_path)
    return [forge.environment("one", MORE), forge.environment("two", PACKAGE)]


def same_inode(one: Path, other: Path) -> bool:
    return os.path.samefile(one / "lib/libnumpy.so", other / "lib/libnumpy.so")


def example(name: str) -> str:
    found = re.search(
        rf"<!-- {name} -->\n```python\n(.*?)```\n", (PROJECT / "README.md").read_text(), re.DOTALL
    )
    assert found
    return found[1]


def run(code: str, folder: Path, **variables: str) -> str:
    path = os.pathsep.join(filter(None, (str(PROJECT), os.environ.get("PYTHONPATH"))))
    env = {**os.environ, "PYTHONPATH": path, **variables}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=env, capture_output=True, text=True, timeout=300
    )
    assert not done.returncode, done.stderr
    return done.stdout


def test_the_example(two: list[Path], tmp_path: Path) -> None:
    lines = run(example("api"), tmp_path).splitlines()
    assert [line.split(":")[0] for line in lines[:2]] == ["one", "two"]
    freeable = int(re.fullmatch(r"1 files, (\d+) bytes could be freed", lines[2])[1])  # type: ignore[index]
    assert freeable >= len(LIBRARY)
    assert lines[-2].startswith(f"{freeable} bytes freed; to take it back: conda-dedup undo --run ")
    assert lines[-1] == "0 bytes are left"
    assert same_inode(*two)
    run_id = lines[-2].split()[-1]
    assert cli.main(["undo", "--run", run_id, "--yes"]) == 0
    assert not same_inode(*two)


def test_the_example_after_an_installation(channel: TestChannel, shm_dir: Path, tmp_path: Path) -> None:
    from tests.lab.world import rattler_create

    rattler_create(tmp_path / "envs/old", ("numpy",), channel.url, tmp_path / "cache")
    code = example("api-rattler").replace('"conda-forge"', repr(channel.url))
    assert channel.url in code
    # from a cache on another device everything is copied
    out = run(code, tmp_path, RATTLER_CACHE_DIR=str(shm_dir / "cache"))
    names, size = map(int, re.fullmatch(r"(\d+) files shared, (\d+) bytes freed\n", out).groups())  # type: ignore[union-attr]
    assert names > 0 and size > 100_000
    old, new = (snapshot(tmp_path / "envs" / name) for name in ("old", "new"))
    inodes = {(state.device, state.inode) for state in old.values()}
    assert sum((state.device, state.inode) in inodes for state in new.values()) >= names
    assert run(code, tmp_path, RATTLER_CACHE_DIR=str(shm_dir / "cache")) == "0 files shared, 0 bytes freed\n"


def test_a_plan_and_a_report_change_nothing(two: list[Path], tmp_path: Path) -> None:
    before = snapshot(tmp_path / "envs")
    plan = api.plan(tmp_path / "envs")
    assert [(share.method, len(share.paths)) for share in plan.shares] == [("hardlink", 1)]
    assert plan.freeable_bytes == plan.shares[0].bytes == api.report(two)["totals"]["freeable_bytes"]
    assert plan.freeable_inodes == 1 and not plan.warnings
    assert {plan.shares[0].keeper, *plan.shares[0].paths} == {str(env / "lib/libnumpy.so") for env in two}
    assert_unchanged(before, snapshot(tmp_path / "envs"))


def test_what_is_there_is_what_the_command_tells(
    two: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Forge(tmp_path).cache(PACKAGE)
    found = api.scan([tmp_path / "envs", tmp_path / "pkgs"])
    assert cli.main(["report", "--no-discover", "--search", str(tmp_path), "--min-size", "1", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert found.disk_bytes == told["totals"]["disk_bytes"]
    for ours, theirs in ((found.environments, told["environments"]), (found.caches, told["caches"])):
        assert [one.path for one in ours] == [one["prefix"] for one in theirs]
        for one, other in zip(ours, theirs, strict=True):
            assert all(
                getattr(one, word) == other[word]
                for word in ("name", "manager", "files", "apparent_bytes", "disk_bytes", "private_bytes")
            )
    document = api.report(tmp_path, options=api.Options(min_size=1))
    assert {**document, "walked": told["walked"]} == told


@pytest.mark.parametrize("donor", [0, 1])
def test_donors_are_never_changed(two: list[Path], donor: int) -> None:
    own, other = two[1 - donor], two[donor]
    before = snapshot(other)
    inode = (other / "lib/libnumpy.so").stat().st_ino
    assert api.apply(own).inodes == 0
    done = api.apply(own, donors=other)
    assert done.inodes == done.names == done.inodes_freed == 1 and done.bytes_freed >= len(LIBRARY)
    assert not done.failed and not done.left_alone and done.run
    assert (own / "lib/libnumpy.so").stat().st_ino == inode
    assert {path: state.content for path, state in snapshot(other).items()} == {
        path: state.content for path, state in before.items()
    }


@pytest.mark.parametrize("other", [0, 1])
def test_what_is_discovered_keeps_and_is_never_changed(two: list[Path], other: int, home: Path) -> None:
    (home / ".conda").mkdir()
    (home / ".conda/environments.txt").write_text(f"{two[other]}\n")
    own = two[1 - other]
    assert not api.plan(own).shares
    assert [tree["prefix"] for tree in api.report(own, discover=True)["environments"]] == [str(own)]
    (share,) = api.plan(own, discover=True).shares
    assert share.paths == (str(own / "lib/libnumpy.so"),)
    assert share.keeper == str(two[other] / "lib/libnumpy.so")


def test_what_changed_since_the_plan_is_left_alone(two: list[Path]) -> None:
    plan = api.plan(two)
    for prefix in two:
        (prefix / "lib/libnumpy.so").write_bytes(OTHER)
    done = api.apply(plan)
    assert done.inodes == 0
    assert [(kept.reason, kept.inodes) for kept in done.left_alone] == [("changed since it was looked at", 1)]


def test_without_a_journal(two: list[Path], home: Path) -> None:
    done = api.apply(two, journal=False)
    assert done.inodes == 1 and done.run == ""
    assert not list(home.rglob("journal.sqlite"))


def test_records_of_whoever(two: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    class Name:
        normalized = "numpy"

    class Record:
        name, version, build = Name(), "1.0", "0"

    assert api.share_installed(two[1], [], donors=two[0]) == api.Shared()
    assert api.share_installed(two[1], ["other-2.0-0"], donors=two[0]).names == 0
    later = api.share_installed(two[1], [Record()], donors=two[0], budget=0)
    assert later.names == 0
    done = api.share_installed(two[1], [Record()], donors=two[0], discover=False)
    assert done.names == 1 and done.bytes_freed >= len(LIBRARY) and not done.unfinished and not done.warnings
    assert same_inode(*two)
    with pytest.raises(api.UsageError, match="no name, version and build") as error:
        api.share_installed(two[1], [object()])
    assert error.value.hint


@pytest.mark.parametrize(
    "call",
    [
        lambda folder: api.scan(folder / "nowhere"),
        lambda folder: api.plan([]),
        lambda folder: api.plan(folder, donors=[folder / "nowhere"]),
        lambda folder: api.apply(folder, options=api.Options(method="symlink")),  # type: ignore[arg-type]
        lambda folder: api.report(folder, options=api.Options(min_size=0)),
        lambda folder: api.share_installed(folder / "nowhere", []),
    ],
)
def test_what_cannot_be_is_said_with_a_hint(call: typing.Callable[[Path], object], tmp_path: Path) -> None:
    with pytest.raises(api.UsageError) as error:
        call(tmp_path)
    assert str(error.value).endswith(".") and error.value.hint


def test_it_is_typed_documented_and_frozen() -> None:
    assert (PROJECT / "conda_dedup_plugin/py.typed").exists()
    for name in api.__all__:
        public = getattr(api, name)
        if inspect.isfunction(public):
            assert public.__doc__ and "UsageError" in public.__doc__
            wanted = {*inspect.signature(public).parameters, "return"}
            assert set(inspect.get_annotations(public)) == wanted
        elif dataclasses.is_dataclass(public):
            assert public.__doc__ and public.__dataclass_params__.frozen  # type: ignore[attr-defined]


def test_importing_the_package_costs_nothing() -> None:
    code = (
        "import sys; before = set(sys.modules); import conda_dedup_plugin as package; "
        "assert set(sys.modules) - before == {'conda_dedup_plugin'}; "
        "assert package.api.scan and 'conda_dedup_plugin.engine' not in sys.modules; "
        "assert not hasattr(package, 'scan_nothing')"
    )
    run(code, PROJECT)
