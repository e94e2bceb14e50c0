"""``run`` around any command, and ``pixi dedup``: transparent for who calls them, and they share."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from conda_dedup_plugin.demo.distributions import SITE_PACKAGES
from tests.lab.conda_wheel import REPOSITORY
from tests.test_automatic import LINE, shared
from tests.test_cli import in_a_terminal
from tests.test_report import DIST, LIBRARY, World

if TYPE_CHECKING:
    from tests.conftest import MakeLab
    from tests.lab.world import CondaLab

PIXI = "import sys; from conda_dedup_plugin.cli.pixi import main; sys.exit(main())"
#: Runs in an environment of the world, as a package manager would.
COPY = "import shutil, sys; shutil.copytree(sys.argv[1], sys.argv[2]); print('copied')"


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "world", tmp_path / "home")


def named(stderr: str) -> list[str]:
    return [found["name"] for found in LINE.finditer(stderr)]


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def forged(world: World, *names: str) -> list[Path]:
    """Environments that are known to conda, with a library each that can be shared; their time is past."""
    made = [world.forge.environment(name, {DIST: {"lib/libx.so": LIBRARY}}) for name in names]
    known = world.home / ".conda/environments.txt"
    known.parent.mkdir(exist_ok=True)
    known.write_text("".join(f"{tree.root}\n" for tree in world.forge.trees))
    for prefix in made:
        age(prefix)
    return made


def age(prefix: Path) -> None:
    for path in (*prefix.glob("conda-meta/*"), prefix / "conda-meta"):
        os.utime(path, (1_600_000_000, 1_600_000_000))


def same(one: Path, two: Path) -> bool:
    return os.path.samefile(one / "lib/libx.so", two / "lib/libx.so")


#: As if everything had just been installed there.
TOUCH = "import glob, os, sys; [os.utime(path) for path in glob.glob(sys.argv[1] + '/conda-meta/*')]"


# -- the command's own ----------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [("--",), ()], ids=["--", "without --"])
@pytest.mark.parametrize("code", [0, 1, 3, 255])
def test_the_exit_code_is_the_commands(world: World, code: int, words: tuple[str, ...]) -> None:
    done = world.run("run", *words, *python(f"raise SystemExit({code})"), code=code)
    assert (done.stdout, done.stderr) == ("", "")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGPIPE])
def test_a_command_that_is_killed(world: World, number: signal.Signals) -> None:
    code = f"import os, signal; signal.signal({number:d}, signal.SIG_DFL)" if number != signal.SIGKILL else ""
    code += f"\nimport os; os.kill(os.getpid(), {number:d})"
    assert world.run("run", "--", *python(code), code=128 + number).stderr == ""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_who_kills_us_kills_the_command(world: World, number: signal.Signals) -> None:
    process = subprocess.Popen(
        world.command("run", "--", *python("print('up', flush=True); import time; time.sleep(100)")),
        env=world.environ,
        cwd=world.home,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    process.send_signal(number)
    assert process.wait(60) == 128 + number
    process.stdout.close()


def test_a_command_that_is_not_there(world: World, tmp_path: Path) -> None:
    done = world.run("run", "--", "no-such-command", code=127)
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        "conda-dedup: error: The command 'no-such-command' was not found.",
        "  hint: Check its name, and PATH.",
    ]
    file = tmp_path / "file"
    file.write_text("no program")
    for path in (file, tmp_path):
        done = world.run("run", "--", path, code=126)
        assert done.stdout == ""
        assert done.stderr.count("\n") <= 2 and "cannot be executed" in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["run"],
        ["run", "--"],
        ["run", "-q", "--"],
        ["run", "--json", "--", "true"],
        ["--json", "run", "--", "true"],
        ["run", "--no-discover", "--", "true"],
        ["run", "--no-such-option", "--", "true"],
    ],
)
def test_usage_errors(world: World, tmp_path: Path, words: list[str]) -> None:
    made = tmp_path / "made"
    words = [str(word) if word != "true" else f"touch {made}" for word in words]
    world.run(*words, code=2)
    assert not made.exists()


def test_help_says_that_stdout_is_the_commands(world: World) -> None:
    assert "--json" in world.run("run", "--help").stdout
    assert "Nothing is printed on stdout" in world.run("run", "--help").stdout
    # not ours
    assert world.run("run", "--", "echo", "--help", "--json", "--", "-q").stdout == "--help --json -- -q\n"


def test_streams_are_the_commands(world: World, tmp_path: Path) -> None:
    """Whatever bytes; and descriptors that were passed on, as a shell does it."""
    (one, two) = forged(world, "one", "two")
    code = (
        "import os, sys; data = sys.stdin.buffer.read(); os.write(1, data[::-1]); os.write(2, b'err\\n');"
        "os.write(int(sys.argv[2]), b'third'); os.utime(sys.argv[1] + '/conda-meta')"
    )
    data = bytes(range(256)) * 100
    reading, writing = os.pipe()
    done = subprocess.run(
        world.command("run", "--", *python(code), two, writing),
        env=world.environ,
        cwd=world.home,
        input=data,
        capture_output=True,
        pass_fds=[writing],
        timeout=60,
    )
    os.close(writing)
    with open(reading, "rb") as stream:
        assert stream.read() == b"third"
    assert (done.returncode, done.stdout) == (0, data[::-1])
    assert done.stderr.startswith(b"err\n")
    assert not same(one, two)  # nothing of its records came just now


@pytest.mark.parametrize("stream", ["1", "2", "0"])
def test_without_a_stream(world: World, stream: str) -> None:
    _, two = forged(world, "one", "two")
    made = two.parent / "x"
    words = shlex.join(world.command("run", "-p", made, "--", *python(COPY), two, made))
    done = subprocess.run(["bash", "-c", f"{words} {stream}>&-"], env=world.environ, cwd=world.home)
    assert done.returncode == 0
    assert same(two, made) or same(made.with_name("one"), made)


def test_ctrl_c_is_the_commands(world: World) -> None:
    """It reaches the command, which goes on; what it did is shared, and its exit code is ours."""
    forged(world, "one")
    copy = world.root / "envs/two"
    code = textwrap.dedent(
        f"""
        import shutil, signal, sys, time
        def interrupted(*_):
            shutil.copytree({str(world.root / "envs/one")!r}, {str(copy)!r})
            sys.exit(7)
        signal.signal(signal.SIGINT, interrupted)
        print("Share? [y/N] ", end="", flush=True)
        time.sleep(100)
        """
    )
    exit_code, screen = in_a_terminal(world, "run", "-p", copy, "--", *python(code), keys=b"\x03")
    assert exit_code == 7
    assert "1 file of env 'two' now shared" in screen
    assert same(world.root / "envs/one", copy)


def test_ctrl_c_while_we_share_changes_no_exit_code(world: World, tmp_path: Path) -> None:
    one, _ = forged(world, "one", "x")
    two = world.root / "envs/two"
    (tmp_path / "sabotage").mkdir()
    (tmp_path / "sabotage/sitecustomize.py").write_text(
        textwrap.dedent(
            """
            import os, signal
            import conda_dedup_plugin.automatic as automatic
            def interrupted(*_, **__):
                os.kill(os.getpid(), signal.SIGINT)
            automatic.apply_plan = interrupted
            """
        )
    )
    path = f"{tmp_path / 'sabotage'}{os.pathsep}{REPOSITORY}"
    done = world.run(
        "run", "-p", two, "--", *python(COPY), one, two, env={**world.environ, "PYTHONPATH": path}
    )
    assert done.stdout == "copied\n"
    assert done.stderr == "dedup: interrupted; what was shared until then is complete\n"


def test_without_a_state_directory_the_command_is_done(world: World) -> None:
    one, _ = forged(world, "one", "x")
    two = world.root / "envs/two"
    env = {**world.environ, "XDG_STATE_HOME": "/proc/no/such"}
    done = world.run("run", "-p", two, "--", *python(COPY), one, two, env=env)
    assert done.stdout == "copied\n"
    assert done.stderr.count("\n") == 1
    assert "the command itself is done" in done.stderr


# -- which environments -----------------------------------------------------------------------------------


def brought(world: World, *words: object, source: str = "one", target: str = "two") -> str:
    """Run a command that makes an environment; returns stderr."""
    envs = world.root / "envs"
    done = world.run("run", *words, "--", *python(COPY), envs / source, envs / target)
    assert done.stdout == "copied\n"
    return done.stderr


def test_what_the_command_made_is_found_after_it(world: World) -> None:
    """In a place where environments are; and what it did not change is left alone."""
    one, three = forged(world, "one", "three")
    world.extra["CONDA_ENVS_DIRS"] = str(world.root / "envs")
    assert named(brought(world)) == ["two"]
    two = world.root / "envs/two"
    assert same(one, two) != same(three, two)  # one of them was the keeper
    assert not same(one, three)
    document = json.loads(world.run("history", "--json").stdout)
    assert Path(sys.executable).name in json.dumps(document)
    assert str(two) not in json.dumps(document["runs"][0].get("command", ""))


def test_quiet(world: World) -> None:
    (one,) = forged(world, "one")
    assert brought(world, "-q", "-p", world.root / "envs/two") == ""
    assert same(one, world.root / "envs/two")


def test_what_is_named_need_not_be_there_before_nor_after(world: World) -> None:
    (one,) = forged(world, "one")
    assert named(brought(world, "-p", world.root / "envs/two")) == ["two"]
    assert same(one, world.root / "envs/two")
    done = world.run("run", "-p", world.root / "envs/none", "--", *python("raise SystemExit(5)"), code=5)
    assert done.stdout == ""
    assert "There is no environment at" in done.stderr
    assert done.stderr.count("\n") == 1


def test_only_what_is_named_is_changed(world: World) -> None:
    one, other = forged(world, "one", "other")
    world.extra["CONDA_ENVS_DIRS"] = str(world.root / "envs")
    assert named(brought(world, "-p", other)) == []
    assert not same(one, world.root / "envs/two")


@pytest.mark.parametrize("running", [True, False], ids=["that runs", "that is gone"])
def test_what_another_process_announced(world: World, running: bool) -> None:
    """A process that runs has announced it: left alone. One that is gone: done for it."""
    one, _ = forged(world, "one", "x")
    world.extra["CONDA_ENVS_DIRS"] = str(world.root / "envs")
    two = world.root / "envs/two"
    code = (
        f"import shutil, sys, time; shutil.copytree({str(one)!r}, {str(two)!r})\n"
        f"from conda_dedup_plugin import pending; pending.note({str(two)!r}, ['a-1-0'])\n"
        "print('up', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        python(code), env=world.environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout is not None
    try:
        assert other.stdout.readline() == "up\n"
        if not running:
            other.communicate()
            age(two)
        done = world.run("run", "--", *python(TOUCH), two)
        assert named(done.stderr) == ([] if running else ["two"])
    finally:
        other.communicate()


def test_what_belongs_to_somebody_else_is_left_alone(world: World) -> None:
    if os.geteuid() != 0:
        pytest.skip("root, to give files away")
    forged(world, "one")
    world.extra["CONDA_ENVS_DIRS"] = str(world.root / "envs")
    code = COPY + "; import os; os.chown(sys.argv[2], 12345, 12345)"
    done = world.run("run", "--", *python(code), world.root / "envs/one", world.root / "envs/two")
    assert done.stderr == ""


def test_who_wants_copies_gets_copies(world: World) -> None:
    (one,) = forged(world, "one")
    world.extra["CONDA_ALWAYS_COPY"] = "true"
    brought(world, "-p", world.root / "envs/two")
    assert not same(one, world.root / "envs/two")


def test_the_rest_is_taken_up_by_the_next_run(world: World) -> None:
    """Although no conda knows the environment: we do. The budget here is none at all."""
    (one,) = forged(world, "one")
    two = world.root / "envs/two"
    world.extra["CONDA_PLUGINS_DEDUP_AUTO_BUDGET"] = "0"
    assert brought(world, "-p", two) == ""
    assert not same(one, two)
    del world.extra["CONDA_PLUGINS_DEDUP_AUTO_BUDGET"]
    assert named(world.run("run", "--", "true").stderr) == ["two"]
    assert same(one, two)
    assert world.run("run", "--", "true").stderr == ""


# -- real package managers --------------------------------------------------------------------------------


def dedup(lab: CondaLab, *words: object, **options: object) -> subprocess.CompletedProcess[str]:
    """Run our command line in the laboratory's world, by the Python of the tests."""
    extra = {"PYTHONPATH": str(REPOSITORY), **{key: str(value) for key, value in options.items()}}
    return lab.run(sys.executable, "-m", "conda_dedup_plugin.cli", *words, env=extra)


@pytest.mark.integration
def test_pip_install_into_two_environments(conda_lab: MakeLab) -> None:
    """pip of an environment in which no conda is at work."""
    lab = conda_lab()
    one, two = lab.create("one", "pip"), lab.create("two", "pip")
    words = ("-m", "pip", "install", "--no-deps", "numpy")
    first = dedup(lab, "run", "--", "env", "-u", "PYTHONPATH", one / "bin/python", *words)
    assert "Successfully installed" in first.stdout
    assert "dedup: " not in first.stdout
    second = dedup(lab, "run", "--", "env", "-u", "PYTHONPATH", two / "bin/python", *words)
    assert named(second.stderr) == ["two"]
    assert all(shared(one, two, f"{SITE_PACKAGES}/numpy"))
    lab.python_in(two, "-c", "import numpy")
    assert dedup(lab, "run", "--", "true").stderr == ""


@pytest.mark.integration
def test_virtual_environments(conda_lab: MakeLab) -> None:
    """The one that is active, without being named."""
    lab = conda_lab()
    words = ("install", "--no-deps", "--find-links", lab.channel.wheels, "numpy")
    places = [lab.root / name for name in ("shop", "blog")]
    for place in places:
        lab.run(sys.executable, "-m", "venv", "--without-pip", place)
    done = [
        dedup(
            lab, "run", *scope, "--", sys.executable, "-m", "pip", "--python", place / "bin/python", *words,
            VIRTUAL_ENV=place,
        )
        for place, scope in zip(places, [("-p", places[0]), ()], strict=True)
    ]  # fmt: skip
    assert named(done[1].stderr) == ["blog"]
    assert all(shared(*places, f"{SITE_PACKAGES}/numpy"))


INSTALL = """
import asyncio, os, sys
from tests.lab.world import rattler_create
from pathlib import Path
rattler_create(Path(sys.argv[1]), ("numpy", "pure-noarch"), sys.argv[2], Path(sys.argv[3]))
print("installed", flush=True)
os._exit(0)
"""


@pytest.mark.integration
def test_rattler_in_two_projects(conda_lab: MakeLab, shm_dir: Path) -> None:
    """As pixi install does it; from a cache on another device, so that every file is a copy."""
    lab = conda_lab()
    prefixes = []
    for name in ("shop", "blog"):
        prefix = lab.root / name / ".pixi/envs/default"
        prefix.parent.mkdir(parents=True)
        prefixes.append(prefix)
        cache = shm_dir / "cache"
        words = [sys.executable, "-c", INSTALL, prefix, lab.channel.url, cache]
        done = dedup(lab, "run", "--search", lab.root / "shop", "--search", prefix.parents[2], "--", *words)
        assert done.stdout == "installed\n"
    assert named(done.stderr) == ["blog/default"]
    assert all(shared(*prefixes, f"{SITE_PACKAGES}/numpy"))
    lab.python_in(prefixes[1], "-c", "import numpy, pure_noarch.module_3")


@pytest.mark.integration
def test_run_by_conda(conda_lab: MakeLab) -> None:
    """conda leaves our words as they are; its exit code is the command's."""
    lab = conda_lab(with_plugin=True)
    one, two = lab.create("one", "pip"), lab.create("two", "pip")
    lab.pip(one, "install", "--no-deps", "numpy")
    words = ("-m", "pip", "install", "--no-deps", "-q", "numpy")
    done = lab.conda("dedup", "run", "-n", "two", "--", two / "bin/python", *words)
    assert (done.stdout, named(done.stderr)) == ("", ["two"])
    assert all(shared(one, two, f"{SITE_PACKAGES}/numpy"))
    done = lab.conda("dedup", "run", "--", "sh", "-c", "echo --json; exit 9", check=False)
    assert (done.returncode, done.stdout) == (9, "--json\n")
    assert lab.conda("dedup", "run", "--json", "--", "true", check=False).returncode == 2
    # the console script, for pixi
    path = {"PATH": f"{lab.python.parent}{os.pathsep}{os.environ['PATH']}"}
    done = lab.run("pixi-dedup", "--version", env=path)
    assert done.stdout.startswith("conda-dedup-plugin")


# -- pixi dedup -----------------------------------------------------------------------------------------


def pixi(
    world: World, *words: object, code: int = 0, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-c", PIXI, *map(str, words)],
        env=world.environ,
        cwd=cwd or world.home,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "Traceback" not in done.stderr
    assert done.returncode == code, done.stderr
    return done


@pytest.fixture
def project(world: World) -> Path:
    """A project with two environments, and another environment that has the same library."""
    made = world.root / "shop"
    forged(world, "other")
    for name in ("default", "test"):
        made.joinpath(".pixi/envs").mkdir(parents=True, exist_ok=True)
        shutil.copytree(world.root / "envs/other", made / ".pixi/envs" / name)
    (made / "src/deep").mkdir(parents=True)
    return made


def reported(done: subprocess.CompletedProcess[str]) -> list[str]:
    """The environments that a report is about, and would change."""
    document = json.loads(done.stdout)
    return [each["name"] for each in document["environments"] if each["freeable_bytes"]]


def test_the_project_around(world: World, project: Path) -> None:
    for cwd in (project, project / "src/deep"):
        document = json.loads(pixi(world, "report", "--json", cwd=cwd).stdout)
        # the other one is the keeper, or one of the project's is for it
        assert document["totals"]["files"] == 2 * 3
        assert len(reported(pixi(world, "report", "--json", cwd=cwd))) in (1, 2)
    world.extra["PIXI_PROJECT_ROOT"] = str(project)
    assert json.loads(pixi(world, "--json", "report").stdout)["totals"]["files"] == 2 * 3
    done = pixi(world, "apply", "--yes")
    assert done.stderr == ""
    one, two = (project / ".pixi/envs" / name for name in ("default", "test"))
    assert same(one, two)
    assert "pixi dedup apply" in pixi(world, "history", "--json", cwd=world.root).stdout
    pixi(world, "undo", "--yes")
    assert not same(one, two)


def test_detached_environments_and_magic(world: World, project: Path) -> None:
    away = world.root / "cache/envs/shop-123/envs"
    away.parent.mkdir(parents=True)
    (project / ".pixi/envs").rename(away)
    (project / ".pixi/envs").symlink_to(away)
    magic = project / ".magic/envs/max"
    shutil.copytree(away / "test", magic)
    files = json.loads(pixi(world, "report", "--json", cwd=project).stdout)["totals"]["files"]
    assert files == 3 * 3


def test_what_is_named_is_meant(world: World, project: Path) -> None:
    for words in (
        ("-p", project / ".pixi/envs/test"),
        ("--search", project / ".pixi/envs/test"),
        ("-n", "other"),
    ):
        document = json.loads(pixi(world, "report", *words, "--json", cwd=project).stdout)
        assert document["totals"]["files"] == 3


def test_without_a_project(world: World, project: Path) -> None:
    """What pixi has globally, in the home directory, is none, nor is a project without environments."""
    shutil.copytree(project / ".pixi/envs/test", world.home / ".pixi/envs/tool")
    (world.home / "work").mkdir()
    (world.home / "work/pixi.toml").touch()
    for words in (["report"], ["apply", "--dry-run"], ["undo", "--dry-run"], ["verify"]):
        done = pixi(world, *words, code=2, cwd=world.home / "work")
        assert done.stdout == ""
        assert done.stderr.startswith("pixi dedup: error: There is no pixi project")
    document = json.loads(pixi(world, "report", "--json", code=2).stdout)
    assert "no pixi project" in json.dumps(document)


def test_verbs_without_a_scope_just_run(world: World) -> None:
    pixi(world, "history")
    assert pixi(world, "--help").stdout.startswith("usage: pixi dedup")
    assert pixi(world, "report", "--help").stdout.startswith("usage: pixi dedup report")
    assert "\nNext          pixi dedup report " in pixi(world).stdout
    # what it runs may make the project
    assert pixi(world, "run", "--", "echo", "x").stdout == "x\n"


def test_a_first_install_in_a_project(world: World, project: Path) -> None:
    made = world.root / "blog"
    (made / ".pixi/envs").mkdir(parents=True)
    done = pixi(
        world, "run", "--", *python(COPY), project / ".pixi/envs/test", made / ".pixi/envs/default", cwd=made
    )
    assert named(done.stderr) == ["blog/default"]
