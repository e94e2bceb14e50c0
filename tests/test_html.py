"""``report --html``: the page in a real browser, and its numbers against those of the JSON document."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.lab import needs
from tests.lab.browser import Browser, chromium
from tests.lab.conda_wheel import importable
from tests.lab.forge import noise
from tests.lab.mounts import REFLINK_KINDS
from tests.test_recall import rest
from tests.test_report import DIST, EVIL, LIBRARY, REPOSITORY, World, world

__all__ = ["world"]

#: What an environment may be called to be taken for markup, by a browser or by plotly.
MARKUP = "<img src=x onerror=pwned=1><b>&lt;"
CHARTS = ["environments", "packages", "similarity"]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("profile")) as running:
        yield running


@dataclass(frozen=True)
class Shown:
    """A page of environments of every sort, and the document that was printed with it."""

    world: World
    page: Path
    document: dict[str, Any]


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Shown:
    needs("needs the package plotly", importable("plotly"))
    folder = tmp_path_factory.mktemp("shown")
    world = World(folder / "world", folder / "home")
    several(world)
    return Shown(world, *written(world, "--deep", "--audit"))


@pytest.fixture(autouse=True)
def _plotly() -> None:
    needs("needs the package plotly", importable("plotly"))


def package(
    name: str, size: int = 40_000, version: str = "1"
) -> dict[tuple[str, str, str], dict[str, bytes]]:
    """Files of every kind, of one package."""
    return {
        (name, version, "0"): {
            f"lib/lib{name}.so": noise(name + version, size),
            f"lib/python3.12/site-packages/{name}.py": noise(f"{name}-py", 6000),
            f"share/{name}.txt": noise(f"{name}-text", 9000),
            f"etc/{name}.conf": noise(f"{name}-conf", 5000),
            f"small/{name}": b"s",
        }
    }


def several(world: World) -> None:
    """Environments that are alike, and not; a cache; what cannot be shared; names of every sort."""
    alike = {**package("a"), **package("b", 90_000), **package("c")}
    for name in ("one", "two"):
        world.forge.environment(name, alike)
    world.forge.environment("three", {**package("d"), **package("b", 90_000), **package("c", version="2")})
    world.forge.environment(MARKUP, package("d"))
    world.forge.environment(EVIL.replace("\r", ""), package("e"))
    world.forge.cache(package("a"))
    odd = os.fsencode(world.root) + b"/envs/one/share/\xff\xfe<script>pwned=1;"
    for path in (odd, odd.replace(b"/one/", b"/three/")):
        Path(os.fsdecode(path)).write_bytes(noise("odd", 20_000))


def written(world: World, *words: object) -> tuple[Path, dict[str, Any]]:
    """The page of all environments, and the document that was printed with it."""
    page = world.home / "page.html"
    return page, world.json("report", *world.search, *words, "--html", page)


def charts_of(page: Path) -> dict[str, Any]:
    """What a page gives plotly to draw."""
    found = re.search(r'id="charts">(.*?)</script>', page.read_text("utf-8"), re.DOTALL)
    assert found is not None
    return dict(json.loads(found.group(1)))


def bars_of(page: Path) -> dict[str, list[int]]:
    """For each kind of bytes: now and then of the first tree, now and then of the next."""
    traces = charts_of(page)["environments"]["traces"]
    return {trace["name"]: trace["x"] for trace in traces if trace["type"] == "bar"}


def rows(browser: Browser, table: str) -> list[list[Any]]:
    """The cells of a table: numbers exactly, else texts; rows that are hidden left out."""
    script = """
      return [...document.getElementById(arguments[0]).tBodies[0].rows].filter(row => !row.hidden).map(
        row => [...row.cells].map(cell => "value" in cell.dataset ? +cell.dataset.value : cell.textContent))
    """
    return list(browser.run(script, table))


def test_the_page_says_what_the_document_says(shown: Shown, browser: Browser) -> None:
    page, document = shown.page, shown.document
    browser.show(page)
    assert browser.draw_all() == CHARTS
    totals = document["totals"]
    assert totals["freeable_bytes"] and totals["held_bytes"]
    tiles = browser.run(
        "return [...document.querySelectorAll('.tile strong')].map(one => +one.dataset.value)"
    )
    assert tiles == [totals[f"{kind}_bytes"] for kind in ("disk", "duplicate", "freeable", "held")]

    trees = {tree["prefix"]: tree for tree in document["environments"] + document["caches"]}
    listed = rows(browser, "environments-table")
    assert len(listed) == len(trees) == 6
    by_root = {root.encode("unicode_escape").decode(): tree for root, tree in trees.items()}
    for _, disk, private, shared, freeable, held, then, prefix in listed:
        tree = by_root[prefix.encode("unicode_escape").decode() if prefix in trees else prefix]
        assert (disk, private, freeable) == tuple(
            tree[f"{kind}_bytes"] for kind in ("disk", "private", "freeable")
        )
        assert private + shared == disk and then == disk - freeable and held <= disk
    assert sum(row[5] for row in listed) == totals["held_bytes"]
    assert sum(row[4] for row in listed) == totals["freeable_bytes"]

    # what is drawn is what is in the table
    drawn = browser.run(
        "return document.getElementById('chart-environments').data.map(one => [one.name, one.x])"
    )
    bars = {name: numbers for name, numbers in drawn if name in ("private", "shared", "held", "freeable")}
    for number, (_, disk, _, _, freeable, held, then, _) in enumerate(listed):
        now = {kind: numbers[2 * number] for kind, numbers in bars.items()}
        after = {kind: numbers[2 * number + 1] for kind, numbers in bars.items()}
        assert sum(now.values()) == disk and now["freeable"] == freeable and now["held"] == held
        assert sum(after.values()) == then and after["freeable"] == 0 and after["held"] == held

    areas = browser.run("const t = document.getElementById('chart-packages').data[0];"
                        "return t.ids.map((id, i) => [id, t.parents[i], t.values[i]])")  # fmt: skip
    inside = {own: sum(taken for _, within, taken in areas if within == own) for own, _, _ in areas}
    assert all(not inside[own] or inside[own] == taken for own, _, taken in areas)
    environments = sorted(taken for _, within, taken in areas if within == "all")
    assert environments == sorted(tree["disk_bytes"] for tree in document["environments"])

    assert [row[0] for row in rows(browser, "duplicates-table")] == [
        one["bytes"] for one in document["largest"]
    ]
    assert [row[1:] for row in rows(browser, "held-table")] == [
        [held["bytes"], held["inodes"]] for held in document["held"]
    ]
    heat = browser.run("return document.getElementById('chart-similarity').data[0].z")
    compared = shown.world.json("compare", "--all", *shown.world.search)
    assert sorted(share for number, row in enumerate(heat) for share in row[:number]) == sorted(
        round(pair["similarity"], 3) for pair in compared["pairs"]
    )
    # a cluster comes first, and is framed
    assert heat[0][1] == 1.0 and charts_of(page)["similarity"]["layout"]["shapes"][0]["x1"] == 1.5
    assert browser.complaints() == []
    assert [url for url in browser.requests() if not url.startswith(("data:", "about:"))] == [page.as_uri()]


def test_names_are_no_markup(shown: Shown, browser: Browser) -> None:
    page, document = shown.page, shown.document
    browser.show(page)
    browser.draw_all()
    assert browser.run("return window.pwned === undefined")
    assert not browser.run("return document.querySelector('main img, main b')")
    ticks = browser.run(
        "return [...document.querySelectorAll('#chart-environments .ytick')].map(t => t.textContent)"
    )
    assert any(tick.startswith("<img src=x") for tick in ticks), ticks
    assert not any(not character.isprintable() for tick in ticks for character in tick.replace("\xa0", " "))
    assert any("<script>" in name for group in document["largest"] for name in group["names"])
    names = browser.run("return [...document.querySelectorAll('td code')].map(code => code.textContent)")
    assert any(r"\udcff\udcfe<script>pwned=1;" in name for name in names)
    assert browser.complaints() == []


def test_search_and_sort(shown: Shown, browser: Browser) -> None:
    page, document = shown.page, shown.document
    browser.show(page)
    search = browser.driver.find_element("id", "search")
    everything = rows(browser, "duplicates-table")
    search.send_keys("LIBB.so two")
    (found,) = rows(browser, "duplicates-table")
    (group,) = (one for one in document["largest"] if one["keeper"].endswith("libb.so"))
    assert found[:2] == [group["bytes"], len(group["extents"])]
    assert browser.run("return document.getElementById('found').textContent") == f"1 of {len(everything)}"
    search.clear()
    search.send_keys("no such file")
    assert rows(browser, "duplicates-table") == []
    search.clear()
    search.send_keys(" ")
    assert rows(browser, "duplicates-table") == everything

    head = "#duplicates-table th:nth-child({})"
    for column, key, order in (
        (2, lambda row: -row[1], "descending"),
        (2, lambda row: row[1], "ascending"),
        (1, lambda row: -row[0], "descending"),
        (3, lambda row: row[2].lower(), "ascending"),
    ):
        browser.driver.find_element("css selector", f"{head.format(column)} button").click()
        assert browser.run(f"return document.querySelector('{head.format(column)}').ariaSort") == order
        now = rows(browser, "duplicates-table")
        assert [key(row) for row in now] == sorted(key(row) for row in now)
        assert browser.run("return document.querySelectorAll('#duplicates-table [aria-sort]').length") == 1


@pytest.mark.parametrize("width", [320, 1280])
def test_on_a_phone_and_in_the_dark(shown: Shown, browser: Browser, width: int) -> None:
    page = shown.page
    browser.show(page, width)
    browser.draw_all()
    browser.run("for (const one of document.querySelectorAll('details')) one.open = true")
    overflow = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert browser.run(f"return {overflow}") <= 0
    assert browser.run("return Math.max(...[...document.querySelectorAll('.main-svg')].map(one => "
                       "one.getBoundingClientRect().right))") <= width  # fmt: skip
    colours = """
        const style = one => getComputedStyle(document.querySelector(one));
        return [style("body").backgroundColor, style("body").color, style(".ytick text").fill]
    """
    light = browser.run(colours)
    browser.look(width, dark=True)
    # what was drawn is drawn anew
    browser.wait(f"(() => {{ {colours} }})()[2] !== {json.dumps(light[2])}")
    ground, ink, ticks = browser.run(colours)
    assert _brightness(light[0]) > 0.8 > 0.3 > _brightness(light[1])
    assert _brightness(ground) < 0.3 < 0.8 < _brightness(ink)
    assert _brightness(ticks) > 0.8
    assert browser.run(f"return {overflow}") <= 0
    assert browser.complaints() == []


def _brightness(colour: str) -> float:
    red, green, blue = (int(number) / 255 for number in re.findall(r"\d+", colour)[:3])
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_what_a_screen_reader_is_told(shown: Shown, browser: Browser) -> None:
    page = shown.page
    browser.show(page)
    browser.draw_all()
    browser.run("for (const one of document.querySelectorAll('details')) one.open = true")
    tree = browser.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    told: dict[str, list[str]] = {}
    for node in tree:
        if not node.get("ignored"):
            told.setdefault(node["role"]["value"], []).append(node.get("name", {}).get("value", ""))
    images = [name for role in ("image", "img") for name in told.get(role, [])]
    assert sum("environment" in name for name in images) == len(CHARTS)
    assert len(told["table"]) >= 6 and all(told["table"])
    assert all(told["button"]) and all(told["searchbox"]) and all(told["heading"]) and all(told["region"])
    assert browser.run("return document.documentElement.lang") == "en"
    # behind each chart there is a table
    behind = ("return [...document.querySelectorAll('figure')].map("
              "one => !!one.nextElementSibling.querySelector('table'))")  # fmt: skip
    assert browser.run(behind) == [True] * len(CHARTS)
    ids = browser.run("return [...document.querySelectorAll('section, section [id]')].map(one => one.id)")
    ids = [name for name in ids if not re.match(r"(clip|legend|topdefs|defs)", name)]
    assert len(ids) == len(set(ids))


def test_without_scripts_the_numbers_are_there(shown: Shown, browser: Browser) -> None:
    page, document = shown.page, shown.document
    browser.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.show(page)
        text = page.read_text("utf-8")
        assert f'title="{document["totals"]["freeable_bytes"]:,} bytes"' in text
        nodes = browser.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
        told = [node.get("name", {}).get("value", "") for node in nodes if not node["ignored"]]
        assert any("Charts need JavaScript" in name for name in told), told[:50]
    finally:
        browser.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_an_audit(shown: Shown, browser: Browser) -> None:
    page, document = shown.page, shown.document
    browser.show(page)
    lines = browser.run("return [...document.querySelectorAll('.audit li')].map(one => one.textContent)")
    commands = browser.run("return [...document.querySelectorAll('.audit pre')].map(one => one.textContent)")
    findings = document["audit"]["findings"]
    assert len(lines) >= len(findings) > 0
    assert len(commands) == sum(len(finding["commands"]) for finding in findings)


def test_fifty_environments(world: World, browser: Browser, record_property: Any) -> None:
    """What is shown does not grow with what there is; how long it takes to open is told, not asserted."""
    packages = {}
    for number in range(60):
        packages |= {
            (f"p{number}", "1", "0"): {f"lib/p{number}.so": noise(f"p{number}", 4096 + 100 * number)}
        }
    for number in range(54):
        some = list(packages.items())[number // 3 : number // 3 + 30]
        world.forge.environment(f"env{number:02}", dict(some))
    page, document = written(world)
    browser.show(page)
    browser.wait("performance.getEntriesByName('chart-environments').length")
    started = browser.run("return performance.getEntriesByName('chart-environments')[0].startTime")
    record_property("milliseconds until the first chart", round(started))
    assert browser.draw_all() == CHARTS
    assert len(rows(browser, "environments-table")) == 54
    bars = bars_of(page)
    assert len(bars["private"]) == 2 * 51
    trees = sorted((tree["disk_bytes"] for tree in document["environments"]), reverse=True)
    assert sum(numbers[100] for numbers in bars.values()) == sum(trees[50:])
    treemap = charts_of(page)["packages"]["traces"][0]
    assert treemap["values"][0] == sum(trees) and len(treemap["ids"]) < 3000
    assert len(charts_of(page)["similarity"]["traces"][0]["z"]) == 50
    assert "4 smaller environments are left out" in page.read_text("utf-8")
    assert len(page.read_bytes()) < 8_000_000
    assert browser.complaints() == []


def test_after_apply_is_what_apply_makes(world: World) -> None:
    """Where all can be shared, what was said to be private afterwards is."""
    for name in ("one", "two", "three"):
        world.forge.environment(name, {DIST: {"lib/libx.so": LIBRARY, f"lib/{name}.so": noise(name, 50_000)}})
    world.forge.environment("four", {("b", "1", "0"): {"lib/b.so": noise("b", 30_000)}})
    world.forge.environment("five", {("b", "1", "0"): {"lib/b.so": noise("b", 30_000)}})
    world.forge.cache({DIST: {"lib/libx.so": LIBRARY}})
    page, document = written(world)
    trees = sorted(
        document["environments"] + document["caches"], key=lambda tree: (-tree["disk_bytes"], tree["prefix"])
    )
    bars = bars_of(page)
    expected = {tree["prefix"]: bars["private"][2 * number + 1] for number, tree in enumerate(trees)}
    total = sum(sum(numbers[1::2]) for numbers in bars.values())
    world.run("apply", *world.search, "--yes")
    after = world.json("report", *world.search)
    assert after["totals"]["disk_bytes"] == total
    private = {tree["prefix"]: tree["private_bytes"] for tree in after["environments"] + after["caches"]}
    assert private == expected
    # and now it is all shared
    page, document = written(world)
    bars = bars_of(page)
    assert sum(bars["freeable"]) == 0
    assert bars["private"][0::2] == bars["private"][1::2] and any(bars["shared"])
    # files with several names are in every environment that has one
    treemap = charts_of(page)["packages"]["traces"][0]
    taken = sorted(size for own, size in zip(treemap["ids"], treemap["values"], strict=True) if own.isdigit())
    assert taken == sorted(tree["disk_bytes"] for tree in document["environments"])


def test_nothing_and_one(world: World, browser: Browser) -> None:
    page, _ = written(world)
    browser.show(page)
    assert browser.draw_all() == []
    world.forge.environment("one", {DIST: {"lib/libx.so": LIBRARY}})
    page, _ = written(world)
    browser.show(page)
    assert browser.draw_all() == ["environments", "packages"]
    assert not browser.run("return document.getElementById('audit')")
    assert browser.complaints() == []


def test_the_document_is_the_same(world: World) -> None:
    several(world)
    _, with_page = written(world, "--deep")
    without = world.json("report", *world.search, "--deep")
    for document in (with_page, without):
        del document["walked"]
    assert with_page == without


def test_a_page_is_of_this_moment(world: World) -> None:
    """What the report remembers is not enough: a file that was edited in place is seen."""
    several(world)
    rest(world.root)
    first = world.json("report", *world.search)
    (world.root / "envs/one/lib/libb.so").write_bytes(noise("edited", 200_000))
    page = world.home / "page.html"
    document = world.json("report", "--recall", *world.search, "--html", page)
    assert document["totals"]["disk_bytes"] > first["totals"]["disk_bytes"]
    assert f'data-value="{document["totals"]["disk_bytes"]}"' in page.read_text("utf-8")


def test_the_text_tells_where_it_is(world: World) -> None:
    several(world)
    done = world.run("report", *world.search, "--html", "here.html")
    assert done.stdout.splitlines()[-1].split() == ["Page", f"{os.path.realpath(world.home)}/here.html"]
    assert (world.home / "here.html").stat().st_mode & 0o777 == 0o666 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_file_that_is_there_is_replaced(world: World) -> None:
    several(world)
    real = world.home / "real.html"
    real.write_text("before")
    link = world.home / "link.html"
    link.symlink_to(real)
    with real.open() as reader:
        world.run("report", *world.search, "--html", link)
        # in one step: who reads the old one reads it to the end
        assert reader.read() == "before"
    assert link.is_symlink() and real.read_text("utf-8").startswith("<!doctype html>")
    assert sorted(path.name for path in world.home.glob("*.*")) == ["link.html", "real.html"]


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("no/such/page.html", "there is no directory"),
        (".", "it is a directory"),
        ("", "it is a directory"),
        ("pipe", "it is no regular file"),
        ("loop/page.html", ""),
        ("x" * 300, "File name too long"),
    ],
)
def test_a_path_that_cannot_be(world: World, path: str, why: str) -> None:
    several(world)
    (world.home / "loop").symlink_to("loop")
    os.mkfifo(world.home / "pipe")
    done = world.run("report", *world.search, "--html", path, code=1)
    assert done.stdout == ""
    error, hint = done.stderr.splitlines()
    assert "cannot be written" in error and why in error and "hint" in hint
    assert world.json("report", *world.search, "--html", path, code=1)["hint"]
    assert (world.home / "pipe").is_fifo()


def test_without_plotly(world: World) -> None:
    several(world)
    hidden = world.home / "hidden/plotly"
    hidden.mkdir(parents=True)
    (hidden / "__init__.py").write_text("raise ImportError('it is not there')")
    world.extra["PYTHONPATH"] = f"{hidden.parent}{os.pathsep}{REPOSITORY}"
    document = world.json("report", *world.search, "--html", "page.html", code=1)
    assert "plotly" in document["error"] and "pip install 'conda-dedup-plugin[html]'" in document["hint"]
    assert not (world.home / "page.html").exists()
    # and nobody else needs it
    world.json("report", *world.search)


@pytest.mark.filesystems
@pytest.mark.parametrize("kind", REFLINK_KINDS)
def test_extents_that_are_shared(kind: str, mounted: Any, tmp_path: Path) -> None:
    """What packages take is what the environment takes, also where no file's part of it is known."""
    place = mounted(kind)
    world = World(place / "world", tmp_path / "home")
    files = {"lib/libx.so": LIBRARY, "lib/zeros.so": b"z" * 300_000}
    one = world.forge.environment("one", {DIST: files, **package("b")})
    two = world.forge.environment("two", {DIST: files})
    for name in files:
        subprocess.run(["cp", "--reflink=always", one / name, two / name], check=True)
    os.sync()
    page, document = written(world)
    treemap = charts_of(page)["packages"]["traces"][0]
    areas = dict(zip(treemap["ids"], treemap["values"], strict=True))
    taken = sorted(areas[own] for own in areas if own.isdigit())
    assert taken == sorted(tree["disk_bytes"] for tree in document["environments"])
    bars = bars_of(page)
    assert sum(bars["shared"][::2]) >= 2 * len(LIBRARY)


def test_the_wheel_has_all_of_it(tmp_path: Path) -> None:
    needs("needs the package hatchling", importable("hatchling"))
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path]
    subprocess.run(build, cwd=REPOSITORY, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    page = {f"conda_dedup_plugin/report/page/page.{kind}" for kind in ("css", "js")}
    assert page <= names
