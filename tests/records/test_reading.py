"""What records say alike is known once: the same claims come out, however little is kept."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from conda_dedup_plugin.model import Claim, Dist
from conda_dedup_plugin.records import Memo, read_claims
from conda_dedup_plugin.records.reading import Known
from tests.lab.forge import Forge, noise

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

DIST = Dist("p", "1", "0", "linux-64", "")


def known(name: str, count: int) -> Known:
    return Known({f"{name}{number}": Claim(DIST, f"{name}{number}") for number in range(count)})


def test_what_was_not_asked_for_the_longest_goes_first() -> None:
    gone: list[str] = []
    memo = Memo(10, lambda claims: gone.extend(claim.path for claim in claims))
    parts = {name: known(name, 4) for name in "abc"}
    memo.keep("a", parts["a"])
    memo.keep("b", parts["b"])
    assert memo.find("a") is parts["a"] and not gone
    memo.keep("c", parts["c"])
    assert gone == ["b0", "b1", "b2", "b3"]
    assert memo.find("b") is None
    assert memo.find("a") is parts["a"] and memo.find("c") is parts["c"]
    memo.keep("d", known("d", 11))  # more than all: kept until another one comes
    assert len(gone) == 12 and memo.find("d") is not None
    memo.keep("a", parts["a"])
    assert memo.find("d") is None and memo.find("a") is parts["a"]


@pytest.mark.parametrize("most", [0, 3, 1000])
def test_the_same_claims_are_read_once(tmp_path: Path, most: int) -> None:
    forge = Forge(tmp_path)
    packages = {
        (name, "1", "0"): {f"lib/{name}{number}.so": noise(name, 50) for number in range(3)} for name in "pq"
    }
    for name in ("one", "two", "three"):
        prefix = forge.environment(name, packages)
        info = prefix / "lib/python3.11/site-packages/w-1.dist-info"
        info.mkdir(parents=True)
        for number, data in enumerate((b"a", b"bb", name.encode())):
            (info.parent / f"w{number}.py").write_bytes(data)
        lines = [f"w{number}.py,sha256={'A' * 43},{number}" for number in (0, 1)]
        (info / "RECORD").write_text("\n".join([*lines, f"w2.py,,{len(name)}", "w-1.dist-info/RECORD,,", ""]))
    forgotten: list[Claim] = []

    def forget(claims: Iterable[Claim]) -> None:
        forgotten.extend(claims)

    memo = Memo(most, forget)
    trees = forge.scope().trees
    found = [read_claims(tree, memo) for tree in trees]
    assert [one.claims for one in found] == [read_claims(tree).claims for tree in trees]
    assert [one.warnings for one in found] == [[]] * 3
    first, second = (one.claims for one in found[:2])
    shared = {path for path in first if first[path] is second[path]}
    if most == 1000:
        assert not forgotten
        assert {os.path.basename(path) for path in shared} >= {"p0.so", "q2.so", "w0.py", "w1.py"}
    else:
        assert forgotten
