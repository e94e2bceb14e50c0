"""RECORD files: real ones by pip and by conda, odd ones and damaged ones."""

from __future__ import annotations

import base64
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packaging.tags import parse_tag

from conda_dedup_plugin.demo.distributions import SITE_PACKAGES
from conda_dedup_plugin.demo.wheels import make_wheel
from conda_dedup_plugin.model import Manager, Tree, TreeKind
from conda_dedup_plugin.records import RecordError, Records, read_claims, reading
from conda_dedup_plugin.records.pip_record import dist_infos, read_pip_record, read_wheels
from conda_dedup_plugin.sites import site_packages
from tests.lab import needs
from tests.lab.conda_wheel import importable
from tests.records.test_conda_meta import check_claims, paths, sha256
from tests.records.test_conda_meta import path as said
from tests.records.test_conda_meta import write as write_meta
from tests.test_inventory import as_nobody, world_readable


@pytest.fixture(scope="module")
def prefix(tmp_path_factory, channel, conda_python) -> Path:
    """An environment with two packages from pip and three, pip itself among them, from conda."""
    from tests.lab.world import CondaLab

    lab = CondaLab(tmp_path_factory.mktemp("pip") / "lab", conda_python, channel)
    made = lab.create("one", "pip", "msgspec", "pure-noarch")
    lab.pip(made, "install", "numpy", "pure-wheel")
    return made


@pytest.mark.integration
class TestRealRecords:
    def test_every_file_has_a_claim(self, prefix: Path) -> None:
        for name in ("numpy", "pure-wheel"):
            (record,) = (path for (found, _), path in dist_infos(str(prefix)).items() if found == name)
            dist, claims = read_pip_record(record, str(prefix))
            assert (dist.name, dist.subdir) == (name, "pypi")
            wheel = record.with_name("WHEEL").read_text().splitlines()
            said = [line.removeprefix("Tag: ") for line in wheel if line.startswith("Tag: ")]
            assert parse_tag(dist.build) == {tag for line in said for tag in parse_tag(line)}
            folder = prefix / SITE_PACKAGES / name.replace("-", "_")
            on_disk = {str(path.relative_to(prefix)) for path in folder.rglob("*") if path.is_file()}
            assert on_disk <= claims.keys()
            assert all((prefix / path).is_file() for path in claims)
            assert all(claim.pip and claim.path == path for path, claim in claims.items())
        assert "bin/pure-wheel" in claims

    def test_digests_and_sizes_are_those_of_the_files(self, prefix: Path) -> None:
        for record in dist_infos(str(prefix)).values():
            _, claims = read_pip_record(record, str(prefix))
            digests = {path: claim.sha256 for path, claim in claims.items() if claim.sha256}
            assert digests == {path: sha256(prefix / path) for path in digests}
            sizes = {path: claim.size for path, claim in claims.items() if claim.size >= 0}
            assert sizes == {path: (prefix / path).stat().st_size for path in sizes}
            without = claims.keys() - digests.keys()
            assert all(path.endswith((".pyc", "/RECORD")) for path in without)

    def test_what_conda_installed_is_condas(self, prefix: Path) -> None:
        found = read_claims(Tree(str(prefix), TreeKind.ENVIRONMENT, Manager.CONDA, "one"))
        assert found.warnings == []
        names = {claim.dist.name for claim in found.claims.values() if claim.pip}
        assert names == {"numpy", "pure-wheel"}
        for name in ("pip", "msgspec", "pure_noarch"):
            claims = [
                claim for path, claim in found.claims.items() if path.startswith(f"{SITE_PACKAGES}/{name}/")
            ]
            assert claims
            assert not any(claim.pip for claim in claims)

    def test_pips_word_counts_for_more(self, prefix: Path) -> None:
        """pip replaced what conda had installed."""
        path = next((prefix / SITE_PACKAGES / "numpy").rglob("*.so"))
        where = str(path.relative_to(prefix))
        foreign = write_meta(prefix, paths(said(where), said("lib/other")), "zzz-1-0.json")
        try:
            found = read_claims(Tree(str(prefix), TreeKind.ENVIRONMENT, Manager.CONDA, "one"))
        finally:
            foreign.unlink()
        assert found.claims[where].sha256 == sha256(path)
        assert found.claims["lib/other"].dist.name == "a"


# -- odd records --------------------------------------------------------------------------------------

DIGEST = hashlib.sha256(b"a").digest()
TEXT = base64.urlsafe_b64encode(DIGEST).rstrip(b"=").decode()
OTHER = base64.urlsafe_b64encode(hashlib.md5(b"a").digest()).rstrip(b"=").decode()


def write(prefix: Path, content: bytes, name: str = "a-1.dist-info") -> Path:
    (folder := prefix / SITE_PACKAGES / name).mkdir(parents=True, exist_ok=True)
    (folder / "RECORD").write_bytes(content)
    return folder / "RECORD"


def read(prefix: Path) -> Records:
    return read_claims(Tree(str(prefix), TreeKind.ENVIRONMENT, Manager.CONDA, "env"))


def claims_of(prefix: Path, content: str | bytes) -> dict[str, tuple[bytes | None, int]]:
    """What a RECORD claims: path in the environment without site-packages, digest, size."""
    write(prefix, content.encode() if isinstance(content, str) else content)
    found = read(prefix)
    assert found.warnings == []
    return {
        path.removeprefix(SITE_PACKAGES + "/"): (claim.sha256, claim.size)
        for path, claim in found.claims.items()
    }


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (f"a.py,sha256={TEXT},1", {"a.py": (DIGEST, 1)}),
        (f"a.py,sha256={TEXT}=,1", {"a.py": (DIGEST, 1)}),
        (f"a.py,sha256={TEXT}==,1", {"a.py": (DIGEST, 1)}),
        (f'"a,b ""c"".py",sha256={TEXT},1', {'a,b "c".py': (DIGEST, 1)}),
        (f'"a\nb.py",sha256={TEXT},1', {"a\nb.py": (DIGEST, 1)}),
        (f"../../../bin/x,sha256={TEXT},1", {"bin/x": (DIGEST, 1)}),
        (f"../../../etc/x,sha256={TEXT},", {"etc/x": (DIGEST, -1)}),
        (f"./a/./b//c.py,sha256={TEXT},1", {"a/b/c.py": (DIGEST, 1)}),
        ("a.pyc,,", {"a.pyc": (None, -1)}),
        ("a.py", {"a.py": (None, -1)}),
        (f"a.py,sha256={TEXT}", {"a.py": (DIGEST, -1)}),
        (f"a.py,sha256={TEXT},1,more,columns", {"a.py": (DIGEST, 1)}),
        (f"a.py,md5={OTHER},1", {"a.py": (None, 1)}),
        (f"a.py,sha512={TEXT},1", {"a.py": (None, 1)}),
        (f"a.py,SHA256={TEXT},1", {"a.py": (None, 1)}),
        (f"a.py,{TEXT},1", {"a.py": (None, 1)}),
        (f"a.py,sha256={OTHER},1", {"a.py": (None, 1)}),
        ("a.py,sha256=,1", {"a.py": (None, 1)}),
        ("a.py,sha256=é,1", {"a.py": (None, 1)}),
        ("a.py,sha256=a,1", {"a.py": (None, 1)}),
        (f"a.py,sha256={TEXT},x", {"a.py": (DIGEST, -1)}),
        (f"a.py,sha256={TEXT},-1", {"a.py": (DIGEST, -1)}),
        (f"a.py,sha256={TEXT}, 1", {"a.py": (DIGEST, -1)}),
        (f"a.py,sha256={TEXT},\u0661", {"a.py": (DIGEST, -1)}),
        (f"a.py,sha256={TEXT},{'9' * 5000}", {"a.py": (DIGEST, -1)}),
        (f"a.py,,\r\nb.py,sha256={TEXT},1\r\n", {"a.py": (None, -1), "b.py": (DIGEST, 1)}),
        (f"\n\n,,\n,sha256={TEXT},1\na.py,,\n", {"a.py": (None, -1)}),
        (f"a.py,,\na.py,sha256={TEXT},1", {"a.py": (DIGEST, 1)}),
        ("", {}),
    ],
    ids=lambda value: repr(value)[:60] if isinstance(value, str) else "",
)
def test_lines(tmp_path: Path, line: str, expected: dict[str, tuple[bytes | None, int]]) -> None:
    assert claims_of(tmp_path, line) == expected


def test_names_that_are_no_text(tmp_path: Path) -> None:
    assert set(claims_of(tmp_path, b"\xff\xfe.py,,\n\xc3\xa9.py,,\n")) == {"\udcff\udcfe.py", "é.py"}
    (tmp_path / SITE_PACKAGES / os.fsdecode(b"\xff\xfe.py")).touch()
    assert all(os.fsencode(path) for path in read(tmp_path).claims)


def test_a_mark_of_the_encoding_is_no_part_of_a_name(tmp_path: Path) -> None:
    assert set(claims_of(tmp_path, b"\xef\xbb\xbfa.py,,\nb.py,,\n")) <= {"a.py", "b.py", "\ufeffa.py"}


@pytest.mark.parametrize(
    "odd", ["../../../../x", "/etc/passwd", "a/../../../../../x", "../../..", "../../../", ".", "/"]
)
def test_paths_outside_are_left_out(tmp_path: Path, odd: str) -> None:
    write(tmp_path, f"x.py,,\n{odd},,\n".encode())
    found = read(tmp_path)
    assert set(found.claims) <= {f"{SITE_PACKAGES}/x.py", SITE_PACKAGES}
    if odd != ".":
        assert len(found.warnings) == 1 and "a-1.dist-info" in found.warnings[0]


@pytest.mark.parametrize(
    "content", [b'"', b'"a' + b"x" * 200_000, b"a" * 200_000, b'a,"b"c,\r"', b"a\0b,,\n"]
)
def test_damage(tmp_path: Path, content: bytes) -> None:
    write(tmp_path, b"x.py,,\n", "b-1.dist-info")
    damaged = write(tmp_path, content)
    try:
        read_pip_record(damaged, str(tmp_path))
    except RecordError as exc:
        assert "a-1.dist-info" in str(exc)
        assert len(read(tmp_path).warnings) == 1
    found = read(tmp_path)
    assert f"{SITE_PACKAGES}/x.py" in found.claims
    check_claims(found.claims)


@pytest.mark.parametrize("kind", ["link", "fifo", "directory"])
def test_records_that_are_no_files(tmp_path: Path, kind: str) -> None:
    record = write(tmp_path, b"x.py,,\n")
    os.rename(record, tmp_path / "elsewhere")
    if kind == "link":
        record.symlink_to(tmp_path / "elsewhere")
    elif kind == "fifo":
        os.mkfifo(record)
    else:
        record.mkdir()
    with pytest.raises(RecordError, match="RECORD"):
        read_pip_record(record, str(tmp_path))
    found = read(tmp_path)
    assert found.claims == {}
    assert len(found.warnings) == 1


def test_a_record_that_is_too_big(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = write(tmp_path, b"x.py,,\n")
    monkeypatch.setattr(reading, "MOST_BYTES", 7)
    assert len(read(tmp_path).claims) == 1
    monkeypatch.setattr(reading, "MOST_BYTES", 6)
    with pytest.raises(RecordError, match="7 bytes"):
        read_pip_record(record, str(tmp_path))


def test_what_may_not_be_read() -> None:
    with world_readable() as folder:
        write(folder, b"y.py,,\n", "b-1.dist-info")
        closed = write(folder, b"x.py,,\n")
        closed.chmod(0)
        found = as_nobody(lambda: read(folder))
        assert set(found.claims) == {f"{SITE_PACKAGES}/y.py"}
        assert found.warnings == [f"{str(closed)!r} cannot be read: Permission denied."]
        (folder / SITE_PACKAGES).chmod(0)
        assert as_nobody(lambda: read(folder)) == Records()


def test_where_site_packages_are(tmp_path: Path) -> None:
    for name in ("lib/python3.11", "lib/pypy3.9", "lib/ruby", "Lib"):
        (tmp_path / name / "site-packages").mkdir(parents=True)
    (tmp_path / "lib/python3.1").symlink_to("python3.11")
    (tmp_path / "lib/python3.12").mkdir()
    found = site_packages(str(tmp_path))
    assert [os.path.relpath(path, tmp_path) for path in found] == [
        "Lib/site-packages",
        "lib/pypy3.9/site-packages",
        "lib/python3.11/site-packages",
    ]
    assert site_packages(str(tmp_path / "nowhere")) == []


def test_names_of_wheels(tmp_path: Path) -> None:
    for name in ("Foo_Bar-1.0", "x.y-2", "nothing", "-"):
        write(tmp_path, b"", f"{name}.dist-info")
    assert set(dist_infos(str(tmp_path))) == {("foo-bar", "1.0"), ("x-y", "2"), ("nothing", ""), ("", "")}


# -- any bytes ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("fuzzed")


PIECES = st.sampled_from(
    [b"a.py", b"sha256=", TEXT.encode(), b",", b'"', b"\n", b"\r", b"../", b"/", b"\0", b"1", b"\xff", b"."]
)


@settings(deadline=None, max_examples=300)
@given(content=st.binary(max_size=200) | st.lists(PIECES | st.binary(max_size=3), max_size=30).map(b"".join))
def test_any_bytes_are_claims_or_a_record_error(fuzzed: Path, content: bytes) -> None:
    record = write(fuzzed, content)
    try:
        _, claims = read_pip_record(record, str(fuzzed))
    except RecordError as exc:
        assert "RECORD" in str(exc)
        assert len(read(fuzzed).warnings) == 1
    else:
        check_claims(claims)
        assert read(fuzzed).claims == claims


def test_a_link_to_the_library_hides_no_wheel(tmp_path: Path) -> None:
    """conda-forge's Python 3.10 has lib/python3.1 -> python3.10, and nothing is walked through a link."""
    write(tmp_path, b"x.py,,\n")
    (tmp_path / SITE_PACKAGES).parent.with_name("python3.1").symlink_to(Path(SITE_PACKAGES).parent.name)
    assert set(read(tmp_path).claims) == {f"{SITE_PACKAGES}/x.py"}


@pytest.mark.parametrize(("installer", "pips"), [(b"conda\n", 0), (b"pip\n", 1), (b"", 1), (None, 1)])
def test_whose_a_wheel_is(tmp_path: Path, installer: bytes | None, pips: int) -> None:
    folder = write(tmp_path, b"x.py,,\n").parent
    if installer is not None:
        (folder / "INSTALLER").write_bytes(installer)
    assert len(read(tmp_path).claims) == pips


def test_a_directory_whose_name_says_too_little(tmp_path: Path) -> None:
    record = write(tmp_path, b"x.py,,\n", "nothing.dist-info")
    metadata = record.parent / "METADATA"
    metadata.write_text("Metadata-Version: 2.1\nName: Foo.Bar\nVersion: 1.0\n\nName: other\n")
    assert read_pip_record(record, str(tmp_path))[0] == ("foo-bar", "1.0", "", "pypi", "", "")
    metadata.write_text("Name: Foo.Bar\n")
    with pytest.raises(RecordError, match="METADATA"):
        read_pip_record(record, str(tmp_path))


@pytest.mark.integration
def test_a_wheel_that_pip_installed_without_any_conda(tmp_path: Path) -> None:
    needs("needs pip", importable("pip"))
    modules = {"tiny/__init__.py": b"def main(): pass\n", "tiny/a b.txt": b"text\n"}
    wheel = make_wheel(tmp_path, "Tiny_Wheel", "1.0", modules, entry_points=["tiny = tiny:main"])
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--no-deps",
        "--no-index",
        "--disable-pip-version-check",
    ]
    subprocess.run([*command, "--prefix", tmp_path / "env", wheel], check=True, capture_output=True)
    prefix = str(tmp_path / "env")
    (record,) = dist_infos(prefix).values()
    assert dist_infos(prefix).keys() == {("tiny-wheel", "1.0")}
    dist, claims = read_pip_record(record, prefix)
    assert dist == ("tiny-wheel", "1.0", "py3-none-any", "pypi", "", "")
    found = {str(file.relative_to(prefix)) for file in Path(prefix).rglob("*") if file.is_file()}
    assert found == claims.keys() == read_wheels(prefix, {}).claims.keys()
    assert read_wheels(prefix, {str(record.relative_to(prefix)): claims["bin/tiny"]}) == Records()
    for path, claim in claims.items():
        without = path.endswith((".pyc", "/RECORD"))
        assert claim.sha256 == (None if without else sha256(Path(prefix, path)))
        assert claim.size == (-1 if without else os.path.getsize(f"{prefix}/{path}"))
        assert claim.pip and claim.path == path


# -- what a wheel was built for -----------------------------------------------------------------------

ONE = b"Tag: cp311-cp311-manylinux_2_17_x86_64\n"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (ONE, "cp311-cp311-manylinux_2_17_x86_64"),
        (b"Wheel-Version: 1.0\r\ntag:py3-none-any \r\n", "py3-none-any"),
        (b"Tag: py2-none-any\nTag: py3-none-any\n", "py2.py3-none-any"),
        (b"Tag: py3.py2-none-any\n", "py2.py3-none-any"),
        (
            ONE + b"Tag: cp311-cp311-manylinux2014_x86_64\n" + ONE,
            "cp311-cp311-manylinux2014_x86_64.manylinux_2_17_x86_64",
        ),
        (b"Tag: cp39-abi3-any\nTag: cp38-none-any\n", "cp38-none-any,cp39-abi3-any"),
        (b"", ""),
        (b"Tag:\n", ""),
        (b"Tag: py3\n", ""),
        (b"Tag: a-b-c-d\n", ""),
        (b"Tag: " + b"-".join([b".".join([b"a"] * 100)] * 3) + b"\n", ""),
        (b"".join(b"Tag: py%d-none-any\n" % number for number in range(5000)), ""),
    ],
)
def test_tags(tmp_path: Path, content: bytes, expected: str) -> None:
    record = write(tmp_path, b"x.py,,\n")
    record.with_name("WHEEL").write_bytes(content)
    assert read_pip_record(record, str(tmp_path))[0] == ("a", "1", expected, "pypi", "", "")
    assert read(tmp_path).warnings == []


def test_no_tags(tmp_path: Path) -> None:
    record = write(tmp_path, b"x.py,,\n")
    assert read_pip_record(record, str(tmp_path))[0].build == ""
    assert read(tmp_path).warnings == []
    record.with_name("WHEEL").symlink_to(record)
    found = read(tmp_path)
    assert [claim.dist.build for claim in found.claims.values()] == [""]
    assert len(found.warnings) == 1 and "WHEEL" in found.warnings[0]


# -- what pip replaced of conda's -----------------------------------------------------------------------


def test_what_pip_replaced(tmp_path: Path) -> None:
    base = f"{SITE_PACKAGES}/p"
    hashes = [hashlib.sha256(name).hexdigest() for name in (b"a", b"b")]
    conda = [
        said(f"{base}/other.py", sha256=hashes[1], sha256_in_prefix=hashes[1]),
        said(f"{base}/equal.py", sha256=hashes[0], sha256_in_prefix=hashes[0]),
        said(f"{base}/patched.py", sha256=hashes[0], sha256_in_prefix=hashes[1], prefix_placeholder="/p"),
        said(f"{base}/unknown.py", sha256=None, sha256_in_prefix=None),
        said(f"{base}/mine.py"),
        said(f"{base}/x.cpython-311.pyc"),
    ]
    write_meta(tmp_path, paths(*conda))
    names = ("other", "equal", "patched", "unknown", "new")
    lines = [f"p/{name}.py,sha256={TEXT},1\n" for name in names]
    write(tmp_path, "".join([*lines, "p/x.cpython-311.pyc,,\n"]).encode(), "P-2.dist-info")
    found = read(tmp_path)
    assert list(found.clobbered) == [f"{base}/{name}.py" for name in ("other", "patched", "unknown")]
    for theirs, pips in found.clobbered.values():
        assert (theirs.name, theirs.subdir != "pypi") == ("a", True)
        assert (pips.name, pips.version, pips.subdir) == ("p", "2", "pypi")


def test_what_conda_replaced_of_condas(tmp_path: Path) -> None:
    """Two packages with one path, and conda's own wheels, are nothing of pip's."""
    for name in ("a-1-0.json", "b-1-0.json"):
        write_meta(tmp_path, paths(said(f"{SITE_PACKAGES}/x.py")), name)
    folder = write(tmp_path, f"x.py,sha256={TEXT},1\n".encode()).parent
    (folder / "INSTALLER").write_bytes(b"conda\n")
    assert read(tmp_path).clobbered == {}


@pytest.mark.integration
def test_pip_over_conda(tmp_path: Path, channel, conda_python: Path) -> None:
    """pip takes away what conda installed, and puts another version in its place."""
    from tests.lab.channel import pure_modules
    from tests.lab.world import CondaLab

    lab = CondaLab(tmp_path / "lab", conda_python, channel)
    made = lab.create("one", "pip", "pure-noarch")
    tree = Tree(str(made), TreeKind.ENVIRONMENT, Manager.CONDA, "one")
    assert read_claims(tree).clobbered == {}
    modules = pure_modules("pure_noarch")
    changed = [path for path in sorted(modules) if path.endswith(("_1.py", "_2.py"))]
    modules |= {path: modules[path] + b"# newer\n" for path in changed}
    lab.pip(made, "install", make_wheel(tmp_path, "pure-noarch", "2.0", modules))
    found = read_claims(tree)
    assert {path.removeprefix(f"{SITE_PACKAGES}/") for path in found.clobbered} == set(changed)
    for path, (conda, pip) in found.clobbered.items():
        assert (conda.name, conda.version, conda.subdir) == ("pure-noarch", "1.0", "noarch")
        assert (pip.name, pip.version, pip.build) == ("pure-noarch", "2.0", "py3-none-any")
        assert found.claims[path].sha256 == sha256(made / path)
