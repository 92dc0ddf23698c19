"""Ways in that other products had and this one has not (A28, A29)."""

from __future__ import annotations

import json

import pytest
from django.apps import apps
from django.conf import settings
from django.test import Client
from django.urls import get_resolver
from server.tests.conftest import PASSWORD

from doorward.accounts.models import Account, User


def test_a29_no_other_site_vouches_for_an_address() -> None:
    # Not applicable as long as nobody else's sign-in is taken: with the first provider this fails,
    # and has to become a test that an unconfirmed address from there is linked to nobody.
    assert not apps.is_installed("allauth.socialaccount")
    assert settings.AUTHENTICATION_BACKENDS == [
        "allauth.account.auth_backends.AuthenticationBackend"
    ]
    names = {str(name) for name in get_resolver().reverse_dict}
    assert not any("oauth" in name or "openid" in name or "saml" in name for name in names)


@pytest.mark.django_db
def test_a28_a_form_of_another_site_signs_nobody_in_or_out(
    alice: User, alices_account: Account
) -> None:
    tab = Client(HTTP_HOST="localhost", enforce_csrf_checks=True)
    form = {"login": alice.email, "password": PASSWORD}
    assert tab.post("/login/", form).status_code == 403
    tab.get("/login/")
    token = tab.cookies[settings.CSRF_COOKIE_NAME].value
    sent = {**form, "csrfmiddlewaretoken": token}
    other = tab.post("/login/", sent, headers={"Origin": "https://elsewhere.example"})
    assert other.status_code == 403
    assert tab.post("/login/", sent, headers={"Origin": settings.SITE_URL}).status_code == 302
    assert tab.post("/logout/").status_code == 403
    tab.get("/logout/")
    assert tab.get("/devices/").status_code == 200


@pytest.mark.django_db
def test_v3_5_2_what_a_browser_sends_for_another_site_without_asking_is_nobodys(
    alice: User, alices_browser: Client
) -> None:
    """A request that needs no preflight: with cookies, of a form's types, with no header of ours.

    Apps and the API know people by headers alone, which no browser sends for another site unasked.
    """
    sent = json.dumps({"current_password": PASSWORD, "new_password": "nine ships at night, alone"})
    visited = 0
    for kind in (
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
    ):
        for path in (
            "/_allauth/app/v1/account/password/change",
            "/_allauth/app/v1/account/email",
            "/_allauth/app/v1/account/authenticators/recovery-codes",
            "/api/v1/devices",
            "/api/v1/members",
        ):
            for method in ("GET", "HEAD", "POST"):
                answer, strangers = (
                    browser.generic(
                        method, path, sent, kind, headers={"Origin": "https://elsewhere.example"}
                    )
                    for browser in (alices_browser, Client(HTTP_HOST="localhost"))
                )
                assert answer.status_code == strangers.status_code, (method, path, kind)
                assert answer.status_code >= 400, (method, path, kind)
                assert "Access-Control-Allow-Origin" not in answer.headers
                visited += answer.status_code == 401
    assert visited > 20
    alice.refresh_from_db()
    assert alice.check_password(PASSWORD)
    assert alices_browser.get("/devices/").status_code == 200
