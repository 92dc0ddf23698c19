"""Ways in that other products had and this one has not (A28, A29)."""

from __future__ import annotations

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
