"""The regular call of every device: no database, and as few steps as can be."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

import msgspec
import structlog
from django.conf import settings
from django.utils import timezone

from doorward.devices import clones, commands
from doorward.devices.check_in import NO_ORDERS, DeviceState, Orders, answer, hear
from doorward.devices.models import Ended
from doorward.gateway import addresses, problems
from doorward.gateway.bodies import Gone, Receive, SlowBodies
from doorward.gateway.jobs import Jobs
from doorward.gateway.known import Known
from doorward.gateway.payloads import Payloads
from doorward.gateway.problems import Answer, Refused
from doorward_protocol import signing
from doorward_protocol.messages import (
    MAX_MESSAGE_BYTES,
    MAX_WAIT_SECONDS,
    CheckIn,
    ErrorCode,
    InvalidMessage,
    decode,
    encode,
)

KEYS_OF_COPIES: Final = frozenset({Ended.COPIED, Ended.REINSTALLED})
"""Their holder joins anew; nobody has taken it out of the account."""

log = structlog.get_logger(__name__)

_check_in: Final = msgspec.json.Decoder(CheckIn)
MOST_TOKENS: Final = 100_000
"""Tokens whose check is remembered, so that a device pays for it once an hour."""


class Tokens:
    """Tells whose token a request carries."""

    def __init__(self, known: Known) -> None:
        self._known = known
        self.checked: dict[bytes | None, tuple[DeviceState, int]] = {}
        """What each token proved, and until when; it counts while the state is not outdated."""

    async def device(self, authorization: bytes | None) -> DeviceState:
        """The device that the request's Authorization header proves. Raises Refused."""
        if authorization is None:
            raise Refused("unauthorized")
        state = self.remembered(authorization)
        return state if state is not None else await self._check(authorization, time.time())

    def remembered(self, authorization: bytes | None) -> DeviceState | None:
        """The device whose token was checked before, or None where that must be done now."""
        checked = self.checked.get(authorization)
        if checked is None:
            return None
        state, expires_at = checked
        if expires_at > time.time() and not state.outdated:
            return state
        del self.checked[authorization]
        return None

    async def _check(self, authorization: bytes, now: float) -> DeviceState:
        scheme, _, text = authorization.decode("latin-1").partition(" ")
        read = signing.check_token(settings.DEVICE_TOKEN_KEY, text.strip(), now=now)
        if scheme.lower() != "bearer" or read is None:
            raise Refused("unauthorized")
        device_id, epoch, expires_at = read
        state = await self._known.get(device_id)
        if state is not None and state.epoch < epoch:
            # The device joined anew through another gateway, and we have not heard of it yet.
            self._known.forget(state.device_id)
            state = await self._known.get(device_id)
        if state is None:
            raise Refused("unauthorized")
        if state.revoked:
            raise no_longer(state.removed_why)
        if state.epoch != epoch:
            raise Refused("unauthorized")
        if len(self.checked) >= MOST_TOKENS:
            self.checked.clear()
        self.checked[authorization] = (state, expires_at)
        return state


class CheckIns:
    """Answers check-ins."""

    def __init__(
        self, jobs: Jobs, known: Known, tokens: Tokens, slow: SlowBodies, payloads: Payloads
    ) -> None:
        self._jobs, self._known, self._tokens, self._slow = jobs, known, tokens, slow
        self._payloads = payloads

    def answer_at_once(self, scope: dict[str, Any], body: bytes) -> Answer | None:
        """The answer to a whole request, or None where something must be awaited for it.

        Nearly every call can be answered like this: the HTTP server's tasks and messages, which
        awaiting needs, cost more than all that a check-in does. Raises Refused.
        """
        authorization, prefer, _ = _headers(scope)
        state = self._tokens.remembered(authorization)
        if state is None or prefer is not None or state.has_commands:
            return None
        call = _read(body)
        heard = hear(state, call)
        if heard == "fork":
            return None  # It changed nothing, so that `answer` hears the same.
        is_news = self._known.called(state, call, started=heard == "started")
        if is_news or state.watched_until is not None:
            self._payloads.called(state, body, is_news=is_news)
        return _told(state)

    async def answer(self, scope: dict[str, Any], receive: Receive) -> Answer:
        """What the device is told; with `Prefer: wait=N`, as soon as there is news."""
        authorization, prefer, length = _headers(scope)
        state = await self._tokens.device(authorization)
        body = await self._slow.read(receive, MAX_MESSAGE_BYTES, length)
        call = _read(body)
        heard = hear(state, call)
        if heard == "fork":
            await self._flag(state, call, scope)
            raise Refused("device-cloned")
        told_anew = self._known.called(state, call, started=heard == "started")
        self._payloads.called(state, body, is_news=told_anew)
        orders = await self._orders(state)
        is_news = orders or has_news(state, call)
        if prefer is not None and heard != "again" and not is_news:
            await self._wait(state, call, wanted_wait(prefer), receive)
            orders = await self._orders(state)
            if state.call_again and not orders:
                # Only a call that comes shows what is sent.
                state.call_again = False
                return _told_with(state, Orders(more=True))
        state.call_again = False
        return _told_with(state, orders) if orders else _told(state)

    async def _orders(self, state: DeviceState) -> Orders:
        """What members want of the device. Asks the database only where something may wait."""
        while state.has_commands:
            as_known = state.commanded_at
            try:
                orders = await self._jobs.run(commands.send, state.device_id, timezone.now())
            except Refused:
                break  # The database is away: that is no reason not to answer.
            if orders:
                return orders
            # Another command may have been heard of meanwhile: then look once more.
            state.has_commands = state.commanded_at != as_known
        return NO_ORDERS

    async def _wait(
        self, state: DeviceState, call: CheckIn, seconds: float, receive: Receive
    ) -> None:
        gone = asyncio.ensure_future(hung_up(receive))
        try:
            await self._known.news(state, gone, seconds)
        finally:
            left = gone.done()
            gone.cancel()
        if left:
            raise Gone
        if state.revoked:
            raise no_longer(state.removed_why)
        if state.outdated:
            # Its token ended while it waited: who it is must be proved anew before it is told more.
            raise Refused("unauthorized")
        self._known.called(state, call)

    async def _flag(self, state: DeviceState, call: CheckIn, scope: dict[str, Any]) -> None:
        if not state.cloned:
            caller = clones.Caller(
                address=addresses.of(scope, settings.TRUSTED_PROXIES),
                boot_id=call.boot_id,
                seq=call.seq,
                hostname=call.device.hostname if call.device else "",
                os_name=call.device.os.name if call.device else "",
            )
            await self._jobs.run(clones.flag, state.device_id, caller)
            state.cloned = True
            log.warning("device.cloned", device=str(state.device_id))


def no_longer(why: str) -> Refused:
    """The refusal for a device that is not in its account any more, with the reason."""
    code: ErrorCode = "device-cloned" if why in KEYS_OF_COPIES else "revoked"
    return Refused(code, str(Ended(why).label) if why in Ended.values else "")


def _headers(scope: dict[str, Any]) -> tuple[bytes | None, bytes | None, bytes | None]:
    """The headers Authorization, Prefer and Content-Length."""
    authorization = prefer = length = None
    for name, value in scope["headers"]:
        if name == b"authorization":
            authorization = value
        elif name == b"content-length":
            length = value
        elif name == b"prefer":
            prefer = value
        elif name == b"content-encoding" and value not in {b"", b"identity"}:
            raise Refused("unsupported-media-type", "A check-in is not compressed")
    return authorization, prefer, length


def _read(body: bytes) -> CheckIn:
    if len(body) > MAX_MESSAGE_BYTES:
        raise Refused("too-large")
    try:
        return decode(_check_in, body)
    except InvalidMessage as error:
        raise Refused("invalid-message", str(error)) from None


def _told(state: DeviceState) -> Answer:
    now = time.time() * 1000
    return 200, state.answer_headers, b'{"server_time":%d%b' % (now, state.answer_tail)


def _told_with(state: DeviceState, orders: Orders) -> Answer:
    return problems.json_answer(200, encode(answer(state, int(time.time() * 1000), orders)))


async def hung_up(receive: Receive) -> None:
    """Return once the device is gone."""
    # The end of the request's own body may still be waiting to be taken.
    while (await receive())["type"] != "http.disconnect":
        pass


def has_news(state: DeviceState, call: CheckIn) -> bool:
    """Whether the answer tells the device something it does not know yet."""
    # Settings that the device could not apply are no news: it would ask and fail without end.
    told = call.settings
    return state.settings_version > max(told.version, told.failed_version)


def wanted_wait(prefer: bytes) -> float:
    """The seconds that a Prefer header (RFC 7240) asks to wait, as far as we wait at all."""
    for part in prefer.decode("latin-1").split(","):
        name, _, value = part.strip().partition("=")
        if name.lower() == "wait" and value.isascii() and value.isdigit() and len(value) < 6:
            return float(min(int(value), MAX_WAIT_SECONDS))
    return 0.0
