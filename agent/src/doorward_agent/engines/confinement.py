# Why not pathlib: descriptors; loading it costs 7 ms at each start of a worker.
# ruff: noqa: PTH112
"""What a worker gives up on Linux beyond its user: files by name, and the network.

A worker reads hostile files from descriptors that it is handed. Nothing else needs to be in its
reach: with Landlock (kernel 5.13 and newer, for every user) it can open no file by its name but
those that Python itself is made of, and connect to nobody (6.7); where the agent is root, it is in
a network of its own in which there is nobody. What the kernel does not have stays as it was.
"""

import ctypes
import os
import struct
import sys
from collections.abc import Iterable

# linux/landlock.h. The numbers of the calls are the same on every architecture.
_CREATE, _ADD, _RESTRICT = 444, 445, 446
_ASK_VERSION = 1
_PATH_BENEATH = 1
_READ = 0x4 | 0x8
_NO_NEW_PRIVILEGES = 38
_NEW_NETWORK = 0x40000000
# Version of Landlock: how many kinds of access to files it knows.
_KINDS = {1: 13, 2: 14, 3: 15, 4: 15}
_KINDS_SINCE_5 = 16
_WITH_NETWORK, _WITH_SCOPES = 4, 6


def leave_the_network() -> bool:
    """Be in a network without anybody from now on; needs root. Tells whether it is so."""
    if not sys.platform.startswith("linux"):
        return False
    library = ctypes.CDLL(None, use_errno=True)
    return bool(library.unshare(_NEW_NETWORK) == 0)


def open_nothing_by_name(but: Iterable[str]) -> bool:
    """Open no file by its name from now on but those below these folders, to read them.

    What is open stays open. Tells whether it is so; a kernel without Landlock changes nothing.
    """
    if not sys.platform.startswith("linux"):
        return False
    library = ctypes.CDLL(None, use_errno=True)
    version = int(library.syscall(_CREATE, None, 0, _ASK_VERSION))
    if version < 1:
        return False
    files = (1 << _KINDS.get(version, _KINDS_SINCE_5)) - 1
    # Also: no connection, no signal to and no abstract socket of a process outside.
    attributes = [files]
    if version >= _WITH_NETWORK:
        attributes.append(0x3)
    if version >= _WITH_SCOPES:
        attributes.append(0x3)
    rules = struct.pack(f"={len(attributes)}Q", *attributes)
    ruleset = int(library.syscall(_CREATE, rules, len(rules), 0))
    if ruleset < 0:
        return False
    try:
        for folder in but:
            _allow(library, ruleset, folder)
        if library.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0) != 0:
            return False
        return bool(library.syscall(_RESTRICT, ruleset, 0) == 0)
    finally:
        os.close(ruleset)


def _allow(library: ctypes.CDLL, ruleset: int, folder: str) -> None:
    try:
        place = os.open(folder, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        # A file (a zipped library) can only be read, not listed.
        access = _READ if os.path.isdir(folder) else 0x4
        library.syscall(_ADD, ruleset, _PATH_BENEATH, struct.pack("=Qi", access, place), 0)
    finally:
        os.close(place)


def pythons_own_places() -> tuple[str, ...]:
    """Return where modules and the libraries they load are."""
    return tuple(dict.fromkeys((*filter(None, sys.path), sys.prefix, sys.base_prefix + "/lib")))
