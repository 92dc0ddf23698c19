"""Every address and command that takes a password or a code counts its tries (ASVS 6.3.1, row 12).

What takes one is found by looking at each view, its forms and what they read; a new one that nobody
drives to its limit here fails.
"""

from __future__ import annotations

import importlib
import inspect
import json
import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from types import CodeType, FunctionType
from typing import Any

import pytest
import time_machine
from allauth.mfa.webauthn.forms import LoginWebAuthnForm
from django import forms
from django.core.cache import cache
from django.core.management import get_commands
from django.test import Client
from django.utils import timezone
from django.views import View
from server.tests.access.addresses import every_address
from server.tests.accounts.second_steps import (
    WRONG_KEY,
    App,
    add_passkey,
    choose_email,
    finger,
    signed_in_tab,
    tab,
    type_password,
)
from server.tests.conftest import PASSWORD, signed_in

from doorward.accounts import approvals, lockout, operators, sent_codes
from doorward.accounts.factors import sealed_text, totp
from doorward.accounts.link_tokens import LinkTokens
from doorward.accounts.models import TotpUse, User

WRONG = "wrong1"
NEW = "nine ships in the quiet morning"
TRIES = 30
SECRETS = {"password", "oldpassword", "current_password", "code", "key", "credential"}
READS = re.compile(
    r"""\.get\(["'](password|code|number|key|credential)["']|POST\[["'](\w+)["']\]"""
)

# Where a password, a code or a passkey is chosen or made, not compared with one there is.
CHOSEN_THERE = {
    "mfa_add_webauthn",
    "mfa_signup_webauthn",
    "headless:app:account:signup",
    "headless:app:mfa:manage_webauthn",
    "headless:app:mfa:signup_webauthn",
    "password_judge",
    "invitation_answer",
}
# What is compared came by a link: 128 random bits and more, which may be tried at will.
BY_LINK = {"account_reset_password_from_key"}
SHUT = {"headless:app:account:verify_phone"}

pytestmark = pytest.mark.django_db(transaction=True)


# -- what takes a password or a code ---------------------------------------------------------------


def takes_a_secret(view: Any) -> bool:
    """Tell whether this view, its forms or what it calls in its module take one."""
    return any(_reads_one(each) for each in _parts(view, set()))


def _parts(part: Any, seen: set[Any]) -> Iterator[Any]:
    while not hasattr(part, "view_class") and hasattr(part, "__wrapped__"):
        part = part.__wrapped__
    part = getattr(part, "view_class", part)
    if part in seen or not isinstance(part, FunctionType | type):
        return
    seen.add(part)
    yield part
    if isinstance(part, type) and issubclass(part, forms.BaseForm):
        return
    for each in inspect.getmro(part) if isinstance(part, type) else (part,):
        if each is object or each.__module__.startswith("django."):
            continue
        module = importlib.import_module(each.__module__)
        for name in _names_in(each):
            named = getattr(module, name, None)
            is_class = isinstance(named, type) and issubclass(named, forms.BaseForm | View)
            is_near = callable(named) and getattr(named, "__module__", "") == each.__module__
            if is_class or (is_near and not isinstance(named, type)):
                yield from _parts(named, seen)


def _names_in(part: FunctionType | type) -> set[str]:
    if isinstance(part, FunctionType):
        return _names_in_code(part.__code__)
    # As a class names its forms: also where they are chosen while it runs.
    return set(re.findall(r"\b[A-Z]\w+", inspect.getsource(part)))


def _names_in_code(code: CodeType) -> set[str]:
    inner = [_names_in_code(each) for each in code.co_consts if isinstance(each, CodeType)]
    return set(code.co_names).union(*inner)


def _reads_one(part: Any) -> bool:
    if isinstance(part, type) and issubclass(part, forms.BaseForm):
        return bool(SECRETS & set(getattr(part, "base_fields", {})))
    found = READS.findall(inspect.getsource(part))
    return any(first or second in SECRETS for first, second in found)


def found_addresses() -> dict[str, str]:
    return {name: route for name, route, view in every_address() if takes_a_secret(view)}


# -- one wrong try at each -------------------------------------------------------------------------


class Held:
    """What is there before the tries: Alice with an app and a passkey, unless it has to be less."""

    def __init__(self, alice: User) -> None:
        self.alice = alice
        self.browser: Client | None = None
        self.app: App | None = None
        self.link = ""

    def with_second_step(self) -> None:
        from allauth.mfa.models import Authenticator

        sealed = sealed_text.seal("JBSWY3DPEHPK3PXP")
        app = Authenticator.objects.create(user=self.alice, type="totp", data={"secret": sealed})
        TotpUse.objects.create(authenticator=app, counter=0)
        add_passkey(self.alice)

    def home(self) -> Client:
        """Return a browser in which she is signed in, anew when that session has ended."""
        if self.browser is None or "_auth_user_id" not in self.browser.session:
            self.browser = signed_in(self.alice)
        return self.browser

    def proven(self) -> Client:
        """Return one in which she has just shown her second step."""
        browser = self.home()
        session = browser.session
        session["account_authentication_methods_user"] = str(self.alice.pk)
        session["account_authentication_methods"] = [
            {
                "method": "mfa",
                "type": "totp",
                "at": timezone.now().timestamp(),
                "reauthenticated": True,
            }
        ]
        session.save()
        return browser

    def signed_in_app(self) -> App:
        app = App()
        app.token = self.home().cookies["dw_session"].value
        return app

    def half_way(self) -> Client:
        """Return a browser that waits for the second step."""
        browser = tab()
        type_password(browser, self.alice.email)
        return browser

    def app_half_way(self) -> App:
        app = App()
        app.call("POST", "auth/login", email=self.alice.email, password=PASSWORD)
        return app


def number_confirm(held: Held) -> None:
    browser = held.proven()
    browser.post("/account/security/number/", {"number": "+49 151 23456789"})
    browser.post("/account/security/number/confirm/", {"code": WRONG})


def approval(held: Held) -> None:
    try:
        asked = approvals.ask(held.alice, ip="192.0.2.1", agent="")
    except approvals.TooManyPrompts:
        return
    held.proven().post(f"/account/approve/{asked.pk}/", {"answer": "yes", "number": WRONG})


def approval_by_app(held: Held) -> None:
    try:
        asked = approvals.ask(held.alice, ip="192.0.2.1", agent="")
    except approvals.TooManyPrompts:
        return
    held.proven()
    held.signed_in_app().call("POST", f"account/approvals/{asked.pk}", answer="yes", number=WRONG)


def confirm_address(held: Held) -> None:
    browser = tab()
    browser.post("/signup/", {"email": "dora@example.org", "password1": NEW})
    # Three sign-ups a day with one address: more tries than one in each.
    for _ in range(2):
        browser.post("/confirm-email/", {"code": WRONG})


def verify_email(_held: Held) -> None:
    app = App()
    app.call("POST", "auth/signup", email="dora@example.org", password=NEW)
    for _ in range(2):
        app.call("POST", "auth/email/verify", key=WRONG)


def reset_password(held: Held) -> None:
    from allauth.account.utils import user_pk_to_url_str

    key = f"{user_pk_to_url_str(held.alice)}-{WRONG}"
    App().call("POST", "auth/password/reset", key=key, password=NEW)


def activate_totp(held: Held) -> None:
    held.proven().post("/account/security/totp/activate/", {"code": WRONG})


def activate_totp_by_app(held: Held) -> None:
    held.proven()
    held.signed_in_app().call("POST", "account/authenticators/totp", code=WRONG)


def page(path: str, **sent: str) -> Callable[[Held], None]:
    def tried(held: Held) -> None:
        held.home().post(path, sent)

    return tried


def by_app(path: str, **sent: Any) -> Callable[[Held], None]:
    def tried(held: Held) -> None:
        held.signed_in_app().call("POST", path, **sent)

    return tried


KEY: dict[str, str] = json.loads(WRONG_KEY)
AGAIN = lockout.REAUTHENTICATION_PERSON.most
CODES = lockout.CODE.most
LADDER = lockout.FREE_FAILURES + 1
PASSKEYS = lockout.CODE_NETWORK.most
PASSWORDLESS = 10
LINKS = 20
# Of 30 tries within a minute, each in a session and a sign-in of its own where one ends: how many
# are looked at.
WAYS: dict[str, tuple[Callable[[Held], object], int]] = {
    "account_login": (lambda held: type_password(tab(), held.alice.email, WRONG), LADDER),
    "account_reauthenticate": (page("/reauthenticate/", password=WRONG), AGAIN),
    "account_change_password": (
        page("/password/change/", oldpassword=WRONG, password1=NEW, password2=NEW),
        AGAIN,
    ),
    "account_confirm_login_code": (
        lambda held: held.half_way().post("/login/code/confirm/", {"code": WRONG}),
        CODES,
    ),
    "account_email_verification_sent": (confirm_address, CODES),
    "mfa_authenticate": (
        lambda held: held.half_way().post("/account/security/authenticate/", {"code": WRONG}),
        CODES,
    ),
    "mfa_authenticate passkey": (
        lambda held: held.half_way().post(
            "/account/security/authenticate/", {"credential": WRONG_KEY}
        ),
        PASSKEYS,
    ),
    "mfa_reauthenticate": (page("/account/security/reauthenticate/", code=WRONG), AGAIN),
    "mfa_reauthenticate_webauthn": (
        page("/account/security/webauthn/reauthenticate/", credential=WRONG_KEY),
        AGAIN,
    ),
    "mfa_login_webauthn": (
        lambda _: tab().post("/account/security/webauthn/login/", {"credential": WRONG_KEY}),
        PASSWORDLESS,
    ),
    "mfa_activate_totp": (activate_totp, CODES),
    "number_confirm": (number_confirm, CODES),
    "approval": (approval, approvals.MOST_PROMPTS),
    "app_approval_answer": (approval_by_app, approvals.MOST_PROMPTS),
    "headless:app:account:login": (
        lambda held: App().call("POST", "auth/login", email=held.alice.email, password=WRONG),
        LADDER,
    ),
    "headless:app:account:reauthenticate": (by_app("auth/reauthenticate", password=WRONG), AGAIN),
    "headless:app:account:change_password": (
        by_app("account/password/change", current_password=WRONG, new_password=NEW),
        AGAIN,
    ),
    "headless:app:account:reset_password": (reset_password, LINKS),
    "headless:app:account:verify_email": (verify_email, CODES),
    "headless:app:account:confirm_login_code": (
        lambda held: held.app_half_way().call("POST", "auth/code/confirm", code=WRONG),
        CODES,
    ),
    "headless:app:mfa:authenticate": (
        lambda held: held.app_half_way().call("POST", "auth/2fa/authenticate", code=WRONG),
        CODES,
    ),
    "headless:app:mfa:reauthenticate": (by_app("auth/2fa/reauthenticate", code=WRONG), AGAIN),
    "headless:app:mfa:authenticate_webauthn": (
        lambda held: held.app_half_way().call("POST", "auth/webauthn/authenticate", credential=KEY),
        PASSKEYS,
    ),
    "headless:app:mfa:reauthenticate_webauthn": (
        by_app("auth/webauthn/reauthenticate", credential=KEY),
        AGAIN,
    ),
    "headless:app:mfa:login_webauthn": (
        lambda _: App().call("POST", "auth/webauthn/login", credential=KEY),
        PASSWORDLESS,
    ),
    "headless:app:mfa:manage_totp": (activate_totp_by_app, CODES),
}
# Nothing but a password, or a mailed code, is asked for there.
WITHOUT_APP = {
    "account_confirm_login_code",
    "headless:app:account:confirm_login_code",
    "mfa_activate_totp",
    "headless:app:mfa:manage_totp",
}


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch, db: None) -> list[str]:
    """Collects each wrong password, code and passkey that is really looked at."""
    # allauth's own limits are kept where no test's end empties them.
    cache.clear()
    seen = finger(monkeypatch)
    monkeypatch.setattr(
        "allauth.mfa.webauthn.internal.auth.extract_user_from_response",
        lambda _credential: User.objects.get(email="alice@example.org"),
    )

    def noting(place: Any, name: str, wrong: Callable[..., bool]) -> None:
        real = getattr(place, name)

        def noted(*given: Any, **more: Any) -> Any:
            if wrong(*given, **more):
                seen.append(name)
            return real(*given, **more)

        monkeypatch.setattr(place, name, noted)

    noting(LoginWebAuthnForm, "clean_credential", lambda _form: True)
    noting(User, "check_password", lambda _user, typed: typed == WRONG)
    noting(totp, "step_of", lambda _seed, code: code == WRONG)
    noting(sent_codes, "_digest", lambda _flow, code: code == WRONG)
    noting(LinkTokens, "check_token", lambda _self, _user, token: token == WRONG)
    noting(approvals, "_settle", lambda _approval, _state: True)
    return seen


def test_v6_3_1_every_address_that_takes_a_password_or_a_code_is_driven_to_its_limit() -> None:
    driven = {name.partition(" ")[0] for name in WAYS}
    assert found_addresses().keys() == driven | CHOSEN_THERE | BY_LINK | SHUT


@pytest.mark.parametrize("name", WAYS)
def test_v6_3_1_tries_are_counted_wherever_a_password_or_a_code_is_taken(
    name: str, alice: User, looked_at: list[str], settings: Any
) -> None:
    settings.SMS_URL = "file:"
    tried, most = WAYS[name]
    held = Held(alice)
    if name.endswith("confirm_login_code"):
        choose_email(signed_in_tab(alice.email))
    elif name not in WITHOUT_APP:
        held.with_second_step()
    with time_machine.travel(timezone.now(), tick=False) as clock:
        for _ in range(TRIES):
            tried(held)
            # Wrong passwords less than a second apart are one.
            clock.shift(timedelta(seconds=1.5))
    assert len(looked_at) == most


def test_a_limit_of_allauths_own_tells_an_app_how_long_it_lasts(
    alice: User, looked_at: list[str]
) -> None:
    answers = [App().call("POST", "auth/webauthn/login", credential=KEY) for _ in range(11)]
    assert answers[-1].status_code == 429
    assert answers[-1]["Retry-After"] == "60"
    assert len(looked_at) == PASSWORDLESS


def test_v6_3_1_what_is_shut_takes_nothing(alice: User) -> None:
    assert App().call("POST", "auth/phone/verify", code=WRONG).status_code == 404


# -- the command line ------------------------------------------------------------------------------

# What asks for the passphrase of a key file on the same disk: whoever has both may try at will.
ASK_FOR_A_PASSPHRASE = {"definitions", "import_definitions"}


def test_v6_3_1_every_command_that_asks_who_types_it_counts(
    alice: User, looked_at: list[str]
) -> None:
    asking = set()
    for name, package in get_commands().items():
        if package.startswith("doorward."):
            module = importlib.import_module(f"{package}.management.commands.{name}")
            if re.search(r"getpass|input\(|operators\.prove", inspect.getsource(module)):
                asking.add(name)
    assert asking == {"reset_2fa"} | ASK_FOR_A_PASSPHRASE
    held = Held(alice)
    held.with_second_step()
    User.objects.filter(pk=alice.pk).update(is_operator=True)
    for number in range(TRIES):
        password, code = (WRONG, "000000") if number % 2 else (PASSWORD, WRONG)
        with pytest.raises(operators.NotProven):
            operators.prove(alice.email, password, code)
    assert len(looked_at) == lockout.REAUTHENTICATION.most
