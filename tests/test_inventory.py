"""What an inventory counts, judged by hand and by an independent walk, and what it never enters."""

from __future__ import annotations

import os
import pickle
import shutil
import stat
import subprocess
import tempfile
import traceback
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import asdict, replace

from conda_dedup_plugin.inventory import Inventory, scan, scan_listed
from conda_dedup_plugin.model import Hazard, Manager, Scope, Totals, Tree, TreeKind
from tests.lab.forge import Forge, noise

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")
NOBODY = 65534
NATIVE = noise("native", 20_000)
DIST = ("a", "1", "0")


@contextmanager
def world_readable() -> Iterator[Path]:
    """A directory that every user may enter, in contrast to ``tmp_path``."""
    folder = Path(tempfile.mkdtemp(prefix="conda-dedup-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        folder.chmod(0o755)
        for below, names, _ in os.walk(folder):
            for name in names:
                os.chmod(os.path.join(below, name), 0o755, follow_symlinks=True)
        shutil.rmtree(folder)


def as_nobody(function: Callable[[], T]) -> T:
    """Call ``function`` as a user without rights, in a process of its own if we have rights."""
    if os.geteuid() != 0:
        return function()

    def without_rights() -> T:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        return function()

    return in_a_child(without_rights)


def in_a_child(function: Callable[[], T]) -> T:
    """Call ``function`` in a process of its own: what limits it sets are its own, too."""
    with tempfile.TemporaryFile() as answer:
        child = os.fork()
        if child == 0:
            try:
                result = (function(), "")
            except BaseException:
                result = (None, traceback.format_exc())
            with os.fdopen(answer.fileno(), "wb", closefd=False) as stream:
                pickle.dump(result, stream)
            os._exit(0)
        os.waitpid(child, 0)
        answer.seek(0)
        value, error = pickle.load(answer)
    assert not error, error
    return value


def tree_of(path: Path, kind: TreeKind = TreeKind.ENVIRONMENT, selected: bool = True) -> Tree:
    return Tree(os.path.realpath(path), kind, Manager.CONDA, path.name, selected)


def scan_tree(path: Path, min_size: int = 1) -> Inventory:
    return scan(Scope((tree_of(path),)), min_size)


def names(inventory: Inventory) -> set[str]:
    """Every candidate's path in its tree."""
    return {name.path for inode in inventory.inodes.values() for name in inode.names}


def disk(path: Path) -> int:
    return os.lstat(path).st_blocks * 512


def link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    os.link(source, target)


def assert_classes_sum_up(inventory: Inventory) -> None:
    total = Totals(
        **{
            field: sum(getattr(totals, field) for totals in inventory.by_class.values())
            for field in asdict(Totals())
        }
    )
    assert total == inventory.totals


# -- counting -----------------------------------------------------------------------------------------


def test_counts_of_one_environment(tmp_path: Path) -> None:
    env = Forge(tmp_path).environment(
        "one", {DIST: {"lib/x.so": NATIVE, "share/y": b"y", "etc/z": b"z" * 5000}}
    )
    (env / "own.txt").write_bytes(b"o" * 9000)
    (env / "empty").touch()
    found = scan_tree(env, 4096)
    (counted,) = found.trees
    files = [path for path in env.rglob("*") if path.is_file()]
    assert counted.files == counted.inodes == len(files) == 7
    assert counted.apparent_bytes == sum(path.stat().st_size for path in files)
    assert counted.disk_bytes == counted.private_bytes == sum(map(disk, files))
    assert names(found) == {"lib/x.so", "etc/z", "own.txt"}
    assert (found.totals.files, found.totals.inodes) == (7, 7)
    assert found.totals.disk_bytes == counted.disk_bytes
    # conda-meta, own.txt: no record covers them
    unrecorded = [env / "own.txt", *(env / "conda-meta").iterdir()]
    assert found.totals.unrecorded_bytes == sum(map(disk, unrecorded))
    by_class = {hazard: totals.files for hazard, totals in found.by_class.items()}
    assert by_class == {Hazard.NATIVE: 1, Hazard.PACKAGE: 1, Hazard.MUTABLE: 1, Hazard.UNTRACKED: 4}
    assert_classes_sum_up(found)
    assert found.warnings == []


def test_hard_links_across_environments_and_a_cache(tmp_path: Path) -> None:
    forge = Forge(tmp_path)
    package = {DIST: {"lib/x.so": NATIVE, "lib/y.so": NATIVE[1:], "lib/z.so": NATIVE[2:]}}
    cache = forge.cache(package)
    one, two = (forge.environment(name, package) for name in ("one", "two"))
    for env in (one, two):
        link(cache / "a-1-0/lib/x.so", env / "lib/x.so")
    link(one / "lib/y.so", two / "lib/y.so")
    link(one / "lib/z.so", one / "lib/copy/z.so")
    found = scan(forge.scope(), 4096)
    size = disk(one / "lib/x.so")
    by_name = {tree.name: counted for tree, counted in zip(found.scope.trees, found.trees, strict=True)}

    def native(env: Path) -> int:
        inodes = {path.stat().st_ino: disk(path) for path in env.rglob("*") if path.is_file()}
        return sum(inodes.values())

    for env, name in ((one, "one"), (two, "two"), (cache, "pkgs")):
        assert by_name[name].disk_bytes == native(env)
    # x is everybody's and y the environments'; z with both its names is one's alone
    assert by_name["one"].private_bytes == native(one) - 2 * size
    assert by_name["two"].private_bytes == native(two) - 2 * size
    assert by_name["pkgs"].private_bytes == native(cache) - size
    assert (by_name["one"].files, by_name["one"].inodes) == (6, 5)
    everything = [path for tree in (one, two, cache) for path in tree.rglob("*") if path.is_file()]
    inodes = {os.lstat(path).st_ino: disk(path) for path in everything}
    assert found.totals.files == len(everything)
    assert found.totals.inodes == len(inodes) == len(everything) - 4
    assert found.totals.disk_bytes == sum(inodes.values())
    assert found.totals.apparent_bytes == sum(os.lstat(path).st_size for path in everything)
    assert_classes_sum_up(found)
    seen = {inode.nlink: len(inode.names) for inode in found.inodes.values()}
    assert seen == {1: 1, 2: 2, 3: 3}


def test_names_outside_are_not_private(tmp_path: Path) -> None:
    env = Forge(tmp_path).environment("one", {DIST: {"lib/x.so": NATIVE}})
    link(env / "lib/x.so", tmp_path / "outside")
    found = scan_tree(env)
    (inode,) = found.inodes.values()
    assert (inode.nlink, len(inode.names)) == (2, 1)
    assert found.trees[0].private_bytes == found.trees[0].disk_bytes - disk(tmp_path / "outside")


def test_an_unselected_tree_is_in_no_total(tmp_path: Path) -> None:
    forge = Forge(tmp_path)
    one = forge.environment("one", {DIST: {"lib/x.so": NATIVE, "lib/y.so": NATIVE[1:]}})
    two = forge.environment("two", {DIST: {"lib/x.so": NATIVE}}, selected=False)
    link(two / "lib/x.so", one / "lib/x.so")
    found = scan(forge.scope(), 4096)
    alone = scan_tree(one, 4096)
    assert found.totals == alone.totals
    assert found.by_class == alone.by_class
    assert sorted(len(inode.names) for inode in found.inodes.values()) == [1, 2]


def test_a_record_of_any_name_covers_the_inode(tmp_path: Path) -> None:
    env = Forge(tmp_path).environment("one", {DIST: {"lib/x.so": NATIVE}})
    before = scan_tree(env).totals.unrecorded_bytes
    link(env / "lib/x.so", env / "a-first-name")
    link(env / "lib/x.so", env / "z-last-name")
    assert scan_tree(env).totals.unrecorded_bytes == before
    (env / "p").write_bytes(b"p")
    link(env / "p", env / "q")
    assert scan_tree(env).totals.unrecorded_bytes == before + disk(env / "p")


@pytest.mark.parametrize("min_size", [1, 4095, 4096, 4097])
def test_the_minimal_size(tmp_path: Path, min_size: int) -> None:
    sizes = (0, 1, 4095, 4096, 4097)
    env = Forge(tmp_path).environment("one", {DIST: {f"lib/{size}": b"x" * size for size in sizes}})
    found = scan_tree(env, min_size)
    assert names(found) == {f"lib/{size}" for size in sizes if size >= min_size}
    # what is too small is counted all the same
    assert found.totals.files == len(sizes) + 2


def test_conda_meta_is_no_candidate(tmp_path: Path) -> None:
    forge = Forge(tmp_path)
    env = forge.environment("one", {DIST: {"lib/x.so": NATIVE}})
    (env / "conda-meta/sub").mkdir()
    (env / "conda-meta/sub/big").write_bytes(NATIVE)
    (env / "conda-meta-not").mkdir()
    (env / "conda-meta-not/big").write_bytes(NATIVE)
    assert names(scan_tree(env)) == {"lib/x.so", "conda-meta-not/big"}
    cache = forge.cache({DIST: {"conda-meta/x": NATIVE}}, name="pkgs2")
    found = scan(Scope((tree_of(cache, TreeKind.CACHE),)), 4096)
    assert names(found) == {"a-1-0/conda-meta/x"}


def test_sparse_files_count_what_they_hold(tmp_path: Path) -> None:
    env = Forge(tmp_path).environment("one", {})
    (env / "sparse").touch()
    os.truncate(env / "sparse", 1 << 30)
    before, found = disk(env / "sparse"), scan_tree(env)
    assert before < 1 << 20
    assert found.totals.apparent_bytes >= 1 << 30
    assert found.totals.disk_bytes == before + disk(env / "conda-meta/history")


# -- where a walk does not go ---------------------------------------------------------------------------


def test_links_are_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "big").write_bytes(NATIVE)
    env = Forge(tmp_path).environment("one", {DIST: {"lib/x.so": NATIVE}})
    before = asdict(scan_tree(env).totals)
    (env / "lib/y.so").symlink_to("x.so")
    (env / "lib/z.so").symlink_to(outside / "big")
    (env / "share").symlink_to(outside)
    (env / "loop").symlink_to(".")
    (env / "dangling").symlink_to("nowhere")
    assert asdict(scan_tree(env).totals) == before
    assert scan_tree(env).warnings == []


def test_what_is_no_file(tmp_path: Path) -> None:
    env = Forge(tmp_path).environment("one", {DIST: {"lib/x.so": NATIVE}})
    before = scan_tree(env)
    os.mkfifo(env / "lib/fifo")
    if os.geteuid() == 0:
        os.mknod(env / "lib/null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    after = scan_tree(env)
    assert (after.totals, after.warnings) == (before.totals, [])


def test_environments_inside(tmp_path: Path) -> None:
    """A base holds its environments and its cache, a project of pixi lies in an environment."""
    base_forge = Forge(tmp_path)
    base = base_forge.environment("base", {DIST: {"lib/x.so": NATIVE}}, root=tmp_path)
    alone = scan_tree(base)
    inner = Forge(base)
    inner.environment("nested", {DIST: {"lib/x.so": NATIVE}})
    cache = inner.cache({DIST: {"lib/x.so": NATIVE}})
    pixi = base / "work/project/.pixi/envs/default"
    (pixi / "conda-meta").mkdir(parents=True)
    (pixi / "lib").mkdir()
    (pixi / "lib/big").write_bytes(NATIVE)
    found = scan_tree(base)
    assert (found.totals, names(found)) == (alone.totals, {"lib/x.so"})
    # each of them, when asked for, is counted by itself, once
    trees = (tree_of(cache, TreeKind.CACHE), tree_of(base), tree_of(base / "envs/nested"), tree_of(pixi))
    together = scan(Scope(trees), 1)
    assert together.trees[1] == alone.trees[0]
    assert together.totals.files == sum(counted.files for counted in together.trees)
    assert all(len(inode.names) == 1 for inode in together.inodes.values())


def test_a_folder_called_pkgs_that_is_no_cache(tmp_path: Path) -> None:
    env = Forge(tmp_path).environment("one", {DIST: {"pkgs/x.so": NATIVE, "share/pkgs/y.so": NATIVE[1:]}})
    assert names(scan_tree(env)) == {"pkgs/x.so", "share/pkgs/y.so"}


def test_our_own_staging_is_left_out(tmp_path: Path) -> None:
    env = Forge(tmp_path).environment("one", {DIST: {"lib/x.so": NATIVE}})
    (env / ".conda-dedup-abc").mkdir()
    (env / ".conda-dedup-abc/abc-1").write_bytes(NATIVE)
    assert names(scan_tree(env)) == {"lib/x.so"}


def test_a_root_that_is_gone_or_a_link(tmp_path: Path) -> None:
    env = Forge(tmp_path).environment("one", {DIST: {"lib/x.so": NATIVE}})
    trees = tuple(replace(tree_of(env), root=str(tmp_path / name)) for name in ("gone", "link"))
    (tmp_path / "link").symlink_to(env)
    found = scan(Scope((*trees, tree_of(env))), 1)
    assert [counted.files for counted in found.trees] == [0, 0, 3]
    assert len(found.warnings) == 2
    assert "gone" in found.warnings[0]


# -- odd names and deep trees ---------------------------------------------------------------------------


def test_odd_names(tmp_path: Path) -> None:
    odd = ["new\nline", "\x1b[31mred", os.fsdecode(b"\xff\xfe"), " ", "-rf", "é", "\u202eabc", "x" * 255]
    env = Forge(tmp_path).environment(
        "one", {DIST: {f"{name}/{name}": NATIVE for name in odd if name.isascii()}}
    )
    for name in odd:
        (env / name).mkdir(exist_ok=True)
        (env / name / name).write_bytes(NATIVE)
    found = scan_tree(env)
    assert names(found) == {f"{name}/{name}" for name in odd}
    assert found.warnings == []
    claimed = {name.path for inode in found.inodes.values() for name in inode.names if name.claim}
    assert claimed == {f"{name}/{name}" for name in odd if name.isascii()}


def deep(base: Path, levels: int) -> None:
    """A tree of directories one below the other, with a file at each level; longer than any path may be."""
    descriptor = os.open(base, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir("d", dir_fd=descriptor)
        below = os.open("d", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
        os.close(os.open("f", os.O_WRONLY | os.O_CREAT, dir_fd=descriptor))
    os.close(descriptor)


@pytest.mark.parametrize("levels", [200, 1500])
def test_deep_trees(tmp_path: Path, levels: int) -> None:
    """With as many descriptors as macOS gives: 256."""
    import resource

    env = Forge(tmp_path).environment("one", {})
    deep(env, levels)

    def count() -> tuple[int, list[str]]:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
        found = scan_tree(env)
        return found.totals.files, found.warnings

    try:
        files, warnings = in_a_child(count)
        # what lies too deep may be left out, if that is said
        assert files == levels + 1 or (files > 200 and warnings)
        assert files == levels + 1 or levels > 200
    finally:
        subprocess.run(["rm", "-rf", env], check=True)


def test_wide_trees(tmp_path: Path) -> None:
    env = Forge(tmp_path).environment("one", {})
    for number in range(2000):
        (env / f"d{number}").mkdir()
        (env / f"d{number}/f").touch()
    assert scan_tree(env).totals.files == 2001


# -- what cannot be read, and what changes ----------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o000, 0o111, 0o444])
def test_a_directory_that_may_not_be_read(mode: int) -> None:
    """Also one that may be listed and not entered: its files' sizes cannot be told."""
    with world_readable() as folder:
        env = Forge(folder).environment("one", {DIST: {"lib/x.so": NATIVE, "shut/y.so": NATIVE}})
        (env / "shut").chmod(mode)
        (env / "zlib").mkdir()
        (env / "zlib/z.so").write_bytes(NATIVE)
        if mode == 0o000:
            assert len(names(scan_tree(env))) == (3 if os.geteuid() == 0 else 2)
        found = as_nobody(lambda: scan_tree(env))
        assert names(found) == {"lib/x.so", "zlib/z.so"}
        assert len(found.warnings) == 1
        assert "shut" in found.warnings[0] and "Permission denied" in found.warnings[0]


def test_an_environment_that_may_not_be_read() -> None:
    with world_readable() as folder:
        env = Forge(folder).environment("one", {DIST: {"lib/x.so": NATIVE}})
        env.chmod(0o000)
        found = as_nobody(
            lambda: scan(Scope((Tree(str(env), TreeKind.ENVIRONMENT, Manager.CONDA, "one"),)), 1)
        )
        assert found.totals == Totals()
        assert found.warnings and all("one" in warning for warning in found.warnings)


def test_files_that_come_and_go_while_walking(tmp_path: Path) -> None:
    """A process creates and removes files and directories all the while; the rest is counted."""
    env = Forge(tmp_path).environment("one", {DIST: {f"lib/{number}": NATIVE for number in range(200)}})
    busy = env / "busy"
    busy.mkdir()
    child = os.fork()
    if child == 0:
        try:
            for number in range(1_000_000):
                folder = busy / f"d{number % 50}"
                folder.mkdir(exist_ok=True)
                for name in range(5):
                    (folder / str(name)).touch()
                shutil.rmtree(folder)
        finally:
            os._exit(0)
    try:
        for _ in range(60):
            found = scan_tree(env)
            assert {f"lib/{number}" for number in range(200)} <= names(found)
            assert_classes_sum_up(found)
            assert found.warnings == []
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)


def test_a_directory_replaced_by_a_link_while_walking(tmp_path: Path) -> None:
    """Whatever the owner does meanwhile, nothing outside is counted."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(NATIVE)
    env = Forge(tmp_path).environment("one", {DIST: {f"lib/{number}": b"x" for number in range(50)}})
    (env / "real").mkdir()
    child = os.fork()
    if child == 0:
        try:
            for _ in range(1_000_000):
                (env / "swap").symlink_to(outside)
                (env / "swap").unlink()
                os.rename(env / "real", env / "swap")
                os.rename(env / "swap", env / "real")
        finally:
            os._exit(0)
    try:
        for _ in range(200):
            assert not [name for name in names(scan_tree(env)) if "secret" in name]
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)


# -- listed paths -----------------------------------------------------------------------------------------


def test_listed_paths_only(tmp_path: Path) -> None:
    forge = Forge(tmp_path)
    env = forge.environment("one", {DIST: {"lib/x.so": NATIVE, "lib/y.so": NATIVE, "small": b"s"}})
    (env / "link").symlink_to("lib/x.so")
    os.mkfifo(env / "fifo")
    claims = {
        path: claim
        for path in (
            "lib/x.so",
            "small",
            "link",
            "fifo",
            "lib",
            "gone",
            "small/x",
            "a" * 300,
            "a/" * 3000 + "b",
        )
        for claim in [next(name.claim for inode in scan_tree(env).inodes.values() for name in inode.names)]
    }
    found = scan_listed(forge.scope(), {0: claims}, 4096)
    assert names(found) == {"lib/x.so"}
    assert found.totals.files == 2
    assert_classes_sum_up(found)


# -- the law ------------------------------------------------------------------------------------------------

FILES = st.lists(
    st.tuples(
        st.integers(0, 2),  # which tree
        st.sampled_from(["lib/a.so", "lib/b", "bin/c", "etc/d", "e/e/e.pyc", "f", "site/é\n"]),
        st.integers(0, 11),  # which inode
    ),
    max_size=25,
    unique_by=lambda item: item[:2],
)


@pytest.fixture(scope="module")
def playground(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("law")


@settings(deadline=None, max_examples=120, suppress_health_check=[HealthCheck.too_slow])
@given(
    files=FILES,
    sizes=st.lists(st.integers(0, 9000), min_size=12, max_size=12),
    selected=st.lists(st.booleans(), min_size=3, max_size=3),
    min_size=st.integers(1, 9001),
)
def test_any_trees_of_hard_links(
    playground: Path,
    files: list[tuple[int, str, int]],
    sizes: list[int],
    selected: list[bool],
    min_size: int,
) -> None:
    root = Path(tempfile.mkdtemp(dir=playground))
    forge = Forge(root)
    recorded = {path: b"" for tree, path, _ in files if tree == 1}
    roots = [forge.environment("one", {}), forge.environment("two", {}), forge.cache({})]
    forge._record(roots[1], DIST, recorded)
    inodes: dict[int, Path] = {}
    for tree, path, number in files:
        target = roots[tree] / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if number in inodes:
            os.link(inodes[number], target)
        else:
            target.write_bytes(b"x" * sizes[number])
            inodes[number] = target
    trees = tuple(replace(tree, selected=flag) for tree, flag in zip(forge.trees, selected, strict=True))
    found = scan(Scope(trees), min_size)

    total: dict[tuple[int, int], os.stat_result] = {}
    total_names = covered = 0
    candidates: dict[tuple[int, int], int] = {}
    records: set[tuple[int, int]] = set()
    for index, (tree, counted) in enumerate(zip(trees, found.trees, strict=True)):
        own: dict[tuple[int, int], list[os.stat_result]] = {}
        for folder, _, entries in os.walk(tree.root):
            for entry in entries:
                info = os.lstat(os.path.join(folder, entry))
                key = (info.st_dev, info.st_ino)
                own.setdefault(key, []).append(info)
                where = os.path.relpath(os.path.join(folder, entry), tree.root)
                if tree.selected:
                    total[key] = info
                    total_names += 1
                    covered += info.st_size
                    if index == 1 and where in recorded:
                        records.add(key)
                if info.st_size >= min_size and not (index < 2 and where.startswith("conda-meta/")):
                    candidates[key] = candidates.get(key, 0) + 1
        assert counted.files == sum(map(len, own.values()))
        assert counted.inodes == len(own)
        assert counted.apparent_bytes == sum(info.st_size for infos in own.values() for info in infos)
        assert counted.disk_bytes == sum(infos[0].st_blocks * 512 for infos in own.values())
        private = [infos[0] for infos in own.values() if infos[0].st_nlink == len(infos)]
        assert counted.private_bytes == sum(info.st_blocks * 512 for info in private)
    totals = found.totals
    assert (totals.files, totals.inodes, totals.apparent_bytes) == (total_names, len(total), covered)
    assert totals.disk_bytes == sum(info.st_blocks * 512 for info in total.values())
    left = [info.st_blocks * 512 for key, info in total.items() if key not in records]
    assert totals.unrecorded_bytes == sum(left)
    assert {tuple(key): len(inode.names) for key, inode in found.inodes.items()} == candidates
    assert_classes_sum_up(found)
    shutil.rmtree(root)
