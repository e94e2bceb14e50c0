"""Advice before an environment is made: the nearest one, and how much of it is shared afterwards."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from conda_dedup_plugin.advise import Asked, Creation, advise
from conda_dedup_plugin.model import Manager, Scope
from conda_dedup_plugin.settings import Settings
from tests.lab import needs
from tests.lab.forge import Forge, noise
from tests.test_lab import EVERYTHING

if TYPE_CHECKING:
    from tests.conftest import MakeLab
    from tests.lab.world import CondaLab

ADVICE = re.compile(
    r"^dedup: env '(?P<name>[^']+)' has (?P<what>.*)\. (?P<shared>[\d.]+ \w+) of (?P<known>[\d.]+ \w+) "
    r"will be shared(?:, (?P<new>\d+) packages? new)?\.?$",
    re.M,
)
DEFAULTS = Settings()
UNITS = {"byte": 1, "bytes": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9}


def size_of(text: str) -> float:
    number, unit = text.split()
    return float(number) * UNITS[unit]


# -- what is said -------------------------------------------------------------------------------------

A, B, C, D = ((name, "1", "0") for name in "abcd")
OTHER_A = ("a", "2", "0")
FILES = {name: {f"lib/lib{name}.so": noise(name, 50_000)} for name in "abcd"}


@pytest.fixture
def forge(tmp_path: Path) -> Forge:
    return Forge(tmp_path)


def asked(*dists: tuple[str, str, str]) -> tuple[Asked, ...]:
    return tuple(Asked(dist[0], "-".join(dist)) for dist in dists)


def packages(*dists: tuple[str, str, str]) -> dict[tuple[str, str, str], dict[str, bytes]]:
    return {dist: FILES[dist[0]] for dist in dists}


def advice(forge: Forge, *dists: tuple[str, str, str], **options: object) -> str:
    creation = Creation(asked(*dists), str(forge.root), **options)
    return str(advise(creation, forge.scope(), Settings()) or "")


def test_words(forge: Forge) -> None:
    forge.environment("one", packages(A, B, C))
    assert advice(forge, A, B, C) == (
        "env 'one' has all of these 3 packages with the same builds, and nothing else. "
        "150.0 kB of 150.0 kB will be shared."
    )
    assert advice(forge, A, B) == (
        "env 'one' has all of these 2 packages with the same builds and 1 more. "
        "100.0 kB of 100.0 kB will be shared."
    )
    assert advice(forge, OTHER_A, B, C) == (
        "env 'one' has 2 of these 3 packages with the same builds (only a differs). "
        "100.0 kB of 100.0 kB will be shared, 1 package new."
    )
    assert advice(forge, A, B, C, D) == (
        "env 'one' has 3 of these 4 packages with the same builds (only d is not in it). "
        "150.0 kB of 150.0 kB will be shared, 1 package new."
    )
    assert "(a differs, d is not in it)." in advice(forge, OTHER_A, B, C, D)


def test_many_differences_are_counted(forge: Forge) -> None:
    names = "klmnop"
    forge.environment("one", packages(A, B, C) | {(name, "1", "0"): {} for name in names})
    said = advice(forge, A, B, C, D, *((name, "2", "0") for name in names[:2]))
    assert "has 3 of these 6 packages with the same builds (k and l differ, d is not in it)." in said
    forge.environment("two", packages(A, B, C) | {(name, "1", "0"): {} for name in names + "qr"})
    wanted = [(name, "1", "0") for name in names] + [(name, "7", "0") for name in "abc"]
    assert "(only a, b and c differ)" in advice(forge, *wanted)
    wanted = [(name, "1", "0") for name in names + "qr"] + [(name, "7", "0") for name in "abc"]
    assert "(only a, b and c differ)" in advice(forge, *wanted)
    assert "(k, l, m and 1 more differ)" in advice(
        forge, A, B, C, *((name, "1", "0") for name in names[4:]), *((name, "2", "0") for name in names[:4])
    )


def test_the_nearest_is_chosen_and_nothing_far_is_named(forge: Forge) -> None:
    forge.environment("large", packages(A, B, C) | {(f"x{i}", "1", "0"): {} for i in range(50)})
    forge.environment("near", packages(A, B))
    assert advice(forge, A, B, C).startswith("env 'near' has 2 of these 3 packages")
    assert advice(forge, A, OTHER_A, D, ("e", "1", "0")) == ""
    assert advice(forge, ("e", "1", "0")) == ""
    # half of them is near
    assert advice(forge, A, D).startswith("env 'near' has 1 of these 2 packages with the same build (")


def test_the_environment_that_is_replaced_is_not_named(forge: Forge) -> None:
    prefix = forge.environment("one", packages(A, B))
    creation = Creation(asked(A, B), str(prefix))
    assert advise(creation, forge.scope(), Settings(), but={os.path.realpath(prefix)}) is None
    assert advise(creation, Scope(()), Settings()) is None


def test_damaged_records_cost_their_packages(forge: Forge) -> None:
    prefix = forge.environment("one", packages(A, B))
    (prefix / "conda-meta/a-1-0.json").write_text("{")
    (prefix / "conda-meta/b-1-0.json").unlink()
    (prefix / "conda-meta/b-1-0.json").mkdir()
    assert advice(forge, A, B).endswith("0 bytes of 0 bytes will be shared.")


# -- what is predicted ----------------------------------------------------------------------------------


def predicted(forge: Forge, creation: Creation, settings: Settings = DEFAULTS) -> tuple[int, int, int]:
    found = advise(creation, forge.scope(), settings)
    assert found is not None
    return found.predicted.shared_bytes, found.predicted.known_bytes, found.predicted.new


def test_small_files_are_shared_by_conda_alone(forge: Forge) -> None:
    """Of a package that is in a cache: what is copied is too small to be looked at afterwards."""
    files = {"share/small": b"x" * 100, "lib/liba.so": noise("a", 50_000)}
    forge.environment("one", {A: files})
    near = Creation(asked(A), str(forge.root))
    assert predicted(forge, near) == (50_000, 50_100, 0)
    cache = forge.cache({A: files})
    assert predicted(forge, Creation(asked(A), str(forge.root), (str(cache),))) == (50_100, 50_100, 0)
    # an empty cache that comes first is none to link from
    more = (str(forge.root / "empty"), str(cache))
    assert predicted(forge, Creation(asked(A), str(forge.root), more)) == (50_100, 50_100, 0)


def test_what_is_off_is_not_promised(forge: Forge) -> None:
    forge.environment("one", packages(A, B))
    cache = str(forge.cache(packages(A)))
    both = asked(A, B)
    assert predicted(forge, Creation(both, str(forge.root), (cache,), automatic=False)) == (
        50_000,
        100_000,
        0,
    )
    assert predicted(forge, Creation(both, str(forge.root), automatic=False)) == (0, 100_000, 0)
    assert predicted(forge, Creation(both, str(forge.root)), Settings(min_size=50_001)) == (0, 100_000, 0)


def test_another_device_shares_nothing(forge: Forge, shm_dir: Path) -> None:
    forge.environment("one", packages(A, B))
    cache = str(forge.cache(packages(A, C)))
    creation = Creation(asked(A, B, C, D), str(shm_dir), (cache,))
    assert predicted(forge, creation) == (0, 150_000, 1)
    forge.environment("two", packages(B), root=shm_dir)
    assert predicted(forge, creation) == (50_000, 150_000, 1)


def test_what_is_each_environments_own_is_not_promised(shm_dir: Path) -> None:
    """Patched files, those that must not be linked, and configuration that conda does not link itself."""
    forge = Forge(shm_dir)
    names = ("lib/plain.so", "lib/patched.so", "share/own.bin", "etc/some.conf")
    files = {path: noise(path, 10_000) for path in names}
    prefix = forge.environment("one", {A: files})
    record = prefix / "conda-meta/a-1-0.json"
    said = json.loads(record.read_text())
    for path in said["paths_data"]["paths"]:
        if path["_path"] == "lib/patched.so":
            path["sha256_in_prefix"] = "0" * 64
        path["no_link"] = path["_path"] == "share/own.bin"
    link = {"_path": "lib/link.so", "path_type": "softlink", "size_in_bytes": 10_000}
    said["paths_data"]["paths"].append(link)
    record.write_text(json.dumps(said))
    # mamba's records leave the placeholder out
    forge.trees = [replace(tree, manager=Manager.MAMBA) for tree in forge.trees]
    assert predicted(forge, Creation(asked(A), str(shm_dir))) == (10_000, 40_000, 0)
    cache = forge.cache({A: files})
    listing = cache / "a-1-0/info/paths.json"
    said = json.loads(listing.read_text())
    for path in said["paths"]:
        if path["_path"] == "lib/patched.so":
            path |= {"prefix_placeholder": "/opt/placeholder", "file_mode": "binary"}
        path["no_link"] = path["_path"] == "share/own.bin"
    listing.write_text(json.dumps(said))
    assert predicted(forge, Creation(asked(A), str(shm_dir), (str(cache),))) == (20_000, 40_000, 0)
    # who asks for copies gets copies, where nothing can be reflinked
    assert predicted(forge, Creation(asked(A), str(shm_dir), (str(cache),), copies=True)) == (0, 40_000, 0)


def test_what_is_another_users_is_not_promised(shm_dir: Path) -> None:
    needs("root", os.geteuid() == 0)
    forge = Forge(shm_dir)
    prefix = forge.environment("one", packages(A))
    assert predicted(forge, Creation(asked(A), str(shm_dir))) == (50_000, 50_000, 0)
    os.chown(prefix, 12345, 12345)
    assert predicted(forge, Creation(asked(A), str(shm_dir))) == (0, 50_000, 0)


# -- real conda ---------------------------------------------------------------------------------------


@pytest.fixture(params=["beside the cache", "on another device"])
def lab(request: pytest.FixtureRequest, conda_lab: MakeLab, shm_dir: Path) -> CondaLab:
    """conda with the plugin and three near-identical environments; it asks before it changes anything."""
    envs_dir = shm_dir / "envs" if request.param == "on another device" else None
    made = conda_lab(with_plugin=True, envs_dir=envs_dir, always_yes=False)
    several = [spec for spec in EVERYTHING if not spec.startswith("two-builds")]
    for name, build in (("nlp_exp", "0"), ("bert", "0"), ("other", "1")):
        specs = (*several, f"two-builds=1.0={build}") if name != "bert" else several
        made.conda("create", "--yes", "--name", name, *specs)
    return made


def advised(text: str) -> re.Match[str] | None:
    found = list(ADVICE.finditer(text))
    assert len(found) <= 1
    return found[0] if found else None


def held_by_others(prefix: Path) -> int:
    """Apparent bytes of an environment's files that have names elsewhere, recounted file by file."""
    paths = [path for path in prefix.rglob("*") if path.is_file() and not path.is_symlink()]
    paths = [path for path in paths if "conda-meta" not in path.relative_to(prefix).parts]
    own: dict[int, int] = {}
    for path in paths:
        own[path.stat().st_ino] = own.get(path.stat().st_ino, 0) + 1
    return sum(path.stat().st_size for path in paths if path.stat().st_nlink > own[path.stat().st_ino])


@pytest.mark.integration
def test_a_fourth_environment(lab: CondaLab) -> None:
    several = [spec for spec in EVERYTHING if not spec.startswith("two-builds")]
    words = ("create", "--name", "fourth", *several, "two-builds=1.0=0")
    command = (lab.python, "-m", "conda", *words)
    merged = ("sh", "-c", 'exec "$@" 2>&1', "sh")
    done = lab.run(*merged, *command, env={"PYTHONUNBUFFERED": "1"}, input="y\n")
    found = advised(done.stdout)
    assert found is not None
    assert found["name"] == "nlp_exp"
    assert re.fullmatch(r"all of these \d+ packages with the same builds, and nothing else", found["what"])
    assert found["new"] is None
    prompt, saved = done.stdout.index("Proceed"), done.stdout.index("of env 'fourth' now shared")
    assert found.start() < prompt < saved
    actual = held_by_others(lab.env_path("fourth"))
    assert actual
    assert size_of(found["shared"]) == pytest.approx(actual, rel=0.001)  # as exact as it is said


@pytest.mark.integration
def test_it_is_silent_when_it_should_be(conda_lab: MakeLab) -> None:
    lab = conda_lab(with_plugin=True)
    lab.conda("create", "--name", "one", "numpy", "settings")
    create = ("create", "--name", "two", "numpy", "settings", "--dry-run")
    found = advised(lab.conda(*create).stderr)
    assert found is not None
    assert found["name"] == "one"
    assert advised(lab.conda("create", "--dry-run", "numpy", "settings").stderr) is not None
    nothing = [
        lab.conda(*create, "--quiet"),
        lab.conda(*create, "--json"),
        lab.conda(*create, env={"CONDA_PLUGINS_DEDUP_ADVISE": "false"}),
        lab.conda("create", "--name", "small", "two-builds"),
        lab.conda("install", "--dry-run", "--name", "small", "numpy", "settings"),
        lab.conda("create", "--name", "clone", "--clone", "one"),
    ]
    explicit = lab.root / "explicit.txt"
    explicit.write_text(lab.conda("list", "--name", "one", "--explicit").stdout)
    nothing.append(lab.conda("create", "--name", "listed", "--file", explicit))
    for done in nothing:
        assert "has " not in done.stderr
        assert "dedup: env" not in done.stdout
    assert json.loads(nothing[1].stdout)["success"]


@pytest.mark.integration
def test_env_create_goes_where_named_environments_are(conda_lab: MakeLab, shm_dir: Path) -> None:
    """On conda 24.7 ``context.target_prefix`` is base here, which lies on another device."""
    lab = conda_lab(with_plugin=True, envs_dir=shm_dir / "envs")
    lab.conda("create", "--name", "one", "numpy")
    file = lab.root / "two.yml"
    file.write_text(json.dumps({"name": "two", "dependencies": ["numpy"]}))
    found = advised(lab.conda("env", "create", "--file", file).stderr)
    assert found is not None
    assert found["name"] == "one"
    assert size_of(found["shared"]) == pytest.approx(held_by_others(lab.env_path("two")), rel=0.001)


@pytest.mark.integration
@pytest.mark.parametrize("how", ["raise RuntimeError", "raise SystemExit(5)", "import no_such_module"])
def test_what_goes_wrong_costs_the_advice_alone(conda_lab: MakeLab, how: str) -> None:
    lab = conda_lab(with_plugin=True)
    lab.conda("create", "--name", "one", "settings")
    sabotage = lab.root / "sabotage"
    sabotage.mkdir()
    (sabotage / "sitecustomize.py").write_text(
        "import conda_dedup_plugin.advise as advise\n"
        f"def broken(*_, **__):\n    {how}\n"
        "advise.advise = broken\n"
    )
    done = lab.conda("create", "--name", "two", "settings", env={"PYTHONPATH": str(sabotage)})
    assert "dedup: " not in done.stdout
    assert "Traceback" not in done.stderr
    assert advised(done.stderr) is None
    assert (lab.env_path("two") / "conda-meta/history").exists()
