"""Ten thousand messages gone wrong: each is refused in order, and the door stays open."""

from __future__ import annotations

import asyncio
import copy
import json
import random
from collections import Counter
from typing import Any

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from server.tests.gateway.computers import (
    DOOR,
    Computer,
    Reply,
    ask,
    finding,
    joined,
    with_door,
)

from doorward.devices.models import Device
from doorward.gateway.door import Door
from doorward_protocol import signing

MUTATIONS = 10_000
SEED = 20_260_101

WORDS: list[Any] = [
    None,
    True,
    0,
    -1,
    2**31,
    2**63 - 1,
    2**63,
    10**30,
    1.5,
    "",
    "\0",
    "\u202e",
    "\ud800",
    "x" * 65_536,
    "<script>",
    "' OR 1=1 --",
    "00000000-0000-0000-0000-000000000000",
    [],
    {},
    [[[[]]]],
    {"": {}},
    [None] * 1000,
]
BYTES = [b"", b"\0", b"\xff", b"{", b"}", b'"', b"\\u0000", b"NaN", b"1e999", b"[" * 5000]


def mutated(chance: random.Random, message: Any) -> bytes:
    """The message with something wrong in its fields, its bytes, or both."""
    changed = json.loads(json.dumps(message))
    for _ in range(chance.randint(0, 3)):
        _bend(chance, changed)
    body = json.dumps(changed).encode("utf-8", "surrogatepass")
    for _ in range(chance.choice([0, 0, 1, 3])):
        place = chance.randrange(len(body) + 1)
        match chance.randrange(4):
            case 0:
                body = body[:place]
            case 1:
                body = body[:place] + chance.choice(BYTES) + body[place:]
            case 2:
                body = body[:place] + chance.randbytes(chance.randint(1, 8)) + body[place + 8 :]
            case _:
                body = body[:place] + body[place + chance.randint(1, 40) :]
    return body


def _bend(chance: random.Random, value: Any) -> None:
    while True:
        if isinstance(value, dict) and value:
            key: Any = chance.choice(list(value))
        elif isinstance(value, list) and value:
            key = chance.randrange(len(value))
        else:
            return
        if isinstance(value[key], (dict, list)) and value[key] and chance.random() < 0.7:
            value = value[key]
            continue
        match chance.randrange(4):
            case 0:
                del value[key]
            case 1 if isinstance(value, dict):
                value[chance.choice(["", "x", "uid", "\0", "class_uid", "__proto__"])] = value[key]
            case _:
                value[key] = copy.deepcopy(chance.choice(WORDS))
        return


def header_noise(chance: random.Random, headers: dict[str, str]) -> dict[str, str]:
    """The headers, one of them damaged, most of the time."""
    noisy = dict(headers)
    if noisy and chance.random() < 0.3:
        name = chance.choice(list(noisy))
        value = noisy[name]
        place = chance.randrange(len(value) + 1)
        noisy[name] = chance.choice(
            ["", value[:place], value[:place] + "\xff" + value[place:], value * 3, '";=(),:?1', "²"]
        )
    return noisy


@pytest.mark.parametrize("share", [0, 1])
def test_ten_thousand_mutated_messages_are_refused_in_order(alices_code: str, share: int) -> None:
    chance = random.Random(SEED + share)  # noqa: S311 - the same mutations in every run

    async def act(door: Door) -> tuple[Counter[int], Reply]:
        laptop = await joined(door, alices_code)
        statuses: Counter[int] = Counter()
        for _ in range(MUTATIONS // 2 // 50):
            replies = await asyncio.gather(*(_one(chance, door, laptop) for _ in range(50)))
            statuses.update(reply.status for reply in replies)
            for reply in replies:
                if reply.status >= 400:
                    assert reply.code
        # Whatever came before, an honest device is served. (Its own count may have been pushed to
        # the end of the numbers by a mutant that was well-formed: it starts anew.)
        fresh = Computer(door, key=laptop.key, token=laptop.token, client="198.51.100.9")
        await fresh.ask_token()
        return statuses, await fresh.report(finding())

    statuses, after = with_door(act)
    assert sum(statuses.values()) == MUTATIONS // 2
    assert after.status == 202
    assert not [status for status in statuses if status >= 500], statuses
    # The mutations are worth their name only if most of them break something.
    assert sum(number for status, number in statuses.items() if status >= 400) > MUTATIONS // 4
    assert statuses[422] > MUTATIONS // 20
    assert Device.objects.count() == 1


async def _one(chance: random.Random, door: Door, laptop: Computer) -> Reply:
    what = chance.randrange(10)
    bearer = {"Authorization": f"Bearer {laptop.token}"}
    if what < 4:
        body = mutated(chance, {"events": [finding() for _ in range(chance.randint(0, 3))]})
        headers = bearer
        if chance.random() < 0.2:
            headers = bearer | {"Content-Encoding": "zstd"}
            body = zstandard.compress(body) if chance.random() < 0.7 else body
        return await ask(
            door, "POST", f"{DOOR}/reports", body, headers=header_noise(chance, headers)
        )
    if what < 7:
        call = {
            "boot_id": str(laptop.boot_id),
            "seq": 1,
            "settings": {"version": 0, "status": "applied", "errors": []},
            "protection": {"state": "protected", "reasons": ["x"]},
            "queue": {"depth": 0, "dropped": 0},
            "device": {"hostname": "laptop", "os": {"name": "linux"}},
        }
        body = mutated(chance, call)
        return await ask(
            door, "POST", f"{DOOR}/check-in", body, headers=header_noise(chance, bearer)
        )
    # Signed rightly over a wrong body, or wrongly over a right one.
    path = f"{DOOR}/enroll" if what < 9 else f"{DOOR}/token"
    # Another computer: the laptop must not be allowed to vanish by a lucky mutation.
    stranger = Computer(door, client=f"203.0.113.{chance.randrange(250)}")
    message = stranger.enrollment("ABCD-EFGH-JKMN") if what < 9 else {"protocol": {"max": 1}}
    body = mutated(chance, message)
    headers = signing.sign(stranger.key, method="POST", path=path, body=body)
    return await ask(
        door,
        "POST",
        path,
        body,
        headers=header_noise(chance, headers),
        query=chance.choice(["", "", "%", "a=\xff"]),
        client=stranger.client,
    )


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=50),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(
            st.sampled_from(
                [
                    "events",
                    "class_uid",
                    "metadata",
                    "uid",
                    "time",
                    "jwk",
                    "device",
                    "boot_id",
                    "seq",
                ]
            )
            | st.text(max_size=10),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)


@pytest.mark.parametrize("path", ["/reports", "/check-in"])
def test_any_json_at_all_is_answered_in_order(alices_code: str, path: str) -> None:
    async def act(door: Door) -> None:
        laptop = await joined(door, alices_code)
        loop = asyncio.get_running_loop()

        @given(JSON)
        @settings(
            max_examples=300, deadline=None, suppress_health_check=[HealthCheck.differing_executors]
        )
        def try_all(value: Any) -> None:
            body = json.dumps(value).encode("utf-8", "surrogatepass")
            reply = asyncio.run_coroutine_threadsafe(laptop.bearing(path, body), loop).result(30)
            assert reply.status in {200, 202, 409, 422}

        await asyncio.to_thread(try_all)

    with_door(act)
