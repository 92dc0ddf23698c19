"""Every way in which a device's request can end badly, as RFC 9457 writes it."""

from __future__ import annotations

import secrets
from typing import Final

from doorward_protocol.messages import (
    PROBLEM_STATUS,
    PROTOCOL_VERSION,
    ErrorCode,
    Problem,
    ProtocolRange,
    RejectedEvent,
    encode,
)

Headers = tuple[tuple[bytes, bytes], ...]
Answer = tuple[int, Headers, bytes]
"""Status, headers and body of an answer."""

TITLES: Final[dict[ErrorCode, str]] = {
    "unauthorized": "The request does not prove which device it comes from",
    "clock-skew": "The device's clock differs too much from the server's",
    "enrollment-refused": "This code does not add a device: it is wrong, used or too old",
    "revoked": "This device was removed from its account",
    "not-found": "There is nothing at this address",
    "method-not-allowed": "This address does not answer this method",
    "request-timeout": "The request took too long to arrive",
    "no-seat": "The account's plan covers no further device",
    "device-cloned": "Two computers use this device's key: this one must enroll anew",
    "key-in-use": "This key belongs to a device of another account",
    "too-large": "The message is longer than it may be",
    "unsupported-media-type": "The message is compressed in a way that is not understood here",
    "invalid-message": "The message is not as the protocol says",
    "upgrade-required": "The server does not speak this version of the protocol",
    "too-many-requests": "Too many tries",
    "internal-error": "The server failed",
    "unavailable": "The server cannot answer now",
}
JSON: Final = (b"content-type", b"application/json")
PROBLEM_JSON: Final = (b"content-type", b"application/problem+json")
NO_STORE: Final = (b"cache-control", b"no-store")
NO_SNIFF: Final = (b"x-content-type-options", b"nosniff")
CLOSE: Final = (b"connection", b"close")

SPOKEN: Final = ProtocolRange(min=PROTOCOL_VERSION, max=PROTOCOL_VERSION)


class Refused(Exception):
    """The request ends here, with this problem."""

    def __init__(
        self,
        code: ErrorCode,
        detail: str = "",
        *,
        server_time: int | None = None,
        retry_after: int | None = None,
        rejected: tuple[RejectedEvent, ...] = (),
        allow: str = "",
        close: bool = False,
    ) -> None:
        super().__init__(code)
        self.code: ErrorCode = code
        self.detail = detail
        self.server_time = server_time
        self.retry_after = retry_after
        self.rejected = rejected
        self.allow = allow
        self.close = close


def busy(detail: str = "") -> Refused:
    """The refusal for a moment of overload. Spread, so that all do not come back together."""
    return Refused("unavailable", detail, retry_after=5 + secrets.randbelow(11))


def answer(refused: Refused) -> Answer:
    """The problem as it goes over the wire."""
    body = encode(
        Problem(
            type=f"urn:doorward:problem:{refused.code}",
            title=TITLES[refused.code],
            status=PROBLEM_STATUS[refused.code],
            code=refused.code,
            detail=refused.detail,
            server_time=refused.server_time,
            protocol=SPOKEN if refused.code == "upgrade-required" else None,
            rejected=refused.rejected,
        )
    )
    headers = [PROBLEM_JSON, (b"content-length", str(len(body)).encode()), NO_STORE, NO_SNIFF]
    if PROBLEM_STATUS[refused.code] == 401:
        headers.append((b"www-authenticate", b"Bearer, Signature"))
    if refused.code == "upgrade-required":
        headers.append((b"upgrade", b"doorward/1"))
    if refused.retry_after is not None:
        headers.append((b"retry-after", str(refused.retry_after).encode()))
    if refused.allow:
        headers.append((b"allow", refused.allow.encode()))
    if refused.close:
        headers.append(CLOSE)
    return PROBLEM_STATUS[refused.code], tuple(headers), body


def json_answer(status: int, body: bytes) -> Answer:
    """A good answer as it goes over the wire."""
    length = (b"content-length", str(len(body)).encode())
    return status, (JSON, length, NO_STORE, NO_SNIFF), body
