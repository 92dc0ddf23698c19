"""Asking a device from its page, and quarantine: truthful words, and who may what."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
import time_machine
from django.test import Client
from django.utils import timezone
from server.tests.conftest import PASSWORD
from server.tests.portal.stock import HOSTILE, device_of, threat_of

from doorward.accounts.models import Account, Membership, Role, Shares, User
from doorward.devices import commands
from doorward.devices.models import Command, CommandState, Device
from doorward_protocol import messages
from doorward_protocol.messages import COMMAND_KINDS, CommandArgs, CommandProgress

pytestmark = pytest.mark.django_db
QUICK = CommandArgs(scope="quick")


@pytest.fixture
def laptop(alices_account: Account) -> Device:
    return device_of(alices_account, hostname="laptop", capabilities=list(COMMAND_KINDS))


def part(browser: Client, device: Device, **headers: str) -> Any:
    return browser.get(f"/devices/{device.pk}/commands/", headers={"HX-Request": "true", **headers})


def words(answer: Any) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", answer.content.decode()))


def ask(browser: Client, device: Device, **fields: str) -> Any:
    headers = {"HX-Request": "true"}
    return browser.post(f"/devices/{device.pk}/commands/ask/", fields, headers=headers)


def heard(command: Command, **state: Any) -> None:
    commands.hear(command.device_id, command.uid, messages.CommandState(**state), timezone.now())


def test_scan_now_asks_once_however_often_it_is_clicked(
    alices_browser: Client, laptop: Device
) -> None:
    uid = str(uuid4())
    for _ in range(3):
        assert ask(alices_browser, laptop, what="quick", fresh=uid).status_code == 200
    answer = ask(alices_browser, laptop, what="quick", fresh=str(uuid4()))
    command = Command.objects.get()
    assert (str(command.uid), command.args) == (uid, {"scope": "quick"})
    # Connected, so something may happen any moment: the part asks often.
    assert 'hx-trigger="every 400ms"' in answer.content.decode()


def test_each_step_is_told_as_it_is_and_never_before(
    alices_browser: Client, laptop: Device
) -> None:
    ask(alices_browser, laptop, what="full")
    command = Command.objects.get()
    assert "On its way" in words(part(alices_browser, laptop))
    commands.send(laptop.pk, timezone.now())
    assert "On its way" in words(part(alices_browser, laptop))
    heard(command, status="accepted")
    assert "laptop knows, and begins soon" in words(part(alices_browser, laptop))
    heard(command, status="running", progress=CommandProgress(files=12_345, bytes=5_000_000))
    told = words(part(alices_browser, laptop))
    assert "Running" in told
    assert "12,345 files looked at" in told
    assert "nothing found so far" in told
    heard(command, status="succeeded", progress=CommandProgress(files=20_000, threats=2))
    told = words(part(alices_browser, laptop))
    assert "Done" in told
    assert "2 threats found" in told


def test_n4_a_device_that_is_away_is_waited_for_and_the_command_expires_at_its_time(
    alices_browser: Client, laptop: Device
) -> None:
    laptop.presence.last_seen = timezone.now() - timedelta(hours=2)
    laptop.presence.save()
    with time_machine.travel(timezone.now(), tick=False) as clock:
        ask(alices_browser, laptop, what="quick")
        told = words(part(alices_browser, laptop))
        assert "Waiting for laptop: it was last seen 2 hr ago" in told
        assert "look-again from:body" in part(alices_browser, laptop).content.decode()
        clock.shift(commands.LIFE - timedelta(seconds=1))
        assert commands.settle_due(timezone.now()) == 0
        assert Command.objects.get().state == CommandState.QUEUED
        clock.shift(timedelta(seconds=1))
        assert commands.settle_due(timezone.now()) == 1
        told = words(part(alices_browser, laptop))
    assert "Not done in time" in told
    assert "did not connect in time. Nothing was done." in told


@pytest.mark.parametrize(
    ("said", "word"),
    [
        ({"status": "interrupted", "code": "crash"}, "stopped before the end of it"),
        ({"status": "rejected", "code": "switched-off-here"}, "switched remote actions off"),
        ({"status": "rejected", "code": "not-allowed"}, "settings do not allow this"),
        ({"status": "failed", "code": "nothing-there"}, "no such file or folder"),
        ({"status": "failed", "code": "x", "detail": HOSTILE}, "&lt;img"),
    ],
)
def test_an_end_that_is_not_done_says_why(
    alices_browser: Client, laptop: Device, said: dict[str, str], word: str
) -> None:
    command = commands.ask(laptop, "scan.run", QUICK, actor=None)
    commands.send(laptop.pk, timezone.now())
    heard(command, **said)
    answer = part(alices_browser, laptop)
    assert word in words(answer)
    assert "Done" not in words(answer)
    assert "<img" not in answer.content.decode()


def test_the_part_is_204_while_nothing_is_new(alices_browser: Client, laptop: Device) -> None:
    command = commands.ask(laptop, "scan.run", QUICK, actor=None)
    tag = part(alices_browser, laptop).headers["ETag"]
    assert part(alices_browser, laptop, **{"If-None-Match": tag}).status_code == 204
    heard(command, status="running")
    assert part(alices_browser, laptop, **{"If-None-Match": tag}).status_code == 200


def test_the_part_takes_the_same_few_queries_however_much_was_asked(
    alices_browser: Client, laptop: Device, django_assert_max_num_queries: Any
) -> None:
    for number in range(40):
        args = CommandArgs(paths=(f"/home/{number}",))
        commands.ask(laptop, "scan.run", args, actor=None)
    with django_assert_max_num_queries(9):
        assert part(alices_browser, laptop).status_code == 200
    with django_assert_max_num_queries(9):
        listed = alices_browser.get(f"/devices/{laptop.pk}/commands/all/")
    assert listed.content.count(b"order-line") == 30
    older = re.search(r'rel="next" href="([^"]+)"', listed.content.decode())
    assert older is not None
    rest = alices_browser.get(f"/devices/{laptop.pk}/commands/all/{older[1]}")
    assert rest.content.count(b"order-line") == 10


def test_a_path_that_is_none_is_told_beside_the_field(
    alices_browser: Client, laptop: Device
) -> None:
    for path in ("", "x", "/a/../b", "/" + "x" * 5000):
        answer = ask(alices_browser, laptop, what="folder", path=path)
        assert 'role="alert"' in answer.content.decode()
    assert not Command.objects.exists()
    ask(alices_browser, laptop, what="folder", path=" /home/alice ")
    assert Command.objects.get().args == {"paths": ["/home/alice"]}


def test_canceled_before_it_was_sent_nothing_was_done(
    alices_browser: Client, laptop: Device
) -> None:
    ask(alices_browser, laptop, what="quick")
    uid = Command.objects.get().uid
    answer = alices_browser.post(f"/devices/{laptop.pk}/commands/{uid}/cancel/", follow=True)
    assert answer.status_code == 200
    assert "Nothing was done." in words(part(alices_browser, laptop))


def test_a_viewer_and_a_stranger_ask_nothing(
    bobs_browser: Client, charlies_browser: Client, laptop: Device
) -> None:
    assert ask(bobs_browser, laptop, what="quick").status_code == 403
    assert ask(charlies_browser, laptop, what="quick").status_code == 404
    page = bobs_browser.get(f"/devices/{laptop.pk}/")
    assert b"Scan now" not in page.content
    assert not Command.objects.exists()


def test_what_was_switched_off_on_the_device_is_said(
    alices_browser: Client, laptop: Device
) -> None:
    Device.objects.update(capabilities=["remote.off"])
    page = alices_browser.get(f"/devices/{laptop.pk}/")
    assert "switched remote actions off on this device itself" in words(page)
    assert b"Scan now" not in page.content
    assert "switched remote actions off" in words(ask(alices_browser, laptop, what="quick"))


def test_of_a_members_private_device_figures_and_folders_are_not_shown(
    alices_browser: Client, laptop: Device, bob: User
) -> None:
    Device.objects.update(member=bob)
    Membership.objects.filter(user=bob).update(shares=Shares.STATE, role=Role.HELPER)
    command = commands.ask(laptop, "scan.run", CommandArgs(paths=("/home/bob/secret",)), actor=bob)
    heard(command, status="succeeded", progress=CommandProgress(files=5, threats=3))
    told = words(part(alices_browser, laptop))
    assert "secret" not in told
    assert "threats" not in told
    assert ask(alices_browser, laptop, what="folder", path="/home/bob").status_code == 404


def test_what_diagnostics_told_is_shown_inert(alices_browser: Client, laptop: Device) -> None:
    command = commands.ask(laptop, "diagnostics.collect", actor=None)
    heard(command, status="succeeded", report=f"agent: 1\n{HOSTILE}")
    page = alices_browser.get(f"/devices/{laptop.pk}/commands/{command.uid}/")
    assert b"agent: 1" in page.content
    assert b"<img src" not in page.content


# -- quarantine ------------------------------------------------------------------------------------


def act(browser: Client, *items: Any, **fields: str) -> Any:
    return browser.post("/reports/quarantine/act/", {"item": [str(x.uid) for x in items], **fields})


@pytest.fixture
def proved(alices_browser: Client) -> Client:
    """Alice, who has just proved again that it is her."""
    answer = alices_browser.post("/reauthenticate/", {"password": PASSWORD})
    assert answer.status_code == 302
    return alices_browser


def test_quarantine_tells_what_where_when_rule_size_and_hash(
    alices_browser: Client, laptop: Device
) -> None:
    threat_of(laptop, sha256="ab" * 32, size=68, path="/home/alice/invoice.com")
    threat_of(laptop, disposition=9, path="/home/alice/restored.com")
    page = alices_browser.get("/reports/quarantine/")
    told = words(page)
    for word in ("invoice.com", "laptop", "eicar", "EICAR test file", "68", "ab" * 32, "Put back"):
        assert word in told
    assert "restored.com" not in told


def test_every_file_in_quarantine_is_chosen_by_one_link(
    alices_browser: Client, laptop: Device
) -> None:
    for _ in range(3):
        threat_of(laptop)
    page = alices_browser.get("/reports/quarantine/?choose=1").content
    assert page.count(b" checked") == 0
    assert b'href="?choose=all"' in page
    # The next page asks once more: only there deleting weighs as much as anything.
    assert b"button-danger" not in page
    assert alices_browser.get("/reports/quarantine/?choose=all").content.count(b" checked") == 3


def test_nothing_in_quarantine_says_so(alices_browser: Client) -> None:
    assert "Nothing is in quarantine" in words(alices_browser.get("/reports/quarantine/"))


def test_a51_putting_back_asks_first_and_takes_a_fresh_proof(
    proved: Client, laptop: Device
) -> None:
    held = threat_of(laptop)
    asked = act(proved, held, what="restore")
    assert "Put this file back?" in words(asked)
    assert not Command.objects.exists()
    with time_machine.travel(timezone.now() + timedelta(minutes=16)):
        later = act(proved, held, what="restore", sure="1")
    assert later.status_code == 302
    assert "/reauthenticate/" in later.headers["Location"]
    assert not Command.objects.exists()
    assert act(proved, held, what="restore", sure="1").status_code == 302
    command = Command.objects.get()
    assert command.args == {"quarantine_id": str(held.quarantine_id)}
    # Nothing is back before the device says so.
    assert "invoice.com" in words(proved.get("/reports/quarantine/"))


def test_a51_many_at_once_come_back_late(proved: Client, laptop: Device) -> None:
    held = [threat_of(laptop) for _ in range(5)]
    assert "15 minutes" in words(act(proved, *held, what="restore"))
    act(proved, *held, what="restore", sure="1")
    found = Command.objects.order_by("id")
    assert [each.not_before > each.created_at for each in found] == [False] * 3 + [True] * 2
    assert "somebody can still stop it" in words(proved.get("/reports/quarantine/"))


def test_a51_what_one_may_not_see_one_cannot_let_out(
    proved: Client, charlies_browser: Client, laptop: Device, bob: User
) -> None:
    held = threat_of(laptop)
    act(charlies_browser, held, what="restore", sure="1")
    Device.objects.update(member=bob)
    Membership.objects.filter(user=bob).update(shares=Shares.FINDINGS)
    page = proved.get("/reports/quarantine/")
    assert b"invoice.com" not in page.content
    act(proved, held, what="delete", sure="1")
    assert not Command.objects.exists()


def test_a_viewer_only_looks_at_quarantine(bobs_browser: Client, laptop: Device) -> None:
    held = threat_of(laptop)
    assert b'name="what"' not in bobs_browser.get("/reports/quarantine/").content
    assert act(bobs_browser, held, what="restore").status_code == 403
    assert "Choose files" not in words(bobs_browser.get("/reports/quarantine/?choose=1"))


def test_quarantine_takes_the_same_queries_for_one_file_and_for_many(
    alices_browser: Client, laptop: Device, django_assert_max_num_queries: Any
) -> None:
    for _ in range(30):
        threat_of(laptop)
    with django_assert_max_num_queries(12):
        page = alices_browser.get("/reports/quarantine/")
    assert page.content.count(b'id="restore-') == 25
    assert alices_browser.get("/reports/quarantine/?at=nonsense").status_code == 400
