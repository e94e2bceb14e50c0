"""The settings: from files and variables here, from real conda in a process of its own."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from conda_dedup_plugin import settings
from conda_dedup_plugin.model import MethodChoice

PREFIXES = ("CONDA", "_CONDA", "MAMBA", "RATTLER", "PIXI", "MAGIC", "XDG")
needs_conda = pytest.mark.skipif(importlib.util.find_spec("conda") is None, reason="conda is not installed")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in list(os.environ):
        if name.startswith(PREFIXES):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_nothing_set(home: Path) -> None:
    assert settings.load() == settings.Settings()
    assert settings.always_copy() is False


@pytest.mark.parametrize("text", ["false", "no", "off", "OFF", "n", "0", "'False'"])
def test_auto_off(home: Path, text: str) -> None:
    (home / ".condarc").write_text(f"plugins:\n  dedup_auto: {text}\n")
    assert settings.load() == settings.Settings(auto=False)


def test_all_from_a_file_and_variables_win(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / ".condarc").write_text(
        "plugins:\n  dedup_auto: yes\n  dedup_method: Reflink\n  dedup_min_size: 0\n  other: 1\n"
    )
    assert settings.load() == settings.Settings(True, MethodChoice.REFLINK, 0)
    monkeypatch.setenv("CONDA_PLUGINS_DEDUP_AUTO", "off")
    monkeypatch.setenv("CONDA_PLUGINS_DEDUP_METHOD", "hardlink")
    monkeypatch.setenv("CONDA_PLUGINS_DEDUP_MIN_SIZE", " 1048576 ")
    assert settings.load() == settings.Settings(False, MethodChoice.HARDLINK, 1 << 20)


def test_unset_values_are_defaults_without_a_word(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / ".condarc").write_text("plugins:\n  dedup_auto:\n  dedup_method: none\n")
    monkeypatch.setenv("CONDA_PLUGINS_DEDUP_MIN_SIZE", "")
    assert settings.load() == settings.Settings()


def test_notices_and_snapshots(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / ".condarc").write_text(
        "plugins:\n  dedup_notify_bytes: 0\n  dedup_notify_days: 30\n  dedup_snapshot_dir: ~/kept\n"
    )
    expected = settings.Settings(notify_bytes=0, notify_days=30, snapshot_dir=f"{home}/kept")
    assert settings.load() == expected
    monkeypatch.setenv("CONDA_PLUGINS_DEDUP_SNAPSHOT_DIR", "$HOME/elsewhere")
    assert settings.load().snapshot_dir == f"{home}/elsewhere"


@pytest.mark.parametrize(
    ("name", "text", "used"),
    [
        ("dedup_auto", "maybe", "true"),
        ("dedup_auto", "2", "true"),
        ("dedup_auto", "[true]", "true"),
        ("dedup_auto", "2020-01-01", "true"),
        ("dedup_method", "foo", "auto"),
        ("dedup_method", "{a: b}", "auto"),
        ("dedup_method", "true", "auto"),
        ("dedup_min_size", "abc", "4096"),
        ("dedup_min_size", "-1", "4096"),
        ("dedup_min_size", "1.5", "4096"),
        ("dedup_min_size", "true", "4096"),
        ("dedup_min_size", "9" * 4000, "4096"),
        ("dedup_min_size", "²", "4096"),
        ("dedup_notify_bytes", "1 GB", "1000000000"),
        ("dedup_notify_days", "-7", "7"),
        ("dedup_snapshot_dir", "relative/path", "none"),
        ("dedup_snapshot_dir", "7", "none"),
    ],
)
def test_a_bad_value_is_the_default_and_one_sentence(home: Path, name: str, text: str, used: str) -> None:
    (home / ".condarc").write_text(f"plugins:\n  {name}: {text}\n")
    loaded = settings.load()
    (warning,) = loaded.warnings
    assert msgspec.structs.replace(loaded, warnings=()) == settings.Settings()
    assert warning.startswith(f"The setting {name} is ")
    assert str(home / ".condarc") in warning
    assert warning.endswith(f"{used} is used.")
    assert len(warning) < 300


def test_a_bad_variable_is_named(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONDA_PLUGINS_DEDUP_METHOD", "foo")
    assert "'foo' in $CONDA_PLUGINS_DEDUP_METHOD," in settings.load().warnings[0]


@pytest.mark.parametrize("plugins", ["foo", "[a]", "1", "{}", "null"])
def test_plugins_that_are_no_mapping(home: Path, plugins: str) -> None:
    (home / ".condarc").write_text(f"plugins: {plugins}\n")
    assert settings.load() == settings.Settings()


def test_a_broken_file_is_a_warning(home: Path) -> None:
    (home / ".condarc").write_text("plugins: [\n")
    loaded = settings.load()
    assert loaded.auto
    assert len(loaded.warnings) == 1
    assert settings.always_copy() is False


@pytest.mark.parametrize("name", ["always_copy", "copy"])
def test_always_copy(home: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    (home / ".condarc").write_text(f"{name}: true\n")
    assert settings.always_copy() is True
    monkeypatch.setenv(f"CONDA_{name.upper()}", "false")
    assert settings.always_copy() is False


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@hypothesis_settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.tuples(JUNK, JUNK, JUNK))
def test_load_never_raises(home: Path, values: tuple[object, object, object]) -> None:
    names = ("dedup_auto", "dedup_method", "dedup_min_size")
    text = json.dumps({"plugins": dict(zip(names, values, strict=True))})  # JSON is YAML, but for its floats
    (home / ".condarc").write_text(text)
    loaded = settings.load()
    assert type(loaded.auto) is bool
    assert isinstance(loaded.method, MethodChoice)
    assert loaded.min_size >= 0
    assert len(loaded.warnings) <= 3


def test_importing_is_cheap() -> None:
    heavy = {"rich", "ruamel", "ruamel.yaml", "conda", "difflib", "hypothesis"}
    code = (
        "import sys; import conda_dedup_plugin.settings, conda_dedup_plugin.environments;"
        f"print(sorted(set(sys.modules) & {heavy!r}))"
    )
    assert run(code) == "[]\n"


def run(code: str) -> str:
    root = str(Path(settings.__file__).parents[1])
    paths = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


IN_CONDA = """
    import contextlib, dataclasses, io, json, sys
    from conda.base.context import context, reset_context
    from conda.cli.main import main_subshell
    from conda.plugins import hookimpl
    from conda.plugins.manager import get_plugin_manager
    from conda_dedup_plugin import declared, settings

    class Plugin:
        @hookimpl
        def conda_settings(self):
            yield from declared.conda_settings()

    get_plugin_manager().register(Plugin())
    reset_context()
    loaded = settings.load()
    codes = []
    for words in (["--show"], ["--show-sources"], ["--describe"], ["--validate"], ["--show", "--json"]):
        with contextlib.redirect_stdout(io.StringIO()) as out:
            codes.append(main_subshell("config", *words))
    print(json.dumps({
        "auto": loaded.auto, "method": loaded.method.value, "min_size": loaded.min_size,
        "warnings": loaded.warnings, "copy": settings.always_copy(), "codes": codes,
        "shown": json.loads(out.getvalue()).get("plugins"),
    }))
"""


@needs_conda
def test_conda_gives_the_settings(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / ".condarc").write_text(
        "always_copy: true\nplugins:\n  dedup_auto: false\n  dedup_method: reflink\n  dedup_min_size: 1\n"
    )
    monkeypatch.setenv("CONDA_PLUGINS_DEDUP_MIN_SIZE", "8192")
    answer = json.loads(run(IN_CONDA))
    assert (answer["auto"], answer["method"], answer["min_size"]) == (False, "reflink", 8192)
    assert answer["warnings"] == []
    assert answer["copy"] is True
    assert not any(answer["codes"])
    # 24.7 shows no plugin's settings.
    assert answer["shown"] is None or answer["shown"]["dedup_method"] == "reflink"


@needs_conda
@pytest.mark.parametrize(
    "line",
    [
        "dedup_auto: maybe",
        "dedup_auto: [a, {b: c}]",
        "dedup_method: {a: [b]}",
        "dedup_method: {}",
        "dedup_min_size: abc",
        "dedup_notify_bytes: [1]",
        "dedup_notify_days: soon",
        "dedup_snapshot_dir: {a: b}",
    ],
)
def test_no_value_makes_conda_fail(home: Path, line: str) -> None:
    (home / ".condarc").write_text(f"plugins:\n  {line}\n")
    answer = json.loads(run(IN_CONDA))
    assert not any(answer["codes"])
    (warning,) = answer["warnings"]
    assert line.split(":")[0] in warning
    assert str(home / ".condarc") in warning
    assert (answer["auto"], answer["method"], answer["min_size"]) == (True, "auto", 4096)


@needs_conda
def test_conda_without_the_plugin_falls_back_to_the_files(home: Path) -> None:
    (home / ".condarc").write_text("plugins: {dedup_auto: off}\n")
    code = """
        import conda.base.context
        from conda.plugins.manager import get_plugin_manager
        from conda_dedup_plugin import settings
        get_plugin_manager().disable_external_plugins()
        print(settings.load().auto)
    """
    assert run(code) == "False\n"


@needs_conda
def test_conda_config_can_set_them(home: Path) -> None:
    if json.loads(run(IN_CONDA))["shown"] is None:
        pytest.skip("this conda sets no plugin's settings")
    run(IN_CONDA.replace('["--show"],', '["--set", "plugins.dedup_method", "hardlink"],', 1))
    assert settings.load().method is MethodChoice.HARDLINK
