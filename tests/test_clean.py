"""``clean``: packages that only seem to be used, what interrupted runs left, and nothing anybody needs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from conda_dedup_plugin.cli import main
from conda_dedup_plugin.environments import Request, find
from conda_dedup_plugin.inventory import scan
from conda_dedup_plugin.model import STAGING_PREFIX
from conda_dedup_plugin.sharing import exchanges as exchanges_module
from conda_dedup_plugin.sharing import hardlink as hardlink_module
from conda_dedup_plugin.sharing import staging as staging_module
from conda_dedup_plugin.unused import find_unused, remove_unused
from tests.conftest import MakeLab
from tests.lab import needs
from tests.lab.channel import TWO_BUILDS
from tests.lab.forge import noise
from tests.lab.invariants import assert_unchanged, du, snapshot
from tests.test_apply import dedup
from tests.test_cli import in_a_terminal
from tests.test_manners import NOBODY
from tests.test_repair import hold, inside, leftovers
from tests.test_report import EVIL, World
from tests.test_verify import share

P, Q = ("p", "1", "0"), ("q", "1", "0")
SAME = {f"lib/{number}.so": noise(f"same {number}", 20_000) for number in range(3)}
FILES = {dist: {**SAME, f"lib/{dist[0]}.so": noise(dist[0], 30_000)} for dist in (P, Q)}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "world", tmp_path / "home")


def clean(world: World, *words: str, code: int = 0) -> dict[str, Any]:
    return world.json("clean", *words, "--search", world.root, code=code)


def unused(document: dict[str, Any]) -> list[str]:
    return [Path(package["path"]).name for package in document["unused"]]


def two_packages(world: World) -> Path:
    """A cache of two packages that share most of what they have: conda takes both for used."""
    cache = world.forge.cache(FILES)
    share(world, "--include-cache")
    assert (cache / "p-1-0/lib/0.so").stat().st_nlink == 2
    return cache


# -- packages ---------------------------------------------------------------------------------------------


@pytest.mark.integration
def test_what_conda_keeps_for_nothing(conda_lab: MakeLab) -> None:
    """Two builds of one package in a real cache, shared with each other; then their environments go."""
    lab = conda_lab()
    state = lab.root / "state"
    for number in (0, 1):
        lab.create(f"env{number}", f"two-builds=1.0={number}")
    cache = lab.pkgs_dirs[0]
    packages = [cache / f"two-builds-1.0-{number}" for number in (0, 1)]
    dedup(lab, state, "apply", "--yes", "--include-cache")
    assert os.path.samefile(packages[0] / TWO_BUILDS[0], packages[1] / TWO_BUILDS[0])
    assert dedup(lab, state, "clean", "--yes")["removed"] == []
    for number in (0, 1):
        lab.conda("env", "remove", "--name", f"env{number}")
    listed = json.loads(lab.conda("clean", "--packages", "--dry-run", "--json").stdout)
    assert listed["packages"]["pkgs_dirs"].get(str(cache), []) == [], "conda itself would do"
    found = dedup(lab, state, "clean", "--dry-run")
    assert [package["path"] for package in found["unused"]] == list(map(str, packages))
    before = du(cache)
    done = dedup(lab, state, "clean", "--yes")
    assert done["removed"] == list(map(str, packages))
    assert before - du(cache) == done["bytes_freed"] > 10 * (64 << 10)
    assert not any(package.exists() for package in packages)
    assert dedup(lab, state, "clean", "--yes")["unused"] == []
    # and conda has them again when it wants them
    lab.create("env0", "two-builds=1.0=0")
    assert (lab.env_path("env0") / TWO_BUILDS[0]).stat().st_size == 64 << 10


def test_what_is_freed_is_what_the_disk_says(world: World) -> None:
    cache = two_packages(world)
    other = world.forge.cache({("r", "1", "0"): {"lib/r.so": noise("r", 9000)}}, name="pkgs2")
    before, kept = du(world.root), snapshot(other)
    found = clean(world, "--dry-run")
    assert found["dry_run"] is True
    assert (unused(found), found["removed"], found["bytes_freed"]) == (["p-1-0", "q-1-0"], [], 0)
    done = clean(world, "--yes")
    assert done["removed"] == [str(cache / "p-1-0"), str(cache / "q-1-0")]
    assert before - du(world.root) == done["bytes_freed"]
    assert done["bytes_freed"] == sum(package["bytes_freed"] for package in found["unused"])
    assert sorted(os.listdir(cache)) == ["urls.txt"]
    assert_unchanged(kept, snapshot(other))
    # one that shares nothing is conda's to clean
    assert clean(world, "--yes")["unused"] == []


@pytest.mark.parametrize("how", ["hard link", "record", "link without a record", "a record that is broken"])
def test_what_an_environment_uses_stays(world: World, how: str) -> None:
    cache = two_packages(world)
    one = world.forge.environment("one", {P: FILES[P]})
    if how != "record":
        for path in FILES[P]:
            (one / path).unlink()
            os.link(cache / "p-1-0" / path, one / path)
    if how == "link without a record":
        (one / "conda-meta/p-1-0.json").unlink()
    if how == "a record that is broken":
        (one / "conda-meta/p-1-0.json").write_text("{")
    linked = how in ("link without a record", "a record that is broken")
    before = snapshot(world.root)
    disk = du(world.root)
    document = clean(world, "--yes")
    # who does not say which package it is of may mean either
    assert unused(document) == ([] if linked else ["q-1-0"])
    assert disk - du(world.root) == document["bytes_freed"]
    gone = str(cache / "q-1-0") + "/" if not linked else "-"
    assert_unchanged(
        {path: found for path, found in before.items() if not path.startswith(gone)}, snapshot(world.root)
    )


def test_an_environment_that_is_not_named_uses_what_it_uses(world: World, tmp_path: Path) -> None:
    two_packages(world)
    elsewhere = world.forge.environment("far", FILES, root=tmp_path / "elsewhere")
    assert unused(clean(world, "--dry-run")) == ["p-1-0", "q-1-0"]
    (world.home / ".conda").mkdir()
    (world.home / ".conda/environments.txt").write_text(f"{elsewhere}\n")
    assert unused(clean(world, "--yes")) == []


def test_names_nobody_knows_keep_a_package(world: World, tmp_path: Path) -> None:
    cache = two_packages(world)
    os.link(cache / "q-1-0/lib/q.so", tmp_path / "outside")
    assert unused(clean(world, "--dry-run")) == ["p-1-0"]
    os.link(cache / "q-1-0/lib/0.so", tmp_path / "outside-too")  # p's as well
    before = snapshot(world.root)
    assert clean(world, "--yes")["removed"] == []
    assert_unchanged(before, snapshot(world.root))


def test_links_in_a_cache_are_not_followed(world: World, tmp_path: Path) -> None:
    cache = two_packages(world)
    target = tmp_path / "precious"
    (target / "deep").mkdir(parents=True)
    (target / "deep/file").write_bytes(b"precious")
    (cache / "p-1-0/lib/link").symlink_to(target)
    (cache / "p-1-0/lib/to-file").symlink_to(target / "deep/file")
    (cache / "q-1-0").rename(tmp_path / "q-1-0")
    (cache / "q-1-0").symlink_to(tmp_path / "q-1-0")
    # what is behind the link are names that nobody knows
    assert unused(clean(world, "--yes")) == []
    (cache / "q-1-0").unlink()
    (tmp_path / "q-1-0").rename(cache / "q-1-0")
    assert clean(world, "--yes")["removed"] == [str(cache / "p-1-0"), str(cache / "q-1-0")]
    assert (target / "deep/file").read_bytes() == b"precious"


def test_a_directory_above_a_cache_that_becomes_a_link(world: World, tmp_path: Path) -> None:
    """What is found is removed there and nowhere else, whoever exchanges a directory on the way."""
    cache = two_packages(world)
    inventory = scan(find(Request(pkgs_dirs=(str(cache),), discover=False)), 0)
    found = find_unused(inventory)
    assert found
    elsewhere = tmp_path / "elsewhere"
    cache.parent.rename(elsewhere)
    cache.parent.symlink_to(elsewhere)
    before = snapshot(elsewhere)
    gone, notes = remove_unused(found)
    assert gone == []
    assert len(notes) == len(found)
    assert snapshot(elsewhere) == before


def test_a_package_that_comes_into_use_before_the_answer_stays(world: World) -> None:
    """The question was asked; meanwhile somebody made an environment of it."""
    cache = two_packages(world)
    master, slave = os.openpty()
    process = subprocess.Popen(
        world.command("clean", "--search", world.root),
        env=world.environ,
        stdin=slave,
        stdout=slave,
        stderr=slave,
    )
    os.close(slave)
    screen = b""
    while b"[y/N]" not in screen:
        screen += os.read(master, 65536)
    one = world.forge.environment("one", {P: FILES[P]})
    os.write(master, b"y\n")
    process.wait(60)
    os.close(master)
    assert (cache / "p-1-0/info/index.json").exists()
    assert (one / "lib/0.so").exists()
    assert not (cache / "q-1-0").exists()


# -- consent and output -----------------------------------------------------------------------------------


def test_nothing_is_removed_without_consent(world: World) -> None:
    two_packages(world)
    before = snapshot(world.root)
    assert set(clean(world, code=1)) == {"schema", "error", "hint"}
    world.run("clean", "--search", world.root, code=1)
    code, screen = in_a_terminal(world, "clean", "--search", world.root, keys=b"n\n")
    assert (code, "p-1-0" in screen, "Remove them?" in screen) == (1, True, True)
    assert_unchanged(before, snapshot(world.root))
    code, screen = in_a_terminal(world, "clean", "--search", world.root, keys=b"y\n")
    assert (code, "2 unused packages removed" in screen) == (0, True)
    code, screen = in_a_terminal(world, "clean", "--search", world.root)
    assert (code, screen.count("There is nothing to clean.")) == (0, 1)


def test_no_name_moves_the_cursor(world: World) -> None:
    one = world.forge.environment(f"{EVIL}[red]", {P: {"lib/p.so": noise("p", 9000)}})
    (one / f"{STAGING_PREFIX}{EVIL}[").write_bytes(b"of its own")
    for words in (["--dry-run"], ["--yes"]):
        done = world.run("clean", *words, "--search", world.root)
        text = done.stdout + done.stderr
        assert "evil\\x1b[2J\\x07\\n\\r\\u202e\\x9bmore[red]" in text
        assert not {"\x1b", "\x07", "\r", "\u202e", "\x9b"} & set(text)
    assert world.run("clean", "--yes", "-q", "--search", world.root).stdout == ""


# -- leftovers ----------------------------------------------------------------------------------------

LINKER, SWAP = hardlink_module.Hardlinker, staging_module.Swap
STEPS: list[tuple[Any, str]] = [
    (LINKER, "_make_durable"),
    (exchanges_module, "link_descriptor"),
    (SWAP, "exchange"),
    (LINKER, "_settle"),
    (LINKER, "_drop_old"),
]


def killed_apply(world: World, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, *words: str) -> None:
    """``apply`` in a child that dies right after a step."""
    child = os.fork()
    if child == 0:
        try:
            inside(world, monkeypatch)
            original = getattr(owner, name)

            def replaced(*arguments: Any) -> None:
                original(*arguments)
                os.kill(os.getpid(), signal.SIGKILL)

            monkeypatch.setattr(owner, name, replaced)
            main(["apply", "--yes", "--quiet", *words, *world.search])
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), "the step was never reached"


def twins(world: World) -> tuple[Path, Path]:
    one, two = (world.forge.environment(name, {P: FILES[P]}) for name in ("one", "two"))
    return one, two


@pytest.mark.parametrize("journal", [True, False], ids=["with a journal", "without"])
@pytest.mark.parametrize(("owner", "name"), STEPS, ids=[name for _, name in STEPS])
def test_what_a_killed_run_left(
    world: World, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, journal: bool
) -> None:
    twins(world)
    before = snapshot(world.root)
    with monkeypatch.context() as patch:
        killed_apply(world, patch, owner, name, *([] if journal else ["--no-journal"]))
    left = leftovers(world.root)
    assert left
    found = clean(world, "--dry-run")
    assert sorted(found["leftovers"]) == left == leftovers(world.root)
    done = clean(world, "--yes")
    assert leftovers(world.root) == []
    assert done["warnings"] == []
    assert sorted(done["removed"]) == ([] if journal else left)
    assert_unchanged(before, snapshot(world.root))
    assert clean(world, "--yes")["leftovers"] == []


def one_left(world: World, monkeypatch: pytest.MonkeyPatch, *words: str) -> tuple[Path, Path]:
    """Killed after an exchange; returns what waits in staging and its target."""
    twins(world)
    with monkeypatch.context() as patch:
        killed_apply(world, patch, SWAP, "exchange", *words)
    (left,) = (path for path in map(Path, leftovers(world.root)) if path.is_file())
    targets = [left.parents[1] / path for path in FILES[P]]
    (target,) = (path for path in targets if path.stat().st_nlink == 2)
    return left, target


@pytest.mark.parametrize("words", [[], ["--no-journal"]], ids=["with a journal", "without"])
def test_content_that_is_nowhere_else_stays_and_is_named(
    world: World, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    left, target = one_left(world, monkeypatch, *words)
    for path in (left, target):
        with open(path, "r+b") as stream:
            stream.write(path.name.encode())
    before = snapshot(world.root)
    done = clean(world, "--yes")
    assert done["removed"] == []
    assert any(str(left) in warning for warning in done["warnings"]), done["warnings"]
    assert_unchanged(before, snapshot(world.root))
    assert str(left) in world.run("clean", "--yes", "--search", world.root).stderr


def test_a_tree_that_a_run_is_working_on_is_left_to_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    left, _ = one_left(world, monkeypatch, "--no-journal")
    holder = hold(world, left.parents[1])
    try:
        done = clean(world, "--yes")
    finally:
        holder.communicate()
    assert left.exists()
    assert done["removed"] == []
    (warning,) = done["warnings"]
    assert str(left.parents[1]) in warning
    assert "another run" in warning
    assert clean(world, "--yes")["warnings"] == []
    assert not left.exists()


def test_somebody_elses_is_left_alone(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    needs("root, to give files away", os.geteuid() == 0)
    left, _ = one_left(world, monkeypatch, "--no-journal")
    os.chown(left, NOBODY, NOBODY)
    os.chown(left.parent, NOBODY, NOBODY)
    done = clean(world, "--yes")
    assert left.exists()
    assert done["removed"] == []
    assert len([warning for warning in done["warnings"] if "another user" in warning]) == 2


def test_only_what_is_held_elsewhere_goes(world: World, tmp_path: Path) -> None:
    one, _ = twins(world)
    staging = one / f"{STAGING_PREFIX}0123456789ab"
    staging.mkdir()
    outside = tmp_path / "outside"
    outside.write_bytes(b"o" * 777)
    (staging / "unique").write_bytes(b"u" * 20_000)
    (staging / "same").write_bytes(FILES[P]["lib/p.so"])
    (staging / "empty").touch()
    os.link(outside, staging / "linked")
    (staging / "link").symlink_to(outside)
    os.mkfifo(staging / "fifo")
    (one / "lib" / f"{STAGING_PREFIX}0123456789ab-1").write_bytes(FILES[P]["lib/p.so"])
    (one / "lib" / f"{STAGING_PREFIX}0123456789ab-2").write_bytes(b"a" * 20_000)
    (one / "lib" / f"{STAGING_PREFIX}0123456789ab-3").write_bytes(b"b" * 9999)
    (one / "lib" / f"{STAGING_PREFIX}0123456789ab-4").write_bytes(b"b" * 9999)
    done = clean(world, "--yes")
    beside = [path.name[-2:] for path in (one / "lib").glob(f"{STAGING_PREFIX}*")]
    assert sorted(beside) in (["-2", "-3"], ["-2", "-4"])
    assert sorted(os.listdir(staging)) == ["fifo", "link", "unique"]
    assert outside.read_bytes() == b"o" * 777
    assert len(done["warnings"]) == 6
    assert (one / "lib/p.so").read_bytes() == FILES[P]["lib/p.so"]


def test_an_environment_inside_another_one(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a base: what is left in the inner one is found once, and its own lock counts."""
    outer = world.forge.environment("base", {P: FILES[P]})
    inner = world.forge.environment("inner", {P: FILES[P]}, root=outer)
    staging = inner / f"{STAGING_PREFIX}0123456789ab"
    staging.mkdir()
    (staging / "0123456789ab-1").write_bytes(FILES[P]["lib/p.so"])
    found = clean(world, "--dry-run")
    assert found["leftovers"] == [str(staging / "0123456789ab-1"), str(staging)]
    holder = hold(world, inner)
    try:
        held = clean(world, "--yes")
    finally:
        holder.communicate()
    assert held["removed"] == []
    assert staging.exists()
    assert clean(world, "--yes")["warnings"] == []
    assert not staging.exists()


def test_without_a_state_directory(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """No lock can be had: what might be another run's stays, and all the rest is done and told."""
    left, _ = one_left(world, monkeypatch, "--no-journal")
    cache = world.forge.cache({P: FILES[P], Q: FILES[Q]}, name="pkgs")
    os.link(cache / "p-1-0/lib/p.so", cache / "p-1-0/lib/again.so")
    for path in SAME:
        (cache / "q-1-0" / path).unlink()
        os.link(cache / "p-1-0" / path, cache / "q-1-0" / path)
    world.extra["XDG_STATE_HOME"] = os.devnull
    done = clean(world, "--yes")
    assert done["removed"] == [str(cache / "q-1-0")]
    assert any("state directory" in warning for warning in done["warnings"])
    assert left.exists()
