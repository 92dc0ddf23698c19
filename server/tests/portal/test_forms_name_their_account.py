"""A form changes the account whose page it stood on, whatever another tab looks at by now."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from server.tests.access.test_meanwhile import proved

from doorward import portal
from doorward.accounts.models import Account, Membership, PersonalToken, Role, Shares, User

TEMPLATES = Path(portal.__file__).parent / "templates" / "portal"
FOLDERS = ("members", "protection", "devices", "subscription", "quarantine", "commands", "reports")
FORM = re.compile(r"<form\b[^>]*method=\"post\"[^>]*>.*?</form>", re.DOTALL)
# What belongs to one account alone is found in no other; a person may belong to several.
OF_ONE_ACCOUNT = re.compile(
    r"\{\{ (?:device|invitation|token|group|found|it\.command|command|threat|row|scan|rule|note)\b"
)


def forms() -> list[tuple[str, str]]:
    files = [*(TEMPLATES / "account").glob("tokens.html")]
    for folder in FOLDERS:
        files += (TEMPLATES / folder).glob("**/*.html")
    return [
        (f"{path.relative_to(TEMPLATES)} {number}", form)
        for path in sorted(files)
        for number, form in enumerate(FORM.findall(path.read_text()))
    ]


@pytest.mark.parametrize("form", [pytest.param(form, id=name) for name, form in forms()])
def test_a_form_names_the_account_it_is_for(form: str) -> None:
    assert 'name="account"' in form or OF_ONE_ACCOUNT.search(form)


@pytest.fixture
def elsewhere(alice: User, alices_account: Account, charlie: User) -> Account:
    """Charlie's account, in which Alice is a helper."""
    other = Account.objects.get(memberships__user=charlie)
    Membership.objects.create(account=other, user=alice, role=Role.HELPER)
    return other


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("address", "sent"),
    [
        ("/account/members/sharing/", {"shares": Shares.PATHS.value}),
        ("/account/tokens/", {"name": "mine", "scopes": "devices:read"}),
    ],
)
def test_what_another_tab_looks_at_is_not_changed(
    alice: User, alices_account: Account, elsewhere: Account, address: str, sent: dict[str, str]
) -> None:
    browser = proved(alice)
    browser.post("/account/accounts/", {"to": str(elsewhere.pk)})
    answer = browser.post(address, {**sent, "account": str(alices_account.pk)}, follow=True)
    assert "that page was of another account" in answer.content.decode()
    assert not Membership.objects.filter(shares=Shares.PATHS).exists()
    assert not PersonalToken.objects.exists()
