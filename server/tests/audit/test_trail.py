"""What happened is remembered, and nobody can quietly change it."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.db import DatabaseError, connection, transaction

from doorward.accounts.models import User
from doorward.audit import trail
from doorward.audit.models import Event, NeverChanged


def some_events(count: int = 5) -> None:
    for number in range(count):
        trail.record("device.renamed", target=f"laptop {number}", number=number)


def forge(sql: str) -> None:
    """Change the table as somebody with the database's own rights would, triggers and all."""
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            for guard in ("content", "place", "who", "what", "erasure"):
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
