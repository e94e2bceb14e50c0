"""Packages with the prefix in their binaries: CPython, OpenSSL and ncurses, compiled from Debian's sources.

They are as conda-forge's: configured with the placeholder as their prefix, found by run path whatever the
environment is called, and marked for package managers to patch. Compiling is quick rather than good, about
two minutes of processor time; what was made stays in the user's cache directory and serves later runs.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from conda_dedup_plugin.demo import packages
from conda_dedup_plugin.demo.packages import MTIME, PLACEHOLDER, Entry, index_channel, make_package
from tests.lab.conda_wheel import Failed, Unavailable, cache_dir, once

BUILD = "real_0"
PYTHON = "3.11"
SOURCES = ("openssl", "ncurses", f"python{PYTHON}")
PROGRAMS = ("apt-get", "gcc", "make", "perl")
#: A terminal that only the package ncurses knows, so only a program with the right prefix in it.
TERMINAL = "conda-dedup-terminal"
#: Of the binaries of each package, those with the prefix in them.
PREFIXED = {
    "python": (f"bin/python{PYTHON}", f"lib/libpython{PYTHON}.so.1.0"),
    "openssl": ("lib/libcrypto.so.3",),
    "ncurses": ("lib/libtinfow.so.6.*",),
}

#: A string of its own for each literal: one that is the end of another one moves when that one is patched.
_FLAGS = "-O0 -g0 -fno-merge-constants"
#: The linker's run path, without a shell or a makefile that would expand it: for programs, and for modules.
_RUN_PATH = "$ORIGIN/../lib:$ORIGIN/../.."
_OPENSSL_WITHOUT = (
    "aria", "bf", "camellia", "cast", "cmp", "cms", "comp", "ct", "dtls", "ec2m", "gost", "idea", "legacy",
    "mdc2", "rc2", "rc4", "rmd160", "seed", "siphash", "sm2", "sm3", "sm4", "srp", "ssl3", "tests", "ts",
    "whirlpool",
)  # fmt: skip
_LIBRARY_WITHOUT = ("__pycache__", "_bundled", "idlelib", "test", "tests", "tkinter", "turtledemo")
_MODULES_WITHOUT = re.compile(
    "_test|_?xx|_bz2|_crypt|_ctypes|_dbm|_gdbm|_lzma|_sqlite3|_tkinter|_uuid|nis|ossaudiodev|spwd"
)
_CURSES = (
    "_curses _cursesmodule.c -DHAVE_NCURSESW -lncursesw -ltinfow\n"
    "_curses_panel _curses_panel.c -DHAVE_NCURSESW -lpanelw -lncursesw -ltinfow\n"
)
_NOT_THE_USERS = ("CFLAGS", "CONDA", "CPATH", "CPPFLAGS", "LDFLAGS", "LD_", "LIBRARY_PATH", "MAKE", "PYTHON")


def real_packages() -> Path:
    """A cached directory with the channel of :func:`build_real_packages`, compiled now if need be."""
    recipe = b"".join(Path(file).read_bytes() for file in (__file__, packages.__file__))
    folder = cache_dir() / f"real-packages-{hashlib.sha256(recipe).hexdigest()[:16]}"
    once(folder, lambda: build_real_packages(folder))
    return folder


def build_real_packages(folder: Path) -> Path:
    """Make the channel ``channel`` in ``folder``: packages ``python``, ``openssl`` and ``ncurses``."""
    if missing := [program for program in PROGRAMS if not shutil.which(program)]:
        raise Unavailable(f"compiling real packages needs {', '.join(missing)}")
    with tempfile.TemporaryDirectory(prefix="conda-dedup-real-") as name:
        build = _Build(Path(name))
        build.fetch()
        with ThreadPoolExecutor() as pool:
            for done in [pool.submit(build.openssl), pool.submit(build.ncurses)]:
                done.result()
        build.python()
        channel = folder / "channel"
        for package, depends in (("openssl", ()), ("ncurses", ()), ("python", ("ncurses", "openssl"))):
            files = build.files(package)
            extra = {"python_site_packages_path": f"lib/python{PYTHON}/site-packages"}
            make_package(
                channel,
                package,
                build.versions[package],
                BUILD,
                files,
                depends=depends,
                extra_index=extra if package == "python" else None,
            )
    index_channel(channel)
    return channel


class _Build:
    """The sources, the objects and what would be installed, each in a directory of ``scratch``."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        self.sources: dict[str, Path] = {}
        self.versions: dict[str, str] = {}
        self.jobs = f"-j{len(os.sched_getaffinity(0))}"

    def root(self, package: str) -> Path:
        """What stands for ``/`` while installing a package."""
        return self.scratch / "root" / package

    def prefix(self, package: str) -> Path:
        """Where a package is installed."""
        return Path(f"{self.root(package)}{PLACEHOLDER}")

    def fetch(self) -> None:
        """Unpack the sources as their authors published them; Debian's patches are not needed."""
        options = _source_options(self.scratch / "apt")
        done = self.run(self.scratch, "apt-get", *options, "update", check=False)
        archives = self.scratch / "archives"
        archives.mkdir()
        command = ("apt-get", *options, "source", "--download-only", "--tar-only", *SOURCES)
        try:
            self.run(archives, *command)
        except Failed as error:
            raise Unavailable(f"no sources of {', '.join(SOURCES)}: {done.stderr}{error.stderr}") from error
        for source in SOURCES:
            archive = next(archives.glob(f"{source}_*.orig.tar.[gxb]z*"))
            target = self.scratch / "source" / source
            target.mkdir(parents=True)
            self.run(target, "tar", "--extract", "--file", archive)
            name = source.removesuffix(PYTHON)
            self.sources[name] = next(target.iterdir())
            self.versions[name] = archive.name.split("_")[1].partition(".orig")[0]

    def openssl(self) -> None:
        """libcrypto and libssl: configuration, engines and modules are looked for in the prefix."""
        source, objects, prefix = self._ready("openssl")
        self.run(
            objects,
            _relative(source / "Configure", objects),
            "shared",
            f"--prefix={PLACEHOLDER}",
            f"--openssldir={PLACEHOLDER}/ssl",
            "--libdir=lib",
            *(f"no-{feature}" for feature in _OPENSSL_WITHOUT),
            *_FLAGS.split(),
        )
        self.run(objects, "make", self.jobs, "build_generated")
        libraries = ("libcrypto", "libssl")
        self.run(objects, "make", self.jobs, *(f"{library}.so" for library in libraries))
        for library in objects.glob("lib*.so*"):
            _copy(library, prefix / "lib" / library.name)
        for headers in (source / "include/openssl", objects / "include/openssl"):
            for header in headers.glob("*.h"):
                _copy(header, prefix / "include/openssl" / header.name)
        _copy(source / "apps/openssl.cnf", prefix / "ssl/openssl.cnf")

    def ncurses(self) -> None:
        """libncursesw and libtinfow with their programs: terminals are looked for in the prefix."""
        source, objects, prefix = self._ready("ncurses")
        terminals = f"{PLACEHOLDER}/share/terminfo"
        self.run(
            objects,
            _relative(source / "configure", objects),
            f"--prefix={PLACEHOLDER}",
            f"--with-default-terminfo-dir={terminals}",
            f"--with-terminfo-dirs={terminals}",
            "--disable-db-install",
            "--disable-stripping",
            "--enable-overwrite",
            "--enable-widec",
            "--with-shared",
            "--with-termlib",
            "--without-ada",
            "--without-cxx",
            "--without-cxx-binding",
            "--without-debug",
            "--without-manpages",
            "--without-normal",
            "--without-tests",
            f"CFLAGS={_FLAGS}",
        )
        self.run(objects, "make", self.jobs)
        self.run(objects, "make", "install", f"DESTDIR={self.root('ncurses')}")
        (prefix / "share/terminfo").mkdir(parents=True)
        own = objects / "own.src"
        own.write_text(
            f"{TERMINAL}|known to this package alone,\n\tam, cols#80, it#7, lines#24, bel=^G, cr=\\r,\n"
        )
        for names, file in (("dumb,linux,vt100,xterm", source / "misc/terminfo.src"), (TERMINAL, own)):
            self.run(objects, prefix / "bin/tic", "-x", "-o", prefix / "share/terminfo", "-e", names, file)

    def python(self) -> None:
        """CPython as a program, as a library and with its modules, and the standard library compiled."""
        source, objects, prefix = self._ready("python")
        openssl, ncurses = self.prefix("openssl"), self.prefix("ncurses")
        libraries = f"{openssl}/lib:{ncurses}/lib"
        self.run(
            objects,
            _relative(source / "configure", objects),
            f"--prefix={PLACEHOLDER}",
            f"--with-openssl={openssl}",
            "--enable-shared",
            "--disable-test-modules",
            "--without-doc-strings",
            "--without-ensurepip",
            "--without-static-libpython",
            f"CFLAGS={_FLAGS}",
            f"CPPFLAGS=-I{ncurses}/include",
            f"LDFLAGS=-L{ncurses}/lib",
            "OPT=-DNDEBUG",
            LD_LIBRARY_PATH=libraries,
        )
        lines = (objects / "Modules/Setup.stdlib").read_text().splitlines(keepends=True)
        modules = [line for line in lines if re.match("[a-z_]", line) and not _MODULES_WITHOUT.match(line)]
        (objects / "Modules/Setup.local").write_text("".join(["*shared*\n", *modules, _CURSES]))
        # the program has all of the interpreter in itself, beside the library, as that of conda-forge
        linked = "LINK_PYTHON_OBJS=$(LIBRARY_OBJS)"
        self.run(objects, "make", self.jobs, "python", "oldsharedmods", linked, LD_LIBRARY_PATH=libraries)
        self._install_python(source, objects, prefix)

    def _install_python(self, source: Path, objects: Path, prefix: Path) -> None:
        """What ``make install`` does, but for compiling each module of the library three times."""
        program, shared = f"python{PYTHON}", f"libpython{PYTHON}.so"
        _copy(objects / "python", prefix / "bin" / program)
        _copy(objects / f"{shared}.1.0", prefix / "lib" / f"{shared}.1.0")
        (prefix / "lib" / shared).symlink_to(f"{shared}.1.0")
        for name in ("python", "python3"):
            (prefix / "bin" / name).symlink_to(program)
        for name, script in ((f"2to3-{PYTHON}", "2to3"), (f"pydoc{PYTHON}", "pydoc3")):
            _, _, rest = (source / "Tools/scripts" / script).read_text().partition("\n")
            (prefix / "bin" / name).write_text(f"#!{PLACEHOLDER}/bin/{program}\n{rest}")
            (prefix / "bin" / name).chmod(0o755)
        shutil.copytree(source / "Include", prefix / f"include/{program}")
        _copy(objects / "pyconfig.h", prefix / f"include/{program}/pyconfig.h")
        library = prefix / f"lib/{program}"
        shutil.copytree(source / "Lib", library, ignore=shutil.ignore_patterns(*_LIBRARY_WITHOUT))
        (library / "site-packages").mkdir(exist_ok=True)
        built = objects / (objects / "pybuilddir.txt").read_text().strip()
        for module in built.glob("*.so"):
            _copy(module.resolve(), library / "lib-dynload" / module.name)
        for module in library.rglob("*.py"):
            os.utime(module, (MTIME, MTIME))
        named = ("-s", self.root("python"), "-p", "/")
        # 0 is for all processors; syntax errors are in what lib2to3 keeps to be converted
        self.run(library, prefix / "bin/python", "-BS", "-m", "compileall", "-q", "-j0", *named, library)
        for data in built.glob("_sysconfigdata_*.py"):
            # not compiled: it is patched, so that its bytecode would be out of date
            _copy(data, library / data.name)
            triplet = data.stem.split("_linux_")[1]
            _copy(objects / "Makefile", library / f"config-{PYTHON}-{triplet}" / "Makefile")

    def files(self, package: str) -> dict[str, Entry | bytes]:
        """The files of a package by their path in the prefix."""
        prefix = self.prefix(package)
        found: dict[str, Entry | bytes] = {}
        for path in sorted(prefix.rglob("*")):
            if path.is_symlink():
                found[path.relative_to(prefix).as_posix()] = Entry(target=os.readlink(path))
            elif path.is_file():
                found[path.relative_to(prefix).as_posix()] = self._entry(path)
        return found

    def _entry(self, path: Path) -> Entry:
        """A file, its prefix marked by the rules of conda-build."""
        content = path.read_bytes()
        text = b"\0" not in content
        if text:
            for package in self.versions:
                content = content.replace(bytes(self.root(package)), b"")
        marked = PLACEHOLDER.encode() in content and path.suffix != ".pyc"
        kind = ("text" if text else "binary") if marked else None
        return Entry(content, executable=os.access(path, os.X_OK), prefix=kind)

    def _ready(self, package: str) -> tuple[Path, Path, Path]:
        """The source of a package, an empty directory for its objects, and its prefix with a few folders."""
        objects = self.scratch / "objects" / package
        objects.mkdir(parents=True)
        prefix = self.prefix(package)
        for folder in ("bin", "lib"):
            (prefix / folder).mkdir(parents=True)
        return self.sources[package], objects, prefix

    def run(
        self, folder: Path, *command: object, check: bool = True, **extra: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in ``folder`` with nothing of the user's build settings."""
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(_NOT_THE_USERS)
        }
        done = subprocess.run(
            [str(word) for word in command],
            cwd=folder,
            env={**environment, "HOME": str(self.scratch), "LC_ALL": "C", "LD_RUN_PATH": _RUN_PATH, **extra},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if check and done.returncode:
            raise Failed(done)
        return done


def _source_options(folder: Path) -> list[str]:
    """Options by which apt knows this machine's sources of packages as those of source code, for itself."""
    parts = folder / "parts"
    for directory in (parts, folder / "lists/partial", folder / "cache/archives/partial"):
        directory.mkdir(parents=True)
    files = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]
    for file in files:
        if file.suffix == ".sources":
            text = re.sub(r"(?m)^Types:.*", "Types: deb-src", file.read_text())
        elif file.suffix == ".list" and file.exists():
            text = re.sub(r"(?m)^deb\b(?!-)", "deb-src", file.read_text())
        else:
            continue
        (parts / file.name).write_text(text)
    settings = {
        "APT::Sandbox::User": "root",
        "Dir::Cache": folder / "cache",
        "Dir::Etc::sourcelist": os.devnull,
        "Dir::Etc::sourceparts": parts,
        "Dir::State::lists": folder / "lists",
    }
    return [f"--option={name}={value}" for name, value in settings.items()]


def _relative(program: Path, folder: Path) -> str:
    """How ``program`` is called from ``folder``, so that no path of this machine gets into the binaries."""
    return os.path.relpath(program, folder)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(source, target, follow_symlinks=False)
