# Why not pathlib: paths are bytes here.
# ruff: noqa: PTH123
"""Which file systems are where: what a walk does not enter, and where a remembered verdict can be
trusted."""

import os
import sys
from dataclasses import dataclass

KERNEL_VIEWS = frozenset(
    (
        "autofs",
        "bdev",
        "binfmt_misc",
        "bpf",
        "cgroup",
        "cgroup2",
        "configfs",
        "cpuset",
        "debugfs",
        "devpts",
        "devtmpfs",
        "efivarfs",
        "fusectl",
        "hugetlbfs",
        "mqueue",
        "nsfs",
        "pipefs",
        "proc",
        "pstore",
        "rpc_pipefs",
        "securityfs",
        "selinuxfs",
        "smackfs",
        "sockfs",
        "sysfs",
        "tracefs",
    )
)
"""File systems that show the kernel instead of holding files."""

NETWORK = frozenset(
    (
        "9p",
        "afs",
        "afp_fs",
        "ceph",
        "cifs",
        "coda",
        "davfs",
        "gfs2",
        "glusterfs",
        "lustre",
        "ncpfs",
        "nfs",
        "nfs4",
        "ocfs2",
        "smb2",
        "smb3",
        "smbfs",
        "virtiofs",
        "webdav",
    )
)
"""File systems whose files another machine may change without a trace here."""

REMEMBERABLE = frozenset(
    (
        "apfs",
        "bcachefs",
        "btrfs",
        "ext2",
        "ext3",
        "ext4",
        "f2fs",
        "hfs",
        "jfs",
        "overlay",
        "reiserfs",
        "tmpfs",
        "xfs",
        "zfs",
    )
)
"""Local file systems with inode numbers and a change time that only the kernel sets. Everything
else (FUSE, FAT, network, unknown) is scanned anew each time."""

ALWAYS_LEFT_OUT = (b"/proc", b"/sys", b"/dev")


@dataclass(frozen=True, slots=True)
class Mount:
    """One mounted file system."""

    point: bytes
    kind: str
    device: int | None


def mounted(table: bytes | None = None) -> tuple[Mount, ...]:
    """Return what is mounted, from /proc/self/mountinfo (proc(5)) or the text given; nothing where
    neither exists."""
    if table is None:
        if not sys.platform.startswith("linux"):
            return ()
        try:
            with open("/proc/self/mountinfo", "rb") as source:
                table = source.read()
        except OSError:
            return ()
    found = []
    for line in table.splitlines():
        fields = line.split(b" ")
        try:
            major, minor = fields[2].split(b":")
            kind = fields[fields.index(b"-", 6) + 1].decode("ascii", "replace")
            found.append(Mount(_unescaped(fields[4]), kind, os.makedev(int(major), int(minor))))
        except (IndexError, ValueError):
            continue
    return tuple(found)


def _unescaped(field: bytes) -> bytes:
    # proc(5): space, tab, newline and backslash come as \040 \011 \012 \134
    if b"\\" not in field:
        return field
    for written, meant in (
        (b"\\040", b" "),
        (b"\\011", b"\t"),
        (b"\\012", b"\n"),
        (b"\\134", b"\\"),
    ):
        field = field.replace(written, meant)
    return field


def not_entered(mounts: tuple[Mount, ...], *, network: bool) -> dict[bytes, str]:
    """Return each folder a walk does not enter, with the reason it counts under."""
    refused = dict.fromkeys(ALWAYS_LEFT_OUT, "kernel-view")
    for mount in mounts:
        if mount.kind in KERNEL_VIEWS:
            refused[mount.point] = "kernel-view"
        elif not network and (mount.kind in NETWORK or mount.kind.startswith("fuse.")):
            refused[mount.point] = "network-mount"
    return refused


def can_remember(mounts: tuple[Mount, ...], *, device: int, path: bytes) -> bool:
    """Tell whether a verdict about a file on this device may be kept; unknown means no."""
    kinds = {mount.kind for mount in mounts if mount.device == device}
    if not kinds:
        # btrfs subvolumes and overlays show a device number of their own: fall back on the mount
        # the path is in.
        around = [
            m for m in mounts if path == m.point or path.startswith(m.point.rstrip(b"/") + b"/")
        ]
        if not around:
            return False
        # The last mount on the longest point is the one on top.
        longest = max(len(m.point) for m in around)
        kinds = {[m for m in around if len(m.point) == longest][-1].kind}
    return kinds <= REMEMBERABLE


def files_within(
    mounts: tuple[Mount, ...], folder: bytes, left_out: dict[bytes, str]
) -> list[bytes]:
    """Return ordinary file systems mounted inside a kernel view, such as /dev/shm in /dev."""
    if left_out.get(folder) != "kernel-view":
        return []
    return [
        mount.point
        for mount in mounts
        if mount.point.startswith(folder + b"/")
        and mount.kind in REMEMBERABLE
        and mount.point not in left_out
    ]


def barred(mounts: tuple[Mount, ...], start: bytes, left_out: dict[bytes, str]) -> str:
    """Return why a scan may not even start at a place, or nothing.

    Whoever asks for a network folder by name wants it scanned; the others stay out even then.
    """
    for place, reason in left_out.items():
        if reason == "network-mount" or not _inside(start, place):
            continue
        ordinary = any(
            _inside(start, mount.point) and _inside(mount.point, place) and mount.point != place
            for mount in mounts
            if mount.kind in REMEMBERABLE
        )
        if reason != "kernel-view" or not ordinary:
            return reason
    return ""


def _inside(path: bytes, folder: bytes) -> bool:
    return path == folder or path.startswith(folder.rstrip(b"/") + b"/")
