# Why not pathlib: names here are bytes relative to an open descriptor, which pathlib does not take.
# ruff: noqa: PTH102, PTH104, PTH105, PTH106, PTH108, PTH112, PTH114, PTH116, PTH118, PTH120
# Why no docstrings on the two kinds' methods: the Protocol above them has them.
# ruff: noqa: D102
"""A folder that is held while we work in it, so that nobody can swap it for another under our
hands.

On POSIX it is an open descriptor, reached one component at a time without following a link: moving,
linking and removing act on that very folder, whatever its path means by then. Elsewhere (Windows)
it is a path whose components are checked for links first; that leaves a gap between check and use,
is not yet tried on a real machine, and is therefore the second choice.
"""

import os
import stat
from types import TracebackType
from typing import Protocol

from doorward_agent.paths import LinkInPath, open_folder, readable

_CLOSED_TO_OTHERS = 0o700


class Folder(Protocol):
    """What can be done in a held folder; every name is one component."""

    @property
    def identity(self) -> tuple[int, int]:
        """Return (device, inode)."""

    def open(self, name: bytes, flags: int, mode: int = 0o600) -> int:
        """Open a file, following no link."""

    def stat(self, name: bytes) -> os.stat_result:
        """Return the facts of what has this name, a link's own included."""

    def move(self, name: bytes, target: "Folder", new_name: bytes) -> None:
        """Give a file a new place on the same file system."""

    def settle(self, name: bytes, target: "Folder", new_name: bytes) -> None:
        """Move a file to a name that nothing has yet. Raises FileExistsError and leaves it where it
        is."""

    def remove(self, name: bytes) -> None:
        """Remove a file."""

    def make(self, name: bytes) -> "Folder":
        """Make a folder closed to others and hold it."""

    def enter(self, name: bytes) -> "Folder":
        """Hold a folder in this one that we have made. Raises LinkInPath where it is not ours."""

    def remove_folder(self, name: bytes) -> None:
        """Remove an empty folder."""

    def flush(self) -> None:
        """Make what was renamed, made or removed here survive a power cut."""

    def close(self) -> None:
        """Let go."""

    def __enter__(self) -> "Folder":
        """Hold it for a while."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let go."""


class _Closing:
    def close(self) -> None:
        raise NotImplementedError

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class HeldFolder(_Closing):
    """By an open descriptor (POSIX). What each call promises is said in `Folder`."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __enter__(self) -> "HeldFolder":
        return self

    @property
    def identity(self) -> tuple[int, int]:
        found = os.fstat(self._descriptor)
        return found.st_dev, found.st_ino

    def open(self, name: bytes, flags: int, mode: int = 0o600) -> int:
        safe = flags | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(name, safe, mode, dir_fd=self._descriptor)

    def stat(self, name: bytes) -> os.stat_result:
        return os.stat(name, dir_fd=self._descriptor, follow_symlinks=False)

    def move(self, name: bytes, target: Folder, new_name: bytes) -> None:
        os.rename(name, new_name, src_dir_fd=self._descriptor, dst_dir_fd=_descriptor(target))

    def settle(self, name: bytes, target: Folder, new_name: bytes) -> None:
        to = _descriptor(target)
        try:
            os.link(
                name, new_name, src_dir_fd=self._descriptor, dst_dir_fd=to, follow_symlinks=False
            )
        except FileExistsError:
            raise
        except PermissionError:
            # link(2): EPERM where the file system has no hard links, and for files of others under
            # fs.protected_hardlinks. Then there is no way to refuse an existing name in one step.
            try:
                os.stat(new_name, dir_fd=to, follow_symlinks=False)
            except FileNotFoundError:
                self.move(name, target, new_name)
                return
            raise FileExistsError(readable(new_name)) from None
        os.unlink(name, dir_fd=self._descriptor)

    def remove(self, name: bytes) -> None:
        os.unlink(name, dir_fd=self._descriptor)

    def make(self, name: bytes) -> "HeldFolder":
        os.mkdir(name, _CLOSED_TO_OTHERS, dir_fd=self._descriptor)
        return self.enter(name)

    def enter(self, name: bytes) -> "HeldFolder":
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(name, flags, dir_fd=self._descriptor)
        found = os.fstat(descriptor)
        if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) != _CLOSED_TO_OTHERS:
            os.close(descriptor)
            raise LinkInPath(readable(name))
        return HeldFolder(descriptor)

    def remove_folder(self, name: bytes) -> None:
        os.rmdir(name, dir_fd=self._descriptor)

    def flush(self) -> None:
        os.fsync(self._descriptor)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _descriptor(folder: Folder) -> int:
    if not isinstance(folder, HeldFolder):
        raise TypeError("both folders must be held the same way")
    return folder._descriptor  # noqa: SLF001 (our own kind)


class NamedFolder(_Closing):
    """By its path, checked for links once (Windows). `Folder` says what each call promises."""

    def __init__(self, path: bytes) -> None:
        here = path
        while True:
            if os.path.islink(here) or _is_junction(here):
                raise LinkInPath(readable(path))
            above = os.path.dirname(here)
            if above == here:
                break
            here = above
        if not os.path.isdir(path):
            raise FileNotFoundError(readable(path))
        self._path = path

    def __enter__(self) -> "NamedFolder":
        return self

    def _at(self, name: bytes) -> bytes:
        return os.path.join(self._path, name)

    @property
    def identity(self) -> tuple[int, int]:
        found = os.stat(self._path)
        return found.st_dev, found.st_ino

    def open(self, name: bytes, flags: int, mode: int = 0o600) -> int:
        if os.path.islink(self._at(name)):
            raise LinkInPath(readable(name))
        return os.open(self._at(name), flags | getattr(os, "O_BINARY", 0), mode)

    def stat(self, name: bytes) -> os.stat_result:
        return os.lstat(self._at(name))

    def move(self, name: bytes, target: Folder, new_name: bytes) -> None:
        os.replace(self._at(name), _path(target, new_name))

    def settle(self, name: bytes, target: Folder, new_name: bytes) -> None:
        to = _path(target, new_name)
        # Windows refuses to rename onto an existing name by itself; elsewhere this leaves a gap.
        if os.path.lexists(to):
            raise FileExistsError(readable(new_name))
        os.rename(self._at(name), to)

    def remove(self, name: bytes) -> None:
        os.unlink(self._at(name))

    def make(self, name: bytes) -> "NamedFolder":
        os.mkdir(self._at(name), _CLOSED_TO_OTHERS)
        return NamedFolder(self._at(name))

    def enter(self, name: bytes) -> "NamedFolder":
        return NamedFolder(self._at(name))

    def remove_folder(self, name: bytes) -> None:
        os.rmdir(self._at(name))

    def flush(self) -> None:
        # Windows has no flush for folders; NTFS journals its names.
        return

    def close(self) -> None:
        return


def _is_junction(path: bytes) -> bool:
    found = os.lstat(path)
    # winnt.h: FILE_ATTRIBUTE_REPARSE_POINT; covers junctions, which are no links to os.path.islink
    return bool(getattr(found, "st_file_attributes", 0) & 0x400)


def _path(folder: Folder, name: bytes) -> bytes:
    if not isinstance(folder, NamedFolder):
        raise TypeError("both folders must be held the same way")
    return folder._at(name)  # noqa: SLF001 (our own kind)


BY_DESCRIPTOR = os.name == "posix"
"""How folders are held here."""


def hold(path: bytes) -> Folder:
    """Hold a folder by its absolute path; the caller closes it.

    Raises LinkInPath where a component is a link, FileNotFoundError, PermissionError.
    """
    if BY_DESCRIPTOR:
        return HeldFolder(open_folder(path))
    return NamedFolder(path)
