"""How a device proves itself: RFC 9421 signatures, and the token that spares it most of them.

The device signs with Ed25519 over `@method @path @query content-digest` and the parameters
`created`, `keyid`, `alg` and `tag`. `keyid` is the RFC 7638 thumbprint of its public key. The
digest is over the bytes on the wire: a signature is checked before anything is decompressed.
"""

import base64
import binascii
import hashlib
import hmac
import struct
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from cryptography.exceptions import InvalidSignature as WrongSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)
from http_message_signatures import (
    HTTPMessageSigner,
    HTTPMessageVerifier,
    HTTPSignatureKeyResolver,
    InvalidSignature,
)
from http_message_signatures.algorithms import ED25519
from http_message_signatures.exceptions import HTTPMessageSignaturesException

from doorward_protocol.messages import Jwk

COVERED: Final = ("@method", "@path", "@query", "content-digest")
TAG: Final = "doorward-device"
OLDEST_SECONDS: Final = 300
"""How long a signature counts after its `created`."""
FUTURE_SECONDS: Final = 30
"""How far `created` may lie ahead of the server's clock."""
TOKEN_SECONDS: Final = 3600
"""How long a bearer token counts."""

# RFC 9421 signs an absolute address; only its path and query are covered, so the host is nobody's.
_ANY_ORIGIN = "https://device.invalid"


class SignatureRefused(Exception):
    """The request is not signed as it must be, or not by this key."""


class ClockSkew(SignatureRefused):
    """The signature is right, but its `created` is too far from the server's time."""


# ---------------------------------------------------------------------------------------- keys


def base64url(raw: bytes) -> str:
    """The bytes in base64url without padding (RFC 7515)."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def from_base64url(text: str) -> bytes:
    """The bytes that `base64url` wrote. Raises ValueError for any other spelling of them."""
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("Not base64url") from None
    # 43 characters carry 258 bits: without this check four spellings would name the same key.
    if base64url(raw) != text:
        raise ValueError("Not base64url in its one spelling")
    return raw


def jwk_of(key: Ed25519PublicKey) -> Jwk:
    """The public key as a JSON Web Key (RFC 8037)."""
    return Jwk(kty="OKP", crv="Ed25519", x=base64url(key.public_bytes_raw()))


def public_key_of(jwk: Jwk) -> Ed25519PublicKey:
    """The public key that a JSON Web Key shows. Raises ValueError when it is none."""
    raw = from_base64url(jwk.x)
    if len(raw) != 32:
        raise ValueError("An Ed25519 key is 32 bytes long")
    return Ed25519PublicKey.from_public_bytes(raw)


def thumbprint(jwk: Jwk) -> str:
    """The RFC 7638 thumbprint of the key: the same key has the same one for ever."""
    canonical = f'{{"crv":"Ed25519","kty":"OKP","x":"{jwk.x}"}}'
    return base64url(hashlib.sha256(canonical.encode()).digest())


def _key_change_text(old_thumbprint: str, new_thumbprint: str) -> bytes:
    return f"doorward-key-change:{old_thumbprint}:{new_thumbprint}".encode()


def prove_key_change(new_key: Ed25519PrivateKey, old_thumbprint: str) -> str:
    """The new key's consent to take the old one's place, for `KeyChange.proof`."""
    new_thumbprint = thumbprint(jwk_of(new_key.public_key()))
    return base64url(new_key.sign(_key_change_text(old_thumbprint, new_thumbprint)))


def key_change_is_proved(jwk: Jwk, proof: str, old_thumbprint: str) -> bool:
    """Whether the owner of the new key wants it to take the old one's place."""
    try:
        public_key_of(jwk).verify(
            from_base64url(proof), _key_change_text(old_thumbprint, thumbprint(jwk))
        )
    except (WrongSignature, ValueError):
        return False
    return True


# ----------------------------------------------------------------------------------- signatures


@dataclass
class _Message:
    """A request as the signature library wants to see it."""

    method: str
    url: str
    headers: dict[str, str] = field(default_factory=dict)


class _OneKey(HTTPSignatureKeyResolver):
    """Knows one private key, or finds public ones by asking."""

    def __init__(
        self,
        *,
        private: Ed25519PrivateKey | None = None,
        find: Callable[[str], Ed25519PublicKey | None] | None = None,
    ) -> None:
        self._private, self._find = private, find

    def resolve_public_key(self, key_id: str) -> Ed25519PublicKey | None:
        return self._find(key_id) if self._find else None

    def resolve_private_key(self, key_id: str) -> Ed25519PrivateKey | None:
        return self._private


def sign(
    key: Ed25519PrivateKey,
    *,
    method: str,
    path: str,
    query: str = "",
    body: bytes = b"",
    created: int | None = None,
) -> dict[str, str]:
    """The three headers that sign this request: Content-Digest, Signature-Input and Signature.

    `body` is what goes over the wire, already compressed if it is; `created` is in seconds since
    1970 by the server's clock as the device knows it, and the device's own clock without it.
    """
    message = _Message(method.upper(), _ANY_ORIGIN + path + ("?" + query if query else ""))
    seconds = int(time.time()) if created is None else created
    HTTPMessageSigner(signature_algorithm=ED25519, key_resolver=_OneKey(private=key)).sign(
        message,
        key_id=thumbprint(jwk_of(key.public_key())),
        created=datetime.fromtimestamp(seconds, tz=UTC),
        label="device",
        tag=TAG,
        covered_component_ids=COVERED,
        body=body,
    )
    return message.headers


class _AnyTime(HTTPMessageVerifier):
    """Checks all but the window: only a right signature with a wrong clock is told the time."""

    def validate_created_and_expires(
        self, sig_input: Any, max_age: timedelta | None = None
    ) -> None:
        if "created" not in sig_input.params:
            raise InvalidSignature("created is missing")


def verify(
    *,
    method: str,
    path: str,
    query: str,
    headers: Mapping[str, str],
    body: bytes,
    find_key: Callable[[str], Ed25519PublicKey | None],
    now: float | None = None,
) -> str:
    """The thumbprint of the key that signed exactly this request, just now.

    `headers` has lower-case names; `body` is the bytes on the wire; `find_key` gives the key of a
    thumbprint, or None; `now` is in seconds since 1970. Raises ClockSkew when all is right but the
    time, and SignatureRefused for everything else.
    """
    message = _Message(method, _ANY_ORIGIN + path + ("?" + query if query else ""), dict(headers))
    verifier = _AnyTime(signature_algorithm=ED25519, key_resolver=_OneKey(find=find_key))
    try:
        results = verifier.verify(
            message, max_age=None, expect_tag=TAG, require_components=COVERED, body=body
        )
    except (HTTPMessageSignaturesException, InvalidSignature, ValueError, TypeError) as error:
        raise SignatureRefused(str(error)) from None
    if len(results) != 1:
        raise SignatureRefused("One signature is needed")
    parameters = results[0].parameters
    if parameters.get("alg") != "ed25519":
        raise SignatureRefused("alg is missing")
    created = int(parameters["created"])
    seconds = time.time() if now is None else now
    if not seconds - OLDEST_SECONDS <= created <= seconds + FUTURE_SECONDS:
        raise ClockSkew("The signature's time is not the server's")
    return str(parameters["keyid"])


def header_map(pairs: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Headers as they came over the wire, for `verify`: lower-case names, repeated ones joined."""
    headers: dict[str, str] = {}
    for raw_name, raw_value in pairs:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


# --------------------------------------------------------------------------------------- tokens

_TOKEN = struct.Struct(">16sIQ")  # device, epoch, end in seconds since 1970
_TOKEN_BYTES = _TOKEN.size
_MAC_BYTES = 32
_PURPOSE = b"doorward-token"


def make_token(key: bytes, *, device_id: UUID, epoch: int, expires_at: int) -> str:
    """A bearer token for the device, checked without a database until `expires_at` (seconds).

    Raising the device's epoch ends all its tokens.
    """
    content = _TOKEN.pack(device_id.bytes, epoch, expires_at)
    return base64url(content + _mac(key, content))


def check_token(key: bytes, token: str, *, now: float) -> tuple[bytes, int, int] | None:
    """The device's id (16 bytes), epoch and end of a token that this key made; else None.

    The epoch still has to be compared with the device's.
    """
    try:
        raw = from_base64url(token)
    except ValueError:
        return None
    if len(raw) != _TOKEN_BYTES + _MAC_BYTES:
        return None
    content = raw[:_TOKEN_BYTES]
    if not hmac.compare_digest(raw[_TOKEN_BYTES:], _mac(key, content)):
        return None
    device_id, epoch, expires_at = _TOKEN.unpack(content)
    if expires_at <= now:
        return None
    return device_id, epoch, expires_at


def _mac(key: bytes, content: bytes) -> bytes:
    return hashlib.blake2b(content, key=key, person=_PURPOSE, digest_size=_MAC_BYTES).digest()
