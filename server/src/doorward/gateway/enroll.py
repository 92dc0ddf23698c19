"""What a device signs with its own key: joining, asking for a token, a new key, leaving."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from django.conf import settings

from doorward.devices import check_in, clones, enrollment, key_change, presence, removal, seats
from doorward.devices.models import Device, Ended
from doorward.gateway import addresses, problems
from doorward.gateway.bodies import Receive, SlowBodies
from doorward.gateway.check_in import no_longer
from doorward.gateway.jobs import Jobs
from doorward.gateway.known import Known
from doorward.gateway.problems import Answer, Refused
from doorward.protection.definitions import repository
from doorward_protocol import signing
from doorward_protocol.messages import (
    MAX_MESSAGE_BYTES,
    PROTOCOL_VERSION,
    EnrollAnswer,
    EnrollRequest,
    InvalidMessage,
    KeyChange,
    KeyChangeAnswer,
    ProtocolRange,
    TokenAnswer,
    TokenRequest,
    decode,
    encode,
)

_enroll_request: Final = msgspec.json.Decoder(EnrollRequest)
_key_change: Final = msgspec.json.Decoder(KeyChange)
_token_request: Final = msgspec.json.Decoder(TokenRequest)


class Signed:
    """A request that a device signed, whole but not yet believed."""

    def __init__(self, scope: dict[str, Any], headers: dict[str, str], body: bytes) -> None:
        self.scope, self.headers, self.body = scope, headers, body

    def by(self, find_key: Callable[[str], Ed25519PublicKey | None]) -> str:
        """The thumbprint of the key that signed it. Raises Refused."""
        try:
            return signing.verify(
                method=self.scope["method"],
                path=self.scope["path"],
                query=self.scope["query_string"].decode("latin-1"),
                headers=self.headers,
                body=self.body,
                find_key=find_key,
            )
        except signing.ClockSkew:
            raise Refused("clock-skew", server_time=now_ms()) from None
        except signing.SignatureRefused:
            raise Refused("unauthorized") from None


def now_ms() -> int:
    """The server's time in milliseconds since 1970."""
    return int(time.time() * 1000)


async def receive_signed(scope: dict[str, Any], receive: Receive, slow: SlowBodies) -> Signed:
    """The whole request. Raises Refused for one that is too long, too slow or compressed."""
    headers = signing.header_map(scope["headers"])
    if headers.get("content-encoding", "identity").strip().lower() not in {"", "identity"}:
        raise Refused("unsupported-media-type", "A signed message is not compressed")
    length = next((value for name, value in scope["headers"] if name == b"content-length"), None)
    return Signed(scope, headers, await slow.read(receive, MAX_MESSAGE_BYTES, length))


def spoken(protocol: ProtocolRange) -> None:
    """Refuse a device that does not speak the one version we do."""
    if not protocol.min <= PROTOCOL_VERSION <= protocol.max:
        raise Refused("upgrade-required")


async def enroll(request: Signed, jobs: Jobs, known: Known) -> Answer:
    """Let the device join the account whose member made the code."""
    try:
        message = decode(_enroll_request, request.body)
        public_key = signing.public_key_of(message.jwk)
    except (InvalidMessage, ValueError) as error:
        raise Refused("invalid-message", str(error)) from None
    thumbprint = signing.thumbprint(message.jwk)
    request.by(lambda keyid: public_key if keyid == thumbprint else None)
    spoken(message.protocol)
    address = addresses.of(request.scope, settings.TRUSTED_PROXIES)
    try:
        joined = await jobs.run(enrollment.enroll, message, thumbprint=thumbprint, address=address)
    except enrollment.CodeRefused:
        raise Refused("enrollment-refused") from None
    except enrollment.TooManyTries as error:
        raise Refused("too-many-requests", retry_after=error.retry_after) from None
    except enrollment.KeyInUse:
        raise Refused("key-in-use") from None
    except seats.SeatsExhausted:
        raise Refused("no-seat") from None
    known.forget(joined.device.pk)
    answer = EnrollAnswer(
        device_id=joined.device.pk,
        server_time=now_ms(),
        check_in=check_in.RHYTHM,
        settings_version=joined.device.wanted_version,
        definitions_root=await jobs.run(repository.to_pin),
    )
    return problems.json_answer(201 if joined.is_new else 200, encode(answer))


async def token(request: Signed, jobs: Jobs) -> Answer:
    """Give the device a token for the next hour."""
    device = await _signer(request, jobs)
    try:
        message = decode(_token_request, request.body) if request.body else TokenRequest()
    except InvalidMessage as error:
        raise Refused("invalid-message", str(error)) from None
    spoken(message.protocol)
    if device.revoked_at is not None:
        raise await _ended(device, request, jobs)
    now = time.time()
    expires_at = int(now) + signing.TOKEN_SECONDS
    text = signing.make_token(
        settings.DEVICE_TOKEN_KEY, device_id=device.pk, epoch=device.epoch, expires_at=expires_at
    )
    answer = TokenAnswer(
        device_id=device.pk,
        token=text,
        expires_at=expires_at * 1000,
        server_time=int(now * 1000),
        definitions_root=await jobs.run(repository.to_pin),
    )
    return problems.json_answer(200, encode(answer))


async def change_key(request: Signed, jobs: Jobs) -> Answer:
    """Have the device sign with another key from now on."""
    device = await _signer(request, jobs)
    if device.revoked_at is not None:
        raise await _ended(device, request, jobs)
    try:
        message = decode(_key_change, request.body)
        signing.public_key_of(message.jwk)
    except (InvalidMessage, ValueError) as error:
        raise Refused("invalid-message", str(error)) from None
    signer = _named_key(request.headers["signature-input"])
    address = addresses.of(request.scope, settings.TRUSTED_PROXIES)
    try:
        until = await jobs.run(key_change.change, device, message, signer=signer, address=address)
    except key_change.ChangeRefused:
        raise Refused("unauthorized") from None
    except enrollment.KeyInUse:
        raise Refused("key-in-use") from None
    answer = KeyChangeAnswer(old_key_until=int(until.timestamp() * 1000))
    return problems.json_answer(200, encode(answer))


async def leave(request: Signed, jobs: Jobs, known: Known) -> Answer:
    """Take the device out of its account at its own wish; asked again, all is as it was."""
    device = await _signer(request, jobs)
    if device.revoked_at is None:
        address = addresses.of(request.scope, settings.TRUSTED_PROXIES)
        await jobs.run(removal.take_out, device, actor=None, ip=address, why=Ended.LEFT)
        known.forget(device.pk)
    return 204, (problems.NO_STORE, problems.NO_SNIFF), b""


async def _ended(device: Device, request: Signed, jobs: Jobs) -> Refused:
    """The refusal for who signs by a key that ended; one of before a new installation is a copy."""
    if device.removed_why == Ended.REINSTALLED:
        caller = clones.Caller(address=addresses.of(request.scope, settings.TRUSTED_PROXIES))
        await jobs.run(clones.flag_former, device.thumbprint, caller)
    return no_longer(device.removed_why)


async def _signer(request: Signed, jobs: Jobs) -> Device:
    keyid = _named_key(request.headers.get("signature-input", ""))
    found = await jobs.run(presence.by_key, keyid) if keyid else None
    # A key nobody knows ends where a wrong signature does.
    request.by(lambda name: found[1] if found is not None and name == keyid else None)
    if found is None:
        raise Refused("unauthorized")
    return found[0]


def _named_key(signature_input: str) -> str:
    # Only to know what to ask the database for; `verify` reads the header again, in full.
    _, found, rest = signature_input.partition(';keyid="')
    keyid = rest[:43]
    return keyid if found and rest[43:44] == '"' and keyid.isascii() else ""
