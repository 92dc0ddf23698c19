"""The outbox keeps what is not yet told: nothing lost, nothing doubled, never more than fits."""

from __future__ import annotations

import contextlib
import sqlite3
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from doorward_agent import database, outbox
from doorward_agent.outbox import CHATTER, FINDING, SUMMARY, Event

ROOMY = {"max_bytes": 1_000_000, "max_events": 1_000}


@pytest.fixture
def db(tmp_path: Path) -> sqlite3.Connection:
    return database.open_in(tmp_path)


def event(name: str, rank: int = SUMMARY, size: int = 10) -> Event:
    return Event(name, rank, b"x" * size)


def names(db: sqlite3.Connection) -> list[str]:
    found = outbox.waiting(db, max_events=10_000, max_bytes=100_000_000)
    return [each.uid for each in found]


def test_events_come_out_in_the_order_they_went_in(db: sqlite3.Connection) -> None:
    outbox.put(db, [event("b"), event("a"), event("c")], **ROOMY)
    assert names(db) == ["b", "a", "c"]


def test_the_same_event_twice_is_kept_once(db: sqlite3.Connection) -> None:
    outbox.put(db, [event("a")], **ROOMY)
    outbox.put(db, [event("a", size=99)], **ROOMY)
    assert outbox.depth(db).waiting == 1
    assert outbox.depth(db).waiting_bytes == 10


def test_a_batch_holds_no_more_than_fits_but_at_least_one(db: sqlite3.Connection) -> None:
    outbox.put(db, [event("a", size=50), event("b", size=50)], **ROOMY)
    assert [each.uid for each in outbox.waiting(db, max_events=9, max_bytes=60)] == ["a"]
    assert [each.uid for each in outbox.waiting(db, max_events=9, max_bytes=5)] == ["a"]
    assert [each.uid for each in outbox.waiting(db, max_events=1, max_bytes=500)] == ["a"]


def test_d04_when_full_the_oldest_summaries_go_first_and_findings_never(
    db: sqlite3.Connection,
) -> None:
    for number in range(10):
        outbox.put(
            db,
            [
                event(f"chatter{number}", CHATTER, 100),
                event(f"finding{number}", FINDING, 100),
                event(f"summary{number}", SUMMARY, 100),
            ],
            max_bytes=1500,
            max_events=1_000,
        )
    left = names(db)
    assert [each for each in left if each.startswith("finding")] == [
        f"finding{number}" for number in range(10)
    ]
    assert [each for each in left if not each.startswith("finding")] == [
        f"summary{number}" for number in range(5, 10)
    ]
    assert outbox.depth(db).waiting_bytes == 1500
    assert outbox.depth(db).dropped == 15


def test_findings_alone_may_exceed_the_bound(db: sqlite3.Connection) -> None:
    many = [event(str(number), FINDING, 100) for number in range(50)]
    outbox.put(db, many, max_bytes=1000, max_events=10)
    assert outbox.depth(db).waiting == 50
    assert outbox.depth(db).dropped == 0


def test_a_refused_event_is_parked_with_its_reason_and_the_rest_goes_on(
    db: sqlite3.Connection,
) -> None:
    outbox.put(db, [event("a"), event("bad"), event("c")], **ROOMY)
    outbox.park(db, [("bad", "no such class")], max_parked=5)
    assert names(db) == ["a", "c"]
    assert outbox.parked(db) == [("bad", "no such class")]


def test_only_so_many_refused_events_are_kept(db: sqlite3.Connection) -> None:
    outbox.put(db, [event(str(number)) for number in range(9)], **ROOMY)
    outbox.park(db, [(str(number), "bad") for number in range(9)], max_parked=4)
    assert [uid for uid, _ in outbox.parked(db)] == ["5", "6", "7", "8"]
    assert outbox.depth(db).dropped == 5


def test_what_was_begun_and_not_finished_keeps_its_first_id(db: sqlite3.Connection) -> None:
    first = outbox.intend(db, kind="finding", key="k", uid="one", owner="1", body=b"old")
    again = outbox.intend(db, kind="finding", key="k", uid="two", owner="2", body=b"new")
    assert (first, again) == ("one", "one")
    assert outbox.intents(db) == [("one", "finding", "2", b"new")]


def test_an_intent_is_fulfilled_once(db: sqlite3.Connection) -> None:
    outbox.intend(db, kind="finding", key="k", uid="one", owner="1", body=b"")
    outbox.fulfill(db, "one", [event("e1", FINDING)], **ROOMY)
    outbox.fulfill(db, "one", [event("e2", FINDING)], **ROOMY)
    assert names(db) == ["e1"]
    assert outbox.intents(db) == []


def test_intent_and_event_change_together_or_not_at_all(db: sqlite3.Connection) -> None:
    outbox.intend(db, kind="finding", key="k", uid="one", owner="1", body=b"")
    with pytest.raises(sqlite3.IntegrityError):
        outbox.fulfill(db, "one", [Event("e", FINDING, None)], **ROOMY)  # type: ignore[arg-type]  # the fault
    assert [uid for uid, *_ in outbox.intents(db)] == ["one"]
    assert names(db) == []


def test_another_account_is_told_nothing_of_before(db: sqlite3.Connection) -> None:
    outbox.put(db, [event(str(number)) for number in range(9)], max_bytes=50, max_events=99)
    outbox.clear(db)
    assert outbox.depth(db) == outbox.Depth(0, 0, 0, 0)


def test_a_damaged_database_is_set_aside_and_work_goes_on(tmp_path: Path) -> None:
    (tmp_path / database.FILE).write_bytes(b"this is no database" * 1000)
    db = database.open_in(tmp_path)
    outbox.put(db, [event("a")], **ROOMY)
    assert names(db) == ["a"]
    (kept,) = tmp_path.glob("agent.db.damaged-*")
    assert kept.read_bytes().startswith(b"this is no database")


def test_nobody_else_can_read_the_database(tmp_path: Path) -> None:
    db = database.open_in(tmp_path)
    outbox.put(db, [event("a")], **ROOMY)
    for path in tmp_path.iterdir():
        assert path.stat().st_mode & 0o077 == 0, path.name


class OutboxLife(RuleBasedStateMachine):
    """Any mix of storing, delivering, losing the answer and being killed, against a plain model."""

    uids = Bundle("uids")
    MAX_BYTES, MAX_EVENTS, MAX_PARKED = 2_000, 12, 3

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.db = database.open_in(Path(self.folder.name))
        self.number = 0
        self.ranks: dict[str, int] = {}
        self.server: list[str] = []  # what the server has stored, in order
        self.refused: set[str] = set()

    def teardown(self) -> None:
        self.db.close()
        self.folder.cleanup()

    @rule(target=uids, rank=st.sampled_from([CHATTER, SUMMARY, FINDING]), size=st.integers(1, 400))
    def store(self, rank: int, size: int) -> str:
        self.number += 1
        uid = f"e{self.number}"
        self.ranks[uid] = rank
        outbox.put(
            self.db,
            [event(uid, rank, size)],
            max_bytes=self.MAX_BYTES,
            max_events=self.MAX_EVENTS,
        )
        return uid

    @rule(count=st.integers(1, 6), answered=st.booleans(), bad=st.sets(st.integers(0, 5)))
    def send(self, count: int, answered: bool, bad: set[int]) -> None:
        batch = outbox.waiting(self.db, max_events=count, max_bytes=700)
        refused = [each.uid for place, each in enumerate(batch) if place in bad]
        stored = [each.uid for each in batch if each.uid not in refused]
        # The server's own promise: an id is stored once.
        self.server += [uid for uid in stored if uid not in self.server]
        if answered:
            with database.transaction(self.db):
                outbox.delivered(self.db, stored)
                outbox.park(self.db, [(uid, "bad") for uid in refused], max_parked=self.MAX_PARKED)
            self.refused |= set(refused)

    @rule(rank=st.sampled_from([SUMMARY, FINDING]))
    def killed_in_the_middle_of_storing(self, rank: int) -> None:
        """What a kill leaves of a transaction: nothing."""
        try:
            with database.transaction(self.db):
                outbox.put(
                    self.db,
                    [event("never", rank, 300)],
                    max_bytes=self.MAX_BYTES,
                    max_events=self.MAX_EVENTS,
                )
                raise InterruptedError
        except InterruptedError:
            pass
        self.reopen()

    @rule()
    def reopen(self) -> None:
        self.db.close()
        self.db = database.open_in(Path(self.folder.name))

    @invariant()
    def no_finding_is_lost(self) -> None:
        waiting = set(names(self.db))
        for uid, rank in self.ranks.items():
            if rank == FINDING:
                assert uid in waiting or uid in self.server or uid in self.refused

    @invariant()
    def nothing_is_stored_twice(self) -> None:
        assert len(self.server) == len(set(self.server))
        assert "never" not in names(self.db)

    @invariant()
    def the_counters_are_true_and_bounded(self) -> None:
        depth = outbox.depth(self.db)
        rows = outbox.waiting(self.db, max_events=10_000, max_bytes=10**9)
        assert depth.waiting == len(rows)
        assert depth.waiting_bytes == sum(len(each.body) for each in rows)
        assert depth.parked == len(outbox.parked(self.db)) <= self.MAX_PARKED
        if any(each.rank < FINDING for each in rows):
            assert depth.waiting <= self.MAX_EVENTS
            assert depth.waiting_bytes <= self.MAX_BYTES

    @invariant()
    def every_event_is_accounted_for(self) -> None:
        depth = outbox.depth(self.db)
        known = set(names(self.db)) | set(self.server) | self.refused
        gone = [uid for uid in self.ranks if uid not in known]
        pushed_out = len(self.refused) - depth.parked
        # An event may have reached the server, its answer be lost, and then be dropped here.
        assert len(gone) + pushed_out <= depth.dropped


OutboxLife.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestOutboxLife = OutboxLife.TestCase


def test_a_database_that_others_could_read_is_closed_when_it_is_opened(tmp_path: Path) -> None:
    with contextlib.closing(database.open_in(tmp_path)) as db:
        database.note(db, "kept", 1)
        for part in tmp_path.iterdir():
            part.chmod(0o644)
        with contextlib.closing(database.open_in(tmp_path)):
            assert {path.stat().st_mode & 0o077 for path in tmp_path.iterdir()} == {0}
