"""``conda doctor`` and ``conda doctor --fix`` of real condas, with the plugin."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from conda_dedup_plugin import health
from conda_dedup_plugin.model import STAGING_PREFIX
from tests.lab.channel import TWO_BUILDS
from tests.lab.invariants import assert_unchanged, snapshot
from tests.test_repair import inside
from tests.test_report import DIST, World
from tests.test_verify import DATA, LIB, edit, share

if TYPE_CHECKING:
    from tests.conftest import MakeLab
    from tests.lab.world import CondaLab

OURS = "Shared files"
FILE = TWO_BUILDS[0]


@pytest.fixture
def lab(conda_lab: MakeLab, shm_dir: Path) -> CondaLab:
    """Two environments on another device than the cache, which share what they have."""
    made = conda_lab(with_plugin=True, envs_dir=shm_dir / "envs")
    for name in ("one", "two"):
        made.conda("create", "--name", name, "two-builds=1.0=0")
    assert os.path.samefile(made.env_path("one") / FILE, made.env_path("two") / FILE)
    return made


def doctor(lab: CondaLab, *words: str, name: str = "one", **options: str) -> tuple[str, str]:
    """What conda prints about an environment; it never fails."""
    done = lab.conda("doctor", "--name", name, *words, env=options)
    assert "Traceback" not in done.stdout + done.stderr
    return done.stdout, done.stderr


def fixing(lab: CondaLab) -> None:
    if "--fix" not in lab.conda("doctor", "--help").stdout:
        pytest.skip("this conda has no doctor --fix; CONDA_DEDUP_TEST_CONDA can name one that has")


def leave_something(lab: CondaLab) -> list[Path]:
    """What an interrupted run may leave: bytes that the target has too."""
    prefix = lab.env_path("one")
    staging = prefix / f"{STAGING_PREFIX}0123456789ab"
    staging.mkdir()
    (staging / "0123456789ab-1").write_bytes((prefix / FILE).read_bytes())
    return [staging / "0123456789ab-1", staging]


@pytest.mark.integration
def test_doctor(lab: CondaLab) -> None:
    one, two = (lab.env_path(name) / FILE for name in ("one", "two"))
    out, err = doctor(lab)
    assert out.count(f"{health.OK} {OURS}: none is damaged.\n") == 1
    assert "conda dedup" not in out + err
    left = leave_something(lab)
    out, _ = doctor(lab)
    assert f"{health.WRONG} Interrupted runs of conda-dedup left 2 files behind.\n" in out
    assert "conda dedup clean" in out
    assert str(left[0]) not in out
    verbose, _ = doctor(lab, "--verbose")
    assert all(f"  {path}\n" in verbose for path in left)
    edit(one)
    for name in ("one", "two"):
        out, _ = doctor(lab, name=name)
        assert f"{health.WRONG} Shared files are damaged.\n" in out
        assert f"  {one}  (environment one)\n" in out
        assert f"  {two}  (environment two)\n" in out
        assert "conda dedup verify --repair" in out
        assert (left[0].name in out, "Interrupted" in out) == (False, name == "one")
    # whatever is wrong with us, the checks of conda itself are made
    for broken in ({"XDG_STATE_HOME": os.devnull}, {"CONDA_NO_PLUGINS": "1"}):
        out, _ = doctor(lab, **broken)
        assert "missing files" in out
        assert ("Shared files are damaged" in out) == ("XDG_STATE_HOME" in broken)


@pytest.mark.integration
def test_doctor_of_an_environment_that_is_none(lab: CondaLab) -> None:
    """What conda says and how it ends is the same as without us."""
    prefix = lab.root / "empty"
    prefix.mkdir()
    for words in (["--prefix", str(prefix)], ["--name", "nope"]):
        with_us, without = (
            lab.conda("doctor", *words, env={"CONDA_NO_PLUGINS": off}, check=False) for off in ("0", "1")
        )
        assert with_us.returncode == without.returncode
        assert "Traceback" not in with_us.stderr


@pytest.mark.integration
def test_doctor_fix(lab: CondaLab) -> None:
    fixing(lab)
    one, two = (lab.env_path(name) / FILE for name in ("one", "two"))
    assert (
        "shared-files: Verify the files that environments share (fix: "
        in lab.conda("doctor", "--list").stdout
    )
    before = snapshot(lab.env_path("one"), lab.env_path("two"))
    assert "Shared files: nothing to fix.\n" in doctor(lab, "shared-files", "--fix")[0]
    left = leave_something(lab)
    words = ("doctor", "--name", "one", "shared-files", "--fix")
    for damaged in (False, True):
        edited = edit(one) if damaged else one.read_bytes()
        lab.configure()
        lab.conda(*words, "--dry-run")
        lab.configure(always_yes=False)
        refused = lab.conda(*words, input="n\n", check=False)
        assert "Traceback" not in refused.stderr
        assert left[0].exists()
    assert one.read_bytes() == two.read_bytes() == edited
    done = lab.conda(*words, input="y\ny\n")
    assert "2 files repaired." in done.stdout
    assert not left[1].exists()
    assert_unchanged(before, snapshot(lab.env_path("one"), lab.env_path("two")))
    assert os.path.samefile(one, two)
    assert f"{health.OK} {OURS}: none is damaged.\n" in doctor(lab)[0]


@pytest.mark.integration
def test_doctor_fix_of_what_cannot_be_fixed(lab: CondaLab) -> None:
    fixing(lab)
    one, two = (lab.env_path(name) / FILE for name in ("one", "two"))
    for archive in lab.pkgs_dirs[0].glob("two-builds*.conda"):
        archive.unlink()
    edit(lab.pkgs_dirs[0] / "two-builds-1.0-0" / FILE)
    edited = edit(one)
    done = lab.conda("doctor", "--name", "one", "shared-files", "--fix", check=False)
    assert done.returncode == 1
    assert "--force-reinstall" in done.stdout
    assert two.read_bytes() == edited
    broken = lab.conda(
        "doctor", "--name", "one", "shared-files", "--fix", check=False, env={"XDG_STATE_HOME": os.devnull}
    )
    assert broken.returncode == 1
    assert "Traceback" not in broken.stderr
    assert two.read_bytes() == edited


# -- the same without conda: names that a real environment has no more than once in a lifetime ---------


def test_odd_names_are_no_markup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    world = World(tmp_path / "world", tmp_path / "home")
    one = world.forge.environment("x[/bold]\x1b[2J", {DIST: {LIB: DATA}})
    two = world.forge.environment("[red]two", {DIST: {LIB: DATA}})
    share(world)
    staging = one / f"{STAGING_PREFIX}0123456789ab"
    staging.mkdir()
    edit(two / LIB)
    inside(world, monkeypatch)
    (world.home / ".conda").mkdir()
    (world.home / ".conda/environments.txt").write_text(f"{one}\n{two}\n")
    capsys.readouterr()
    health.check(str(one), verbose=True)
    out = capsys.readouterr().out
    for path in (one / LIB, two / LIB, staging):
        assert f"  {str(path).replace(chr(27), chr(92) + 'x1b')}" in out
    assert "\x1b" not in out
