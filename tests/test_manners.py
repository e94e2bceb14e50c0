"""What we owe to others: conda's exit codes, other commands' environments, and what users asked for."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import pwd
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
import time
import types
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from conda_dedup_plugin import pending
from conda_dedup_plugin.automatic import Command, share_changed
from conda_dedup_plugin.demo.distributions import SITE_PACKAGES
from conda_dedup_plugin.engine import analyse
from conda_dedup_plugin.environments import Request, find
from conda_dedup_plugin.errors import StateError
from conda_dedup_plugin.journal import Journal
from conda_dedup_plugin.model import Method
from conda_dedup_plugin.plan import PlanOptions
from conda_dedup_plugin.settings import Settings
from tests.lab import needs
from tests.lab.forge import Forge, noise
from tests.lab.mounts import mounted_file_system
from tests.test_automatic import has_transactions, named, shared

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import MakeLab
    from tests.lab.world import CondaLab

NOBODY = 65534


@pytest.fixture
def far(conda_lab: MakeLab, shm_dir: Path) -> CondaLab:
    """conda with the plugin, environments on another device than its cache."""
    return conda_lab(with_plugin=True, envs_dir=shm_dir / "envs")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home directory in which nothing of the real one is seen."""
    for name in list(os.environ):
        if name.startswith(("CONDA", "MAMBA", "RATTLER", "PIXI", "MAGIC", "XDG_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("CONDARC", os.devnull)
    (tmp_path / "home/.conda").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


@pytest.fixture
def in_time() -> Iterator[None]:
    """Whatever waits for ever is interrupted, and may not fill the memory before."""

    def hangs(*_: object) -> None:
        raise AssertionError("it hangs")

    before, memory = signal.signal(signal.SIGALRM, hangs), resource.getrlimit(resource.RLIMIT_AS)
    signal.alarm(20)
    resource.setrlimit(resource.RLIMIT_AS, (8 << 30, memory[1]))
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)
    resource.setrlimit(resource.RLIMIT_AS, memory)


def in_child(action: Callable[[], None], uid: int | None = None) -> None:
    """Do it in a process of its own, as another user if wished; fails if that fails."""
    child = os.fork()
    if child == 0:
        try:
            if uid is not None:
                os.setgroups([])
                os.setgid(uid)
                os.setuid(uid)
            action()
            os._exit(0)
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0, "see its stderr"


# -- conda's exit code ------------------------------------------------------------------------------------


@pytest.mark.integration
@pytest.mark.parametrize("where", ["a full device", "a closed pipe", "nowhere"])
def test_stderr_that_cannot_be_written_to(far: CondaLab, where: str) -> None:
    far.conda("create", "--name", "one", "numpy")
    codes = [
        _create_without_stderr(far, "plain", where, {"CONDA_NO_PLUGINS": "1"}),
        _create_without_stderr(far, "two", where, {}),
    ]
    assert codes == [0, 0]
    assert all(shared(far.env_path("one"), far.env_path("two"), SITE_PACKAGES))


def _create_without_stderr(lab: CondaLab, name: str, where: str, env: dict[str, str]) -> int:
    command = [str(lab.python), "-m", "conda", "create", "--name", name, "numpy"]
    if where == "nowhere":
        command = ["sh", "-c", 'exec "$@" 2>&-', "sh", *command]
    if where == "a closed pipe":
        reading, stderr = os.pipe()
        os.close(reading)
    else:
        stderr = os.open("/dev/full", os.O_WRONLY)
    try:
        done = subprocess.run(
            command,
            env=lab.environ | env,
            cwd=lab.root,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            timeout=600,
        )
    finally:
        os.close(stderr)
    assert b"dedup: " not in done.stdout
    return done.returncode


# -- what others put in root's way --------------------------------------------------------------------


@pytest.fixture
def mallory(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home of another user, whose list of environments root reads within conda."""
    needs("root", os.geteuid() == 0)
    other = tmp_path / "mallory"
    (other / ".conda").mkdir(parents=True)
    entry = pwd.struct_passwd(("mallory", "x", 12345, 12345, "", str(other), "/bin/sh"))
    monkeypatch.setattr(pwd, "getpwall", lambda: [entry])
    monkeypatch.setitem(sys.modules, "conda", types.ModuleType("conda"))
    return other


def test_a_history_that_is_a_fifo(mallory: Path, in_time: None) -> None:
    environment = mallory / "env"
    (environment / "conda-meta").mkdir(parents=True)
    os.mkfifo(environment / "conda-meta/history")
    (mallory / ".conda/environments.txt").write_text(f"{environment}\n")
    assert [tree.root for tree in find(Request()).trees] == [str(environment)]


@pytest.mark.parametrize("whose", ["mallory", "home"])
@pytest.mark.parametrize("what", ["fifo", "endless"])
def test_a_list_of_environments_that_is_none(
    mallory: Path, home: Path, in_time: None, whose: str, what: str
) -> None:
    path = (mallory if whose == "mallory" else home) / ".conda/environments.txt"
    if what == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    assert find(Request()).trees == ()


def test_a_record_that_names_a_path_too_deep(tmp_path: Path, in_time: None) -> None:
    """1,500 levels, made step by step: no path so long can be opened, and no recursion may go so deep."""
    forge = Forge(tmp_path)
    data = noise("deep", 9000)
    for name in ("one", "two"):
        prefix = forge.environment(name, {("p", "1", "0"): {"lib/x.so": data}})
        _make_deep(prefix, data, 1500)
        record = prefix / "conda-meta/p-1-0.json"
        said = json.loads(record.read_text())
        path = "d/" * 1500 + "y.so"
        said["files"].append(path)
        said["paths_data"]["paths"].append({**said["paths_data"]["paths"][0], "_path": path})
        record.write_text(json.dumps(said))
    try:
        shares = analyse(forge.scope(), PlanOptions()).plan.shares
        assert [share.duplicate.names[0].path for share in shares] == ["lib/x.so"]
    finally:
        subprocess.run(["rm", "-rf", str(tmp_path / "envs")], check=True)


def _make_deep(prefix: Path, data: bytes, depth: int) -> None:
    descriptor = os.open(prefix, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=descriptor)
        below = os.open("d", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    file = os.open("y.so", os.O_WRONLY | os.O_CREAT, 0o644, dir_fd=descriptor)
    os.write(file, data)
    os.close(file)
    os.close(descriptor)


# -- what is nobody's business but the user's -----------------------------------------------------------


def modern(lab: CondaLab) -> None:
    if not has_transactions(lab):
        pytest.skip("this conda has no transaction hooks; CONDA_DEDUP_TEST_CONDA can name one that has")


def broken_file(lab: CondaLab, name: str) -> Path:
    """A file for ``conda env create`` whose packages are linked before pip fails."""
    path = lab.root / f"{name}.yml"
    dependencies = ["pip", "numpy", {"pip": ["no-such-thing"]}]
    path.write_text(json.dumps({"name": name, "dependencies": dependencies}))
    return path


@pytest.mark.integration
def test_what_was_made_while_switched_off_is_never_picked_up(far: CondaLab) -> None:
    far.conda("create", "--name", "one", "numpy")
    off = {"CONDA_PLUGINS_DEDUP_AUTO": "false"}
    assert named(far.conda("create", "--name", "apart", "numpy", env=off)) == []
    assert "apart" not in named(far.conda("create", "--name", "two", "settings"))
    assert "apart" not in named(far.conda("install", "--name", "two", "numpy"))
    assert not any(shared(far.env_path("one"), far.env_path("apart"), SITE_PACKAGES))


@pytest.mark.integration
def test_copies_whose_command_failed_stay_copies(far: CondaLab) -> None:
    """What is left behind is taken up by reflinks only, which there are none of on tmpfs."""
    modern(far)
    far.conda("create", "--name", "one", "numpy", "pip")
    copies = {"CONDA_ALWAYS_COPY": "1"}
    failed = far.conda("env", "create", "--file", broken_file(far, "copies"), check=False, env=copies)
    assert failed.returncode
    assert "copies" not in named(far.conda("create", "--name", "two", "settings"))
    # nor when the next command is about the very same environment
    far.conda("install", "--name", "copies", "settings")
    assert not any(shared(far.env_path("one"), far.env_path("copies"), SITE_PACKAGES))


@pytest.mark.integration
def test_what_failed_is_taken_up_by_a_command_on_the_same_environment(far: CondaLab) -> None:
    modern(far)
    far.conda("create", "--name", "one", "numpy", "pip")
    failed = far.conda("env", "create", "--file", broken_file(far, "two"), check=False)
    assert failed.returncode
    assert not any(shared(far.env_path("one"), far.env_path("two"), SITE_PACKAGES))
    assert named(far.conda("install", "--name", "two", "settings")) == ["two"]
    assert all(shared(far.env_path("one"), far.env_path("two"), SITE_PACKAGES))


@pytest.mark.integration
def test_what_another_conda_makes_meanwhile_is_left_alone(far: CondaLab) -> None:
    """A command is slow to come to our part; meanwhile somebody makes an environment of copies."""
    far.conda("create", "--name", "one", "numpy")
    waits, goes_on = far.root / "waits", far.root / "goes-on"
    slow = far.root / "slow"
    slow.mkdir()
    (slow / "sitecustomize.py").write_text(
        textwrap.dedent(
            f"""
            import os, time
            try:
                import conda_dedup_plugin.hooks as hooks
            except ImportError:
                pass
            else:
                after = hooks.after
                def slow(command):
                    open({str(waits)!r}, "w").close()
                    while not os.path.exists({str(goes_on)!r}):
                        time.sleep(0.05)
                    after(command)
                hooks.after = slow
            """
        )
    )
    first = subprocess.Popen(
        [str(far.python), "-m", "conda", "create", "--name", "x", "numpy"],
        env=far.environ | {"PYTHONPATH": str(slow)},
        cwd=far.root,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        until = time.monotonic() + 120
        while not waits.exists():
            assert first.poll() is None
            assert time.monotonic() < until
            time.sleep(0.05)
        assert named(far.conda("create", "--name", "copies", "--copy", "numpy")) == []
    finally:
        goes_on.touch()
        stdout, stderr = first.communicate(timeout=120)
    assert first.returncode == 0
    assert named(subprocess.CompletedProcess((), 0, stdout, stderr)) == ["x"]
    assert all(shared(far.env_path("one"), far.env_path("x"), SITE_PACKAGES))
    assert not any(shared(far.env_path("one"), far.env_path("copies"), SITE_PACKAGES))
    assert not any(shared(far.env_path("x"), far.env_path("copies"), SITE_PACKAGES))


# -- pending work ---------------------------------------------------------------------------------------


def register(home: Path, forge: Forge) -> None:
    (home / ".conda/environments.txt").write_text("".join(f"{tree.root}\n" for tree in forge.trees))


def add_wheel(prefix: Path, name: str, files: dict[str, bytes]) -> None:
    """What pip would leave of a wheel; every file is a copy of its own."""
    site = prefix / "lib/python3.11/site-packages"
    lines = []
    for path, data in files.items():
        (site / path).parent.mkdir(parents=True, exist_ok=True)
        (site / path).write_bytes(data)
        os.utime(site / path, (1_600_000_000, 1_600_000_000))
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        lines.append(f"{path},sha256={digest},{len(data)}\n")
    (site / f"{name}-1.0.dist-info").mkdir()
    (site / f"{name}-1.0.dist-info/RECORD").write_text("".join(lines))


def test_work_of_a_dead_process_is_done_with_ones_own(home: Path, tmp_path: Path) -> None:
    """It was noted, the process died, and the next command is about the same environment."""
    forge = Forge(tmp_path)
    early, late = {"lib/early.so": noise("early", 9000)}, {"lib/late.so": noise("late", 9000)}
    packages = {("early", "1", "0"): early, ("late", "1", "0"): late}
    one, two = (forge.environment(name, packages) for name in ("one", "two"))
    register(home, forge)
    in_child(lambda: pending.note(str(two), ["early-1-0"]))
    pending.note(str(two), ["late-1-0"])
    noted = pending.read(str(two)).pending
    assert noted is not None
    assert noted.linked == ["early-1-0", "late-1-0"]
    done = Command("install", time.time() + 1, {str(two): {("late", "1", "0")}})
    assert [result.names for result in share_changed(Settings(), done)] == [2]
    for path in ("lib/early.so", "lib/late.so"):
        assert os.path.samefile(one / path, two / path)
    assert pending.read(str(two)).pending is None


def test_copies_of_a_dead_process_stay_copies(home: Path, tmp_path: Path) -> None:
    forge = Forge(tmp_path)
    one, two = (
        forge.environment(name, {("p", "1", "0"): {"lib/p.so": noise("p", 9000)}}) for name in ("one", "two")
    )
    needs("a file system without reflinks", not _reflinks(forge))
    register(home, forge)
    in_child(lambda: pending.note(str(two), ["p-1-0"], copies=True))
    pending.note(str(two), ["q-1-0"])
    list(share_changed(Settings(), Command("install", time.time() + 1, {str(two): {("q", "1", "0")}})))
    assert not os.path.samefile(one / "lib/p.so", two / "lib/p.so")


def _reflinks(forge: Forge) -> bool:
    return any(device.reflink for device in analyse(forge.scope(), PlanOptions()).devices.values())


@pytest.mark.parametrize("told", [True, False], ids=["transactions", "time stamps"])
def test_work_on_a_locked_environment_stays_pending(home: Path, tmp_path: Path, told: bool) -> None:
    """With what pip brought, which no transaction tells of; the next command sees to it all."""
    forge = Forge(tmp_path)
    began = time.time()
    packages = {("p", "1", "0"): {"lib/p.so": noise("p", 9000)}}
    one, two = (forge.environment(name, packages) for name in ("one", "two"))
    for prefix in (one, two):
        add_wheel(prefix, "wheel", {"wheel/ext.so": noise("ext", 9000)})
    register(home, forge)
    time.sleep(0.2)
    transactions = {str(two): {("p", "1", "0")}} if told else {}
    run = Command("install", began, transactions, target=str(two))
    with Locked(two):

        def locked_out() -> None:
            if told:
                pending.note(str(two), ["p-1-0"])
            assert list(share_changed(Settings(), run)) == []

        in_child(locked_out)
        assert not os.path.samefile(one / "lib/p.so", two / "lib/p.so")
        assert pending.read(str(two)).pending is not None
    time.sleep(0.2)
    elsewhere = Command("create", time.time(), {}, target=str(tmp_path / "elsewhere"))
    assert [result.name for result in share_changed(Settings(), elsewhere)] == ["two"]
    assert os.path.samefile(one / "lib/p.so", two / "lib/p.so")
    site = "lib/python3.11/site-packages/wheel/ext.so"
    if not told:  # a transaction is noted before pip begins; here there was none
        assert os.path.samefile(one / site, two / site)


class Locked:
    """Another process holds the lock of an environment within the block."""

    def __init__(self, prefix: Path) -> None:
        code = (
            "import sys\n"
            "from conda_dedup_plugin import state\n"
            "with state.lock(sys.argv[1]) as ours:\n"
            "    print(ours, flush=True)\n"
            "    sys.stdin.read()\n"
        )
        self._process = subprocess.Popen(
            [sys.executable, "-c", code, str(prefix)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[1],
        )

    def __enter__(self) -> None:
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "True\n"

    def __exit__(self, *exception: object) -> None:
        self._process.communicate()


# -- loader identity --------------------------------------------------------------------------------------


def test_two_modules_of_one_environment_stay_two(home: Path, tmp_path: Path) -> None:
    """One of them is a link to another environment's already, as an earlier run left it."""
    forge = Forge(tmp_path)
    data = noise("ext", 50_000)
    one, two = (forge.environment(name, {}) for name in ("one", "two"))
    a, b = (f"lib/python3.11/site-packages/w/{part}/_ext.abi3.so" for part in "ab")
    for prefix in (one, two):
        add_wheel(prefix, "w", {"w/a/_ext.abi3.so": data, "w/b/_ext.abi3.so": data})
    (two / a).unlink()
    os.link(one / a, two / a)
    register(home, forge)
    run = Command("install", time.time() - 60, {}, target=str(two))
    (two / "conda-meta/history").touch()
    list(share_changed(Settings(), run))
    for prefix in (one, two):
        assert not os.path.samefile(prefix / a, prefix / b)
    assert os.path.samefile(one / b, two / b), "its like in the other environment is no such module"


# -- conflicts are told of ------------------------------------------------------------------------------


def test_the_automatic_run_tells_what_recovery_kept(home: Path, tmp_path: Path) -> None:
    """An interrupted run left two contents of a file; who comes first must say so, be it conda."""
    forge = Forge(tmp_path)
    data = noise("p", 9000)
    for name in ("one", "two", "three", "four"):
        forge.environment(name, {("p", "1", "0"): {"lib/p.so": data}})
    register(home, forge)
    in_child(lambda: _die_after_the_exchange(forge))
    (left,) = (tmp_path / "envs").glob("*/.conda-dedup-*/*")
    prefix = left.parents[1]
    for path in (left, prefix / "lib/p.so"):
        with open(path, "r+b") as stream:
            stream.write(b"edited")
    other = next(tree.root for tree in forge.trees if os.stat(f"{tree.root}/lib/p.so").st_nlink == 1)
    run = Command("install", time.time() - 60, {other: {("p", "1", "0")}})
    results = list(share_changed(Settings(), run))
    connection = sqlite3.connect(home / ".local/state/conda-dedup/journal.sqlite")
    states = [state for (state,) in connection.execute("SELECT state FROM change")]
    connection.close()
    assert left.exists()
    assert "conflict" in states
    assert str(left) in repr(results), "nobody is told"


def _die_after_the_exchange(forge: Forge) -> None:
    from conda_dedup_plugin.apply import apply_plan
    from conda_dedup_plugin.sharing import batches, hardlink

    inner = os.fork()
    if inner == 0:
        exchange_name = hardlink.Hardlinker._exchange_name

        def die_after(self, job, swap):
            exchange_name(self, job, swap)
            os.kill(os.getpid(), signal.SIGKILL)

        batches.MOST_NAMES = 1
        hardlink.Hardlinker._exchange_name = die_after
        try:
            apply_plan(analyse(forge.scope(), PlanOptions()), "test")
        finally:
            os._exit(1)
    assert os.WIFSIGNALED(os.waitpid(inner, 0)[1])


# -- ordinary users ---------------------------------------------------------------------------------------


def test_a_journal_that_cannot_be_written_fails_at_once() -> None:
    """As sudo leaves it: the directory is ours, the file is root's."""
    needs("root, to become somebody else", os.geteuid() == 0)
    folder = Path(tempfile.mkdtemp())
    try:
        path = folder / "journal.sqlite"
        connection = sqlite3.connect(path)
        connection.execute("CREATE TABLE other (a)")
        connection.commit()
        connection.close()
        folder.chmod(0o777)
        path.chmod(0o644)

        def open_it() -> None:
            began = time.monotonic()
            with pytest.raises(StateError):
                Journal.open(path)
            assert time.monotonic() - began < 10

        in_child(open_it, NOBODY)
    finally:
        shutil.rmtree(folder)


@pytest.mark.filesystems
def test_ones_own_files_are_reflinked_where_roots_come_first() -> None:
    """A cache that belongs to root, which tells an ordinary user nothing of its device."""
    folder = Path(tempfile.mkdtemp())
    try:
        folder.chmod(0o755)
        with mounted_file_system("xfs", folder, 400 << 20) as point:
            forge = Forge(point)
            packages = {("p", "1", "0"): {"lib/p.so": noise("p", 200_000)}}
            forge.cache(packages)
            (point / "envs").mkdir()
            (point / "envs").chmod(0o777)

            def plan() -> None:
                for name in ("one", "two"):
                    forge.environment(name, packages)
                for least in (2, 1):  # with root's cache, and without
                    planned = analyse(forge.scope(), PlanOptions(euid=os.geteuid())).plan
                    assert [share.method for share in planned.shares] == [Method.REFLINK] * least
                    forge.trees = [tree for tree in forge.trees if not tree.is_cache]

            in_child(plan, NOBODY)
    finally:
        shutil.rmtree(folder)
