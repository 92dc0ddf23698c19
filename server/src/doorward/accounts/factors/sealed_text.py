"""Secrets that must be read again (seeds), sealed: a copy of the database opens nothing."""

from __future__ import annotations

import base64
from typing import Final

from doorward.notices import envelope

PURPOSE: Final = "second step"


def seal(text: str) -> str:
    """Return the text readable only with this installation's key."""
    return base64.b64encode(envelope.seal(text.encode(), purpose=PURPOSE)).decode("ascii")


def unseal(sealed: str) -> str:
    """Return what was sealed. Raises envelope.Unreadable."""
    try:
        content = base64.b64decode(sealed, validate=True)
    except ValueError:
        raise envelope.Unreadable(PURPOSE) from None
    return envelope.unseal(content, purpose=PURPOSE).decode()
