"""What holds for each page: closed to strangers, inert, nothing inline, nothing cached."""

from __future__ import annotations

import re

import pytest
from django.test import Client
from django.urls import URLPattern, get_resolver
from server.tests.portal.stock import HOSTILE, device_of, scan_of, threat_of

from doorward.devices.models import Device
from doorward.portal import texts
from doorward.portal import urls as portal_urls
from doorward.reports.models import Disposition

# Only somebody half-way through signing in may see these; others begin again.
HALF_WAY = {"mfa_authenticate", "recovery", "recovery_enter", "approval_wait"}
# Anybody may read these; everything else of ours asks who you are.
OPEN = {
    "help",
    "help_ask",
    "self_test",
    "self_test_answer",
    "self_test_clear",
    "help_article",
    "manifest",
    "service_worker",
    "offline",
    "theme_css",
    "theme_choice",
    "zone",
}
# Pages for somebody who has typed the password and goes on; others begin at the beginning.
BETWEEN = {
    "mfa_authenticate",
    "account_confirm_login_code",
    "account_email_verification_sent",
    "mfa_signup_webauthn",
}
# What a mailed link opens; nobody was mailed this one.
ENDED = {"login_link_redeem", "email_undo", "invitation_link", "invitation_answer"}
ENDED |= {"recovery_open", "recovery_stop"}
# Without the mailed secret there is nothing to see.
SECRET = {"receipt", "receipt_file"}
PAGES = ["/", "/devices/", "/devices/add/", "/protection/", "/reports/", "/reports/threats/"]
PAGES += [
    "/reports/quarantine/",
    "/devices/commands/",
    "/devices/choose/",
    "/subscription/",
    "/account/privacy/",
    "/account/",
    "/account/sessions/",
    "/account/security/",
    "/account/accounts/",
    "/account/members/",
    "/account/members/invite/",
    "/account/members/leave/",
    "/password/change/",
    "/email/",
]
HELP = ["", "adding-a-device/", "states/", "restoring-a-file/", "what-the-agent-sends/"]
HELP += ["ask/", "self-test/", "signing-in/", "together/"]
OUTSIDE = ["/login/", "/signup/", "/password/reset/", "/offline/", *(f"/help/{a}" for a in HELP)]


def addresses() -> dict[str, str]:
    """Every address of ours by its name, with an id that nobody has."""
    nobody = "0193d3a4-0000-7000-8000-000000000000"
    found = {}
    for pattern in portal_urls.urlpatterns:
        if isinstance(pattern, URLPattern) and pattern.name:
            route = re.sub(r"<uuid:\w+>", nobody, str(pattern.pattern))
            route = re.sub(r"<int:\w+>", "1", route)
            route = route.replace("<slug:slug>", "states")
            route = route.replace("<slug:section>", "quick-scan")
            route = route.replace("<slug:kind>", "check-in")
            found[pattern.name] = "/" + re.sub(r"<(int|str):\w+>", "1", route)
    return found


@pytest.fixture
def everything(laptop: Device) -> list[str]:
    """Store things with hostile texts in every field; return all pages that show them."""
    bad = device_of(
        laptop.account,
        hostname=HOSTILE,
        os_version=HOSTILE,
        agent_version=HOSTILE[:60],
        protection_reasons=[HOSTILE[:60]],
        said="attention",
    )
    long = device_of(laptop.account, hostname="x" * 200)
    threat = threat_of(
        bad,
        path="/tmp/" + HOSTILE + "y" * 3900,  # noqa: S108 - a path as a device may send it
        member=HOSTILE,
        title=HOSTILE,
        rule=HOSTILE,
        rule_name=HOSTILE,
        description=HOSTILE * 12,
        disposition=Disposition.DETECTED,
        more_paths=[HOSTILE],
    )
    scan = scan_of(
        bad, message=HOSTILE, paths=[HOSTILE], skipped_by_reason={HOSTILE: 1}, detections=1
    )
    return [
        *PAGES,
        *(f"/help/{article}" for article in HELP),
        *(
            f"/devices/{device.pk}/{rest}"
            for device in (bad, long)
            for rest in ("", "remove/", "rename/")
        ),
        f"/reports/threats/{threat.uid}/",
        f"/reports/scans/{scan.uid}/",
        f"/reports/threats/?device={bad.pk}",
    ]


@pytest.mark.django_db
def test_row44_every_page_asks_a_stranger_to_sign_in() -> None:
    stranger = Client(HTTP_HOST="localhost")
    for name, address in addresses().items():
        answer = stranger.get(address)
        if address.startswith("/demo/"):
            assert answer.status_code == 404, "the mailbox page exists in the demo only"
        elif name in SECRET:
            assert answer.status_code == 404, address
        elif name in ENDED:
            assert answer.status_code == 410, "a link that nobody was mailed has ended"
        elif name in HALF_WAY:
            assert answer["Location"] == "/login/", address
        elif name in OPEN:
            assert answer.status_code in {200, 405}, address
        elif name in BETWEEN:
            assert answer["Location"] in {"/login/", "/signup/"}, address
        elif answer.status_code != 405:
            assert answer.status_code == 302, address
            assert answer["Location"].startswith("/login/?next="), address


def test_row78_hostile_texts_are_inert_on_every_page(
    alices_browser: Client, everything: list[str]
) -> None:
    shown = 0
    for address in everything:
        answer = alices_browser.get(address)
        assert answer.status_code == 200, address
        page = answer.content.decode()
        assert "<img" not in page, address
        assert "\u202e" not in page, address
        assert not re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", page), address
        assert "49" not in re.findall(r"gpj\.exe\S*?(49)", page), address
        shown += "⟨U+202E⟩" in page
    assert shown >= 8


def test_row66_no_page_has_anything_inline(alices_browser: Client, everything: list[str]) -> None:
    outside = Client(HTTP_HOST="localhost")
    answers = [alices_browser.get(address) for address in everything]
    answers += [alices_browser.post("/devices/add/")]
    answers += [outside.get(address) for address in OUTSIDE]
    for answer in answers:
        page = answer.content.decode()
        where = answer.request["PATH_INFO"]
        assert answer.status_code == 200, where
        tags = re.findall(r"<[a-zA-Z][^>]*>", re.sub(r'="[^"]*"', "=", page))
        assert not [tag for tag in tags if re.search(r"\s(style|on[a-z]+)=", tag)], where
        assert not re.search(r"<style|javascript:|<script(?![^>]*\ssrc=)[^>]*>", page), where
        assert "default-src 'self'" in answer["Content-Security-Policy"], where
        assert "unsafe" not in answer["Content-Security-Policy"], where


def test_row60_no_page_of_a_signed_in_person_is_cached(
    alices_browser: Client, everything: list[str]
) -> None:
    for address in everything:
        assert alices_browser.get(address)["Cache-Control"] == "no-store", address


def test_row72_pages_that_only_show_refuse_other_methods(alices_browser: Client) -> None:
    for address in ("/", "/devices/", "/reports/", "/protection/", "/subscription/", "/help/"):
        assert alices_browser.post(address).status_code == 405, address


def test_row68_each_change_is_refused_without_its_token(alice: object, laptop: Device) -> None:
    from server.tests.conftest import signed_in

    browser = signed_in(laptop.account.memberships.get().user)
    browser.handler.enforce_csrf_checks = True
    for address in (
        "/devices/add/",
        f"/devices/{laptop.pk}/rename/",
        f"/devices/{laptop.pk}/remove/",
        "/account/",
        "/account/theme/",
    ):
        answer = browser.post(address, {"name": "x"})
        assert answer.status_code == 403, address
        assert "This page was too old" in answer.content.decode()


def test_every_address_in_the_menus_answers(alices_browser: Client, laptop: Device) -> None:
    page = alices_browser.get("/").content.decode()
    resolver = get_resolver()
    for address in set(re.findall(r'href="(/[^"#?]*)"', page)) - {"/"}:
        if not address.startswith("/static/"):
            resolver.resolve(address)
            assert alices_browser.get(address).status_code == 200, address


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain.txt", "plain.txt"),
        ("a\u202eb", "a⟨U+202E⟩b"),
        ("a\nb\tc", "a⟨U+000A⟩b⟨U+0009⟩c"),
        ("Zoë’s пк 电脑", "Zoë’s пк 电脑"),
        ("zero\u200bwidth\ufeff", "zero⟨U+200B⟩width⟨U+FEFF⟩"),
    ],
)
def test_characters_that_act_or_hide_are_written_out(text: str, shown: str) -> None:
    assert texts.visible(text) == shown


def test_a_long_text_keeps_its_beginning_and_its_end() -> None:
    short = texts.shortened("/home/" + "x" * 64_000 + ".exe", 60)
    assert len(short) == 60
    assert short.startswith("/home/")
    assert short.endswith(".exe")
