"""Takes in what devices found, and answers once it is on disk."""

from __future__ import annotations

import asyncio
from typing import Any, Final
from uuid import UUID

from doorward.devices.check_in import DeviceState
from doorward.gateway import problems
from doorward.gateway.bodies import Receive, SlowBodies, length_unpacked, unpacked
from doorward.gateway.check_in import Tokens
from doorward.gateway.payloads import Payloads
from doorward.gateway.problems import Answer, Refused
from doorward.reports.intake import (
    DeviceGone,
    Intake,
    IntakeUnavailable,
    Stored,
    Submission,
    prepared,
)
from doorward.reports.intake import Refused as Unstored
from doorward_protocol.messages import (
    MAX_EVENTS,
    MAX_REPORT_BYTES,
    MAX_REPORT_UNPACKED_BYTES,
    MAX_TEXT,
    InvalidMessage,
    RejectedEvent,
    ReportAnswer,
    decode_report,
    encode,
    fitted,
)

LARGE_BYTES: Final = 64 * 1024
"""From this length on a report is unpacked and read in a thread, so that others need not wait."""


class Reports:
    """Answers reports."""

    def __init__(
        self, intake: Intake, tokens: Tokens, slow: SlowBodies, payloads: Payloads
    ) -> None:
        self._intake, self._tokens, self._slow = intake, tokens, slow
        self._payloads = payloads

    async def answer(self, scope: dict[str, Any], receive: Receive) -> Answer:
        """Which events are on disk, and which never will be."""
        authorization = length = None
        encodings: list[str] = []
        for name, value in scope["headers"]:
            if name == b"authorization":
                authorization = value
            elif name == b"content-length":
                length = value
            elif name == b"content-encoding":
                encodings.append(value.decode("latin-1"))
        # Who it is comes first: a stranger has us unpack nothing.
        state = await self._tokens.device(authorization)
        body = await self._slow.read(receive, MAX_REPORT_BYTES, length)
        encoding = ",".join(encodings)
        whose = state.device_id, state.account_id
        if length_unpacked(body, encoding) <= LARGE_BYTES:
            submission, rejected = _read(body, encoding, *whose)
        else:
            submission, rejected = await asyncio.to_thread(_read, body, encoding, *whose)
        stored = Stored(refused=submission.refused)
        if submission:
            stored = await self._store(submission, len(body))
        rejected = with_refused(rejected, stored.refused)
        if rejected and not stored.accepted and not stored.duplicate:
            raise Refused("invalid-message", "No event could be taken in", rejected=rejected)
        self._keep(state, body, encoding)
        answer = ReportAnswer(
            accepted=stored.accepted, duplicate=stored.duplicate, rejected=rejected
        )
        return problems.json_answer(202, encode(answer))

    def _keep(self, state: DeviceState, body: bytes, encoding: str) -> None:
        was_packed = encoding not in {"", "identity"}
        length = min(length_unpacked(body, encoding), MAX_REPORT_UNPACKED_BYTES)
        # Of a long one only its length is kept.
        kept = body if length <= LARGE_BYTES else b""
        self._payloads.heard(state, "reports", kept, was_packed=was_packed, length=length)

    async def _store(self, submission: Submission, size: int) -> Stored:
        try:
            return await self._intake.store(submission, size=size)
        except DeviceGone:
            raise Refused("revoked") from None
        except IntakeUnavailable as error:
            raise Refused("unavailable", retry_after=error.retry_after) from None


def with_refused(
    unread: tuple[RejectedEvent, ...], unstored: tuple[Unstored, ...]
) -> tuple[RejectedEvent, ...]:
    """Both kinds of rejected events, in order, each at its place in the report as it came.

    Intake counts only the events that could be read; the unread ones stood between them.
    """
    if not unstored:
        return unread
    holes = {event.index for event in unread}
    places = [index for index in range(MAX_EVENTS) if index not in holes]
    refused = [
        RejectedEvent(
            index=places[event.position],
            code="invalid-event",
            detail=fitted(event.reason, MAX_TEXT),
            uid=event.uid,
        )
        for event in unstored
    ]
    return tuple(sorted([*unread, *refused], key=lambda event: event.index))


def _read(
    body: bytes, encoding: str, device: UUID, account: UUID
) -> tuple[Submission, tuple[RejectedEvent, ...]]:
    try:
        events, rejected = decode_report(unpacked(body, encoding, MAX_REPORT_UNPACKED_BYTES))
    except InvalidMessage as error:
        raise Refused("invalid-message", str(error)) from None
    return prepared(device, account, events), rejected
