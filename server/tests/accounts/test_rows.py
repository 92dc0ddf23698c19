"""A model read by a statement written by hand is the model a query set reads."""

from __future__ import annotations

import pytest
from django.forms.models import model_to_dict
from django.utils import timezone

from doorward.accounts import browsers, credentials, rows
from doorward.accounts.models import KnownBrowser, User


@pytest.mark.django_db
def test_a_person_read_by_hand_is_the_same_in_every_field(alice: User) -> None:
    User.objects.filter(pk=alice.pk).update(asked_until=timezone.now(), zone="Europe/Berlin")
    by_query_set = User.objects.get(pk=alice.pk)
    found = rows.first(
        User, "u", "SELECT {columns}, 7 FROM accounts_user u WHERE u.email = %s", [alice.email]
    )
    assert found is not None
    read, more = found
    assert more == (7,)
    for field in User._meta.concrete_fields:
        value = getattr(by_query_set, field.attname)
        assert getattr(read, field.attname) == value
        assert type(getattr(read, field.attname)) is type(value), field.attname
    assert not read.get_deferred_fields()
    assert model_to_dict(read) == model_to_dict(by_query_set)


@pytest.mark.django_db
def test_a_browser_read_by_hand_is_the_same_in_every_field(alice: User) -> None:
    cookie = browsers.add(alice, "", ip="203.0.113.7", agent="Firefox")
    read = browsers.find(cookie, alice.email)
    by_query_set = KnownBrowser.objects.get(user=alice)
    assert read == by_query_set
    for field in KnownBrowser._meta.concrete_fields:
        assert getattr(read, field.attname) == getattr(by_query_set, field.attname), field.attname


@pytest.mark.django_db
def test_no_row_is_nothing() -> None:
    statement = "SELECT {columns} FROM accounts_user u WHERE u.email = %s"
    assert rows.first(User, "u", statement, ["nobody@example.org"]) is None
    looked = credentials.look_up("nobody@example.org", [])
    assert looked.user is None
    assert credentials.check(looked, "a password of nobody's") is None
