"""Reports: what is taken in, what is refused, and that nothing big, slow or strange hurts."""

from __future__ import annotations

import asyncio
import gzip
import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from uuid import uuid4

import pytest
import zstandard
from django.utils import timezone
from server.tests.gateway.computers import (
    DOOR,
    Reply,
    ask,
    code_for,
    finding,
    gzip_bomb,
    joined,
    with_door,
)

from doorward.accounts.models import Account
from doorward.devices.models import Device
from doorward.gateway import bodies
from doorward.gateway.door import Door
from doorward.reports.models import Detection
from doorward_protocol.messages import MAX_EVENTS, MAX_MESSAGE_BYTES, MAX_REPORT_BYTES

ZSTD = {"Content-Encoding": "zstd"}
GZIP = {"Content-Encoding": "gzip"}


def packed(*events: Any) -> bytes:
    return json.dumps({"events": events}).encode()


def test_what_was_accepted_is_stored(alices_code: str, alices_account: Account) -> None:
    event = finding()

    async def act(door: Door) -> Reply:
        return await (await joined(door, alices_code)).report(event)

    reply = with_door(act)
    assert reply.status == 202
    assert reply.json == {
        "accepted": [event["metadata"]["uid"]],
        "duplicate": [],
        "rejected": [],
    }
    detection = Detection.objects.get()
    assert detection.account_id == alices_account.pk
    assert detection.path == "/home/alice/eicar.com"


def test_a39_the_same_report_a_thousand_times_is_one_row(alices_code: str) -> None:
    event = finding()

    async def act(door: Door) -> list[Reply]:
        laptop = await joined(door, alices_code)
        replies = []
        for _ in range(10):
            replies += await asyncio.gather(*(laptop.report(event) for _ in range(100)))
        return replies

    replies = with_door(act)
    assert {reply.status for reply in replies} == {202}
    assert sum(len(reply.json["accepted"]) for reply in replies) == 1
    assert sum(len(reply.json["duplicate"]) for reply in replies) == 999
    assert Detection.objects.count() == 1


def test_a37_a39_another_device_cannot_take_an_events_name(
    alices_code: str, alices_account: Account
) -> None:
    event, another = finding(), code_for(alices_account)

    async def act(door: Door) -> list[Reply]:
        return [await (await joined(door, code)).report(event) for code in (alices_code, another)]

    assert [len(reply.json["accepted"]) for reply in with_door(act)] == [1, 1]
    assert Detection.objects.count() == 2


def test_one_bad_event_is_named_and_the_others_are_stored(alices_code: str) -> None:
    nul = finding(message="a\0b")
    wide = finding(evidences=[{"file": {"path": "/x", "size": 2**63}}])
    unknown = finding(class_uid=9999)
    good = [finding(), finding()]

    async def act(door: Door) -> Reply:
        laptop = await joined(door, alices_code)
        return await laptop.report(good[0], nul, wide, unknown, 5, None, good[1], {})

    answer = with_door(act).json
    assert answer["accepted"] == [event["metadata"]["uid"] for event in good]
    told = {one["index"]: (one["code"], one["uid"]) for one in answer["rejected"]}
    assert told == {
        1: ("invalid-event", nul["metadata"]["uid"]),
        2: ("invalid-event", wide["metadata"]["uid"]),
        3: ("unknown-class", unknown["metadata"]["uid"]),
        4: ("invalid-event", None),
        5: ("invalid-event", None),
        7: ("invalid-event", None),
    }
    assert all(one["detail"] for one in answer["rejected"])
    assert Detection.objects.count() == 2


def test_a_field_of_a_later_version_is_skipped(alices_code: str) -> None:
    event = finding(invented_later={"deep": [1, {"x": None}]}, priority=10**40)

    async def act(door: Door) -> Reply:
        return await (await joined(door, alices_code)).report(event)

    assert len(with_door(act).json["accepted"]) == 1


DEEP = b'{"events":[' + b"[" * 200_000 + b"]" * 200_000 + b"]}"
STRANGE = {
    "nothing": b"",
    "no json": b"<html>",
    "cut": b'{"events":[{"class_uid":2004',
    "not a list": b'{"events":{}}',
    "no object": b"[]",
    "deep": DEEP,
    "deep in an event": b'{"events":[{"x":' + b"[" * 200_000 + b"]" * 200_000 + b"}]}",
    "nan": b'{"events":[{"class_uid":NaN}]}',
    "infinity": b'{"events":[{"class_uid":1e999}]}',
    "not utf-8": b'{"events":[{"class_uid":2004,"message":"\xff\xfe"}]}',
    "lone surrogate": b'{"events":[{"class_uid":2004,"message":"\\ud800"}]}',
    "nul": json.dumps({"events": [finding(message="\0")]}).encode(),
    "nul in a key": b'{"ev\\u0000ents":[]}',
    "64 bits": json.dumps({"events": [finding(time=2**63)]}).encode(),
    "30 digits": json.dumps({"events": [finding(time=10**30)]}).encode(),
    "negative": json.dumps({"events": [finding(time=-1)]}).encode(),
    "float": json.dumps({"events": [finding(time=1.5)]}).encode(),
    "true for a number": json.dumps({"events": [finding(severity_id=True)]}).encode(),
    "unknown severity": json.dumps({"events": [finding(severity_id=100)]}).encode(),
    "no evidence": json.dumps({"events": [finding(evidences=[])]}).encode(),
    "path of 64 kB": json.dumps(
        {"events": [finding(evidences=[{"file": {"path": "x" * 65536}}])]}
    ).encode(),
    "too many events": b'{"events":[' + b"{}," * MAX_EVENTS + b"{}]}",
    "unknown class only": b'{"events":[{"class_uid":1,"metadata":{"uid":"x"}}]}',
}


@pytest.mark.parametrize("name", STRANGE)
def test_a40_what_is_no_report_is_refused_and_the_door_stays_open(
    alices_code: str, name: str
) -> None:
    async def act(door: Door) -> tuple[Reply, Reply]:
        laptop = await joined(door, alices_code)
        refused = await laptop.bearing("/reports", STRANGE[name])
        return refused, await laptop.report(finding())

    refused, after = with_door(act)
    assert (refused.status, refused.code) == (422, "invalid-message")
    assert after.status == 202
    assert Detection.objects.count() == 1


def test_of_a_key_given_twice_the_last_counts(alices_code: str) -> None:
    body = packed(finding(disposition_id=3)).replace(
        b'"disposition_id": 3', b'"disposition_id": 5, "disposition_id": 15'
    )

    async def act(door: Door) -> Reply:
        return await (await joined(door, alices_code)).bearing("/reports", body)

    assert with_door(act).status == 202
    assert Detection.objects.get().disposition == 15


HOSTILE = [
    "<img src=x onerror=alert(1)>",
    '"><svg onload=alert(1)>',
    "javascript:alert(1)",
    "{{7*7}}{% debug %}",
    "=HYPERLINK(0)",
    "'; DROP TABLE devices_device; --",
    "invoice\u202egpj.exe",
    "a\r\nSet-Cookie: x=1",
    "\x1b[31mred\x1b[0m",
    "x" * 4096,
    "😀" * 1000,
]


@pytest.mark.parametrize("text", HOSTILE)
def test_a43_hostile_text_is_kept_as_text(alices_code: str, text: str) -> None:
    event = finding(evidences=[{"file": {"path": text}}])

    async def act(door: Door) -> Reply:
        return await (await joined(door, alices_code, hostname=text[:200])).report(event)

    assert with_door(act).status == 202
    detection = Detection.objects.select_related("device").get()
    assert detection.path == text
    assert detection.device.hostname == text[:200]


# ----------------------------------------------------------------------------------- packing


@pytest.mark.parametrize(
    ("pack", "headers"), [(zstandard.compress, ZSTD), (gzip.compress, GZIP), (bytes, {})]
)
def test_a_packed_report_is_unpacked(alices_code: str, pack: Any, headers: dict[str, str]) -> None:
    body = pack(packed(*(finding() for _ in range(MAX_EVENTS))))

    async def act(door: Door) -> Reply:
        return await (await joined(door, alices_code)).bearing("/reports", body, headers)

    assert len(with_door(act).json["accepted"]) == MAX_EVENTS
    assert Detection.objects.count() == MAX_EVENTS


@contextmanager
def little_memory(most_mib: int) -> Iterator[None]:
    """Fail when the process's peak grows by more than this."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown < most_mib, f"{grown:.0f} MiB"


def zstd_bomb() -> bytes:
    squeeze = zstandard.ZstdCompressor(level=19).compressobj()
    zeros = bytes(1 << 20)
    return b"".join([*(squeeze.compress(zeros) for _ in range(1024)), squeeze.flush()])


def wide_window() -> bytes:
    """A right report in a frame that asks for 128 MiB of memory before it says anything."""
    wide = zstandard.ZstdCompressionParameters(window_log=27, compression_level=3)
    squeeze = zstandard.ZstdCompressor(compression_params=wide).compressobj()
    return squeeze.compress(packed(finding())) + squeeze.flush()


@pytest.mark.parametrize(("bomb", "headers"), [(gzip_bomb, GZIP), (zstd_bomb, ZSTD)])
def test_a42_a_bomb_is_refused_and_costs_little(
    alices_code: str, bomb: Any, headers: dict[str, str]
) -> None:
    body = bomb()
    assert len(body) <= MAX_REPORT_BYTES

    async def act(door: Door) -> tuple[Reply, Reply]:
        laptop = await joined(door, alices_code)
        await laptop.report(finding())
        with little_memory(32):
            refused = await laptop.bearing("/reports", body, headers)
        return refused, await laptop.report(finding())

    refused, after = with_door(act)
    assert (refused.status, refused.code) == (413, "too-large")
    assert after.status == 202


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Encoding": "br"}, 415),
        ({"Content-Encoding": "gzip, gzip"}, 415),
        ({"Content-Encoding": "zstd,gzip"}, 415),
        (ZSTD, 422),
        (GZIP, 422),
    ],
)
def test_a42_what_is_not_packed_as_it_says_is_refused(
    alices_code: str, headers: dict[str, str], status: int
) -> None:
    async def act(door: Door) -> Reply:
        laptop = await joined(door, alices_code)
        return await laptop.bearing("/reports", packed(finding()), headers)

    assert with_door(act).status == status
    assert Detection.objects.count() == 0


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (zstandard.compress(packed(finding()))[:-3], ZSTD),
        (gzip.compress(packed(finding()))[:-3], GZIP),
        (gzip.compress(packed(finding())) + gzip.compress(b"{}"), GZIP),
        (gzip.compress(packed(finding())) + b"tail", GZIP),
        (wide_window(), ZSTD),
        (b"", ZSTD),
        (b"", GZIP),
    ],
)
def test_a42_half_a_package_or_two_are_refused(
    alices_code: str, body: bytes, headers: dict[str, str]
) -> None:
    async def act(door: Door) -> Reply:
        return await (await joined(door, alices_code)).bearing("/reports", body, headers)

    with little_memory(32):
        assert with_door(act).status == 422
    assert Detection.objects.count() == 0


def test_a_stranger_has_us_unpack_nothing(alices_code: str, monkeypatch: Any) -> None:
    def never(*args: object) -> bytes:
        raise AssertionError("unpacked for a stranger")

    monkeypatch.setattr("doorward.gateway.reports.unpacked", never)
    body = gzip.compress(packed(finding()))

    async def act(door: Door) -> Reply:
        return await ask(door, "POST", f"{DOOR}/reports", body, headers=GZIP)

    assert with_door(act).code == "unauthorized"


# ---------------------------------------------------------------------------- length and pace


@pytest.mark.parametrize(
    ("path", "limit"),
    [
        ("/reports", MAX_REPORT_BYTES),
        ("/check-in", MAX_MESSAGE_BYTES),
        ("/enroll", MAX_MESSAGE_BYTES),
        ("/token", MAX_MESSAGE_BYTES),
    ],
)
@pytest.mark.parametrize("announced", [True, False])
def test_a_body_beyond_its_limit_is_cut(
    alices_code: str, path: str, limit: int, announced: bool
) -> None:
    taken = 0

    async def endless() -> dict[str, Any]:
        nonlocal taken
        taken += 16384
        return {"type": "http.request", "body": bytes(16384), "more_body": True}

    async def act(door: Door) -> Reply:
        laptop = await joined(door, alices_code)
        headers = {"Authorization": f"Bearer {laptop.token}"}
        if announced:
            headers["Content-Length"] = str(limit + 1)
        return await ask(door, "POST", f"{DOOR}{path}", headers=headers, receive=endless)

    reply = with_door(act)
    assert (reply.status, reply.code) == (413, "too-large")
    assert reply.headers["connection"] == "close"
    assert taken == 0 if announced else taken <= limit + 2 * 16384


@pytest.mark.parametrize("length", ["-1", "x", "1e3", "9" * 40, "²"])
def test_a_length_that_is_none_is_refused(alices_code: str, length: str) -> None:
    async def act(door: Door) -> Reply:
        laptop = await joined(door, alices_code)
        headers = {"Authorization": f"Bearer {laptop.token}", "Content-Length": length}
        return await ask(door, "POST", f"{DOOR}/reports", headers=headers, receive=_silent)

    assert with_door(act).status == 413


async def _silent() -> dict[str, Any]:
    await asyncio.Event().wait()
    raise AssertionError


@pytest.mark.parametrize("path", ["/reports", "/check-in", "/enroll", "/token"])
def test_a65_a_body_that_does_not_arrive_is_cut(
    alices_code: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "SLOWEST_SECONDS", 0.1)

    async def drop_by_drop() -> dict[str, Any]:
        await asyncio.sleep(0.05)
        return {"type": "http.request", "body": b" ", "more_body": True}

    async def act(door: Door) -> tuple[list[Reply], Reply]:
        laptop = await joined(door, alices_code)
        headers = {"Authorization": f"Bearer {laptop.token}", "Content-Length": "1000"}
        replies = await asyncio.wait_for(
            asyncio.gather(
                *(
                    ask(door, "POST", f"{DOOR}{path}", headers=headers, receive=receive)
                    for receive in (_silent, drop_by_drop)
                )
            ),
            timeout=5,
        )
        assert not door.slow._deadlines
        return list(replies), await laptop.check_in()

    replies, after = with_door(act)
    assert {(reply.status, reply.code) for reply in replies} == {(408, "request-timeout")}
    assert {reply.headers["connection"] for reply in replies} == {"close"}
    assert after.status == 200


def test_thirty_seconds_are_the_most_that_a_body_may_take() -> None:
    assert bodies.SLOWEST_SECONDS == 30


def test_whoever_hangs_up_in_the_middle_leaves_nothing_behind(alices_code: str) -> None:
    half: Iterator[dict[str, Any]] = iter(
        [
            {"type": "http.request", "body": packed(finding())[:40], "more_body": True},
            {"type": "http.disconnect"},
        ]
    )

    async def receive() -> dict[str, Any]:
        return next(half)

    async def act(door: Door) -> None:
        laptop = await joined(door, alices_code)
        with pytest.raises(ConnectionError):
            await laptop.bearing("/reports", b"", receive=receive)

    with_door(act)
    assert Detection.objects.count() == 0


# -------------------------------------------------------------------------------- the door itself


@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [
        ("GET", f"{DOOR}/check-in", 405, "POST"),
        ("POST", f"{DOOR}/self", 405, "DELETE"),
        ("OPTIONS", f"{DOOR}/reports", 405, "POST"),
        ("HEAD", "/health/live", 405, "GET"),
        ("TRACE", f"{DOOR}/enroll", 405, "POST"),
        ("GET", "/", 404, None),
        ("POST", f"{DOOR}/check-in/", 404, None),
        ("POST", f"{DOOR}/../v1/check-in", 404, None),
        ("GET", "/.git/config", 404, None),
        ("GET", "/metrics", 404, None),
    ],
)
def test_other_addresses_and_methods_are_refused(
    transactional_db: None, method: str, path: str, status: int, allow: str | None
) -> None:
    reply = with_door(lambda door: ask(door, method, path))
    assert reply.status == status
    assert reply.code
    assert reply.headers.get("allow") == allow


def test_health_says_live_and_ready(transactional_db: None) -> None:
    for name in ("live", "ready"):
        reply = with_door(partial(ask, method="GET", path=f"/health/{name}"))
        assert (reply.status, reply.json) == (200, {"status": name})


def test_without_its_database_the_door_asks_to_come_back(
    alices_code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from django.db import OperationalError

    def away(*args: object, **kwargs: object) -> None:
        raise OperationalError("the password is hunter2")

    async def act(door: Door) -> list[Reply]:
        laptop = await joined(door, alices_code)
        monkeypatch.setattr("doorward.gateway.door._ask_database", away)
        monkeypatch.setattr("doorward.devices.presence.by_key", away)
        monkeypatch.setattr("doorward.devices.enrollment.enroll", away)
        return [
            await ask(door, "GET", "/health/ready"),
            await laptop.ask_token(),
            await laptop.enroll("ABCD-EFGH-JKMN"),
        ]

    for reply in with_door(act):
        assert (reply.status, reply.code) == (503, "unavailable")
        assert 5 <= int(reply.headers["retry-after"]) <= 15
        assert b"hunter2" not in reply.body


def test_an_unforeseen_fault_tells_a_number_and_nothing_else(
    alices_code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: object, **kwargs: object) -> None:
        raise ZeroDivisionError("secret detail")

    async def act(door: Door) -> tuple[Reply, Reply]:
        laptop = await joined(door, alices_code)
        monkeypatch.setattr("doorward.gateway.check_in.hear", broken)
        failed = await laptop.check_in()
        monkeypatch.undo()
        return failed, await laptop.check_in()

    failed, after = with_door(act)
    assert (failed.status, failed.code) == (500, "internal-error")
    assert b"secret" not in failed.body
    assert b"Traceback" not in failed.body
    assert after.status == 200


def test_every_answer_is_kept_out_of_caches(alices_code: str) -> None:
    async def act(door: Door) -> list[Reply]:
        laptop = await joined(door, alices_code)
        return [await laptop.check_in(), await laptop.report(), await ask(door, "GET", "/x")]

    for reply in with_door(act):
        assert reply.headers["cache-control"] == "no-store"
        assert reply.headers["x-content-type-options"] == "nosniff"


def test_an_empty_report_is_no_fault(alices_code: str) -> None:
    async def act(door: Door) -> Reply:
        return await (await joined(door, alices_code)).report()

    assert with_door(act).json == {"accepted": [], "duplicate": [], "rejected": []}


def test_a38_a_removed_devices_report_is_refused_even_by_a_gateway_that_has_not_heard(
    alices_code: str, alices_account: Account
) -> None:
    async def act(door: Door) -> Reply:
        laptop = await joined(door, alices_code)
        await laptop.check_in()
        await door.jobs.run(Device.objects.update, revoked_at=timezone.now())
        return await laptop.report(finding())

    assert with_door(act).code == "revoked"
    assert Detection.objects.count() == 0


def test_uids_are_uuids(alices_code: str) -> None:
    async def act(door: Door) -> Reply:
        laptop = await joined(door, alices_code)
        return await laptop.report(finding(), finding(metadata={"uid": f"x{uuid4()}"}))

    assert [one["index"] for one in with_door(act).json["rejected"]] == [1]
