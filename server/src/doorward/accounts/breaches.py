"""Asks a range service whether a password is known from a leak, without telling it which.

Off unless DOORWARD_BREACH_CHECK_URL is set. Only the first five hex digits of the password's SHA-1
leave the server; the service answers with the rest of every leaked one that begins alike. Each
answer stands for hundreds of passwords, so neither the service nor anybody on the way learns which.
When it can't be reached, passwords are judged without it: its outage is nobody's lockout.
"""

from __future__ import annotations

import hashlib
import ssl
import time
from functools import cache
from typing import Final

import httpx2
import structlog
from django.conf import settings

from doorward.accounts import passwords

log = structlog.get_logger(__name__)

PREFIX_DIGITS: Final = 5
SECONDS: Final = 2.0
"""How long a person choosing a password waits for the service at the most."""
REST_SECONDS: Final = 60.0
"""After a failure it is left alone this long: an outage must not slow down every sign-up."""
MOST_BYTES: Final = 1 << 18
"""A padded answer has some 1,500 lines of 40 bytes."""

_rests_until = 0.0


class _Away(Exception):
    """The service did not answer as it should."""


def knows(password: str) -> bool:
    """Tell whether the service lists the password; False when it is off or does not answer."""
    global _rests_until
    if not settings.BREACH_CHECK_URL or time.monotonic() < _rests_until:
        return False
    digest = hashlib.sha1(passwords.as_bytes(password), usedforsecurity=False).hexdigest().upper()
    try:
        answer = _range(digest[:PREFIX_DIGITS])
    except (_Away, httpx2.HTTPError, OSError) as error:
        _rests_until = time.monotonic() + REST_SECONDS
        log.warning("breach_check.away", error=type(error).__name__)
        return False
    rest = digest[PREFIX_DIGITS:]
    for line in answer.splitlines():
        suffix, _colon, count = line.partition(":")
        # Padding that hides how many there are has the count 0.
        if suffix.strip().upper() == rest and count.strip() != "0":
            return True
    return False


def _range(prefix: str) -> str:
    deadline = time.monotonic() + SECONDS
    with httpx2.stream(
        "GET",
        f"{settings.BREACH_CHECK_URL}/{prefix}",
        headers={"Add-Padding": "true", "User-Agent": "password-check"},
        timeout=SECONDS,
        verify=_trusted(),
        follow_redirects=False,
    ) as response:
        if response.status_code != 200:
            raise _Away
        body = bytearray()
        for chunk in response.iter_bytes():
            body += chunk
            if len(body) > MOST_BYTES or time.monotonic() > deadline:
                raise _Away
    return body.decode("ascii", "replace")


@cache
def _trusted() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
