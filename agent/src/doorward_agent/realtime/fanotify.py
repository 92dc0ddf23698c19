# Why not pathlib: descriptors and paths as bytes.
# ruff: noqa: PTH115
"""The Linux kernel's word that a file was written, moved or linked: fanotify(7), for root.

Whole file systems are marked, so that a folder made a moment ago is watched from its first file on.
The kernel names the folder by a handle and the file by its name; nothing is read from a path that
somebody could have swapped meanwhile. Numbers are those of the kernel's uapi/linux/fanotify.h.
"""

import contextlib
import ctypes
import errno
import itertools
import os
import struct
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from doorward_agent import mounts
from doorward_agent.paths import is_within

CLOEXEC, NONBLOCK, CLASS_CONTENT = 0x1, 0x2, 0x4
_REPORT_DIR_AND_NAME = 0x400 | 0x800
_ADD, _REMOVE, _DONT_FOLLOW, _ONLY_DIR, _FILESYSTEM = 0x1, 0x2, 0x4, 0x8, 0x100
CLOSE_WRITE, MOVED_TO, CREATE = 0x8, 0x80, 0x100
OVERFLOW = 0x4000
OPEN_PERM = 0x10000
ON_CHILD, ON_DIR = 0x08000000, 0x40000000
ALLOW, DENY = 0x1, 0x2
_HEAD = struct.Struct("=IBBHQii")  # length, version, reserved, length of this, mask, fd, pid
_INFO = struct.Struct("=BBH")  # kind, padding, length
_FSID = struct.Struct("=Q")
_HANDLE = struct.Struct("=Ii")  # bytes, type
_RESPONSE = struct.Struct("=iI")
_VERSION = 3
_DIR_AND_NAME = 2
_AT_FDCWD = -100
_READ = 256 * 1024
_NEEDS_ROOT = "it needs root (CAP_SYS_ADMIN)"


class Unavailable(Exception):
    """This system, or this user, has no fanotify; the message says why."""


@dataclass(frozen=True, slots=True)
class Change:
    """One file or folder that is new, other than before, or in a new place."""

    path: bytes
    is_folder: bool = False
    is_new: bool = False
    """It was made or linked; if it is still being written, another word follows."""


@dataclass(frozen=True, slots=True)
class Overflow:
    """The kernel's queue was full: something was written that nobody was told of."""

    since: float | None = None
    """From when on, where that is known; seconds since 1970."""


class _Handle(ctypes.Structure):
    _fields_ = [
        ("bytes", ctypes.c_uint),
        ("type", ctypes.c_int),
        ("handle", ctypes.c_ubyte * 128),
    ]


def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(None, use_errno=True)
    library.fanotify_init.argtypes = [ctypes.c_uint, ctypes.c_uint]
    library.fanotify_mark.argtypes = [
        ctypes.c_int,
        ctypes.c_uint,
        ctypes.c_uint64,
        ctypes.c_int,
        ctypes.c_char_p,
    ]
    library.open_by_handle_at.argtypes = [ctypes.c_int, ctypes.POINTER(_Handle), ctypes.c_int]
    return library


def begin(flags: int) -> int:
    """Open a fanotify group; the caller closes it. Raises Unavailable."""
    if not sys.platform.startswith("linux"):
        raise Unavailable("only Linux has it")
    try:
        group = _library().fanotify_init(
            flags | CLOEXEC | NONBLOCK, os.O_RDONLY | os.O_CLOEXEC | os.O_LARGEFILE
        )
    except (OSError, AttributeError) as error:
        raise Unavailable("the C library has no fanotify") from error
    if group < 0:
        number = ctypes.get_errno()
        why = {
            errno.EPERM: _NEEDS_ROOT,
            errno.ENOSYS: "the kernel was built without it",
            errno.EINVAL: "the kernel is older than 5.9",
        }
        raise Unavailable(why.get(number, os.strerror(number)))
    return int(group)


def mark(group: int, path: bytes, mask: int, *, whole_filesystem: bool = False) -> None:
    """Have the kernel tell what happens at a folder. Raises OSError."""
    flags = _ADD | _DONT_FOLLOW | (_FILESYSTEM if whole_filesystem else _ONLY_DIR)
    if _library().fanotify_mark(group, flags, mask, _AT_FDCWD, path) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def answer(group: int, descriptor: int, *, allow: bool) -> None:
    """Let a waiting open go on, or refuse it. Raises OSError."""
    os.write(group, _RESPONSE.pack(descriptor, ALLOW if allow else DENY))


@dataclass(frozen=True, slots=True)
class Asked:
    """Somebody waits to open a file; `descriptor` is ours to close once it is answered."""

    descriptor: int
    pid: int


def questions(group: int) -> Iterator[Asked]:
    """Yield who waits to open what, as far as it is known now."""
    for _, descriptor, pid, _ in _events(group):
        if descriptor >= 0:
            yield Asked(descriptor, pid)


def _events(group: int) -> Iterator[tuple[int, int, int, bytes]]:
    """Yield mask, descriptor, process and what else is told, of each event that waits."""
    while True:
        try:
            held = os.read(group, _READ)
        except BlockingIOError:
            return
        at = 0
        while at + _HEAD.size <= len(held):
            length, version, _, own, mask, descriptor, pid = _HEAD.unpack_from(held, at)
            if version != _VERSION or length < _HEAD.size:
                raise Unavailable(f"the kernel speaks version {version} of fanotify")
            yield mask, descriptor, pid, held[at + own : at + length]
            at += length


class FilesystemWatch:
    """The file systems on which watched folders are, marked as a whole."""

    def __init__(self, folders: Iterable[bytes], table: tuple[mounts.Mount, ...]) -> None:
        """Mark what can be marked; `unmarked` are the folders that somebody else must watch.

        Raises Unavailable where nothing can be.
        """
        self._library = _library() if sys.platform.startswith("linux") else None
        self.group = begin(_REPORT_DIR_AND_NAME)
        self._folders = tuple(folders)
        # By the file system as statfs(2) names it. Paths, not descriptors: a folder held open would
        # keep a disk from being taken out.
        self._roots: dict[int, list[bytes]] = {}
        self._seen: set[tuple[bytes, int]] = set()
        try:
            self.unmarked = self.extend(table)
        except BaseException:
            self.close()
            raise
        if not self._roots:
            self.close()
            raise Unavailable("the file systems of these folders do not support it")

    def extend(self, table: tuple[mounts.Mount, ...]) -> list[bytes]:
        """Mark what was mounted since; returns the places that somebody else must watch."""
        unmarked = []
        below = [
            mount.point
            for mount in table
            if is_within(mount.point, self._folders)
            and mount.kind not in mounts.KERNEL_VIEWS
            # What another computer writes there, this kernel does not hear of.
            and mount.kind not in mounts.NETWORK
            and not mount.kind.startswith("fuse")
        ]
        for place in dict.fromkeys((*self._folders, *below)):
            try:
                self._mark(place)
            except FileNotFoundError:
                continue
            except PermissionError as error:
                # Since Linux 5.13 everybody may open a group, but not mark a file system.
                raise Unavailable(_NEEDS_ROOT) from error
            except OSError:
                unmarked.append(place)
        return unmarked

    def _mark(self, place: bytes) -> None:
        root = _held(place)
        try:
            key = (place, os.fstat(root).st_dev)
            filesystem = os.fstatvfs(root).f_fsid
        finally:
            os.close(root)
        if key in self._seen:
            return
        # Once for each place: one that can't be marked is told once, too.
        self._seen.add(key)
        mark(self.group, place, CLOSE_WRITE | MOVED_TO | CREATE | ON_DIR, whole_filesystem=True)
        self._roots.setdefault(filesystem, []).append(place)

    def fileno(self) -> int:
        """Return the descriptor that is readable when something was written."""
        return self.group

    def changes(self) -> Iterator[Change | Overflow]:
        """Yield what is new since the last call, each path once; what is gone is left out."""
        seen: dict[tuple[bytes, bytes], tuple[int, bytes, int]] = {}
        overflow = False
        for mask, descriptor, _, told in _events(self.group):
            if descriptor >= 0:
                os.close(descriptor)
            if mask & OVERFLOW:
                overflow = True
                continue
            named = _named(told)
            if named is None:
                continue
            filesystem, handle, name = named
            earlier = seen.pop((handle, name), None)
            seen[handle, name] = (filesystem, handle, mask | (earlier[2] if earlier else 0))
        folders: dict[bytes, bytes | None] = {}
        held: dict[int, list[int]] = {}
        try:
            for (handle, name), (filesystem, _, mask) in seen.items():
                if handle not in folders:
                    if filesystem not in held:
                        held[filesystem] = [*self._opened(filesystem)]
                    folders[handle] = self._path(held[filesystem], handle)
                folder = folders[handle]
                if folder is not None:
                    yield Change(
                        path=folder.rstrip(b"/") + b"/" + name,
                        is_folder=bool(mask & ON_DIR),
                        is_new=not mask & (CLOSE_WRITE | MOVED_TO),
                    )
        finally:
            for root in itertools.chain(*held.values()):
                os.close(root)
        if overflow:
            yield Overflow()

    def _opened(self, filesystem: int) -> Iterator[int]:
        for place in self._roots.get(filesystem, ()):
            with contextlib.suppress(OSError):
                yield _held(place)

    def _path(self, roots: Iterable[int], handle: bytes) -> bytes | None:
        """Return where a folder is now, None where it is gone."""
        size, kind = _HANDLE.unpack_from(handle)
        given = _Handle(bytes=size, type=kind)
        ctypes.memmove(given.handle, handle[_HANDLE.size :], size)
        if self._library is None:
            raise AssertionError("only made on Linux")
        for root in roots:
            found = self._library.open_by_handle_at(
                root, ctypes.byref(given), os.O_PATH | os.O_CLOEXEC
            )
            if found < 0:
                continue
            try:
                return _place(found)
            except OSError:
                # Deeper than the kernel can say (PATH_MAX): no path leads there, ours neither.
                return None
            finally:
                os.close(found)
        return None

    def close(self) -> None:
        """Let go of everything: the kernel forgets the marks."""
        if self.group >= 0:
            os.close(self.group)
            self.group = -1


def _held(place: bytes) -> int:
    return os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)


def _place(folder: int) -> bytes | None:
    """Return the path of an open folder, None where it is gone. Raises OSError where it is too
    long."""
    path = os.readlink(b"/proc/self/fd/%d" % folder)
    if not path.startswith(b"/"):
        return None
    if path.endswith(b" (deleted)"):
        # The kernel's word for what is gone, and a name that anybody may give to a folder.
        try:
            there = os.lstat(path)
        except OSError:
            return None
        return path if os.path.samestat(there, os.fstat(folder)) else None
    return path


def _named(told: bytes) -> tuple[int, bytes, bytes] | None:
    """Return file system, the folder's handle and the file's name out of an event's records."""
    at = 0
    while at + _INFO.size <= len(told):
        kind, _, length = _INFO.unpack_from(told, at)
        if length < _INFO.size:
            return None
        if kind == _DIR_AND_NAME:
            start = at + _INFO.size
            (filesystem,) = _FSID.unpack_from(told, start)
            size, _ = _HANDLE.unpack_from(told, start + _FSID.size)
            begins = start + _FSID.size
            ends = begins + _HANDLE.size + size
            name = told[ends : at + length].split(b"\0")[0]
            if size > 128 or not name or name == b".":
                return None
            return filesystem, told[begins:ends], name
        at += length
    return None
