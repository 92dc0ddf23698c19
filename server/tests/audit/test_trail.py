"""What happened is remembered, and nobody can quietly change it."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import DatabaseError, connection, transaction

from doorward.accounts.models import User
from doorward.audit import head, trail
from doorward.audit.models import Event, NeverChanged


def some_events(count: int = 5) -> None:
    for number in range(count):
        trail.record("device.renamed", target=f"laptop {number}", number=number)


def forge(sql: str) -> None:
    """Change the table as somebody with the database's own rights would, triggers and all."""
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            for guard in ("content", "place", "who", "what", "delete", "insert", "taken"):
                cursor.execute(f"DROP TRIGGER IF EXISTS audit_event_{guard}")
        else:
            cursor.execute("ALTER TABLE audit_event DISABLE TRIGGER ALL")
        cursor.execute(sql)


@pytest.mark.django_db
def test_a_sealed_chain_is_intact() -> None:
    some_events()
    assert trail.seal() == 5
    verdict = trail.verify()
    assert verdict.intact
    assert (verdict.events, verdict.unsealed) == (5, 0)


@pytest.mark.django_db
def test_sealing_again_changes_nothing() -> None:
    some_events()
    trail.seal()
    before = trail.verify()
    assert trail.seal() == 0
    assert trail.verify() == before


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("sql", "fault"),
    [
        ("UPDATE audit_event SET target = 'other' WHERE seq = 3", "event 3 .* was changed"),
        ("UPDATE audit_event SET ip = '10.0.0.1' WHERE seq = 2", "event 2 .* was changed"),
        ("DELETE FROM audit_event WHERE seq = 3", "event 3 is missing"),
        ("DELETE FROM audit_event WHERE seq = 5", "5 events were sealed, and the last 1 are gone"),
        ("UPDATE audit_event SET seq = -seq WHERE seq = 5", "event 1 is missing"),
    ],
)
def test_v16_4_2_an_edited_or_removed_event_breaks_the_chain(sql: str, fault: str) -> None:
    some_events()
    trail.seal()
    forge(sql)
    verdict = trail.verify()
    assert not verdict.intact
    assert re.search(fault, verdict.fault), verdict.fault


@pytest.mark.django_db
def test_an_event_rewritten_together_with_its_digest_breaks_the_chain() -> None:
    some_events()
    trail.seal()
    event = Event.objects.get(seq=3)
    event.target = "other"
    forge(
        f"UPDATE audit_event SET target = 'other', digest = '{trail.digest_of(event)}' "  # noqa: S608
        "WHERE seq = 3"
    )
    assert "event 3" in trail.verify().fault


@pytest.mark.django_db
def test_an_event_changed_before_its_sealing_is_noticed() -> None:
    some_events(1)
    forge("UPDATE audit_event SET target = 'other'")
    assert not trail.verify().intact


@pytest.mark.django_db
@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE audit_event SET detail = '{}'",
        "UPDATE audit_event SET seq = 7 WHERE seq = 1",
        "UPDATE audit_event SET chain = 'x' WHERE seq = 1",
        "DELETE FROM audit_event WHERE seq = 2",
        "DELETE FROM audit_event",
    ],
)
def test_the_database_itself_refuses_to_rewrite(sql: str) -> None:
    some_events(2)
    trail.seal()
    with pytest.raises(DatabaseError, match="audit event"), transaction.atomic():
        connection.cursor().execute(sql)
    assert trail.verify().intact


@pytest.mark.django_db
def test_our_own_code_cannot_rewrite_either() -> None:
    some_events(1)
    with pytest.raises(NeverChanged):
        Event.objects.all().delete()
    with pytest.raises(NeverChanged):
        Event.objects.update(target="x")
    with pytest.raises(NeverChanged):
        Event.objects.get().delete()


@pytest.mark.django_db
def test_what_did_not_happen_is_not_remembered() -> None:
    @transaction.atomic
    def fail_after_telling() -> None:
        some_events(1)
        raise OSError

    with pytest.raises(OSError):  # noqa: PT011 - ours
        fail_after_telling()
    assert not Event.objects.exists()


@pytest.mark.django_db
def test_a62_a_name_cannot_forge_a_line() -> None:
    event = trail.record(
        "device.renamed",
        target="x\r\naccount.login.succeeded",
        agent="\x1b[31mred\u202e",
        why="a\x00b",
    )
    event.refresh_from_db()
    assert event.target == "x\\u000d\\u000aaccount.login.succeeded"
    assert event.agent == "\\u001b[31mred\\u202e"
    assert "\x00" not in event.detail
    trail.seal()
    assert trail.verify().intact


@pytest.mark.django_db
def test_any_text_can_be_recorded(alice: User) -> None:
    for text in ("\ud800", "x" * 100_000, "🐙" * 400, "\x00"):
        trail.record("device.renamed", actor=alice, target=text, ip=text, agent=text, name=text)
    trail.seal()
    assert trail.verify().intact


@pytest.mark.django_db(transaction=True)
def test_concurrent_writers_and_sealers_make_one_chain() -> None:
    def write(number: int) -> None:
        try:
            trail.record("device.renamed", number=number)
            if number % 5 == 0:
                trail.seal()
        finally:
            connection.close()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(60)))
    trail.seal()
    verdict = trail.verify()
    assert verdict.intact
    assert (verdict.events, verdict.unsealed) == (60, 0)


@pytest.mark.django_db
def test_the_command_says_what_it_found() -> None:
    some_events()
    out = StringIO()
    call_command("audit", "verify", stdout=out)
    assert "5 events, none changed" in out.getvalue()
    forge("DELETE FROM audit_event WHERE seq = 2")
    with pytest.raises(CommandError, match="event 2 is missing") as refusal:
        call_command("audit", "verify", stdout=out)
    assert refusal.value.returncode == 1


def cut(sql: str) -> str:
    """Do this to a chain of five, and more happens afterwards; returns what is found."""
    some_events()
    trail.seal()
    forge(sql)
    some_events(3)
    trail.seal()
    return trail.verify().fault


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("sql", "fault"),
    [
        ("DELETE FROM audit_event WHERE seq = 5", "event 5 and those before it are not the ones"),
        ("DELETE FROM audit_event", "5 events were sealed, and the last 2 are gone"),
        ("DELETE FROM audit_head", "the sealed count of events is missing"),
        ("UPDATE audit_head SET events = 0", "the sealed count of events was written without"),
        ("UPDATE audit_head SET mark = 'x'", "the sealed count of events was written without"),
    ],
)
def test_a62_a_cut_end_stays_seen_when_the_chain_goes_on(sql: str, fault: str) -> None:
    assert fault in cut(sql)


@pytest.mark.django_db
def test_v16_4_2_a_chain_reckoned_anew_is_not_the_one_that_was_sealed() -> None:
    some_events()
    trail.seal()
    forge("UPDATE audit_event SET seq = NULL, chain = ''")
    forge("DELETE FROM audit_event WHERE target = 'laptop 1'")
    some_events(1)
    trail.seal()
    assert trail.verify().events == 5
    assert "are not the ones that were sealed" in trail.verify().fault


@pytest.mark.django_db
def test_a_chain_lengthened_without_the_key_is_noticed() -> None:
    some_events()
    trail.seal()
    five = head.read()
    some_events(1)
    trail.seal()
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE audit_head SET events = 5, chain = %s, mark = %s",
            [five.chain, head.mark_of(5, five.chain)],
        )
    assert trail.verify().fault == "event 6 and those after it were never sealed"


@pytest.mark.django_db
def test_a62_setting_back_both_tables_is_noticed_beside_the_database(settings: Any) -> None:
    some_events()
    trail.seal()
    before = head.read()
    some_events(2)
    trail.seal()
    assert head.keep_apart() == 1
    assert head.keep_apart() == 0
    assert trail.verify().intact
    forge("DELETE FROM audit_event WHERE seq > 5")
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE audit_head SET events = 5, chain = %s, mark = %s",
            [before.chain, head.mark_of(5, before.chain)],
        )
    assert trail.verify().fault == "7 events were sealed, and the last 2 are gone"
    assert head.keep_apart() == 0, "the copy that is further stays"
    (settings.DATA / head.FILE).write_text('{"events": 5}')
    assert "kept beside the database can't be read" in trail.verify().fault


@pytest.mark.django_db
@pytest.mark.skipif(connection.vendor != "sqlite", reason="only SQLite replaces rows")
@pytest.mark.parametrize(
    "sql",
    [
        "INSERT OR REPLACE INTO audit_event SELECT * FROM audit_event WHERE seq = 1",
        "UPDATE OR REPLACE audit_event SET seq = 1, chain = '' WHERE seq IS NULL",
    ],
)
def test_a62_sqlite_does_not_replace_an_event(sql: str) -> None:
    some_events(2)
    trail.seal()
    some_events(1)
    with pytest.raises(DatabaseError, match="audit event"), transaction.atomic():
        connection.cursor().execute(sql)
    trail.seal()
    assert trail.verify().events == 3


@pytest.mark.django_db
def test_sealing_takes_one_statement_for_the_head(django_assert_num_queries: Any) -> None:
    some_events(5)
    # The transaction's two, what waits, the last link, five places, the head.
    with django_assert_num_queries(10):
        trail.seal()
