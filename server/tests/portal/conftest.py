"""Whose pages are looked at: Alice's account, with a laptop."""

from __future__ import annotations

import pytest
from server.tests.portal.stock import device_of

from doorward.accounts.models import Account
from doorward.billing import entitlement
from doorward.devices.models import Device


@pytest.fixture
def account(alices_account: Account) -> Account:
    """Alice's account, with the plan everybody starts with."""
    entitlement.start_default(alices_account)
    return alices_account


@pytest.fixture
def laptop(account: Account) -> Device:
    return device_of(account, name="Alice’s laptop")
