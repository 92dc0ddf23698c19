"""No form says what a programmer calls a thing."""

from __future__ import annotations

import re
from pathlib import Path

import allauth
import django
import pytest
from django.test import Client
from server.tests.accounts.second_steps import add_app, prove_again, signed_in_tab
from tests.tools import compile_words

from doorward.accounts.models import Account, User

WORDS = Path(__file__).parents[2] / "src" / "doorward" / "locale"
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


def errors_on(page: str) -> list[str]:
    """Return what stands beside the fields of a page as wrong."""
    return re.findall(r'class="field-error"[^>]*>(?:<svg.*?</svg>)?(?:<span>)?([^<]+)<', page)


@pytest.mark.django_db
def test_what_is_wrong_is_said_beside_its_field_in_our_words(
    alice: User, alices_account: Account
) -> None:
    home = signed_in_tab(alice.email)
    stranger = Client(HTTP_HOST="localhost")
    prove_again(home, "/account/security/totp/activate/")
    empty = {
        home: ["/password/change/", "/email/", "/account/security/totp/activate/"],
        stranger: ["/login/", "/signup/", "/password/reset/", "/signup/passkey/"],
    }
    said = []
    for browser, paths in empty.items():
        for path in paths:
            found = errors_on(browser.post(path, {"action_add": ""}).content.decode())
            assert found, path
            said += found
    assert set(said) == {"Fill this in."}
    twice = {"oldpassword": "x", "password1": "nine ships at sea, quiet", "password2": "other"}
    assert "The two are not the same. Type the new password once more." in errors_on(
        home.post("/password/change/", twice).content.decode()
    )
    for path in ("/signup/", "/password/reset/"):
        wrong = stranger.post(path, {"email": "not an address", "password1": "x"})
        assert "That is not an email address. One looks like name@example.org." in errors_on(
            wrong.content.decode()
        )
    long = home.post("/account/", {"name": "Alice" * 30, "zone": ""}).content.decode()
    assert errors_on(long) == ["That is too long: it takes 120 characters at most and has 150."]


def test_every_sentence_replaced_is_still_one_of_the_frameworks() -> None:
    sources = ""
    for package in (django, allauth):
        folder = Path(str(package.__file__)).parent
        parts = ("forms", "core", "account", "mfa", "usersessions", "socialaccount")
        for part in parts:
            for file in (folder / part).rglob("*.py"):
                sources += file.read_text()
    # Sentences stand there in several lines.
    flat = re.sub(r'"\s*"', "", sources)
    for sentence in compile_words.read((WORDS / "en/LC_MESSAGES/django.po").read_text()):
        for each in sentence.split("\0"):
            assert each in flat, each


def test_what_gettext_reads_was_made_of_what_people_read() -> None:
    for source in WORDS.rglob("*.po"):
        said = compile_words.read(source.read_text())
        assert source.with_suffix(".mo").read_bytes() == compile_words.compiled(said), source


@pytest.mark.django_db
def test_is_it_still_you_has_its_field_in_focus(alice: User, alices_account: Account) -> None:
    home = signed_in_tab(alice.email)
    for path in ("/reauthenticate/", "/account/security/reauthenticate/"):
        if "security" in path:
            add_app(home)
        form = home.get(path, follow=True).content.decode().partition("<main")[2]
        assert len(re.findall(r"<(?:input|button)[^>]* autofocus", form)) == 1, path


@pytest.mark.django_db
def test_the_page_about_signing_in_has_one_name(alice: User, alices_account: Account) -> None:
    home = signed_in_tab(alice.email)
    (heading,) = re.findall(r"<h1>([^<]+)</h1>", home.get("/account/security/").content.decode())
    menu = home.get("/account/").content.decode()
    line = re.search(r'href="/account/security/".*?class="line-name">([^<]+)<', menu)
    assert line is not None
    assert line[1] == heading == "Signing in and security"
