"""Finds what a call names; what is another account's, was removed or never was is not there."""

from __future__ import annotations

from uuid import UUID

from doorward.accounts import members
from doorward.accounts.models import Membership
from doorward.api.callers import Caller
from doorward.api.problems import Refused
from doorward.devices import commands
from doorward.devices import queries as devices
from doorward.devices.models import Command, Device


def device(caller: Caller, device_id: UUID) -> Device:
    """Return the device of the caller's account. Raises Refused."""
    found = devices.find(caller.account, device_id)
    if found is None:
        raise Refused("not-found")
    return found


def command(caller: Caller, uid: UUID) -> Command:
    """Return the command of a device of the caller's account. Raises Refused."""
    found = commands.find(caller.account, uid)
    if found is None:
        raise Refused("not-found")
    return found


def member(caller: Caller, person: UUID) -> Membership:
    """Return the member of the caller's account. Raises Refused."""
    found = members.find(caller.account, person)
    if found is None:
        raise Refused("not-found")
    return found
