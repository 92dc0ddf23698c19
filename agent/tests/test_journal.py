"""A command is carried out at most once and answered truthfully, whatever happens in between."""

from __future__ import annotations

import sqlite3
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from doorward_agent import database, journal

KNOWN = {"scan", "delete"}
REPEATABLE = {"scan"}


@pytest.fixture
def db(tmp_path: Path) -> sqlite3.Connection:
    return database.open_in(tmp_path)


def receive(
    db: sqlite3.Connection, uid: str = "c1", kind: str = "scan", *, now: int = 0, last: int = 100
) -> bool:
    return journal.receive(
        db, uid=uid, seq=1, kind=kind, args=b"{}", not_after=last, now=now, known=KNOWN
    )


def state(db: sqlite3.Connection, uid: str = "c1") -> str:
    return str(db.execute("SELECT state FROM command WHERE uid = ?", (uid,)).fetchone()[0])


def test_the_same_command_twice_is_kept_once(db: sqlite3.Connection) -> None:
    assert receive(db)
    assert not receive(db)
    assert len(journal.ready(db)) == 1


def test_d23_what_a_restored_server_asks_again_is_answered_again_and_not_done_again(
    db: sqlite3.Connection,
) -> None:
    receive(db)
    journal.start(db, "c1", now=1)
    with database.transaction(db):
        journal.finish(db, "c1", "succeeded", now=2)
    journal.answered(db, "c1", "succeeded")
    assert journal.unanswered(db) == []
    assert not receive(db)
    assert journal.ready(db) == []
    (owed,) = journal.unanswered(db)
    assert (owed.uid, owed.state) == ("c1", "succeeded")


def test_a_command_of_an_unknown_kind_is_rejected_and_never_begun(db: sqlite3.Connection) -> None:
    receive(db, kind="run-program")
    assert journal.ready(db) == []
    (owed,) = journal.unanswered(db)
    assert (owed.state, owed.code) == ("rejected", "unsupported")


def test_a_command_that_comes_too_late_is_expired(db: sqlite3.Connection) -> None:
    receive(db, now=101)
    assert state(db) == "expired"


def test_a_command_not_begun_in_time_is_expired(db: sqlite3.Connection) -> None:
    receive(db)
    assert not journal.start(db, "c1", now=101)
    assert state(db) == "expired"


def test_a_terminal_state_is_final(db: sqlite3.Connection) -> None:
    receive(db)
    journal.start(db, "c1", now=1)
    journal.finish(db, "c1", "succeeded", now=2)
    for end in ("failed", "succeeded"):
        with pytest.raises(journal.CommandMisplaced):
            journal.finish(db, "c1", end, now=3)
    with pytest.raises(journal.CommandMisplaced):
        journal.start(db, "c1", now=3)


def test_after_a_crash_the_repeatable_runs_again_and_the_rest_is_interrupted(
    db: sqlite3.Connection,
) -> None:
    for uid, kind in (("c1", "scan"), ("c2", "delete")):
        receive(db, uid, kind)
        journal.start(db, uid, now=1)
    assert journal.recover(db, now=2, repeatable=REPEATABLE) == ["c1"]
    assert (state(db, "c1"), state(db, "c2")) == ("received", "interrupted")


def test_an_answer_is_owed_until_the_server_has_it(db: sqlite3.Connection) -> None:
    receive(db)
    (owed,) = journal.unanswered(db)
    journal.answered(db, owed.uid, owed.state)
    assert journal.unanswered(db) == []
    journal.start(db, "c1", now=1)
    journal.finish(db, "c1", "failed", now=2, code="no-space")
    (owed,) = journal.unanswered(db)
    assert (owed.state, owed.code, owed.started_at, owed.ended_at) == ("failed", "no-space", 1, 2)


def test_only_answered_commands_are_forgotten(db: sqlite3.Connection) -> None:
    receive(db, "c1", "unknown")
    receive(db, "c2", "unknown")
    journal.answered(db, "c1", "rejected")
    assert journal.forget_before(db, 10) == 1
    assert [each.uid for each in journal.unanswered(db)] == ["c2"]


def test_a_rerun_that_was_begun_in_time_does_not_expire(db: sqlite3.Connection) -> None:
    receive(db, kind="scan")
    journal.start(db, "c1", now=1)
    journal.recover(db, now=200, repeatable=REPEATABLE)
    assert journal.start(db, "c1", now=200)


def test_what_another_process_still_carries_out_is_left_to_it(db: sqlite3.Connection) -> None:
    receive(db, kind="delete")
    journal.start(db, "c1", now=1)
    journal.recover(db, now=2, repeatable=REPEATABLE, alive={"c1"})
    assert state(db) == "running"


def test_an_end_that_came_too_late_changes_nothing(db: sqlite3.Connection) -> None:
    receive(db, kind="delete")
    journal.start(db, "c1", now=1)
    journal.recover(db, now=2, repeatable=REPEATABLE)
    assert not journal.settle(db, "c1", "succeeded", now=3)
    assert state(db) == "interrupted"


def test_a51_a_refusal_of_this_computer_stands_above_the_server(db: sqlite3.Connection) -> None:
    journal.receive(
        db,
        uid="c1",
        seq=1,
        kind="scan",
        args=b"{}",
        not_after=9,
        now=0,
        known=KNOWN,
        refusal="switched-off-here",
    )
    (owed,) = journal.unanswered(db)
    assert (owed.state, owed.code) == ("rejected", "switched-off-here")
    assert journal.ready(db) == []


class CommandLife(RuleBasedStateMachine):
    """Commands that come twice, late and out of order, with kills at any point."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.db = database.open_in(Path(self.folder.name))
        self.now = 0
        self.begun: dict[str, int] = {}
        self.final: dict[str, str] = {}
        self.kinds: dict[str, str] = {}

    def teardown(self) -> None:
        self.db.close()
        self.folder.cleanup()

    @rule(
        name=st.sampled_from("abcd"),
        kind=st.sampled_from(["scan", "delete", "unheard-of"]),
        life=st.integers(-1, 20),
    )
    def receive(self, name: str, kind: str, life: int) -> None:
        kind = self.kinds.setdefault(name, kind)
        receive(self.db, name, kind, now=self.now, last=self.now + life)

    @rule()
    def work(self) -> None:
        for command in journal.ready(self.db)[:1]:
            if journal.start(self.db, command.uid, now=self.now):
                self.begun[command.uid] = self.begun.get(command.uid, 0) + 1

    @rule(end=st.sampled_from(["succeeded", "failed"]))
    def end_one(self, end: str) -> None:
        row = self.db.execute("SELECT uid FROM command WHERE state = 'running'").fetchone()
        if row:
            journal.finish(self.db, row[0], end, now=self.now)

    @rule()
    def answer(self) -> None:
        for command in journal.unanswered(self.db):
            journal.answered(self.db, command.uid, command.state)

    @rule(name=st.sampled_from("abcd"))
    def cancel(self, name: str) -> None:
        found = journal.get(self.db, name)
        state_after = journal.cancel(self.db, name, now=self.now)
        if found is None:
            assert state_after == ""
        else:
            # What runs is not called canceled before it has stopped.
            assert state_after == ("canceled" if found.state == "received" else found.state)

    @rule(passed=st.integers(1, 9))
    def time_passes(self, passed: int) -> None:
        self.now += passed

    @rule()
    def killed_and_started_again(self) -> None:
        self.db.close()
        self.db = database.open_in(Path(self.folder.name))
        journal.recover(self.db, now=self.now, repeatable=REPEATABLE)

    @invariant()
    def what_may_not_run_twice_ran_once_at_most(self) -> None:
        for uid, count in self.begun.items():
            assert self.kinds[uid] in KNOWN
            if self.kinds[uid] not in REPEATABLE:
                assert count == 1

    @invariant()
    def terminal_states_never_change(self) -> None:
        for uid, found in self.db.execute("SELECT uid, state FROM command"):
            if uid in self.final:
                assert found == self.final[uid]
            if found in journal.TERMINAL:
                self.final[uid] = found
        ended = self.db.execute(
            "SELECT count(*) FROM command WHERE (ended_at IS NOT NULL) <> (state IN"
            " ('succeeded', 'failed', 'rejected', 'interrupted', 'expired', 'canceled'))"
        ).fetchone()[0]
        assert ended == 0


CommandLife.TestCase.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
TestCommandLife = CommandLife.TestCase
