"""Seals what waits in the database, so that a copy of it hands out no code and no link."""

from __future__ import annotations

import secrets
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from django.conf import settings

NONCE_BYTES: Final = 12


class Unreadable(Exception):
    """What was sealed was changed, belongs elsewhere, or was sealed with another key."""


def seal(content: bytes, *, purpose: str) -> bytes:
    """Return the content readable only by this installation, and only for ``purpose``."""
    nonce = secrets.token_bytes(NONCE_BYTES)
    return nonce + ChaCha20Poly1305(settings.FIELD_KEY).encrypt(nonce, content, purpose.encode())


def unseal(sealed: bytes, *, purpose: str) -> bytes:
    """Return what was sealed for this purpose. Raises Unreadable."""
    nonce, rest = sealed[:NONCE_BYTES], sealed[NONCE_BYTES:]
    try:
        return ChaCha20Poly1305(settings.FIELD_KEY).decrypt(nonce, rest, purpose.encode())
    except (InvalidTag, ValueError):
        raise Unreadable(purpose) from None
