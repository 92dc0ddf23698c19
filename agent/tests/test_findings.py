"""Each finding is dealt with and told once, at whatever step the agent is killed."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import signal
import sqlite3
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import pytest

from doorward_agent import (
    database,
    events,
    findings,
    identity,
    journal,
    outbox,
    packages,
    quarantine,
    scan,
    treatment,
)
from doorward_agent.commands import quarantine as quarantine_command
from doorward_agent.config import AgentConfig, prepare
from doorward_agent.definitions.build import eicar
from doorward_agent.findings import Teller
from doorward_protocol import messages

CHANGES = {"os.rename", "os.remove", "os.link", "os.mkdir", "os.rmdir"}
MOST_STEPS = 400


Act = Callable[[sqlite3.Connection], None]


@pytest.fixture
def enrolled(config: AgentConfig, monkeypatch: pytest.MonkeyPatch) -> AgentConfig:
    # Reading the package lists takes most of the time and changes nothing.
    monkeypatch.setattr(packages, "DPKG_LISTS", b"/nonexistent")
    prepare(config)
    identity.save(
        config.state_dir, identity.Identity(server="https://x", state="enrolled", device_id="d")
    )
    return config


def teller(config: AgentConfig, db: sqlite3.Connection) -> Teller:
    return Teller(
        config=config,
        db=db,
        scan_uid=events.new_uid(),
        name="Scan",
        scheduled=False,
        paths=("/home",),
        start_time=1,
    )


def told(config: AgentConfig) -> list[messages.Event]:
    """Everything in the outbox, read as the server reads it."""
    db = database.open_in(config.state_dir)
    try:
        found = outbox.waiting(db, max_events=10_000, max_bytes=10**9)
        body = b'{"events":[' + b",".join(event.body for event in found) + b"]}"
        good, bad = messages.decode_report(body)
        assert bad == ()
        return list(good)
    finally:
        db.close()


def found_in(config: AgentConfig) -> list[messages.DetectionFinding]:
    return [event for event in told(config) if isinstance(event, messages.DetectionFinding)]


def complete(config: AgentConfig) -> None:
    """What the next start of the agent does first."""
    db = database.open_in(config.state_dir)
    treatment.complete(config, db)
    assert outbox.intents(db) == []
    db.close()


def killed_at(step: int, config: AgentConfig, act: Act) -> bool:
    """Do it in a process of its own that is killed before its nth change; answer if it was."""
    child = os.fork()
    if child == 0:
        try:
            left = step

            def count(*_: object) -> None:
                nonlocal left
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)

            db = database.open_in(config.state_dir)
            # Before each statement, COMMIT among them, and before each change of a folder.
            db.set_trace_callback(count)
            sys.addaudithook(lambda event, _: count() if event in CHANGES else None)
            act(db)
            os._exit(0)
        finally:
            os._exit(99)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status):
        assert os.WEXITSTATUS(status) == 0
        return False
    assert os.WTERMSIG(status) == signal.SIGKILL
    return True


def placed(detection: scan.Detection, path: Path) -> scan.Detection:
    """The same detection, in a file of its own."""
    path.write_bytes(eicar())
    facts = path.stat()
    return dataclasses.replace(
        detection,
        path=str(path),
        location=os.fsencode(path),
        device=facts.st_dev,
        inode=facts.st_ino,
        mtime_ns=facts.st_mtime_ns,
    )


def each_step(
    config: AgentConfig,
    prepared: Callable[[int, AgentConfig], Callable[[sqlite3.Connection], None]],
) -> list[AgentConfig]:
    """Try the act again and again in new state folders, killed one step later each time."""
    tried = []
    for step in itertools.count():
        assert step < MOST_STEPS
        own = dataclasses.replace(config, state_dir=config.state_dir.with_name(f"state{step}"))
        prepare(own)
        identity.save(
            own.state_dir, identity.Identity(server="https://x", state="enrolled", device_id="d")
        )
        was_killed = killed_at(step, own, prepared(step, own))
        tried.append(own)
        if not was_killed:
            assert step > 10, "there were too few steps for this test to mean anything"
            return tried
    raise AssertionError


def test_d03_killed_at_any_step_a_finding_is_put_away_and_told_once(
    enrolled: AgentConfig, home: Path, detection: scan.Detection
) -> None:
    places: list[scan.Detection] = []

    def prepared(step: int, own: AgentConfig) -> Act:
        places.append(placed(detection, home / f"file{step}"))

        def act(db: sqlite3.Connection) -> None:
            treatment.treat(
                places[step],
                own,
                put_away=True,
                teller=teller(own, db),
                definitions_version="2026.11.22",
            )

        return act

    for own, place in zip(each_step(enrolled, prepared), places, strict=True):
        complete(own)
        held = quarantine.list_records(own)
        if held:
            assert not Path(place.path).exists()
            (event,) = found_in(own)
            assert event.disposition_id == messages.DISPOSITION_QUARANTINED
            assert str(event.unmapped.quarantine_id) == held[0].id
        else:
            # Killed before anything was noted: the file is untouched, the next scan finds it.
            assert Path(place.path).read_bytes() == eicar()
            assert found_in(own) == []
        # Whatever happened: completing twice, and scanning again, doubles nothing.
        complete(own)
        assert len(found_in(own)) == len(held)


@pytest.mark.parametrize(
    ("action", "activity"),
    [("restore", messages.REMEDIATION_RESTORE), ("delete", messages.REMEDIATION_EVICT)],
)
def test_d03_killed_at_any_step_a_restored_or_deleted_file_is_told_once(
    enrolled: AgentConfig, home: Path, detection: scan.Detection, action: str, activity: int
) -> None:
    places: list[scan.Detection] = []
    records: list[quarantine.QuarantineRecord] = []

    def prepared(step: int, own: AgentConfig) -> Act:
        places.append(placed(detection, home / f"{action}{step}"))
        db = database.open_in(own.state_dir)
        treatment.treat(
            places[step],
            own,
            put_away=True,
            teller=teller(own, db),
            definitions_version="2026.11.22",
        )
        db.close()
        records.extend(quarantine.list_records(own))

        def act(db: sqlite3.Connection) -> None:
            quarantine_command._carry_out(own, db, records[step], action, None)  # type: ignore[arg-type]  # one of two

        return act

    for own, place, record in zip(each_step(enrolled, prepared), places, records, strict=True):
        complete(own)
        acts = [event for event in told(own) if isinstance(event, messages.FileRemediation)]
        held = quarantine.list_records(own)
        assert len(acts) == (0 if held else 1), "told if, and only if, it happened"
        for event in acts:
            assert event.activity_id == activity
            assert str(event.unmapped.quarantine_id) == record.id
            assert event.unmapped.finding_uid == found_in(own)[0].finding_info.uid
        in_place = Path(place.path).exists()
        assert in_place == (action == "restore" and not held)


def test_d03_a_scan_that_was_killed_is_told_to_have_been_interrupted(
    enrolled: AgentConfig,
) -> None:
    def act(db: sqlite3.Connection) -> None:
        teller(enrolled, db).begin("2026.11.22")
        os.kill(os.getpid(), signal.SIGKILL)

    assert killed_at(1000, enrolled, act)
    complete(enrolled)
    complete(enrolled)
    began, ended = told(enrolled)
    assert isinstance(began, messages.ScanActivity)
    assert isinstance(ended, messages.ScanActivity)
    assert (began.activity_id, ended.activity_id) == (
        messages.SCAN_STARTED,
        messages.SCAN_ERROR,
    )
    assert began.scan.uid == ended.scan.uid


def test_what_a_living_process_has_begun_is_left_to_it(
    enrolled: AgentConfig, detection: scan.Detection
) -> None:
    db = database.open_in(enrolled.state_dir)
    mine = teller(enrolled, db)
    uid = mine.found(detection, "2026.11.22", quarantine=True)
    assert treatment.complete(enrolled, db) == 0
    assert Path(detection.path).exists()
    outcome = findings.Outcome(action="detected")
    mine.settled(uid, detection, outcome, "2026.11.22")
    assert [event.finding_info.uid for event in found_in(enrolled)] == [uid]


def test_a_number_used_again_by_another_process_is_not_the_old_owner() -> None:
    me = findings.owner()
    assert not findings.is_gone(me)
    number, _, began = me.partition("@")
    assert findings.is_gone(f"{number}@{float(began) - 100}")
    assert findings.is_gone("")
    assert findings.is_gone("nonsense")


def test_a_file_somebody_restored_meanwhile_is_not_put_away_again(
    enrolled: AgentConfig, detection: scan.Detection
) -> None:
    """Killed after the act and before telling; then the person restored the file."""
    record = quarantine.put_away(detection, enrolled)

    def act(db: sqlite3.Connection) -> None:
        teller(enrolled, db).found(detection, "2026.11.22", quarantine=True)
        os.kill(os.getpid(), signal.SIGKILL)

    assert killed_at(1000, enrolled, act)
    quarantine.restore(enrolled, record.id)
    complete(enrolled)
    (event,) = found_in(enrolled)
    assert event.disposition_id == messages.DISPOSITION_ALLOWED
    assert Path(detection.path).read_bytes() == eicar()


def test_what_cannot_be_put_away_is_told_as_still_there(
    enrolled: AgentConfig, detection: scan.Detection
) -> None:
    os.link(detection.path, detection.path + ".second")
    db = database.open_in(enrolled.state_dir)
    outcome = treatment.treat(
        detection,
        enrolled,
        put_away=True,
        teller=teller(enrolled, db),
        definitions_version="2026.11.22",
    )
    assert outcome.action == "uncorrected"
    (event,) = found_in(enrolled)
    assert event.disposition_id == messages.DISPOSITION_UNCORRECTED
    assert "2 names" in event.message


def test_what_was_gone_before_it_could_be_put_away_is_not_told_as_still_there(
    enrolled: AgentConfig, detection: scan.Detection
) -> None:
    Path(detection.path).unlink()
    with contextlib.closing(database.open_in(enrolled.state_dir)) as db:
        outcome = treatment.treat(
            detection,
            enrolled,
            put_away=True,
            teller=teller(enrolled, db),
            definitions_version="1",
        )
    assert not outcome.is_still_there
    (event,) = found_in(enrolled)
    assert event.disposition_id == messages.DISPOSITION_DELETED
    assert event.message == "It was gone before it could be put away."


def test_what_is_told_is_what_the_protocol_asks_and_nothing_more(
    enrolled: AgentConfig, detection: scan.Detection
) -> None:
    """The wire holds no field that the protocol does not declare, and no content of the file."""
    db = database.open_in(enrolled.state_dir)
    treatment.treat(
        detection,
        enrolled,
        put_away=False,
        teller=teller(enrolled, db),
        definitions_version="2026.11.22",
    )
    (stored,) = outbox.waiting(db, max_events=9, max_bytes=10**6)
    read = msgspec.json.decode(stored.body, type=messages.DetectionFinding)
    assert fields_of(msgspec.json.decode(stored.body)) == fields_of(
        msgspec.json.decode(messages.encode(read))
    )
    assert eicar()[:20] not in stored.body
    (event,) = found_in(enrolled)
    assert event.metadata.uid == event.finding_info.uid
    assert event.evidences[0].file.path == detection.path
    assert event.evidences[0].file.hashes[0].value == detection.sha256
    assert event.finding_info.analytic.uid == detection.rule


def fields_of(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: fields_of(inner) for name, inner in value.items()}
    return [fields_of(inner) for inner in value] if isinstance(value, list) else type(value)


HOSTILE = "\x1b[2J‮<img src=x onerror=1>\n" + "x" * 70_000


def test_hostile_names_travel_as_data(enrolled: AgentConfig, detection: scan.Detection) -> None:
    nasty = dataclasses.replace(
        detection,
        path=HOSTILE,
        member="\0" + HOSTILE,
        rule=HOSTILE,
        title="\udcff" + HOSTILE,
        reason=HOSTILE,
        engine=HOSTILE,
    )
    db = database.open_in(enrolled.state_dir)
    treatment.treat(
        nasty,
        enrolled,
        put_away=False,
        teller=teller(enrolled, db),
        definitions_version="2026.11.22",
    )
    (event,) = found_in(enrolled)
    assert len(event.evidences[0].file.path) == messages.MAX_PATH


def test_sequence_numbers_rise_whatever_the_clock_says(
    enrolled: AgentConfig, detection: scan.Detection
) -> None:
    db = database.open_in(enrolled.state_dir)
    mine = teller(enrolled, db)
    mine.begin("2026.11.22")
    for found_at in (100.0, 5.0):
        treatment.treat(
            dataclasses.replace(detection, found_at=found_at, location=str(found_at).encode()),
            enrolled,
            put_away=False,
            teller=mine,
            definitions_version="2026.11.22",
        )
    assert [event.metadata.sequence for event in told(enrolled)] == [1, 2, 3]


def test_restoring_tells_the_server_which_finding_it_was(
    enrolled: AgentConfig, detection: scan.Detection, capsys: pytest.CaptureFixture[str]
) -> None:
    db = database.open_in(enrolled.state_dir)
    outcome = treatment.treat(
        detection,
        enrolled,
        put_away=True,
        teller=teller(enrolled, db),
        definitions_version="2026.11.22",
    )
    status = quarantine_command.run(
        Namespace(
            state=str(enrolled.state_dir),
            action="restore",
            id=[outcome.quarantine_id],
            to=None,
        )
    )
    assert status == 0
    assert "allowed there from now on" in capsys.readouterr().out
    restored = told(enrolled)[-1]
    assert isinstance(restored, messages.FileRemediation)
    assert restored.unmapped.finding_uid == found_in(enrolled)[0].finding_info.uid


def test_a_scan_that_was_stopped_tells_how_many_files_it_has_looked_at_not_met(
    enrolled: AgentConfig, home: Path
) -> None:
    for number in range(300):
        (home / f"letter-{number}").write_text(f"Dear Bob, {number}")
    asked = 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        return asked > 1

    db = database.open_in(enrolled.state_dir)
    uid = str(uuid4())
    journal.receive(
        db, uid=uid, seq=1, kind="scan.run", args=b"{}", not_after=None, now=1, known={"scan.run"}
    )
    journal.start(db, uid, now=2)
    with scan.run([home], enrolled, cancel=stop) as work:
        tells = dataclasses.replace(teller(enrolled, db), command_uid=uid)
        tells.begin("1")
        assert list(work) == []
        summary = work.summary
        assert summary.cancelled
        assert summary.scanned < summary.files
        tells.end(summary, resolved=0, stopped_by="canceled")
    command = journal.get(db, uid)
    db.close()
    assert command is not None
    assert (command.state, command.files) == ("canceled", summary.scanned + summary.cached)
