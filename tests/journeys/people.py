"""Alice, who owns devices, and somebody who asks them to act: each at work on the database."""

from __future__ import annotations

from typing import Any, Final

from tests.agent_at_work import PATIENCE_S, until
from tests.conftest import Server
from tests.journeys.somebody import Somebody

ACCOUNT: Final = """
import json, sys
import django
django.setup()
from doorward.accounts import members, signup
from doorward.accounts.models import User
from doorward.devices import enrollment, removal
from doorward.devices.models import Device
from doorward.reports.models import Detection
alice = User.objects.filter(email=sys.argv[1]).first()
if alice is None:
    alice = User.objects.create_user(sys.argv[1], None, name="Alice")
    signup.found_account(alice)
account = members.account_of(alice)
devices = Device.objects.filter(account=account)
for line in sys.stdin:
    what, *words = json.loads(line)
    answer = {}
    if what == "codes":
        answer = [enrollment.new_code(account, alice)[1] for _ in range(words[0])]
    elif what == "remove":
        removal.remove(devices.get(pk=words[0]), actor=alice)
    elif what == "look":
        answer = {
            "devices": [str(device.pk) for device in devices.filter(revoked_at=None)],
            "cloned": [str(device.pk) for device in devices.exclude(cloned_at=None)],
            "findings": [found.path for found in Detection.objects.filter(account_id=account.pk)],
        }
    print(json.dumps(answer), flush=True)
"""


class Alice(Somebody):
    """The owner of an account on the server, acting on its database."""

    def __init__(self, server: Server, address: str) -> None:
        super().__init__(server, ACCOUNT, address)

    def codes(self, count: int = 1) -> list[str]:
        found = self("codes", count)
        assert isinstance(found, list)
        return found

    def removes(self, device: str) -> None:
        self("remove", device)

    def sees(self) -> dict[str, list[str]]:
        found = self("look")
        assert isinstance(found, dict)
        return found


ASKING: Final = """
import json, sys
import django
django.setup()
from django.utils import timezone
from doorward.devices import commands
from doorward.devices.models import Command, Device
from doorward.reports.models import Detection, Scan
from doorward_protocol.messages import CommandArgs
def shown(command):
    return {
        "uid": str(command.uid), "state": command.state, "code": command.code,
        "detail": command.detail, "files": command.files, "bytes": command.bytes,
        "threats": command.threats, "report": command.report,
        "started": command.started_at and command.started_at.timestamp(),
        "asked": command.created_at.timestamp(),
    }
for line in sys.stdin:
    what, *words = json.loads(line)
    if what == "ask":
        device, kind, args = words
        import msgspec
        command = commands.ask(
            Device.objects.get(pk=device), kind, msgspec.convert(args, CommandArgs), actor=None
        )
        answer = shown(command)
    elif what == "look":
        answer = shown(Command.objects.get(uid=words[0]))
    elif what == "cancel":
        answer = shown(commands.cancel(Command.objects.get(uid=words[0]), actor=None))
    elif what == "quarantined":
        answer = [
            [str(each.quarantine_id), each.disposition]
            for each in Detection.objects.filter(device=words[0]).order_by("id")
        ]
    elif what == "scans":
        answer = [
            [str(each.command_uid), each.state]
            for each in Scan.objects.filter(device=words[0]).order_by("id")
        ]
    elif what == "thumbprint":
        answer = Device.objects.get(pk=words[0]).thumbprint
    elif what == "capabilities":
        answer = Device.objects.get(pk=words[0]).capabilities
    print(json.dumps(answer), flush=True)
"""


class Member(Somebody):
    """Somebody who asks devices to do things."""

    def __init__(self, server: Server) -> None:
        super().__init__(server, ASKING)

    def ask(self, device: str, kind: str, **args: Any) -> str:
        return str(self("ask", device, kind, args)["uid"])

    def wait_for(self, uid: str, *states: str, seconds: float = PATIENCE_S) -> dict[str, Any]:
        until(lambda: self("look", uid)["state"] in states, seconds)
        found = self("look", uid)
        assert isinstance(found, dict)
        return found
