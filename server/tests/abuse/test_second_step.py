"""Attacks on the second step and on sessions (shared list of abuse cases)."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
import time_machine
from allauth.mfa.models import Authenticator
from django.conf import settings as django_settings
from django.core.cache import cache
from django.db.models import F
from django.test import Client
from django.utils import timezone
from server.tests.accounts.second_steps import (
    RIGHT_KEY,
    WRONG_KEY,
    App,
    add_app,
    add_passkey,
    at_once,
    choose_email,
    code_at,
    finger,
    is_signed_in,
    mails_to,
    newest_code,
    second_step,
    signed_in_tab,
    tab,
    type_password,
)
from server.tests.asvs.test_second_step import reset_link
from server.tests.conftest import PASSWORD
from server.tests.portal.test_every_page import OPEN, addresses

from doorward.accounts import approvals, browsers, lockout, second_step_tries, tokens
from doorward.accounts.factors import totp
from doorward.accounts.models import (
    Account,
    KnownBrowser,
    RememberedBrowser,
    SecondStepChoice,
    Throttle,
    User,
)
from doorward.audit.models import Event
from doorward.devices.models import Device

NEW = "nine ships in the quiet morning"
OTHER = "seven foxes behind the old barn"
COOKIE = django_settings.SESSION_COOKIE_NAME
# Where the second step is asked for, and what to do when it is lost.
HALF_WAY = {"/account/security/authenticate/", "/login/recovery/"}

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def home(alice: User, alices_account: Account) -> Client:
    """Alice's browser at home, in which she signed in."""
    return signed_in_tab(alice.email)


def test_a13_with_the_password_alone_no_page_and_no_api_opens(
    alice: User, home: Client, laptop_of_alice: Device
) -> None:
    assert laptop_of_alice.name in home.get("/devices/").content.decode()
    add_app(home)
    thief = tab()
    type_password(thief, alice.email)
    closed = [path for name, path in addresses().items() if name not in OPEN]
    for path in closed:
        answer = thief.get(path)
        where = answer.headers.get("Location", "")
        if answer.status_code == 200:
            assert path in HALF_WAY, path
            assert laptop_of_alice.name not in answer.content.decode(), path
        else:
            assert answer.status_code in {302, 404, 405, 410}, path
            assert not where or where.startswith(
                ("/login/", "/signup/", "/account/security/auth")
            ), path
        assert "_auth_user_id" not in thief.session, path
    assert thief.get("/api/v1/devices").status_code == 401
    app = App()
    app.call("POST", "auth/login", email=alice.email, password=PASSWORD)
    for method, path in (
        ("GET", "auth/session"),
        ("GET", "account/authenticators"),
        ("GET", "account/authenticators/recovery-codes"),
        ("POST", "account/authenticators/totp"),
        ("DELETE", "account/authenticators/totp"),
        ("GET", "auth/sessions"),
        ("POST", "account/password/change"),
        ("GET", "account/email"),
    ):
        assert app.call(method, path).status_code == 401, path
    headers = {"Authorization": f"Bearer {app.token}"}
    assert tab().get("/api/v1/devices", headers=headers).status_code == 401


def test_a13_the_second_step_cannot_be_left_out_by_asking_to_remember(
    alice: User, home: Client
) -> None:
    add_app(home)
    thief = tab()
    type_password(thief, alice.email)
    thief.post("/account/security/trust/", {"action": "trust"})
    thief.post("/account/security/by-mail/")
    thief.post("/account/security/another-way/")
    thief.post("/login/code/confirm/", {"code": ""})
    thief.cookies["dw_remembered"] = "x" * 43
    type_password(thief, alice.email)
    assert not is_signed_in(thief)
    assert not RememberedBrowser.objects.exists()


def test_a13_a_cookie_that_remembers_bob_does_not_remember_alice(
    alice: User, home: Client, bob: User
) -> None:
    add_app(home)
    bobs = signed_in_tab(bob.email)
    _seed, codes = add_app(bobs)
    browser = tab()
    type_password(browser, bob.email)
    second_step(browser, codes[0], remember=True)
    assert is_signed_in(browser)
    browser.post("/logout/")
    type_password(browser, alice.email)
    assert not is_signed_in(browser)


@pytest.mark.parametrize("seconds", [0, 31])
def test_a14_a_code_seen_over_the_shoulder_does_not_open_again(
    alice: User, home: Client, seconds: int
) -> None:
    with time_machine.travel(timezone.now(), tick=False) as clock:
        seed, _codes = add_app(home)
        code = code_at(seed)
        mine = tab()
        type_password(mine, alice.email)
        second_step(mine, code)
        assert is_signed_in(mine)
        clock.shift(timedelta(seconds=seconds))
        cache.clear()
        thief = tab()
        type_password(thief, alice.email)
        second_step(thief, code)
        assert not is_signed_in(thief)
        app = App()
        app.call("POST", "auth/login", email=alice.email, password=PASSWORD)
        app.call("POST", "auth/2fa/authenticate", code=code)
        assert not app.is_signed_in()


def test_a15_a_recovery_code_sent_by_sixteen_at_once_opens_once(alice: User, home: Client) -> None:
    _seed, codes = add_app(home)
    browsers = [tab(f"Browser/{number}") for number in range(16)]
    for browser in browsers:
        type_password(browser, alice.email)

    def act(number: int) -> bool:
        second_step(browsers[number], codes[0])
        return is_signed_in(browsers[number])

    assert at_once(16, act) == 1


def test_a15_one_sign_in_sent_many_times_at_once_opens_one_session(
    alice: User, home: Client
) -> None:
    _seed, codes = add_app(home)
    browser = tab()
    type_password(browser, alice.email)
    cookie = browser.cookies[COOKIE].value

    def act(number: int) -> bool:
        mine = tab()
        mine.cookies[COOKIE] = cookie
        mine.raise_request_exception = False
        second_step(mine, codes[number])
        return is_signed_in(mine)

    assert at_once(4, act) <= 1


def test_right_second_steps_are_not_counted_against_their_network(
    alice: User, home: Client
) -> None:
    seed, codes = add_app(home)
    for code in (*codes, code_at(seed)):
        browser = tab()
        type_password(browser, alice.email)
        second_step(browser, code)
        assert is_signed_in(browser)


def test_a16_a_reset_of_the_password_leaves_the_second_step_in_place(
    alice: User, home: Client
) -> None:
    add_app(home)
    thief = tab()
    thief.post("/password/reset/", {"email": alice.email})
    page = thief.get(reset_link(), follow=True)
    thief.post(page.request["PATH_INFO"], {"password1": NEW, "password2": NEW})
    assert Authenticator.objects.filter(user=alice).count() == 2
    type_password(thief, alice.email, NEW)
    assert not is_signed_in(thief)
    app = App()
    app.call("POST", "auth/login", email=alice.email, password=NEW)
    assert not app.is_signed_in()


def test_a17_a_stolen_cookie_changes_no_way_to_sign_in(alice: User, home: Client) -> None:
    with time_machine.travel(timezone.now(), tick=False) as clock:
        add_app(home)
        clock.shift(timedelta(minutes=16))
        thief = tab("Thief/1.0")
        thief.cookies[COOKIE] = home.cookies[COOKIE].value
        assert is_signed_in(thief)
        for path in (
            "/account/security/totp/deactivate/",
            "/account/security/webauthn/add/",
            "/account/security/recovery-codes/",
            "/account/security/recovery-codes/download/",
            "/account/security/recovery-codes/generate/",
            "/account/security/email/",
            "/account/tokens/",
        ):
            answer = thief.post(path, {"wanted": "on", "credential": "{}"})
            if answer.status_code == 405:
                # Only to be looked at; that asks too.
                answer = thief.get(path)
            assert answer.status_code == 302, path
            assert "/reauthenticate/" in answer["Location"], path
        # Nor is what was asked for done by guessing the password wrong.
        asked = thief.post("/account/security/email/", {"wanted": "on"})
        thief.post(asked["Location"], {"password": "wrong"})
        assert not SecondStepChoice.objects.filter(user=alice, by_email=True).exists()
        assert Authenticator.objects.filter(user=alice).count() == 2


def test_n1_a_thief_with_the_password_shuts_out_neither_her_browser_nor_her_passkey(
    alice: User, home: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at = finger(monkeypatch)
    with time_machine.travel(timezone.now(), tick=False) as clock:
        seed, _codes = add_app(home)
        add_passkey(alice)
        phone = App()
        phone.call("POST", "auth/login", email=alice.email, password=PASSWORD)
        clock.shift(timedelta(minutes=1))
        signed_in = phone.call("POST", "auth/2fa/authenticate", code=code_at(seed))
        phone_is_known_by = signed_in["X-Known-Browser"]
        home.post("/logout/")
        compared = wrong_codes(monkeypatch)
        # A day of it, from the network she is in herself.
        for _turn in range(90):
            thief = tab("Thief/1.0")
            type_password(thief, alice.email)
            for _ in range(3):
                second_step(thief, "000000")
            thief.post("/account/security/authenticate/", {"credential": WRONG_KEY})
            clock.shift(timedelta(minutes=16))
        assert len(compared) == lockout.CODE_DAY.most
        # A browser she never used has to wait, too; but not with her passkey.
        new = tab()
        type_password(new, alice.email)
        second_step(new, code_at(seed))
        assert not is_signed_in(new)
        type_password(new, alice.email)
        assert looked_at.count("right") == 0
        new.post("/account/security/authenticate/", {"credential": RIGHT_KEY})
        new.post("/account/security/trust/", {"action": "skip"})
        assert is_signed_in(new)
        type_password(home, alice.email)
        second_step(home, code_at(seed))
        assert is_signed_in(home)
        clock.shift(timedelta(minutes=1))
        phone = App()
        phone.client.defaults["HTTP_X_KNOWN_BROWSER"] = phone_is_known_by
        phone.call("POST", "auth/login", email=alice.email, password=PASSWORD)
        answer = phone.call("POST", "auth/2fa/authenticate", code=code_at(seed))
        assert answer.status_code == 200


def test_n1_a_thief_who_has_codes_mailed_uses_up_none_of_hers(
    alice: User, home: Client, settings: Any
) -> None:
    choose_email(home)
    home.post("/logout/")
    for _ in range(lockout.CODE_HOUR.most + 1):
        # Each in a browser of its own.
        thief = tab("Thief/1.0")
        type_password(thief, alice.email)
        thief.post("/login/code/confirm/", {"code": "WRONG"})
    assert mails_to(alice.email).count("Your code to sign in") == lockout.CODE_HOUR.most
    before = len(mails_to(alice.email))
    type_password(home, alice.email)
    assert len(mails_to(alice.email)) == before + 1
    home.post("/login/code/confirm/", {"code": newest_code(alice.email, settings)})
    home.post("/account/security/trust/", {"action": "skip"})
    assert is_signed_in(home)


def test_n1_her_browser_asks_to_be_approved_after_a_thiefs_wrong_codes(
    alice: User, home: Client
) -> None:
    strangers = second_step_tries.codes(alice.pk, browser=None, ip="192.0.2.1")
    while lockout.allow(*strangers):
        pass
    with pytest.raises(approvals.TooManyPrompts):
        approvals.ask(alice, ip="192.0.2.2", agent="")
    hers = browsers.find(home.cookies["dw_dev"].value, alice.email)
    assert hers is not None
    asked = approvals.ask(alice, ip="192.0.2.1", agent="", browser=hers)
    approvals.approve(alice, asked.pk, str(asked.number), is_proven=True, ip="", agent="")
    assert approvals.use(alice, asked.pk, ip="192.0.2.1", agent="", browser=hers)
    # What was right is given back where it was taken.
    assert not lockout.allow(*strangers)
    assert not Throttle.objects.filter(pk__startswith="w:codeknown", count__gt=0).exists()


def test_row30_all_guesses_of_a_day_stay_bounded_however_many_browsers_are_known(
    alice: User,
) -> None:
    for _ in range(6):
        browsers.add(alice, "", ip="192.0.2.1", agent="")
    known = list(KnownBrowser.objects.filter(user=alice))
    assert len(known) == 6
    guesses = {True: 0, False: 0}
    with time_machine.travel(timezone.now(), tick=False) as clock:
        for minute in range(0, 24 * 60, 6):
            for browser in (None, *known):
                for _ in range(5):
                    ip = f"198.51.100.{minute // 6 % 250}"
                    at = second_step_tries.codes(alice.pk, browser=browser, ip=ip)
                    guesses[browser is not None] += lockout.allow(*at)
            clock.shift(timedelta(minutes=6))
    assert guesses == {False: lockout.CODE_DAY.most, True: lockout.KNOWN_CODES.most}


def test_a_known_browser_that_fails_waits_as_any_other(alice: User, home: Client) -> None:
    seed, _codes = add_app(home)
    home.post("/logout/")
    type_password(home, alice.email)
    for _ in range(5):
        second_step(home, "000000")
    type_password(home, alice.email)
    second_step(home, code_at(seed))
    assert not is_signed_in(home)


def wrong_codes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the wrong codes that are really compared with the app's, from here on."""
    seen: list[str] = []
    real = totp.step_of

    def step_of(seed: str, code: str) -> int | None:
        if code == "000000":
            seen.append(code)
        return real(seed, code)

    monkeypatch.setattr(totp, "step_of", step_of)
    return seen


def test_a20_a_link_to_reset_works_once_newest_only_and_an_hour(alice: User) -> None:
    with time_machine.travel(timezone.now(), tick=False) as clock:
        tab().post("/password/reset/", {"email": alice.email})
        late = reset_link()
        clock.shift(timedelta(minutes=61))
        assert not is_good(late)
        tab().post("/password/reset/", {"email": alice.email})
        older = reset_link()
        clock.shift(timedelta(minutes=5))
        tab().post("/password/reset/", {"email": alice.email})
        newest = reset_link()
        assert older != newest
        assert not is_good(older)
        first, second = tab(), tab()
        answer = first.get(newest)
        assert answer["Referrer-Policy"] in {"same-origin", "no-referrer"}
        form = answer["Location"]
        second.get(newest)
        first.post(form, {"password1": NEW, "password2": NEW})
        second.post(form, {"password1": OTHER, "password2": OTHER})
        assert not is_good(newest)
        alice.refresh_from_db()
        assert alice.check_password(NEW)


def test_a20_signing_in_ends_a_link_that_waits(alice: User) -> None:
    tab().post("/password/reset/", {"email": alice.email})
    link = reset_link()
    signed_in_tab(alice.email)
    assert not is_good(link)


def test_a20_so_does_a_second_sign_in_within_one_second(alice: User) -> None:
    moment = timezone.now().replace(microsecond=1000)
    with time_machine.travel(moment, tick=False) as clock:
        signed_in_tab(alice.email)
        tab().post("/password/reset/", {"email": alice.email})
        link = reset_link()
        assert is_good(link)
        clock.shift(timedelta(milliseconds=500))
        signed_in_tab(alice.email)
        assert not is_good(link)


def test_a20_of_many_uses_of_a_link_at_once_one_sets_the_password(alice: User) -> None:
    tab().post("/password/reset/", {"email": alice.email})
    link = reset_link()
    browsers_there = [tab() for _ in range(6)]
    forms = [browser.get(link)["Location"] for browser in browsers_there]

    def act(number: int) -> bool:
        word = f"{NEW} number {number}"
        answer = browsers_there[number].post(forms[number], {"password1": word, "password2": word})
        return answer.headers.get("Location", "").endswith("/done/")

    assert at_once(6, act) == 1
    assert Event.objects.filter(tag="account.password.reset", actor_id=alice.pk).count() == 1


@pytest.mark.parametrize("path", ["page", "app"])
def test_a20_a_password_under_way_does_not_undo_what_was_changed_meanwhile(
    path: str, alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    tab().post("/password/reset/", {"email": alice.email})
    link = reset_link()
    browser = tab()
    form = browser.get(link)["Location"]
    real = User.set_password

    def while_somebody_disables_her(user: User, raw: str | None) -> None:
        User.objects.filter(pk=user.pk).update(is_active=False, epoch=F("epoch") + 1)
        real(user, raw)

    monkeypatch.setattr(User, "set_password", while_somebody_disables_her)
    if path == "page":
        answer = browser.post(form, {"password1": NEW, "password2": NEW}, follow=True)
        assert "no longer works" in answer.content.decode()
    else:
        key = link.rstrip("/").rpartition("/")[2]
        answer = App().call("POST", "auth/password/reset", key=key, password=NEW)
        assert answer.status_code == 409
        assert answer.json()["errors"][0]["code"] == "changed_meanwhile"
    alice.refresh_from_db()
    assert not alice.is_active
    assert alice.epoch == 1
    assert alice.check_password(PASSWORD)


def is_good(link: str) -> bool:
    return "no longer works" not in tab().get(link, follow=True).content.decode()


def test_a25_what_an_old_password_opened_is_shut_by_a_new_one(
    alice: User, alices_account: Account, home: Client, laptop_of_alice: Device
) -> None:
    cafe = signed_in_tab(alice.email)
    app = App()
    app.call("POST", "auth/login", email=alice.email, password=PASSWORD)
    _token, text = tokens.create(alice, name="script", scopes=["devices:read"], days=1)
    home.post("/password/change/", {"oldpassword": PASSWORD, "password1": NEW, "password2": NEW})
    assert not is_signed_in(cafe)
    assert not app.is_signed_in()
    headers = {"Authorization": f"Bearer {text}"}
    assert tab().get("/api/v1/devices", headers=headers).status_code == 401
    # A device keeps its own key: changing a password does not unprotect it.
    laptop_of_alice.refresh_from_db()
    assert laptop_of_alice.revoked_at is None


def test_a26_who_is_disabled_has_nothing_left_that_opens(alice: User, home: Client) -> None:
    seed, codes = add_app(home)
    between = tab()
    type_password(between, alice.email)
    _token, text = tokens.create(alice, name="script", scopes=["devices:read"], days=1)
    way_in = browsers.new_link(alice).rstrip("/").rpartition("/")[2]
    assert browsers.is_link(way_in)
    User.objects.filter(pk=alice.pk).update(is_active=False)
    second_step(between, code_at(seed))
    assert not is_signed_in(between)
    assert not is_signed_in(home)
    assert tokens.find(text) is None
    assert not browsers.is_link(way_in)
    assert codes


@pytest.fixture
def laptop_of_alice(alices_account: Account) -> Device:
    """A device that has joined Alice's account."""
    now = timezone.now()
    return Device.objects.create(
        account=alices_account,
        name="laptop",
        hostname="laptop",
        public_key="x" * 43,
        thumbprint="y" * 43,
        enrolled_at=now,
        changed_at=now,
    )
