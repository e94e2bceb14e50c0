"""The place where a name waits before, and an old inode after, it is exchanged."""

from __future__ import annotations

import contextlib
import errno
import os
import stat as stat_module
from typing import TYPE_CHECKING

from msgspec import Struct

from ..model import STAGING_PREFIX, InodeKey, Reason
from .outcome import SkipError
from .system import (
    create,
    exchange,
    is_private,
    link,
    link_descriptor,
    make_directory,
    names_in,
    open_directory,
    remove_directory,
    rename,
    stat_at,
    unlink,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .opening import Directories

#: Where there is no exchange, the old inode waits under its staged name and this.
OLD_SUFFIX = ".old"
COPY_SUFFIX = ".copy"
_CANNOT_EXCHANGE = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP})


class Staging:
    """One directory per run and tree: 0700, at the root of the tree, on the targets' device."""

    def __init__(self, run: str, root: str, below: str, descriptor: int) -> None:
        self._run = run
        self._count = 0
        self.root = root
        #: Its path in the tree.
        self.path = f"{below}/{STAGING_PREFIX}{run}" if below else f"{STAGING_PREFIX}{run}"
        self.descriptor = descriptor
        #: The device it lies on.
        self.device = os.fstat(descriptor).st_dev

    @classmethod
    def make(cls, run: str, root: str, below: str, directories: Directories) -> Staging:
        """Make it in the directory ``below`` of the tree (the root for ``""``), or take this run's own."""
        parent, _ = directories.parent(root, f"{below}/x" if below else "x")
        name = STAGING_PREFIX + run
        with contextlib.suppress(FileExistsError):
            make_directory(name, parent)
        try:
            descriptor = open_directory(name, parent, listed=True)
        except OSError:
            with contextlib.suppress(OSError):
                remove_directory(name, parent)
            raise
        if not is_private(descriptor):
            os.close(descriptor)
            raise PermissionError(f"{root}/{below}/{name} is not ours")
        return cls(run, root, below, descriptor)

    @classmethod
    def existing(cls, root: str, path: str, parent: int, name: str) -> Staging:
        """Open one that an earlier run left at ``path`` of the tree, ``name`` in the open ``parent``."""
        descriptor = open_directory(name, parent, listed=True)
        if not is_private(descriptor):
            os.close(descriptor)
            raise PermissionError(errno.EPERM, "it is not ours")
        below, _, last = path.rpartition("/")
        return cls(last[len(STAGING_PREFIX) :], root, below, descriptor)

    def new_name(self) -> str:
        """A name that nothing has used."""
        self._count += 1
        return f"{self._run}-{self._count}"

    def new_file(self) -> tuple[str, int, InodeKey]:
        """Make an empty file that nobody else can open; its name, descriptor and inode.

        Such a name is never exchanged with anything: it holds nothing of anybody's.
        """
        name = self.new_name() + COPY_SUFFIX
        descriptor = create(name, self.descriptor)
        stat = os.fstat(descriptor)
        return name, descriptor, InodeKey(stat.st_dev, stat.st_ino)

    @contextlib.contextmanager
    def scratch(self) -> Iterator[int]:
        """Have an empty file that nobody else can open, which goes again at the end."""
        name, descriptor, key = self.new_file()
        try:
            yield descriptor
        finally:
            os.close(descriptor)
            self.drop(name, key)

    def drop_copies(self) -> None:
        """Remove what :meth:`new_file` made and a killed run left."""
        for name in names_in(self.descriptor):
            if name.startswith(self._run) and name.endswith(COPY_SUFFIX):
                unlink(name, self.descriptor)

    def holds(self, name: str, key: InodeKey) -> bool:
        """Whether ``name`` in it stands for this very inode."""
        try:
            stat = stat_at(name, self.descriptor)
        except FileNotFoundError:
            return False
        return (stat.st_dev, stat.st_ino) == key

    def has(self, name: str) -> bool:
        """Whether ``name`` in it stands for anything."""
        try:
            stat_at(name, self.descriptor)
        except FileNotFoundError:
            return False
        return True

    def drop(self, name: str, key: InodeKey) -> bool:
        """Remove ``name`` if it stands for this very inode: nothing is ever deleted by name alone."""
        if not self.holds(name, key):
            return False
        unlink(name, self.descriptor)
        return True

    def drop_symlink(self, name: str) -> None:
        """Remove ``name`` if a file system put a symbolic link where a hard link was asked for."""
        if stat_module.S_ISLNK(stat_at(name, self.descriptor).st_mode):
            unlink(name, self.descriptor)

    def close(self, directories: Directories) -> bool:
        """Remove the directory if nothing is left in it; return whether it is gone."""
        os.close(self.descriptor)
        try:
            parent, name = directories.parent(self.root, self.path)
            remove_directory(name, parent)
        except OSError as exc:
            return exc.errno == errno.ENOENT
        return True


class Swap(Struct):
    """One name of a duplicate: ``name`` in the open ``directory``, and where its successor waits."""

    root: str
    path: str
    directory: int
    name: str
    staging: Staging
    staged: str
    exchanged: bool = False

    def key(self) -> InodeKey:
        """What the target stands for now. FileNotFoundError: it is gone."""
        stat = stat_at(self.name, self.directory)
        return InodeKey(stat.st_dev, stat.st_ino)

    def expect(self, key: InodeKey) -> None:
        """Raise SkipError unless the target still is this inode."""
        if self.key() != key:
            raise SkipError(Reason.CHANGED)

    def exchange(self, old: int) -> None:
        """Exchange the staged name and the target; ``old`` is a descriptor of the target's inode.

        Where the file system cannot exchange, the old inode gets a further name, the staged one is
        renamed over the target, and the further name takes its place: the same in the end, but a file
        that somebody puts there in that very moment would be replaced.
        """
        try:
            self._swap()
        except OSError as exc:
            if exc.errno not in _CANNOT_EXCHANGE:
                raise
            further = self.staged + OLD_SUFFIX
            link_descriptor(old, self.staging.descriptor, further)
            try:
                self._rename_over()
            except OSError:
                unlink(further, self.staging.descriptor)  # the target still has the inode
                raise
            rename(further, self.staging.descriptor, self.staged, self.staging.descriptor)
        self.exchanged = True

    def _rename_over(self) -> None:
        rename(self.staged, self.staging.descriptor, self.name, self.directory)

    def _swap(self) -> None:
        exchange(self.staging.descriptor, self.staged, self.directory, self.name)

    def exchange_back(self, keeper: InodeKey, old: InodeKey) -> str:
        """Give the target what came out of it; the keeper's name that comes back is in staging then.

        If a target vanished meanwhile, it stays so. If somebody replaced it meanwhile, theirs stays
        there; what had come out before is removed if it is the old inode, and otherwise kept: its path
        is returned.
        """
        self.exchanged = False
        try:
            if self.key() == keeper:
                self._swap()
                if self.staging.holds(self.staged, keeper):
                    return ""
                self._swap()
                # the target had the old inode for a moment, and who opened it then may still write to it
                return self.keep_beside()
        except FileNotFoundError:
            pass
        except OSError as exc:
            if exc.errno not in _CANNOT_EXCHANGE:
                raise
            with contextlib.suppress(FileNotFoundError):
                if self.key() == keeper and self._back_over(keeper):
                    return ""
        if self.staging.drop(self.staged, old) or not self.staging.has(self.staged):
            return ""
        return self.staged_path

    def _back_over(self, keeper: InodeKey) -> bool:
        """Rename what came out over the target; the keeper's name is in staging then. Whether it was done."""
        further = self.staged + OLD_SUFFIX
        link(self.name, self.directory, further, self.staging.descriptor)
        if not self.staging.holds(further, keeper):
            unlink(further, self.staging.descriptor)  # somebody's new file, at the target still
            return False
        self._rename_over()
        rename(further, self.staging.descriptor, self.staged, self.staging.descriptor)
        return True

    @property
    def staged_path(self) -> str:
        """The absolute path of the staged name."""
        return f"{self.root}/{self.staging.path}/{self.staged}"

    def keep_beside(self) -> str:
        """Move what came out of the target beside it, under a new name; returns its path."""
        self.exchanged = False
        beside = STAGING_PREFIX + self.staged
        rename(self.staged, self.staging.descriptor, beside, self.directory)
        return f"{self.root}/{self.path[: len(self.path) - len(self.name)]}{beside}"
