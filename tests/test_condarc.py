"""Reading condarc files: conda's places and order, and never an error."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conda_dedup_plugin.condarc import MAX_BYTES, Condarc, expand, load_condarc

PREFIXES = ("CONDA", "_CONDA", "MAMBA", "RATTLER", "PIXI", "MAGIC", "XDG")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in list(os.environ):
        if name.startswith(PREFIXES):
            monkeypatch.delenv(name)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    return home


def write(path: Path, text: str | bytes) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def read_below(directory: Path) -> list[str]:
    """The files read, without what this machine has in /etc."""
    return [path for path, _ in load_condarc().files if path.startswith(str(directory))]


def test_no_file_says_nothing(home: Path) -> None:
    assert read_below(home) == []
    assert load_condarc().warnings == ()


def test_places_in_the_order_of_conda(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CONDA_ROOT", "CONDA_PREFIX", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("CONDARC", str(tmp_path / "mine.yaml"))
    expected = [
        write(tmp_path / "CONDA_ROOT/.condarc", "a: 1"),
        write(tmp_path / "CONDA_ROOT/condarc", "a: 1"),
        write(tmp_path / "CONDA_ROOT/condarc.d/1.yaml", "a: 1"),
        write(tmp_path / "CONDA_ROOT/condarc.d/2.yml", "a: 1"),
        write(tmp_path / "XDG_CONFIG_HOME/conda/.condarc", "a: 1"),
        write(home / ".config/conda/condarc", "a: 1"),
        write(home / ".conda/condarc.d/x.yml", "a: 1"),
        write(home / ".condarc", "a: 1"),
        write(home / ".mambarc", "a: 1"),
        write(tmp_path / "CONDA_PREFIX/.condarc", "a: 1"),
        write(tmp_path / "mine.yaml", "a: 1"),
    ]
    write(tmp_path / "CONDA_ROOT/condarc.d/ignored.txt", "a: 1")
    assert read_below(tmp_path) == expected


def test_root_is_known_from_conda_exe(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "base/.condarc", "a: 1")
    monkeypatch.setenv("CONDA_EXE", str(tmp_path / "base/bin/conda"))
    assert read_below(tmp_path) == [path]


def test_condarc_variable_takes_only_names_conda_takes(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONDARC", write(tmp_path / "other.txt", "a: 1"))
    assert read_below(tmp_path) == []
    monkeypatch.setenv("CONDARC", os.devnull)
    assert read_below(tmp_path) == []


def test_a_later_scalar_wins_and_variables_win_over_files(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(home / ".config/conda/condarc", "always_copy: true\nplugins: {x: 1, y: 2}\n")
    later = write(home / ".condarc", "copy: false\nplugins: {x: 3}\n")
    condarc = load_condarc()
    assert condarc.scalar("always_copy", "copy") == (False, later)
    assert condarc.plugin("x") == (3, later)
    assert condarc.plugin("y") == (2, str(home / ".config/conda/condarc"))
    assert condarc.plugin("z") is None
    monkeypatch.setenv("CONDA_PLUGINS_X", "7")
    monkeypatch.setenv("CONDA_COPY", "yes")
    assert condarc.plugin("x") == ("7", "$CONDA_PLUGINS_X")
    assert condarc.scalar("always_copy", "copy") == ("yes", "$CONDA_COPY")


def test_lists_are_joined_the_most_specific_first(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATA", "/data")
    write(home / ".config/conda/condarc", "pkgs_dirs: [/general, $DATA/pkgs]\n")
    write(home / ".condarc", "pkgs_dirs: ['~/pkgs', 5, null, \"a\\0b\"]\n")
    write(home / ".mambarc", "pkgs_dirs: /one\n")
    listed = load_condarc().paths("pkgs_dirs", separator=",")
    assert listed == ("/one", f"{home}/pkgs", "/general", "/data/pkgs")
    monkeypatch.setenv("CONDA_PKGS_DIRS", "/first, /general")
    assert load_condarc().paths("pkgs_dirs", separator=",")[:3] == ("/first", "/general", "/one")


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ("a: [1", "not valid YAML in line"),
        ("a: 1\na: 2", "not valid YAML"),
        ("- a\n- b", "no mapping"),
        ("just text", "no mapping"),
        (b"\xff\xfe\xff", "not valid YAML"),
        ("a: !!python/object:os.system x", "not valid YAML"),
        ("a: " + "[" * 5000, "not valid YAML"),
        ("a: 9" + "9" * 5000, "not valid YAML"),
        ("a: 2020-99-99", "not valid YAML"),
        ("# " + "x" * MAX_BYTES, f"more than {MAX_BYTES} bytes"),
    ],
    ids=range(10),
)
def test_a_bad_file_is_one_warning_with_its_name(home: Path, content: str | bytes, part: str) -> None:
    path = write(home / ".condarc", content)
    good = write(home / ".mambarc", "a: 1")
    condarc = load_condarc()
    assert read_below(home) == [good]
    (warning,) = condarc.warnings
    assert repr(path) in warning
    assert part in warning
    assert warning.count("\n") == 0


def test_an_empty_file_and_a_byte_order_mark_are_fine(home: Path) -> None:
    write(home / ".condarc", "")
    path = write(home / ".mambarc", b"\xef\xbb\xbfa: 1\n")
    condarc = load_condarc()
    assert condarc.warnings == ()
    assert condarc.scalar("a") == (1, path)


def test_directories_fifos_and_dangling_links_are_passed_over(home: Path) -> None:
    os.mkfifo(home / ".condarc")
    (home / ".mambarc").symlink_to("nowhere")
    (home / ".conda").write_text("a file")
    assert read_below(home) == []
    assert load_condarc().warnings == ()


def test_a_file_that_may_not_be_read_is_a_warning(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    # Not in tmp_path: another user can't come that far, which is what root has to become.
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)
        path = write(Path(directory) / ".condarc", "a: 1")
        os.chmod(path, 0)
        for name in ("HOME", "CONDA_ROOT"):
            monkeypatch.setenv(name, directory)
        load_condarc()  # imports what it needs while it may
        root = os.geteuid() == 0
        if root:
            os.seteuid(65534)
        try:
            condarc = load_condarc()
        finally:
            if root:
                os.seteuid(0)
        assert [warning for warning in condarc.warnings if repr(path) in warning and "ermission" in warning]


def test_expand(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHERE", "/w")
    assert expand("~/a/../b") == f"{home}/b"
    assert expand("$WHERE/x") == "/w/x"
    assert expand("") is None
    assert expand("a\0b") is None


def test_expand_without_a_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert expand("a") is None
    assert expand("/a") == "/a"


YAML_PIECES = st.lists(
    st.sampled_from(
        [
            "plugins:",
            "\n",
            "  ",
            "dedup_auto",
            ": ",
            "[",
            "]",
            "{",
            "}",
            "&a",
            "*a",
            "!!set",
            "? ",
            "- ",
            "'",
            '"',
            "|",
            ">",
            "#",
            "---",
            "...",
            "<<",
            "%YAML 1.1",
            "1e999",
            "0x",
            "2020-01-01",
            "~",
            "\t",
            "\x00",
            ", ",
            "é",
        ]
    ),
    max_size=40,
).map("".join)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(st.binary(max_size=200), YAML_PIECES.map(lambda text: text.encode())))
def test_any_content_gives_a_condarc(home: Path, content: bytes) -> None:
    write(home / ".condarc", content)
    condarc = load_condarc()
    assert isinstance(condarc, Condarc)
    condarc.plugin("dedup_auto")
    condarc.scalar("always_copy", "copy")
    assert all(path.startswith("/") for path in condarc.paths("pkgs_dirs", "plugins", separator=","))
    assert len(condarc.files) + len(condarc.warnings) >= 1
