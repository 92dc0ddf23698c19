"""Drills D12 and D13: who sends half a request, or reads no answer, keeps nobody else waiting."""

from __future__ import annotations

import contextlib
import http.client
import re
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from tests.conftest import Server, new_installed

STALLED = 100
ATTACKER, VISITOR = "127.0.0.66", "127.0.0.1"
CUT_WITHIN_S = 30
# A machine that does much else at the same time is slow by itself.
ANSWERED_WITHIN_S = 1.0


@pytest.fixture(scope="module")
def door(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for the drills of this file."""
    running = new_installed(installed, tmp_path_factory.mktemp("slow") / "server")
    running.start()
    yield running
    running.stop()


def descriptors(server: Server) -> int:
    """How many files and sockets the server's processes hold."""
    assert server.process is not None
    family = psutil.Process(server.process.pid).children(recursive=True)
    held = 0
    for process in family:
        with contextlib.suppress(psutil.Error):
            held += process.num_fds()
    return held


def back_to(server: Server, base: int, *, seconds: float) -> bool:
    """Whether the server holds no more than that again, soon enough.

    A few may have come to stay: a page made meanwhile has its own connection to the database.
    """
    deadline = time.monotonic() + seconds
    while descriptors(server) > base + 12:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True


def seconds_of(port: int, path: str) -> float:
    """How long a visitor waits for this page."""
    began = time.monotonic()
    line = http.client.HTTPConnection("127.0.0.1", port, timeout=20, source_address=(VISITOR, 0))
    try:
        line.request("GET", path, headers={"Host": f"localhost:{port}"})
        answer = line.getresponse()
        assert answer.read()
        assert answer.status == 200
    finally:
        line.close()
    return time.monotonic() - began


def answer_of(line: socket.socket, *, seconds: float = 20) -> bytes:
    """All that comes until the server hangs up; fails when it does not."""
    line.settimeout(seconds)
    told = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := line.recv(65536):
            told += piece
    return told


@dataclass
class Form:
    """The sign-in form as one browser got it."""

    port: int
    cookies: str
    token: str

    def head(self, *more: str) -> bytes:
        """The start of a request that sends the form."""
        lines = [
            "POST /login/ HTTP/1.1",
            f"Host: localhost:{self.port}",
            f"Origin: http://localhost:{self.port}",
            f"Cookie: {self.cookies}",
            "Content-Type: application/x-www-form-urlencoded",
            *more,
        ]
        return "\r\n".join((*lines, "", "")).encode()

    @property
    def body(self) -> bytes:
        """The form, filled in by somebody without an account."""
        filled = f"csrfmiddlewaretoken={self.token}&login=charlie@example.org&password=lamps+lamps"
        return filled.encode()


def the_form(server: Server) -> Form:
    """Fetch the sign-in page."""
    line = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    try:
        line.request("GET", "/login/", headers={"Host": f"localhost:{server.port}"})
        answer = line.getresponse()
        page = answer.read().decode()
    finally:
        line.close()
    cookies = [
        value.partition(";")[0]
        for name, value in answer.getheaders()
        if name.lower() == "set-cookie"
    ]
    token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page)
    assert token, page
    return Form(server.port, "; ".join(cookies), token[1])


def connect(port: int, source: str = VISITOR) -> socket.socket:
    """A new connection from this address of loopback."""
    return socket.create_connection(("127.0.0.1", port), timeout=20, source_address=(source, 0))


def test_a65_d13_a_hundred_stalled_bodies_keep_nobody_waiting_and_are_cut(door: Server) -> None:
    form = the_form(door)
    seconds_of(door.port, "/health/ready")
    base = descriptors(door)
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        lines = [
            stack.enter_context(contextlib.closing(connect(door.port, ATTACKER)))
            for _ in range(STALLED)
        ]
        for line in lines:
            line.sendall(form.head("Content-Length: 500") + b"login=a")
        time.sleep(1)
        waits = []
        while time.monotonic() - began < 5:
            waits += [seconds_of(door.port, path) for path in ("/login/", "/health/live")]
            for line in lines:
                with contextlib.suppress(OSError):
                    line.sendall(b"a")
            time.sleep(0.3)
        assert max(waits) < ANSWERED_WITHIN_S, waits
        told = [answer_of(line) for line in lines]
        assert time.monotonic() - began < CUT_WITHIN_S
        # Cut for their number first, and for their time then. An answer may be lost on a connection
        # that still sends.
        assert {text.split(b"\r\n")[0] for text in told} <= {b"HTTP/1.1 408 Request Timeout", b""}
        assert back_to(door, base, seconds=10)


def test_d12_one_byte_a_second_is_cut(door: Server) -> None:
    form = the_form(door)
    began = time.monotonic()
    with contextlib.closing(connect(door.port)) as line:
        line.sendall(form.head(f"Content-Length: {len(form.body)}"))
        line.settimeout(1)
        told = b""
        with contextlib.suppress(ConnectionError):
            for number in range(CUT_WITHIN_S):
                line.sendall(form.body[number : number + 1])
                with contextlib.suppress(TimeoutError):
                    told = line.recv(65536)
                    break
        assert told.startswith(b"HTTP/1.1 408 ")
        assert answer_of(line) is not None
    assert 9 < time.monotonic() - began < 20


def test_d12_a_body_in_pieces_that_comes_in_time_is_answered_as_any_other(door: Server) -> None:
    form = the_form(door)
    with contextlib.closing(connect(door.port)) as line:
        line.sendall(form.head(f"Content-Length: {len(form.body)}", "Connection: close"))
        for start in range(0, len(form.body), 20):
            time.sleep(0.05)
            line.sendall(form.body[start : start + 20])
        told = answer_of(line)
    # Django read the whole form: it knows the token, and nobody with this address and password.
    assert told.startswith(b"HTTP/1.1 200 OK")
    assert b"charlie@example.org" in told


def test_a65_who_waits_for_leave_to_send_a_body_gets_it(door: Server) -> None:
    form = the_form(door)
    expecting = form.head(
        f"Content-Length: {len(form.body)}", "Expect: 100-continue", "Connection: close"
    )
    with contextlib.closing(connect(door.port)) as line:
        line.sendall(expecting)
        assert line.recv(200).startswith(b"HTTP/1.1 100 ")
        line.sendall(form.body)
        assert answer_of(line).startswith(b"HTTP/1.1 200 OK")


def test_a65_a_body_that_does_not_say_its_length_is_refused(door: Server) -> None:
    form = the_form(door)
    with contextlib.closing(connect(door.port)) as line:
        line.sendall(form.head("Transfer-Encoding: chunked") + b"3\r\na=b\r\n")
        told = answer_of(line)
    assert told.startswith(b"HTTP/1.1 411 ")
    assert b"connection: close" in told


def test_a65_a_body_longer_than_any_view_takes_is_refused_before_it_comes(door: Server) -> None:
    form = the_form(door)
    with contextlib.closing(connect(door.port)) as line:
        line.sendall(form.head(f"Content-Length: {256 * 1024 + 1}"))
        told = answer_of(line, seconds=5)
    assert told.startswith(b"HTTP/1.1 413 ")
    assert b"x-content-type-options: nosniff" in told


def test_d12_who_resets_in_the_middle_of_a_body_leaves_nothing(door: Server) -> None:
    form = the_form(door)
    seconds_of(door.port, "/health/ready")
    base = descriptors(door)
    for _ in range(50):
        with contextlib.closing(connect(door.port)) as line:
            line.sendall(form.head("Content-Length: 500") + b"login=a")
            # Closing sends a reset, not a farewell.
            line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert back_to(door, base, seconds=5)
    assert seconds_of(door.port, "/login/") < ANSWERED_WITHIN_S
    assert "Traceback" not in door.log()


def test_a65_who_reads_no_answer_holds_no_thread(door: Server) -> None:
    style = re.search(rb'href="(/static/[^"]+\.css)"', page_of(door, "/login/"))
    assert style, "the page has a style sheet"
    ask = f"GET {style[1].decode()} HTTP/1.1\r\nHost: localhost:{door.port}\r\n\r\n".encode() * 40
    with contextlib.ExitStack() as stack:
        for _ in range(STALLED):
            line = socket.socket()
            stack.callback(line.close)
            line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
            line.bind((ATTACKER, 0))
            line.connect(("127.0.0.1", door.port))
            line.sendall(ask)
        time.sleep(1)
        waits = [seconds_of(door.port, path) for path in ("/login/", "/health/live") * 3]
    assert max(waits) < ANSWERED_WITHIN_S, waits


def page_of(server: Server, path: str) -> bytes:
    """The page at this address."""
    line = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    try:
        line.request("GET", path, headers={"Host": f"localhost:{server.port}"})
        return line.getresponse().read()
    finally:
        line.close()


@pytest.mark.slow
@pytest.mark.parametrize("path", ["check-in", "reports", "enroll", "nowhere"])
def test_a65_d13_stalled_bodies_at_the_devices_door_keep_no_device_waiting_and_are_cut(
    door: Server, path: str
) -> None:
    base = descriptors(door)
    began = time.monotonic()
    head = (
        f"POST /device/v1/{path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 500\r\n"
        "Authorization: Bearer nothing\r\n\r\n{"
    )
    with contextlib.ExitStack() as stack:
        lines = [
            stack.enter_context(contextlib.closing(connect(door.device_port, ATTACKER)))
            for _ in range(STALLED)
        ]
        for line in lines:
            line.sendall(head.encode())
        time.sleep(0.5)
        assert seconds_of(door.device_port, "/health/ready") < ANSWERED_WITHIN_S
        for line in lines:
            answer_of(line, seconds=CUT_WITHIN_S + 5)
        # Looked for once a second.
        assert time.monotonic() - began < CUT_WITHIN_S + 3
    assert back_to(door, base, seconds=5)
