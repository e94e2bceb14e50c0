"""Finding environments and caches: real directories, nothing of this machine."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from conda_dedup_plugin import environments
from conda_dedup_plugin.environments import Request, find, is_build_tree, is_environment, is_package_cache
from conda_dedup_plugin.errors import UsageError
from conda_dedup_plugin.model import Manager, Scope, TreeKind

PREFIXES = ("CONDA", "_CONDA", "MAMBA", "RATTLER", "PIXI", "MAGIC", "XDG", "UV_")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in list(os.environ):
        if name.startswith(PREFIXES):
            monkeypatch.delenv(name)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(home)
    return home


def environment(path: Path, history: str | None = "==> now <==\n# cmd: /opt/conda/bin/conda create\n") -> str:
    (path / "conda-meta").mkdir(parents=True)
    if history is not None:
        (path / "conda-meta" / "history").write_text(history)
    return os.path.realpath(path)


def cache(path: Path, urls: bool = True, packages: tuple[str, ...] = ("a-1-0",)) -> str:
    path.mkdir(parents=True)
    if urls:
        (path / "urls.txt").write_text("https://example.org/linux-64/a-1-0.conda\n")
    for package in packages:
        (path / package / "info").mkdir(parents=True)
        (path / package / "info" / "index.json").write_text("{}")
        (path / package / "info" / "paths.json").write_text("{}")
    return os.path.realpath(path)


def base(path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a base that is known as conda's own."""
    environment(path)
    cache(path / "pkgs")
    monkeypatch.setenv("CONDA_EXE", str(path / "bin" / "conda"))
    return path


def register(home: Path, *prefixes: object) -> None:
    (home / ".conda").mkdir(exist_ok=True)
    (home / ".conda" / "environments.txt").write_text("".join(f"{prefix}\n" for prefix in prefixes))


def roots(scope: Scope, selected: bool | None = None) -> list[str]:
    return [tree.root for tree in scope.trees if selected is None or tree.selected is selected]


def names(scope: Scope) -> dict[str, str]:
    return {tree.root: tree.name for tree in scope.trees}


class TestWhatADirectoryIs:
    def test_environment(self, tmp_path: Path) -> None:
        assert is_environment(environment(tmp_path / "a", history=None))
        assert not is_environment(str(tmp_path))
        (tmp_path / "file").mkdir()
        (tmp_path / "file" / "conda-meta").write_text("")
        assert not is_environment(str(tmp_path / "file"))
        assert not is_environment(str(tmp_path / "absent"))

    @pytest.mark.parametrize(
        "part", ["_h_env_placehold_placehold_p", "_test_env_placehold", "_build_env", "_test_env"]
    )
    def test_build_trees(self, tmp_path: Path, part: str) -> None:
        path = environment(tmp_path / "conda-bld" / "x_1" / part)
        assert is_build_tree(path)
        assert is_build_tree(os.path.join(path, "lib"))
        assert not is_environment(path)
        assert not is_build_tree(str(tmp_path / f"x{part}"))

    def test_package_cache(self, tmp_path: Path) -> None:
        assert is_package_cache(cache(tmp_path / "a", packages=()))
        assert is_package_cache(cache(tmp_path / "b", urls=False))
        assert not is_package_cache(cache(tmp_path / "c", urls=False, packages=()))
        assert not is_package_cache(str(tmp_path / "absent"))

    def test_an_environment_is_no_cache(self, tmp_path: Path) -> None:
        path = environment(tmp_path / "a")
        (tmp_path / "a" / "urls.txt").touch()
        assert not is_package_cache(path)


class TestDiscovery:
    def test_nothing_there(self, home: Path) -> None:
        assert find(Request()) == Scope(())

    def test_caches_first_and_everything_selected(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        root = base(home / "conda", monkeypatch)
        b = environment(root / "envs" / "b")
        a = environment(home / ".conda" / "envs" / "a")
        mine = cache(home / ".conda" / "pkgs")
        scope = find(Request())
        assert roots(scope) == [mine, str(root / "pkgs"), a, str(root), b]
        assert roots(scope, selected=False) == []
        assert names(scope) == {
            mine: ".conda/pkgs",
            str(root / "pkgs"): "conda/pkgs",
            a: "a",
            b: "b",
            str(root): "base",
        }
        assert scope.warnings == ()

    def test_condarc_and_variables(self, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (home / ".condarc").write_text(
            f"envs_dirs: ['{tmp_path}/file']\npkgs_dirs: ['{tmp_path}/filepkgs']\n"
        )
        monkeypatch.setenv("CONDA_ENVS_DIRS", f"{tmp_path}/one{os.pathsep}{tmp_path}/two")
        monkeypatch.setenv("CONDA_ENVS_PATH", f"{tmp_path}/three")
        monkeypatch.setenv("CONDA_PKGS_DIRS", f"{tmp_path}/p1, {tmp_path}/p2")
        caches = [cache(tmp_path / name) for name in ("filepkgs", "p1", "p2")]
        envs = [environment(tmp_path / name / "e") for name in ("file", "one", "three", "two")]
        assert roots(find(Request())) == caches + envs

    def test_environments_txt_with_stale_lines(self, home: Path, tmp_path: Path) -> None:
        known = environment(tmp_path / "somewhere")
        register(home, tmp_path / "gone", known, "", "relative/path", "/dev/null", "a\0b", known)
        before = (home / ".conda" / "environments.txt").read_bytes()
        scope = find(Request())
        assert roots(scope) == [known]
        assert scope.warnings == ()
        assert (home / ".conda" / "environments.txt").read_bytes() == before

    def test_a_tree_appears_once_by_its_real_path(self, home: Path, tmp_path: Path) -> None:
        real = environment(tmp_path / "disk" / "real")
        (home / ".conda" / "envs").mkdir(parents=True)
        (home / ".conda" / "envs" / "alias").symlink_to(real)
        register(home, real, tmp_path / "disk" / ".." / "disk" / "real")
        scope = find(Request())
        assert names(scope) == {real: "alias"}

    def test_linked_envs_dir_brings_both_siblings(
        self, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        root = base(home / "conda", monkeypatch)
        env = environment(tmp_path / "data" / "envs" / "e")
        (root / "envs").symlink_to(tmp_path / "data" / "envs")
        beside = cache(tmp_path / "data" / "pkgs")
        scope = find(Request())
        assert {env, beside, str(root), str(root / "pkgs")} == set(roots(scope))
        assert names(scope)[env] == "e"

    def test_the_cache_of_a_registered_environments_base(self, home: Path, tmp_path: Path) -> None:
        env = environment(tmp_path / "forge" / "envs" / "e")
        pkgs = cache(tmp_path / "forge" / "pkgs")
        register(home, env)
        assert roots(find(Request()), selected=True) == [pkgs, env]

    def test_mamba(self, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for root in (home / "micromamba", home / ".local/share/mamba", tmp_path / "mine"):
            environment(root / "envs" / "e")
            cache(root / "pkgs")
        cache(home / ".mamba" / "pkgs")
        monkeypatch.setenv("MAMBA_ROOT_PREFIX", str(tmp_path / "mine"))
        assert len(roots(find(Request()))) == 7

    def test_the_active_environment(
        self, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        env = environment(tmp_path / "active")
        monkeypatch.setenv("CONDA_PREFIX", env)
        assert roots(find(Request())) == [env]

    def test_rattler_default_and_variables(
        self, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        default = cache(home / ".cache" / "rattler" / "cache" / "pkgs", urls=False)
        (tree,) = find(Request()).trees
        assert (tree.root, tree.manager, tree.name) == (default, Manager.RATTLER, "rattler/cache/pkgs")
        assert not tree.is_conda_cache
        mine = cache(tmp_path / "mine" / "pkgs", urls=False)
        pixi = cache(tmp_path / "pixi" / "pkgs", urls=False)
        monkeypatch.setenv("RATTLER_CACHE_DIR", str(tmp_path / "mine"))
        monkeypatch.setenv("PIXI_CACHE_DIR", str(tmp_path / "pixi"))
        assert roots(find(Request())) == [mine, pixi]

    def test_xdg_cache_home(self, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
        rattler = cache(tmp_path / "xdg" / "rattler" / "cache" / "pkgs", urls=False)
        pixi = cache(tmp_path / "xdg" / "pixi" / "pkgs", urls=False)
        assert roots(find(Request())) == [pixi, rattler]

    def test_the_project_around_the_working_directory(
        self, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        environment(tmp_path / ".pixi" / "envs" / "outer")
        project = tmp_path / "work" / "proj"
        pixi = environment(project / ".pixi" / "envs" / "default", history=None)
        magic = environment(project / ".magic" / "envs" / "gpu", history=None)
        (project / "src" / "deep").mkdir(parents=True)
        monkeypatch.chdir(project / "src" / "deep")
        scope = find(Request())
        assert [(tree.root, tree.name, tree.manager) for tree in scope.trees] == [
            (magic, "proj/gpu", Manager.MAGIC),
            (pixi, "proj/default", Manager.PIXI),
        ]

    def test_pixi_global(self, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        env = environment(tmp_path / "pixihome" / "envs" / "tool")
        monkeypatch.setenv("PIXI_HOME", str(tmp_path / "pixihome"))
        assert roots(find(Request())) == [env]

    @pytest.mark.parametrize("variable", ["", "RATTLER_CACHE_DIR", "PIXI_CACHE_DIR"])
    def test_pixis_detached_environments(
        self, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
    ) -> None:
        """pixi's ``detached-environments = true``, from anywhere."""
        cached = tmp_path / "chosen" if variable else home / ".cache/rattler/cache"
        if variable:
            monkeypatch.setenv(variable, str(cached))
        (cached / "envs" / "file").parent.mkdir(parents=True)
        (cached / "envs" / "file").touch()
        (cached / "envs" / "gone-12").mkdir()
        environment(cached / "envs" / "no-project")
        found = [
            environment(cached / "envs" / project / "envs" / name, history=None)
            for project, name in (("proj-123", "default"), ("proj-123", "gpu"), ("web-9", "default"))
        ]
        scope = find(Request())
        assert [(tree.root, tree.name, tree.manager) for tree in scope.trees] == [
            (found[0], "proj-123/default", Manager.PIXI),
            (found[1], "proj-123/gpu", Manager.PIXI),
            (found[2], "web-9/default", Manager.PIXI),
        ]
        assert scope.warnings == ()
        assert roots(find(Request(names=("web-9/default",))), selected=True) == [found[2]]

    def test_a_project_whose_environments_are_detached(
        self, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """pixi leaves a link to where it has them, which may be any directory."""
        project = tmp_path / "work" / "proj"
        (project / ".pixi").mkdir(parents=True)
        (project / "src").mkdir()
        for number, place in enumerate((home / ".cache/rattler/cache/envs", tmp_path / "elsewhere")):
            env = environment(place / "proj-123" / "envs" / "default", history=None)
            (place / "proj-123" / "envs" / "default" / "conda-meta" / "pixi").write_text("{}")
            (project / ".pixi" / "envs").unlink(missing_ok=True)
            (project / ".pixi" / "envs").symlink_to(place / "proj-123" / "envs")
            monkeypatch.chdir(project / "src")
            scope = find(Request(prefixes=(str(project / ".pixi/envs/default"),)))
            (tree,) = (tree for tree in scope.trees if tree.selected)
            assert (tree.root, tree.name, tree.manager) == (env, "proj-123/default", Manager.PIXI)
            assert len(find(Request()).trees) == number + 1

    def test_a_removed_working_directory(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (home / "gone").mkdir()
        monkeypatch.chdir(home / "gone")
        (home / "gone").rmdir()
        assert find(Request()) == Scope(())

    def test_what_is_no_environment_is_passed_over(
        self, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        envs = home / ".conda" / "envs"
        env = environment(envs / "e")
        (envs / "empty").mkdir()
        (envs / ".conda_envs_dir_test").touch()
        (envs / "dangling").symlink_to("nowhere")
        (envs / "loop").symlink_to("loop")
        environment(envs / "_test_env_placehold")
        monkeypatch.setenv("CONDA_PKGS_DIRS", f"{tmp_path}/nothing,/dev/null,{envs}")
        monkeypatch.setenv("CONDA_ENVS_DIRS", f"/dev/null{os.pathsep}{tmp_path}/nothing")
        scope = find(Request())
        assert roots(scope) == [env]
        assert scope.warnings == ()

    def test_bytes_that_are_no_text(self, home: Path) -> None:
        name = os.fsdecode(b"\xff\n")
        env = environment(home / ".conda" / "envs" / name)
        assert names(find(Request())) == {env: name}

    def test_a_bad_condarc_is_a_warning(self, home: Path) -> None:
        (home / ".condarc").write_text("[")
        scope = find(Request())
        assert scope.trees == ()
        assert str(home / ".condarc") in scope.warnings[0]

    def test_what_may_not_be_read_is_a_warning(self, monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
        # Not in tmp_path: another user can't come that far, which is what root has to become.
        with tempfile.TemporaryDirectory() as directory:
            shared = Path(directory)
            environment(shared / "closed" / "envs" / "hidden")
            readable = environment(shared / "open")
            (shared / "closed" / "envs").chmod(0)
            shared.chmod(0o755)
            monkeypatch.setenv("HOME", directory)
            monkeypatch.setenv("CONDA_ENVS_DIRS", str(shared / "closed" / "envs"))
            monkeypatch.setenv("CONDA_PREFIX", str(shared / "closed" / "envs" / "hidden"))
            register(shared, readable)
            root = os.geteuid() == 0
            if root:
                os.seteuid(65534)
            try:
                scope = find(Request())
                searched = find(Request(search=(directory,), discover=False))
            finally:
                if root:
                    os.seteuid(0)
                (shared / "closed" / "envs").chmod(0o755)
            assert roots(scope) == [os.path.realpath(readable)]
            assert len(scope.warnings) == 2
            assert all("ermission" in warning for warning in scope.warnings)
            assert roots(searched) == [os.path.realpath(readable)]
            assert any("could not be searched" in warning for warning in searched.warnings)


class TestNames:
    @pytest.fixture
    def root(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        root = base(home / "conda", monkeypatch)
        for name in ("data", "data-old", "web", "zz1", "zz2", "zz3", "zz4"):
            environment(root / "envs" / name)
        return root

    def test_the_others_are_donors(self, root: Path) -> None:
        scope = find(Request(names=("data", "web")))
        assert roots(scope, selected=True) == [str(root / "envs" / "data"), str(root / "envs" / "web")]
        assert str(root / "pkgs") in roots(scope, selected=False)
        assert len(scope.trees) == 9

    def test_without_discovery_there_are_no_donors(self, root: Path) -> None:
        scope = find(Request(names=("base",), discover=False))
        assert roots(scope) == roots(scope, selected=True) == [str(root)]

    def test_an_unknown_name(self, root: Path) -> None:
        with pytest.raises(UsageError) as caught:
            find(Request(names=("dta",)))
        assert str(caught.value) == "There is no environment named 'dta'."
        assert caught.value.hint.startswith("Known names: 'data', ")
        assert "and 3 more" in caught.value.hint
        assert caught.value.exit_code == 2

    def test_an_unknown_name_where_there_is_nothing(self, home: Path) -> None:
        with pytest.raises(UsageError) as caught:
            find(Request(names=("a",)))
        assert "--prefix" in caught.value.hint

    def test_the_first_envs_dir_wins(
        self, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = environment(tmp_path / "zzz" / "web")
        monkeypatch.setenv("CONDA_ENVS_DIRS", str(tmp_path / "zzz"))
        scope = find(Request(names=("web",)))
        assert roots(scope, selected=True) == [first]
        assert list(names(scope).values()).count("web") == 2

    def test_base_is_condas_before_mambas(self, root: Path, home: Path) -> None:
        mamba = environment(home / "micromamba")
        scope = find(Request(names=("base",)))
        assert roots(scope, selected=True) == [str(root)]
        assert names(scope)[mamba] == "base"


class TestPrefixes:
    def test_a_prefix_anywhere(self, home: Path, tmp_path: Path) -> None:
        env = environment(tmp_path / "x" / "envs" / "e")
        pkgs = cache(tmp_path / "x" / "pkgs")
        scope = find(Request(prefixes=(f"{tmp_path}/x/../x/envs/e",)))
        assert roots(scope, selected=True) == [env]
        assert roots(scope, selected=False) == [pkgs]
        assert roots(find(Request(prefixes=(env,), discover=False))) == [env]

    def test_relative_to_here_and_to_home(self, home: Path) -> None:
        env = environment(home / "e")
        assert roots(find(Request(prefixes=("e", "~/e")))) == [env]

    @pytest.mark.parametrize("prefix", ["nothing", "", "a\0b", "file", "empty"])
    def test_no_environment(self, home: Path, prefix: str) -> None:
        (home / "file").touch()
        (home / "empty").mkdir()
        with pytest.raises(UsageError) as caught:
            find(Request(prefixes=(prefix,)))
        assert "There is no environment at " in str(caught.value)
        assert caught.value.hint

    def test_a_build_tree(self, home: Path) -> None:
        with pytest.raises(UsageError, match="build tree"):
            find(Request(prefixes=(environment(home / "_h_env_placehold"),)))

    def test_nothing_at_all(self, home: Path) -> None:
        with pytest.raises(UsageError) as caught:
            find(Request(discover=False))
        assert "--prefix" in caught.value.hint


class TestCaches:
    def test_a_named_cache_is_selected(self, home: Path, tmp_path: Path) -> None:
        mine = cache(tmp_path / "mine")
        other = cache(home / ".conda" / "pkgs")
        scope = find(Request(pkgs_dirs=(mine,)))
        assert roots(scope, selected=True) == [mine]
        assert roots(scope, selected=False) == [other]

    def test_no_directory(self, home: Path) -> None:
        with pytest.raises(UsageError, match="There is no directory"):
            find(Request(pkgs_dirs=("nothing",)))

    def test_no_cache(self, home: Path) -> None:
        scope = find(Request(pkgs_dirs=(str(home),)))
        assert scope.trees == ()
        assert "no package cache" in scope.warnings[0]


class TestSearch:
    def test_everything_below(self, home: Path, tmp_path: Path) -> None:
        top = tmp_path / "top"
        root = environment(top / "conda")
        env = environment(top / "conda" / "envs" / "e")
        pkgs = cache(top / "conda" / "pkgs")
        pixi = environment(top / "team" / "proj" / ".pixi" / "envs" / "default")
        magic = environment(top / "team" / "proj" / ".magic" / "envs" / "default")
        rattler = cache(top / "hidden" / ".cache" / "pkgs", urls=False)
        scope = find(Request(search=(str(top),)))
        assert roots(scope, selected=True) == sorted([pkgs, rattler]) + sorted([root, env, pixi, magic])

    def test_what_is_not_looked_into(self, home: Path, tmp_path: Path) -> None:
        top = tmp_path / "top"
        root = environment(top / "conda")
        environment(top / "conda" / "share" / "nested")
        environment(top / "conda" / "conda-meta" / "nested")
        environment(top / "_build_env" / "e")
        environment(top / "outside")
        for name in (".git", "node_modules", "__pycache__"):
            environment(top / name / "e")
        environment(cache_path := Path(cache(top / "pkgs")) / "a-1-0" / "e")
        elsewhere = environment(tmp_path / "elsewhere")
        (top / "link").symlink_to(elsewhere)
        found = roots(find(Request(search=(str(top),))))
        assert found == [str(top / "pkgs"), root, str(top / "outside")]
        assert str(cache_path) not in found

    def test_a_directory_that_is_one_itself(self, home: Path, tmp_path: Path) -> None:
        env = environment(tmp_path / "e")
        pkgs = cache(tmp_path / "p")
        assert roots(find(Request(search=(env, pkgs)))) == [pkgs, env]

    def test_a_link_to_the_directory(self, home: Path, tmp_path: Path) -> None:
        env = environment(tmp_path / "real" / "e")
        (tmp_path / "link").symlink_to("real")
        assert roots(find(Request(search=(str(tmp_path / "link"),)))) == [env]

    def test_files_of_other_kinds_make_no_cache(self, home: Path, tmp_path: Path) -> None:
        site = tmp_path / "site"
        (site / "about" / "info").mkdir(parents=True)
        (site / "about" / "info" / "index.json").write_text("{}")
        (tmp_path / "scraper").mkdir()
        (tmp_path / "scraper" / "urls.txt").write_text("https://example.org\n")
        assert find(Request(search=(str(tmp_path),))).trees == ()

    def test_a_cache_of_archives(self, home: Path, tmp_path: Path) -> None:
        pkgs = Path(cache(tmp_path / "pkgs", packages=()))
        (pkgs / "a-1-0.conda").touch()
        assert roots(find(Request(search=(str(tmp_path),)))) == [str(pkgs)]

    def test_nothing_below_is_a_warning(self, home: Path, tmp_path: Path) -> None:
        (tmp_path / "void").mkdir()
        scope = find(Request(search=(str(tmp_path / "void"),)))
        assert scope.trees == ()
        assert str(tmp_path / "void") in scope.warnings[0]

    def test_no_such_directory(self, home: Path) -> None:
        with pytest.raises(UsageError, match="to search") as caught:
            find(Request(search=("nothing",)))
        assert caught.value.hint

    def test_what_was_discovered_already_becomes_selected(self, home: Path) -> None:
        env = environment(home / ".conda" / "envs" / "e")
        other = environment(home / ".conda" / "envs" / "other")
        scope = find(Request(search=(env,)))
        assert (roots(scope, selected=True), roots(scope, selected=False)) == ([env], [other])


class TestManagers:
    @pytest.mark.parametrize(
        ("history", "manager"),
        [
            (None, Manager.RATTLER),
            ("", Manager.CONDA),
            ("==> now <==\n# cmd: /opt/conda/bin/conda create -n mamba python\n", Manager.CONDA),
            ("==> now <==\n# cmd: /opt/mambaforge/bin/conda create -n a\n", Manager.CONDA),
            ("==> now <==\n# cmd: /opt/conda/bin/mamba create -n a\n", Manager.MAMBA),
            ("==> now <==\n# cmd: micromamba create -n a\n", Manager.MAMBA),
            ("==> now <==\n# cmd: /home/a b/bin/micromamba create\n", Manager.MAMBA),
            ("# conda\n" * 1000 + "# cmd: mamba install\n", Manager.CONDA),
        ],
    )
    def test_by_history(self, home: Path, history: str | None, manager: Manager) -> None:
        (tree,) = find(Request(prefixes=(environment(home / "e", history),))).trees
        assert tree.manager is manager

    def test_pixi_by_its_file(self, home: Path) -> None:
        env = environment(home / "detached" / "default")
        (home / "detached" / "default" / "conda-meta" / "pixi").write_text("{}")
        (tree,) = find(Request(prefixes=(env,))).trees
        assert (tree.manager, tree.kind) == (Manager.PIXI, TreeKind.ENVIRONMENT)

    def test_caches(self, home: Path, tmp_path: Path) -> None:
        conda = cache(tmp_path / "conda")
        bare = cache(tmp_path / "bare", urls=False)
        locked = cache(tmp_path / "locked", urls=False)
        Path(locked, "a-1-0.lock").touch()
        scope = find(Request(pkgs_dirs=(conda, bare, locked)))
        managers = {tree.root: tree.manager for tree in scope.trees}
        assert managers == {conda: Manager.CONDA, bare: Manager.CONDA, locked: Manager.RATTLER}

    def test_frozen(self, home: Path) -> None:
        env = environment(home / "e")
        (home / "e" / "conda-meta" / "frozen").touch()
        free = environment(home / "f")
        scope = find(Request(prefixes=(env, free)))
        assert [tree.frozen for tree in scope.trees] == [True, False]


@pytest.mark.skipif(importlib.util.find_spec("conda") is None, reason="conda is not installed")
def test_with_conda_imported(home: Path, tmp_path: Path) -> None:
    env = environment(tmp_path / "mine" / "e")
    pkgs = cache(tmp_path / "mypkgs")
    gone = tmp_path / "gone"
    registered = environment(tmp_path / "r")
    register(home, gone, registered)
    (home / ".condarc").write_text(f"envs_dirs: ['{tmp_path}/mine']\npkgs_dirs: ['{tmp_path}/mypkgs']\n")
    code = (
        "from conda.base.context import reset_context; reset_context();"
        "import json; from conda_dedup_plugin.environments import Request, find;"
        "s = find(Request()); print(json.dumps({t.root: t.name for t in s.trees}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(
                [str(Path(environments.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
            ),
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert {env: "e", pkgs: "mypkgs", registered: "r"}.items() <= found.items()
    assert str(gone) in (home / ".conda" / "environments.txt").read_text()
