"""Files that programs are using while they are shared, and their metadata: nobody notices anything."""

from __future__ import annotations

import importlib.util
import marshal
import os
import shutil
import sqlite3
import struct
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import pytest

from conda_dedup_plugin.apply import apply_plan
from conda_dedup_plugin.engine import Analysis, analyse
from conda_dedup_plugin.model import Method, MethodChoice, Reason
from conda_dedup_plugin.plan import PlanOptions
from tests.lab import needs
from tests.lab.forge import Forge, noise
from tests.lab.invariants import assert_unchanged, directories, snapshot
from tests.lab.mounts import REFLINK_KINDS
from tests.lab.shares import leftovers

DIST = ("a", "1", "0")
STAMP = 1_600_000_000
SITE = f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
LIBRARY = "lib/libwork.so"

#: A library with a state of its own, and bytes that nobody reads before they are asked for.
SOURCE = """
#include <unistd.h>
extern const unsigned char table[], table_end[];
__asm__(".section .rodata\\n.globl table\\ntable:\\n.incbin \\"%s\\"\\n"
        ".globl table_end\\ntable_end:\\n.byte 0\\n.text\\n");
static int calls;
int count(void) { return ++calls; }
unsigned long work(int fd) {
    char go;
    while (read(fd, &go, 1) != 1) {}
    unsigned long sum = 0;
    for (const unsigned char *at = table; at < table_end; at++) sum = sum * 31 + *at;
    return sum;
}
"""


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A shared library of some 3 MB."""
    needs("needs gcc", shutil.which("gcc"))
    folder = tmp_path_factory.mktemp("library")
    (folder / "table").write_bytes(noise("table", 3 << 20))
    (folder / "work.c").write_text(SOURCE % (folder / "table"))
    words = ["gcc", "-shared", "-fPIC", "-O1", "-o", "work.so", "work.c"]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return (folder / "work.so").read_bytes()


def plan(forge: Forge, method: MethodChoice = MethodChoice.HARDLINK) -> Analysis:
    return analyse(forge.scope(), PlanOptions(method=method, euid=os.geteuid()))


def roots(forge: Forge) -> list[Path]:
    return [Path(tree.root) for tree in forge.trees]


def user(code: str, *words: object, **environ: str) -> subprocess.Popen[str]:
    """A process that uses an environment, to talk to by lines."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, words)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=clean_environ(**environ),
    )


def clean_environ(**more: str) -> dict[str, str]:
    outer = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return {**outer, **more}


def ended(process: subprocess.Popen[str], last: str = "") -> list[str]:
    """Say the last word and wait for the end, which has to be a good one; returns the rest of its lines."""
    out, err = process.communicate(last, timeout=60)
    assert (process.returncode, err) == (0, "")
    return out.splitlines()


# -- libraries --------------------------------------------------------------------------------------------

IN_A_CALL = """
    import ctypes, os, sys
    library = ctypes.CDLL(sys.argv[1])
    library.work.restype = ctypes.c_ulong
    print(library.count(), flush=True)
    print(library.work(0))
    print(library.count())
    again = ctypes.CDLL(sys.argv[1])
    again.work.restype = ctypes.c_ulong
    reader, writer = os.pipe()
    os.write(writer, b"x")
    print(again.work(reader))
    print(again.count())
"""


def worked(library: Path) -> list[str]:
    """What a process prints that uses the library undisturbed."""
    return ended(user(IN_A_CALL, library), "x")


@pytest.mark.parametrize("kind", ["here", pytest.param("xfs", marks=pytest.mark.filesystems)])
def test_a_library_in_the_middle_of_a_call(tmp_path: Path, mounted, library: bytes, kind: str) -> None:
    """Target and keeper are mapped and being called; most of their pages are touched only afterwards."""
    folder = tmp_path if kind == "here" else mounted(kind)
    forge = Forge(Path(tempfile.mkdtemp(dir=folder)))
    for name in ("one", "two"):
        forge.environment(name, {DIST: {LIBRARY: library}})
    paths = [root / LIBRARY for root in roots(forge)]
    expected = worked(paths[0])
    before = snapshot(forge.root)
    running = [user(IN_A_CALL, path) for path in paths]
    first = [process.stdout.readline() for process in running if process.stdout]
    applied = apply_plan(plan(forge, MethodChoice.AUTO), "test")
    assert (applied.inodes, applied.skipped, applied.failed) == (1, {}, [])
    rest = [ended(process, "x") for process in running]
    assert [[line.strip(), *lines] for line, lines in zip(first, rest, strict=True)] == [expected] * 2
    assert [worked(path) for path in paths] == [expected] * 2
    assert_unchanged(before, snapshot(forge.root))
    assert leftovers(forge.root) == []
    shutil.rmtree(forge.root)


LOADED_AGAIN = """
    import _ctypes, ctypes, sys
    while sys.stdin.readline():
        handle = _ctypes.dlopen(sys.argv[1], 2)
        count = ctypes.CFUNCTYPE(ctypes.c_int)(_ctypes.dlsym(handle, "count"))
        print(count(), count(), flush=True)
        _ctypes.dlclose(handle)
"""


def test_a_library_that_is_loaded_again_and_again(tmp_path: Path, library: bytes) -> None:
    """Before the exchange, when it has been made but not yet settled, and after it."""
    from conda_dedup_plugin.sharing.hardlink import Hardlinker

    forge = Forge(tmp_path / "world")
    for name in ("one", "two"):
        forge.environment(name, {DIST: {LIBRARY: library}})
    running = [user(LOADED_AGAIN, root / LIBRARY) for root in roots(forge)]

    def load() -> list[str]:
        lines = []
        for process in running:
            assert process.stdin and process.stdout
            process.stdin.write("\n")
            process.stdin.flush()
            lines.append(process.stdout.readline())
        return lines

    answers = [load()]
    settle = Hardlinker._settle

    def in_between(self, job):
        answers.append(load())
        settle(self, job)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Hardlinker, "_settle", in_between)
        assert apply_plan(plan(forge), "test").inodes == 1
    answers.append(load())
    for process in running:
        assert ended(process) == []
    assert answers == [["1 2\n"] * 2] * 3


TWO_COPIES = """
    import ctypes, sys
    one, two = map(ctypes.CDLL, sys.argv[1:])
    print(one.count(), one.count(), two.count())
"""
#: Two places of the same library in one environment, and whether they may become one file.
COPIES = [
    ((f"{SITE}/a/_ext.abi3.so", f"{SITE}/b/_ext.abi3.so"), False),
    ((f"{SITE}/a/_ext.cpython-311-x86_64-linux-gnu.so", f"{SITE}/b/_ext.cpython-311.so"), False),
    (("lib/plugins/plugin.so", "lib/plugins/other.so"), False),
    (("lib/libwork.so", f"{SITE}/a.libs/libwork.so.1"), True),
]


@pytest.mark.parametrize(("places", "one_file"), COPIES, ids=[places[0] for places, _ in COPIES])
@pytest.mark.parametrize("environments", [1, 2])
def test_two_copies_in_one_environment(
    tmp_path: Path, library: bytes, places: tuple[str, str], one_file: bool, environments: int
) -> None:
    """What is loaded by its path keeps a state of its own, also when other environments have the same."""
    forge = Forge(tmp_path / "world")
    for name in ("one", "two")[:environments]:
        forge.environment(name, {DIST: dict.fromkeys(places, library)})
    analysis = plan(forge)
    if not one_file:
        assert Reason.LOADER in analysis.plan.held_by_reason()
    applied = apply_plan(analysis, "test")
    assert (applied.skipped, applied.failed) == ({}, [])
    assert applied.inodes == 2 * environments - (1 if one_file else 2)
    for root in roots(forge):
        one, two = (root / place for place in places)
        assert os.path.samefile(one, two) is one_file
        said = ended(user(TWO_COPIES, one, two))
        assert said == (["1 2 3"] if one_file else ["1 2 1"])
    assert plan(forge).plan.shares == []


@pytest.mark.filesystems
@pytest.mark.parametrize(("places", "one_file"), COPIES, ids=[places[0] for places, _ in COPIES])
def test_two_copies_that_share_their_extents(
    mounted, library: bytes, places: tuple[str, str], one_file: bool
) -> None:
    """By reflink, no loader sees a difference, whatever the file is."""
    forge = Forge(Path(tempfile.mkdtemp(dir=mounted("xfs"))))
    forge.environment("one", {DIST: dict.fromkeys(places, library)})
    paths = [roots(forge)[0] / place for place in places]
    assert set(apply_plan(plan(forge, MethodChoice.AUTO), "test").by_method) == {Method.REFLINK}
    assert ended(user(TWO_COPIES, *paths)) == ["1 2 1"]
    shutil.rmtree(forge.root)


# -- Python -----------------------------------------------------------------------------------------------

MODULES = 40


def package(stamp: int = STAMP, modules: int = MODULES) -> dict[str, bytes]:
    """A package with its bytecode, which says that the sources are of ``stamp``."""
    files = {}
    sources = {"__init__": f"def main():\n    return 'main'\n\n\nTEXT = '{'x' * 6000}'\n"}
    for number in range(modules):
        lines = (f"    '{number} {index} {'x' * 60}'," for index in range(80))
        sources[f"module_{number}"] = (
            "TEXT = [\n" + "\n".join(lines) + f"\n]\n\n\ndef number():\n    return {number}\n"
        )
    for name, source in sources.items():
        data = source.encode()
        code = compile(data, f"pkg/{name}.py", "exec", dont_inherit=True, optimize=0)
        head = importlib.util.MAGIC_NUMBER + struct.pack("<III", 0, stamp, len(data))
        files[f"{SITE}/pkg/{name}.py"] = data
        files[f"{SITE}/pkg/__pycache__/{name}.{sys.implementation.cache_tag}.pyc"] = head + marshal.dumps(
            code
        )
    return files


IMPORT_ALL = f"""
    import importlib
    import pkg
    assert pkg.main() == "main"
    for number in range({MODULES}):
        assert importlib.import_module(f"pkg.module_{{number}}").number() == number
"""


def imported(root: Path, *words: str) -> str:
    """Import everything in a fresh Python that may write bytecode; returns what it says of it."""
    done = subprocess.run(
        [sys.executable, *words, "-c", textwrap.dedent(IMPORT_ALL)],
        env=clean_environ(PYTHONPATH=str(root / SITE)),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def assert_bytecode_fits(root: Path) -> None:
    """Every module comes from the bytecode there is, and none is compiled anew."""
    before, folders = snapshot(root), directories(root)
    said = [line for line in imported(root, "-v").splitlines() if str(root) in line]
    assert sum(" matches " in line for line in said) == MODULES + 1
    assert not [line for line in said if "wrote" in line or "bytecode is stale" in line or "bad" in line]
    assert snapshot(root) == before
    assert directories(root) == folders


@pytest.mark.parametrize("method", list(MethodChoice))
@pytest.mark.parametrize("other_stamp", [STAMP, STAMP + 100])
def test_bytecode_still_fits(device_dir: Path, method: MethodChoice, other_stamp: int) -> None:
    """Also between environments whose sources are of another time each."""
    forge = Forge(device_dir)
    for name, stamp in (("one", STAMP), ("two", other_stamp)):
        env = forge.environment(name, {DIST: {**package(stamp), "lib/x.so": noise("x", 8192)}})
        for path in env.rglob("*.py"):
            os.utime(path, (stamp, stamp))
    for root in roots(forge):
        assert_bytecode_fits(root)
    before = snapshot(forge.root)
    applied = apply_plan(plan(forge, method), "test")
    assert (applied.skipped, applied.failed) == ({}, [])
    for root in roots(forge):
        assert_bytecode_fits(root)
    assert_unchanged(before, snapshot(forge.root))
    if method is MethodChoice.HARDLINK:
        assert applied.inodes == (1 + 2 * (MODULES + 1) if other_stamp == STAMP else 1)


def unshare(root: Path) -> None:
    """Give every file of an environment an inode of its own, as one would who replaces it in one step."""
    for folder, _, names in os.walk(root):
        for name in names:
            path = os.path.join(folder, name)
            if os.lstat(path).st_nlink > 1:
                shutil.copy2(path, path + ".new")
                os.replace(path + ".new", path)


LAZY = f"""
    import importlib, select, sys
    import pkg
    rounds = 0
    print("begun", flush=True)
    while not (rounds and select.select([sys.stdin], [], [], 0)[0]):
        assert pkg.main() == "main"
        for number in range({MODULES}):
            assert importlib.import_module(f"pkg.module_{{number}}").number() == number
        for name in [name for name in sys.modules if name.startswith("pkg.")]:
            del sys.modules[name]
        importlib.invalidate_caches()
        rounds += 1
    print(rounds)
"""


@pytest.mark.parametrize(
    "rounds", [pytest.param(12, id="few"), pytest.param(1000, id="many", marks=pytest.mark.soak)]
)
def test_imports_all_the_time(tmp_path: Path, rounds: int) -> None:
    """One process imports lazily, others are started anew, while all is shared, over and over again."""
    forge = Forge(tmp_path / "world")
    for name in ("one", "two"):
        forge.environment(name, {DIST: package()})
    before = snapshot(forge.root)
    lazy = [user(LAZY, PYTHONPATH=str(root / SITE)) for root in roots(forge)]
    fresh: list[subprocess.Popen[str]] = []
    try:
        for process in lazy:
            assert process.stdout is not None
            assert process.stdout.readline() == "begun\n"
        for number in range(rounds):
            root = roots(forge)[number % 2]
            fresh.append(user(IMPORT_ALL, PYTHONPATH=str(root / SITE)))
            while True:
                applied = apply_plan(plan(forge), "test")
                assert (applied.skipped, applied.failed) == ({}, [])
                assert applied.inodes == 2 * (MODULES + 1)
                for one in roots(forge):
                    unshare(one)
                if fresh[-1].poll() is not None:
                    break
            assert ended(fresh[-1]) == []
        for process in lazy:
            (count,) = ended(process, "stop\n")
            assert int(count) > rounds
    finally:
        for process in (*lazy, *fresh):
            process.kill()
            process.wait()
    assert_unchanged(before, snapshot(forge.root))
    assert leftovers(forge.root) == []


# -- metadata ---------------------------------------------------------------------------------------------


def attributed(path: Path, name: str, value: bytes) -> bool:
    try:
        os.setxattr(path, name, value)
    except OSError:
        return False
    return True


def called(*words: object) -> bool:
    return subprocess.run([str(word) for word in words], capture_output=True).returncode == 0


class Odd:
    """Ways in which two files with the same bytes differ, or agree in something unusual."""

    @staticmethod
    def nothing(one: Path, two: Path) -> bool:
        return True

    @staticmethod
    def same_mode(one: Path, two: Path) -> bool:
        one.chmod(0o750)
        two.chmod(0o750)
        return True

    @staticmethod
    def other_mode(one: Path, two: Path) -> bool:
        two.chmod(0o600)
        return True

    @staticmethod
    def same_owner(one: Path, two: Path) -> bool:
        for path in (one, two):
            os.chown(path, 1234, 4321)
        return True

    @staticmethod
    def other_owner(one: Path, two: Path) -> bool:
        os.chown(two, 1234, -1)
        return True

    @staticmethod
    def other_group(one: Path, two: Path) -> bool:
        os.chown(two, -1, 1234)
        return True

    @staticmethod
    def same_attribute(one: Path, two: Path) -> bool:
        return attributed(one, "user.note", b"mine") and attributed(two, "user.note", b"mine")

    @staticmethod
    def other_attribute(one: Path, two: Path) -> bool:
        return attributed(one, "user.note", b"mine") and attributed(two, "user.note", b"yours")

    @staticmethod
    def one_attribute(one: Path, two: Path) -> bool:
        return attributed(two, "user.note", b"")

    @staticmethod
    def same_acl(one: Path, two: Path) -> bool:
        return called("setfacl", "-m", "u:1234:r", one, two)

    @staticmethod
    def other_acl(one: Path, two: Path) -> bool:
        return called("setfacl", "-m", "u:1234:r", one) and called("setfacl", "-m", "u:1235:r", two)

    @staticmethod
    def one_acl(one: Path, two: Path) -> bool:
        return called("setfacl", "-m", "u:1234:-", two)

    @staticmethod
    def capabilities(one: Path, two: Path) -> bool:
        return called("setcap", "cap_net_raw+ep", one) and called("setcap", "cap_net_raw+ep", two)

    @staticmethod
    def one_capability(one: Path, two: Path) -> bool:
        return called("setcap", "cap_net_raw+ep", two)

    @staticmethod
    def setuid(one: Path, two: Path) -> bool:
        one.chmod(0o4755)
        two.chmod(0o4755)
        return True

    @staticmethod
    def other_mtime(one: Path, two: Path) -> bool:
        os.utime(two, ns=(1, 1_234_567_890_123_456_789))
        return True


#: Why a hard link is refused; what is not here is shared.
REFUSED = {
    "other_mode": Reason.OTHER_MODE,
    "other_owner": Reason.OTHER_OWNER,
    "other_group": Reason.OTHER_OWNER,
    "other_attribute": Reason.OTHER_XATTRS,
    "one_attribute": Reason.OTHER_XATTRS,
    "other_acl": Reason.OTHER_XATTRS,
    "one_acl": Reason.OTHER_XATTRS,
    "capabilities": Reason.SETID,
    "one_capability": Reason.SETID,
    "setuid": Reason.SETID,
}
VARIANTS = [name for name in vars(Odd) if not name.startswith("_")]
SUFFIXES = (".so", ".pyc", ".txt")


@pytest.mark.parametrize("method", [MethodChoice.HARDLINK, MethodChoice.REFLINK])
def test_metadata(device_dir: Path, device_kind: str, method: MethodChoice) -> None:
    """Of every path, mode, owner, attributes, ACL and capabilities are what they were.

    So is the modification time, but for native files and bytecode that were hard-linked; the journal
    has the old one of these.
    """
    needs("root, to give files away", os.geteuid() == 0)
    needs("needs setfacl and setcap", shutil.which("setfacl") and shutil.which("setcap"))
    names = [f"lib/{variant}{suffix}" for variant in VARIANTS for suffix in SUFFIXES]
    forge = Forge(device_dir)
    for name in ("one", "two"):
        forge.environment(name, {DIST: {path: noise(path, 8192) for path in names}})
    one, two = roots(forge)
    tried = [path for path in names if getattr(Odd, Path(path).stem)(one / path, two / path)]
    if device_kind != "tmpfs":  # which has no attributes of users on older kernels
        assert tried == names
    before, folders = snapshot(forge.root), directories(forge.root)
    analysis = plan(forge, method)
    applied = apply_plan(analysis, "test")
    assert (applied.skipped, applied.failed) == ({}, [])
    after = snapshot(forge.root)
    linked = {path for path in names if os.path.samefile(one / path, two / path)}
    new_stamp = {path for path in linked if Path(path).stem == "other_mtime"}
    assert_unchanged(before, after, lambda path: any(path.endswith(known) for known in new_stamp))
    assert directories(forge.root) == folders
    if method is MethodChoice.REFLINK:
        # one with capabilities of its own may be the keeper: of it, nothing but the extents changes
        expected = {path for path in names if Path(path).stem not in ("capabilities", "setuid")}
        shared = {share.duplicate.names[0].path for share in analysis.plan.shares}
        assert shared == (expected if device_kind in REFLINK_KINDS else set())
        assert applied.inodes == len(shared)
        assert {path: state.inode for path, state in after.items()} == {
            path: state.inode for path, state in before.items()
        }
        return
    refused = {path for path in tried if Path(path).stem in REFUSED} | {"lib/other_mtime.txt"}
    assert linked == set(names) - refused
    assert new_stamp == {"lib/other_mtime.so", "lib/other_mtime.pyc"}
    held = {
        held.inodes[0].names[0].path: held.reason for group in analysis.plan.groups for held in group.held
    }
    assert held.pop("lib/other_mtime.txt") is Reason.OTHER_MTIME
    assert held == {path: REFUSED[Path(path).stem] for path in refused if path in held}
    assert len(held) == len(refused) - 1
    _check_journal(before, new_stamp)


def _check_journal(before, new_stamp: set[str]) -> None:
    journal = Path(os.environ["XDG_STATE_HOME"]) / "conda-dedup/journal.sqlite"
    connection = sqlite3.connect(journal)
    rows = connection.execute("SELECT root, path, mtime_ns, keeper_mtime_ns, mode, uid, gid FROM change")
    changes = {f"{os.fsdecode(row[0])}/{os.fsdecode(row[1])}": row[2:] for row in rows}
    connection.close()
    for path, (mtime, keeper_mtime, mode, uid, gid) in changes.items():
        old = before[path]
        assert (mtime, mode & 0o7777, uid, gid) == (old.mtime_ns, old.mode, old.uid, old.gid)
        assert keeper_mtime == os.lstat(path).st_mtime_ns
    differing = {path for path, (mtime, keeper_mtime, *_) in changes.items() if mtime != keeper_mtime}
    assert {path.rpartition("lib/")[2] for path in differing} == {Path(path).name for path in new_stamp}
