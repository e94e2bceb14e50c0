"""Virtual environments: named or searched for, never discovered; and real ones share what pip installed."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from conda_dedup_plugin.demo.wheels import distribution_wheel, make_wheel
from conda_dedup_plugin.environments import Request, find, is_environment
from conda_dedup_plugin.errors import UsageError
from conda_dedup_plugin.inventory import scan
from conda_dedup_plugin.model import Manager, TreeKind
from conda_dedup_plugin.records import Records, read_claims
from conda_dedup_plugin.trees import is_virtual_environment
from tests.lab import needs
from tests.lab.conda_wheel import importable
from tests.lab.forge import noise
from tests.lab.invariants import assert_unchanged, directories, du, snapshot
from tests.records.test_uv_cache import install, pip_install, unpack
from tests.test_environments import environment, home, names, register, roots
from tests.test_report import World

__all__ = ["home"]

SITE = "lib/python3.11"


def venv(path: Path) -> str:
    path.mkdir(parents=True)
    (path / "pyvenv.cfg").write_text("home = /usr/bin\n")
    return os.path.realpath(path)


class TestWhatADirectoryIs:
    def test_by_its_file(self, tmp_path: Path) -> None:
        path = venv(tmp_path / "a")
        assert is_virtual_environment(path)
        assert not is_environment(path)
        assert not is_virtual_environment(str(tmp_path))
        assert not is_virtual_environment(str(tmp_path / "absent"))

    def test_only_a_regular_file_counts(self, tmp_path: Path) -> None:
        (tmp_path / "directory/pyvenv.cfg").mkdir(parents=True)
        (tmp_path / "link").mkdir()
        (tmp_path / "link/pyvenv.cfg").symlink_to(f"{venv(tmp_path / 'a')}/pyvenv.cfg")
        (tmp_path / "pipe").mkdir()
        os.mkfifo(tmp_path / "pipe/pyvenv.cfg")
        for name in ("directory", "link", "pipe"):
            assert not is_virtual_environment(str(tmp_path / name))
            with pytest.raises(UsageError):
                find(Request(prefixes=(str(tmp_path / name),), discover=False))

    def test_what_conda_has_its_records_in_is_condas(self, home: Path) -> None:
        """conda may be installed into a virtual environment."""
        path = venv(home / "a")
        environment(home / "a")
        assert not is_virtual_environment(path)
        (tree,) = find(Request(prefixes=(path,))).trees
        assert tree.manager is Manager.CONDA

    def test_no_build_tree(self, home: Path) -> None:
        path = venv(home / "_build_env/a")
        assert not is_virtual_environment(path)
        with pytest.raises(UsageError, match="build tree"):
            find(Request(prefixes=(path,)))


class TestWhereTheyAre:
    def test_named(self, home: Path) -> None:
        path = venv(home / "a")
        (home / "link").symlink_to("a")
        (tree,) = find(Request(prefixes=("a", "link"), discover=False)).trees
        assert (tree.root, tree.kind, tree.manager) == (path, TreeKind.ENVIRONMENT, Manager.VENV)
        assert (tree.name, tree.selected, tree.frozen) == ("a", True, False)

    def test_not_discovered(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = venv(home / ".conda/envs/a")
        register(home, path)
        monkeypatch.setenv("CONDA_PREFIX", path)
        monkeypatch.setenv("VIRTUAL_ENV", path)
        assert find(Request()).trees == ()
        other = environment(home / ".conda/envs/b")
        assert roots(find(Request(prefixes=(other,)))) == [other]
        scope = find(Request(prefixes=(path,)))
        assert (roots(scope, selected=True), roots(scope, selected=False)) == ([path], [other])

    def test_neither_kind(self, home: Path) -> None:
        (home / "empty").mkdir()
        with pytest.raises(UsageError) as caught:
            find(Request(prefixes=("empty",)))
        assert str(caught.value) == f"There is no environment at {str(home / 'empty')!r}."
        assert "conda-meta" in caught.value.hint and "pyvenv.cfg" in caught.value.hint

    @pytest.mark.parametrize(
        ("path", "name"),
        [
            ("proj/.venv", "proj/.venv"),
            ("proj/venv", "proj/venv"),
            ("proj/env", "proj/env"),
            ("proj/tools", "tools"),
            (".virtualenvs/web", "web"),
            (".conda/envs/env", "env"),
        ],
    )
    def test_names(self, home: Path, path: str, name: str) -> None:
        root = venv(home / path)
        assert names(find(Request(prefixes=(root,)))) == {root: name}

    def test_condas_environments_keep_their_names(self, home: Path) -> None:
        root = environment(home / "proj/env")
        assert names(find(Request(prefixes=(root,)))) == {root: "env"}

    def test_searched(self, home: Path, tmp_path: Path) -> None:
        top = tmp_path / "top"
        found = [venv(top / "a/.venv"), venv(top / "b/deep/venv"), environment(top / "c/.pixi/envs/default")]
        environment(top / "a/.venv/share/nested")
        venv(top / "a/.venv/envs/nested")
        venv(top / "d/.git/e")
        (top / "link").symlink_to(venv(tmp_path / "elsewhere"))
        scope = find(Request(search=(str(top),)))
        assert roots(scope, selected=True) == sorted(found)
        assert [tree.manager for tree in scope.trees].count(Manager.VENV) == 2
        assert roots(find(Request(search=(found[0],)))) == [found[0]]

    def test_one_in_another_tree_is_a_tree_of_its_own(self, home: Path) -> None:
        outer, inner = environment(home / "outer"), venv(home / "outer/work/.venv")
        for place in ("outer/lib", "outer/work/.venv/lib"):
            (home / place).mkdir()
            (home / place / "libx.so").write_bytes(noise("x", 5000))
        scope = find(Request(prefixes=(outer, inner), discover=False))
        inventory = scan(scope, 4096)
        files = {scope.trees[index].name: totals.files for index, totals in enumerate(inventory.trees)}
        assert files == {"outer": 2, "work/.venv": 2}
        assert sorted(name.tree for inode in inventory.inodes.values() for name in inode.names) == [0, 1]


class TestRecords:
    def test_those_of_wheels(self, tmp_path: Path) -> None:
        root = Path(venv(tmp_path / "a"))
        (tree,) = find(Request(prefixes=(str(root),), discover=False)).trees
        assert read_claims(tree) == Records()
        unpack(root / SITE, "site-packages")
        found = read_claims(tree)
        assert f"{SITE}/site-packages/tiny/_tiny.abi3.so" in found.claims
        assert all(claim.pip for claim in found.claims.values())
        assert found.warnings == []
        assert found.clobbered == {}


# -- real ones --------------------------------------------------------------------------------------------


@pytest.fixture
def world(tmp_path: Path) -> World:
    needs("needs pip", importable("pip"))
    return World(tmp_path / "world", tmp_path / "home")


@pytest.fixture
def venvs(world: World, tmp_path: Path) -> tuple[Path, Path]:
    """Two virtual environments of two projects with the same wheels."""
    wheels = [
        distribution_wheel(tmp_path, "msgspec"),
        make_wheel(
            tmp_path, "pure", "1.0", {"pure.py": b"def main(): pass\n"}, entry_points=["pure = pure:main"]
        ),
    ]
    one, two = (install(world.root / project / ".venv", *wheels) for project in ("one", "two"))
    return one, two


def imports(venv: Path) -> dict[str, Any]:
    """What a program says that runs in the environment, and loads the library."""
    program = "import json, msgspec, sys; print(json.dumps([sys.prefix, msgspec._core.__file__]))"
    command = [venv / "bin/python", "-BIc", program]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


@pytest.mark.integration
@pytest.mark.parametrize("how", ["named", "searched"])
def test_real_ones_share_and_take_back(world: World, venvs: tuple[Path, Path], how: str) -> None:
    one, two = venvs
    libraries = [next(venv.rglob("msgspec/*.so")) for venv in venvs]
    scope = ("-p", one, "-p", two) if how == "named" else ("--search", world.root)
    before, folders, used = snapshot(*venvs), directories(*venvs), du(*venvs)

    report = world.json("report", "--no-discover", *scope)
    rows = [(entry["name"], entry["prefix"], entry["manager"]) for entry in report["environments"]]
    assert sorted(rows) == [("one/.venv", str(one), "venv"), ("two/.venv", str(two), "venv")]
    size = libraries[0].stat().st_blocks * 512
    assert report["warnings"] == []
    assert report["totals"]["freeable_bytes"] == size
    assert snapshot(*venvs) == before

    done = world.json("apply", "--yes", "--method", "hardlink", "--no-discover", *scope)
    assert (done["failed"], done["done"]["bytes_freed"]) == ([], size)
    assert os.path.samefile(*libraries)
    assert used - du(*venvs) == size
    assert_unchanged(before, snapshot(*venvs), allow_mtime=lambda path: path.endswith(".so"))
    assert directories(*venvs) == folders
    for venv, library in zip(venvs, libraries, strict=True):
        assert imports(venv) == [str(venv), str(library)]
        subprocess.run([venv / "bin/pure"], check=True)
    assert world.json("verify", "--no-discover", *scope)["damaged"] == []

    world.json("undo", "--yes", *scope)
    assert not os.path.samefile(*libraries)
    assert_unchanged(before, snapshot(*venvs))
    assert directories(*venvs) == folders
    assert [imports(venv) for venv in venvs] == [
        [str(v), str(p)] for v, p in zip(venvs, libraries, strict=True)
    ]


@pytest.mark.integration
def test_what_pip_does_to_one_is_not_done_to_the_other(
    world: World, venvs: tuple[Path, Path], tmp_path: Path
) -> None:
    world.json("apply", "--yes", "--method", "hardlink", "--no-discover", "-p", venvs[0], "-p", venvs[1])
    library = next(venvs[1].rglob("msgspec/*.so"))
    before = snapshot(venvs[1])
    assert before[str(library)].nlink == 2
    pip_install(venvs[0], "--force-reinstall", next(tmp_path.glob("msgspec-*.whl")))
    assert_unchanged(before, snapshot(venvs[1]))
    assert library.stat().st_nlink == 1
    assert [imports(venv)[0] for venv in venvs] == list(map(str, venvs))


@pytest.mark.integration
def test_a_damaged_library_is_told(world: World, venvs: tuple[Path, Path]) -> None:
    library = next(venvs[0].rglob("msgspec/*.so"))
    scope = ("--no-discover", "-p", venvs[0], "-p", venvs[1])
    world.json("apply", "--yes", "--method", "hardlink", *scope)
    data = bytearray(library.read_bytes())
    data[5000] ^= 1
    library.write_bytes(data)
    document = world.json("verify", *scope, code=1)
    assert {path for damage in document["damaged"] for path in damage["names"]} == {
        str(next(venv.rglob("msgspec/*.so"))) for venv in venvs
    }
