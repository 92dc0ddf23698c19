"""Inviting, joining, roles, leaving, handing over: who belongs to an account, and what it costs."""

from __future__ import annotations

import contextlib
import re
from datetime import timedelta
from typing import Any

import msgspec
import pytest
import time_machine
from allauth.account.models import EmailAddress
from django.db import connection
from django.test import Client
from django.utils import timezone
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)
from server.tests.conftest import PASSWORD, account_for, person, signed_in
from server.tests.devices.test_seats import at_once
from server.tests.portal.stock import device_of, scan_of, threat_of

from doorward.accounts import invitations, lockout, members, tokens
from doorward.accounts.models import (
    Account,
    Invitation,
    Membership,
    OwnershipTransfer,
    Role,
    Shares,
    User,
)
from doorward.audit import trail
from doorward.audit.models import Event
from doorward.devices import sharing
from doorward.devices.models import Device
from doorward.notices import envelope, outbox
from doorward.notices.models import Mail

NEW = "dora@example.org"
LONG = "seven lamps above the harbor"


def mails(to: str) -> list[str]:
    """Return the texts of all mails to this address, the oldest first."""
    return [text_of(mail) for mail in Mail.objects.filter(to=to).order_by("id")]


def text_of(mail: Mail) -> str:
    sealed = envelope.unseal(bytes(mail.body), purpose=outbox._purpose(mail))
    return str(msgspec.json.decode(sealed)["text"])


def link_in(text: str) -> str:
    found = re.search(r"/invitation/([A-Za-z0-9_-]{20,})/", text)
    assert found, text
    return found[0]


def invite(account: Account, by: User, email: str = NEW, role: Role = Role.HELPER) -> str:
    """Invite by the domain; returns the mailed link."""
    invitations.invite(account, email=email, role=role, actor=by)
    return link_in(mails(email)[-1])


def shown(link: str) -> invitations.Shown:
    return invitations.show(link.split("/")[-2])


def proved(browser: Client) -> Client:
    """Have the person prove again that it is them."""
    answer = browser.post("/reauthenticate/", {"password": PASSWORD})
    assert answer.status_code == 302, answer.content
    return browser


def tags(account: Account) -> list[str]:
    return list(
        Event.objects.filter(account_id=account.pk).order_by("id").values_list("tag", flat=True)
    )


def signed_in_as_newcomer(link: str, **more: str) -> tuple[Client, Any]:
    tab = Client(HTTP_HOST="localhost")
    assert tab.get(link).status_code == 200
    assert tab.post(link)["Location"] == "/invitation/"
    answer = tab.post("/invitation/", {"name": "Dora", "password": LONG, "shares": "state", **more})
    return tab, answer


# -- inviting --------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_v6_4_1_an_invitation_is_a_link_of_192_bits_kept_as_a_hash(
    alice: User, alices_account: Account
) -> None:
    links = [invite(alices_account, alice, f"p{number}@example.org") for number in range(10)]
    secrets = {link.split("/")[-2] for link in links}
    assert len(secrets) == 10
    assert all(len(secret) == 32 for secret in secrets)  # 24 bytes as base64
    with connection.cursor() as cursor:
        cursor.execute("SELECT * FROM accounts_invitation")
        stored = str(cursor.fetchall())
    assert not any(secret in stored for secret in secrets)


@pytest.mark.django_db
def test_v6_4_1_it_works_for_72_hours(alice: User, alices_account: Account) -> None:
    link = invite(alices_account, alice)
    with time_machine.travel(timezone.now() + timedelta(hours=71, minutes=59), tick=False):
        assert Client(HTTP_HOST="localhost").get(link).status_code == 200
    with time_machine.travel(timezone.now() + timedelta(hours=72), tick=False):
        tab = Client(HTTP_HOST="localhost")
        answer = tab.get(link)
        assert answer.status_code == 410
        assert "This invitation has ended" in answer.content.decode()
        assert tab.post(link).status_code == 410


@pytest.mark.django_db
def test_v6_4_1_it_works_once_and_is_no_password(alice: User, alices_account: Account) -> None:
    link = invite(alices_account, alice)
    _tab, answer = signed_in_as_newcomer(link)
    assert (answer.status_code, answer["Location"]) == (302, "/")
    assert Client(HTTP_HOST="localhost").get(link).status_code == 410
    with pytest.raises(invitations.InvitationOver):
        shown(link)
    secret = link.split("/")[-2]
    answer = Client(HTTP_HOST="localhost").post("/login/", {"login": NEW, "password": secret})
    assert answer.status_code == 200
    assert "Invalid email or password" in answer.content.decode()


@pytest.mark.django_db
def test_looking_at_the_link_uses_nothing_up_and_keeps_the_secret_from_others(
    alice: User, alices_account: Account
) -> None:
    link = invite(alices_account, alice)
    for _ in range(5):
        answer = Client(HTTP_HOST="localhost").get(link)
        assert answer.status_code == 200
        assert answer["Referrer-Policy"] == "no-referrer"
        assert answer["Cache-Control"].count("no-store") == 1
    assert not Membership.objects.filter(user__email=NEW).exists()
    assert not User.objects.filter(email=NEW).exists()


@pytest.mark.django_db
def test_a_newer_mail_ends_the_link_before_also_for_who_has_opened_it(
    alice: User, alices_account: Account
) -> None:
    first = invite(alices_account, alice)
    tab = Client(HTTP_HOST="localhost")
    tab.post(first)
    browser = signed_in(alice)
    found = Invitation.objects.get()
    answer = browser.post(f"/account/members/invitations/{found.pk}/resend/")
    assert answer.status_code == 302
    second = link_in(mails(NEW)[-1])
    assert second != first
    assert Client(HTTP_HOST="localhost").get(first).status_code == 410
    assert tab.post("/invitation/", {"password": LONG, "shares": "state"}).status_code == 410
    assert Client(HTTP_HOST="localhost").get(second).status_code == 200


@pytest.mark.django_db
def test_a_withdrawn_invitation_opens_nothing(alice: User, alices_account: Account) -> None:
    link = invite(alices_account, alice)
    tab = Client(HTTP_HOST="localhost")
    tab.post(link)
    found = Invitation.objects.get()
    browser = signed_in(alice)
    browser.post(f"/account/members/invitations/{found.pk}/withdraw/")
    assert tab.post("/invitation/", {"password": LONG, "shares": "state"}).status_code == 410
    assert not User.objects.filter(email=NEW).exists()
    assert browser.post(f"/account/members/invitations/{found.pk}/withdraw/").status_code == 404
    assert browser.post(f"/account/members/invitations/{found.pk}/resend/").status_code == 404


@pytest.mark.django_db
def test_whoever_does_not_want_to_says_no(alice: User, alices_account: Account) -> None:
    link = invite(alices_account, alice)
    tab = Client(HTTP_HOST="localhost")
    tab.post(link)
    assert "You said no" in tab.post("/invitation/decline/").content.decode()
    assert Invitation.objects.get().end == "declined"
    assert Client(HTTP_HOST="localhost").get(link).status_code == 410
    # They may be asked again.
    invite(alices_account, alice)


@pytest.mark.django_db
@pytest.mark.parametrize(
    "address", ["", "x", "a@b", "a@b..org", "a\n@example.org", "a" * 250 + "@x.org", "ä@x.org"]
)
def test_what_is_no_address_is_refused_with_the_reason(
    address: str, alice: User, alices_account: Account
) -> None:
    answer = signed_in(alice).post("/account/members/invite/", {"email": address, "role": "viewer"})
    assert answer.status_code == 422
    assert not Mail.objects.exists()


@pytest.mark.django_db
def test_who_is_there_or_invited_already_is_said_to_be(
    alice: User, bob: User, alices_account: Account
) -> None:
    browser = signed_in(alice)
    for address, words in (
        (bob.email.upper(), "They belong to this account already."),
        (alice.email, "They belong to this account already."),
    ):
        answer = browser.post("/account/members/invite/", {"email": address, "role": "viewer"})
        assert words in answer.content.decode()
    assert (
        browser.post("/account/members/invite/", {"email": NEW, "role": "viewer"}).status_code
        == 302
    )
    answer = browser.post("/account/members/invite/", {"email": NEW, "role": "helper"})
    assert "They are invited already." in answer.content.decode()
    assert len(mails(NEW)) == 1


@pytest.mark.django_db
def test_a08_the_inviter_does_not_learn_whether_an_address_signs_in_here(
    alice: User, alices_account: Account, charlie: User
) -> None:
    told = []
    # The page tells the minute of each invitation: it must be the same for both.
    with time_machine.travel(timezone.now(), tick=False):
        for address in (charlie.email, "nobody1@example.org"):
            browser = signed_in(alice)
            answer = browser.post("/account/members/invite/", {"email": address, "role": "viewer"})
            page = browser.get("/account/members/").content.decode()
            page = re.sub(r"[0-9a-f-]{36}|value=\"\w{64}\"", "", page)
            text = mails(address)[-1]
            told.append(
                (
                    answer.status_code,
                    answer["Location"],
                    page.replace(address, "X").replace(charlie.email, "X"),
                    text.replace(link_in(text), "L"),
                )
            )
            Invitation.objects.all().delete()
    assert told[0] == told[1]


@pytest.mark.django_db
def test_row86_invitations_are_limited_by_account_and_by_address(
    alice: User, alices_account: Account, charlie: User
) -> None:
    for number in range(lockout.INVITATIONS.most):
        invitations.invite(
            alices_account, email=f"n{number}@example.org", role="viewer", actor=alice
        )
    with pytest.raises(invitations.TooMany) as refused:
        invitations.invite(alices_account, email="one@example.org", role="viewer", actor=alice)
    assert timedelta(hours=23) < refused.value.wait <= timedelta(hours=24)
    browser = signed_in(alice)
    answer = browser.post(
        "/account/members/invite/", {"email": "one@example.org", "role": "viewer"}
    )
    assert "Too many invitations were mailed today." in answer.content.decode()
    accounts = [account_for(charlie)]
    accounts += [account_for(person(f"o{n}@example.org", "O")) for n in range(3)]
    victim = "victim@example.org"
    *first, last = [(account, account.memberships.get().user) for account in accounts]
    for account, owner in first:
        invitations.invite(account, email=victim, role="viewer", actor=owner)
    with pytest.raises(invitations.TooMany):
        invitations.invite(last[0], email=victim, role="viewer", actor=last[1])
    assert len(mails("victim@example.org")) == lockout.INVITATION_MAIL.most


@pytest.mark.django_db
def test_a_full_account_takes_nobody_more(
    alice: User, alices_account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(members, "MOST_MEMBERS", 2)
    link = invite(alices_account, alice)
    with pytest.raises(invitations.Full):
        invite(alices_account, alice, "other@example.org")
    bob = person("bob@example.org", "Bob")
    Membership.objects.create(account=alices_account, user=bob, role=Role.VIEWER)
    _tab, answer = signed_in_as_newcomer(link)
    assert answer.status_code == 410
    assert not User.objects.filter(email=NEW).exists()


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("name", "shown_name"),
    [
        ("Alice Archer", "Alice Archer (alice@example.org)"),
        ("Prize at evil.example", "alice@example.org"),
        ("http://evil.example", "alice@example.org"),
        ("<b>Bank</b>", "alice@example.org"),
        ("Bank\r\nBcc: x", "alice@example.org"),
        ("www evil", "alice@example.org"),
        ("", "alice@example.org"),
    ],
)
def test_row81_an_inviters_name_puts_no_link_into_our_mail(
    name: str, shown_name: str, alice: User, alices_account: Account
) -> None:
    User.objects.filter(pk=alice.pk).update(name=name)
    alice.refresh_from_db()
    invite(alices_account, alice)
    first, *_rest = mails(NEW)[-1].splitlines()
    assert first.startswith(f"{shown_name} invites you")
    assert mails(NEW)[-1].count("http") == 2  # The invitation's link and the site's own address.


# -- joining ---------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_somebody_new_signs_up_by_the_link_with_their_address_proved(
    alice: User, alices_account: Account
) -> None:
    tab, answer = signed_in_as_newcomer(invite(alices_account, alice), shares="findings")
    assert (answer.status_code, answer["Location"]) == (302, "/")
    dora = User.objects.get(email=NEW)
    place = dora.memberships.get()
    assert (place.account, place.role, place.shares) == (alices_account, "helper", "findings")
    assert EmailAddress.objects.get(user=dora).verified
    assert tab.get("/devices/").status_code == 200
    assert "joined your account" in Mail.objects.filter(to=alice.email).latest("id").subject
    assert "account.member.joined" in tags(alices_account)
    assert trail.verify().intact
    # From now on they sign in like everybody.
    again = Client(HTTP_HOST="localhost")
    assert again.post("/login/", {"login": NEW, "password": LONG}).status_code == 302


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("password", "words"),
    [("short", "15"), ("doradoradoradora@example.org", ""), ("password1234567", "")],
)
def test_row4_a_weak_password_is_refused_and_the_invitation_stays(
    password: str, words: str, alice: User, alices_account: Account
) -> None:
    link = invite(alices_account, alice)
    _tab, answer = signed_in_as_newcomer(link, password=password)
    assert answer.status_code == 422
    assert words in answer.content.decode()
    assert "field-error" in answer.content.decode()
    assert Client(HTTP_HOST="localhost").get(link).status_code == 200


@pytest.mark.django_db
def test_somebody_who_signs_in_here_already_joins_beside_their_own_account(
    alice: User, alices_account: Account, charlie: User
) -> None:
    link = invite(alices_account, alice, charlie.email)
    tab = Client(HTTP_HOST="localhost")
    tab.post(link)
    page = tab.get("/invitation/").content.decode()
    assert "/login/?next=/invitation/" in page
    assert link.split("/")[-2] not in page
    assert tab.post("/invitation/", {"password": LONG, "shares": "state"}).status_code == 200
    assert not Membership.objects.filter(account=alices_account, user=charlie).exists()
    answer = tab.post("/login/?next=/invitation/", {"login": charlie.email, "password": PASSWORD})
    assert answer["Location"] == "/invitation/"
    assert "Join?" in tab.get("/invitation/").content.decode()
    assert tab.post("/invitation/", {"shares": "state"})["Location"] == "/"
    assert {place.account_id for place in members.places_of(charlie)} == {
        alices_account.pk,
        account_for(charlie).pk,
    }
    assert "You look at the account" in tab.get("/").content.decode()


@pytest.mark.django_db
def test_a30_who_is_invited_and_has_not_joined_may_nothing(
    alice: User, alices_account: Account, charlie: User
) -> None:
    device = device_of(alices_account)
    link = invite(alices_account, alice, charlie.email, Role.HELPER)
    browser = signed_in(charlie)
    browser.post(link)
    for address in (f"/devices/{device.pk}/", f"/devices/{device.pk}/remove/"):
        assert browser.get(address).status_code == 404
        assert browser.post(address).status_code in {404, 405}
    answer = browser.post("/account/accounts/", {"to": str(alices_account.pk)})
    assert answer.status_code == 404
    with pytest.raises(members.NotAllowed):
        tokens.create(charlie, account=alices_account, name="x", scopes=["devices:read"], days=1)
    _token, text = tokens.create(charlie, name="x", scopes=["devices:read"], days=1)
    answer = Client(HTTP_HOST="localhost").get(
        "/api/v1/devices",
        headers={"Authorization": f"Bearer {text}", "X-Account": str(alices_account.pk)},
    )
    assert answer.status_code == 403
    assert Device.objects.get(pk=device.pk).revoked_at is None


@pytest.mark.django_db
def test_an_invitation_is_for_the_invited_address_alone(
    alice: User, alices_account: Account, charlie: User
) -> None:
    link = invite(alices_account, alice)
    browser = signed_in(charlie)
    browser.post(link)
    assert "for another address" in browser.get("/invitation/").content.decode()
    assert browser.post("/invitation/", {"shares": "state"}).status_code == 403
    assert not Membership.objects.filter(account=alices_account, user=charlie).exists()
    # An address of theirs that they have not confirmed does not do.
    EmailAddress.objects.create(user=charlie, email=NEW, verified=False)
    with pytest.raises(invitations.WrongPerson):
        invitations.accept(shown(link), charlie, shares=Shares.STATE)


@pytest.mark.django_db
def test_who_signed_up_with_the_address_and_never_confirmed_it_gets_nothing_of_it(
    alice: User, alices_account: Account
) -> None:
    mallory = Client(HTTP_HOST="localhost")
    theirs = "a password that Mallory knows"
    mallory.post("/signup/", {"email": NEW, "password1": theirs})
    assert User.objects.filter(email=NEW).exists()
    tab, answer = signed_in_as_newcomer(invite(alices_account, alice))
    assert answer["Location"] == "/"
    assert tab.get("/devices/").status_code == 200
    failed = Client(HTTP_HOST="localhost").post("/login/", {"login": NEW, "password": theirs})
    assert "Invalid email or password" in failed.content.decode()
    assert mallory.get("/devices/").status_code == 302


@pytest.mark.django_db
def test_of_two_accounts_invitations_at_once_the_second_changes_no_password(
    alice: User, alices_account: Account, charlie: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each account has a lock of its own: the address is looked at again under the person's."""
    first = shown(invite(alices_account, alice))
    second = shown(invite(charlie.memberships.get().account, charlie))
    invitations.accept_as_newcomer(
        first, name="", password="the first of both passwords", shares=Shares.STATE
    )
    # What the other process had looked up a moment before.
    looked = [True]
    real = invitations.is_newcomer

    def is_newcomer(about: invitations.Shown) -> bool:
        return looked.pop() if looked else real(about)

    monkeypatch.setattr(invitations, "is_newcomer", is_newcomer)
    with pytest.raises(invitations.AlreadyThere):
        invitations.accept_as_newcomer(
            second, name="", password="the second of both passwords", shares=Shares.STATE
        )
    assert User.objects.get(email=NEW).check_password("the first of both passwords")


@pytest.mark.django_db
def test_row15_an_invitation_passes_the_second_step_of_who_has_one(
    alice: User, alices_account: Account, charlie: User
) -> None:
    from doorward.accounts import two_factor

    two_factor.choose_email(charlie, True, ip="", agent="")
    tab = Client(HTTP_HOST="localhost")
    tab.post(invite(alices_account, alice, charlie.email))
    tab.post("/login/?next=/invitation/", {"login": charlie.email, "password": PASSWORD})
    tab.post("/invitation/", {"shares": "state"})
    assert not Membership.objects.filter(account=alices_account, user=charlie).exists()


@pytest.mark.django_db(transaction=True)
def test_row85_fifty_acceptances_of_one_invitation_are_one(
    alice: User, alices_account: Account, charlie: User
) -> None:
    found = shown(invite(alices_account, alice, charlie.email))
    results = at_once(
        [
            lambda: invitations.accept(found, charlie, shares=Shares.STATE),
        ]
        * 50
    )
    joined = [result for result in results if isinstance(result, Membership)]
    assert len(joined) == 1
    assert {type(result) for result in results if result not in joined} <= {
        invitations.InvitationOver,
        invitations.AlreadyThere,
    }
    assert Membership.objects.filter(account=alices_account, user=charlie).count() == 1
    assert Event.objects.filter(tag="account.member.joined").count() == 1


@pytest.mark.django_db(transaction=True)
def test_row85_fifty_newcomers_by_one_link_are_one(alice: User, alices_account: Account) -> None:
    found = shown(invite(alices_account, alice))
    results = at_once(
        [
            lambda number=number: invitations.accept_as_newcomer(  # type: ignore[misc]  # bound now
                found, name=f"D{number}", password=LONG, shares=Shares.STATE
            )
            for number in range(50)
        ]
    )
    assert sum(isinstance(result, User) for result in results) == 1, results[:3]
    assert User.objects.filter(email=NEW).count() == 1
    assert Membership.objects.filter(account=alices_account).count() == 2


# -- roles, removing, leaving ----------------------------------------------------------------------


@pytest.mark.django_db
def test_a_weighty_role_and_a_removal_ask_for_a_fresh_proof(
    alice: User, bob: User, alices_account: Account
) -> None:
    browser = signed_in(alice)
    base = f"/account/members/{bob.pk}/"
    for address, fields in (
        ("role/", {"role": "owner"}),
        ("role/", {"role": "billing"}),
        ("remove/", {}),
        ("hand-over/", {"role_after": "viewer"}),
    ):
        answer = browser.post(base + address, fields)
        assert answer["Location"].startswith("/reauthenticate/"), (address, fields)
    place = Membership.objects.get(user=bob)
    assert place.role == Role.VIEWER
    assert not OwnershipTransfer.objects.exists()
    # A light one does not.
    assert browser.post(base + "role/", {"role": "helper"})["Location"] == "/account/members/"
    place.refresh_from_db()
    assert place.role == Role.HELPER
    proved(browser).post(base + "role/", {"role": "owner"})
    place.refresh_from_db()
    assert place.role == Role.OWNER
    assert (
        "Your account has another owner" in Mail.objects.filter(to=alice.email).latest("id").subject
    )
    assert "Your role has changed" in Mail.objects.filter(to=bob.email).latest("id").subject


@pytest.mark.django_db
def test_an_owner_is_not_pushed_out_by_another(
    alice: User, bob: User, alices_account: Account
) -> None:
    members.change_role(alices_account, bob.pk, Role.OWNER, actor=alice)
    with pytest.raises(members.OwnersStay):
        members.change_role(alices_account, alice.pk, Role.VIEWER, actor=bob)
    with pytest.raises(members.OwnersStay):
        members.remove(alices_account, alice.pk, devices_stay=True, actor=bob)
    members.change_role(alices_account, alice.pk, Role.VIEWER, actor=alice)
    with pytest.raises(members.NotAllowed):
        members.change_role(alices_account, bob.pk, Role.VIEWER, actor=alice)


@pytest.mark.django_db
def test_the_last_owner_stays(alice: User, bob: User, alices_account: Account) -> None:
    with pytest.raises(members.LastOwner):
        members.leave(alices_account, alice, devices_stay=True)
    with pytest.raises(members.LastOwner):
        members.change_role(alices_account, alice.pk, Role.VIEWER, actor=alice)
    browser = signed_in(alice)
    answer = browser.post("/account/members/leave/")
    assert answer["Location"] == "/account/members/leave/"
    assert "You are the only owner." in browser.get("/account/members/leave/").content.decode()
    assert members.owners(alices_account) == [alice]


@pytest.mark.django_db(transaction=True)
def test_two_owners_who_leave_at_once_leave_one(
    alice: User, bob: User, alices_account: Account
) -> None:
    members.change_role(alices_account, bob.pk, Role.OWNER, actor=alice)
    results = at_once(
        [
            lambda user=user: members.leave(alices_account, user, devices_stay=True)  # type: ignore[misc]  # bound now
            for user in (alice, bob)
        ]
    )
    assert sorted(type(result).__name__ for result in results) == ["LastOwner", "NoneType"]
    assert len(members.owners(alices_account)) == 1


@pytest.mark.django_db
def test_who_leaves_finds_the_account_closed_and_its_tokens_dead(
    alice: User, bob: User, alices_account: Account
) -> None:
    browser = signed_in(bob)
    _token, text = tokens.create(
        bob, account=alices_account, name="x", scopes=["devices:read"], days=1
    )
    answer = browser.post("/account/members/leave/")
    assert answer["Location"] == "/account/accounts/"
    page = browser.get("/account/accounts/").content.decode()
    assert "Start an account of your own" in page
    assert browser.get("/devices/").status_code == 403
    assert tokens.find(text) is None
    assert "has left your account" in Mail.objects.filter(to=alice.email).latest("id").subject
    # Whoever belongs to none may begin anew.
    assert browser.post("/account/accounts/new/").status_code == 302
    assert browser.get("/devices/").status_code == 200
    assert account_for(bob) != alices_account


@pytest.mark.django_db
@pytest.mark.parametrize("stay", [True, False])
def test_a_members_devices_stay_or_leave_as_asked(
    stay: bool, alice: User, bob: User, alices_account: Account
) -> None:
    place = Membership.objects.get(user=bob)
    members.share(place, Shares.FINDINGS)
    phone = device_of(alices_account, member=bob)
    kept = device_of(alices_account)
    browser = proved(signed_in(alice))
    address = f"/account/members/{bob.pk}/remove/"
    assert "What becomes of their 1 device?" in browser.get(address).content.decode()
    assert browser.post(address).status_code == 422
    assert Membership.objects.filter(user=bob).exists()
    answer = browser.post(address, {"devices": "stay" if stay else "leave"})
    assert answer["Location"] == "/account/members/"
    phone.refresh_from_db()
    kept.refresh_from_db()
    assert (phone.revoked_at is None) == stay
    assert (phone.member_id is None) == stay
    assert kept.revoked_at is None
    assert "no longer belong" in Mail.objects.filter(to=bob.email).latest("id").subject


@pytest.mark.django_db
def test_what_an_owner_does_to_a_member_is_in_the_members_own_activity_without_names(
    alice: User, bob: User, alices_account: Account
) -> None:
    hers, his = proved(signed_in(alice)), signed_in(bob)
    Membership.objects.filter(user=bob).update(role=Role.VIEWER)
    hers.post(f"/account/members/{bob.pk}/role/", {"role": "billing"})
    page = his.get("/account/activity/").content.decode()
    assert "Your role in an account was changed" in page
    hers.post(f"/account/members/{bob.pk}/remove/", {"devices": "leave"})
    account_for(bob)
    page = his.get("/account/activity/").content.decode()
    assert "You were taken out of an account" in page
    told = Event.objects.filter(actor_id=bob.pk, tag__startswith="account.member.")
    assert {(event.account_id, event.target, event.detail) for event in told} == {(None, "", "{}")}


# -- handing over ----------------------------------------------------------------------------------


@pytest.mark.django_db
def test_ownership_passes_when_both_have_agreed_with_a_fresh_proof(
    alice: User, bob: User, alices_account: Account
) -> None:
    hers, his = proved(signed_in(alice)), signed_in(bob)
    hers.post(f"/account/members/{bob.pk}/hand-over/", {"role_after": "helper"})
    assert members.owners(alices_account) == [alice]
    assert "You are offered an account" in Mail.objects.filter(to=bob.email).latest("id").subject
    assert Mail.objects.filter(to=alice.email, kind="account.ownership.offered").exists()
    assert "This account is offered to you" in his.get("/account/members/").content.decode()
    answer = his.post("/account/members/offer/take/")
    assert answer["Location"].startswith("/reauthenticate/")
    assert members.owners(alices_account) == [alice]
    proved(his).post("/account/members/offer/take/")
    assert members.owners(alices_account) == [bob]
    assert Membership.objects.get(user=alice).role == Role.HELPER
    for address in (alice.email, bob.email):
        assert "has a new owner" in Mail.objects.filter(to=address).latest("id").subject
    assert his.post("/account/members/offer/take/").status_code == 404
    assert hers.get("/account/members/invite/").status_code == 403
    assert tags(alices_account)[-1] == "account.ownership.transferred"
    # The account's events are no longer hers to read, but this is hers.
    assert "An account you owned has a new owner" in hers.get("/account/activity/").content.decode()


@pytest.mark.django_db
@pytest.mark.parametrize("sent", [{}, {"role_after": "owner"}, {"role_after": "king"}])
def test_handing_over_without_a_role_for_afterwards_says_what_is_missing(
    alice: User, bob: User, alices_account: Account, sent: dict[str, str]
) -> None:
    answer = proved(signed_in(alice)).post(f"/account/members/{bob.pk}/hand-over/", sent)
    assert answer.status_code == 422
    assert "Choose what you will be afterwards." in answer.content.decode()
    assert not OwnershipTransfer.objects.exists()


@pytest.mark.django_db
def test_an_offer_ends_by_either_side_by_time_and_with_its_giver(
    alice: User, bob: User, alices_account: Account
) -> None:
    def offer() -> None:
        members.offer_ownership(alices_account, bob.pk, Role.VIEWER, actor=alice)

    for user in (alice, bob):
        offer()
        members.end_offer(alices_account, user)
        with pytest.raises(members.NoOffer):
            members.take_ownership(alices_account, bob)
    offer()
    with (
        time_machine.travel(timezone.now() + members.OFFER_LASTS, tick=False),
        pytest.raises(members.NoOffer),
    ):
        members.take_ownership(alices_account, bob)
    members.change_role(alices_account, bob.pk, Role.HELPER, actor=alice)
    with pytest.raises(members.NoOffer):
        members.take_ownership(alices_account, bob)
    offer()
    # However the giver came to own it no more: it is not theirs to give.
    Membership.objects.filter(user=alice).update(role=Role.VIEWER)
    with pytest.raises(members.NoOffer):
        members.take_ownership(alices_account, bob)
    Membership.objects.filter(user=alice).update(role=Role.OWNER)
    offer()
    members.leave(alices_account, bob, devices_stay=True)
    with pytest.raises(members.NoOffer):
        members.take_ownership(alices_account, bob)
    with pytest.raises(members.NotAMember):
        offer()
    assert members.owners(alices_account) == [alice]


@pytest.mark.django_db
def test_an_account_is_not_offered_without_end(
    alice: User, bob: User, alices_account: Account
) -> None:
    for _ in range(lockout.OFFERS.most):
        members.offer_ownership(alices_account, bob.pk, Role.VIEWER, actor=alice)
    with pytest.raises(members.TooManyOffers):
        members.offer_ownership(alices_account, bob.pk, Role.VIEWER, actor=alice)


# -- several accounts ------------------------------------------------------------------------------


@pytest.mark.django_db
def test_a_session_looks_at_one_account_until_its_person_chooses_another(
    alice: User, bob: User, alices_account: Account
) -> None:
    own = account_for(bob)
    hers, his = device_of(alices_account), device_of(own)
    browser, other = signed_in(bob), signed_in(bob)
    assert browser.get(f"/devices/{hers.pk}/").status_code == 200
    assert other.get(f"/devices/{hers.pk}/").status_code == 200
    browser.post("/account/accounts/", {"to": str(own.pk)})
    assert browser.get(f"/devices/{hers.pk}/").status_code == 404
    assert browser.get(f"/devices/{his.pk}/").status_code == 200
    # A session that was open stays where it was; a new one begins where its person looked last.
    assert other.get(f"/devices/{hers.pk}/").status_code == 200
    assert signed_in(bob).get(f"/devices/{his.pk}/").status_code == 200


@pytest.mark.django_db
def test_a_form_of_the_account_before_changes_nothing_in_the_one_after(
    bob: User, alices_account: Account
) -> None:
    own = account_for(bob)
    browser = signed_in(bob)
    browser.post("/account/accounts/", {"to": str(own.pk)})
    fields = {"email": NEW, "role": "viewer", "account": str(alices_account.pk)}
    answer = browser.post("/account/members/invite/", fields)
    assert answer["Location"] == "/"
    assert "of another account" in browser.get("/").content.decode()
    assert not Invitation.objects.exists()
    browser.post("/account/members/invite/", {**fields, "account": str(own.pk)})
    assert Invitation.objects.get().account == own


# -- what is seen of a member's devices ------------------------------------------------------------


@pytest.fixture
def bobs_phone(bob: User, alices_account: Account) -> Device:
    phone = device_of(alices_account, member=bob, name="Bob’s phone", hostname="bobs-secret-host")
    scan = scan_of(phone, paths=["/home/bob/secret"], message="/home/bob/secret", detections=1)
    threat_of(
        phone,
        scan_uid=scan.uid,
        path="/home/bob/secret.pdf",
        member="inner-secret.doc",
        description="secret words",
        more_paths=["/home/bob/secret2.pdf"],
    )
    return phone


SEEN = {Shares.STATE: (False, False), Shares.FINDINGS: (True, False), Shares.PATHS: (True, True)}


@pytest.mark.django_db
@pytest.mark.parametrize("shares", list(Shares))
def test_what_a_member_shares_is_what_the_others_see_on_pages_and_by_the_api(
    shares: Shares, alice: User, bob: User, alices_account: Account, bobs_phone: Device
) -> None:
    from server.tests.access.test_access import session_of

    members.share(Membership.objects.get(user=bob), shares)
    findings, paths = SEEN[shares]
    threat = threat_of(bobs_phone, path="/home/bob/secret-too.pdf")
    for user, all_of_it in ((alice, False), (bob, True)):
        browser = signed_in(user)
        client, key = Client(HTTP_HOST="localhost"), session_of(user)
        pages = {
            address: browser.get(address)
            for address in (
                "/",
                "/devices/",
                f"/devices/{bobs_phone.pk}/",
                "/reports/",
                "/reports/threats/",
                f"/reports/threats/?device={bobs_phone.pk}",
                f"/reports/threats/{threat.uid}/",
                "/reports/threats/?text=secret",
                "/protection/",
                f"/api/v1/devices/{bobs_phone.pk}",
                "/api/v1/devices",
                "/api/v1/threats",
                "/api/v1/threats?text=secret",
                "/api/v1/scans",
                f"/api/v1/threats/{threat.uid}",
            )
            if not address.startswith("/api/")
        }
        for address in (
            f"/api/v1/devices/{bobs_phone.pk}",
            "/api/v1/devices",
            "/api/v1/threats",
            "/api/v1/threats?text=secret",
            "/api/v1/scans",
            f"/api/v1/threats/{threat.uid}",
        ):
            pages[address] = client.get(address, headers=key)
        text = "".join(page.content.decode() for page in pages.values())
        assert "Bob’s phone" in text
        assert ("EICAR" in text) == (findings or all_of_it)
        assert ("secret.pdf" in text) == (paths or all_of_it)
        for hidden in ("secret2", "inner-secret", "secret words", "/home/bob", "secret-too"):
            assert (hidden in text) <= (paths or all_of_it), hidden
        assert ("bobs-secret-host" in text) == (findings or all_of_it)
        there = pages[f"/reports/threats/{threat.uid}/"].status_code
        assert there == (200 if findings or all_of_it else 404)
        assert pages[f"/api/v1/threats/{threat.uid}"].status_code == there
        # What isn't shown isn't found: a search would tell it letter by letter.
        found = pages["/api/v1/threats?text=secret"].json()["items"]
        assert bool(found) == (paths or all_of_it)


@pytest.mark.django_db
def test_the_least_is_shared_unless_somebody_says_more(
    alice: User, bob: User, alices_account: Account, bobs_phone: Device
) -> None:
    assert Membership.objects.get(user=bob).shares == Shares.STATE
    assert sharing.of(alices_account, alice).of(bobs_phone) == Shares.STATE
    assert Membership(account=alices_account, user=alice).shares == Shares.STATE


@pytest.mark.django_db
def test_what_was_not_shared_stays_hidden_when_its_member_is_gone(
    alice: User, bob: User, alices_account: Account, bobs_phone: Device
) -> None:
    browser = signed_in(alice)
    members.remove(alices_account, bob.pk, devices_stay=True, actor=alice)
    with time_machine.travel(timezone.now() + timedelta(hours=1), tick=False):
        assert "EICAR" not in browser.get("/reports/threats/").content.decode()
        threat_of(bobs_phone, title="Found since", path="/home/bob/new.pdf")
        page = browser.get("/reports/threats/").content.decode()
    assert "Found since" in page
    assert "EICAR" not in page


@pytest.mark.django_db
def test_what_a_device_that_left_reported_is_nobodys(
    alice: User, bob: User, alices_account: Account, bobs_phone: Device
) -> None:
    members.remove(alices_account, bob.pk, devices_stay=False, actor=alice)
    page = signed_in(alice).get("/reports/threats/").content.decode()
    assert "EICAR" not in page


@pytest.mark.django_db
def test_a_deleted_persons_device_does_not_become_everybodys(
    alice: User, bob: User, alices_account: Account, bobs_phone: Device
) -> None:
    bob.delete()
    page = signed_in(alice).get("/reports/threats/").content.decode()
    assert "EICAR" not in page
    assert signed_in(alice).get(f"/devices/{bobs_phone.pk}/").status_code == 200


@pytest.mark.django_db
def test_sharing_is_changed_on_the_members_page_and_holds_at_once(
    alice: User, bob: User, alices_account: Account, bobs_phone: Device
) -> None:
    hers, his = signed_in(alice), signed_in(bob)
    asked = {"HX-Request": "true"}
    asked["If-None-Match"] = hers.get("/reports/threats/", headers=asked)["ETag"]
    assert "EICAR" not in hers.get("/reports/threats/").content.decode()
    his.post("/account/members/sharing/", {"shares": "findings"})
    assert "EICAR" in hers.get("/reports/threats/").content.decode()
    assert hers.get("/reports/threats/", headers=asked).status_code == 200
    his.post("/account/members/sharing/", {"shares": "state"})
    assert "EICAR" not in hers.get("/reports/threats/").content.decode()
    assert his.post("/account/members/sharing/", {"shares": "all"}).status_code == 404
    assert tags(alices_account).count("account.sharing.changed") == 2


@pytest.mark.django_db
def test_a_page_of_many_members_takes_as_many_queries_as_one_of_few(
    alice: User, alices_account: Account, django_assert_max_num_queries: Any
) -> None:
    browser = signed_in(alice)
    browser.get("/account/members/")
    with django_assert_max_num_queries(8) as few:
        browser.get("/account/members/")
    for number in range(40):
        user = person(f"m{number}@example.org", f"M{number}")
        Membership.objects.create(account=alices_account, user=user, role=Role.VIEWER)
    with django_assert_max_num_queries(len(few)):
        browser.get("/account/members/")


# -- whatever happens ------------------------------------------------------------------------------


class Comings(RuleBasedStateMachine):
    """Three people and one account: whatever they try, somebody owns it and nobody slips in."""

    account: Account
    people: list[User]

    @rule(who=st.integers(0, 2), whom=st.integers(0, 2), role=st.sampled_from(list(Role)))
    def change(self, who: int, whom: int, role: Role) -> None:
        before = self.roles()
        try:
            members.change_role(self.account, self.people[whom].pk, role, actor=self.people[who])
        except (
            members.NotAllowed,
            members.NotAMember,
            members.OwnersStay,
            members.LastOwner,
        ):
            assert self.roles() == before
        else:
            assert before[who] == Role.OWNER

    @rule(who=st.integers(0, 2), whom=st.integers(0, 2), stay=st.booleans())
    def remove(self, who: int, whom: int, stay: bool) -> None:
        before = self.roles()
        try:
            members.remove(
                self.account, self.people[whom].pk, devices_stay=stay, actor=self.people[who]
            )
        except (members.NotAllowed, members.NotAMember, members.OwnersStay):
            assert self.roles() == before
        else:
            assert before[who] == Role.OWNER
            assert before[whom] != Role.OWNER

    @rule(who=st.integers(0, 2))
    def leave(self, who: int) -> None:
        before = self.roles()
        try:
            members.leave(self.account, self.people[who], devices_stay=True)
        except (members.NotAMember, members.LastOwner):
            assert self.roles() == before

    @rule(who=st.integers(0, 2), whom=st.integers(0, 2))
    def offer(self, who: int, whom: int) -> None:
        lockout.reset((lockout.OFFERS, str(self.account.pk)))
        with contextlib.suppress(members.NotAllowed, members.NotAMember, members.OwnersStay):
            members.offer_ownership(
                self.account, self.people[whom].pk, Role.VIEWER, actor=self.people[who]
            )

    @rule(who=st.integers(0, 2))
    def take(self, who: int) -> None:
        waiting, before = members.offer(self.account), self.roles()
        try:
            members.take_ownership(self.account, self.people[who])
        except members.NoOffer:
            assert self.roles() == before
        else:
            assert waiting is not None
            assert waiting.taker_id == self.people[who].pk
            assert waiting.giver_id in {
                self.people[place].pk for place, role in before.items() if role == Role.OWNER
            }

    @rule(who=st.integers(0, 2), whom=st.integers(0, 2))
    def invite(self, who: int, whom: int) -> None:
        address = self.people[whom].email
        lockout.reset(
            (lockout.INVITATIONS, str(self.account.pk)), (lockout.INVITATION_MAIL, address)
        )
        before = self.roles()
        try:
            invitations.invite(
                self.account, email=address, role=Role.VIEWER, actor=self.people[who]
            )
        except members.NotAllowed:
            assert before.get(who) != Role.OWNER
        except (invitations.AlreadyThere, invitations.AlreadyInvited):
            pass
        assert self.roles() == before

    @rule(whom=st.integers(0, 2))
    def accept(self, whom: int) -> None:
        found = Invitation.objects.filter(email=self.people[whom].email, end="").first()
        if found is None:
            return
        before = self.roles()
        try:
            invitations.accept(
                invitations.Shown(found, found.digest), self.people[whom], shares=Shares.STATE
            )
        except invitations.AlreadyThere:
            assert whom in before
        except invitations.InvitationOver:
            # Whoever invited has given the account up meanwhile: they let nobody in any more.
            assert found.made_by_id not in {
                self.people[place].pk for place, role in before.items() if role == Role.OWNER
            }

    def roles(self) -> dict[int, str]:
        held = dict(Membership.objects.filter(account=self.account).values_list("user", "role"))
        return {place: held[user.pk] for place, user in enumerate(self.people) if user.pk in held}

    @invariant()
    def somebody_owns_it(self) -> None:
        assert Role.OWNER in self.roles().values()


@pytest.mark.django_db
def test_whatever_happens_an_account_has_an_owner(
    alice: User, bob: User, alices_account: Account, charlie: User
) -> None:
    class Here(Comings):
        account = alices_account
        people = [alice, bob, charlie]

        def teardown(self) -> None:
            Invitation.objects.all().delete()
            OwnershipTransfer.objects.all().delete()
            Membership.objects.filter(account=alices_account).delete()
            Membership.objects.create(account=alices_account, user=alice, role=Role.OWNER)
            Membership.objects.create(account=alices_account, user=bob, role=Role.VIEWER)

    run_state_machine_as_test(
        Here,
        settings=settings(
            max_examples=30,
            stateful_step_count=25,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
