# Why not pathlib: plain descriptors, and every start of a worker runs this.
# ruff: noqa: PTH105, PTH108, PTH123
"""Compiles a set of rules once: what the compiler made of it is kept in the state folder, and the
next worker starts with that in a tenth of the time and with half of the memory.

What is kept is used only where it is whole, was made by this engine on this kind of machine from
exactly these sources, and lies in a file of our own that nobody else can write. Everything else is
as if it were not there, and is compiled and kept anew: it can cost time, never a finding.
"""

import contextlib
import io
import os
import stat
import sys
from collections.abc import Sequence
from hashlib import blake2b

import yara_x

from doorward_agent.engines import versions, yara

_MAGIC = b"DWRULES1"
_DIGEST = 32
_OPEN = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
_MAKE = (
    os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
)


def rules(sources: Sequence[tuple[str, str]], *, kept: str) -> yara_x.Rules:
    """Return these sources compiled, from the file `kept` where it holds just that; it does
    afterwards. Raises yara.RulesRefused."""
    key = _key(sources)
    found = _read(kept, key)
    if found is None:
        found = yara.compiled(sources)
        # A full or read-only disk costs the next start some time, and nothing else.
        with contextlib.suppress(OSError):
            _write(kept, key, found)
    return found


def _key(sources: Sequence[tuple[str, str]]) -> bytes:
    machine = os.uname().machine if hasattr(os, "uname") else ""
    state = blake2b(digest_size=_DIGEST, person=b"doorward-rules")
    told = [versions.yara(), sys.platform, machine, *(text for pair in sources for text in pair)]
    for text in told:
        content = text.encode()
        state.update(len(content).to_bytes(8, "little") + content)
    return state.digest()


def _read(path: str, key: bytes) -> yara_x.Rules | None:
    try:
        handle = os.open(path, _OPEN)
    except OSError:
        return None
    with open(handle, "rb") as source:
        about = os.fstat(source.fileno())
        ours = os.name != "posix" or (about.st_uid == os.geteuid() and not about.st_mode & 0o022)
        if not (ours and stat.S_ISREG(about.st_mode)):
            return None
        if source.read(len(_MAGIC) + _DIGEST) != _MAGIC + key:
            return None
        digest = source.read(_DIGEST)
        content = source.read()
    if blake2b(content, digest_size=_DIGEST).digest() != digest:
        return None
    try:
        return yara_x.Rules.deserialize_from(io.BytesIO(content))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:  # noqa: BLE001 (a Rust panic is no Exception; the sources are still there)
        return None


def _write(path: str, key: bytes, found: yara_x.Rules) -> None:
    target = io.BytesIO()
    found.serialize_into(target)
    content = target.getvalue()
    # Always the same name, so that no killed worker litters. Two at once may mix theirs up; what
    # comes of it is not whole, and the next one compiles.
    aside = f"{path}.new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(aside)
    handle = os.open(aside, _MAKE, 0o600)
    try:
        with open(handle, "wb") as file:
            file.write(_MAGIC + key + blake2b(content, digest_size=_DIGEST).digest() + content)
        os.replace(aside, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(aside)
        raise
