# Why not pathlib: paths here are bytes.
# ruff: noqa: PTH118, PTH123, PTH208
"""Which files the package manager has put there: removing one of those breaks the system."""

import os
import shutil
import subprocess

DPKG_LISTS = b"/var/lib/dpkg/info"
_MERGED = (b"/bin/", b"/sbin/", b"/lib/", b"/lib32/", b"/lib64/", b"/libx32/")


def owner(location: bytes) -> str | None:
    """Return the package a file belongs to, or None; asks dpkg's lists and rpm where they exist."""
    return _dpkg(location) or _rpm(location)


def _dpkg(location: bytes) -> str | None:
    # Read directly: `dpkg-query -S` takes its argument for a pattern.
    try:
        names = os.listdir(DPKG_LISTS)
    except OSError:
        return None
    wanted = [b"\n" + name + b"\n" for name in _names(location)]
    for name in names:
        if not name.endswith(b".list"):
            continue
        try:
            with open(os.path.join(DPKG_LISTS, name), "rb") as source:
                held = b"\n" + source.read()
        except OSError:
            continue
        if any(one in held for one in wanted):
            return name.removesuffix(b".list").split(b":")[0].decode("utf-8", "replace")
    return None


def _names(location: bytes) -> list[bytes]:
    """Return the names a package may list a file under: with a merged /usr, /usr/bin/x may be
    listed as /bin/x."""
    names = [location]
    if location.startswith(b"/usr") and location[4:].startswith(_MERGED):
        names.append(location[4:])
    elif location.startswith(_MERGED):
        names.append(b"/usr" + location)
    return names


def _rpm(location: bytes) -> str | None:
    program = shutil.which("rpm", path="/usr/bin:/bin")
    if program is None:
        return None
    command = [program, "-qf", "--queryformat", "%{NAME}\n", "--", os.fsdecode(location)]
    try:
        asked = subprocess.run(  # noqa: S603 (a fixed program, the path behind --)
            command, capture_output=True, timeout=20.0, check=False, env={"LC_ALL": "C"}
        )
    except (OSError, subprocess.TimeoutExpired):
        # Not knowing is no reason to leave something harmful in place: rpm is hardly ever broken
        # and needed at once.
        return None
    if asked.returncode != 0:
        return None
    return asked.stdout.decode("utf-8", "replace").splitlines()[0] or None
