"""The devices' door in the test's own process, and devices that speak to it as real ones do."""

from __future__ import annotations

import asyncio
import json
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from doorward.accounts.models import Account
from doorward.devices import enrollment
from doorward.gateway.door import Door
from doorward.gateway.files import FileAnswer
from doorward_protocol import signing

DOOR = "/device/v1"


@dataclass(frozen=True)
class Reply:
    """What the door answered."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The problem's code; the media type and status of a problem are checked on the way."""
        assert self.headers["content-type"] == "application/problem+json"
        problem = self.json
        assert problem["status"] == self.status
        assert problem["type"] == f"urn:doorward:problem:{problem['code']}"
        return str(problem["code"])


Receive = Callable[[], Awaitable[dict[str, Any]]]


async def ask(
    door: Door,
    method: str,
    path: str,
    body: bytes = b"",
    *,
    headers: dict[str, str] | None = None,
    query: str = "",
    receive: Receive | None = None,
    client: str = "203.0.113.7",
) -> Reply:
    """Ask the door as its connections do: at once, and by ASGI where that gives no answer."""
    pairs = [
        (name.lower().encode(), value.encode("latin-1")) for name, value in (headers or {}).items()
    ]
    if receive is None:
        pairs.append((b"content-length", str(len(body)).encode()))
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": query.encode(),
        "headers": pairs,
        "client": (client, 50_000),
    }
    told: FileAnswer | None = None if receive is not None else door.answer_at_once(scope, body)
    if told is None:
        told = await door.answer(scope, receive or whole(body))
    status, raw_headers, answer = told
    assert isinstance(answer, bytes), "a longer file is sent piece by piece"
    answered = {name.decode(): value.decode() for name, value in raw_headers}
    if status not in {204, 304} and method != "HEAD":
        assert answered["content-length"] == str(len(answer))
    return Reply(status, answered, answer)


def whole(body: bytes) -> Receive:
    """A body that arrives in one piece, from somebody who stays on the line."""
    told = False

    async def receive() -> dict[str, Any]:
        nonlocal told
        if told:
            await asyncio.Event().wait()
        told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive


@dataclass
class Computer:
    """A device as its owner has it at hand: a key, and what the server gave it."""

    door: Door
    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    hostname: str = "laptop"
    boot_id: UUID = field(default_factory=uuid4)
    seq: int = 0
    token: str = ""
    client: str = "203.0.113.7"

    @property
    def thumbprint(self) -> str:
        return signing.thumbprint(signing.jwk_of(self.key.public_key()))

    async def signed(
        self, method: str, path: str, message: Any = None, *, created: int | None = None
    ) -> Reply:
        body = b"" if message is None else json.dumps(message).encode()
        headers = signing.sign(self.key, method=method, path=path, body=body, created=created)
        return await ask(self.door, method, path, body, headers=headers, client=self.client)

    def enrollment(self, code: str, **changes: Any) -> dict[str, Any]:
        jwk = signing.jwk_of(self.key.public_key())
        message: dict[str, Any] = {
            "code": code,
            "jwk": {"kty": jwk.kty, "crv": jwk.crv, "x": jwk.x},
            "device": {
                "hostname": self.hostname,
                "os": {"name": "linux", "version": "12"},
                "type": "laptop",
                "agent_version": "0.1.0",
            },
            "capabilities": ["scan", "quarantine"],
            "protocol": {"min": 1, "max": 1},
        }
        return message | changes

    async def enroll(self, code: str, **changes: Any) -> Reply:
        return await self.signed("POST", f"{DOOR}/enroll", self.enrollment(code, **changes))

    async def ask_token(self, *, created: int | None = None) -> Reply:
        reply = await self.signed("POST", f"{DOOR}/token", {}, created=created)
        if reply.status == 200:
            self.token = reply.json["token"]
        return reply

    async def bearing(
        self, path: str, body: bytes, headers: dict[str, str] | None = None, **options: Any
    ) -> Reply:
        carried = {"Authorization": f"Bearer {self.token}"} | (headers or {})
        return await ask(self.door, "POST", f"{DOOR}{path}", body, headers=carried, **options)

    async def check_in(self, *, wait: int = 0, seq: int | None = None, **changes: Any) -> Reply:
        self.seq = self.seq + 1 if seq is None else seq
        message = {
            "boot_id": str(self.boot_id),
            "seq": self.seq,
            "settings": {"version": 0, "status": "applied", "errors": []},
            "definitions": {"version": 1},
            "protection": {"state": "protected"},
            "queue": {"depth": 0, "dropped": 0},
        } | changes
        headers = {"Prefer": f"wait={wait}"} if wait else None
        return await self.bearing("/check-in", json.dumps(message).encode(), headers)

    async def report(self, *events: Any) -> Reply:
        return await self.bearing("/reports", json.dumps({"events": events}).encode())


@asynccontextmanager
async def open_door() -> AsyncIterator[Door]:
    """A door that answers until the end of the block, and has then written everything down."""
    door = Door()
    door.start()
    try:
        yield door
    finally:
        await door.stop()


def with_door(act: Callable[[Door], Coroutine[Any, Any, Any]]) -> Any:
    """Run the act with an open door, and give back what it gave."""

    async def run() -> Any:
        async with open_door() as door:
            return await act(door)

    return asyncio.run(run())


def code_for(account: Account) -> str:
    """A fresh code, as the add-device page shows it."""
    return enrollment.new_code(account, None)[1]


async def joined(door: Door, code: str, **fields: Any) -> Computer:
    """A computer that joined by this code and has its token."""
    computer = Computer(door, **fields)
    reply = await computer.enroll(code)
    assert reply.status == 201, reply.body
    assert (await computer.ask_token()).status == 200
    return computer


def finding(**changes: Any) -> dict[str, Any]:
    """A Detection Finding as an agent reports it."""
    return {
        "class_uid": 2004,
        "activity_id": 1,
        "severity_id": 4,
        "time": int(time.time() * 1000),
        "metadata": {"uid": str(uuid4())},
        "finding_info": {
            "uid": str(uuid4()),
            "title": "EICAR test file",
            "analytic": {"uid": "eicar", "name": "EICAR"},
        },
        "evidences": [{"file": {"path": "/home/alice/eicar.com", "size": 68}}],
        "disposition_id": 3,
        "unmapped": {"engine": "yara"},
    } | changes


def gzip_bomb() -> bytes:
    """A megabyte that unpacks to a gigabyte."""
    squeeze = zlib.compressobj(9, zlib.DEFLATED, 31)
    zeros = bytes(1 << 20)
    return b"".join([*(squeeze.compress(zeros) for _ in range(1000)), squeeze.flush()])
