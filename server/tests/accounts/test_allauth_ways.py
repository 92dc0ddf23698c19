"""Our factors stand where allauth looks for its own; if a name moves, the server does not start."""

from __future__ import annotations

from typing import Any

import pytest
from allauth.account.internal.flows import reauthentication
from allauth.mfa.base import forms as base_forms
from allauth.mfa.internal.flows import trust
from allauth.mfa.models import Authenticator
from allauth.mfa.recovery_codes.internal import flows as recovery_flows
from allauth.mfa.totp import forms as totp_forms
from allauth.mfa.totp.internal import auth as totp_auth
from allauth.mfa.totp.internal import flows as totp_flows
from allauth.mfa.webauthn import forms as webauthn_forms
from allauth.mfa.webauthn.internal import auth as webauthn_auth
from server.tests.accounts.second_steps import App, code_at
from server.tests.conftest import PASSWORD

from doorward.accounts import allauth_ways, asking_again, counted_tries
from doorward.accounts.factors import ceremonies, recovery_codes, totp
from doorward.accounts.models import User
from doorward.notices import envelope


def test_ours_stand_where_allauth_looks() -> None:
    assert totp_flows.TOTP is totp.Totp
    assert totp_auth.TOTP is totp.Totp
    assert recovery_flows.RecoveryCodes is recovery_codes.RecoveryCodes
    assert base_forms.check_rate_limit is counted_tries.count_try
    assert totp_forms.check_rate_limit is counted_tries.count_new_app
    assert webauthn_forms.check_rate_limit is counted_tries.count_passkey
    for name in ("begin_registration", "begin_authentication", "complete_authentication"):
        assert getattr(webauthn_auth, name) is getattr(ceremonies, name)
    for form in (webauthn_forms.AddWebAuthnForm, webauthn_forms.SignupWebAuthnForm):
        assert form.clean is ceremonies.clean_new
    assert webauthn_forms.LoginWebAuthnForm.clean_credential is ceremonies.clean_signing_in
    assert reauthentication.suspend_request is asking_again.suspend
    assert reauthentication.resume_request is asking_again.resume
    assert trust.is_trusted_browser is allauth_ways.is_trusted_browser
    assert Authenticator(type="totp").wrap().__class__ is totp.Totp


def test_a_name_that_moved_away_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(trust, "is_trusted_browser")
    with pytest.raises(allauth_ways.MovedAway, match="is_trusted_browser"):
        allauth_ways.install()


def test_a_seed_sealed_with_another_key_is_not_read(settings: Any) -> None:
    adapter = allauth_ways.MfaAdapter()
    sealed = adapter.encrypt("JBSWY3DPEHPK3PXP")
    assert adapter.decrypt(sealed) == "JBSWY3DPEHPK3PXP"
    assert adapter.encrypt("JBSWY3DPEHPK3PXP") != sealed
    for changed in (sealed[:-4] + "AAA=", "not base64"):
        with pytest.raises(envelope.Unreadable):
            adapter.decrypt(changed)
    settings.FIELD_KEY = b"k" * 32
    with pytest.raises(envelope.Unreadable):
        adapter.decrypt(sealed)


def test_the_square_code_is_drawn_without_styles() -> None:
    svg = allauth_ways.MfaAdapter().build_totp_svg("otpauth://totp/x?secret=JBSWY3DPEHPK3PXP")
    assert svg.startswith("<svg")
    assert "style" not in svg


@pytest.mark.parametrize(
    "typed",
    ["abcd-efgh-ijkl-mno2", "ABCD EFGH IJKL MNO2", "abcdefghijklmn02", " ABCD-EFGH-1JKL-MNO2"],
)
def test_a_recovery_code_is_read_however_it_was_typed(typed: str) -> None:
    assert recovery_codes.digest(typed) == recovery_codes.digest("ABCDEFGHIJKLMNO2")


@pytest.mark.parametrize("typed", ["", "\ud800", "x" * 5000, "\uff11" * 6, "12345\x00"])
def test_nonsense_is_no_code(typed: str) -> None:
    assert totp.step_of("JBSWY3DPEHPK3PXP", typed) is None
    assert len(recovery_codes.digest(typed)) == 64


@pytest.mark.django_db(transaction=True)
def test_an_app_sets_up_and_takes_the_second_step_by_json(alice: User) -> None:
    app = App()
    app.call("POST", "auth/login", email=alice.email, password=PASSWORD)
    token = app.token
    assert app.call("POST", "auth/reauthenticate", password=PASSWORD).status_code == 200
    # A new id at the step up: the token of before is dead.
    assert app.token != token
    offered = app.call("GET", "account/authenticators/totp")
    seed = offered.json()["meta"]["secret"]
    added = app.call("POST", "account/authenticators/totp", code=code_at(seed, -1))
    assert added.status_code == 200, added.content
    shown = app.call("GET", "account/authenticators/recovery-codes").json()["data"]
    codes = shown["unused_codes"]
    assert len(codes) == 10
    assert "•" not in codes[0]
    again = app.call("GET", "account/authenticators/recovery-codes")
    assert codes[0] not in again.content.decode()
    made = app.call("POST", "account/authenticators/recovery-codes").json()["data"]
    fresh = made["unused_codes"]
    assert len(fresh) == 10
    assert not set(fresh) & set(codes)

    other = App()
    answer = other.call("POST", "auth/login", email=alice.email, password=PASSWORD)
    assert answer.status_code == 401
    assert not other.is_signed_in()
    assert other.call("POST", "auth/2fa/authenticate", code=codes[0]).status_code == 400
    assert other.call("POST", "auth/2fa/authenticate", code=code_at(seed)).status_code == 200
    assert other.is_signed_in()
    third = App()
    third.call("POST", "auth/login", email=alice.email, password=PASSWORD)
    assert third.call("POST", "auth/2fa/authenticate", code=fresh[0].lower()).status_code == 200
    assert third.is_signed_in()
