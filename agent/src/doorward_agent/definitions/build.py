# Why not pathlib: as in the package it builds.
# ruff: noqa: PTH118, PTH123
"""Write the parts of the bundled set that are made from others: the hash list and the VERSION.

Run ``python -m doorward_agent.definitions.build`` after changing a rule; a test fails until it was
done.
"""

import datetime
import os
import sys
from hashlib import sha256

from doorward_agent import definitions
from doorward_protocol import hash_list


def eicar() -> bytes:
    """Return the 68 characters of the test file, which this source does not hold whole."""
    parts = (r"X5O!P%@AP[4\PZX54(P^)7CC)7}", "EICAR", "STANDARD", "ANTIVIRUS", "TEST", "FILE!$H+H*")
    return (f"{parts[0]}${parts[1]}-" + "-".join(parts[2:])).encode()


def known() -> list[tuple[bytes, str]]:
    """Return the hashes every set begins with: the test file as people save it."""
    test = eicar()
    return [(sha256(test + ending).digest(), "EICAR test file") for ending in (b"", b"\n", b"\r\n")]


def write(folder: str, *, today: datetime.date) -> str:
    """Write hash list and VERSION into a folder of rules; returns the version.

    The date changes only when the content does, so that building twice gives the same set.
    """
    with open(os.path.join(folder, "known.hashes"), "wb") as target:
        target.write(hash_list.build(known()))
    fresh = definitions.digest(folder)
    try:
        held = definitions.current(folder).version
    except definitions.DefinitionsUnusable:
        held = ""
    if held.endswith(fresh):
        return held
    version = f"{today:%Y.%m.%d} {fresh}"
    with open(os.path.join(folder, "VERSION"), "w", encoding="ascii", newline="\n") as target:
        target.write(version + "\n")
    return version


if __name__ == "__main__":
    sys.stdout.write(
        write(definitions.BUNDLED, today=datetime.datetime.now(datetime.UTC).date()) + "\n"
    )
