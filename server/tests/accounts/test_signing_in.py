"""Signing up, in and out: by pages and by the JSON path of apps."""

from __future__ import annotations

import email
import email.policy
import json
import re
from datetime import timedelta
from typing import Any

import pytest
import time_machine
from allauth.account.models import EmailAddress
from django.test import Client
from django.utils import timezone
from server.tests.conftest import PASSWORD

from doorward.accounts.models import Account, Membership, Role, User
from doorward.audit.models import Event
from doorward.billing import entitlement
from doorward.notices import outbox
from doorward.notices.models import Mail

LONG = "seven lamps above the harbor"
WRONG = "Invalid email or password."


def mails(settings: Any) -> list[email.message.EmailMessage]:
    outbox.send_due(timezone.now())
    files = sorted((settings.DATA / "mail").glob("*.eml"), key=lambda file: file.name)
    return [
        email.message_from_bytes(file.read_bytes(), policy=email.policy.default) for file in files
    ]


def text_of(mail: email.message.EmailMessage) -> str:
    body = mail.get_body(("plain",))
    assert body is not None
    return str(body.get_content())


def code_in(mail: email.message.EmailMessage) -> str:
    found = re.search(r"^ {4}(\S+)\r?$", text_of(mail), re.MULTILINE)
    assert found is not None, text_of(mail)
    return found.group(1)


class App:
    """An app that signs in by the JSON path and keeps its session token."""

    def __init__(self) -> None:
        self.client = Client(HTTP_HOST="localhost")
        self.token = ""

    def call(self, method: str, path: str, **body: Any) -> Any:
        headers = {"X-Session-Token": self.token} if self.token else {}
        response = self.client.generic(
            method,
            f"/_allauth/app/v1/{path}",
            data=json.dumps(body) if body else "",
            content_type="application/json",
            headers=headers,
        )
        answer = response.json() if response.content else {}
        self.token = answer.get("meta", {}).get("session_token") or self.token
        return response


@pytest.fixture
def app() -> App:
    return App()


@pytest.fixture
def tab() -> Client:
    return Client(HTTP_HOST="localhost")


def sign_in(tab: Client, address: str, password: str) -> Any:
    return tab.post("/login/", {"login": address, "password": password})


# -- signing up ------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_a_person_signs_up_by_pages_with_a_code_from_the_mail(tab: Client, settings: Any) -> None:
    answer = tab.post("/signup/", {"email": "dora@example.org", "password1": LONG})
    assert answer.status_code == 302
    assert "_auth_user_id" not in tab.session
    (mail,) = mails(settings)
    answer = tab.post(answer.headers["Location"], {"code": code_in(mail)})
    assert answer.status_code == 302
    dora = User.objects.get(email="dora@example.org")
    assert tab.session["_auth_user_id"] == str(dora.pk)
    membership = Membership.objects.get(user=dora)
    assert membership.role == Role.OWNER
    assert entitlement.of(membership.account).seats == settings.FREE_SEATS
    assert tab.get("/devices/").status_code == 200


@pytest.mark.django_db
def test_a_person_signs_up_by_json_with_a_code_from_the_mail(app: App, settings: Any) -> None:
    answer = app.call("POST", "auth/signup", email="Dora@Example.org", password=LONG)
    assert answer.status_code == 401
    (mail,) = mails(settings)
    answer = app.call("POST", "auth/email/verify", key=code_in(mail))
    assert answer.status_code == 200, answer.content
    assert answer.json()["data"]["user"]["email"] == "dora@example.org"
    assert app.token
    assert app.call("GET", "auth/session").status_code == 200


@pytest.mark.django_db
@pytest.mark.parametrize("length", [254, 255, 312])
def test_a_longer_address_than_is_kept_is_refused_and_mails_nobody(
    tab: Client, app: App, length: int
) -> None:
    address = f"{'b' * 60}@{'c' * 60}.{'d' * 60}.{'e' * 60}."
    address += "f" * (length - len(address))
    page = tab.post("/signup/", {"email": address, "password1": LONG})
    told = app.call("POST", "auth/signup", email=address, password=LONG)
    assert (page.status_code, told.status_code) == ((302, 401) if length == 254 else (200, 400))
    assert Mail.objects.exists() == (length == 254)
    if length > 254:
        assert "That is not an email address" in page.content.decode()


@pytest.mark.django_db
def test_an_account_is_founded_whole_or_not_at_all(
    tab: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    from doorward.accounts import signup

    def fail(_account: Account) -> None:
        raise OSError

    monkeypatch.setattr(signup, "_at_founding", [fail])
    with pytest.raises(OSError):  # noqa: PT011 - ours
        tab.post("/signup/", {"email": "dora@example.org", "password1": LONG})
    assert not User.objects.exists()
    assert not Account.objects.exists()


@pytest.mark.django_db
def test_a08_signing_up_with_a_known_address_looks_the_same_and_tells_its_owner(
    alice: User, settings: Any
) -> None:
    pages = []
    for address in (alice.email, "dora@example.org"):
        tab = Client(HTTP_HOST="localhost")
        answer = tab.post("/signup/", {"email": address, "password1": LONG})
        following = tab.get(answer.headers["Location"])
        pages.append(
            (
                answer.status_code,
                answer.headers["Location"],
                following.status_code,
                without_secrets(following.content.decode(), address),
            )
        )
    assert pages[0] == pages[1]
    told = {mail["To"]: mail["Subject"] for mail in mails(settings)}
    assert told[alice.email] == "You already have an account"
    assert User.objects.filter(email=alice.email).count() == 1
    alice.refresh_from_db()
    assert alice.check_password(PASSWORD)


@pytest.mark.django_db
def test_a08_by_json_too(alice: User) -> None:
    answers = []
    for address in (alice.email, "dora@example.org"):
        answer = App().call("POST", "auth/signup", email=address, password=LONG)
        content = answer.json()
        content["meta"].pop("session_token", None)
        answers.append((answer.status_code, content))
    assert answers[0] == answers[1]


@pytest.mark.django_db
def test_two_sign_ups_at_once_with_one_address_make_one_person(
    tab: Client, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    from doorward.accounts.adapter import AccountAdapter

    real = AccountAdapter.new_user

    def overtaken(self: AccountAdapter, request: Any) -> Any:
        User.objects.create_user("dora@example.org", "x")
        return real(self, request)

    monkeypatch.setattr(AccountAdapter, "new_user", overtaken)
    answer = tab.post("/signup/", {"email": "dora@example.org", "password1": LONG})
    assert answer.status_code == 302
    assert User.objects.count() == 1
    assert [mail["Subject"] for mail in mails(settings)] == ["You already have an account"]


@pytest.mark.django_db
@pytest.mark.parametrize("minutes", [9, 11])
def test_v6_5_5_the_code_lasts_ten_minutes(minutes: int, app: App, settings: Any) -> None:
    with time_machine.travel(timezone.now(), tick=False) as clock:
        app.call("POST", "auth/signup", email="dora@example.org", password=LONG)
        (mail,) = mails(settings)
        clock.shift(timedelta(minutes=minutes))
        answer = app.call("POST", "auth/email/verify", key=code_in(mail))
    assert answer.status_code == (200 if minutes < 10 else 409)


@pytest.mark.django_db
def test_v6_6_3_three_wrong_codes_end_the_code(app: App, settings: Any) -> None:
    app.call("POST", "auth/signup", email="dora@example.org", password=LONG)
    (mail,) = mails(settings)
    for _try in range(3):
        assert app.call("POST", "auth/email/verify", key="WRONG-CODE").status_code == 400
    assert app.call("POST", "auth/email/verify", key=code_in(mail)).status_code == 409


@pytest.mark.django_db
def test_v6_6_2_the_code_works_only_in_the_browser_that_asked(app: App, settings: Any) -> None:
    app.call("POST", "auth/signup", email="dora@example.org", password=LONG)
    (mail,) = mails(settings)
    assert App().call("POST", "auth/email/verify", key=code_in(mail)).status_code == 409
    other = App()
    other.call("POST", "auth/signup", email="charlie@example.org", password=LONG)
    assert other.call("POST", "auth/email/verify", key=code_in(mail)).status_code == 400


@pytest.mark.django_db
@pytest.mark.parametrize("path", ["web", "json"])
@pytest.mark.parametrize(
    ("password", "reason"),
    [
        ("short", "at least 15"),
        ("dora.lives.at.the.harbor.example", "dora"),
        ("doorward is what I type", "doorward"),
        ("123456789012345678", "guessers"),
        ("passwordpassword1", "guessers"),
        ("x" * 4097, "at most 4096"),
    ],
)
def test_v6_2_a_weak_password_is_refused_with_the_reason(
    path: str, password: str, reason: str, tab: Client, app: App
) -> None:
    if path == "web":
        answer = tab.post("/signup/", {"email": "dora@sea.example", "password1": password})
        assert answer.status_code in {200, 422}
        shown = answer.content.decode()
    else:
        answer = app.call("POST", "auth/signup", email="dora@sea.example", password=password)
        assert answer.status_code == 400
        shown = " ".join(error["message"] for error in answer.json()["errors"])
    assert reason in shown
    assert not User.objects.exists()


# -- signing in ------------------------------------------------------------------------------------


def without_secrets(page: str, *addresses: str) -> str:
    page = re.sub(r'name="csrfmiddlewaretoken" value="[^"]+"', "", page)
    page = re.sub(r'nonce="[^"]+"', "", page)
    for address in addresses:
        page = page.replace(address, "ADDRESS")
    return page


@pytest.mark.django_db
def test_alice_signs_in_and_out(alices_account: Account, tab: Client, alice: User) -> None:
    before = tab.get("/login/").wsgi_request.session.session_key
    answer = sign_in(tab, alice.email, PASSWORD)
    assert answer.status_code == 302
    key = tab.session.session_key
    assert key != before
    assert tab.get("/devices/").status_code == 200
    tab.post("/logout/")
    assert tab.get("/devices/").status_code == 302
    tags = list(
        Event.objects.filter(actor_id=alice.pk).order_by("id").values_list("tag", flat=True)
    )
    assert tags[-2:] == ["account.login.succeeded", "account.logout"]


@pytest.mark.django_db
def test_v7_4_1_the_old_cookie_is_dead_after_signing_out(
    alices_account: Account, tab: Client, alice: User, settings: Any
) -> None:
    sign_in(tab, alice.email, PASSWORD)
    stolen = Client(HTTP_HOST="localhost")
    name = settings.SESSION_COOKIE_NAME
    stolen.cookies[name] = tab.cookies[name].value
    tab.post("/logout/")
    assert stolen.get("/devices/").status_code == 302


@pytest.mark.django_db
@pytest.mark.parametrize(
    "typed",
    ["alice@example.org", " alice@example.org ", "ALICE@Example.org", "alice @example.org\t"],
)
def test_stray_spaces_and_capitals_in_the_address_are_no_reason_to_fail(
    typed: str, alice: User, tab: Client
) -> None:
    assert sign_in(tab, typed, PASSWORD).status_code == 302


@pytest.mark.django_db
@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("typed", [PASSWORD.upper(), PASSWORD + " ", " " + PASSWORD])
def test_v6_2_7_space_and_case_of_the_password_matter(
    known: bool, typed: str, alice: User, tab: Client
) -> None:
    address = alice.email if known else "nobody@example.org"
    assert WRONG in sign_in(tab, address, typed).content.decode()


@pytest.mark.django_db
def test_a10_a_megabyte_is_refused_unread_whoever_it_names(alice: User) -> None:
    answers = [
        sign_in(Client(HTTP_HOST="localhost"), address, "x" * 1_000_000)
        for address in (alice.email, "nobody@example.org")
    ]
    assert [answer.status_code for answer in answers] == [400, 400]
    assert without_secrets(answers[0].content.decode()) == without_secrets(
        answers[1].content.decode()
    )
    assert not Event.objects.filter(tag="account.login.failed").exists()


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("address", "password"),
    [
        ("alice@example.org", "wrong"),
        ("nobody@example.org", "wrong"),
        ("not an address", "wrong"),
        ("alice@", "wrong"),
        ("x" * 300 + "@example.org", "wrong"),
        ("alice@example.org", "x" * 4097),
        ("nobody@example.org", "x" * 200_000),
        ("alice@example.org\x00", "wrong"),
        ("al\u202eice@example.org", "wrong"),
    ],
)
def test_v6_3_8_every_wrong_pair_gets_one_and_the_same_answer(
    address: str, password: str, alice: User, tab: Client
) -> None:
    usual = sign_in(Client(HTTP_HOST="localhost"), "charlie@example.org", "wrong")
    answer = sign_in(tab, address, password)
    assert answer.status_code == usual.status_code
    page = without_secrets(answer.content.decode())
    assert WRONG in page
    shown = re.compile(r'name="login"[^>]*>')
    assert shown.sub("", page) == shown.sub("", without_secrets(usual.content.decode()))


@pytest.mark.django_db
def test_v6_3_8_by_json_known_and_unknown_get_the_same_bytes(alice: User) -> None:
    answers = [
        App().call("POST", "auth/login", email=address, password="wrong")
        for address in (alice.email, "nobody@example.org")
    ]
    assert answers[0].status_code == answers[1].status_code == 400
    assert answers[0].content == answers[1].content
    assert WRONG in answers[0].content.decode()


@pytest.mark.django_db
def test_a_person_who_was_shut_out_gets_the_same_answer(alice: User, tab: Client) -> None:
    User.objects.update(is_active=False)
    answer = sign_in(tab, alice.email, PASSWORD)
    assert WRONG in answer.content.decode()
    assert "_auth_user_id" not in tab.session


@pytest.mark.django_db
def test_an_unconfirmed_address_does_not_get_in(tab: Client, settings: Any) -> None:
    tab.post("/signup/", {"email": "dora@example.org", "password1": LONG})
    other = Client(HTTP_HOST="localhost")
    sign_in(other, "dora@example.org", LONG)
    assert "_auth_user_id" not in other.session
    assert other.get("/devices/").status_code == 302


@pytest.mark.django_db
def test_a_failed_sign_in_is_written_down_without_the_password(alice: User, tab: Client) -> None:
    sign_in(tab, alice.email, "my secret attempt")
    event = Event.objects.get(tag="account.login.failed")
    assert event.actor_id == alice.pk
    assert "secret" not in event.detail


# -- where links lead ------------------------------------------------------------------------------


@pytest.mark.django_db
def test_a19_a_reset_link_leads_to_our_own_address_whatever_the_request_says(
    alice: User, settings: Any
) -> None:
    settings.SITE_URL = "https://safe.example.org"
    for headers in ({}, {"X-Forwarded-Host": "evil.example"}, {"Forwarded": "host=evil.example"}):
        Client(HTTP_HOST="localhost", headers=headers).post(
            "/password/reset/", {"email": alice.email}
        )
    assert Client(HTTP_HOST="evil.example").post("/password/reset/").status_code == 400
    links = [
        link for mail in mails(settings) for link in re.findall(r"https?://\S+", text_of(mail))
    ]
    assert links
    assert all(link.startswith("https://safe.example.org") for link in links)


@pytest.mark.django_db
def test_v6_4_3_a_reset_changes_the_password_and_signs_nobody_in(
    alice: User, settings: Any, tab: Client
) -> None:
    tab.post("/password/reset/", {"email": alice.email})
    (mail,) = mails(settings)
    (link,) = set(re.findall(r"http://localhost:8000(/password/reset/key/\S+)", text_of(mail)))
    page = tab.get(link)
    tab.post(page.headers["Location"], {"password1": LONG, "password2": LONG})
    alice.refresh_from_db()
    assert alice.check_password(LONG)
    assert "_auth_user_id" not in tab.session
    assert tab.get(link).status_code == 200  # the link is used up: a page that says so
    alice.refresh_from_db()
    assert alice.check_password(LONG)


# -- believing a request ---------------------------------------------------------------------------


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("proxies", "forwarded", "believed"),
    [
        (0, "6.6.6.6", "127.0.0.1"),
        (1, "6.6.6.6", "6.6.6.6"),
        (1, "6.6.6.6, 10.0.0.9", "10.0.0.9"),
        (2, "6.6.6.6", "127.0.0.1"),
        (2, "1.1.1.1, 6.6.6.6, 10.0.0.9", "6.6.6.6"),
        (1, "<script>", "0.0.0.0"),  # noqa: S104 - not listened on
        (1, "2001:DB8::1", "2001:db8::1"),
    ],
)
def test_v4_1_3_a_forwarded_address_counts_only_as_far_as_our_proxies_wrote_it(
    proxies: int, forwarded: str, believed: str, settings: Any, tab: Client
) -> None:
    settings.TRUSTED_PROXIES = proxies
    tab.post(
        "/login/",
        {"login": "nobody@example.org", "password": "wrong"},
        headers={"X-Forwarded-For": forwarded, "X-Real-IP": "7.7.7.7", "True-Client-IP": "7.7.7.7"},
    )
    assert Event.objects.get(tag="account.login.failed").ip == believed


@pytest.mark.django_db
def test_no_mail_waits_twice(alice: User) -> None:
    assert EmailAddress.objects.get(user=alice).verified
    assert not Mail.objects.exists()
