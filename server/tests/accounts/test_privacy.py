"""A copy of everything, and an end that leaves nothing: what one asks for, and only that."""

from __future__ import annotations

import contextlib
import csv
import email
import email.policy
import hashlib
import io
import json
import re
import zipfile
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import time_machine
from allauth.usersessions.models import UserSession
from django.apps import apps
from django.conf import settings
from django.contrib.sessions.models import Session
from django.db import connection
from django.test import Client
from django.utils import timezone
from server.tests.accounts.second_steps import (
    add_app,
    is_signed_in,
    signed_in_tab,
    tab,
    type_password,
)
from server.tests.asvs.test_second_step import reset_link
from server.tests.conftest import PASSWORD
from server.tests.portal.stock import device_of, scan_of, threat_of

from doorward.accounts import exports, invitations, leaving, members, privacy, tokens
from doorward.accounts.csv_cells import cell
from doorward.accounts.models import Account, Membership, Role, User
from doorward.accounts.origin import Origin
from doorward.accounts.privacy_rows import Deletion, DoomedAccount, Export, Receipt
from doorward.audit import trail
from doorward.audit.models import Event
from doorward.billing import entitlement
from doorward.billing.models import Subscription
from doorward.devices import presence
from doorward.devices.models import Device, GoneDevice
from doorward.notices import outbox
from doorward.notices.models import Mail
from doorward.reports.models import Detection, Scan
from doorward.support.models import Ticket

HERE = Origin("203.0.113.5", "Firefox of Alice")
DOCUMENT = Path(__file__).parents[3] / "docs" / "export.md"

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def laptop(alices_account: Account, alice: User) -> Device:
    entitlement.start_default(alices_account)
    device = device_of(alices_account, hostname="alices-laptop", member=alice)
    scan_of(device, paths=["/home/alice/secret plans"])
    threat_of(device, path="=HYPERLINK(alice)")
    return device


def packed(user: User) -> zipfile.ZipFile:
    """Ask for a copy, have it packed and open it."""
    export = exports.ask(user, HERE)
    assert exports.pack_due(timezone.now()) == 1
    return zipfile.ZipFile(exports.file_of(export))


def rows_of(archive: zipfile.ZipFile, table: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(archive.read(f"{table}.json"))
    return found


def turn(at: datetime | None = None) -> None:
    """Let the worker do all that is due."""
    now = at or timezone.now()
    with time_machine.travel(now, tick=False):
        for _round in range(40):
            done = leaving.delete_due(timezone.now())
            if not done:
                break
    with time_machine.travel(now + leaving.SETTLE, tick=False):
        for _round in range(200):
            if not leaving.delete_due(timezone.now()):
                break


def sentenced(user: User) -> None:
    """Ask for the deletion of this person and let the days of grace pass."""
    leaving.ask(user, keep_session=None, origin=HERE)
    outbox.send_due(timezone.now())
    turn(timezone.now() + leaving.GRACE)


# -- the copy --------------------------------------------------------------------------------------


def test_the_owners_copy_holds_the_account_twice_over(alice: User, laptop: Device) -> None:
    archive = packed(alice)
    assert archive.testzip() is None
    index = json.loads(archive.read("index.json"))
    assert index["format"] == exports.FORMAT
    assert index["of"] == "account"
    names = [table["name"] for table in index["tables"]]
    assert {f"{name}.{kind}" for name in names for kind in ("json", "csv")} | {
        "index.json",
        "README.txt",
    } == set(archive.namelist())
    (device,) = rows_of(archive, "devices")
    assert device["hostname"] == "alices-laptop"
    (scan,) = rows_of(archive, "scans")
    assert scan["paths"] == ["/home/alice/secret plans"]
    assert rows_of(archive, "person")[0]["email"] == alice.email
    for table in index["tables"]:
        sheet = list(
            csv.reader(io.StringIO(archive.read(f"{table['name']}.csv").decode("utf-8-sig")))
        )
        columns = [column["name"] for column in table["columns"]]
        assert sheet[0] == columns
        assert len(sheet) - 1 == len(rows_of(archive, table["name"])) == table["rows"]


def test_no_secret_is_in_a_copy(alice: User, laptop: Device) -> None:
    browser = signed_in_tab(alice.email)
    _seed, codes = add_app(browser)
    _token, text = tokens.create(alice, name="script", scopes=["devices:read"], days=7)
    archive = packed(alice)
    everything = b"".join(archive.read(name) for name in archive.namelist()).decode()
    alice.refresh_from_db()
    for secret in (*codes, text, alice.password, laptop.thumbprint):
        assert secret not in everything
    assert "totp" in everything


def test_a_member_gets_a_copy_of_their_own_only(
    alice: User, bob: User, laptop: Device, alices_account: Account
) -> None:
    Membership.objects.filter(user=bob).update(role=Role.HELPER)
    own = device_of(alices_account, hostname="bobs-desktop", member=bob)
    threat_of(own, path="/home/bob/diary.txt")
    archive = packed(bob)
    assert json.loads(archive.read("index.json"))["of"] == "person"
    assert [row["hostname"] for row in rows_of(archive, "devices")] == ["bobs-desktop"]
    assert [row["path"] for row in rows_of(archive, "threats")] == ["/home/bob/diary.txt"]
    everything = b"".join(archive.read(name) for name in archive.namelist()).decode()
    assert "alices-laptop" not in everything
    assert alice.email not in everything


def test_the_owners_copy_shows_of_a_members_device_what_the_member_shares(
    alice: User, bob: User, laptop: Device, alices_account: Account
) -> None:
    own = device_of(alices_account, hostname="bobs-desktop", member=bob)
    threat_of(own, path="/home/bob/diary.txt", title="Found at Bob's")
    for shares, titles, path in (
        ("state", 1, False),
        ("findings", 2, False),
        ("paths", 2, True),
    ):
        Membership.objects.filter(user=bob).update(shares=shares)
        archive = packed(alice)
        found = rows_of(archive, "threats")
        assert len(found) == titles, shares
        assert ("/home/bob/diary.txt" in str(found)) == path, shares
        assert len(rows_of(archive, "devices")) == 2


def test_row80_a_cell_that_a_spreadsheet_would_run_is_text(alice: User, laptop: Device) -> None:
    archive = packed(alice)
    sheet = archive.read("threats.csv").decode("utf-8-sig")
    assert '"\'=HYPERLINK(alice)"' in sheet
    assert rows_of(archive, "threats")[0]["path"] == "=HYPERLINK(alice)", "JSON stays exact"


@pytest.mark.parametrize(
    "text",
    ["=1+1", "@SUM(A1)", "+1", "-1", "\t=1", "\r=1", ";=1", " =1", "|calc", "＝1", "%0A=1", "\n=1"],  # noqa: RUF001
)
def test_a46_every_beginning_of_a_formula_gets_an_apostrophe(text: str) -> None:
    assert cell(text) == f"'{text}"


@pytest.mark.parametrize(
    ("value", "shown"),
    [("plain", "plain"), ("", ""), (None, ""), (-5, "-5"), (True, "true"), (["a"], '["a"]')],
)
def test_other_cells_stay_as_they_are(value: object, shown: str) -> None:
    assert cell(value) == shown


def test_the_document_of_the_format_says_what_the_code_does() -> None:
    text = DOCUMENT.read_text()
    written = {}
    for part in re.split(r"^##+ ", text, flags=re.MULTILINE):
        named = re.match(r"`(\w+)`\n\n(.*)", part, re.DOTALL)
        if named is None:
            continue
        name, rest = named.groups()
        means = rest.split("\n", 1)[0]
        written[name] = (means, dict(re.findall(r"^\| `(\w+)` \| (.*?) \|$", rest, re.MULTILINE)))
    coded = {table.name: (table.means, dict(table.columns)) for table in privacy.tables()}
    assert written == coded
    assert exports.FORMAT in text
    assert leaving.RECEIPT_FORMAT in text


def test_every_table_of_the_database_is_answered_for() -> None:
    covered = {label for room in privacy.rooms() for label in room.covers}
    there = {model._meta.label for model in apps.get_models(include_auto_created=False)}
    assert there - covered == set(), "say in the room's privacy.py how these forget a person"
    assert covered - there == set()


def test_asked_twice_it_is_packed_once(alice: User, laptop: Device) -> None:
    first = exports.ask(alice, HERE)
    assert exports.ask(alice, HERE).pk == first.pk
    assert exports.pack_due(timezone.now()) == 1
    assert exports.pack_due(timezone.now()) == 0
    told = Mail.objects.filter(to=alice.email, kind="account.export_ready")
    assert told.count() == 1
    first.refresh_from_db()
    file = exports.file_of(first)
    assert first.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert first.size == file.stat().st_size
    assert file.stat().st_mode & 0o077 == 0


def test_a_worker_killed_while_packing_loses_and_doubles_nothing(
    alice: User, laptop: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    export = exports.ask(alice, HERE)

    def killed(*_args: Any, **_more: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(exports, "_write_table", killed)
        with pytest.raises(KeyboardInterrupt):
            exports.pack_due(timezone.now())
    assert exports.pack_due(timezone.now()) == 0, "its lease still runs"
    later = timezone.now() + exports.LEASE
    with time_machine.travel(later, tick=False):
        assert exports.pack_due(timezone.now()) == 1
    export.refresh_from_db()
    assert export.state == Export.State.READY
    assert Mail.objects.filter(kind="account.export_ready").count() == 1
    assert [path.suffix for path in exports.folder().iterdir()] == [".zip"]


def test_a_worker_that_was_overtaken_settles_nothing(
    alice: User, laptop: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    export = exports.ask(alice, HERE)
    real = exports._write_table
    entered: list[bool] = []

    def slow(*args: Any, **more: Any) -> int:
        if not entered:
            entered.append(True)
            with time_machine.travel(timezone.now() + exports.LEASE, tick=False):
                assert exports.pack_due(timezone.now()) == 1
        return real(*args, **more)

    monkeypatch.setattr(exports, "_write_table", slow)
    assert exports.pack_due(timezone.now()) == 1
    export.refresh_from_db()
    assert export.tries == 2
    assert Mail.objects.filter(kind="account.export_ready").count() == 1


def test_what_can_not_be_packed_is_given_up_and_said(
    alice: User, laptop: Device, alices_browser: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    exports.ask(alice, HERE)

    def fails(*_args: Any, **_more: Any) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(exports, "_write_table", fails)
    at = timezone.now()
    for _try in range(exports.MOST_TRIES + 1):
        with time_machine.travel(at, tick=False):
            exports.pack_due(timezone.now())
        at += exports.LEASE
    page = alices_browser.get("/account/privacy/").content.decode()
    assert "Packing it failed three times" in page
    assert "Pack a copy" in page


def test_a_copy_is_deleted_from_disk_after_a_day(alice: User, laptop: Device) -> None:
    packed(alice)
    stray = exports.folder() / f"{uuid4()}.zip"
    stray.write_bytes(b"x")
    (file,) = (path for path in exports.folder().iterdir() if path != stray)
    soon = timezone.now() + exports.KEPT
    assert exports.forget_old(soon - timedelta(minutes=1)) == 1, "only the stray one"
    assert file.exists()
    assert exports.forget_old(soon) == 1
    assert not file.exists()
    assert not Export.objects.exists()


# -- on the page -----------------------------------------------------------------------------------


def prove(browser: Client, path: str, **fields: str) -> Any:
    """Ask for something that wants to know again who it is, tell, and ask once more."""
    asked = browser.post(path, fields)
    assert "/reauthenticate/" in asked["Location"], path
    browser.post(asked["Location"], {"password": PASSWORD})
    return browser.post(path, fields, follow=True)


def test_v7_5_1_a_copy_takes_a_fresh_proof_and_only_its_owner_may_fetch_it(
    alice: User, laptop: Device, charlie: User
) -> None:
    browser = signed_in_tab(alice.email)
    with time_machine.travel(timezone.now() + timedelta(minutes=20)):
        assert not Export.objects.exists()
        page = prove(browser, "/account/privacy/export/").content.decode()
        assert "Your copy is being packed" in page
        exports.pack_due(timezone.now())
        page = browser.get("/account/privacy/").content.decode()
        found = re.search(r"/account/privacy/export/([0-9a-f-]{36})/", page)
        assert found is not None
        charlies = signed_in_tab(charlie.email)
        asked = charlies.get(found[0])["Location"]
        charlies.post(asked, {"password": PASSWORD})
        assert charlies.get(found[0]).status_code == 404
        assert tab().get(found[0]).status_code == 302
        answer = browser.get(found[0])
        assert answer.status_code == 200
        body = b"".join(answer)
        assert zipfile.ZipFile(io.BytesIO(body)).testzip() is None
        # Rows 62 and 77.
        assert re.fullmatch(
            r'attachment; filename="account-copy-\d{4}-\d\d-\d\d\.zip"',
            answer["Content-Disposition"],
        )
        assert answer["X-Content-Type-Options"] == "nosniff"
        assert answer["Content-Security-Policy"] == "default-src 'none'; sandbox"
        assert answer["Cache-Control"] == "no-store"
    with time_machine.travel(timezone.now() + timedelta(hours=25)):
        again = signed_in_tab(alice.email)
        again.post(again.get(found[0])["Location"], {"password": PASSWORD})
        assert again.get(found[0]).status_code == 404
    outbox.send_due(timezone.now())
    assert not Mail.objects.filter(subject__contains=found[1]).exists()
    for file in (exports.folder().parent / "mail").glob("*.eml"):
        assert found[1] not in file.read_text(), "the mail leads to the page, to nothing else"


def test_the_page_takes_few_queries_however_much_there_is(
    alice: User, laptop: Device, django_assert_max_num_queries: Any, alices_browser: Client
) -> None:
    packed(alice)
    alices_browser.get("/account/privacy/")
    with django_assert_max_num_queries(5):
        alices_browser.get("/account/privacy/")


def test_who_belongs_to_no_account_can_take_a_copy_and_leave(db: None) -> None:
    from server.tests.conftest import person

    dora = person("dora@example.org", "Dora")
    browser = signed_in_tab(dora.email)
    assert browser.get("/account/privacy/").status_code == 200
    assert json.loads(packed(dora).read("index.json"))["of"] == "person"
    sentenced(dora)
    assert not User.objects.filter(pk=dora.pk).exists()


# -- leaving ---------------------------------------------------------------------------------------


def test_v7_5_3_deleting_takes_a_fresh_proof_and_says_exactly_what_goes(
    alice: User, bob: User, laptop: Device
) -> None:
    browser = signed_in_tab(alice.email)
    elsewhere = signed_in_tab(alice.email)
    with time_machine.travel(timezone.now() + timedelta(minutes=20)):
        asked = browser.get("/account/privacy/delete/")
        assert "/reauthenticate/" in asked["Location"]
        answer = browser.post(asked["Location"], {"password": PASSWORD}, follow=True)
        page = answer.content.decode()
        assert "1 device:" in page
        assert "The place of 1 other member" in page
        assert "The subscription" in page
        assert browser.post("/account/privacy/delete/").status_code == 422
        assert not Deletion.objects.exists()
        answer = browser.post("/account/privacy/delete/", {"understood": "yes"}, follow=True)
        assert "Keep the account" in answer.content.decode()
        assert is_signed_in(browser)
        assert not is_signed_in(elsewhere), "every other session has ended"
        told = {mail.to: mail.subject for mail in Mail.objects.filter(kind__contains="deletion")}
        assert told[alice.email].startswith("Your account will be deleted on ")
        assert told[bob.email] == "An account you belong to will be deleted"


def test_the_account_is_kept_by_signing_in_and_one_click(alice: User, laptop: Device) -> None:
    leaving.ask(alice, keep_session=None, origin=HERE)
    with time_machine.travel(timezone.now() + timedelta(days=6, hours=23)):
        browser = signed_in_tab(alice.email)
        page = browser.get("/").content.decode()
        assert "Your account will be deleted on" in page
        answer = browser.post("/account/privacy/keep/", follow=True)
        assert "Your account stays" in answer.content.decode()
        assert "will be deleted" not in browser.get("/").content.decode()
    turn(timezone.now() + timedelta(days=30))
    assert User.objects.filter(pk=alice.pk).exists()
    assert Mail.objects.filter(to=alice.email, subject="Your account stays").exists()
    laptop.refresh_from_db()
    assert laptop.revoked_at is None


def test_nothing_is_deleted_before_its_time(alice: User, laptop: Device) -> None:
    leaving.ask(alice, keep_session=None, origin=HERE)
    turn(timezone.now() + leaving.GRACE - timedelta(minutes=1))
    assert Detection.objects.count() == 1
    laptop.refresh_from_db()
    assert laptop.revoked_at is None


def test_once_the_deleting_has_begun_nobody_cancels(alice: User, laptop: Device) -> None:
    leaving.ask(alice, keep_session=None, origin=HERE)
    assert leaving.delete_due(timezone.now() + leaving.GRACE) == 1
    with pytest.raises(leaving.TooLate):
        leaving.cancel(alice, origin=HERE)


def test_asked_twice_the_first_date_stays(alice: User, laptop: Device) -> None:
    first = leaving.ask(alice, keep_session=None, origin=HERE)
    with time_machine.travel(timezone.now() + timedelta(days=3)):
        assert leaving.ask(alice, keep_session=None, origin=HERE).due_at == first.due_at


def test_the_only_operator_stays(alice: User) -> None:
    alice.is_operator = True
    alice.save()
    with pytest.raises(leaving.LastOperator):
        leaving.ask(alice, keep_session=None, origin=HERE)


def test_v7_4_2_row37_sessions_tokens_and_links_die_when_the_deleting_begins(
    alice: User, laptop: Device
) -> None:
    tab().post("/password/reset/", {"email": alice.email})
    link = reset_link()
    _token, text = tokens.create(alice, name="script", scopes=["devices:read"], days=30)
    leaving.ask(alice, keep_session=None, origin=HERE)
    browser = signed_in_tab(alice.email)
    with time_machine.travel(timezone.now() + timedelta(minutes=1)):
        assert leaving.delete_due(timezone.now() + leaving.GRACE) == 1
        assert not is_signed_in(browser)
        assert not UserSession.objects.filter(
            session_key__in=Session.objects.values("session_key")
        ).exists()
        asked = tab().get("/api/v1/devices", headers={"Authorization": f"Bearer {text}"})
        assert asked.status_code == 401
        assert "password1" not in tab().get(link, follow=True).content.decode()
        again = tab()
        type_password(again, alice.email)
        assert not is_signed_in(again)


def test_a_removed_device_learns_so_also_after_its_row_is_gone(alice: User, laptop: Device) -> None:
    key, epoch = laptop.thumbprint, laptop.epoch
    Device.objects.filter(pk=laptop.pk).update(public_key="A" * 43)
    leaving.ask(alice, keep_session=None, origin=HERE)
    leaving.delete_due(timezone.now() + leaving.GRACE)
    (change,) = presence.changed_since(timezone.now() - timedelta(seconds=5))
    assert change.revoked, "gateways learn within a second"
    turn(timezone.now() + leaving.GRACE)
    assert not Device.objects.exists()
    state = presence.load([laptop.pk])[laptop.pk]
    assert state.revoked
    assert state.epoch == epoch + 1
    found = presence.by_key(key)
    assert found is not None
    assert found[0].revoked_at is not None
    from doorward.devices import privacy as devices_privacy

    assert devices_privacy.forget_gone(timezone.now() + timedelta(days=400)) == 1
    assert presence.by_key(key) is None


def test_billing_ends_with_the_account(alice: User, laptop: Device) -> None:
    assert Subscription.objects.count() == 1
    account = laptop.account_id
    sentenced(alice)
    assert not Subscription.objects.exists()
    assert entitlement.of_many([account])[account].state == "expired"


def test_a_member_leaves_alone_and_takes_their_device(
    alice: User, bob: User, laptop: Device, alices_account: Account
) -> None:
    own = device_of(alices_account, hostname="bobs-desktop", member=bob)
    threat_of(own, path="/home/bob/diary.txt")
    sentenced(bob)
    assert not User.objects.filter(pk=bob.pk).exists()
    assert [device.hostname for device in Device.objects.all()] == ["alices-laptop"]
    assert Detection.objects.count() == 1
    assert members.account_of(alice).pk == alices_account.pk


def test_an_account_with_another_owner_stays(
    alice: User, bob: User, laptop: Device, alices_account: Account
) -> None:
    Membership.objects.filter(user=bob).update(role=Role.OWNER)
    assert privacy.whose(alice).accounts == ()
    sentenced(alice)
    assert Account.objects.filter(pk=alices_account.pk).exists()
    assert not User.objects.filter(pk=alice.pk).exists()


@pytest.fixture
def second_account(alice: User, charlie: User) -> Account:
    """Another account that Alice alone owns, with Charlie and a device in it."""
    account = Account.objects.create(name="The bakery")
    Membership.objects.create(account=account, user=alice, role=Role.OWNER)
    Membership.objects.create(account=account, user=charlie, role=Role.VIEWER)
    entitlement.start_default(account)
    device = device_of(account, hostname="bakery-till")
    scan_of(device)
    threat_of(device, path="/srv/till")
    return account


def written(address: str, kind: str) -> str:
    """Return the text of the only mail of this kind to this address."""
    mail = Mail.objects.get(to=address, kind=kind)
    file = Path(settings.DATA) / "mail" / f"{mail.pk}.eml"
    message = email.message_from_bytes(file.read_bytes(), policy=email.policy.default)
    body = message.get_body(("plain",))
    assert body is not None
    return " ".join(body.get_content().split())


def test_who_alone_owns_two_accounts_takes_both_along(
    alice: User,
    bob: User,
    charlie: User,
    laptop: Device,
    alices_account: Account,
    second_account: Account,
) -> None:
    Account.objects.filter(pk=alices_account.pk).update(name="At home")
    browser = signed_in_tab(alice.email)
    browser.post("/reauthenticate/", {"password": PASSWORD})
    page = browser.get("/account/privacy/delete/").content.decode()
    assert "The 2 accounts you alone own:" in page
    assert "<b>At home</b>" in page
    assert "<b>The bakery</b>" in page
    assert "2 devices:" in page
    assert "What stays" not in page
    browser.post("/account/privacy/delete/", {"understood": "yes"})
    outbox.send_due(timezone.now())
    bobs, charlies = (written(who.email, "account.deletion_member") for who in (bob, charlie))
    assert "the account “At home” will be deleted on" in bobs
    assert "the account “The bakery” will be deleted on" in charlies
    assert "bakery" not in bobs
    turn(timezone.now() + leaving.GRACE)
    assert not Account.objects.filter(pk__in=[alices_account.pk, second_account.pk]).exists()
    assert not Device.objects.exists()
    assert not Subscription.objects.filter(account=second_account.pk).exists()
    counts = leaving.counts_of(Receipt.objects.get())
    assert {kind: counts[kind] for kind in ("accounts", "devices", "scans", "members")} == {
        "accounts": 2,
        "devices": 2,
        "scans": 2,
        "members": 4,
    }
    gone = Mail.objects.filter(kind="account.deletion_member_done")
    assert sorted(gone.values_list("to", flat=True)) == [bob.email, charlie.email]
    outbox.send_due(timezone.now() + leaving.GRACE + timedelta(minutes=5))
    assert "bakery" in written(charlie.email, "account.deletion_member_done")
    assert not DoomedAccount.objects.exists()


def test_of_two_accounts_the_one_owned_with_another_stays(
    alice: User,
    bob: User,
    charlie: User,
    laptop: Device,
    alices_account: Account,
    second_account: Account,
) -> None:
    Membership.objects.filter(account=second_account, user=charlie).update(role=Role.OWNER)
    browser = signed_in_tab(alice.email)
    browser.post("/reauthenticate/", {"password": PASSWORD})
    page = browser.get("/account/privacy/delete/").content.decode()
    going, _, staying = page.partition("What stays")
    assert "The bakery" in staying
    assert "The bakery" not in going
    assert "1 device:" in going
    sentenced(alice)
    assert not Account.objects.filter(pk=alices_account.pk).exists()
    assert Account.objects.filter(pk=second_account.pk, memberships__user=charlie).exists()
    assert [device.hostname for device in Device.objects.all()] == ["bakery-till"]
    assert Subscription.objects.filter(account=second_account).exists()


def test_an_account_that_gets_another_owner_meanwhile_stays_and_its_members_are_told(
    alice: User, charlie: User, laptop: Device, alices_account: Account, second_account: Account
) -> None:
    leaving.ask(alice, keep_session=None, origin=HERE)
    Membership.objects.filter(account=second_account, user=charlie).update(role=Role.OWNER)
    turn(timezone.now() + leaving.GRACE)
    assert not Account.objects.filter(pk=alices_account.pk).exists()
    assert Account.objects.filter(pk=second_account.pk).exists()
    told = Mail.objects.filter(to=charlie.email).values_list("kind", flat=True)
    assert "account.deletion_member_cancelled" in told
    assert "account.deletion_member_done" not in told


def test_keeping_everything_is_told_to_the_members_of_both(
    alice: User, bob: User, charlie: User, laptop: Device, second_account: Account
) -> None:
    leaving.ask(alice, keep_session=None, origin=HERE)
    assert leaving.cancel(alice, origin=HERE)
    told = Mail.objects.filter(kind="account.deletion_member_cancelled")
    assert sorted(told.values_list("to", flat=True)) == [bob.email, charlie.email]
    assert not DoomedAccount.objects.exists()


def test_the_copy_holds_every_account_that_is_theirs_alone(
    alice: User, charlie: User, laptop: Device, alices_account: Account, second_account: Account
) -> None:
    archive = packed(alice)
    both = {str(alices_account.pk), str(second_account.pk)}
    assert {row["hostname"] for row in rows_of(archive, "devices")} == {
        "alices-laptop",
        "bakery-till",
    }
    assert "/srv/till" in {row["path"] for row in rows_of(archive, "threats")}
    for table in ("subscription", "members"):
        assert {row["account"] for row in rows_of(archive, table)} == both, table
    found = exports.newest_of(alice)
    assert found is not None
    Membership.objects.filter(account=second_account, user=charlie).update(role=Role.OWNER)
    assert exports.newest_of(alice) is None, "it holds what is not theirs alone any more"
    assert exports.fetch(alice, found.pk, HERE) is None


def test_a_worker_killed_at_any_step_loses_and_doubles_no_count(
    alice: User, laptop: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(9):
        threat_of(laptop, path=f"/home/alice/{number}")
        scan_of(laptop)
    monkeypatch.setattr(leaving, "ROWS_AT_ONCE", 3)
    monkeypatch.setattr(leaving, "STEPS_A_TURN", 2)
    leaving.ask(alice, keep_session=None, origin=HERE)
    real, kills = leaving._step, iter([0, 1, 1, 0, 1] * 100)

    def mortal(*args: Any) -> bool:
        over = real(*args)
        if next(kills):
            raise KeyboardInterrupt
        return over

    monkeypatch.setattr(leaving, "_step", mortal)
    at = timezone.now() + leaving.GRACE
    for _round in range(60):
        with time_machine.travel(at, tick=False), contextlib.suppress(KeyboardInterrupt):
            leaving.delete_due(timezone.now())
        at += leaving.LEASE
    counts = leaving.counts_of(Receipt.objects.get())
    assert (counts["threats"], counts["scans"], counts["devices"]) == (10, 10, 1)
    assert Mail.objects.filter(kind="account.deleted").count() == 1


def residue(words: list[str]) -> list[str]:
    """Return where in the database, decoded sessions included, one of these words stands."""
    found = []
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names():
            cursor.execute(f'SELECT * FROM "{table}"')  # noqa: S608 - the database's own names
            for row in cursor.fetchall():
                text = " ".join(
                    bytes(value).decode("utf-8", "replace")
                    if isinstance(value, (bytes, memoryview))
                    else str(value)
                    for value in row
                ).casefold()
                found += [f"{table}: {word}" for word in words if word.casefold() in text]
    from doorward.accounts.session_store import SessionStore

    for session in Session.objects.all():
        held = str(SessionStore().decode(session.session_data)).casefold()
        found += [f"session: {word}" for word in words if word.casefold() in held]
    return found


def files_with(folder: Path, words: list[str]) -> list[str]:
    """Return which files hold one of these words."""
    found = []
    for path in folder.rglob("*"):
        if path.is_file() and not path.name.startswith("test.sqlite3"):
            text = path.read_bytes().decode("utf-8", "replace").replace("=\n", "").casefold()
            found += [f"{path.name}: {word}" for word in words if word.casefold() in text]
    return found


def test_n9_nothing_of_alice_is_left(
    alice: User, bob: User, charlie: User, laptop: Device, alices_account: Account, settings: Any
) -> None:
    browser = signed_in_tab(alice.email, "Alices own browser/1.0")
    add_app(browser)
    browser.post("/account/", {"name": "Alice Liddell", "zone": ""})
    alice.refresh_from_db()
    tokens.create(alice, name="alices script", scopes=["devices:read"], days=30)
    type_password(tab("Alices own browser/2.0"), alice.email)  # stops at the second step
    type_password(tab(), alice.email, "a wrong password of hers")
    tab().post("/password/reset/", {"email": alice.email})
    Ticket.objects.create(
        number="T-1", user_id=alice.pk, reply_to=alice.email, words="x", created_at=timezone.now()
    )
    invitations.invite(
        members.account_of(charlie),
        email=alice.email,
        role=Role.VIEWER,
        actor=charlie,
        origin=HERE,
    )
    trail.record(
        "device.renamed", account=alices_account, actor=bob, before="x", after="alices-laptop"
    )
    packed(alice)
    outbox.send_due(timezone.now())
    words = [
        "alice@example.org",
        "Liddell",
        "alices-laptop",
        "alices script",
        "Alices own browser",
        "/home/alice",
        "HYPERLINK",
        "secret plans",
        str(alice.pk),
        alice.pk.hex,
        str(alices_account.pk),
        alices_account.pk.hex,
    ]
    before = residue(words)
    seen = {entry.rpartition(": ")[2] for entry in before}
    # SQLite keeps ids without dashes.
    assert set(words) - seen <= {alice.pk.hex, alices_account.pk.hex}, "the search finds things"
    assert files_with(settings.DATA, ["alice@example.org"])

    sentenced(alice)
    outbox.send_due(timezone.now() + leaving.GRACE + timedelta(minutes=5))
    later = timezone.now() + leaving.GRACE + timedelta(days=8)
    assert leaving.forget_mail(later) == 2, "the receipt's, and what Bob was told"

    assert residue(words) == []
    assert files_with(settings.DATA, words) == []
    assert trail.seal() >= 0
    verdict = trail.verify()
    assert verdict.intact, verdict.fault
    # Others keep what is theirs.
    assert User.objects.filter(email__in=[bob.email, charlie.email]).count() == 2
    assert Event.objects.filter(actor_id=charlie.pk).exists()
    assert is_signed_in(signed_in_tab(charlie.email))
    assert (Scan.objects.count(), GoneDevice.objects.count()) == (0, 1)


def test_the_receipt_says_what_went_and_can_be_verified(
    alice: User, bob: User, laptop: Device, settings: Any
) -> None:
    sentenced(alice)
    outbox.send_due(timezone.now() + leaving.GRACE + timedelta(minutes=5))
    assert not Mail.objects.filter(to=alice.email).exists(), "the last mail's row is gone"
    (mail,) = (
        text
        for file in (settings.DATA / "mail").glob("*.eml")
        if "deleted for good"
        in (text := file.read_text().replace("=\n", "").replace("=3D", "="))
        .casefold()
        .replace("\r", "")
        or "Deleted for good" in text
    )
    found = re.search(r"http://localhost:\d+(/deleted/[\w-]{32}/)", mail)
    assert found is not None
    page = tab().get(found[1])
    assert page.status_code == 200
    assert page["Referrer-Policy"] == "no-referrer"
    assert page["Cache-Control"] == "no-store"
    words = page.content.decode()
    assert "1 device" in words
    assert "1 threat" in words
    file = tab().get(f"{found[1]}receipt.json")
    assert file["Content-Disposition"].startswith('attachment; filename="deletion-receipt-')
    assert file["Content-Security-Policy"] == "default-src 'none'; sandbox"
    said = json.loads(file.content)
    assert said["format"] == leaving.RECEIPT_FORMAT
    assert said["deleted"]["devices"] == said["deleted"]["threats"] == 1
    assert said["deleted"]["members"] == 2
    checksum = hashlib.sha256(file.content).hexdigest()
    assert checksum in words
    assert checksum in mail
    event = Event.objects.get(tag="account.deleted")
    assert json.loads(event.detail) == {"receipt": said["receipt"], "sha256": checksum}
    assert alice.email not in file.content.decode()
    assert leaving.is_genuine(Receipt.objects.get())
    assert tab().get("/deleted/wrong/").status_code == 404
    assert tab().get("/deleted/wrong/receipt.json").status_code == 404
