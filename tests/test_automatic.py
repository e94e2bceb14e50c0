"""The automatic run after real conda commands, and that conda never suffers by it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from conda_dedup_plugin.demo.distributions import SITE_PACKAGES
from tests.lab import channel as contents
from tests.lab import needs
from tests.lab.invariants import du
from tests.test_lab import EVERYTHING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import MakeLab
    from tests.lab.world import CondaLab

pytestmark = pytest.mark.integration
LINE = re.compile(
    r"^dedup: [\d,]+ files? of env '(?P<name>[^']+)' now shared, [\d.]+ \S+ freed in [\d.]+ s$", re.M
)


@pytest.fixture
def far(conda_lab: MakeLab, shm_dir: Path) -> CondaLab:
    """conda with the plugin, environments on another device than its cache."""
    return conda_lab(with_plugin=True, envs_dir=shm_dir / "envs")


def named(done: subprocess.CompletedProcess[str]) -> list[str]:
    """The environments that a command said to have shared something of; its stdout says nothing of us."""
    assert "dedup: " not in done.stdout
    return [found["name"] for found in LINE.finditer(done.stderr)]


def has_transactions(lab: CondaLab) -> bool:
    """Whether this conda has transaction hooks (25.5)."""
    code = "from conda.plugins.types import CondaPostTransactionAction"
    return lab.run(lab.python, "-c", code, check=False).returncode == 0


def shared(one: Path, two: Path, below: str, pattern: str = "*.so*", least: int = 4096) -> Iterator[bool]:
    """For each big enough file of ``one`` whether it is the same inode in ``two``."""
    found = [path for path in (one / below).rglob(pattern) if not path.is_symlink()]
    found = [path for path in found if path.is_file() and path.stat().st_size >= least]
    assert found
    return (os.path.samefile(path, two / path.relative_to(one)) for path in found)


def test_a_second_environment_on_another_device(far: CondaLab) -> None:
    first = far.conda("create", "--name", "one", *EVERYTHING)
    # what one package holds twice is shared already
    assert named(first) in ([], ["one"])
    second = far.conda("create", "--name", "two", *EVERYTHING)
    assert named(second) == ["two"]
    one, two = far.env_path("one"), far.env_path("two")
    assert all(shared(one, two, SITE_PACKAGES))
    assert all(shared(one, two, f"{SITE_PACKAGES}/pure_noarch", "*.pyc"))
    assert not os.path.samefile(one / contents.PREFIXED_BINARY, two / contents.PREFIXED_BINARY)
    assert not os.path.samefile(one / contents.CONFIG_FILE, two / contents.CONFIG_FILE)
    assert du(one, two) < 1.3 * du(one)
    far.conda("install", "--name", "two", "pip")
    assert far.run(two / "bin/pure-noarch").stdout.strip() == str(two)


def test_beside_the_cache_only_bytecode_is_left(conda_lab: MakeLab) -> None:
    lab = conda_lab(with_plugin=True)
    assert named(lab.conda("create", "--name", "one", *EVERYTHING)) == []
    assert named(lab.conda("create", "--name", "two", *EVERYTHING)) == ["two"]
    one, two = lab.env_path("one"), lab.env_path("two")
    assert all(shared(one, two, f"{SITE_PACKAGES}/pure_noarch", "*.pyc"))
    assert os.lstat(one / SITE_PACKAGES / "pure_noarch/module_0.py").st_nlink == 3


def test_install_and_update(far: CondaLab) -> None:
    far.conda("create", "--name", "one", "numpy", "two-builds=1.0=1")
    far.conda("create", "--name", "two", "two-builds=1.0=0")
    assert named(far.conda("install", "--name", "two", "numpy")) == ["two"]
    assert all(shared(far.env_path("one"), far.env_path("two"), SITE_PACKAGES))
    assert named(far.conda("update", "--name", "two", "two-builds")) == ["two"]
    assert all(shared(far.env_path("one"), far.env_path("two"), "lib/two-builds", "*.bin"))


def test_clone_with_pip_packages(conda_lab: MakeLab) -> None:
    """conda copies what pip installed, byte by byte."""
    lab = conda_lab(with_plugin=True)
    one = lab.create("one", "pip")
    lab.pip(one, "install", "numpy")
    assert named(lab.conda("create", "--name", "two", "--clone", "one")) == ["two"]
    assert all(shared(one, lab.env_path("two"), f"{SITE_PACKAGES}/numpy"))


def test_rename(far: CondaLab) -> None:
    far.conda("create", "--name", "one", "numpy")
    far.conda("create", "--name", "two", "numpy")
    done = far.conda("rename", "--name", "two", "three")
    assert named(done) == ["three"]
    assert all(shared(far.env_path("one"), far.env_path("three"), SITE_PACKAGES))


def environment_file(lab: CondaLab, name: str, *pip: str) -> Path:
    path = lab.root / f"{name}.yml"
    path.write_text(
        json.dumps({"name": name, "dependencies": ["pip", *([{"pip": list(pip)}] if pip else [])]})
    )
    return path


def test_env_create_with_pip(conda_lab: MakeLab) -> None:
    lab = conda_lab(with_plugin=True)
    lab.conda("env", "create", "--file", environment_file(lab, "one", "numpy"))
    done = lab.conda("env", "create", "--file", environment_file(lab, "two", "numpy"))
    assert named(done) == ["two"]
    assert all(shared(lab.env_path("one"), lab.env_path("two"), f"{SITE_PACKAGES}/numpy"))


def test_env_update_with_pip(conda_lab: MakeLab) -> None:
    lab = conda_lab(with_plugin=True)
    lab.conda("env", "create", "--file", environment_file(lab, "one", "numpy"))
    lab.conda("env", "create", "--file", environment_file(lab, "two"))
    done = lab.conda("env", "update", "--file", environment_file(lab, "two", "numpy"))
    assert named(done) == ["two"]
    assert all(shared(lab.env_path("one"), lab.env_path("two"), f"{SITE_PACKAGES}/numpy"))


def test_env_create_without_pip(far: CondaLab) -> None:
    """On conda 24.7 ``context.target_prefix`` is base here."""
    far.conda("create", "--name", "one", "pip")
    done = far.conda("env", "create", "--file", environment_file(far, "two"))
    assert named(done) == ["two"]


def test_what_failed_before_our_turn_is_taken_up_by_the_next_command(conda_lab: MakeLab) -> None:
    lab = conda_lab(with_plugin=True)
    if not has_transactions(lab):
        pytest.skip("this conda has no transaction hooks; CONDA_DEDUP_TEST_CONDA can name one that has")
    lab.conda("create", "--name", "one", "pure-noarch", "pip")
    broken = lab.root / "two.yml"
    broken.write_text(
        json.dumps({"name": "two", "dependencies": ["pip", "pure-noarch", {"pip": ["no-such-thing"]}]})
    )
    failed = lab.conda("env", "create", "--file", broken, check=False)
    assert failed.returncode
    assert not all(shared(lab.env_path("one"), lab.env_path("two"), f"{SITE_PACKAGES}/pure_noarch", "*.pyc"))
    assert named(lab.conda("create", "--name", "three", "settings")) == ["two"]
    assert all(shared(lab.env_path("one"), lab.env_path("two"), f"{SITE_PACKAGES}/pure_noarch", "*.pyc"))


def test_pip_without_conda_is_taken_up_by_the_next_command(conda_lab: MakeLab) -> None:
    """Whatever that is about; and only once."""
    lab = conda_lab(with_plugin=True)
    one, two = lab.create("one", "pip"), lab.create("two", "pip")
    for prefix in (one, two):
        lab.pip(prefix, "install", "--no-deps", "numpy")
    assert not any(shared(one, two, f"{SITE_PACKAGES}/numpy"))
    assert len(named(lab.conda("create", "--name", "three", "settings"))) == 1
    assert all(shared(one, two, f"{SITE_PACKAGES}/numpy"))
    assert named(lab.conda("install", "--name", "three", "two-builds")) == []


def test_no_time_at_all(far: CondaLab) -> None:
    """What is not done is done when there is time again, at a command on something else."""
    far.conda("create", "--name", "one", "numpy")
    none = {"CONDA_PLUGINS_DEDUP_AUTO_BUDGET": "0", "CONDA_PLUGINS_DEDUP_ADVISE": "false"}
    assert "dedup: " not in far.conda("create", "--name", "two", "numpy", env=none).stderr
    assert not any(shared(far.env_path("one"), far.env_path("two"), SITE_PACKAGES))
    assert named(far.conda("create", "--name", "three", "settings")) == ["two"]
    assert all(shared(far.env_path("one"), far.env_path("two"), SITE_PACKAGES))


# -- what users ask for -------------------------------------------------------------------------------


def test_quiet_and_json_are_silent_and_the_same(far: CondaLab) -> None:
    far.conda("create", "--name", "one", "numpy")
    quiet = far.conda("create", "--name", "two", "numpy", "--quiet")
    assert "dedup: " not in quiet.stdout + quiet.stderr
    done = far.conda("create", "--name", "three", "numpy", "--json")
    plain = far.conda("create", "--name", "four", "numpy", "--json", env={"CONDA_NO_PLUGINS": "1"})
    assert "dedup: " not in done.stderr
    assert json.loads(done.stdout.replace("three", "four")) == json.loads(plain.stdout)
    for name in ("two", "three"):
        assert all(shared(far.env_path("one"), far.env_path(name), SITE_PACKAGES))
    assert not any(shared(far.env_path("one"), far.env_path("four"), SITE_PACKAGES))


def test_dry_run_and_download_only(far: CondaLab) -> None:
    far.conda("create", "--name", "one", "numpy")
    for option in ("--dry-run", "--download-only"):
        done = far.conda("create", "--name", "two", "numpy", option, check=False)
        assert named(done) == []
        assert not far.env_path("two").exists()


def test_env_create_dry_run(far: CondaLab) -> None:
    """conda 24.7 calls the post-command hook here too, with base as the prefix."""
    far.conda("create", "--name", "one", "pip")
    done = far.conda("env", "create", "--dry-run", "--file", environment_file(far, "two"))
    assert named(done) == []
    assert not far.env_path("two").exists()


@pytest.mark.parametrize("words", [("--copy",), ()])
def test_who_asks_for_copies_gets_copies(far: CondaLab, words: tuple[str, ...]) -> None:
    far.conda("create", "--name", "one", "numpy")
    env = {} if words else {"CONDA_ALWAYS_COPY": "1"}
    done = far.conda("create", "--name", "two", "numpy", *words, env=env)
    assert named(done) == []
    assert not any(shared(far.env_path("one"), far.env_path("two"), SITE_PACKAGES))


def test_switched_off(far: CondaLab) -> None:
    far.conda("create", "--name", "one", "numpy")
    far.configure(plugins={"dedup_auto": False})
    assert named(far.conda("create", "--name", "two", "numpy")) == []
    assert not any(shared(far.env_path("one"), far.env_path("two"), SITE_PACKAGES))


def test_a_bad_setting_is_the_default_and_one_line(far: CondaLab) -> None:
    far.conda("create", "--name", "one", "numpy")
    far.configure(plugins={"dedup_auto": "perhaps", "dedup_min_size": "4096"})
    done = far.conda("create", "--name", "two", "numpy")
    assert named(done) == ["two"]
    assert done.stderr.count("dedup_auto") == 1


def test_a_frozen_environment_is_no_keeper(far: CondaLab) -> None:
    far.conda("create", "--name", "one", "numpy")
    (far.env_path("one") / "conda-meta/frozen").touch()
    assert named(far.conda("create", "--name", "two", "numpy")) == []


def test_conda_on_the_command_line(far: CondaLab) -> None:
    """One subcommand of the name, with an executable ``conda-dedup`` on PATH too; both say the same."""
    far.conda("create", "--name", "one", "numpy")
    far.conda("create", "--name", "two", "numpy", env={"CONDA_NO_PLUGINS": "1"})
    path = {"PATH": f"{far.python.parent}{os.pathsep}{os.environ['PATH']}"}
    listed = far.conda("--help", env=path).stdout
    assert len(re.findall(r"^ +dedup ", listed, re.M)) == 1
    words = ("report", "--no-discover", "--search", far.envs_dirs[0], "--json")
    done = (
        far.conda("dedup", *words, env=path),
        far.run("conda-dedup", *words, env=path),
        far.conda("--json", "dedup", *words[:-1], env=path),
    )
    by_conda, by_itself, before = ({**json.loads(one.stdout), "walked": ""} for one in done)
    assert by_conda == by_itself == before
    assert by_conda["totals"]["freeable_bytes"] > 0
    refused = far.conda("dedup", "apply", "--json", env=path, check=False)
    assert refused.returncode == 1
    assert "--yes" in json.loads(refused.stdout)["hint"]
    unknown = far.conda("dedup", "apply", "-n", "no-such", "--yes", env=path, check=False)
    assert unknown.returncode == 2
    assert "Traceback" not in unknown.stderr
    both = far.conda("dedup", "apply", "-n", "one", "-n", "two", "--yes", env=path)
    assert "freed" in both.stdout
    assert all(shared(far.env_path("one"), far.env_path("two"), SITE_PACKAGES))
    # where conda has no plugin but PATH has the executable, an old conda runs that
    described = far.conda("dedup", "--help", env=path).stdout
    assert described.startswith("usage: conda dedup")


# -- sabotage -----------------------------------------------------------------------------------------

SABOTAGE = {
    "engine raises": """
        import conda_dedup_plugin.automatic as automatic
        def broken(*_, **__): raise RuntimeError("sabotaged")
        automatic.analyse_inventory = broken
    """,
    "interrupted": """
        import os, signal
        import conda_dedup_plugin.automatic as automatic
        def interrupted(*_, **__): os.kill(os.getpid(), signal.SIGINT)
        automatic.apply_plan = interrupted
    """,
    "exits": """
        import conda_dedup_plugin.automatic as automatic
        def leaves(*_, **__): raise SystemExit(5)
        automatic.apply_plan = leaves
    """,
    "nothing can be imported": """
        import sys
        sys.modules["conda_dedup_plugin.automatic"] = None
    """,
    "recording raises": """
        import conda_dedup_plugin.pending as pending
        def broken(*_, **__): raise KeyboardInterrupt
        pending.note = broken
    """,
    "no state": """
        import platformdirs, pathlib
        platformdirs.user_state_path = lambda *_, **__: pathlib.Path("/proc/no/such")
    """,
}


@pytest.mark.parametrize("how", SABOTAGE)
def test_sabotaged(far: CondaLab, how: str) -> None:
    customize = far.root / "sabotage"
    customize.mkdir()
    (customize / "sitecustomize.py").write_text(textwrap.dedent(SABOTAGE[how]))
    env = {"PYTHONPATH": str(customize)}
    far.conda("create", "--name", "one", "numpy")
    plain = far.conda("create", "--name", "plain", "numpy", "--json", env={"CONDA_NO_PLUGINS": "1"})
    done = far.conda("create", "--name", "other", "numpy", "--json", env=env)
    assert json.loads(done.stdout.replace("other", "plain")) == json.loads(plain.stdout)
    loud = far.conda("create", "--name", "two", "numpy", env=env)
    assert "dedup: " not in loud.stdout
    assert "Traceback" not in loud.stderr
    if how != "recording raises":
        told = [line for line in loud.stderr.splitlines() if line.startswith("dedup: ")]
        assert len([line for line in told if "with the same builds" not in line]) == 1
        assert not any(shared(far.env_path("one"), far.env_path("two"), SITE_PACKAGES))
    far.python_in(far.env_path("two"), "-c", "import numpy")


def test_a_full_disk(conda_lab: MakeLab, mounted, tmp_path) -> None:
    """The file system of the environments has room for conda's work and not for a directory of ours."""
    lab = conda_lab(with_plugin=True, envs_dir=mounted("tmpfs", 64 << 20) / "envs")
    lab.conda("create", "--name", "one", "pure-noarch")
    customize = lab.root / "sabotage"
    customize.mkdir()
    (customize / "sitecustomize.py").write_text(
        textwrap.dedent(
            f"""
            import conda_dedup_plugin.automatic as automatic
            real = automatic.apply_plan
            def full(*arguments, **options):
                try:
                    with open({str(lab.envs_dirs[0] / "filler")!r}, "wb") as stream:
                        while True:
                            stream.write(bytes(4096))
                            stream.flush()
                except OSError:
                    pass
                return real(*arguments, **options)
            automatic.apply_plan = full
            """
        )
    )
    lab.conda("create", "--name", "two", "pure-noarch", env={"PYTHONPATH": str(customize)})
    lab.python_in(lab.env_path("two"), "-B", "-c", "import pure_noarch.module_3")


def test_settings_and_discovery_within_conda(conda_python: Path, tmp_path: Path) -> None:
    """The tests of settings and discovery that need conda in their own process, run where it is."""
    code = "import conda, os, sys; print(os.path.dirname(conda.__path__[0]), *sys.version_info[:2])"
    done = subprocess.run([conda_python, "-c", code], capture_output=True, text=True, check=True)
    path, *version = done.stdout.split()
    needs(
        "the conda under test runs on another Python", version == [str(part) for part in sys.version_info[:2]]
    )
    tests = Path(__file__).parent
    words = ("-q", "-p", "no:cacheprovider", "--basetemp", tmp_path / "inner")
    names = ("test_settings.py", "test_condarc.py", "test_environments.py")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *words, *(tests / name for name in names)],
        cwd=tests.parent,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "conda is not installed" not in done.stdout
