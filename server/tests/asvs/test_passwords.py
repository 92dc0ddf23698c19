"""Passwords as OWASP ASVS 5.0 asks for them (shared list A1, rows 2 to 11 and 51)."""

from __future__ import annotations

import gzip
import json
import re
import time
import unicodedata
from datetime import timedelta
from pathlib import Path
from typing import Any

import nacl.pwhash.argon2id
import pytest
import time_machine
from django.contrib.auth.hashers import check_password, make_password
from django.core.exceptions import ValidationError
from django.test import Client
from django.utils import timezone
from server.tests.accounts.second_steps import is_signed_in, signed_in_tab, tab, type_password
from server.tests.accounts.test_members import invite
from server.tests.asvs.test_second_step import reset_link
from server.tests.conftest import PASSWORD, person, signed_in

from doorward.accounts import known_passwords, password_rules, passwords
from doorward.accounts.models import Account, User

NEW = "nine ships in the quiet morning"
TOP = Path(__file__).parents[1] / "accounts" / "top-passwords.txt.gz"

pytestmark = pytest.mark.django_db


def refused(password: str, user: User | None = None) -> str:
    try:
        password_rules.PasswordRules().validate(password, user)
    except ValidationError as error:
        return str(error.error_list[0].code)
    return ""


def sign_up(address: str, password: str) -> Any:
    return tab().post("/signup/", {"email": address, "password1": password})


def change(browser: Client, old: str, new: str) -> Any:
    return browser.post(
        "/password/change/", {"oldpassword": old, "password1": new, "password2": new}
    )


def test_v6_2_1_fourteen_characters_are_refused_and_fifteen_accepted(alice: User) -> None:
    assert "at least 15" in sign_up("a@example.org", "wq7hx2vpmz4rtk").content.decode()
    assert sign_up("b@example.org", "wq7hx2vpmz4rtkd").status_code == 302
    assert refused("wq7hx2v", alice) == "password_too_short"
    assert password_rules.LEAST_WITH_SECOND_STEP == 8, "no setting lowers it"


def test_v6_2_2_who_tells_the_current_one_changes_it(alice: User) -> None:
    browser = signed_in_tab(alice.email)
    assert change(browser, PASSWORD, NEW).status_code == 302
    alice.refresh_from_db()
    assert alice.check_password(NEW)
    assert is_signed_in(browser)


def test_v6_2_3_changing_it_takes_the_current_one_and_wrong_ones_are_counted(alice: User) -> None:
    browser = signed_in_tab(alice.email)
    for _try in range(5):
        assert "That is not your password" in change(browser, "wrong", NEW).content.decode()
    assert is_signed_in(browser)
    assert change(browser, PASSWORD, NEW)["Location"] == "/login/"
    assert not is_signed_in(browser), "the sixth in five minutes ends the session"
    assert "Too many wrong tries" in browser.get("/login/").content.decode()
    alice.refresh_from_db()
    assert alice.check_password(PASSWORD), "it was not looked at, though it was right"


def test_v6_2_4_3000_of_the_3000_most_used_passwords_are_refused() -> None:
    top = gzip.decompress(TOP.read_bytes()).decode().splitlines()
    assert len(set(top)) == 3000
    assert min(map(len, top)) == password_rules.LEAST_ALONE
    let_in = [password for password in top if not refused(password)]
    assert not let_in
    disguised = [word.swapcase() for word in top]
    assert not [word for word in disguised if not refused(word)]


def test_v6_2_4_the_list_knows_far_more_and_costs_next_to_nothing() -> None:
    assert len(known_passwords.shelves()) > 800_000
    # What it computes, here and below: on a busy machine everything waits.
    begun = time.thread_time()
    for number in range(2000):
        known_passwords.contains(f"a sentence of my own, number {number}")
    assert (time.thread_time() - begun) / 2000 < 0.001
    begun = time.thread_time()
    for number in range(50):
        refused(f"{number} herons wade in the gray harbor at noon")
    assert (time.thread_time() - begun) / 50 < 0.005


def test_v6_2_4_what_is_on_no_list_is_not_taken_for_it() -> None:
    mistaken = [n for n in range(20_000) if known_passwords.contains(f"heron {n} at dusk {n * 7}")]
    assert len(mistaken) <= 1


def test_a_list_that_was_cut_short_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = tmp_path / "short.bin"
    short.write_bytes(known_passwords.FILE.read_bytes()[:-1])
    monkeypatch.setattr(known_passwords, "FILE", short)
    known_passwords.shelves.cache_clear()
    try:
        with pytest.raises(known_passwords.NoList):
            known_passwords.shelves()
    finally:
        monkeypatch.undo()
        known_passwords.shelves.cache_clear()


def password_pages(alice: User) -> dict[str, tuple[str, list[str]]]:
    """Return the text of every page with a password on it, and what its fields say they are for."""
    alone = person("bob@example.org", "Bob")
    User.objects.filter(pk=alone.pk).update(password=make_password(None))
    inside = signed_in(User.objects.get(pk=alone.pk))
    session = inside.session
    # He proved it just now, by his passkey.
    session["account_authentication_methods"] = [{"method": "mfa", "at": time.time()}]
    session.save()
    home, stranger, invited = signed_in_tab(alice.email), tab(), tab()
    stranger.post("/password/reset/", {"email": alice.email})
    account = Account.objects.get()
    invited.post(invite(account, alice))
    old, new = "current-password", "new-password"
    asked: dict[str, tuple[Any, list[str]]] = {
        "sign-in": (tab().get("/login/"), [old]),
        "sign-up": (tab().get("/signup/"), [new]),
        "change": (home.get("/password/change/"), [old, new]),
        "reset": (stranger.get(reset_link(), follow=True), [new]),
        "asked again": (home.get("/reauthenticate/"), [old]),
        "a first one": (inside.get("/password/set/"), [new]),
        "invited": (invited.get("/invitation/"), [new]),
    }
    assert all(page.status_code == 200 for page, _for in asked.values()), asked
    return {name: (page.content.decode(), for_) for name, (page, for_) in asked.items()}


def test_v6_2_6_v6_2_7_each_password_field_can_be_shown_pasted_into_and_filled(
    alice: User, alices_account: Account
) -> None:
    for where, (text, wanted) in password_pages(alice).items():
        fields = re.findall(r"<input[^>]*(?:type=\"password\"|name=\"\w*password\d?\")[^>]*>", text)
        purposes = []
        for field in fields:
            assert 'type="password"' in field, (where, field)
            (purpose,) = re.findall(r'autocomplete="([a-z -]+)"', field)
            purposes.append(purpose)
            blocking = r"\bon(paste|copy|cut|drop|input|key\w+)=|maxlength|readonly"
            assert not re.search(blocking, field), (where, field)
            (key,) = re.findall(r' id="(\w+)"', field)
            assert f'data-reveal="{key}"' in text, (where, "what one types can be shown")
            assert f'<label for="{key}"' in text, where
        assert sorted(set(purposes)) == sorted(wanted), where


def test_v6_2_6_every_page_with_a_password_is_looked_at_above() -> None:
    """By its template: one that shows a form's fields has them from the tag that is held above."""
    folder = Path(password_rules.__file__).parents[1]
    for page in folder.rglob("*.html"):
        assert 'type="password"' not in page.read_text(), page


def test_v6_2_7_no_script_of_ours_keeps_anybody_from_pasting() -> None:
    folder = Path(password_rules.__file__).parents[1] / "portal"
    for script in (*folder.rglob("*.js"), *folder.rglob("*.html")):
        assert not re.search(
            r"\b(onpaste|oncopy|oncut|[\"'](paste|copy|cut)[\"'])", script.read_text()
        )


def test_v6_2_8_space_and_case_and_the_hundredth_character_matter() -> None:
    long = "x" * 99
    for password, other in (
        (" a heron at noon ", "a heron at noon"),
        ("A heron at noon", "a heron at noon"),
        (long + "a", long + "b"),
    ):
        encoded = make_password(password)
        assert check_password(password, encoded)
        assert not check_password(other, encoded)


def test_v6_2_8_one_password_however_a_keyboard_composes_its_accents(settings: Any) -> None:
    settings.PASSWORD_HASHERS = ["doorward.accounts.passwords.Argon2idHasher"]
    typed = "Müßige Köche zählen Äpfel"
    decomposed = unicodedata.normalize("NFD", typed)
    assert decomposed != typed
    assert check_password(decomposed, make_password(typed))
    assert check_password(typed, make_password(decomposed))
    assert not check_password(typed.replace("ß", "ss"), make_password(typed)), "only accents"
    document = Path(__file__).parents[3] / "docs" / "security" / "passwords.md"
    assert "NFC" in document.read_text()


@pytest.mark.parametrize("length", [64, 128])
def test_v6_2_9_long_passwords_work(length: int) -> None:
    long = ("herons wade at noon " * 10)[: length - 1] + "9"
    words = f"kite {length} "
    password = (words + "".join(chr(97 + (n * 7 + n // 26) % 26) for n in range(200)))[:length]
    assert len(long) == len(password) == length
    address = f"long{length}@example.org"
    assert sign_up(address, password).status_code == 302
    assert User.objects.get(email=address).check_password(password)


def test_v6_2_9_4097_characters_are_refused_at_once_and_never_hashed(
    alice: User, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    settings.PASSWORD_HASHERS = ["doorward.accounts.passwords.Argon2idHasher"]

    def never(*_args: Any, **_more: Any) -> None:
        raise AssertionError("it was hashed")

    monkeypatch.setattr(nacl.pwhash.argon2id, "str", never)
    monkeypatch.setattr(nacl.pwhash.argon2id, "verify", never)
    tab().get("/login/")
    begun = time.thread_time()
    answer = type_password(tab(), alice.email, "x" * 4097)
    assert answer.status_code == 200
    begun_signup = time.thread_time()
    assert begun_signup - begun < 0.05
    assert "longer than we can take" in sign_up("x@example.org", "x" * 4097).content.decode()
    assert time.thread_time() - begun_signup < 0.05


def test_v6_2_10_nothing_expires_in_five_years(alice: User) -> None:
    with time_machine.travel(timezone.now() + timedelta(days=5 * 365)):
        browser = signed_in_tab(alice.email)
        page = browser.get("/account/").content.decode()
        assert "expire" not in page


@pytest.mark.parametrize(
    "password",
    ["my doorward of choice", "harborlight over the pier", "seven liddell sisters row"],
)
def test_v6_2_11_brand_and_address_in_a_password_are_named_and_refused(
    settings: Any, password: str
) -> None:
    settings.PRODUCT_NAME = "Harborlight"
    page = sign_up("liddell@example.net", password).content.decode()
    assert "which a guesser would try first" in page
    assert re.search("“(doorward|harborlight|liddell)”", page)


def test_v11_4_2_a_weaker_hash_is_made_anew_when_its_owner_signs_in(
    alice: User, settings: Any
) -> None:
    settings.PASSWORD_HASHERS = ["doorward.accounts.passwords.Argon2idHasher"]

    class Weaker(passwords.Argon2idHasher):
        memory_kib = 8192

    User.objects.filter(pk=alice.pk).update(password=Weaker().encode(PASSWORD, ""))
    browser = signed_in_tab(alice.email)
    alice.refresh_from_db()
    assert "m=47104," in alice.password
    assert is_signed_in(browser), "the session in which it was made anew goes on"
    assert is_signed_in(signed_in_tab(alice.email))


def judged(browser: Client, **sent: Any) -> Any:
    return browser.post("/password/judge/", json.dumps(sent), content_type="application/json")


@pytest.mark.parametrize(
    ("password", "level", "why"),
    [
        ("x", 0, "at least 15"),
        ("passwordpassword", 0, "lists guessers begin with"),
        ("mnbvcxzlkjhgfdsapoi", 2, "follows a pattern"),
        ("the lamp over the harbor door", 4, ""),
    ],
)
def test_v6_2_4_the_meter_says_what_the_rules_will_say(password: str, level: int, why: str) -> None:
    told = judged(tab(), password=password).json()
    assert told["level"] == level
    assert why in told["why"]
    assert bool(told["why"]) == bool(refused(password))


def test_v6_2_11_the_meter_knows_the_address_on_the_page(alice: User) -> None:
    told = judged(tab(), password="seven liddell sisters row", email="liddell@example.net").json()
    assert "“liddell”" in told["why"]
    told = judged(signed_in_tab(alice.email), password="my alice in the harbor").json()
    assert "“alice”" in told["why"]


def test_the_meter_takes_no_nonsense_and_stores_nothing() -> None:
    for body in ("", "[]", "{}", '{"password": 1}', "[" * 9000, "x" * 9000):
        answer = tab().post("/password/judge/", body, content_type="application/json")
        assert answer.status_code == 422, body[:20]
    assert judged(tab(), password="a" * 5000).json()["level"] <= 2
    closed = Client(HTTP_HOST="localhost", enforce_csrf_checks=True)
    assert judged(closed, password="x").status_code == 403
    assert judged(tab(), password="x")["Cache-Control"] == "no-store"
    assert tab().get("/password/judge/").status_code == 405
