"""Who may do what in an account: one table, read by the pages, the API and the tests.

docs/security/permissions.md shows it to people; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from doorward.accounts.models import Role


class Act(StrEnum):
    """Something a person may do in an account."""

    LOOK = "look"
    DEVICES_LOOK = "devices.look"
    REPORTS_LOOK = "reports.look"
    DEVICES_CHANGE = "devices.change"
    DEVICES_COMMAND = "devices.command"
    QUARANTINE_CHANGE = "quarantine.change"
    PROTECTION_CHANGE = "protection.change"
    SUBSCRIPTION_CHANGE = "subscription.change"
    MEMBERS_LOOK = "members.look"
    MEMBERS_CHANGE = "members.change"
    ACTIVITY_OF_ALL = "activity.of-all"
    OWN = "own"


_EVERYBODY: Final = frozenset(Role)

MAY: Final[Mapping[Act, frozenset[Role]]] = MappingProxyType(
    {
        # How things are: home, protection, what is covered.
        Act.LOOK: _EVERYBODY,
        # What else is seen of a member's own device, that member decides (devices/sharing.py).
        Act.DEVICES_LOOK: _EVERYBODY,
        Act.REPORTS_LOOK: _EVERYBODY,
        Act.DEVICES_CHANGE: frozenset({Role.OWNER, Role.HELPER}),
        # Scan now, look how the agent is, a new key: nothing that could do harm.
        Act.DEVICES_COMMAND: frozenset({Role.OWNER, Role.HELPER}),
        # Put files back or delete them, with fresh proof besides.
        Act.QUARANTINE_CHANGE: frozenset({Role.OWNER, Role.HELPER}),
        # What devices are told to do; whatever protects less needs fresh proof besides.
        Act.PROTECTION_CHANGE: frozenset({Role.OWNER, Role.HELPER}),
        Act.SUBSCRIPTION_CHANGE: frozenset({Role.OWNER, Role.BILLING}),
        Act.MEMBERS_LOOK: _EVERYBODY,
        # Invite, change a role, remove, hand the account over.
        Act.MEMBERS_CHANGE: frozenset({Role.OWNER}),
        Act.ACTIVITY_OF_ALL: frozenset({Role.OWNER}),
        # What is a person's own: how they sign in, what their devices share, leaving.
        Act.OWN: _EVERYBODY,
    }
)


def may(role: str, act: Act) -> bool:
    """Tell whether a member with this role may do this; an unknown role may do nothing."""
    return role in MAY[act]
