"""Several devices at once, what was asked of all of them, and a scan's report from its command."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from server.tests.conftest import PASSWORD
from server.tests.portal.stock import device_of, scan_of
from server.tests.portal.test_protection_settings import change_in

from doorward.accounts.models import Account, Membership, Role, Shares, User
from doorward.devices import commands
from doorward.devices.models import Command, CommandState, Device
from doorward.protection import policy
from doorward.protection.models import Group
from doorward.protection.policy import Delta
from doorward_protocol.messages import COMMAND_KINDS, CommandArgs

pytestmark = pytest.mark.django_db
ABLE = [*COMMAND_KINDS, "settings"]


@pytest.fixture
def three(alices_account: Account) -> list[Device]:
    names = ("kitchen", "office", "attic")
    return [device_of(alices_account, hostname=name, capabilities=ABLE) for name in names]


def words(answer: Any) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", answer.content.decode()))


def act(browser: Client, what: str, *devices: Device, **fields: str) -> Any:
    items = [str(device.pk) for device in devices]
    return browser.post("/devices/choose/act/", {"what": what, "item": items, **fields})


def grouped(account: Account, actor: User, *devices: Device) -> Group:
    key = uuid4()
    deltas = [Delta("group", key, {"name": "Children", "values": {}, "locked": []})]
    deltas += [Delta("place", each.pk, {"group": str(key)}) for each in devices]
    policy.save(account, deltas, actor=actor, proven=True)
    return Group.objects.get(pk=key)


def test_all_that_were_chosen_are_asked_and_watched_on_one_page(
    alices_browser: Client, three: list[Device]
) -> None:
    Device.objects.filter(pk=three[2].pk).update(capabilities=[])
    done = act(alices_browser, "quick", *three)
    assert done["Location"] == "/devices/commands/"
    page = words(alices_browser.get("/devices/commands/"))
    assert "2 devices are asked." in page
    assert "1 can’t be asked from here" in page
    assert "2 are going on." in page
    assert "kitchen" in page
    assert "office" in page
    assert {each.args["scope"] for each in Command.objects.all()} == {"quick"}


def test_the_devices_of_a_group_are_chosen_by_a_link(
    alices_browser: Client, alices_account: Account, alice: User, three: list[Device]
) -> None:
    group = grouped(alices_account, alice, *three[:2])
    page = alices_browser.get(f"/devices/choose/?group={group.pk}").content.decode()
    assert page.count(" checked") == 2
    assert (
        f"/devices/choose/?group={group.pk}"
        in alices_browser.get(f"/protection/groups/{group.pk}/").content.decode()
    )
    assert alices_browser.get(f"/devices/choose/?group={uuid4()}").status_code == 404


def test_every_device_is_chosen_by_one_link_and_none_by_another(
    alices_browser: Client, three: list[Device]
) -> None:
    page = alices_browser.get("/devices/choose/")
    assert 'href="?group=all"' in page.content.decode()
    assert "all 3" in words(page)
    assert page.content.count(b" checked") == 0
    every = alices_browser.get("/devices/choose/?group=all").content
    assert every.count(b" checked") == 3
    assert b'href="/devices/choose/" id="choose-none"' in every


def test_where_devices_are_chosen_removing_does_not_weigh_as_much_as_scanning(
    alices_browser: Client, three: list[Device]
) -> None:
    page = alices_browser.get("/devices/choose/").content.decode()
    assert page.count("button-lamp") == 1
    assert "button-danger" not in page
    assert "button-danger" in act(alices_browser, "remove", *three).content.decode()


def test_several_move_into_a_group_after_a_look(
    alices_browser: Client, alices_account: Account, alice: User, three: list[Device]
) -> None:
    group = grouped(alices_account, alice)
    looked = act(alices_browser, "move", *three, group=str(group.pk))
    assert "3 devices move" in words(looked)
    alices_browser.post("/protection/save/", {"change": change_in(looked)})
    assert len(policy.state_of(alices_account).in_group(group.pk)) == 3
    out = act(alices_browser, "move", *three[:2], group="")
    alices_browser.post("/protection/save/", {"change": change_in(out)})
    assert len(policy.state_of(alices_account).in_group(group.pk)) == 1


def test_v7_5_3_removing_several_asks_once_more_and_takes_a_fresh_proof(
    alices_browser: Client, three: list[Device]
) -> None:
    sure = act(alices_browser, "remove", *three)
    assert "Remove 3 devices?" in words(sure)
    stolen = act(alices_browser, "remove", *three, sure="1")
    assert stolen["Location"].startswith("/reauthenticate/")
    assert Device.objects.filter(revoked_at=None).count() == 3
    alices_browser.post(stolen["Location"], {"password": PASSWORD})
    assert Device.objects.filter(revoked_at=None).count() == 3
    act(alices_browser, "remove", *three, sure="1")
    assert Device.objects.filter(revoked_at=None).count() == 0


def test_nothing_chosen_too_many_and_others_devices(
    alices_browser: Client, charlie: User, three: list[Device]
) -> None:
    answer = act(alices_browser, "quick")
    assert answer.status_code == 422
    assert "Choose at least one device." in words(answer)
    theirs = device_of(Account.objects.exclude(pk=three[0].account_id).get(), capabilities=ABLE)
    assert act(alices_browser, "quick", theirs).status_code == 422
    assert act(alices_browser, "explode", *three).status_code == 400
    assert not Command.objects.exists()


@pytest.mark.parametrize("role", [Role.VIEWER, Role.BILLING])
def test_who_may_only_look_asks_nothing(
    bobs_browser: Client, bob: User, three: list[Device], role: Role
) -> None:
    Membership.objects.filter(user=bob).update(role=role)
    assert bobs_browser.get("/devices/choose/").status_code == 403
    for what in ("quick", "full", "move", "remove"):
        assert act(bobs_browser, what, *three, sure="1").status_code == 403
    assert bobs_browser.get("/devices/commands/").status_code == 200
    assert not Command.objects.exists()


def test_what_was_asked_is_narrowed_by_how_far_it_is_and_by_what_it_is(
    alices_browser: Client, three: list[Device]
) -> None:
    quick = CommandArgs(scope="quick")
    for device, state in zip(
        three, (CommandState.DONE, CommandState.EXPIRED, CommandState.QUEUED), strict=True
    ):
        made = commands.ask(device, "scan.run", quick, actor=None)
        Command.objects.filter(pk=made.pk).update(state=state, ended_at=timezone.now())
    commands.ask(three[0], "diagnostics.collect", actor=None)

    def lines(query: str) -> int:
        return alices_browser.get(f"/devices/commands/{query}").content.count(b"order-line")

    assert lines("") == 4
    assert lines("?how=done") == 1
    assert lines("?how=not") == 1
    assert lines("?how=open") == 2
    assert lines("?kind=diagnostics.collect") == 1
    assert lines("?how=done&kind=diagnostics.collect") == 0
    nothing = alices_browser.get("/devices/commands/?how=done&kind=diagnostics.collect")
    assert "Nothing fits" in words(nothing)
    assert alices_browser.get("/devices/commands/?how=x").status_code == 400
    assert alices_browser.get(f"/devices/{three[0].pk}/commands/all/?how=open").status_code == 200


def test_a_filter_stays_from_page_to_page(alices_browser: Client, three: list[Device]) -> None:
    for number in range(40):
        args = CommandArgs(paths=(f"/home/{number}",))
        commands.ask(three[0], "scan.run", args, actor=None)
    first = alices_browser.get("/devices/commands/?how=open").content.decode()
    older = re.search(r'rel="next" href="([^"]+)"', first)
    assert older is not None
    address = older[1].replace("&amp;", "&")
    assert "how=open" in address
    rest = alices_browser.get(f"/devices/commands/{address}").content
    assert rest.count(b"order-line") == 10


def test_a_scan_that_was_asked_for_leads_to_its_report(
    alices_browser: Client, three: list[Device], bob: User
) -> None:
    quick = CommandArgs(scope="quick")
    command = commands.ask(three[0], "scan.run", quick, actor=None)
    address = f"/devices/{three[0].pk}/commands/{command.uid}/"
    assert b"report-of-scan" not in alices_browser.get(address).content
    scan = scan_of(three[0], command_uid=command.uid, time=timezone.now() - timedelta(minutes=1))
    scan_of(three[1], command_uid=command.uid)
    assert f'href="/reports/scans/{scan.uid}/"' in alices_browser.get(address).content.decode()
    Device.objects.update(member=bob)
    Membership.objects.filter(user=bob).update(shares=Shares.STATE)
    assert b"report-of-scan" not in alices_browser.get(address).content


def test_a_command_is_taken_back_from_its_own_page(
    alices_browser: Client, three: list[Device]
) -> None:
    command = commands.ask(three[0], "scan.run", CommandArgs(scope="full"), actor=None)
    address = f"/devices/{three[0].pk}/commands/{command.uid}/"
    assert f"cancel-{command.uid}" in alices_browser.get(address).content.decode()
    done = alices_browser.post(f"{address}cancel/", {"back": "command"})
    assert done["Location"] == address
    assert Command.objects.get().state == CommandState.CANCELED


PAGES = [
    "/devices/",
    "/devices/choose/",
    "/devices/commands/",
    "/protection/",
    "/protection/settings/quick-scan/",
    "/protection/groups/new/",
    "/protection/groups/{group}/",
    "/protection/groups/{group}/edit/",
    "/protection/versions/",
    "/devices/{device}/",
    "/devices/{device}/settings/",
    "/devices/{device}/replace/",
    "/devices/{device}/commands/all/",
    "/reports/quarantine/",
]


@pytest.mark.parametrize("page", PAGES)
def test_a_page_asks_the_database_the_same_for_1_20_and_200_devices(
    alices_browser: Client, alices_account: Account, alice: User, page: str
) -> None:
    asked = []
    group = grouped(alices_account, alice)
    number = 0
    for total in (1, 20, 200):
        while number < total:
            device = device_of(alices_account, hostname=f"d{number}", capabilities=ABLE)
            commands.ask(device, "scan.run", CommandArgs(scope="quick"), actor=alice)
            number += 1
        place = [Delta("place", each.pk, {"group": str(group.pk)}) for each in Device.objects.all()]
        policy.save(alices_account, place, actor=alice, proven=True)
        newest = Device.objects.order_by("-id").first()
        assert newest is not None
        address = page.format(device=newest.pk, group=group.pk)
        alices_browser.get(address)
        with CaptureQueriesContext(
            connection,
        ) as queries:
            assert alices_browser.get(address).status_code == 200
        asked.append(len(queries))
    assert len(set(asked)) == 1, asked
    assert asked[0] <= 20
