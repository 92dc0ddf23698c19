"""Whoever owned an account must not reach into it later: by a deletion, a copy, a guest (A30)."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import pytest
import time_machine
from django.test import Client
from django.utils import timezone
from server.tests.accounts.second_steps import mails_to
from server.tests.conftest import PASSWORD, person, signed_in
from server.tests.portal.stock import device_of

from doorward.accounts import exports, invitations, leaving, members
from doorward.accounts.models import Account, Invitation, Membership, Role, Shares, User
from doorward.accounts.origin import Origin
from doorward.accounts.privacy_rows import Deletion
from doorward.devices.models import Device

HERE = Origin("203.0.113.7", "Firefox of Alice")

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def laptop(alices_account: Account, bob: User) -> Device:
    return device_of(alices_account, hostname="bobs-laptop", member=bob)


def hand_over(account: Account, giver: User, taker: User) -> None:
    members.offer_ownership(account, taker.pk, Role.VIEWER, actor=giver, origin=HERE)
    members.take_ownership(account, taker, origin=HERE)


def doomed(deletion: Deletion) -> list[UUID]:
    return [each.account_id for each in deletion.doomed.all()]


def worker_until(days: float) -> None:
    """Let the worker do what is due for so many days."""
    end = timezone.now() + timedelta(days=days)
    with time_machine.travel(end, tick=False) as clock:
        for _turn in range(100):
            if not leaving.delete_due(timezone.now()):
                clock.shift(leaving.SETTLE)
                if not leaving.delete_due(timezone.now()):
                    break


def test_a30_an_account_handed_over_does_not_go_with_its_former_owner(
    alice: User, bob: User, alices_account: Account, laptop: Device
) -> None:
    leaving.ask(alice, keep_session=None, origin=HERE)
    hand_over(alices_account, alice, bob)
    worker_until(days=7.1)
    assert not User.objects.filter(pk=alice.pk).exists()
    assert Account.objects.filter(pk=alices_account.pk).exists()
    assert Device.objects.filter(pk=laptop.pk).exists()
    assert Membership.objects.get(account=alices_account).role == Role.OWNER


def test_members_see_on_every_page_that_the_account_goes_until_its_owner_keeps_it(
    alice: User, bob: User, alices_account: Account, laptop: Device
) -> None:
    hers, his = signed_in(alice), signed_in(bob)
    told = "This account will be deleted on"
    assert told not in his.get("/").content.decode()
    deletion = leaving.ask(alice, keep_session=None, origin=HERE)
    for page in ("/", "/devices/", "/subscription/"):
        assert told in his.get(page).content.decode()
    assert f"{timezone.localtime(deletion.due_at):%b}" in his.get("/").content.decode()
    # Who asked for it is asked whether to keep it, and is not told twice.
    assert told not in hers.get("/").content.decode()
    leaving.cancel(alice, origin=HERE)
    assert told not in his.get("/").content.decode()


def test_members_are_told_no_more_that_the_account_goes_when_it_has_another_owner(
    alice: User, bob: User, charlie: User, alices_account: Account
) -> None:
    Membership.objects.create(account=alices_account, user=charlie, role=Role.VIEWER)
    leaving.ask(alice, keep_session=None, origin=HERE)
    assert leaving.goes_at(alices_account) is not None
    hand_over(alices_account, alice, bob)
    assert leaving.goes_at(alices_account) is None
    members.change_role(alices_account, charlie.pk, Role.OWNER, actor=bob, origin=HERE)
    assert "will be deleted on" not in signed_in(charlie).get("/").content.decode()


def test_a30_an_account_with_a_second_owner_does_not_go_with_the_first(
    alice: User, bob: User, alices_account: Account, laptop: Device
) -> None:
    leaving.ask(alice, keep_session=None, origin=HERE)
    members.change_role(alices_account, bob.pk, Role.OWNER, actor=alice, origin=HERE)
    worker_until(days=7.1)
    assert Account.objects.filter(pk=alices_account.pk).exists()
    assert Device.objects.filter(pk=laptop.pk).exists()


def test_an_account_whose_other_owner_left_goes_too_after_days_of_its_own(
    alice: User, bob: User, charlie: User, alices_account: Account, laptop: Device
) -> None:
    Membership.objects.create(account=alices_account, user=charlie, role=Role.VIEWER)
    members.change_role(alices_account, bob.pk, Role.OWNER, actor=alice, origin=HERE)
    leaving.ask(alice, keep_session=None, origin=HERE)
    members.leave(alices_account, bob, devices_stay=True, origin=HERE)
    worker_until(days=7.1)
    # Nobody was told that the account goes: they are now, and it begins anew.
    waits = Deletion.objects.get()
    assert doomed(waits) == [alices_account.pk]
    assert mails_to(charlie.email).count("An account you belong to will be deleted") == 1
    assert User.objects.filter(pk=alice.pk, is_active=True).exists()
    worker_until(days=14.3)
    assert not User.objects.filter(pk=alice.pk).exists()
    assert not Account.objects.filter(pk=alices_account.pk).exists()
    assert not Device.objects.filter(pk=laptop.pk).exists()


def test_the_new_owner_may_be_deleted_too_while_the_former_one_waits(
    alice: User, bob: User, alices_account: Account, laptop: Device
) -> None:
    leaving.ask(alice, keep_session=None, origin=HERE)
    hand_over(alices_account, alice, bob)
    assert doomed(leaving.ask(bob, keep_session=None, origin=HERE)) == [alices_account.pk]
    leaving.cancel(alice, origin=HERE)
    worker_until(days=7.1)
    assert not Account.objects.filter(pk=alices_account.pk).exists()
    assert User.objects.filter(pk=alice.pk).exists()


def test_a30_a_copy_of_an_account_is_not_fetched_by_who_owns_it_no_more(
    alice: User, bob: User, alices_account: Account, laptop: Device
) -> None:
    browser: Client = signed_in(alice)
    export = exports.ask(alice, HERE)
    assert exports.pack_due(timezone.now()) == 1
    address = f"/account/privacy/export/{export.pk}/"
    browser.post("/reauthenticate/", {"password": PASSWORD})
    answer = browser.get(address)
    assert answer.status_code == 200
    answer.close()
    hand_over(alices_account, alice, bob)
    assert browser.get(address).status_code == 404
    assert "Download" not in browser.get("/account/privacy/").content.decode()


def test_a30_a_copy_asked_for_as_owner_is_packed_as_what_one_is_by_then(
    alice: User, bob: User, alices_account: Account, laptop: Device
) -> None:
    export = exports.ask(alice, HERE)
    hand_over(alices_account, alice, bob)
    assert exports.pack_due(timezone.now()) == 1
    export.refresh_from_db()
    assert not export.accounts.exists()
    found = exports.fetch(alice, export.pk, HERE)
    assert found is not None
    assert b"bobs-laptop" not in found.read_bytes()


def test_a30_a_guest_of_a_former_owner_does_not_get_in_after_them(
    alice: User, bob: User, alices_account: Account, charlie: User
) -> None:
    made = invitations.invite(
        alices_account, email=charlie.email, role=Role.HELPER, actor=alice, origin=HERE
    )
    hand_over(alices_account, alice, bob)
    with pytest.raises(invitations.InvitationOver):
        invitations.come_back(made.pk, made.digest)
    shown = invitations.Shown(Invitation.objects.get(pk=made.pk), made.digest)
    with pytest.raises(invitations.InvitationOver):
        invitations.accept(shown, charlie, shares=Shares.STATE, origin=HERE)
    assert members.find(alices_account, charlie.pk) is None
    # The new owner sees it and, by sending it again, makes it theirs.
    invitations.resend(alices_account, made.pk, actor=bob, origin=HERE)
    again = Invitation.objects.get(pk=made.pk)
    shown = invitations.come_back(again.pk, again.digest)
    invitations.accept(shown, charlie, shares=Shares.STATE, origin=HERE)
    assert members.find(alices_account, charlie.pk) is not None


def test_a30_a_guest_of_somebody_deleted_does_not_get_in_after_them(
    alice: User, bob: User, alices_account: Account
) -> None:
    dora = person("dora@example.org", "Dora")
    Membership.objects.create(account=alices_account, user=dora, role=Role.OWNER)
    made = invitations.invite(
        alices_account, email="eve@example.org", role=Role.HELPER, actor=dora, origin=HERE
    )
    dora.delete()
    with pytest.raises(invitations.InvitationOver):
        invitations.come_back(made.pk, made.digest)
