"""The rules of the plan, on inodes made up for it: pure functions need no files."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conda_dedup_plugin.candidates import propose
from conda_dedup_plugin.model import (
    Claim,
    Device,
    Dist,
    Extent,
    Goal,
    Hazard,
    Inode,
    InodeKey,
    Layout,
    Manager,
    Method,
    MethodChoice,
    Name,
    Reason,
    Scope,
    Totals,
    Tree,
    TreeKind,
)
from conda_dedup_plugin.plan import Plan, PlanOptions, add_to
from conda_dedup_plugin.planner import Planner, make_plan
from conda_dedup_plugin.policy import hazard_of

P, Q = (Dist(name, "1.0", "py311_0", "linux-64", name * 8) for name in "pq")
CACHE = Tree("/c/pkgs", TreeKind.CACHE, Manager.CONDA, "pkgs")
CACHE2 = Tree("/d/pkgs", TreeKind.CACHE, Manager.CONDA, "pkgs")
RATTLER = Tree("/r/pkgs", TreeKind.CACHE, Manager.RATTLER, "pkgs")
ONE, TWO, THREE = (
    Tree(f"/e/{name}", TreeKind.ENVIRONMENT, Manager.CONDA, name) for name in ("one", "two", "three")
)
FROZEN = Tree("/e/frozen", TreeKind.ENVIRONMENT, Manager.CONDA, "frozen", frozen=True)
DONOR = Tree("/e/donor", TreeKind.ENVIRONMENT, Manager.CONDA, "donor", selected=False)
EXT4 = Device(1, "ext4", reflink=False, hardlink=True)
BTRFS = Device(1, "btrfs", reflink=True, hardlink=True)
_numbers = itertools.count(100)


class World:
    """Inodes with the same content and what becomes of them."""

    def __init__(self, *devices, **options):
        self.trees = []
        self.inodes = []
        self.devices = {device.number: device for device in devices or (EXT4,)}
        self.options = PlanOptions(**options)

    def inode(self, *names, nlink=None, dist=P, path="lib/libx.so", size=8192, claims=None, **more):
        """``names``: trees, or (tree, path in it)."""
        inode = Inode(
            key=InodeKey(more.pop("device", 1), next(_numbers)),
            size=size,
            disk_bytes=size,
            mode=more.pop("mode", 0o100644),
            uid=more.pop("uid", 0),
            gid=0,
            nlink=nlink or len(names),
            mtime_ns=more.pop("mtime", 5),
            ctime_ns=more.pop("ctime", 5),
        )
        for name in names:
            tree, where = name if isinstance(name, tuple) else (name, path)
            if tree not in self.trees:
                self.trees.append(tree)
            said = Claim(dist, where, b"d" * 32, **(claims or {}))
            at = f"{dist}/{where}" if tree.is_cache else where
            inode.names.append(Name(self.trees.index(tree), at, said))
            inode.hazard = max(inode.hazard, hazard_of(at, said))
        for key, value in more.items():
            setattr(inode, key, value)
        self.inodes.append(inode)
        return inode

    def plan(self):
        return make_plan(Scope(tuple(self.trees)), [self.inodes], self.devices, self.options)

    def shares(self):
        return {(s.duplicate.key.number, s.keeper.key.number) for s in self.plan().shares}

    def reasons(self):
        return [reason for group in self.plan().groups for reason in (held.reason for held in group.held)]


def pairs(*couples):
    return {(duplicate.key.number, keeper.key.number) for duplicate, keeper in couples}


def test_the_cache_keeps():
    world = World()
    copy = world.inode(ONE, mtime=1)
    cached = world.inode(CACHE, TWO)
    assert world.shares() == pairs((copy, cached))


def test_each_goes_to_its_own_package_in_the_cache():
    world = World()
    cached_p, cached_q = world.inode(CACHE, TWO, dist=P), world.inode(CACHE, dist=Q)
    of_p, of_q = world.inode(ONE, dist=P), world.inode(ONE, dist=Q, path="lib/liby.so")
    assert world.shares() == pairs((of_p, cached_p), (of_q, cached_q))
    assert world.reasons() == [Reason.CACHE_NAME]


def test_a_package_with_the_same_file_twice_stays_as_the_cache_has_it():
    world = World()
    paths = ("lib/libx.so", "lib/python3.11/site-packages/x/libx.so")
    cached = [world.inode(CACHE, path=path) for path in paths]
    copies = [world.inode(ONE, path=path) for path in paths]
    assert world.shares() == pairs(*zip(copies, cached, strict=True))


def test_conda_caches_are_not_linked_to_each_other():
    world = World()
    world.inode(CACHE)
    world.inode(CACHE2)
    world.inode(RATTLER)
    assert world.shares() == set()
    assert world.reasons() == [Reason.CACHE_NAME] * 2


def test_unless_asked_for():
    world = World(include_cache=True)
    keeper, other = world.inode(CACHE, ONE), world.inode(CACHE2)
    assert world.shares() == pairs((other, keeper))


def test_a_rattler_cache_may_be_linked_within_itself():
    world = World()
    keeper = world.inode(RATTLER, ONE, dist=P)
    other = world.inode(RATTLER, dist=Q)
    assert world.shares() == pairs((other, keeper))


def test_names_outside_the_scan_hold():
    world = World()
    hidden = world.inode(ONE, nlink=2)
    alone = world.inode(TWO)
    # the one that cannot be moved keeps
    assert world.shares() == pairs((alone, hidden))
    world.inode(THREE, nlink=3)
    assert world.reasons() == [Reason.NAMES_OUTSIDE]


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"mode": 0o100755}, Reason.OTHER_MODE),
        ({"uid": 7}, Reason.OTHER_OWNER),
        ({"xattrs": b"x"}, Reason.OTHER_XATTRS),
        ({"capabilities": True}, Reason.SETID),
        ({"mode": 0o104755}, Reason.SETID),
    ],
)
def test_what_a_link_would_change(more, reason):
    world = World()
    world.inode(CACHE, ONE)
    world.inode(TWO, **more)
    assert world.shares() == set()
    assert world.reasons() == [reason]


def test_another_users_files_are_held():
    world = World(euid=1000)
    world.inode(CACHE, ONE)
    world.inode(TWO)
    assert world.reasons() == [Reason.OTHER_OWNER]


@pytest.mark.parametrize(
    ("path", "claims", "reason"),
    [
        ("etc/x.conf", {}, Reason.MUTABLE),
        ("ssl/cacert.pem", {}, Reason.MUTABLE),
        ("lib/x.so", {"no_link": True}, Reason.MUTABLE),
        ("lib/libpython.so", {"prefixed": True}, Reason.PREFIXED),
        ("x/a.py", {"pip": True}, Reason.UNTRACKED),
    ],
)
def test_classes_that_are_never_linked(path, claims, reason):
    world = World()
    world.inode(ONE, path=path, claims=claims)
    world.inode(TWO, path=path, claims=claims)
    assert world.shares() == set()
    assert world.reasons() == [reason]


def test_mutable_files_are_no_keepers_either():
    world = World()
    world.inode((ONE, "etc/x"))
    world.inode((TWO, "share/x"))
    assert world.shares() == set()


@pytest.mark.parametrize("path", ["lib/x.so", "x/__pycache__/a.cpython-311.pyc"])
def test_native_and_bytecode_take_the_keepers_mtime(path):
    world = World()
    keeper, other = world.inode(ONE, path=path, mtime=1), world.inode(TWO, path=path, mtime=2)
    assert world.shares() == pairs((other, keeper))


def test_others_only_with_the_same_mtime():
    world = World()
    keeper = world.inode(CACHE, path="x/a.py")
    same = world.inode(ONE, path="x/a.py")
    world.inode(TWO, path="x/a.py", mtime=6)
    assert world.shares() == pairs((same, keeper))
    assert world.reasons() == [Reason.OTHER_MTIME]


def test_a_packages_file_is_linked_to_the_same_package_or_a_cache_only():
    world = World()
    world.inode(ONE, path="x/a.py", dist=P)
    world.inode(TWO, path="x/a.py", dist=Q)
    assert world.reasons() == [Reason.PACKAGE]
    world = World()
    keeper, other = world.inode(ONE, path="x/a.py"), world.inode(TWO, path="x/a.py")
    assert world.shares() in (pairs((other, keeper)), pairs((keeper, other)))


def test_two_text_files_of_one_environment_stay_two():
    world = World()
    world.inode(CACHE, (ONE, "x/a.py"), path="x/a.py")
    world.inode((ONE, "y/a.py"))
    assert world.shares() == set()
    assert world.reasons() == [Reason.ONE_ENVIRONMENT]


def test_loader_identity_within_one_environment():
    world = World()
    world.inode((ONE, "x/_core.so"))
    world.inode((ONE, "y/_core.so"))
    assert world.reasons() == [Reason.LOADER]
    world.inode((TWO, "x/_core.so"))
    world.inode((TWO, "y/_core.so"))
    shares = world.shares()
    # in pairs across environments, never both to the same one
    assert len(shares) == 2
    assert len({keeper for _, keeper in shares}) == 2


def test_plain_libraries_may_be_one_within_an_environment():
    world = World()
    world.inode((ONE, "lib/libx.so.1"))
    world.inode((ONE, "lib/python3.11/site-packages/x/libx.so"))
    assert len(world.shares()) == 1


def test_frozen_environments():
    world = World()
    world.inode(FROZEN)
    world.inode(ONE)
    assert world.reasons() == [Reason.FROZEN]
    world = World(override_frozen=True)
    world.inode(FROZEN)
    world.inode(ONE)
    assert len(world.shares()) == 1
    # what its cache holds too is the cache's
    world = World()
    keeper, other = world.inode(CACHE, FROZEN), world.inode(ONE)
    assert world.shares() == pairs((other, keeper))
    # and it may give its extents
    world = World(BTRFS)
    keeper, other = world.inode(FROZEN), world.inode(ONE)
    assert world.shares() == pairs((other, keeper))


def test_donors_keep_and_are_not_counted():
    world = World()
    donor, own = world.inode(DONOR), world.inode(ONE)
    assert world.shares() == pairs((own, donor))
    world = World()
    world.inode(DONOR)
    world.inode(DONOR)
    assert world.plan().groups == []


def test_another_device():
    world = World(EXT4, Device(2, "tmpfs", reflink=False, hardlink=True))
    world.inode(CACHE)
    first, second = world.inode(ONE, device=2), world.inode(TWO, device=2)
    assert world.shares() in (pairs((second, first)), pairs((first, second)))
    assert world.reasons() == [Reason.OTHER_DEVICE]


def test_reflinks_go_anywhere():
    world = World(BTRFS)
    cached = world.inode(CACHE, ONE, path="etc/x")
    others = [world.inode(CACHE2, path="etc/x"), world.inode(TWO, path="etc/x", nlink=5, mode=0o100600)]
    assert world.shares() == pairs(*((other, cached) for other in others))
    assert {share.method for share in world.plan().shares} == {Method.REFLINK}


def test_what_shares_its_extents_is_no_duplicate():
    world = World(BTRFS)
    layout = Layout((Extent(0, 4096, 8192),), shared=True, exact=True)
    world.inode(ONE, layout=layout)
    world.inode(TWO, layout=layout)
    assert world.plan().groups == []
    third = world.inode(THREE, layout=Layout((Extent(0, 99 * 4096, 8192),), shared=False, exact=True))
    plan = world.plan()
    assert [share.duplicate for share in plan.shares] == [third]
    assert plan.freeable_bytes == 8192


def test_bytes_of_a_unit_are_freed_by_the_last_one():
    world = World(BTRFS)
    world.inode(CACHE, layout=Layout((Extent(0, 4096, 8192),), shared=False, exact=True))
    layout = Layout((Extent(0, 99 * 4096, 8192),), shared=True, exact=True)
    world.inode(ONE, layout=layout)
    world.inode(TWO, layout=layout)
    plan = world.plan()
    assert [share.freed_bytes for share in plan.shares] == [0, 8192]


def test_for_inodes_what_shares_its_extents_is_linked_as_well():
    world = World(BTRFS, goal=Goal.INODES)
    layout = Layout((Extent(0, 4096, 8192),), shared=True, exact=True)
    keeper = world.inode(ONE, layout=layout, mtime=1)
    same = world.inode(TWO, layout=layout, mtime=2)
    third = world.inode(
        THREE, layout=Layout((Extent(0, 99 * 4096, 8192),), shared=False, exact=True), mtime=3
    )
    plan = world.plan()
    assert world.shares() == pairs((same, keeper), (third, keeper))
    assert {share.method for share in plan.shares} == {Method.HARDLINK}
    assert [share.freed_bytes for share in plan.shares] == [0, 8192]
    assert sum(share.freed_inodes for share in plan.shares) == 2


def test_for_inodes_what_may_be_no_link_is_reflinked():
    world = World(BTRFS, goal=Goal.INODES)
    world.inode(ONE, path="etc/x", mtime=1)
    world.inode(TWO, path="etc/x", mtime=2)
    [share] = world.plan().shares
    assert (share.method, share.freed_bytes, share.freed_inodes) == (Method.REFLINK, 8192, 0)


def test_untracked_text_is_linked_where_asked_for():
    for path, mtime, linked in (("x/a.txt", 7, True), ("x/a.py", 5, True), ("x/a.py", 7, False)):
        for asked in (False, True):
            world = World(hardlink_untracked=asked)
            one = world.inode((ONE, path), claims={"pip": True})
            two = world.inode((TWO, path), claims={"pip": True}, mtime=mtime)
            assert world.shares() == (pairs((two, one)) if asked and linked else set())


def test_extents_that_somebody_outside_shares():
    world = World(BTRFS)
    world.inode(CACHE, layout=Layout((Extent(0, 4096, 8192),), shared=False, exact=True))
    world.inode(ONE, layout=Layout((Extent(0, 99 * 4096, 8192),), shared=True, exact=True))
    assert world.reasons() == [Reason.SHARED_OUTSIDE]


@pytest.mark.parametrize(
    ("device", "options", "reason"),
    [
        (EXT4, {"method": MethodChoice.REFLINK}, Reason.NO_REFLINK),
        (EXT4, {"reflink_only": True}, Reason.COPIES_ASKED),
        (Device(1, "fat", reflink=False, hardlink=False), {}, Reason.NO_SHARING),
        (Device(1, "overlay", reflink=False, hardlink=True, overlay=True), {}, Reason.OVERLAY),
    ],
)
def test_what_a_device_cannot(device, options, reason):
    world = World(device, **options)
    world.inode(ONE)
    world.inode(TWO)
    assert world.reasons() == [reason]


def test_overlay_files_known_to_be_new():
    overlay = Device(1, "overlay", reflink=False, hardlink=True, overlay=True)
    world = World(overlay, fresh_since_ns=100)
    world.inode(ONE, ctime=150)
    world.inode(TWO, ctime=150)
    assert len(world.shares()) == 1
    world.inode(THREE, ctime=50)
    assert world.reasons() == [Reason.OVERLAY]


def test_hard_links_where_asked_for():
    world = World(BTRFS, method=MethodChoice.HARDLINK)
    world.inode(ONE)
    world.inode(TWO)
    assert [share.method for share in world.plan().shares] == [Method.HARDLINK]


def test_link_limit():
    world = World(Device(1, "ext4", reflink=False, hardlink=True, link_limit=3))
    for tree in (ONE, TWO, THREE, DONOR):
        world.inode(Tree(f"{tree.root}x", TreeKind.ENVIRONMENT, Manager.CONDA, tree.name))
    world.inode(CACHE, nlink=2)
    plan = world.plan()
    assert len(plan.shares) == 3
    assert [held.reason for group in plan.groups for held in group.held] == [Reason.LINK_LIMIT]


# -- laws ---------------------------------------------------------------------------------------------

TREES = st.sampled_from([CACHE, CACHE2, RATTLER, ONE, TWO, THREE, FROZEN, DONOR])
PATHS = st.sampled_from(["lib/libx.so", "x/_core.so", "y/_core.so", "x/a.py", "x/a.pyc", "x/a.txt", "etc/x"])
INODE = st.fixed_dictionaries(
    {
        "names": st.lists(st.tuples(TREES, PATHS), min_size=1, max_size=4, unique=True),
        "hidden": st.integers(0, 1),
        "mode": st.sampled_from([0o100644, 0o100755, 0o104755]),
        "uid": st.sampled_from([0, 0, 0, 7]),
        "mtime": st.integers(1, 2),
        "device": st.integers(1, 2),
        "dist": st.sampled_from([P, Q]),
        "claims": st.sampled_from([{}, {"pip": True}]),
    }
)
OPTIONS = st.fixed_dictionaries(
    {
        "method": st.sampled_from(MethodChoice),
        "euid": st.sampled_from([0, 7]),
        "include_cache": st.booleans(),
        "override_frozen": st.booleans(),
        "reflink_only": st.booleans(),
        "goal": st.sampled_from(Goal),
        "hardlink_untracked": st.booleans(),
    }
)


def _same_again(inodes, **options):
    """Two worlds with a group each, that differ in what does not count alone; and both in one."""
    worlds = []
    for step, (old, new) in enumerate((("x", "x"), ("x", "zz"))):
        world = World(
            Device(1, "x", reflink=False, hardlink=True),
            Device(2, "y", reflink=False, hardlink=True),
            **options,
        )
        world.trees += [CACHE, CACHE2, RATTLER, ONE, TWO, THREE, FROZEN, DONOR]
        taken = set()
        for place, spec in enumerate(inodes):
            spec = {**spec}
            names = [name for name in spec.pop("names") if name not in taken]
            taken.update(names)
            names = [
                (tree, path.replace("/x", f"/{new}").replace(f"{old}/", f"{new}/")) for tree, path in names
            ]
            if names:
                dist = f"{spec.pop('dist')}{step}" if isinstance(spec["dist"], str) else spec.pop("dist")
                more = {"nlink": len(names) + spec.pop("hidden"), "dist": dist}
                spec["mtime"] += 100 * step
                world.inode(*names, size=8192 * (1 + step + place), **more, **spec)
        worlds.append(world)
    return worlds


def _planned(plan, group):
    """What a plan comes to, by the places of inodes in their group."""
    place = {id(inode): number for number, inode in enumerate(group)}
    shares = [
        (place[id(s.duplicate)], place[id(s.keeper)], s.method, s.hazard, s.cause, s.freed_bytes, s.certain)
        for s in plan.shares
    ]
    held = [
        ([place[id(inode)] for inode in h.inodes], h.reason, h.cause, h.bytes)
        for found in plan.groups
        for h in found.held
    ]
    return shares, held


@given(st.lists(INODE, min_size=2, max_size=6), OPTIONS)
@settings(max_examples=300, deadline=None)
def test_what_is_alike_is_planned_alike(inodes, options):
    first, second = _same_again(inodes, **options)
    if not first.inodes:
        return
    scope = Scope(tuple(first.trees))
    planner = Planner(scope, first.devices, first.options)
    Plan(planner.groups([first.inodes]))
    by_model = Plan(planner.groups([second.inodes]))
    anew = make_plan(scope, [second.inodes], second.devices, second.options)
    assert _planned(by_model, second.inodes) == _planned(anew, second.inodes)


@given(st.lists(INODE, min_size=2, max_size=7), OPTIONS, st.booleans())
@settings(max_examples=300, deadline=None)
def test_laws(inodes, options, reflink):
    world = World(
        Device(1, "x", reflink=reflink, hardlink=True),
        Device(2, "y", reflink=False, hardlink=True),
        **options,
    )
    taken = set()
    for inode in inodes:
        names = [name for name in inode.pop("names") if name not in taken]
        taken.update(names)
        if names:
            world.inode(*names, nlink=len(names) + inode.pop("hidden"), **inode)
    if not world.inodes:
        return
    plan = world.plan()
    duplicates = [share.duplicate.key for share in plan.shares]
    keepers = {share.keeper.key for share in plan.shares}
    assert len(duplicates) == len(set(duplicates)), "no inode is replaced twice"
    gone = {share.duplicate.key for share in plan.shares if share.freed_inodes}
    assert keepers.isdisjoint(gone if options["goal"] is Goal.INODES else duplicates), "a keeper stays"
    for share in plan.shares:
        one, other = share.duplicate, share.keeper
        trees = [world.trees[name.tree] for name in one.names]
        assert one.key.device == other.key.device
        assert share.freed_bytes >= 0
        assert any(tree.selected for tree in trees)
        if share.method is Method.HARDLINK:
            assert all(tree.selected for tree in trees)
            assert one.nlink == len(one.names)
            assert (one.uid, one.gid, one.mode) == (other.uid, other.gid, other.mode)
            assert share.hazard < Hazard.UNTRACKED + options["hardlink_untracked"]
            python = any(name.path.endswith(".py") for name in (*one.names, *other.names))
            assert not python or one.mtime_ns == other.mtime_ns
            assert share.hazard is not Hazard.PACKAGE or one.mtime_ns == other.mtime_ns
            assert options["include_cache"] or not any(tree.is_conda_cache for tree in trees)
    totals, by_class = Totals(), {}
    for group in plan.groups:
        add_to(group, totals, by_class)
    assert totals.duplicate_bytes == totals.freeable_bytes + totals.held_bytes
    assert totals.duplicate_bytes == sum(part.duplicate_bytes for part in by_class.values())
    selected = [
        inode for inode in world.inodes if any(world.trees[name.tree].selected for name in inode.names)
    ]
    assert totals.duplicate_bytes <= 8192 * len(selected)


def test_what_is_proposed():
    world = World()
    one, two = world.inode(ONE), world.inode(TWO)
    stale = world.inode(THREE, claims={"size": 99})
    pyc = {"path": "x/__pycache__/a.pyc"}
    compiled = [world.inode(tree, **pyc) for tree in (ONE, TWO)]
    by_pip = [world.inode(tree, **pyc) for tree in (ONE, TWO)]
    for inodes, pip in ((compiled, False), (by_pip, True)):
        for inode in inodes:
            name = inode.names[0]
            inode.names[0] = name._replace(claim=name.claim._replace(sha256=None, pip=pip))
    groups = propose(world.inodes)
    assert groups == [[one, two], compiled]
    assert stale not in itertools.chain(*groups)
