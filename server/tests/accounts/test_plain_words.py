"""No form says what a programmer calls a thing."""

from __future__ import annotations

import re

import pytest
from django.test import Client
from server.tests.accounts.second_steps import prove_again, signed_in_tab

from doorward.accounts.models import Account, User

FRAMEWORK = ("Username", "Remember Me", "Passwordless", "Authenticator code", "Current Password")


@pytest.mark.django_db
def test_labels_are_ours_on_every_form(alice: User, alices_account: Account) -> None:
    home = signed_in_tab(alice.email)
    totp = prove_again(home, "/account/security/totp/activate/").content.decode()
    stranger = Client(HTTP_HOST="localhost")
    inside = ("/password/change/", "/email/", "/account/security/webauthn/add/")
    outside = ("/login/", "/signup/", "/signup/passkey/", "/password/reset/")
    pages = [totp, *(home.get(path).content.decode() for path in inside)]
    pages += [stranger.get(path).content.decode() for path in outside]
    labels = [label for page in pages for label in re.findall(r"<label[^>]*>([^<]+)<", page)]
    assert len(labels) > 10
    for label in labels:
        assert label.strip() not in FRAMEWORK
        # "New Password (again)": a capital in the middle, an afterthought in brackets.
        assert not re.search(r" [A-Z][a-z]|\(again\)", label), label
    assert "New password once more" in labels
    assert "Code from the app" in labels
