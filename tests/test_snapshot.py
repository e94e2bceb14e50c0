"""Snapshots: what is in them, when they are written, and that conda makes the environment again."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from conda_dedup_plugin import snapshots
from conda_dedup_plugin.cli import main
from conda_dedup_plugin.demo.distributions import SITE_PACKAGES
from conda_dedup_plugin.snapshot import take
from conda_dedup_plugin.snapshots import KEPT, write
from tests.conftest import MakeLab
from tests.lab.forge import Forge
from tests.lab.world import CondaLab
from tests.test_manners import add_wheel, home, register

__all__ = ["home"]

URL = "https://conda.anaconda.org/forge/linux-64/{}.conda"


def record(prefix: Path, name: str, *depends: str, **more: object) -> None:
    """A record in conda-meta, with an URL unless that is given."""
    stem = f"{name}-1-0"
    said = {
        "name": name,
        "version": "1",
        "build": "0",
        "subdir": "linux-64",
        "channel": "https://conda.anaconda.org/forge/linux-64",
        "url": URL.format(stem),
        "md5": "0" * 32,
        "sha256": "1" * 64,
        "depends": depends,
        "files": [],
        **more,
    }
    (prefix / f"conda-meta/{stem}.json").write_text(json.dumps(said))


@pytest.fixture
def prefix(home: Path, tmp_path: Path) -> Path:
    forge = Forge(tmp_path)
    prefix = forge.environment("one", {})
    register(home, forge)
    record(prefix, "a", "c >=1", "not-there")
    record(prefix, "b", "a")
    record(prefix, "c", "b")  # in a ring
    return prefix


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line[0] != "#"]


def test_each_after_what_it_depends_on(prefix: Path) -> None:
    taken = take(str(prefix), "one")
    assert taken.packages == 3
    assert taken.warnings == ()
    assert lines(taken.explicit) == ["@EXPLICIT", *(f"{URL.format(f'{n}-1-0')}#{'0' * 32}" for n in "bca")]
    assert YAML().load(taken.yml) == {
        "name": "one",
        "channels": ["forge"],
        "dependencies": ["a=1=0", "b=1=0", "c=1=0"],
    }


def test_without_url_or_digest(prefix: Path) -> None:
    record(prefix, "a", url="")
    record(prefix, "b", md5=None)
    record(prefix, "c", url="https://x/c.conda\nhttps://evil/d.conda", md5=None, sha256=None)
    taken = take(str(prefix), "one")
    assert lines(taken.explicit) == ["@EXPLICIT", URL.format("b-1-0")]
    assert f"# sha256 of the next: {'1' * 64}\n" in taken.explicit
    assert f"# no url: https://conda.anaconda.org/forge/linux-64::a-1-0#{'1' * 64}" in taken.explicit
    assert [warning.split()[0] for warning in taken.warnings] == ["a-1-0", "c-1-0"]


def test_no_secret_is_written(prefix: Path) -> None:
    for name, host in (("a", "https://me:hunter2@host"), ("b", "https://host/t/hunter2")):
        record(prefix, name, url=f"{host}/forge/linux-64/{name}-1-0.conda", channel=f"{host}/forge")
    taken = take(str(prefix), "one")
    assert "hunter2" not in taken.explicit + taken.yml
    assert f"https://host/forge/linux-64/a-1-0.conda#{'0' * 32}" in taken.explicit
    assert YAML().load(taken.yml)["channels"] == ["https://host/forge", "forge"]


def test_what_pip_installed(prefix: Path) -> None:
    site = "lib/python3.11/site-packages"
    for name in ("Plain.Name", "from_git", "archive", "editable", "condas"):
        add_wheel(prefix, name, {f"{name}/x.so": b"x" * 9000})
        (prefix / site / f"{name}-1.0.dist-info/METADATA").write_text("Name: x\n")
    origins = {
        "from_git": {"url": "https://me:pw@h/r.git", "vcs_info": {"vcs": "git", "commit_id": "abc"}},
        "archive": {"url": "https://h/archive.whl", "archive_info": {}},
        "editable": {"url": "file:///home/x", "dir_info": {"editable": True}},
    }
    for name, origin in origins.items():
        (prefix / site / f"{name}-1.0.dist-info/direct_url.json").write_text(json.dumps(origin))
    record(prefix, "a", files=[f"{site}/condas-1.0.dist-info/RECORD"])
    taken = take(str(prefix), "one")
    assert YAML().load(taken.yml)["dependencies"][-1] == {
        "pip": [
            "archive @ https://h/archive.whl",
            "editable==1.0",
            "from-git @ git+https://h/r.git@abc",
            "plain-name==1.0",
        ]
    }
    (warning,) = taken.warnings
    assert "file:///home/x" in warning


def test_a_damaged_record_is_a_warning(prefix: Path) -> None:
    (prefix / "conda-meta/a-1-0.json").write_text("{")
    taken = take(str(prefix), "one")
    assert taken.packages == 2
    assert "a-1-0" in taken.warnings[0]


# -- where it is kept -------------------------------------------------------------------------------------


def test_written_only_when_something_changed(prefix: Path, tmp_path: Path) -> None:
    directory = str(tmp_path / "kept")
    folder, changed = write(take(str(prefix), "one"), directory)
    assert (folder, changed) == (f"{directory}/one", True)
    before = os.stat(f"{folder}/explicit.txt")
    assert before.st_mode & 0o777 == 0o666 & ~_umask()
    assert write(take(str(prefix), "one"), directory) == (folder, False)
    assert os.stat(f"{folder}/explicit.txt").st_mtime_ns == before.st_mtime_ns
    assert sorted(os.listdir(folder)) == ["environment.yml", "explicit.txt"]
    first = Path(folder, "explicit.txt").read_text()
    record(prefix, "d")
    assert write(take(str(prefix), "one"), directory) == (folder, True)
    (earlier,) = [name for name in os.listdir(folder) if os.path.isdir(f"{folder}/{name}")]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d\.\d{3}Z", earlier)
    assert Path(folder, earlier, "explicit.txt").read_text() == first
    assert sorted(os.listdir(f"{folder}/{earlier}")) == ["environment.yml", "explicit.txt"]


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_the_last_ones_are_kept_and_nothing_of_others_goes(prefix: Path, tmp_path: Path) -> None:
    directory = str(tmp_path / "kept")
    (tmp_path / "kept/one/mine").mkdir(parents=True)
    (tmp_path / "kept/one/2020-01-01T00-00-00.000Z").mkdir()
    (tmp_path / "kept/one/2020-01-01T00-00-00.000Z/notes").touch()
    for number in range(KEPT + 3):
        record(prefix, f"d{number}")
        folder, changed = write(take(str(prefix), "one"), directory)
        assert changed
        # each was written at another time
        at = 1_700_000_000 + number
        os.utime(f"{folder}/explicit.txt", (at, at))
    there = sorted(os.listdir(folder))
    assert there[0] == "2020-01-01T00-00-00.000Z" and there[-1] == "mine"
    assert len(there) == KEPT + 4
    newest = Path(folder, there[KEPT], "explicit.txt").read_text()
    assert f"/d{KEPT + 1}-1-0.conda" in newest and f"/d{KEPT + 2}-1-0.conda" not in newest


def test_two_environments_of_one_name(prefix: Path, home: Path, tmp_path: Path) -> None:
    other = Forge(tmp_path / "other").environment("one", {})
    directory = str(tmp_path / "kept")
    one, two = (write(take(str(path), "one"), directory)[0] for path in (prefix, other))
    assert one == f"{directory}/one"
    assert re.fullmatch(re.escape(one) + "-[0-9a-f]{8}", two)
    for path, folder in ((prefix, one), (other, two)):
        assert write(take(str(path), "one"), directory) == (folder, False)


@pytest.mark.parametrize("name", ["project/default", "..", "a\nb", "/abs", "ü"])
def test_a_name_that_is_no_directory(prefix: Path, tmp_path: Path, name: str) -> None:
    folder, _ = write(take(str(prefix), name), str(tmp_path / "kept"))
    assert os.path.dirname(os.path.realpath(folder)) == str(tmp_path / "kept")


def test_what_cannot_be_written_is_one_sentence(prefix: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "file").touch()
    assert main(["snapshot", "-n", "one", "--write", str(tmp_path / "file")]) == 1
    assert "Not a directory" in capsys.readouterr().err
    from conda_dedup_plugin.environments import Request, find

    (tree,) = find(Request(prefixes=(str(prefix),), discover=False)).trees
    (line,) = snapshots.keep(str(tmp_path / "file"), tree)
    assert line == "the snapshot of env 'one' could not be written: Not a directory"


def test_the_command(prefix: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    assert main(["snapshot"]) == 2
    assert main(["snapshot", "-n", "one"]) == 2
    assert "dedup_snapshot_dir" in capsys.readouterr().err
    assert main(["snapshot", "-n", "one", "--write", str(tmp_path / "kept"), "--json"]) == 0
    (told,) = json.loads(capsys.readouterr().out)["environments"]
    assert (told["packages"], told["changed"]) == (3, True)
    assert Path(told["explicit"]).read_text().count("\n@EXPLICIT\n") == 1
    assert YAML().load(Path(told["yml"]))["name"] == "one"
    monkeypatch.setenv("CONDA_PLUGINS_DEDUP_SNAPSHOT_DIR", str(tmp_path / "set"))
    assert main(["snapshot", "-p", str(prefix)]) == 0
    assert "3 packages" in capsys.readouterr().out
    assert (tmp_path / "set/one/explicit.txt").exists()


# -- conda ------------------------------------------------------------------------------------------------


def listed(lab: CondaLab, name: str) -> list[str]:
    return lines(lab.conda("list", "--name", name, "--explicit", "--md5").stdout)


@pytest.mark.integration
def test_what_was_removed_is_made_again(conda_lab: MakeLab) -> None:
    lab = conda_lab(with_plugin=True)
    one = lab.create("one", "numpy", "pip", "pure-noarch", "two-builds=1.0=0")
    lab.pip(one, "install", "--no-deps", "msgspec")
    before = listed(lab, "one")
    lab.conda("dedup", "snapshot", "-n", "one", "--write", lab.root / "kept")
    explicit, yml = lab.root / "kept/one/explicit.txt", lab.root / "kept/one/environment.yml"
    assert sorted(lines(explicit.read_text())) == sorted(before)
    lab.conda("remove", "--name", "one", "--all")
    assert not one.exists()
    lab.conda("create", "--name", "one", "--file", explicit)
    assert sorted(listed(lab, "one")) == sorted(before)
    lab.python_in(one, "-c", "import numpy, pure_noarch")
    lab.conda("env", "create", "--name", "again", "--file", yml)
    assert sorted(listed(lab, "again")) == sorted(before)
    lab.python_in(lab.env_path("again"), "-c", "import numpy, msgspec")
    assert (lab.env_path("again") / SITE_PACKAGES / "msgspec").is_dir()


@pytest.mark.integration
@pytest.mark.parametrize("auto", [True, False])
def test_after_each_transaction(conda_lab: MakeLab, auto: bool) -> None:
    lab = conda_lab(with_plugin=True)
    kept = lab.root / "kept"
    lab.configure(plugins={"dedup_snapshot_dir": str(kept), "dedup_auto": auto})
    lab.create("one", "two-builds=1.0=0")
    explicit = kept / "one/explicit.txt"
    assert "/two-builds-1.0-0." in explicit.read_text()
    lab.conda("install", "--name", "one", "settings")
    assert sorted(lines(explicit.read_text())) == sorted(listed(lab, "one"))
    lab.conda("remove", "--name", "one", "settings")
    assert lines(explicit.read_text()) == listed(lab, "one")
    assert len(os.listdir(kept / "one")) == 4
    written = explicit.stat().st_mtime_ns
    lab.conda("install", "--name", "one", "two-builds=1.0=0")
    lab.conda("create", "--name", "two", "settings", "--dry-run")
    assert explicit.stat().st_mtime_ns == written
    assert os.listdir(kept) == ["one"]
    before = listed(lab, "one")
    lab.conda("env", "remove", "--name", "one")
    lab.conda("create", "--name", "one", "--file", explicit)
    assert listed(lab, "one") == before


@pytest.mark.integration
def test_a_directory_that_cannot_be_written_costs_a_line(conda_lab: MakeLab) -> None:
    lab = conda_lab(with_plugin=True)
    (lab.root / "file").touch()
    lab.configure(plugins={"dedup_snapshot_dir": str(lab.root / "file")})
    done = lab.conda("create", "--name", "one", "settings")
    assert done.stderr.count("the snapshot of env 'one' could not be written: Not a directory") == 1
    lab.configure(plugins={"dedup_snapshot_dir": "relative"})
    done = lab.conda("create", "--name", "two", "settings")
    assert done.stderr.count("dedup_snapshot_dir is 'relative'") == 1
