"""Environments with modules that were installed and compiled as pip does it, by whichever Python."""

from __future__ import annotations

import base64
import hashlib
import os
import subprocess
from pathlib import Path

#: Two modules whose bytecode is bigger than what is left alone.
TEXT = '''"""{name}: a module of some size."""

def fail(argument):
    def inner(value):
        assert value, "{name}"
        raise ValueError(value)
    return inner(argument)

class Thing:
{methods}
'''
MODULES = {
    f"{name}.py": TEXT.format(
        name=name,
        methods="\n".join(
            f'    def method_{number}(self, left, right={number}):\n        """{name} {number}."""\n'
            f"        return [left * item + right for item in range({number})]\n"
            for number in range(40)
        ),
    )
    for name in ("one", "two")
}


def version_of(python: str) -> str:
    """``3.11``."""
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def install(python: str, root: Path, mtime: int, *, optimize: str = "", modules=MODULES) -> Path:
    """Make an environment at ``root`` with the package ``pkg`` of these modules; returns the package.

    ``mtime`` in seconds; ``optimize``: the levels to compile for besides none, "12" for example.
    """
    site = root / f"lib/python{version_of(python)}/site-packages"
    package = site / "pkg"
    package.mkdir(parents=True)
    (root / "conda-meta").mkdir(exist_ok=True)
    (root / "conda-meta/history").touch()
    rows = []
    for name, text in {**modules, "__init__.py": ""}.items():
        path = package / name
        path.write_text(text)
        os.utime(path, (mtime, mtime))
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        rows.append(f"pkg/{name},sha256={digest},{len(text)}")
    levels = [("-o", level) for level in ("0", *optimize)]
    subprocess.run([python, "-m", "compileall", "-q", *sum(levels, ()), str(package)], check=True)
    rows += sorted(f"{path.relative_to(site)},," for path in package.glob("__pycache__/*.pyc"))
    info = site / "pkg-1.0.dist-info"
    info.mkdir()
    (info / "WHEEL").write_text("Wheel-Version: 1.0\nTag: py3-none-any\n")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: pkg\nVersion: 1.0\n")
    (info / "INSTALLER").write_text("pip\n")
    (info / "RECORD").write_text("\n".join([*rows, "pkg-1.0.dist-info/RECORD,,", ""]))
    return package


def bytecode(package: Path) -> dict[str, bytes]:
    """The compiled files of a package, by name, without those of ``__init__``."""
    found = sorted((package / "__pycache__").iterdir())
    return {path.name: path.read_bytes() for path in found if not path.name.startswith("__init__")}


def check_valid(python: str, package: Path) -> None:
    """Import every module by what is compiled: none anew, each under its own path, in tracebacks as well."""
    before = {path: (path.stat().st_ino, path.read_bytes()) for path in (package / "__pycache__").iterdir()}
    code = """
import sys, traceback
sys.path.insert(0, sys.argv[1])
import importlib
for name in ("one", "two"):
    module = importlib.import_module("pkg." + name)
    own = sys.argv[1] + "/pkg/" + name + ".py"
    assert module.__file__ == own, module.__file__
    assert module.fail.__code__.co_filename == own
    assert module.Thing.method_3.__code__.co_filename == own
    assert module.Thing().method_3(2) == [3, 5, 7]
    try:
        module.fail(1)
    except ValueError as error:
        frames = traceback.extract_tb(error.__traceback__)
    assert [frame.filename for frame in frames[1:]] == [own, own]
    assert frames[2].line == "raise ValueError(value)"
"""
    for level in ([], ["-O"]):
        done = subprocess.run(
            [python, "-I", *level, "-v", "-c", code, str(package.parent)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        matches = [line for line in done.stderr.splitlines() if "matches" in line and "/pkg/" in line]
        if not level or any(".opt-1." in path.name for path in before):
            assert len(matches) == 3, matches
            after = {
                path: (path.stat().st_ino, path.read_bytes()) for path in (package / "__pycache__").iterdir()
            }
            assert after == before
        else:
            for path in set((package / "__pycache__").iterdir()) - before.keys():
                path.unlink()
