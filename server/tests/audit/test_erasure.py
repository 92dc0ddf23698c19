"""What a person leaves in the audit trail can be taken away, and everybody can see that it was."""

from __future__ import annotations

from uuid import uuid4

import pytest
from django.db import DatabaseError, connection, transaction
from server.tests.audit.test_trail import forge

from doorward.audit import erasure, trail
from doorward.audit.models import Event

ALICE, BOB, HOME, AWAY = uuid4(), uuid4(), uuid4(), uuid4()

# As the database's triggers allow it; what is missing is an event that tells of it.
EMPTIED = (
    "UPDATE audit_event SET target = '', ip = '', agent = '', detail = '{}', what_salt = '',"
    " what_erased_by = 'BY' WHERE seq = 3"
)

pytestmark = pytest.mark.django_db


def a_life() -> None:
    trail.record("account.signup", account=HOME, actor=ALICE, ip="203.0.113.5", agent="Firefox")
    trail.record("device.enrolled", account=HOME, target="x", name="Alice’s laptop")
    trail.record("account.login.succeeded", account=AWAY, actor=BOB, ip="198.51.100.7")
    trail.record("member.invited", account=AWAY, actor=BOB, email="alice@example.org")
    trail.record("account.logout", account=HOME, actor=ALICE, ip="203.0.113.5")


def erase_alice() -> int:
    return erasure.erase(
        uuid4(), accounts=[HOME], persons=[ALICE], mentions=["Alice@example.org"], receipt="r"
    )


def test_an_erased_life_leaves_no_word_and_an_intact_chain() -> None:
    a_life()
    trail.seal()
    before = trail.verify()
    assert erase_alice() == 4
    trail.seal()
    after = trail.verify()
    assert after.intact, after.fault
    assert after.events == before.events + 1
    rows = str(list(Event.objects.values()))
    for word in ("alice", "Alice", "203.0.113.5", str(ALICE), ALICE.hex, str(HOME)):
        assert word not in rows, word
    assert "198.51.100.7" in rows, "Bob keeps his own"
    invitation = Event.objects.get(tag="member.invited")
    assert (invitation.actor_id, invitation.detail) == (BOB, "{}")


def test_erased_twice_is_erased_once() -> None:
    a_life()
    assert erase_alice() == 4
    assert erase_alice() == 0
    trail.seal()
    assert trail.verify().intact
    assert Event.objects.filter(tag=trail.ERASURE).count() == 1


def test_two_erasures_do_not_disturb_each_other() -> None:
    a_life()
    erase_alice()
    erasure.erase(uuid4(), accounts=[AWAY], persons=[BOB])
    trail.seal()
    assert trail.verify().intact
    assert not Event.objects.exclude(tag=trail.ERASURE).filter(who_salt__gt="").exists()


def test_events_from_before_the_marks_are_erased_too() -> None:
    a_life()
    forge("UPDATE audit_event SET who_mark = '', what_mark = '', who_salt = '', what_salt = ''")
    for event in Event.objects.all():
        forge(
            f"UPDATE audit_event SET digest = '{trail.digest_of(event)}' WHERE id = {event.pk}"  # noqa: S608
        )
    trail.seal()
    assert trail.verify().intact
    assert erase_alice() == 4
    trail.seal()
    assert trail.verify().intact
    assert "203.0.113.5" not in str(list(Event.objects.values()))


@pytest.mark.parametrize("by", ["another", "a known one"])
def test_v16_4_2_an_event_emptied_by_hand_is_noticed(by: str) -> None:
    a_life()
    erase_alice()
    trail.seal()
    assert trail.verify().intact
    known = Event.objects.filter(what_erased_by__isnull=False).values_list(
        "what_erased_by", flat=True
    )[0]
    assert known is not None
    name = uuid4() if by == "another" else known
    statement = EMPTIED.replace("BY", str(name) if connection.vendor == "postgresql" else name.hex)
    with connection.cursor() as cursor:
        cursor.execute(statement)
    assert "no erasure tells of" in trail.verify().fault


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE audit_event SET target = 'other', what_salt = '', what_erased_by = '{by}'",
        "UPDATE audit_event SET ip = ''",
        "UPDATE audit_event SET who_salt = '', account_id = NULL, actor_id = NULL",
        "UPDATE audit_event SET who_mark = ''",
        "UPDATE audit_event SET digest = ''",
    ],
)
def test_the_database_lets_nothing_through_but_a_whole_erasure(sql: str) -> None:
    a_life()
    trail.seal()
    with pytest.raises(DatabaseError, match="audit event"), transaction.atomic():
        connection.cursor().execute(sql.replace("{by}", uuid4().hex))
    assert trail.verify().intact
