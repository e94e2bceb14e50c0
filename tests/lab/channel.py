"""The standard channel and wheels of the tests: every cause of duplicate bytes, small but real."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from conda_dedup_plugin.demo.distributions import (
    PYTHON_BUILD,
    PYTHON_DEPENDS,
    SITE_PACKAGES,
    distribution_package,
    noarch_package,
    python_package,
)
from conda_dedup_plugin.demo.packages import PLACEHOLDER, Entry, index_channel, make_package
from conda_dedup_plugin.demo.wheels import distribution_wheel, installed_files, make_wheel

if TYPE_CHECKING:
    from pathlib import Path

#: Left out of numpy: it is here for its libraries.
NUMPY_EXCLUDE = ("*/tests/*", "*/test_*", "*.pyi", "*.h", "numpy/f2py/*", "*.a")
NOARCH_MODULES = 12
#: The packages ``two-builds`` of build 0 and 1 differ in these, and agree in the other eight files.
TWO_BUILDS_DIFFER = ("lib/two-builds/8.bin", "lib/two-builds/9.bin")
TWO_BUILDS = tuple(f"lib/two-builds/{number}.bin" for number in range(10))
PREFIXED_BINARY = "lib/libprefixed.so"
PREFIXED_TEXT = "bin/prefixed-tool"
#: One plain library under three names of ``same-library``, and one extension module under two.
SAME_LIBRARY = (
    "lib/libsame.so",
    f"{SITE_PACKAGES}/same/libsame.so",
    f"{SITE_PACKAGES}/same/.libs/libsame.so.1",
)
SAME_EXTENSION = ("lib/same/_same.abi3.so", f"{SITE_PACKAGES}/same/_same.abi3.so")
CONFIG_FILE = "etc/settings.conf"
NO_LINK_FILE = "share/settings/template.bin"


@dataclass(frozen=True)
class TestChannel:
    """Where the packages are, and the wheels beside them.

    Packages: ``python`` (stub), ``pip``, ``numpy``, ``msgspec``, ``pure-noarch`` (noarch python with a
    command of that name), ``prefixed``, ``two-builds`` (builds 0 and 1), ``same-library``, ``settings``.
    Wheels: ``numpy``, ``msgspec``, ``pure-wheel`` (command ``pure-wheel``).
    """

    __test__ = False

    folder: Path

    @property
    def packages(self) -> Path:
        """The channel's directory."""
        return self.folder / "channel"

    @property
    def wheels(self) -> Path:
        """A directory for pip's ``--find-links``."""
        return self.folder / "wheels"

    @property
    def url(self) -> str:
        """The channel's URL."""
        return self.packages.resolve().as_uri()


def build_channel(folder: Path) -> TestChannel:
    """Make the standard channel and wheels in ``folder``."""
    made = TestChannel(folder)
    channel = made.packages
    python_package(channel)
    distribution_package(channel, "pip", exclude=("*.exe",), bytecode=False)
    distribution_package(channel, "numpy", exclude=NUMPY_EXCLUDE)
    distribution_package(channel, "msgspec")
    noarch_package(
        channel,
        "pure-noarch",
        "1.0",
        pure_modules("pure_noarch"),
        entry_points=["pure-noarch = pure_noarch:main"],
    )
    _prefixed(channel)
    _two_builds(channel)
    _same_library(channel)
    _settings(channel)
    index_channel(channel)
    distribution_wheel(made.wheels, "numpy", NUMPY_EXCLUDE)
    distribution_wheel(made.wheels, "msgspec")
    points = ["pure-wheel = pure_wheel:main"]
    make_wheel(made.wheels, "pure-wheel", "1.0", pure_modules("pure_wheel"), entry_points=points)
    return made


def pure_modules(package: str) -> dict[str, bytes]:
    """A Python package of :data:`NOARCH_MODULES` modules; each, and its bytecode, is more than 4 KiB."""
    main = "import sys\n\n\ndef main():\n    print(sys.prefix)\n    return 0\n"
    files = {f"{package}/__init__.py": main.encode()}
    for number in range(NOARCH_MODULES):
        functions = (
            f"def function_{index}(value):\n    text = '{package} {number} {index}'\n    return value, text\n"
            for index in range(80)
        )
        files[f"{package}/module_{number}.py"] = "\n\n".join(functions).encode()
    return files


def noise(seed: int, size: int) -> bytes:
    """Bytes like a binary's: the same for the same seed, not compressible."""
    return random.Random(seed).randbytes(size)


def _prefixed(channel: Path) -> None:
    prefix = PLACEHOLDER.encode()
    half = 128 << 10
    binary = noise(1, half) + prefix + b"/share/terminfo\0" + noise(2, half) + prefix + b"\0" + noise(3, 4096)
    text = b"#!" + prefix + b"/bin/python\nprint('" + prefix + b"')\n" + b"# more of it\n" * 500
    files = {
        PREFIXED_BINARY: Entry(binary, executable=True, prefix="binary"),
        PREFIXED_TEXT: Entry(text, executable=True, prefix="text"),
    }
    make_package(channel, "prefixed", "1.0", "0", files, depends=["python"])


def _two_builds(channel: Path) -> None:
    for build in (0, 1):
        files = {
            path: noise(100 + number + (50 * build if path in TWO_BUILDS_DIFFER else 0), 64 << 10)
            for number, path in enumerate(TWO_BUILDS)
        }
        make_package(channel, "two-builds", "1.0", str(build), files, build_number=build)


def _same_library(channel: Path) -> None:
    numpy = installed_files("numpy")
    library = min((data for path, data in numpy.items() if path.startswith("numpy.libs/")), key=len)
    extension = next(data for path, data in installed_files("msgspec").items() if path.endswith(".so"))
    files: dict[str, Entry | bytes] = {path: Entry(library, executable=True) for path in SAME_LIBRARY}
    files |= {path: Entry(extension, executable=True) for path in SAME_EXTENSION}
    files[f"{SITE_PACKAGES}/same/__init__.py"] = b""
    make_package(channel, "same-library", "1.0", f"{PYTHON_BUILD}_0", files, depends=[PYTHON_DEPENDS])


def _settings(channel: Path) -> None:
    files: dict[str, Entry | bytes] = {
        CONFIG_FILE: b"# what a user may change\n" * 400,
        NO_LINK_FILE: Entry(noise(4, 16 << 10), no_link=True),
        "share/settings/data.bin": noise(5, 16 << 10),
    }
    make_package(channel, "settings", "1.0", "0", files)
