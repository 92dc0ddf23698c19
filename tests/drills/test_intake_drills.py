"""Drills D01, D02 and D11: the gateway dies and messages come twice and in any order."""

from __future__ import annotations

import random
import statistics
import sys
import time
from uuid import UUID

import pytest
from uuid_utils.compat import uuid7

from doorward_protocol import messages

from .conftest import Caller, Gateway, Unanswered, finding, remediation, send

READY_WITHIN_S = 5.0


def kill_under_intake(gateway: Gateway, times: int) -> None:
    """Kill the gateway again and again while eight devices report; then hold it to its word."""
    gateway.start()
    callers = [Caller(gateway, token) for token in gateway.ground.tokens]
    for caller in callers:
        caller.thread.start()
    chance = random.Random(20)  # noqa: S311 - repeatable chance, no secret
    recoveries = []
    for _ in range(times):
        time.sleep(chance.uniform(0.05, 0.4))
        gateway.kill()
        recoveries.append(gateway.start())
    for caller in callers:
        caller.stopping.set()
    for caller in callers:
        caller.thread.join(60)
        assert not caller.thread.is_alive()
    gateway.kill()

    stored = [str(UUID(str(uid))) for (uid,) in gateway.rows("SELECT uid FROM reports_detection")]
    acknowledged = set().union(*(caller.acknowledged for caller in callers))
    sent = set().union(*(caller.sent for caller in callers))
    told_again = sum(caller.answered_twice for caller in callers)
    interrupted = sum(len(caller.refusals) for caller in callers)
    sys.stderr.write(
        f"\n{times} kills: {len(acknowledged):,} events acknowledged,"
        f" lost {len(acknowledged - set(stored))}, duplicates {len(stored) - len(set(stored))},"
        f" {interrupted} calls unanswered, {told_again} events answered as known, ready again after"
        f" {statistics.median(recoveries):.1f} s (longest {max(recoveries):.1f} s)\n"
    )
    assert interrupted > 0, "no call was ever interrupted: this drilled nothing"
    assert len(acknowledged) > 100 * times / 20
    assert acknowledged - set(stored) == set()
    assert len(stored) == len(set(stored))
    assert set(stored) <= sent
    total = gateway.rows("SELECT sum(detections) FROM reports_tally")[0][0]
    assert total == len(stored)
    assert max(recoveries) <= READY_WITHIN_S


def test_d01_a_gateway_killed_under_intake_loses_and_doubles_nothing(gateway: Gateway) -> None:
    kill_under_intake(gateway, 5)


@pytest.mark.slow
def test_d01_a_gateway_killed_20_times_under_intake_loses_and_doubles_nothing(
    gateway: Gateway,
) -> None:
    kill_under_intake(gateway, 20)


def test_d02_a_gateway_killed_between_commit_and_answer_stores_the_retry_once(
    gateway: Gateway,
) -> None:
    gateway.target = "tests.drills.dying:app"
    gateway.start()
    token = gateway.ground.tokens[0]
    events = tuple(finding(uuid7(), number) for number in range(3))
    with pytest.raises(Unanswered):
        send(gateway.port, token, events)
    gateway.kill()
    count = "SELECT count(*), count(DISTINCT uid) FROM reports_detection"
    assert gateway.rows(count) == [(3, 3)], "the drill must kill after the commit"
    gateway.target = ""
    gateway.start()
    told = send(gateway.port, token, events)
    assert told["accepted"] == []
    assert set(told["duplicate"]) == {str(event.metadata.uid) for event in events}
    assert gateway.rows(count) == [(3, 3)]
    assert gateway.rows("SELECT sum(detections) FROM reports_tally") == [(3,)]


def test_d11_a_thousand_events_replayed_and_shuffled_are_stored_once(gateway: Gateway) -> None:
    """Every event is sent three times, in three orders; a third of the findings were restored."""
    gateway.start()
    chance = random.Random(11)  # noqa: S311 - repeatable chance, no secret
    token = gateway.ground.tokens[0]
    findings = [finding(uuid7(), number) for number in range(750)]
    later = [
        remediation(it.finding_info.uid, messages.DISPOSITION_RESTORED, 1_000 + number)
        for number, it in enumerate(findings[::3])
    ]
    events: list[messages.Event] = [*findings, *later]
    assert len(events) == 1_000
    times_accepted: dict[str, int] = {}
    for _ in range(3):
        chance.shuffle(events)
        rest = list(events)
        while rest:
            size = chance.randint(1, 120)
            report, rest = tuple(rest[:size]), rest[size:]
            for _ in range(chance.choice([1, 1, 2])):
                told = send(gateway.port, token, report)
                assert told["rejected"] == []
                assert len(told["accepted"]) + len(told["duplicate"]) == len(report)
                for uid in told["accepted"]:
                    times_accepted[uid] = times_accepted.get(uid, 0) + 1
    gateway.kill()
    assert set(times_accepted.values()) == {1}
    assert len(times_accepted) == 1_000
    assert gateway.rows("SELECT count(*) FROM reports_detection") == [(750,)]
    assert gateway.rows("SELECT count(*) FROM reports_remediation") == [(250,)]
    by_disposition = gateway.rows(
        "SELECT disposition, count(*) FROM reports_detection"
        " GROUP BY disposition ORDER BY disposition"
    )
    assert by_disposition == [
        (messages.DISPOSITION_QUARANTINED, 500),
        (messages.DISPOSITION_RESTORED, 250),
    ]
    assert gateway.rows("SELECT count(*) FROM reports_remediation WHERE is_waiting") == [(0,)]
