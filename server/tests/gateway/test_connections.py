"""What the devices' connections do by themselves, before and beside the door."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from uuid import uuid4

import pytest
import time_machine
import uvicorn
from server.tests.gateway.computers import Computer, joined, whole, with_door
from uvicorn.server import ServerState

from doorward.gateway import connections
from doorward.gateway.door import Door
from doorward.gateway.problems import Answer


class Line(asyncio.Transport):
    """The transport under a connection: it keeps what was written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def close(self) -> None:
        self.closed = True

    abort = close

    def is_closing(self) -> bool:
        return self.closed

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def pause_reading(self) -> None:
        """Nothing is read here."""

    def resume_reading(self) -> None:
        """Nothing is read here."""


def at_once(scope: dict[str, Any], body: bytes) -> Answer | None:
    """An app's shortcut that answers whatever it gets."""
    return 200, ((b"content-length", b"%d" % len(body)),), body


async def never(scope: Any, receive: Any, send: Any) -> None:
    """The app proper, which is not asked here."""
    raise AssertionError


never.answer_at_once = at_once  # type: ignore[attr-defined]  # as the gateway's app has it


def connected() -> tuple[connections.Connection, Line]:
    config = uvicorn.Config(never, log_config=None, ws="none", proxy_headers=False)
    connection = connections.Connection(config, ServerState(), {}, asyncio.get_running_loop())
    line = Line()
    connection.connection_made(line)
    return connection, line


REQUEST = b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"


@pytest.mark.parametrize(
    "pieces", [[], [b"POST /x HT"], [REQUEST, b"\r\n"], [REQUEST, b"POST"], [REQUEST + b"POST"]]
)
def test_a65_a_head_that_does_not_come_is_cut_and_one_that_did_is_not(
    pieces: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(connections, "monotonic", lambda: now)

    async def act() -> None:
        nonlocal now
        slow, slow_line = connected()
        served, served_line = connected()
        for piece in pieces:
            slow.data_received(piece)
        served.data_received(REQUEST)
        now += connections.HEAD_SECONDS - 1
        connections.cut_slow()
        assert not slow_line.closed
        now += 2
        connections.cut_slow()
        assert (slow_line.closed, served_line.closed) == (True, False)
        assert served_line.written.endswith(b"hello")
        for one in (slow, served):
            one.connection_lost(None)
        assert not connections._open

    asyncio.run(act())


def test_a_thousand_requests_in_one_piece_are_no_recursion() -> None:
    async def act() -> None:
        connection, line = connected()
        connection.data_received(REQUEST * 2000)
        assert line.written.count(b"HTTP/1.1 200 OK") == 2000
        connection.connection_lost(None)

    asyncio.run(act())


def test_at_once_and_by_asgi_a_call_is_answered_alike(alices_code: str) -> None:
    async def act(door: Door) -> None:
        laptop = await joined(door, alices_code)
        await laptop.check_in()
        for body in (call(laptop), call(laptop, seq="x"), b"", b"{}", b"x" * 70_000):
            scope = {
                "method": "POST",
                "path": "/device/v1/check-in",
                "headers": [
                    (b"authorization", f"Bearer {laptop.token}".encode()),
                    (b"content-length", str(len(body)).encode()),
                ],
            }
            with time_machine.travel(1_795_000_000, tick=False):
                at_once = door.answer_at_once(scope, body)
                by_asgi = await door.answer(scope, whole(body))
            assert at_once is not None
            assert (at_once[0], at_once[2]) == (by_asgi[0], by_asgi[2])

    with_door(act)


def call(laptop: Computer, *, seq: object = 50) -> bytes:
    return json.dumps({"boot_id": str(laptop.boot_id), "seq": seq}).encode()


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"authorization", b"Bearer nonsense")],
        [(b"prefer", b"wait=50")],
    ],
)
def test_what_must_be_asked_for_is_not_answered_at_once(
    alices_code: str, headers: list[tuple[bytes, bytes]]
) -> None:
    async def act(door: Door) -> None:
        laptop = await joined(door, alices_code)
        await laptop.check_in()
        if headers and headers[0][0] == b"prefer":
            headers.append((b"authorization", f"Bearer {laptop.token}".encode()))
        scope = {"method": "POST", "path": "/device/v1/check-in", "headers": headers}
        assert door.answer_at_once(scope, call(laptop)) is None
        # A copy of the disk is written down before it is answered.
        copy = Computer(door, key=laptop.key, boot_id=uuid4(), token=laptop.token)
        scope["headers"] = [(b"authorization", f"Bearer {laptop.token}".encode())]
        assert door.answer_at_once(scope, call(copy, seq=1)) is None

    with_door(act)


def test_row64_v3_4_1_where_the_site_is_http_nothing_is_told_of_https(settings: Any) -> None:
    assert connections.headers_of_all() == []
    settings.SECURE_HSTS_SECONDS, settings.SECURE_HSTS_INCLUDE_SUBDOMAINS = 60, True
    ((name, value),) = connections.headers_of_all()
    assert (name, value) == ("strict-transport-security", "max-age=60; includeSubDomains")
