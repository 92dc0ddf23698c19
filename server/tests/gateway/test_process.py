"""The gateway as the process that it is: sockets, signals, and what is on disk afterwards."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psutil
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from server.tests.gateway.computers import gzip_bomb

from doorward_protocol import signing

PREPARE = """
import os, sys
from pathlib import Path
from doorward import keys
keys.prepare(Path(os.environ["DOORWARD_DATA"]))
import django
django.setup()
from django.core.management import call_command
call_command("migrate", verbosity=0)
from doorward.accounts import signup
from doorward.accounts.models import User
from doorward.billing.models import Subscription
from doorward.devices import enrollment
account = signup.found_account(User.objects.create_user("alice@example.org"))
Subscription.objects.update(seats=100)
for _ in range(20):
    print(enrollment.new_code(account, None)[1])
"""


@dataclass
class Gateway:
    """A gateway process on loopback, with codes for its account."""

    port: int
    data: Path
    process: subprocess.Popen[bytes]
    codes: list[str]

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)

    def ask(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> tuple[int, Any]:
        line = self.connect()
        try:
            line.request(method, path, body, headers or {})
            answer = line.getresponse()
            text = answer.read()
        finally:
            line.close()
        return answer.status, json.loads(text) if text else None

    def join(self) -> str:
        """The token of a device that just joined."""
        key = Ed25519PrivateKey.generate()
        jwk = signing.jwk_of(key.public_key())
        message = {
            "code": self.codes.pop(),
            "jwk": {"kty": jwk.kty, "crv": jwk.crv, "x": jwk.x},
            "device": {"hostname": "laptop", "os": {"name": "linux"}},
        }
        self.signed(key, "enroll", message)
        return str(self.signed(key, "token", {})["token"])

    def signed(self, key: Ed25519PrivateKey, name: str, message: dict[str, Any]) -> Any:
        body = json.dumps(message).encode()
        headers = signing.sign(key, method="POST", path=f"/device/v1/{name}", body=body)
        status, answer = self.ask("POST", f"/device/v1/{name}", body, headers)
        assert status in {200, 201}, answer
        return answer

    def check_in(self, token: str, *, wait: int = 0) -> tuple[int, Any]:
        body = json.dumps({"boot_id": str(uuid4()), "seq": 1}).encode()
        headers = {"Authorization": f"Bearer {token}"}
        if wait:
            headers["Prefer"] = f"wait={wait}"
        return self.ask("POST", "/device/v1/check-in", body, headers)

    def peak_mib(self) -> float:
        """The peak memory of the process and its workers."""
        peaks = []
        door = psutil.Process(self.process.pid)
        for worker in (door, *door.children(recursive=True)):
            status = Path(f"/proc/{worker.pid}/status").read_text()
            peaks += [
                int(line.split()[1]) / 1024
                for line in status.splitlines()
                if line.startswith("VmHWM:")
            ]
        return max(peaks)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """One process for all tests here; the last of them ends it."""
    tmp_path = tmp_path_factory.mktemp("gateway")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    environment = {
        **os.environ,
        "DOORWARD_DATA": str(tmp_path),
        "DOORWARD_DATABASE_URL": "",
        "DOORWARD_DEVICE_PORT": str(port),
        # Behind a proxy with TLS, as most are.
        "DOORWARD_SITE_URL": "https://safe.example.org",
        "DJANGO_SETTINGS_MODULE": "doorward.settings",
    }
    prepared = subprocess.run(  # noqa: S603 - our own words
        [sys.executable, "-c", PREPARE], env=environment, capture_output=True, text=True, check=True
    )
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "doorward", "gateway"], env=environment, stdout=log, stderr=log
        )
    running = Gateway(port, tmp_path, process, prepared.stdout.split())
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                if running.ask("GET", "/health/ready")[0] == 200:
                    break
            except OSError:
                assert time.monotonic() < deadline, (tmp_path / "log").read_text()
                time.sleep(0.05)
        yield running
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def test_a42_a_bomb_costs_the_process_little(gateway: Gateway) -> None:
    token = gateway.join()
    headers = {"Authorization": f"Bearer {token}", "Content-Encoding": "gzip"}
    gateway.ask("POST", "/device/v1/reports", b"{}", {"Authorization": f"Bearer {token}"})
    before, bomb = gateway.peak_mib(), gzip_bomb()
    for _ in range(5):
        status, problem = gateway.ask("POST", "/device/v1/reports", bomb, headers)
        assert (status, problem["code"]) == (413, "too-large")
    assert gateway.peak_mib() - before < 32


def test_row64_v3_4_1_every_answer_at_the_devices_door_tells_to_stay_with_https(
    gateway: Gateway,
) -> None:
    token = {"Authorization": f"Bearer {gateway.join()}"}
    call = json.dumps({"boot_id": str(uuid4()), "seq": 1}).encode()
    seen = set()
    for method, path, body, headers in (
        ("GET", "/health/live", b"", {}),
        ("GET", "/health/ready", b"", {}),
        ("GET", "/nowhere", b"", {}),
        ("GET", "/device/v1/check-in", b"", {}),
        ("POST", "/device/v1/check-in", b"{}", {}),
        # Answered without ASGI.
        ("POST", "/device/v1/check-in", call, token),
        ("POST", "/device/v1/check-in", b"no json", token),
        ("GET", "/device/v1/settings", b"", token),
        ("GET", "/definitions/root.json", b"", {}),
    ):
        line = gateway.connect()
        line.request(method, path, body, headers)
        answer = line.getresponse()
        told = answer.headers.get_all("Strict-Transport-Security")
        assert told == ["max-age=31536000; includeSubDomains"], (method, path, answer.status)
        seen.add(answer.status)
        line.close()
    assert seen >= {200, 401, 404, 405, 422}, seen
    for broken in (b"no HTTP\r\n\r\n", b"GET / HTTP/1.1\r\nX-Long: " + b"x" * 40_000):
        with socket.create_connection(("127.0.0.1", gateway.port), 30) as wire:
            wire.sendall(broken)
            assert b"strict-transport-security: max-age=31536000" in wire.recv(4096)


def test_whoever_sends_in_pieces_or_leaves_half_way_is_dealt_with(gateway: Gateway) -> None:
    token = gateway.join()
    body = json.dumps({"boot_id": str(uuid4()), "seq": 1}).encode()
    head = f"POST /device/v1/check-in HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=30) as pieces:
        pieces.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
        for place in range(0, len(body), 7):
            piece = body[place : place + 7]
            pieces.sendall(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        pieces.sendall(b"0\r\n\r\n")
        assert pieces.recv(100).startswith(b"HTTP/1.1 200")
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", gateway.port), timeout=30) as leaver:
            leaver.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body[:10])
    too_long = f"{head}Content-Length: {10**9}\r\n\r\n".encode()
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=30) as liar:
        liar.sendall(too_long)
        assert liar.recv(100).startswith(b"HTTP/1.1 413")
    assert gateway.check_in(gateway.join())[0] == 200
    assert "Traceback" not in (gateway.data / "log").read_text()


POST = "POST /device/v1/check-in HTTP/1.1\r\nHost: x\r\n"
MALFORMED = [
    f"{POST}Content-Length: 5\r\nContent-Length: 6\r\n",
    f"{POST}Content-Length: -5\r\n",
    f"{POST}Transfer-Encoding: x\r\n",
    f"{POST} folded: x\r\n",
    f"{POST}Na me: x\r\n",
    "GET / HTTP/9.9\r\n",
    "\x16\x03\x01",
]


def test_d13_headers_without_an_end_are_refused(gateway: Gateway) -> None:
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=30) as line:
        answer = b""
        with contextlib.suppress(ConnectionError):
            line.sendall(POST.encode())
            for _ in range(100):
                line.sendall(b"X-Long: " + b"x" * 1000 + b"\r\n")
            answer = line.recv(100)
        assert answer == b"" or answer.startswith(b"HTTP/1.1 413 ")


def test_requests_sent_together_are_answered_in_their_order(gateway: Gateway) -> None:
    token = gateway.join()
    wanted = b""
    for number in range(1, 101):
        # Every third waits for the database, the others are answered where they were parsed.
        if number % 3 == 0:
            wanted += b"GET /health/ready HTTP/1.1\r\nHost: x\r\n\r\n"
            continue
        seq = "x" if number % 5 == 0 else number
        body = f'{{"boot_id":"{UUID(int=7)}","seq":{seq}}}'
        wanted += f"{POST}Authorization: Bearer {token}\r\nContent-Length: {len(body)}\r\n".encode()
        wanted += f"\r\n{body}".encode()
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=30) as line:
        # The last one asks to hang up.
        line.sendall(wanted + b"GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answers = b"".join(iter(lambda: line.recv(65536), b""))
    kinds = re.findall(
        rb'"code":"(invalid-message)"|"status":"(ready|live)"|"(server_time)"', answers
    )
    told = [next(filter(None, kind)).decode() for kind in kinds]
    assert told == [
        *(
            "ready" if n % 3 == 0 else "invalid-message" if n % 5 == 0 else "server_time"
            for n in range(1, 101)
        ),
        "live",
    ]
    assert gateway.check_in(gateway.join())[0] == 200


def test_a_client_that_speaks_http_1_0_is_answered_and_hung_up_on(gateway: Gateway) -> None:
    token = gateway.join()
    body = f'{{"boot_id":"{UUID(int=8)}","seq":1}}'
    head = f"POST /device/v1/check-in HTTP/1.0\r\nAuthorization: Bearer {token}\r\n"
    for _ in range(2):  # First by ASGI, as the token is new, then at once.
        with socket.create_connection(("127.0.0.1", gateway.port), timeout=30) as line:
            line.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
            answer = b"".join(iter(lambda: line.recv(65536), b""))
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"connection: close\r\n" in answer


def test_malformed_http_ends_the_connection(gateway: Gateway) -> None:
    for head in MALFORMED:
        with socket.create_connection(("127.0.0.1", gateway.port), timeout=30) as line:
            line.sendall(head.encode("latin-1") + b"\r\n12345")
            answer = line.recv(100)
            assert answer.startswith(b"HTTP/1.1 4"), answer
            assert line.recv(100_000).endswith(b"}"), "a problem is told"
            assert line.recv(100) == b"", "and the connection ends"
    assert gateway.ask("GET", "/health/live")[0] == 200


def test_told_to_stop_it_answers_everybody_and_writes_everything(gateway: Gateway) -> None:
    # What the tests before heard is written by now.
    time.sleep(2.5)
    before = seen_in(gateway.data)
    tokens = [gateway.join() for _ in range(10)]
    statuses: list[int] = []
    waiting = [
        threading.Thread(
            target=lambda token=token: statuses.append(gateway.check_in(token, wait=50)[0])
        )
        for token in tokens
    ]
    for thread in waiting:
        thread.start()
    time.sleep(0.5)
    assert statuses == []
    began = time.monotonic()
    gateway.process.send_signal(signal.SIGTERM)
    for thread in waiting:
        thread.join()
    assert statuses == [200] * 10
    gateway.process.wait(20)
    assert time.monotonic() - began < 8
    assert seen_in(gateway.data) == before + 10


def seen_in(data: Path) -> int:
    """How many devices the database says were seen."""
    with contextlib.closing(sqlite3.connect(data / "doorward.sqlite3")) as database:
        (seen,) = database.execute(
            "SELECT count(*) FROM devices_presence WHERE last_seen IS NOT NULL AND seq = 1"
        ).fetchone()
    return int(seen)
