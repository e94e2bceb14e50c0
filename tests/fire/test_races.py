"""Several processes write, replace and delete while we share: no write is lost, none spreads.

What a round may end with is judged from what every writer notes: the inode that his descriptor had, and when
he began, had opened, wrote and was done (one clock for all processes).
"""

from __future__ import annotations

import ctypes
import json
import multiprocessing
import os
import random
import shutil
import signal
import tempfile
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from conda_dedup_plugin.apply import apply_plan
from conda_dedup_plugin.engine import Analysis, analyse
from conda_dedup_plugin.journal import Journal
from conda_dedup_plugin.model import Manager, MethodChoice, Reason, Tree, TreeKind
from conda_dedup_plugin.plan import PlanOptions
from conda_dedup_plugin.sharing import staging as staging_module
from conda_dedup_plugin.sharing.compare import same_bytes
from conda_dedup_plugin.sharing.hardlink import Hardlinker
from conda_dedup_plugin.sharing.linux import exchange
from tests.lab.forge import Forge, digest, noise
from tests.lab.invariants import assert_unchanged, directories, snapshot
from tests.lab.shares import devices_of, hardlink, leftovers, one_tree, share_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from multiprocessing.connection import Connection

    from conda_dedup_plugin.plan import Share
    from tests.conftest import MakeLab

A, B, C = "one/a.so", "two/b.so", "two/c.so"
SIZE, SLOT = 8192, 32
DATA = noise("content", SIZE)
WRITERS = 4
#: What a writer does, and how often. ``linger``: he goes on writing through the same descriptor later;
#: ``early``: the same with one that he opened before we began, so that nothing can be shared.
KINDS = {"pwrite": 6, "append": 4, "truncate": 3, "replace": 4, "delete": 2, "linger": 3, "early": 0.2}
#: The same for those who are to come between our exchange and what we do then.
CLOSE = {"pwrite": 6, "append": 4, "truncate": 4, "linger": 4, "replace": 2, "delete": 1}
IN_PLACE = frozenset({"pwrite", "append", "truncate", "linger", "early"})
FORK = multiprocessing.get_context("fork")


class Deed(NamedTuple):
    """One thing that a writer did to ``path``, through a descriptor of ``inode``; times in nanoseconds."""

    kind: str
    path: str
    token: bytes
    inode: int
    begun: int
    opened: int
    wrote: int
    done: int


class Orders(NamedTuple):
    """What a writer is to do in a round. ``moment`` and ``linger`` in seconds."""

    tree: Path
    kind: str
    path: str
    token: bytes
    slot: int
    moment: float
    linger: float


# -- the writers ------------------------------------------------------------------------------------------


def write_for_ever(orders: Connection) -> None:
    """A writer's life: for each round, orders, go, what was done, the end of the round."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: not without the test
    held: list[int] = []
    while (order := orders.recv()) is not None:
        try:
            since = time.monotonic_ns()
            early = os.open(order.tree / order.path, os.O_WRONLY) if order.kind == "early" else None
            orders.send("ready")
            orders.recv()
            time.sleep(order.moment)
            with suppress(FileNotFoundError):
                orders.send(list(act(order, early, since, held)))
                continue
            orders.send([])
        except BaseException:
            orders.send(traceback.format_exc())
        finally:
            orders.recv()
            while held:
                os.close(held.pop())


def act(order: Orders, early: int | None, since: int, held: list[int]) -> Iterator[Deed]:
    """Do it; ``early`` is what was opened before, after ``since``.

    ``held`` keeps the inode's number from being given to another file in this round.
    """
    path = order.tree / order.path
    begun = since if order.kind == "early" else time.monotonic_ns()
    if order.kind == "delete":
        os.unlink(path)
        yield Deed("delete", order.path, b"", -1, begun, begun, begun, time.monotonic_ns())
        return
    if order.kind == "replace":
        new = path.with_name(f"new{order.slot}")
        new.write_bytes(order.token + DATA[SLOT:])
        held.append(os.open(new, os.O_PATH))
        begun = time.monotonic_ns()
        os.replace(new, path)
        number = os.fstat(held[-1]).st_ino
        yield Deed("replace", order.path, order.token, number, begun, begun, begun, time.monotonic_ns())
        return
    flags = {"append": os.O_APPEND, "truncate": os.O_TRUNC}.get(order.kind, 0)
    descriptor = os.open(path, os.O_WRONLY | flags) if early is None else early
    opened = begun if order.kind == "early" else time.monotonic_ns()
    held.append(os.open(f"/proc/self/fd/{descriptor}", os.O_PATH))
    number = os.fstat(descriptor).st_ino
    for turn in range(2 if order.kind in ("linger", "early") else 1):
        token = bytes([order.token[0] ^ turn]) + order.token[1:]
        place = (order.slot * 2 + turn) * SLOT
        wrote = time.monotonic_ns()
        if order.kind == "append":
            os.write(descriptor, token)
        elif order.kind == "truncate":
            os.pwrite(descriptor, DATA[:place] + token + DATA[place + SLOT :], 0)
        else:
            os.pwrite(descriptor, token, place)
        done = time.monotonic_ns()
        yield Deed(order.kind, order.path, token, number, begun, opened, wrote, done)
        if turn == 0 and order.kind in ("linger", "early"):
            time.sleep(order.linger)
    os.close(descriptor)


@contextmanager
def writers(count: int) -> Iterator[list[Connection]]:
    """So many processes that wait for orders."""
    pairs = [FORK.Pipe() for _ in range(count)]
    processes = [FORK.Process(target=write_for_ever, args=(theirs,), daemon=True) for _, theirs in pairs]
    try:
        for process in processes:
            process.start()
        yield [ours for ours, _ in pairs]
        for ours, _ in pairs:
            ours.send(None)
        for process in processes:
            process.join(20)
    finally:
        for process in processes:
            process.kill()
            process.join()


# -- the law ----------------------------------------------------------------------------------------------


def judge(
    tree: Path, first: Mapping[str, int], deeds: Sequence[Deed], exchanged: int, kept: Sequence[Path]
) -> list[str]:
    """Return what is wrong: ``first`` has the inodes before, ``exchanged`` when the first exchange began
    (0: none was made), ``kept`` the files that we said to have kept beside a target."""
    found = {path: read(tree / path) for path in first}
    beside = [read(path) for path in kept]
    wrong = []
    for path, (number, content) in found.items():
        steps = [d for d in deeds if d.path == path and d.kind in ("replace", "delete")]
        # those that none of the others came surely after
        last = [d for d in steps if not any(other.begun > d.done for other in steps)]
        ends = {d.inode for d in last} or {first[path], first[A]}
        if number not in ends and not any(one in ends for one, _ in beside):
            wrong.append(f"lost: {path} is inode {number}, not one of {ends}")
        for d in deeds:
            if d.path != path or d.kind not in IN_PLACE or any(step.done > d.begun for step in steps):
                continue
            truncated = (t for t in deeds if t.kind == "truncate" and t is not d and t.inode == d.inode)
            if any(t.done > d.wrote for t in truncated):
                continue
            if not any(d.token in text for text in (content, *(text for _, text in beside))):
                wrong.append(f"lost: {d.kind} of {path}, inode {d.inode}")
    for d in deeds:
        # who opened the keeper's inode after the exchange writes to both, as through any hard link
        together = exchanged and d.opened > exchanged and d.inode == first[A]
        for path, (_, content) in found.items():
            if (path == A) != (d.path == A) and d.token and not together and d.token in content:
                wrong.append(f"spread: {d.kind} of {d.path}, inode {d.inode}, to {path}")
    return wrong


def read(path: Path) -> tuple[int, bytes]:
    """The inode and bytes at a path; (-1, nothing) if it is gone."""
    try:
        with open(path, "rb") as file:
            return os.fstat(file.fileno()).st_ino, file.read()
    except FileNotFoundError:
        return -1, b""


# -- the rounds -------------------------------------------------------------------------------------------


class Made(NamedTuple):
    """What came of one attempt. ``exchanged`` as in :func:`judge`; ``shared``: and it stayed.

    ``window``: when the moment began at which a writer is most dangerous.
    """

    exchanged: int
    shared: bool
    window: int
    reason: Reason | None = None
    kept: tuple[Path, ...] = ()


@dataclass
class Count:
    rounds: int = 0
    #: The exchange was made: it stayed, or was taken back.
    made: int = 0
    taken_back: int = 0
    #: Of those, the rounds in which somebody was at work between the exchange and our end.
    met: int = 0
    bad: int = 0
    wrong: list[str] = field(default_factory=list)
    reasons: dict[Reason | None, int] = field(default_factory=dict)


def stress(
    folder: Path, attempt: Callable[..., Made], until: int, delay: float = 0.0, names: int = 1, seed: int = 1
) -> Count:
    """Play rounds until the exchange was made in ``until`` of them, writers aiming at its moment.

    In every other round the attempt itself lets them go, shortly before that moment.
    """
    chance = random.Random(seed)
    count = Count()
    kinds = CLOSE if delay else KINDS
    aims = [0.003, 0.0]
    with writers(WRITERS) as connections:
        while count.made < until and count.rounds < 40 * until:
            count.rounds += 1
            tree = folder / f"tree{count.rounds}"
            paths = make_tree(tree, chance.randint(1, names))
            first = {path: os.lstat(tree / path).st_ino for path in paths}
            held = [os.open(tree / path, os.O_PATH) for path in (A, B)]  # their numbers are not given again
            share = share_of(tree, A, *paths[1:])
            late = count.rounds % 2
            aim = aims[late]
            for slot, connection in enumerate(connections):
                (kind,) = chance.choices(list(kinds), list(kinds.values()))
                path = chance.choice([A, *3 * paths[1:]])
                near = chance.gauss(aim, 0.0003) + chance.uniform(0, 0.9) * delay
                moment = near if chance.random() < 0.8 else chance.uniform(0, 2 * aim + delay)
                token = chance.randbytes(SLOT)
                linger = chance.uniform(0, 0.002)
                connection.send(Orders(tree, kind, path, token, slot, max(moment, 0.0), linger))
            for connection in connections:
                assert connection.recv() == "ready"
            began: list[int] = []

            def go(began: list[int] = began) -> None:
                if not began:
                    began.append(time.monotonic_ns())
                    for connection in connections:
                        connection.send("go")

            if not late:
                go()
            made = attempt(tree, share, delay, go)
            ended = time.monotonic_ns()
            go()
            deeds = []
            for connection in connections:
                told = connection.recv()
                assert isinstance(told, list), told
                deeds += told
            wrong = judge(tree, first, deeds, made.exchanged, made.kept)
            for connection in connections:
                connection.send("over")
            for descriptor in held:
                os.close(descriptor)
            count.reasons[made.reason] = count.reasons.get(made.reason, 0) + 1
            if made.exchanged:
                aims[late] += 0.1 * ((made.window - began[0]) / 1e9 - aim)
                count.made += 1
                count.taken_back += not made.shared
                count.met += any(d.begun < ended and d.done > made.exchanged for d in deeds)
                count.bad += bool(wrong)
            # what to look at: everything that was done in a round that ended badly
            story = (
                [(d.kind, d.path, d.inode, *((t - began[0]) // 1000 for t in d[4:])) for d in deeds]
                if wrong
                else []
            )
            count.wrong += [f"{one}; {made.reason}, {first}, {story}" for one in wrong]
            shutil.rmtree(tree)
    return count


def make_tree(tree: Path, names: int) -> list[str]:
    """The same content in A and B; B may have a further name."""
    for path in (A, B):
        (tree / path).parent.mkdir(parents=True)
        (tree / path).write_bytes(DATA)
        os.utime(tree / path, (1_000_000_000, 1_000_000_000))
    if names > 1:
        os.link(tree / B, tree / C)
    return [A, B, C][: names + 1]


@contextmanager
def sharing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Made]]:
    """An attempt by the real thing, which sleeps ``delay`` seconds after each exchange."""
    book = Journal.open(folder / "journal.sqlite")
    moments: list[int] = []
    pause = [0.0]
    lets_go: list[Callable[[], None]] = []
    devices = {}
    exchange_all = Hardlinker._exchange

    def let_go(self, job) -> None:
        lets_go[0]()
        exchange_all(self, job)

    def noted(*words: object) -> None:
        now = time.monotonic_ns()
        exchange(*words)
        moments.append(now)
        time.sleep(pause[0])

    monkeypatch.setattr(staging_module, "exchange", noted)
    monkeypatch.setattr(Hardlinker, "_exchange", let_go)

    def attempt(tree: Path, share: Share, delay: float, go: Callable[[], None]) -> Made:
        moments.clear()
        pause[0] = delay
        lets_go[:] = [go]
        if not devices:
            devices.update(devices_of(one_tree(tree), share))
        book.begin("test")
        with Hardlinker(one_tree(tree), book, devices) as linker:
            (outcome,) = linker.run([share])
        book.finish()
        assert outcome.error == ""
        kept = tuple(Path(one) for one in outcome.detail.split(", ")) if outcome.detail else ()
        assert bool(kept) == (outcome.reason is Reason.CONFLICT)
        left = set(tree.rglob("*conda-dedup*/*")) | set(tree.rglob("two/*conda-dedup*"))
        assert left == set(kept)
        if not kept:
            assert leftovers(tree) == []
        exchanged = moments[0] if moments else 0
        return Made(exchanged, outcome.method is not None, exchanged, outcome.reason, kept)

    try:
        yield attempt
    finally:
        book.close()


def rounds(few: int, many: int) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        "until", [pytest.param(few, id="few"), pytest.param(many, id="many", marks=pytest.mark.soak)]
    )


@pytest.fixture(params=["tmpfs", pytest.param("ext4", marks=pytest.mark.filesystems)])
def place(request: pytest.FixtureRequest, shm_dir: Path) -> Iterator[Path]:
    if request.param == "tmpfs":
        yield shm_dir
        return
    with tempfile.TemporaryDirectory(dir=request.getfixturevalue("mounted")("ext4")) as folder:
        yield Path(folder)


@rounds(150, 10_000)
@pytest.mark.parametrize("names", [1, 2])
def test_writers_at_any_moment(
    place: Path, shm_dir: Path, monkeypatch: pytest.MonkeyPatch, names: int, until: int
) -> None:
    """Four processes at once on keeper and target, which may have two names."""
    with sharing(shm_dir, monkeypatch) as attempt:
        count = stress(place, attempt, until, names=names, seed=names)
    print(count)
    assert count.wrong == []
    assert count.made == until
    assert count.met > until / 10, "the writers came at other times"
    assert count.taken_back > 0


@rounds(100, 3_000)
def test_writers_between_exchange_and_settling(
    shm_dir: Path, monkeypatch: pytest.MonkeyPatch, until: int
) -> None:
    """The delay that ruins the protocols below ruins nothing here."""
    with sharing(shm_dir, monkeypatch) as attempt:
        count = stress(shm_dir, attempt, until, delay=0.005, names=2)
    print(count)
    assert count.wrong == []
    assert count.made == until
    assert count.met > until / 2


# -- what the same harness says of others -----------------------------------------------------------------


def compare_and_rename(tree: Path, share: Share, delay: float, go: Callable[[], None]) -> Made:
    """Compare, link to a temporary name, rename that over the target."""
    with suppress(FileNotFoundError), open(tree / A, "rb") as keeper, open(tree / B, "rb") as old:
        if same_bytes(keeper.fileno(), old.fileno(), SIZE) and os.path.getsize(tree / B) == SIZE:
            go()
            window = time.monotonic_ns()
            os.link(tree / A, tree / "temporary")
            time.sleep(delay)
            now = time.monotonic_ns()
            os.replace(tree / "temporary", tree / B)
            return Made(now, True, window)
    return Made(0, False, 0)


def exchange_and_look(tree: Path, share: Share, delay: float, go: Callable[[], None]) -> Made:
    """Compare and exchange; if by then one of both was written to, exchange back."""
    with suppress(FileNotFoundError), open(tree / A, "rb") as keeper, open(tree / B, "rb") as old:
        before = [os.fstat(file.fileno()) for file in (keeper, old)]
        if not same_bytes(keeper.fileno(), old.fileno(), SIZE) or before[1].st_size != SIZE:
            return Made(0, False, 0)
        os.link(tree / A, tree / "temporary")
        folder = os.open(tree, os.O_PATH)
        try:
            go()
            now = time.monotonic_ns()
            exchange(folder, "temporary", folder, B)
            time.sleep(delay)
            after = [os.fstat(file.fileno()) for file in (keeper, old)]
            stamps = [[(one.st_size, one.st_mtime_ns) for one in files] for files in (before, after)]
            back = stamps[0] != stamps[1] or os.lstat(tree / "temporary").st_ino != before[1].st_ino
            if back and os.lstat(tree / B).st_ino == before[0].st_ino:
                exchange(folder, "temporary", folder, B)
            return Made(now, not back, now)
        finally:
            os.close(folder)
            (tree / "temporary").unlink()
    return Made(0, False, 0)


@rounds(100, 3_000)
@pytest.mark.parametrize("protocol", [compare_and_rename, exchange_and_look])
def test_a_naive_protocol_is_found_out(shm_dir: Path, protocol: Callable[..., Made], until: int) -> None:
    """The proof that the harness sees what it is there to see."""
    count = stress(shm_dir, protocol, until, delay=0.005)
    print(count)
    assert count.made == until
    assert count.bad > until / 2


# -- two of us, and package managers ----------------------------------------------------------------------


def in_processes(*actions: Callable[[], object]) -> list[object]:
    """Call all of them at the same time, each in a process of its own; returns what they returned."""
    barrier = FORK.Barrier(len(actions))

    def call(action: Callable[[], object], answer: Connection) -> None:
        barrier.wait()
        try:
            answer.send(action())
        except BaseException:
            answer.send(AssertionError(traceback.format_exc()))

    pipes = [FORK.Pipe() for _ in actions]
    children = [
        FORK.Process(target=call, args=(action, theirs), daemon=True)
        for action, (_, theirs) in zip(actions, pipes, strict=True)
    ]
    for child in children:
        child.start()
    answers = [ours.recv() for ours, _ in pipes]
    for child in children:
        child.join()
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
    return answers


def plan(forge: Forge) -> Analysis:
    return analyse(forge.scope(), PlanOptions(method=MethodChoice.HARDLINK, euid=os.geteuid()))


@rounds(4, 400)
@pytest.mark.parametrize("state", ["one state", "two states"])
def test_the_same_plan_twice_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str, until: int
) -> None:
    """With one state directory a lock keeps the second one out; with two, nothing but the protocol does."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    files = {f"lib/l{index}.so": noise(f"{index}", 5000) for index in range(150)}
    for turn in range(until):
        forge = Forge(tmp_path / f"world{turn}")
        for name in ("one", "two", "three"):
            forge.environment(name, {("p", "1", "0"): files})
        analysis = plan(forge)
        assert len(analysis.plan.shares) == 300
        before, folders = snapshot(forge.root), directories(forge.root)

        def run(number: int, analysis: Analysis = analysis) -> tuple[int, list[tuple[str, str]], list[str]]:
            if state == "two states":
                os.environ["XDG_STATE_HOME"] = str(tmp_path / f"state{number}")
            applied = apply_plan(analysis, "test")
            return applied.inodes, applied.failed, applied.notes

        answers = in_processes(lambda: run(1), lambda: run(2))
        assert [answer[1:] for answer in answers] == [([], [])] * 2
        assert_unchanged(before, snapshot(forge.root))
        assert directories(forge.root) == folders
        assert leftovers(forge.root) == []
        rest = apply_plan(plan(forge), "test")
        assert rest.failed == []
        assert plan(forge).plan.shares == []
        assert_unchanged(before, snapshot(forge.root))
        shutil.rmtree(forge.root)


@rounds(6, 600)
def test_two_who_share_in_opposite_directions(tmp_path: Path, until: int) -> None:
    """Whose keeper is the other's duplicate: no path loses its bytes, and nothing is left."""
    paths = [(f"one/{index}.so", f"two/{index}.so") for index in range(100)]
    made = 0
    for turn in range(until):
        tree = tmp_path / f"tree{turn}"
        for index, pair in enumerate(paths):
            for path in pair:
                (tree / path).parent.mkdir(parents=True, exist_ok=True)
                (tree / path).write_bytes(noise(f"{index}", 5000))
                os.utime(tree / path, (1_000_000_000, 1_000_000_000))
        forth = [share_of(tree, one, two) for one, two in paths]
        back = [share_of(tree, two, one) for one, two in reversed(paths)]
        before = snapshot(tree)

        def run(number: int, shares, tree: Path = tree) -> tuple[int, list[str]]:
            outcomes = hardlink(tree, tmp_path / f"journal{number}", *shares)
            return sum(o.method is not None for o in outcomes), [o.error + o.detail for o in outcomes]

        answers = in_processes(lambda f=forth: run(1, f), lambda b=back: run(2, b))
        for shared, errors in answers:
            made += shared
            assert not any(errors), errors
        assert_unchanged(before, snapshot(tree))
        assert leftovers(tree) == []
        shutil.rmtree(tree)
    assert made > 10 * until


VERSIONS = ("1", "2")


def manage(prefix: Path, cache: Path, paths: Sequence[str], orders: Connection) -> None:
    """What package managers do to their files until told to stop; sends the version each path has then."""
    chance = random.Random(7)
    left: dict[str, str | None] = dict.fromkeys(paths, "1")
    while not orders.poll():
        path, version = chance.choice(paths), chance.choice(VERSIONS)
        source, target = cache / f"p-{version}-0" / path, prefix / path
        way = chance.choice(["link", "copy", "replace", "remove"])
        if way == "replace":
            new = target.with_name(target.name + ".new")
            shutil.copy2(source, new)
            os.replace(new, target)
        else:
            target.unlink(missing_ok=True)
            if way == "link":
                os.link(source, target)
            elif way == "copy":
                shutil.copy2(source, target)
        left[path] = None if way == "remove" else version
    orders.send(left)


@rounds(100, 5_000)
def test_a_package_manager_at_work(
    shm_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, until: int
) -> None:
    """It unlinks, links, copies and renames in the environment; every path is as it left it."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    forge = Forge(shm_dir)
    files = {
        version: {f"lib/l{index}.so": noise(f"{version} {index}", 5000) for index in range(40)}
        for version in VERSIONS
    }
    cache = forge.cache({("p", version, "0"): files[version] for version in VERSIONS})
    prefix = forge.environment("one", {("p", "1", "0"): files["1"]})
    expected = {path: state.content for path, state in snapshot(cache).items()}
    ours, theirs = FORK.Pipe()
    manager = FORK.Process(target=manage, args=(prefix, cache, list(files["1"]), theirs), daemon=True)
    manager.start()
    shared = 0
    try:
        while shared < until:
            assert manager.is_alive()
            applied = apply_plan(plan(forge), "test")
            assert applied.failed == []
            assert applied.notes == []
            shared += applied.inodes
    finally:
        ours.send("stop")
        left = ours.recv() if manager.is_alive() else {}
        manager.join()
    assert len(left) == 40
    for path, version in left.items():
        content = (prefix / path).read_bytes() if (prefix / path).exists() else None
        assert content == (files[version][path] if version else None), path
    assert {path: state.content for path, state in snapshot(cache).items()} == expected
    assert leftovers(shm_dir) == []


def wrong_files(prefix: Path) -> list[str]:
    """Files that are not what conda's records say, and files of packages that no record knows."""
    wrong, known = [], set()
    for meta in prefix.glob("conda-meta/*.json"):
        for said in json.loads(meta.read_text())["paths_data"]["paths"]:
            path = prefix / said["_path"]
            known.add(path)
            if not path.is_symlink() and digest(path.read_bytes()) != said["sha256_in_prefix"]:
                wrong.append(said["_path"])
    found = set(prefix.glob("lib/two-builds/*"))
    return sorted([*wrong, *map(str, found - known)])


@pytest.mark.integration
@rounds(1, 20)
def test_conda_at_work_while_we_share(
    conda_lab: MakeLab, shm_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, until: int
) -> None:
    """conda installs, updates and removes in an environment that is being shared all the time."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    lab = conda_lab(envs_dir=shm_dir / "envs")
    prefixes = [lab.create("one", "two-builds=1.0=1", "settings"), lab.create("two", "two-builds=1.0=0")]
    forge = Forge(shm_dir)
    for prefix in prefixes:
        root = os.path.realpath(prefix)
        forge.trees.append(Tree(root, TreeKind.ENVIRONMENT, Manager.CONDA, prefix.name))

    def work() -> None:
        for _ in range(until):
            lab.conda("install", "--name", "two", "settings", "two-builds=1.0=1")
            lab.conda("install", "--name", "two", "two-builds=1.0=0")
            lab.conda("remove", "--name", "two", "settings")

    applied = []
    with ThreadPoolExecutor(1) as pool:
        working = pool.submit(work)
        while not working.done():
            applied.append(apply_plan(plan(forge), "test"))
        working.result()
    assert sum(one.inodes for one in applied) > 0
    assert [one.failed + one.notes for one in applied if one.failed or one.notes] == []
    assert [wrong_files(prefix) for prefix in prefixes] == [[], []]
    assert not (prefixes[1] / "share/settings/data.bin").exists()
    assert leftovers(shm_dir) == []
