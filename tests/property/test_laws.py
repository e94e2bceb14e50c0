"""What holds whatever is done to environments and caches, in whatever order: random worlds, and laws."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import stat
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    multiple,
    rule,
    run_state_machine_as_test,
)
from msgspec.structs import replace

from conda_dedup_plugin.apply import apply_plan
from conda_dedup_plugin.engine import analyse
from conda_dedup_plugin.journal import Journal
from conda_dedup_plugin.model import Manager, Reason, TreeKind
from conda_dedup_plugin.plan import PlanOptions
from conda_dedup_plugin.undo import plan_undo, undo
from tests.lab import needs
from tests.lab.forge import Forge, digest, noise
from tests.lab.invariants import State, assert_unchanged, directories, du, snapshot

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conda_dedup_plugin.apply import Applied
    from conda_dedup_plugin.engine import Analysis

#: Few contents, some of one size, so that the same ones and nearly the same ones meet often.
CONTENTS = [
    *(noise(f"law {number}", 5000) for number in range(3)),
    noise("law 0", 4999) + b"!",
    b"\x7fELF" + noise("law program", 20_000),
    noise("small", 300),
]
PATHS = [
    "lib/liba.so.1",
    "lib/libb.so",
    "lib/_c.abi3.so",
    "lib/d.py",
    "lib/__pycache__/d.cpython-311.pyc",
    "share/e.txt",
    "bin/f",
    "etc/g.conf",
    "share/h.db",
]
DISTS = [("p", "1", "0"), ("p", "1", "0"), ("p", "2", "0"), ("q", "1", "0")]
MODES = [0o644, 0o755, 0o600, 0o664]
NATIVE = re.compile(r"\.so(\.\d+)?$|\.pyc$")
STAMP = 1_600_000_000

#: Path, what is in it (as a rule what others have there, too), mode, and by how much it is younger.
FILES = st.dictionaries(
    st.sampled_from(PATHS),
    st.tuples(
        st.sampled_from([None, None, None, None, *range(len(CONTENTS))]),
        st.sampled_from([0o644, 0o644, 0o644, 0o755]),
        st.sampled_from([0, 0, 0, 1]),
    ),
    min_size=4,
    max_size=9,
)
#: What a record says of a file; most often the truth.
SAID = st.dictionaries(
    st.sampled_from(PATHS), st.sampled_from(["wrong", "no digest", "patched", "nothing"]), max_size=2
)
FAULTS = st.lists(
    st.tuples(st.sampled_from(["open", "replaced", "deleted", "chmod", "linked"]), st.integers(0, 10_000)),
    max_size=3,
)


def content_of(path: str, number: int | None) -> bytes:
    return CONTENTS[PATHS.index(path) % len(CONTENTS) if number is None else number]


class World(RuleBasedStateMachine):
    """Environments and caches on a device in memory.

    ``done`` has for every run that shared something its id and what there was before and after it, for laws
    about going back.
    """

    environments = Bundle("environments")
    caches = Bundle("caches")

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="conda-dedup-", dir="/dev/shm"))
        self.forge = Forge(self.root / "trees")
        self.outside = self.root / "outside"
        self.outside.mkdir()
        self.count = 0
        self.done: list[tuple[str, dict[str, State], dict[str, State]]] = []
        self.state_home = os.environ.get("XDG_STATE_HOME")
        os.environ["XDG_STATE_HOME"] = str(self.root / "state")

    def teardown(self) -> None:
        if self.state_home is None:
            del os.environ["XDG_STATE_HOME"]
        else:
            os.environ["XDG_STATE_HOME"] = self.state_home
        shutil.rmtree(self.root)

    # -- what others do -----------------------------------------------------------------------------------

    def _next(self) -> int:
        self.count += 1
        return self.count

    def _dress(self, base: Path, files: dict[str, Any]) -> None:
        for path, (_, mode, later) in files.items():
            (base / path).chmod(mode)
            os.utime(base / path, (STAMP, STAMP + later))

    def _say(self, record: Path, said: dict[str, str]) -> None:
        """Let a record (conda-meta or paths.json) say something else of some paths."""
        document = json.loads(record.read_text())
        entries = (document.get("paths_data") or document)["paths"]
        for entry in list(entries):
            kind = said.get(entry["_path"])
            if kind == "wrong":
                other = next(data for data in CONTENTS if digest(data) != entry["sha256"])
                entry.update({"sha256": digest(other), "size_in_bytes": len(other)})
                if "sha256_in_prefix" in entry:
                    entry["sha256_in_prefix"] = digest(other)
                entry.pop("size_in_bytes")
            elif kind == "no digest":
                entry.pop("sha256")
                entry.pop("sha256_in_prefix", None)
            elif kind == "patched":
                entry["prefix_placeholder"] = "/opt/placeholder"
            elif kind == "nothing":
                entries.remove(entry)
                if entry["_path"] in document.get("files", ()):
                    document["files"].remove(entry["_path"])
        record.write_text(json.dumps(document))

    @rule(
        target=environments,
        dist=st.sampled_from(DISTS),
        files=FILES,
        said=SAID,
        selected=st.sampled_from([True, True, True, False]),
        frozen=st.sampled_from([False, False, False, True]),
    )
    def add_environment(self, dist, files, said, selected, frozen) -> Path:
        return self._environment(dist, files, said, selected, frozen)

    @initialize(target=environments, files=FILES, others=FILES)
    def begin(self, files, others):
        """Two environments of one package."""
        return multiple(*(self._environment(DISTS[0], some, {}) for some in (files, files | others)))

    def _environment(self, dist, files, said, selected=True, frozen=False) -> Path:
        packages = {dist: {path: content_of(path, content) for path, (content, _, _) in files.items()}}
        env = self.forge.environment(f"e{self._next()}", packages, selected=selected, frozen=frozen)
        self._dress(env, files)
        self._say(env / f"conda-meta/{'-'.join(dist)}.json", said)
        return env

    @rule(
        target=caches,
        dist=st.sampled_from(DISTS),
        files=FILES,
        said=SAID,
        manager=st.sampled_from([Manager.CONDA, Manager.RATTLER]),
    )
    def add_cache(self, dist, files, said, manager) -> tuple[Path, tuple[str, str, str]]:
        packages = {dist: {path: content_of(path, content) for path, (content, _, _) in files.items()}}
        cache = self.forge.cache(packages, manager=manager, name=f"pkgs{self._next()}")
        package = cache / "-".join(dist)
        self._dress(package, files)
        self._say(package / "info/paths.json", said)
        return package, dist

    @rule(target=environments, env=environments)
    def copy(self, env: Path) -> Path:
        """As ``conda create --clone --copy``, or ``cp -a``."""
        tree = next(tree for tree in self.forge.trees if tree.root == os.path.realpath(env))
        made = env.with_name(f"e{self._next()}")
        shutil.copytree(env, made)
        self.forge.trees.append(replace(tree, root=os.path.realpath(made), name=made.name))
        return made

    @rule(target=environments, cache=caches)
    def install(self, cache) -> Path:
        """As conda does it: hard links to a cache."""
        package, dist = cache
        env = self.forge.environment(f"e{self._next()}", {})
        files = {}
        for path in PATHS:
            if (package / path).exists():
                files[path] = (package / path).read_bytes()
                (env / path).parent.mkdir(parents=True, exist_ok=True)
                os.link(package / path, env / path)
        self.forge._record(env, dist, files)
        return env

    @rule(env=consumes(environments))
    def remove(self, env: Path) -> None:
        shutil.rmtree(env)
        self.forge.trees = [tree for tree in self.forge.trees if tree.root != os.path.realpath(env)]

    def _files(self) -> list[Path]:
        """Every file of a package, in a stable order."""
        roots = [Path(tree.root) for tree in self.forge.trees]
        bases = [base for root in roots for base in (root, *sorted(root.glob("*-*-*")))]
        return [base / path for base in bases for path in PATHS if (base / path).exists()]

    def _pick(self, number: int) -> Path | None:
        files = self._files()
        return files[number % len(files)] if files else None

    @rule(number=st.integers(0, 10_000), content=st.integers(0, len(CONTENTS) - 1))
    def edit(self, number: int, content: int) -> None:
        """As an editor or a package manager does it: a new file takes the name."""
        path = self._pick(number)
        if path is not None:
            self._replace(path, CONTENTS[content])

    @rule(number=st.integers(0, 10_000), mode=st.sampled_from(MODES))
    def chmod(self, number: int, mode: int) -> None:
        path = self._pick(number)
        if path is not None:
            path.chmod(mode)

    @rule(one=st.integers(0, 10_000), other=st.integers(0, 10_000))
    def link(self, one: int, other: int) -> None:
        """As uv, or another tool like this one."""
        source, target = self._pick(one), self._pick(other)
        if source is not None and target is not None and not os.path.samefile(source, target):
            target.unlink()
            os.link(source, target)

    @rule(number=st.integers(0, 10_000))
    def link_outside(self, number: int) -> None:
        path = self._pick(number)
        if path is not None:
            os.link(path, self.outside / str(self._next()))

    def _replace(self, path: Path, content: bytes) -> None:
        new = self.outside / "new"
        new.write_bytes(content)
        os.replace(new, path)

    # -- what we do ---------------------------------------------------------------------------------------

    @rule(include_cache=st.booleans(), override_frozen=st.booleans())
    def apply(self, include_cache: bool, override_frozen: bool) -> None:
        self._apply([], include_cache, override_frozen)

    @rule(faults=FAULTS, include_cache=st.booleans())
    def apply_among_others(self, faults, include_cache: bool) -> None:
        self._apply(faults, include_cache, False)

    @rule(include_cache=st.booleans())
    def apply_and_undo(self, include_cache: bool) -> None:
        """All is as before, the times too, and who shares with whom."""
        roots = [tree.root for tree in self.forge.trees]
        before, used = snapshot(*roots), du(*roots)
        count = len(self.done)
        self._apply([], include_cache, False)
        for run, _, _ in self.done[count:]:
            self._undo(run)
        if len(self.done) > count:
            assert_unchanged(before, snapshot(*roots))
            assert partition(snapshot(*roots)) == partition(before)
            assert du(*roots) == used

    @rule()
    def undo_everything(self) -> None:
        """Whatever happened since: contents and modes stay, and nothing is left to undo."""
        roots = [tree.root for tree in self.forge.trees]
        before = snapshot(*roots)
        self._undo(None)
        self._check_kept(before, snapshot(*roots))
        journal = Journal.open()
        assert plan_undo(journal).inodes == []
        journal.close()

    def _undo(self, run: str | None) -> None:
        journal = Journal.open()
        try:
            undoing = plan_undo(journal, None, run)
            undone = undo(undoing, journal, "law")
        finally:
            journal.close()
        assert undone.failed == [] and undone.notes == [] and undone.skipped == {}
        assert undone.inodes == len(undoing.inodes)
        assert not list(self.forge.root.rglob("*conda-dedup*"))

    def _apply(self, faults, include_cache: bool, override_frozen: bool) -> None:
        options = PlanOptions(euid=os.geteuid(), include_cache=include_cache, override_frozen=override_frozen)
        roots = [tree.root for tree in self.forge.trees]
        untouched = snapshot(self.forge.root) if self.forge.root.exists() else {}
        analysis = analyse(self.forge.scope(), options)
        self._check_totals(analysis)
        with ExitStack() as stack:
            planned = self._planned(analysis)
            held = [found for fault in faults if (found := self._fault(stack, planned, *fault)) is not None]
            before, folders, used = snapshot(*roots), directories(*roots), du(*roots)
            if not faults:
                assert before == untouched, "a report changes nothing"
            applied = apply_plan(analysis, "law")
            after = snapshot(*roots)
        self._check_kept(before, after)
        for inode in held:
            names = [path for path, state in before.items() if state.inode == inode]
            assert {after[path].inode for path in names} <= {inode}, "somebody had it open for writing"
            assert {after[path].nlink for path in names} == {before[path].nlink for path in names}
        assert directories(*roots) == folders
        assert not list(self.forge.root.rglob("*conda-dedup*"))
        assert applied.failed == [] and applied.notes == []
        assert applied.bytes_freed == used - du(*roots) >= 0
        skipped = sum(size for _, size in applied.skipped.values())
        assert analysis.plan.freeable_bytes == applied.bytes_freed + skipped
        assert len(analysis.plan.shares) == applied.inodes + sum(
            count for count, _ in applied.skipped.values()
        )
        if not faults:
            self._check_faultless(analysis, applied, options)
        if applied.inodes:
            self.done.append((applied.run, before, after))

    def _planned(self, analysis: Analysis) -> list[Path]:
        """The files that the plan is about, keepers among them."""
        inodes = [inode for share in analysis.plan.shares for inode in (share.duplicate, share.keeper)]
        return [Path(path) for inode in inodes for path in analysis.scope.paths_of(inode)]

    def _fault(self, stack: ExitStack, planned: list[Path], kind: str, number: int) -> int | None:
        """Somebody else is at it between plan and apply; returns the inode that is held open."""
        path = planned[number % len(planned)] if planned and number % 4 else self._pick(number)
        if path is None or not path.exists():
            return None
        if kind == "open":
            stream = stack.enter_context(open(path, "r+b"))
            return os.fstat(stream.fileno()).st_ino
        if kind == "replaced":
            self._replace(path, CONTENTS[number % len(CONTENTS)])
        elif kind == "deleted":
            path.unlink()
        elif kind == "chmod":
            path.chmod(MODES[number % len(MODES)])
        elif kind == "linked":
            os.link(path, self.outside / str(self._next()))
        return None

    # -- the laws -----------------------------------------------------------------------------------------

    def _check_totals(self, analysis: Analysis) -> None:
        inventory = analysis.inventory
        for totals in (inventory.totals, *inventory.by_class.values()):
            assert totals.duplicate_bytes == totals.freeable_bytes + totals.held_bytes
            assert min(totals.freeable_bytes, totals.held_bytes, totals.unrecorded_bytes) >= 0
        selected = [tree.root for tree in self.forge.trees if tree.selected]
        assert inventory.totals.disk_bytes == du(*selected)
        assert inventory.totals.freeable_bytes == analysis.plan.freeable_bytes
        assert inventory.totals.freeable_bytes == sum(tree.freeable_bytes for tree in inventory.trees)
        # bytes are freed in what was selected, and no more than are there twice, whatever records say
        assert analysis.plan.freeable_bytes <= inventory.totals.disk_bytes

    def _check_kept(self, before: dict[str, State], after: dict[str, State]) -> None:
        def may_be_dated(path: str) -> bool:
            old, new = before[path], after[path]
            program = old.mode & stat.S_IXUSR and Path(path).read_bytes().startswith(b"\x7fELF")
            return bool(NATIVE.search(path) or program) and old.inode != new.inode

        assert_unchanged(before, after, may_be_dated)
        fixed = [
            *(str(Path(tree.root, "conda-meta")) for tree in self.forge.trees),
            *(tree.root for tree in self.forge.trees if not tree.selected),
        ]
        for path, old in before.items():
            if path.startswith(tuple(f"{root}/" for root in fixed)):
                assert after[path].inode == old.inode, "it was not to be changed"

    def _check_faultless(self, analysis: Analysis, applied: Applied, options: PlanOptions) -> None:
        assert set(applied.skipped) <= {Reason.DIFFERENT}
        if self._all_true():
            assert applied.skipped == {}
        if not applied.skipped:
            assert applied.bytes_freed == analysis.plan.freeable_bytes
            roots = [tree.root for tree in self.forge.trees]
            before = snapshot(*roots)
            again = analyse(self.forge.scope(), options)
            assert again.plan.shares == []
            assert apply_plan(again, "again").inodes == 0
            assert snapshot(*roots) == before

    def _all_true(self) -> bool:
        """Whether every digest in a record is that of the file, going by the files alone."""
        for tree in self.forge.trees:
            root = Path(tree.root)
            pattern = "conda-meta/*.json" if tree.kind is TreeKind.ENVIRONMENT else "*/info/paths.json"
            for record in root.glob(pattern):
                base = root if tree.kind is TreeKind.ENVIRONMENT else record.parents[1]
                document = json.loads(record.read_text())
                for entry in (document.get("paths_data") or document)["paths"]:
                    path = base / entry["_path"]
                    if not path.exists():
                        continue
                    said = entry.get("sha256_in_prefix") or entry.get("sha256")
                    # without a digest the same path of the same package counts as the same content
                    if said is None or said != hashlib.sha256(path.read_bytes()).hexdigest():
                        return False
        return True


def partition(states: dict[str, State]) -> set[frozenset[str]]:
    """Which paths are names of one inode."""
    groups: dict[tuple[int, int], set[str]] = {}
    for path, state in states.items():
        groups.setdefault((state.device, state.inode), set()).add(path)
    return {frozenset(paths) for paths in groups.values()}


@pytest.fixture
def memory() -> Iterator[None]:
    """No world is left behind, whatever happened."""
    needs("needs /dev/shm", os.access("/dev/shm", os.W_OK))
    yield


@pytest.mark.parametrize(
    ("examples", "derandomized"),
    [
        pytest.param(60, True, id="few"),
        pytest.param(1000, False, id="many", marks=pytest.mark.soak),
    ],
)
def test_laws(memory: None, examples: int, derandomized: bool) -> None:
    run_state_machine_as_test(
        World,
        settings=settings(
            max_examples=examples,
            stateful_step_count=12,
            derandomize=derandomized,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
