"""The server's own keys: made once at first start, owner-readable only, never in the database."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

NAMES = ("secret", "field", "device-token")
KEY_BYTES = 32
_ephemeral: dict[str, bytes] = {}


def prepare(data: Path) -> None:
    """Make the data folder and any missing key, readable by this user alone.

    Raises OSError when the folder can't be written.
    """
    folder = data / "keys"
    # By hand: `parents=True` gives the folders above the default mode, not this one.
    data.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder.mkdir(exist_ok=True, mode=0o700)
    for name in NAMES:
        path = folder / name
        if path.exists():
            continue
        # Linked into place: two starters at once agree on one key and none is ever half-written.
        fresh = folder / f".{name}.{secrets.token_hex(8)}"
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(fresh, path)
        except FileExistsError:
            pass
        finally:
            fresh.unlink()


def read(data: Path, name: str) -> bytes:
    """Return the key; one that lasts as long as this process where none was made yet.

    So that reading the settings (tests, type checks, ``--help``) never writes to disk.
    """
    path = data / "keys" / name
    if path.exists():
        return path.read_bytes()
    return _ephemeral.setdefault(name, secrets.token_bytes(KEY_BYTES))
