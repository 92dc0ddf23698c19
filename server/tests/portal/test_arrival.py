"""Requests on their way to a thread: which bodies are waited for, and what WSGI is told."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from doorward.portal import arrival
from doorward.portal.arrival import Arrivals, Environ, FromDisk, Refused, Unfinished


class Line:
    """A connection as granian hands it over, and what was answered on it."""

    def __init__(self, body: bytes | None = b"") -> None:
        self.body = body
        self.answers: list[tuple[int, dict[str, str], bytes | str]] = []

    async def __call__(self) -> bytes:
        if self.body is None:
            await asyncio.Event().wait()
        return self.body or b""

    def response_bytes(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.answers.append((status, dict(headers), body))

    def response_file(self, status: int, headers: list[tuple[str, str]], path: str) -> None:
        self.answers.append((status, dict(headers), path))


def asked(*headers: tuple[str, str], method: str = "GET", path: str = "/") -> Any:
    """A request with these headers, as granian describes it."""
    return SimpleNamespace(
        http_version="1.1",
        server="[::1]:8000",
        client="[2001:db8::7]:4321",
        scheme="http",
        method=method,
        path=path,
        query_string="a=%20",
        headers=SimpleNamespace(items=lambda: list(headers)),
    )


def answered(application: Any, scope: Any, line: Line) -> Line:
    """Have it answered."""
    arrivals = Arrivals(application, threads=2, longest=100)
    asyncio.run(arrivals.__rsgi__(scope, line))  # type: ignore[arg-type]  # as far as it is used
    return line


def no_page(environ: Environ, start_response: Any) -> Iterable[bytes]:
    raise AssertionError("no thread should see this request")


def test_wsgi_is_told_the_whole_request() -> None:
    seen: Environ = {}

    def page(environ: Environ, start_response: Any) -> Iterable[bytes]:
        seen.update(environ, body=environ["wsgi.input"].read())
        start_response("201 Created", [("x-made", "yes")])
        return iter([b"one ", b"two"])

    line = answered(
        page,
        asked(
            ("host", "localhost:8000"),
            ("cookie", "a=1"),
            ("cookie", "b=2"),
            ("x-forwarded-for", "192.0.2.1"),
            ("x-forwarded-for", "192.0.2.2"),
            ("content-type", "text/plain"),
            ("content-length", "3"),
            method="POST",
            path="/tür",
        ),
        Line(b"abc"),
    )
    assert line.answers == [(201, {"x-made": "yes"}, b"one two")]
    expected = {
        "body": b"abc",
        "REQUEST_METHOD": "POST",
        "PATH_INFO": "/tür".encode().decode("latin-1"),
        "QUERY_STRING": "a=%20",
        "REMOTE_ADDR": "2001:db8::7",
        "SERVER_NAME": "::1",
        "SERVER_PORT": "8000",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.url_scheme": "http",
        "HTTP_HOST": "localhost:8000",
        "HTTP_COOKIE": "a=1;b=2",
        "HTTP_X_FORWARDED_FOR": "192.0.2.1,192.0.2.2",
        "CONTENT_TYPE": "text/plain",
        "CONTENT_LENGTH": "3",
    }
    assert {key: seen[key] for key in expected} == expected


def test_a65_a_header_with_an_underscore_passes_for_none_of_our_proxys() -> None:
    scope = asked(("x-forwarded-for", "192.0.2.1"), ("x_forwarded_for", "192.0.2.66"))
    assert arrival.environ_of(scope)["HTTP_X_FORWARDED_FOR"] == "192.0.2.1"


@pytest.mark.parametrize(
    ("header", "status"),
    [(("transfer-encoding", "chunked"), 411), (("content-length", "101"), 413)],
)
def test_a65_a_body_that_is_too_long_or_does_not_say_is_refused(
    header: tuple[str, str], status: int
) -> None:
    line = answered(no_page, asked(header, method="POST"), Line(None))
    [(told, headers, _)] = line.answers
    assert told == status
    assert headers["connection"] == "close"


def test_programs_are_refused_in_the_form_they_read() -> None:
    header = ("content-length", "101")
    kinds = {}
    for path in ("/api/v1/devices", "/_allauth/app/v1/auth/login", "/login/"):
        line = answered(no_page, asked(header, method="POST", path=path), Line(None))
        [(_, headers, body)] = line.answers
        assert isinstance(body, bytes)
        kinds[path] = (headers["content-type"], body)
    kind, problem = kinds["/api/v1/devices"]
    assert kind == "application/problem+json"
    assert json.loads(problem)["code"] == "too-large"
    assert json.loads(problem)["status"] == 413
    kind, told = kinds["/_allauth/app/v1/auth/login"]
    assert kind == "application/json"
    assert json.loads(told)["errors"][0]["code"] == "too_large"
    assert kinds["/login/"][0].startswith("text/plain")


def test_a65_a_late_body_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrival, "BODY_SECONDS", 0.05)
    monkeypatch.setattr(arrival, "LOOK_SECONDS", 0.02)
    line = answered(no_page, asked(("content-length", "9"), method="POST"), Line(None))
    assert [status for status, _, _ in line.answers] == [408]


async def at_once(unfinished: Unfinished, bodies: list[tuple[str, int]]) -> list[bool]:
    """Which of these stalled bodies, by network and length, are still waited for."""
    tasks = [
        asyncio.create_task(unfinished.wait(Line(None), network, length))  # type: ignore[arg-type]
        for network, length in bodies
    ]
    for _ in range(5):
        await asyncio.sleep(0)
    waited_for = [not task.done() for task in tasks]
    for task in tasks:
        if task.done():
            assert isinstance(task.exception(), Refused)
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert not unfinished._bodies
    assert not unfinished._of_network
    assert not unfinished._cut
    assert unfinished._announced == 0
    return waited_for


def test_a65_of_too_many_bodies_of_a_network_the_oldest_are_cut(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(arrival, "MOST_UNFINISHED", 2)
    bodies = [("charlie", 9), ("alice", 9), ("charlie", 9), ("charlie", 9), ("charlie", 9)]
    assert asyncio.run(at_once(Unfinished(), bodies)) == [False, True, False, True, True]


def test_a65_bodies_on_the_way_fill_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrival, "MOST_UNFINISHED_BYTES", 100)
    bodies = [("charlie", 60), ("bob", 30), ("alice", 70)]
    assert asyncio.run(at_once(Unfinished(), bodies)) == [False, True, True]


def test_what_a_page_raises_reaches_granian_which_answers_500() -> None:
    def broken(environ: Environ, start_response: Any) -> Iterable[bytes]:
        raise LookupError("nothing here")

    line = Line()
    with pytest.raises(LookupError):
        answered(broken, asked(), line)
    assert line.answers == []


@pytest.mark.parametrize("skipped", [0, 4])
def test_a_whole_file_is_left_to_granian_and_a_part_of_one_is_not(
    tmp_path: Path, skipped: int
) -> None:
    (tmp_path / "file").write_bytes(b"all of it")
    file = (tmp_path / "file").open("rb")
    file.seek(skipped)

    def page(environ: Environ, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [])
        made: FromDisk = environ["wsgi.file_wrapper"](file, 3)
        return made

    [(_, _, told)] = answered(page, asked(), Line()).answers
    assert told == (b"of it" if skipped else str(tmp_path / "file"))
    assert file.closed


def test_what_is_no_file_on_disk_is_sent_from_memory() -> None:
    assert FromDisk(io.BytesIO(b"text")).path is None
