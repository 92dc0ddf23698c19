"""A code of Alice's, in a database that the door's own threads see too."""

from __future__ import annotations

import pytest
from server.tests.gateway.computers import code_for

from doorward.accounts.models import Account


@pytest.fixture
def alices_code(transactional_db: None, alices_account: Account) -> str:
    return code_for(alices_account)
