"""``report``: the JSON document to the letter, its numbers against the disk, and the text of the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from conda_dedup_plugin.cli import main
from tests.lab.forge import Forge, noise
from tests.lab.invariants import content_duplicates, du

REPOSITORY = Path(__file__).parents[1]
DIST = ("a", "1", "0")
LIBRARY = noise("library", 100_000)
#: What a file or an environment may be called to move the cursor of a terminal, or start a line.
EVIL = "evil\x1b[2J\x07\n\r\u202e\x9bmore"

T = {
    "files",
    "inodes",
    "apparent_bytes",
    "disk_bytes",
    "duplicate_bytes",
    "freeable_bytes",
    "held_bytes",
    "unrecorded_bytes",
    "estimated_bytes",
    "uncertain_bytes",
    "freeable_inodes",
}
E = {
    "name",
    "prefix",
    "manager",
    "files",
    "inodes",
    "apparent_bytes",
    "disk_bytes",
    "private_bytes",
    "freeable_inodes",
    "freeable_bytes",
}
CLASSES = {"native", "bytecode", "package", "untracked", "mutable", "prefixed"}
#: Of the user who runs the tests nothing is read, and this is all a child gets.
PASSED_ON = ("PATH", "LD_LIBRARY_PATH", "TMPDIR", "SYSTEMROOT")


@dataclass
class World:
    """Environments and caches below ``root``, and a command line whose home is in ``home``."""

    root: Path
    home: Path
    extra: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.root.mkdir(exist_ok=True)
        self.home.mkdir(exist_ok=True)
        self.forge = Forge(self.root)

    @property
    def environ(self) -> dict[str, str]:
        passed = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        return {
            **passed,
            "HOME": str(self.home),
            "XDG_CACHE_HOME": str(self.home / "cache"),
            "XDG_CONFIG_HOME": str(self.home / "config"),
            "XDG_DATA_HOME": str(self.home / "data"),
            "XDG_STATE_HOME": str(self.home / "state"),
            "PYTHONPATH": str(REPOSITORY),
            "PYTHONDONTWRITEBYTECODE": "1",
            "LC_ALL": "C.UTF-8",
            "COLUMNS": "80",
            **self.extra,
        }

    @property
    def search(self) -> tuple[str, ...]:
        return ("--no-discover", "--search", str(self.root))

    def command(self, *words: object) -> list[str]:
        return [sys.executable, "-m", "conda_dedup_plugin.cli", *map(str, words)]

    def run(self, *words: object, code: int | None = 0, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run ``conda-dedup words`` with nobody to ask; it has to end with ``code``, if given.

        A report walks, unless the words say ``--recall`` (which is no option of ours).
        """
        if words[:1] == ("report",) and "--recall" not in words:
            words = (*words, "--fresh")
        words = tuple(word for word in words if word != "--recall")
        done = subprocess.run(
            self.command(*words),
            **{
                "env": self.environ,
                "cwd": self.home,
                "stdin": subprocess.DEVNULL,
                "stdout": subprocess.PIPE,
                "stderr": subprocess.PIPE,
                "timeout": 120,
                **options,
            },
        )
        out, err = ((text or b"").decode("utf-8", "surrogateescape") for text in (done.stdout, done.stderr))
        assert "Traceback" not in err, err
        assert code in (None, done.returncode), f"{done.returncode}: {out}{err}"
        return subprocess.CompletedProcess(done.args, done.returncode, out, err)

    def json(self, *words: object, code: int = 0) -> dict[str, Any]:
        """Run it with --json: one document, and nothing besides."""
        done = self.run(*words, "--json", code=code)
        assert done.stderr == ""
        document: dict[str, Any] = json.loads(done.stdout)
        assert document["schema"] == 1
        return document


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "world", tmp_path / "home")


def twins(world: World) -> tuple[Path, Path]:
    """Two environments with the same package: a library each that can be shared, and what cannot."""
    files = {"lib/libx.so": LIBRARY, "etc/x.conf": b"c" * 10_000, "share/x.txt": b"t" * 9000, "small": b"s"}
    one, two = (world.forge.environment(name, {DIST: files}) for name in ("one", "two"))
    return one, two


def check_schema(document: dict[str, Any]) -> None:
    assert set(document) == {
        "schema",
        "walked",
        "environments",
        "caches",
        "totals",
        "by_class",
        "by_cause",
        "deep",
        "goal",
        "normalizable_bytes",
        "clobbered",
        "redundant_caches",
        "held",
        "largest",
        "warnings",
    }
    for entry in document["environments"] + document["caches"]:
        assert set(entry) == E
        assert all(type(entry[key]) is int and entry[key] >= 0 for key in E - {"name", "prefix", "manager"})
        assert entry["manager"] in ("conda", "mamba", "rattler", "pixi", "magic", "uv", "venv")
        assert os.path.isabs(entry["prefix"]) and entry["name"]
    for totals in (document["totals"], *document["by_class"].values()):
        assert set(totals) == T
        assert all(type(number) is int and number >= 0 for number in totals.values())
        assert totals["duplicate_bytes"] == totals["freeable_bytes"] + totals["held_bytes"]
    assert document["by_class"].keys() <= CLASSES
    for key in T:
        assert document["totals"][key] == sum(totals[key] for totals in document["by_class"].values())
    for held in document["held"]:
        assert set(held) == {"reason", "bytes", "inodes"}
        assert held["reason"] and type(held["bytes"]) is int and type(held["inodes"]) is int
    assert document["totals"]["held_bytes"] == sum(held["bytes"] for held in document["held"])
    entries = document["environments"] + document["caches"]
    assert document["totals"]["freeable_bytes"] == sum(entry["freeable_bytes"] for entry in entries)
    for group in document["largest"]:
        assert set(group) == {"bytes", "extents", "keeper", "names"}
        assert os.path.isabs(group["keeper"]) and group["names"]
        assert group["keeper"] not in group["names"]
    sizes = [group["bytes"] for group in document["largest"]]
    assert sizes == sorted(sizes, reverse=True)
    assert len(sizes) <= 20
    assert all(isinstance(warning, str) for warning in document["warnings"])


# -- the document ---------------------------------------------------------------------------------------


def test_the_document(world: World) -> None:
    one, two = twins(world)
    document = world.json("report", *world.search)
    check_schema(document)
    assert document["warnings"] == document["caches"] == []
    assert [(entry["name"], entry["prefix"]) for entry in document["environments"]] == [
        ("one", str(one)),
        ("two", str(two)),
    ]
    totals = document["totals"]
    assert totals["files"] == totals["inodes"] == 12
    assert totals["disk_bytes"] == du(one, two)
    assert totals["duplicate_bytes"] == content_duplicates(
        [one, two], accept=lambda path, _: "meta" not in path
    )
    assert totals["freeable_bytes"] >= os.lstat(one / "lib/libx.so").st_blocks * 512
    assert document["by_class"]["native"]["freeable_bytes"] == os.lstat(two / "lib/libx.so").st_blocks * 512
    assert {held["reason"] for held in document["held"]} == {"may be changed in place"}
    largest = document["largest"][0]
    assert {largest["keeper"], *largest["names"]} == {str(env / "lib/libx.so") for env in (one, two)}


def test_nothing_at_all(world: World) -> None:
    document = world.json("report", *world.search)
    check_schema(document)
    assert document["environments"] == document["caches"] == document["largest"] == document["held"] == []
    assert set(document["totals"].values()) == {0}
    assert len(document["warnings"]) == 1
    # and with nothing to be found anywhere
    check_schema(world.json("report"))


def test_caches_have_a_list_of_their_own(world: World) -> None:
    one, _ = twins(world)
    cache = world.forge.cache({DIST: {"lib/libx.so": LIBRARY}})
    document = world.json("report", *world.search)
    check_schema(document)
    (entry,) = document["caches"]
    assert (entry["prefix"], entry["manager"]) == (str(cache), "conda")
    assert {entry["prefix"] for entry in document["environments"]} == {str(one), str(one.parent / "two")}
    # the cache keeps, and both environments could be linked to it
    largest = document["largest"][0]
    assert largest["keeper"] == str(cache / "a-1-0/lib/libx.so")
    assert len(largest["names"]) == 2
    assert entry["freeable_bytes"] == 0


def test_only_what_is_named_has_a_row(world: World) -> None:
    one, two = twins(world)
    (world.home / ".conda").mkdir()
    (world.home / ".conda/environments.txt").write_text(f"{one}\n{two}\n")
    document = world.json("report", "--prefix", two)
    check_schema(document)
    assert [entry["prefix"] for entry in document["environments"]] == [str(two)]
    assert document["totals"]["files"] == 6
    # the other one serves as keeper
    assert document["largest"][0]["keeper"] == str(one / "lib/libx.so")
    assert document["totals"]["freeable_bytes"] > 0
    again = world.json("report", "--name", "two")
    assert {**again, "walked": ""} == {**document, "walked": ""}
    alone = world.json("report", "--no-discover", "--prefix", two)
    assert alone["totals"]["duplicate_bytes"] == 0
    everything = world.json("report")
    assert len(everything["environments"]) == 2


def test_the_largest_twenty(world: World) -> None:
    files = {f"lib/lib{number}.so": noise(str(number), 5000 * number) for number in range(1, 26)}
    for name in ("one", "two", "three"):
        world.forge.environment(name, {DIST: files})
    document = world.json("report", *world.search)
    check_schema(document)
    assert len(document["largest"]) == 20
    assert all(len(group["names"]) == 2 for group in document["largest"])
    assert Path(document["largest"][0]["keeper"]).name == "lib25.so"


@pytest.mark.parametrize(("size", "found"), [(1, True), (100_000, True), (100_001, False)])
def test_the_minimal_size(world: World, size: int, found: bool) -> None:
    twins(world)
    totals = world.json("report", *world.search, "--min-size", size)["totals"]
    assert (totals["freeable_bytes"] > 0) is found
    assert totals["files"] == 12


def test_the_minimal_size_of_condarc(world: World) -> None:
    twins(world)
    (world.home / ".condarc").write_text("plugins: {dedup_min_size: 100001}")
    assert world.json("report", *world.search)["totals"]["freeable_bytes"] == 0
    assert world.json("report", *world.search, "--min-size", 1)["totals"]["freeable_bytes"] > 0


def test_names_that_are_no_text(world: World) -> None:
    odd = os.fsdecode(b"odd\xff\xfe")
    one, two = (world.forge.environment(name + odd, {}) for name in ("one", "two"))
    for env in (one, two):
        world.forge._record(env, DIST, {"lib/x.so": LIBRARY})
        world.forge._write(env, {"lib/x.so": LIBRARY})
    done = world.run("report", *world.search, "--json")
    assert done.stdout.isascii()
    document = json.loads(done.stdout)
    check_schema(document)
    prefixes = {os.fsencode(entry["prefix"]) for entry in document["environments"]}
    assert prefixes == {os.fsencode(one), os.fsencode(two)}
    assert os.path.isfile(os.fsencode(document["largest"][0]["keeper"]))
    text = world.run("report", *world.search)
    assert "odd\\udcff\\udcfe" in text.stdout


def test_what_is_wrong_is_a_warning(world: World) -> None:
    one, _ = twins(world)
    (one / "conda-meta/bad-1-0.json").write_text("{")
    (world.home / ".condarc").write_text("plugins: {dedup_method: magic}")
    document = world.json("report", *world.search)
    check_schema(document)
    assert len(document["warnings"]) == 2
    assert "dedup_method" in document["warnings"][0]
    assert "bad-1-0.json" in document["warnings"][1]
    text = world.run("report", *world.search)
    assert text.stderr.splitlines() == [f"warning: {warning}" for warning in document["warnings"]]


def test_a_report_changes_nothing(world: World) -> None:
    one, two = twins(world)
    before = everything(world.root)
    world.run("report", *world.search)
    world.run("report", *world.search, "--json")
    assert everything(world.root) == before
    kept = [path for path in world.home.rglob("*") if path.is_file()]
    assert {path.parent for path in kept} <= {world.home / "state/conda-dedup/reports"}
    assert not os.path.samefile(one / "lib/libx.so", two / "lib/libx.so")


def everything(root: Path) -> dict[str, tuple[object, ...]]:
    """Every file and directory with all that ``lstat`` says but the time of the last access."""
    found = {}
    for folder, _, names in os.walk(root):
        for path in (folder, *(os.path.join(folder, name) for name in names)):
            info = os.lstat(path)
            found[path] = (
                info.st_mode,
                info.st_ino,
                info.st_nlink,
                info.st_mtime_ns,
                info.st_ctime_ns,
                info.st_size,
            )
    return found


@pytest.mark.parametrize("kind", ["ext4", pytest.param("tmpfs")])
@pytest.mark.filesystems
def test_reflinks_where_there_are_none(kind: str, mounted, tmp_path: Path) -> None:
    import shutil
    import tempfile

    folder = Path(tempfile.mkdtemp(dir=mounted(kind)))
    try:
        world = World(folder / "world", tmp_path / "home")
        twins(world)
        document = world.json("report", *world.search, "--method", "reflink")
        check_schema(document)
        assert document["totals"]["freeable_bytes"] == 0
        assert [held["reason"] for held in document["held"]] == ["device cannot reflink"]
        assert document["held"][0]["inodes"] == 3
        text = world.run("report", *world.search, "--method", "reflink").stdout
        assert "in 3 files: device cannot reflink" in text
        done = world.json("apply", "--yes", *world.search, "--method", "reflink")
        assert done["done"]["inodes"] == 0
    finally:
        shutil.rmtree(folder)


# -- the text -------------------------------------------------------------------------------------------


def test_the_text_says_what_the_document_says(world: World) -> None:
    twins(world)
    document = world.json("report", *world.search)
    text = world.run("report", *world.search)
    assert text.stderr == ""
    lines = text.stdout.splitlines()
    assert lines[0].split() == ["Environment", "or", "cache", "Apparent", "On", "disk", "Private", "Freeable"]
    assert [line.split()[0] for line in lines[1:3]] == ["one", "two"]
    assert "in 12 files" in text.stdout
    assert "may be changed in place" in text.stdout
    assert document["largest"][0]["keeper"] in text.stdout
    assert "by: conda-dedup apply" in text.stdout


def test_what_to_call_is_what_was_called(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    twins(world)
    for name, value in world.environ.items():
        monkeypatch.setenv(name, value)
    assert main(["report", "--fresh", *world.search], prog="conda dedup") == 0
    assert "by: conda dedup apply" in capsys.readouterr().out


LONG = "a-name-that-is-so-long-" * 6 + "end"


@pytest.mark.parametrize(
    "columns",
    [
        "20",
        "80",
        "1000",
        "",
    ],
)
def test_plain_when_it_is_no_terminal(world: World, columns: str) -> None:
    twins(world)
    world.forge.environment(LONG, {DIST: {"lib/libx.so": LIBRARY}})
    world.extra["COLUMNS"] = columns
    for words in (("report", *world.search), ("apply", "--dry-run", *world.search), ("--help",)):
        done = world.run(*words)
        assert "\x1b" not in done.stdout + done.stderr
        assert "…" not in done.stdout  # nothing is cut off
    table = world.run("report", *world.search).stdout.split("\n\n")[0]
    # folded, perhaps, with the numbers beside its first part
    parts = [line.split()[0] for line in table.splitlines()]
    assert LONG in "".join(parts)


def control(text: str) -> list[str]:
    """What a terminal would not simply show, besides the ends of lines."""
    return [char for char in text if not char.isprintable() and char != "\n"]


@pytest.mark.parametrize("words", [("report",), ("apply", "--dry-run"), ("apply", "--yes")], ids=" ".join)
def test_names_cannot_command_a_terminal(world: World, words: tuple[str, ...]) -> None:
    file = f"lib/{EVIL}.so"
    world.forge.cache({DIST: {file: LIBRARY}}, name=f"pkgs{EVIL}")
    for name in (f"one{EVIL}", f"two{EVIL}"):
        env = world.forge.environment(name, {DIST: {file: LIBRARY}})
        (env / "conda-meta" / f"bad{EVIL}.json").write_text("{")
        os.link(env / file, world.root / f"outside{name}") if "one" in name else None
    done = world.run(*words, *world.search)
    assert control(done.stdout) == control(done.stderr) == []
    assert "evil\\x1b[2J\\x07\\n\\r\\u202e\\x9bmore" in done.stdout + done.stderr
    # no name starts a line
    assert not [line for line in (done.stdout + done.stderr).splitlines() if line.startswith(("more", "\\r"))]
    document = world.json("report", *world.search)
    assert {entry["name"] for entry in document["environments"]} == {f"one{EVIL}", f"two{EVIL}"}


@pytest.mark.parametrize(
    "words",
    [
        ("report", "--name", EVIL),
        ("report", "--prefix", EVIL),
        ("report", "--search", EVIL),
        ("report", "--pkgs-dir", EVIL),
        ("report", "--method", EVIL),
        ("report", "--min-size", EVIL),
        ("report", f"--{EVIL}"),
        (EVIL,),
    ],
    ids=lambda words: words[-2] if len(words) > 2 else str(len(words)),
)
def test_errors_cannot_command_a_terminal(world: World, words: tuple[str, ...]) -> None:
    twins(world)
    done = world.run(*words, code=2)
    assert control(done.stderr) == []
    assert len(done.stderr.splitlines()) == 2
    assert done.stdout == ""


def test_markup_is_no_markup(world: World) -> None:
    files = {"lib/[red]x[/red].so": LIBRARY}
    for name in ("[bold]one[/bold]", "[link=x]two"):
        prefix = world.forge.environment(name, {DIST: files})
        if "one" in name:  # the oldest keeps, and is shown
            os.utime(prefix / "lib/[red]x[/red].so", (1_500_000_000, 1_500_000_000))
    text = world.run("report", *world.search).stdout
    assert "[bold]one[/bold]" in text and "[link=x]two" in text and "[red]x[/red].so" in text
    assert "[red]x[/red].so" in world.run("apply", "--dry-run", *world.search).stdout
    error = world.run("report", "--name", "[/bold]", code=2).stderr
    assert "[/bold]" in error
