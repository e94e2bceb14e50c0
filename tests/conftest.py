"""Fixtures of the whole suite: the channel, the condas, laboratories and file systems."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from tests.lab import conda_wheel, needs
from tests.lab.mounts import KINDS, REFLINK_KINDS, mounted_file_system

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.lab.channel import TestChannel
    from tests.lab.patched import Bench
    from tests.lab.world import CondaLab

MIB = 1 << 20


class MakeLab(Protocol):
    """What the fixture :func:`conda_lab` gives."""

    def __call__(
        self,
        name: str = "lab",
        *,
        with_plugin: bool = False,
        envs_dir: Path | None = None,
        pkgs_dir: Path | None = None,
        root: Path | None = None,
        **settings: Any,
    ) -> CondaLab: ...


@pytest.fixture(scope="session")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One directory for the whole run, the same for all workers of pytest-xdist."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def channel(run_dir: Path) -> TestChannel:
    """The standard channel and wheels; see :mod:`tests.lab.channel`."""
    for module in ("rattler", "numpy", "msgspec", "pip"):
        needs(f"needs the package {module}", conda_wheel.importable(module))
    from tests.lab.channel import TestChannel, build_channel

    folder = run_dir / "channel"
    conda_wheel.once(folder, lambda: build_channel(folder))
    return TestChannel(folder)


@pytest.fixture(scope="session")
def real_channel() -> TestChannel:
    """A channel of compiled packages with prefixes in binaries; see :mod:`tests.lab.real_packages`."""
    needs("needs the package rattler", conda_wheel.importable("rattler"))
    from tests.lab.channel import TestChannel
    from tests.lab.real_packages import real_packages

    try:
        return TestChannel(real_packages())
    except conda_wheel.Unavailable as error:
        needs(str(error), False)
        raise


@pytest.fixture(scope="session")
def conda_below() -> Path:
    """The Python with the conda under test, not to be changed: ``CONDA_DEDUP_TEST_CONDA`` or the oldest."""
    try:
        return conda_wheel.conda_python()
    except (conda_wheel.Unavailable, conda_wheel.Failed) as error:
        needs(f"no conda: {error}", False)
        raise


@pytest.fixture(scope="session")
def conda_python(run_dir: Path, conda_below: Path) -> Path:
    """The Python of a conda base without the plugin."""
    folder = run_dir / "conda"
    conda_wheel.once(folder, lambda: conda_wheel.conda_base(conda_below, folder, with_plugin=False))
    return folder / "bin/python"


@pytest.fixture(scope="session")
def plugin_python(run_dir: Path, conda_below: Path) -> Path:
    """The Python of a conda base with this repository's plugin as it is now."""
    folder = run_dir / "conda-with-plugin"
    conda_wheel.once(folder, lambda: conda_wheel.conda_base(conda_below, folder, with_plugin=True))
    return folder / "bin/python"


@pytest.fixture
def conda_lab(tmp_path: Path, channel: TestChannel, request: pytest.FixtureRequest) -> MakeLab:
    """Makes laboratories: ``conda_lab(with_plugin=True, envs_dir=shm_dir, always_copy=True)``."""
    from tests.lab.world import CondaLab

    def make(
        name: str = "lab",
        *,
        with_plugin: bool = False,
        envs_dir: Path | None = None,
        pkgs_dir: Path | None = None,
        root: Path | None = None,
        **settings: Any,
    ) -> CondaLab:
        python = request.getfixturevalue("plugin_python" if with_plugin else "conda_python")
        return CondaLab(
            (root or tmp_path) / name,
            python,
            channel,
            pkgs_dirs=(pkgs_dir,) if pkgs_dir else (),
            envs_dirs=(envs_dir,) if envs_dir else (),
            settings=settings,
        )

    return make


@pytest.fixture
def shm_dir(tmp_path: Path) -> Iterator[Path]:
    """A fresh directory in memory, on another device than ``tmp_path``."""
    memory = Path("/dev/shm")
    needs("needs /dev/shm", memory.is_dir() and os.access(memory, os.W_OK))
    needs("/dev/shm is no device of its own", memory.stat().st_dev != tmp_path.stat().st_dev)
    with tempfile.TemporaryDirectory(prefix="conda-dedup-", dir=memory) as name:
        yield Path(name)


@pytest.fixture(scope="session")
def mounted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Path]]:
    """``mounted(kind, size)``: the mount point of a file system, one per kind and size and run."""
    made: dict[tuple[str, int], Path] = {}
    with ExitStack() as stack:

        def mount(kind: str, size: int = 1024 * MIB) -> Path:
            if (kind, size) not in made:
                folder = tmp_path_factory.mktemp("mounted")
                made[kind, size] = stack.enter_context(mounted_file_system(kind, folder, size))
            return made[kind, size]

        yield mount


@pytest.fixture(params=[pytest.param(kind, marks=pytest.mark.filesystems) for kind in KINDS])
def device_kind(request: pytest.FixtureRequest) -> str:
    """The kind of file system of :func:`device_dir`."""
    kind: str = request.param
    return kind


@pytest.fixture
def device_dir(device_kind: str, mounted: Callable[..., Path]) -> Iterator[Path]:
    """A fresh directory on a file system of each kind in turn."""
    folder = Path(tempfile.mkdtemp(dir=mounted(device_kind)))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(params=[pytest.param(kind, marks=pytest.mark.filesystems) for kind in REFLINK_KINDS])
def bench(
    request: pytest.FixtureRequest,
    mounted: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Bench]:
    """A fresh directory on each file system whose files share extents; see :mod:`tests.lab.patched`."""
    from tests.lab.patched import Bench

    for name in ("HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    point = mounted(request.param)
    folder = Path(tempfile.mkdtemp(dir=point))
    folder.chmod(0o755)
    yield Bench(folder, point, request.param)
    shutil.rmtree(folder)
