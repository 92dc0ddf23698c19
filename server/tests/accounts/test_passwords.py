"""How passwords are kept, and which are refused."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import argon2.low_level
import nacl.pwhash.argon2id
import pytest
from django.contrib.auth.hashers import check_password, make_password
from django.core.exceptions import ValidationError

from doorward.accounts import hashing, password_rules, passwords
from doorward.accounts.models import User
from doorward.accounts.passwords import Argon2idHasher


@pytest.fixture(autouse=True)
def real_hasher(settings: Any, ground: None) -> None:
    settings.PASSWORD_HASHERS = ["doorward.accounts.passwords.Argon2idHasher"]


def test_v11_4_2_a_password_is_kept_as_argon2id_of_the_chosen_strength() -> None:
    encoded = make_password("correct horse battery staple")
    assert encoded.startswith("argon2$argon2id$v=19$m=47104,t=1,p=1$")
    assert encoded.count("$") == 5
    assert check_password("correct horse battery staple", encoded)
    assert not check_password("correct horse battery stable", encoded)


def test_the_memory_of_our_own_hash_is_kept_however_it_is_raised() -> None:
    assert passwords.MEMORY_KIB <= hashing.MOST_KEPT_KIB


def test_two_hashes_of_one_password_differ() -> None:
    assert make_password("x") != make_password("x")


@pytest.mark.parametrize("password", ["", " ", "a\x00b", "🐙" * 1024, "\ud800", "x" * 4096])
def test_v6_2_7_any_text_can_be_a_password_and_every_character_counts(password: str) -> None:
    encoded = make_password(password)
    assert check_password(password, encoded)
    assert not check_password(password + "x", encoded)
    assert not check_password(password[:-1] if password else " ", encoded)


def test_v6_2_8_two_long_passwords_that_differ_in_the_last_character_differ() -> None:
    encoded = make_password("x" * 4095 + "a")
    assert not check_password("x" * 4095 + "b", encoded)


def test_v6_2_9_a_password_that_is_too_long_costs_no_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = make_password("x")
    hashed: list[object] = []
    monkeypatch.setattr(passwords, "_hashing", SimpleNamespace(run=hashed.append))
    begun = time.thread_time()
    for _try in range(100):
        assert not check_password("x" * 1_000_000, encoded)
    assert (time.thread_time() - begun) / 100 < 0.005
    assert not hashed
    with pytest.raises(passwords.PasswordTooLong):
        make_password("x" * 4097)


@pytest.mark.django_db
def test_v11_4_2_a_weaker_hash_is_renewed_at_the_next_sign_in(alice: User) -> None:
    class Weaker(Argon2idHasher):
        memory_kib = 8192

    alice.password = Weaker().encode("correct horse", "")
    alice.save()
    assert "m=8192" in alice.password
    assert alice.check_password("correct horse")
    alice.refresh_from_db()
    assert "m=47104" in alice.password
    assert alice.check_password("correct horse")


def test_what_is_shown_of_a_hash_is_not_the_hash() -> None:
    encoded = make_password("x")
    shown = " ".join(map(str, Argon2idHasher().safe_summary(encoded).values()))
    assert encoded.rpartition("$")[2] not in shown


# -- rules -----------------------------------------------------------------------------------------


def refused(password: str, user: User | None = None) -> str:
    try:
        password_rules.PasswordRules().validate(password, user)
    except ValidationError as error:
        return str(error.error_list[0].code)
    return ""


@pytest.mark.django_db
@pytest.mark.parametrize(
    "password",
    [
        "the lamp over the harbor door",
        "quietriverquickfox",
        "720581936425081",
        "🐙🌋🏔🎻🛶🪁🧭🪀🎲🧩🪗🎺🥁🎷🪘",
        "ÄÖÜ und ein Schirm am Meer",
        "x9#Lq2!vR7$wT4z",
    ],
)
def test_v6_2_5_a_password_of_any_kind_is_accepted(password: str) -> None:
    assert refused(password) == ""


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("password", "why"),
    [
        ("fourteen chars", "password_too_short"),
        ("mnbvcxzlkjhgfdsapoi", "password_too_easy"),
        ("fedcba9876543210fed", "password_too_easy"),
        ("00000000000000001", "password_too_easy"),
        ("monkeymonkeymonkey99", "password_too_easy"),
        ("dr@gondr@gon1987", "password_too_easy"),
        ("Summer2026!Summer2026!", "password_too_easy"),
        ("qwertyasdfgh123456!", "password_too_easy"),
        ("January2026January", "password_too_easy"),
        ("qwertyuiopasdfghjkl", "password_too_common"),
        ("PASSWORDpassword", "password_too_common"),
        ("p@ssw0rdp@ssw0rd", "password_too_common"),
        ("ManchesterUnited", "password_too_common"),
        ("lightpower12345", "password_too_common"),
        ("my doorward of choice", "password_too_personal"),
        ("🐙" * 1025, "password_too_long"),
    ],
)
def test_v6_2_4_a_password_guessers_know_is_refused(password: str, why: str) -> None:
    assert refused(password) == why


@pytest.mark.django_db
def test_v6_2_10_words_about_the_person_are_refused(settings: Any) -> None:
    settings.PRODUCT_NAME = "Harborlight"
    alice = User(email="alice.liddell@wonder.example", name="Alice Liddell")
    assert refused("one alice.liddell at noon", alice) == "password_too_personal"
    assert refused("seven LIDDELL sisters row", alice) == "password_too_personal"
    assert refused("in wonder.example we row", alice) == "password_too_personal"
    assert refused("a harborlight at the pier", alice) == "password_too_personal"
    assert refused("seven sisters row at noon", alice) == ""


@pytest.mark.django_db
def test_v6_2_1_with_a_second_step_eight_characters_are_enough(alice: User) -> None:
    from allauth.mfa.models import Authenticator

    assert refused("wq7hx2vp", alice) == "password_too_short"
    Authenticator.objects.create(user=alice, type=Authenticator.Type.RECOVERY_CODES, data={})
    assert refused("wq7hx2vp", alice) == "password_too_short"
    Authenticator.objects.create(user=alice, type=Authenticator.Type.TOTP, data={})
    assert refused("wq7hx2vp", alice) == ""
    assert refused("wq7hx2v", alice) == "password_too_short"
    assert refused("password", alice) == "password_too_common"


@pytest.mark.django_db
def test_a43_judging_a_hostile_password_is_quick() -> None:
    for password in ("a1" * 2000, "password" * 500, "(" * 4000, "a\u0301" * 1300):
        begun = time.thread_time()
        refused(password)
        assert time.thread_time() - begun < 0.5


def test_a_reason_never_repeats_the_password() -> None:
    for password in ("hunter2hunter2", "qwertyuiopasdfghjkl"):
        for _code, text in password_rules.reasons_against(password, user=None, alone=True):
            assert password not in text


def test_a_hash_made_by_any_other_argon2_library_is_understood() -> None:
    # From the test vectors of the reference implementation (phc-winner-argon2, test.c).
    vector = (
        "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc"
    )
    assert check_password("password", "argon2" + vector)
    assert not check_password("Password", "argon2" + vector)


def test_a_hash_is_what_any_other_argon2_library_would_keep() -> None:
    encoded = make_password("correct horse").removeprefix("argon2").encode()
    assert argon2.low_level.verify_secret(encoded, b"correct horse", argon2.low_level.Type.ID)
    assert nacl.pwhash.argon2id.verify(encoded, b"correct horse")
    theirs = nacl.pwhash.argon2id.str(b"theirs", opslimit=1, memlimit=8192 * 1024)
    assert check_password("theirs", "argon2" + theirs.rstrip(b"\0").decode())


OWN = "argon2$argon2id$v=19$m=47104,t=1,p=1$c2l4dGVlbiBieXRlcyBpdA$" + "A" * 43


@pytest.mark.parametrize(
    ("part", "by"),
    [
        ("m=47104", "m=0"),
        ("m=47104", "m=7"),
        ("m=47104", "m=262145"),
        ("m=47104", "m=4294967295"),
        ("m=47104", "m=99999999999999999999"),
        ("m=47104", "m=\u0664\u0667"),
        ("t=1", "t=0"),
        ("t=1", "t=17"),
        ("t=1", "t=4294967295"),
        ("p=1", "p=0"),
        ("p=1", "p=17"),
        ("v=19", "v=16"),
        ("argon2id$", "argon2i$"),
        ("$c2l4dGVlbiBieXRlcyBpdA", "$c"),
        ("$c2l4dGVlbiBieXRlcyBpdA", "$"),
        ("$c2l4dGVlbiBieXRlcyBpdA", "$" + "A" * 86),
        ("A" * 43, "A"),
        ("A" * 43, ""),
        ("A" * 43, "A" * 86),
        ("A" * 43, "A" * 43 + "\n"),
        ("A" * 43, "\u00e4" * 43),
        (OWN, "argon2$"),
        (OWN, "argon2$argon2id$v=19"),
    ],
)
def test_a_stored_hash_that_nothing_can_check_is_a_wrong_password(part: str, by: str) -> None:
    assert not Argon2idHasher().verify("x", OWN.replace(part, by))


@pytest.mark.parametrize(
    ("encoded", "anew"),
    [
        (OWN, False),
        (OWN.replace("m=47104", "m=8"), True),
        (OWN.replace("p=1", "p=2"), True),
        (OWN.replace("v=19", "v=16"), True),
        (OWN.replace("c2l4dGVlbiBieXRlcyBpdA", "c29tZXNhbHQ"), True),
        (OWN.replace("A" * 43, "A" * 22), True),
        (OWN.replace("m=47104", "m=0"), True),
    ],
)
def test_what_is_not_as_ours_is_made_anew(encoded: str, anew: bool) -> None:
    assert Argon2idHasher().must_update(encoded) is anew


@pytest.mark.parametrize(
    ("cost", "more"),
    [
        ("m=47104,t=1", None),
        ("m=19456,t=2", 47104 - 2 * 19456),
        ("m=8,t=1", 47104 - 8),
        ("m=102400,t=2", None),
        ("m=0,t=1", 47104),
    ],
)
def test_a_cheaper_hash_costs_no_less_than_ours(
    cost: str, more: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[int] = []
    monkeypatch.setattr(
        passwords, "_hash", lambda _password, _salt, memory_kib, _time: hashed.append(memory_kib)
    )
    Argon2idHasher().harden_runtime("x", OWN.replace("m=47104,t=1", cost))
    assert hashed == ([] if more is None else [more])


def test_n1_a_wrong_password_stays_wrong_where_there_is_no_memory_to_take_as_long_as_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def busy(*_words: Any) -> Any:
        raise hashing.Busy("no memory to hash a password in")

    cheaper = Argon2idHasher()
    cheaper.memory_kib = 19456
    encoded = cheaper.encode("correct horse", "")
    checked = Argon2idHasher.verify

    def checks_and_then_has_no_memory(self: Argon2idHasher, password: str, encoded: str) -> bool:
        found = checked(self, password, encoded)
        monkeypatch.setattr(passwords, "_hash", busy)
        return found

    monkeypatch.setattr(Argon2idHasher, "verify", checks_and_then_has_no_memory)
    assert check_password("wrong horse", encoded) is False
