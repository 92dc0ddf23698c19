"""Who this device is: its key, its server and what the server called it.

Two files in the agent's private state folder: `device.key`, made once and never sent anywhere, and
`identity.json`, which holds nothing secret but decides whom we trust. Both are the owner's alone.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import secrets
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

KEY_FILE: Final = "device.key"
NEXT_KEY_FILE: Final = "device.key.next"
"""The key that is to take its place, until the server has agreed (`key.rotate`)."""
IDENTITY_FILE: Final = "identity.json"

State = Literal["pending", "enrolled", "removed"]


class IdentityProblem(Exception):
    """The identity on disk cannot be used; the message says what to do."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Identity:
    """The device as its server knows it.

    `state` is `pending` between the first attempt to enroll and the server's answer, `removed` once
    the server has said that it no longer knows the device.
    """

    server: str
    state: State
    device_id: str = ""
    name: str = ""
    enrolled_at: str = ""
    removed_at: str = ""
    # Seconds to add to this computer's clock to get the server's.
    clock_offset: float = 0.0
    # Seconds between check-ins, and how long the server may hold one open, as told at enrollment.
    interval: int = 60
    wait: int = 0
    insecure_http: bool = False
    ca_file: str = ""


def load(state: Path) -> Identity | None:
    """Answer the stored identity, or None where this device was never enrolled."""
    path = state / IDENTITY_FILE
    try:
        raw = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as problem:
        raise IdentityProblem(_unreadable(path, problem)) from problem
    known = {field.name for field in dataclasses.fields(Identity)}
    try:
        # Unknown fields come from a newer agent: ignore them, so that going back a version works.
        found = Identity(**{name: value for name, value in raw.items() if name in known})
    except (TypeError, AttributeError) as problem:
        raise IdentityProblem(_unreadable(path, problem)) from problem
    if found.state not in {"pending", "enrolled", "removed"} or not isinstance(found.server, str):
        raise IdentityProblem(_unreadable(path, "it says something unknown"))
    return found


def save(state: Path, identity: Identity) -> None:
    """Store the identity; a crash leaves the old one or the new one, never half of one.

    The state folder exists already: config.prepare made it.
    """
    body = json.dumps(dataclasses.asdict(identity), indent=1).encode() + b"\n"
    temporary = _write_private(state, body)
    temporary.replace(state / IDENTITY_FILE)
    _sync_folder(state)


def forget(state: Path) -> None:
    """Remove the key and the identity; afterwards this device is nobody."""
    for name in (IDENTITY_FILE, NEXT_KEY_FILE, KEY_FILE):
        (state / name).unlink(missing_ok=True)
    _sync_folder(state)


def leaves_traces(state: Path) -> bool:
    """Whether there is anything to forget, readable or not."""
    return any((state / name).exists() for name in (IDENTITY_FILE, NEXT_KEY_FILE, KEY_FILE))


def key(state: Path, name: str = KEY_FILE) -> Ed25519PrivateKey:
    """Answer the device's key, or raise IdentityProblem where there is none to be trusted."""
    path = state / name
    try:
        found = path.lstat()
        if sys.platform != "win32" and stat.S_IMODE(found.st_mode) & 0o077:
            raise IdentityProblem(
                f"{path} could be read by other users of this computer, so it proves nothing any "
                "more. Run `unenroll`, then `enroll` with a new code."
            )
        body = path.read_bytes()
    except FileNotFoundError:
        raise IdentityProblem(
            f"{path} is missing. Run `unenroll --local`, then `enroll` with a new code."
        ) from None
    except OSError as problem:
        raise IdentityProblem(_unreadable(path, problem)) from problem
    return _parse(path, body)


def key_or_new(state: Path) -> Ed25519PrivateKey:
    """Answer the device's key, made now if there is none yet.

    The same key answers every later attempt to enroll, so a lost reply costs no second seat. Two
    processes that ask at once get the same key: the first one's.
    """
    return _key_or_new(state, KEY_FILE)


def next_key_or_new(state: Path) -> Ed25519PrivateKey:
    """Answer the key that is to take the present one's place; asked again, it is the same one."""
    return _key_or_new(state, NEXT_KEY_FILE)


def adopt_next_key(state: Path) -> None:
    """Make the next key the device's key; where there is none, that has happened already."""
    with contextlib.suppress(FileNotFoundError):
        (state / NEXT_KEY_FILE).replace(state / KEY_FILE)
    _sync_folder(state)


def forget_next_key(state: Path) -> None:
    """Remove the next key: the server does not take it."""
    (state / NEXT_KEY_FILE).unlink(missing_ok=True)
    _sync_folder(state)


def _key_or_new(state: Path, name: str) -> Ed25519PrivateKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
    )
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
    )

    path = state / name
    if not path.exists():
        made = Ed25519PrivateKey.generate()
        body = made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        temporary = _write_private(state, _seal(body))
        # A link, unlike a rename, never replaces: the key is whole from its first moment, and it is
        # the only one.
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)
        temporary.unlink()
        _sync_folder(state)
    return key(state, name)


def _parse(path: Path, body: bytes) -> Ed25519PrivateKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        found = load_pem_private_key(_unseal(body), None)
    except (ValueError, TypeError, OSError) as problem:
        raise IdentityProblem(
            f"{path} is damaged. Run `unenroll --local`, then `enroll` with a new code."
        ) from problem
    if not isinstance(found, Ed25519PrivateKey):
        raise IdentityProblem(
            f"{path} holds another kind of key. Run `unenroll --local`, then `enroll` again."
        )
    return found


def _seal(body: bytes) -> bytes:
    """Encrypt for this computer where the system offers that (Windows); elsewhere the mode does."""
    if sys.platform == "win32":
        from doorward_agent.hosts import windows

        return windows.seal(body)
    return body


def _unseal(body: bytes) -> bytes:
    if sys.platform == "win32":
        from doorward_agent.hosts import windows

        return windows.unseal(body)
    return body


def _write_private(state: Path, body: bytes) -> Path:
    """Write a new file nobody else can read, down to the disk."""
    path = state / f".{secrets.token_hex(8)}.new"
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(body)
        file.flush()
        os.fsync(file.fileno())
    return path


def _sync_folder(folder: Path) -> None:
    if sys.platform == "win32":  # folders cannot be opened there; NTFS journals the rename itself
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _unreadable(path: Path, problem: object) -> str:
    return f"{path} cannot be read: {problem}. Run `unenroll --local`, then `enroll` again."
