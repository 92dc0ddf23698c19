"""Between tests that commit everything is as the migrations left it."""

from __future__ import annotations

import pytest
from django.contrib.contenttypes.models import ContentType
from django.core.management import call_command
from django.db import DatabaseError, connection, transaction
from server.tests.conftest import account_for, person

from doorward.accounts.models import Account, User
from doorward.audit import trail
from doorward.audit.models import Event, Head

pytestmark = pytest.mark.django_db(transaction=True)


def test_nothing_of_a_test_is_left_and_events_can_not_be_lost_again() -> None:
    models = ContentType.objects.count()
    account_for(person("alice@example.org", "Alice"))
    trail.record("account.login.succeeded")
    assert Event.objects.exists()

    call_command("flush", interactive=False, verbosity=0)

    assert not (User.objects.exists())
    assert not (Account.objects.exists())
    assert not (Event.objects.exists())
    assert Head.objects.get().events == 0
    assert ContentType.objects.count() == models > 0
    trail.record("account.login.succeeded")
    with pytest.raises(DatabaseError, match="audit event"), transaction.atomic():
        connection.cursor().execute("DELETE FROM audit_event")
