"""Tells a device what it must do, and only when it does not know yet."""

from __future__ import annotations

from typing import Any

from doorward.gateway import problems
from doorward.gateway.bodies import Receive
from doorward.gateway.check_in import Tokens
from doorward.gateway.jobs import Jobs
from doorward.gateway.problems import Answer
from doorward.protection import policy


class SettingsOfDevices:
    """Answers what each device is told; 304 for who has it already."""

    def __init__(self, jobs: Jobs, tokens: Tokens) -> None:
        self._jobs, self._tokens = jobs, tokens

    async def answer(self, scope: dict[str, Any], receive: Receive) -> Answer:
        """The settings with their version, which is the one that check-ins name."""
        authorization = known = None
        for name, value in scope["headers"]:
            if name == b"authorization":
                authorization = value
            elif name == b"if-none-match":
                known = value
        state = await self._tokens.device(authorization)
        version, text = await self._jobs.run(policy.told, state.device_id)
        mark = policy.mark_of(version, text).encode()
        tag = (b"etag", mark)
        if known is not None and mark in [each.strip() for each in known.split(b",")]:
            return 304, (tag, problems.NO_STORE, problems.NO_SNIFF), b""
        status, headers, body = problems.json_answer(
            200, b'{"version":%d,' % version + text[1:].encode()
        )
        return status, (*headers, tag), body
