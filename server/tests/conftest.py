"""The cast and the ground of every server test: Alice owns, Bob belongs, Charlie is a stranger."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import connections
from django.test import Client
from server.tests import emptied, only_by_the_stages

from doorward.accounts import signup
from doorward.accounts.models import Account, Membership, Role, User

PASSWORD = "a door that opens for Alice"


@pytest.fixture(scope="session")
def django_db_modify_db_settings(
    django_db_modify_db_settings_parallel_suffix: None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """On SQLite the tests' database is a file: one in memory has no two writers at once.

    Without fsync: a test has nothing to lose by a power cut.
    """
    database = connections["default"].settings_dict
    if connections["default"].vendor == "sqlite":
        database["TEST"]["NAME"] = str(tmp_path_factory.mktemp("database") / "test.sqlite3")
        database["OPTIONS"]["init_command"] = "PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF"


@pytest.fixture(autouse=True)
def ground(settings: Any, tmp_path: Path) -> None:
    """Each test has a data folder of its own, a cheap password hash and unhashed static names."""
    settings.DATA = tmp_path
    settings.STATIC_ROOT = tmp_path / "static"
    settings.STATIC_ROOT.mkdir()
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    settings.STORAGES = {
        **settings.STORAGES,
        "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
    }


@pytest.fixture(scope="session")
def every_way_in() -> Iterator[list[str]]:
    """Each way into a session is watched; whom it refused."""
    with only_by_the_stages.watched() as refused:
        yield refused


@pytest.fixture(autouse=True)
def refused_past_the_stages(every_way_in: list[str]) -> Iterator[list[str]]:
    """No test may see a session get a person past the stages, whatever was answered (row 15)."""
    every_way_in.clear()
    yield every_way_in
    assert every_way_in == []


@pytest.fixture(scope="session", autouse=True)
def emptied_quickly(django_db_setup: None) -> Iterator[None]:
    """Between tests that commit, Django empties every table."""
    with emptied.quickly():
        yield


@pytest.fixture(scope="session", autouse=True)
def last_sessions_end(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    """Threads that a test started may still hold a session when the database is to be dropped."""
    yield
    if connections["default"].vendor != "postgresql":
        return
    with django_db_blocker.unblock(), connections["default"].cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


def person(email: str, name: str) -> User:
    """Store a person whose address is confirmed and whose password is PASSWORD."""
    from allauth.account.models import EmailAddress

    user = User.objects.create_user(email, PASSWORD, name=name)
    EmailAddress.objects.create(user=user, email=user.email, verified=True, primary=True)
    return user


def account_for(owner: User) -> Account:
    """Store an account that this person owns."""
    return signup.found_account(owner)


@pytest.fixture
def alice(db: None) -> User:
    return person("alice@example.org", "Alice")


@pytest.fixture
def alices_account(alice: User) -> Account:
    return account_for(alice)


@pytest.fixture
def bob(alices_account: Account) -> User:
    """A viewer in Alice's account."""
    user = person("bob@example.org", "Bob")
    Membership.objects.create(account=alices_account, user=user, role=Role.VIEWER)
    return user


@pytest.fixture
def charlie(db: None) -> User:
    """A stranger, with an account of his own."""
    user = person("charlie@example.org", "Charlie")
    account_for(user)
    return user


def signed_in(user: User) -> Client:
    """Return a browser in which this person is signed in."""
    client = Client(HTTP_HOST="localhost")
    client.force_login(user, "allauth.account.auth_backends.AuthenticationBackend")
    return client


@pytest.fixture
def alices_browser(alice: User, alices_account: Account) -> Client:
    return signed_in(alice)


@pytest.fixture
def bobs_browser(bob: User) -> Client:
    return signed_in(bob)


@pytest.fixture
def charlies_browser(charlie: User) -> Client:
    return signed_in(charlie)
