"""Takes in how far devices are with what they were asked to do."""

from __future__ import annotations

from typing import Any, Final
from uuid import UUID

import msgspec
from django.utils import timezone

from doorward.devices import commands
from doorward.devices.models import CommandState as State
from doorward.gateway import problems
from doorward.gateway.bodies import Receive, SlowBodies
from doorward.gateway.check_in import Tokens
from doorward.gateway.jobs import Jobs
from doorward.gateway.payloads import Payloads
from doorward.gateway.problems import Answer, Refused
from doorward_protocol.messages import (
    MAX_MESSAGE_BYTES,
    CommandProgress,
    CommandState,
    InvalidMessage,
    decode,
)

_state: Final = msgspec.json.Decoder(CommandState)
MOST_RUNNING: Final = 50_000
"""Commands whose progress is known to need no look at their state."""


class Commands:
    """Answers what devices tell about commands; progress is written behind, steps at once."""

    def __init__(self, jobs: Jobs, tokens: Tokens, slow: SlowBodies, payloads: Payloads) -> None:
        self._jobs, self._tokens, self._slow = jobs, tokens, slow
        self._payloads = payloads
        self._running: dict[UUID, UUID] = {}
        self._progress: dict[UUID, tuple[UUID, CommandProgress]] = {}

    async def answer(self, scope: dict[str, Any], receive: Receive) -> Answer:
        """Nothing but that it was heard: each step is on disk by then."""
        authorization = length = None
        for name, value in scope["headers"]:
            if name == b"authorization":
                authorization = value
            elif name == b"content-length":
                length = value
            elif name == b"content-encoding" and value not in {b"", b"identity"}:
                raise Refused("unsupported-media-type", "This message is not compressed")
        state = await self._tokens.device(authorization)
        try:
            uid = UUID(scope["path"].rpartition("/")[2])
            body = await self._slow.read(receive, MAX_MESSAGE_BYTES, length)
            said = decode(_state, body)
        except InvalidMessage as error:
            raise Refused("invalid-message", str(error)) from None
        except ValueError:
            raise Refused("not-found") from None
        await self._take_in(state.device_id, uid, said)
        self._payloads.heard(state, "commands", body)
        return 204, (problems.NO_STORE, problems.NO_SNIFF), b""

    async def _take_in(self, device: UUID, uid: UUID, said: CommandState) -> None:
        if said.status == "running" and said.progress and self._running.get(uid) == device:
            self._progress[uid] = device, said.progress
            return
        # A last word counts everything itself; an older count must not be written over it.
        self._progress.pop(uid, None)
        self._running.pop(uid, None)
        try:
            state = await self._jobs.run(commands.hear, device, uid, said, timezone.now())
        except commands.NoSuchCommand:
            raise Refused("not-found") from None
        if state == State.RUNNING:
            if len(self._running) >= MOST_RUNNING:
                self._running.clear()
            self._running[uid] = device

    async def flush(self) -> None:
        """Write down how far running commands are, as heard since the last time."""
        if not self._progress:
            return
        heard, self._progress = self._progress, {}
        rows = [(device, uid, progress) for uid, (device, progress) in heard.items()]
        await self._jobs.run(commands.store_progress, rows, timezone.now())
