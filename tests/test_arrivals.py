"""What is looked at after a command: no more than there is a reason for."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conda_dedup_plugin.arrivals import look
from conda_dedup_plugin.changes import Changed, Command, may_have_changed
from conda_dedup_plugin.compare import Wanted
from conda_dedup_plugin.files import real_path
from tests.lab.forge import Forge, noise
from tests.test_manners import home, register

__all__ = ["home"]

FILES = {f"lib/{name}.so": noise(name, 9000) for name in "abc"}
PACKAGE = ("p", "1", "0")


@pytest.mark.parametrize("linked", [False, True])
def test_who_has_a_shared_file_is_the_last_that_is_asked(tmp_path: Path, linked: bool) -> None:
    forge = Forge(tmp_path)
    one, two, own = (forge.environment(name, {PACKAGE: FILES}) for name in ("one", "two", "own"))
    for path in FILES:
        if linked:
            (two / path).unlink()
            os.link(one / path, two / path)
    scope = forge.scope()
    index = {tree.root: number for number, tree in enumerate(scope.trees)}
    mine = index[real_path(str(own))]
    changed = Changed(frozenset({"-".join(PACKAGE)}), time.time() + 60)
    listed = look(scope, mine, changed, 4096, lambda: False, Wanted()).listing.trees
    assert {path for path in listed[mine] if path.endswith(".so")} == set(FILES)
    asked = {scope.trees[number].root for number in listed if listed[number]} - {real_path(str(own))}
    assert len(asked) == (1 if linked else 2)
    assert asked <= {real_path(str(one)), real_path(str(two))}


def test_what_is_linked_is_not_listed(tmp_path: Path) -> None:
    """But for what has the bytes of a file that is not."""
    forge = Forge(tmp_path)
    files = FILES | {"lib/again.so": FILES["lib/a.so"]}
    own = forge.environment("own", {PACKAGE: files})
    for path in files:
        if path != "lib/again.so":
            os.link(own / path, tmp_path / os.path.basename(path))
    scope = forge.scope()
    changed = Changed(frozenset({"-".join(PACKAGE)}), time.time() + 60)
    listed = look(scope, 0, changed, 4096, lambda: False, Wanted()).listing.trees
    assert set(listed[0]) == {"lib/a.so", "lib/again.so"}


def test_nothing_to_do_is_found_out_without_what_does_it(home: Path, tmp_path: Path) -> None:
    forge = Forge(tmp_path)
    own = forge.environment("own", {PACKAGE: FILES})
    register(home, forge)
    nothing = Command("install", time.time() + 60, {}, target=str(own))
    assert not may_have_changed(nothing)
    assert may_have_changed(Command("install", time.time() - 60, {}, target=str(own)))
    assert may_have_changed(Command("install", time.time() + 60, {str(own): {PACKAGE}}))
    code = (
        "import sys, time\n"
        "from conda_dedup_plugin.changes import Command, may_have_changed\n"
        "assert not may_have_changed(Command('install', time.time() + 60, {}, target=sys.argv[1]))\n"
        "assert not {'conda_dedup_plugin.' + name for name in ('engine', 'model')} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", code, own], check=True, cwd=Path(__file__).parents[1])
