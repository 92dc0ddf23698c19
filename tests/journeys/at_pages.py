"""Alice at the portal's own pages, by a process of hers on the server's database."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from tests.conftest import Server
from tests.journeys.somebody import Somebody

PASSWORD: Final = "a door that opens for Alice"

PAGES: Final = """
import datetime as dt, json, sys
import django
django.setup()
from django.test import Client
from django.utils import timezone
from allauth.account.models import EmailAddress
from doorward.accounts import members, signup
from doorward.accounts.models import User
from doorward.accounts.origin import Origin
from doorward.billing import entitlement
from doorward.devices import commands
from doorward.devices.models import Command, Device
from doorward.portal import wrong_finds as said
from doorward.protection import policy
from doorward.reports.models import Detection
from doorward.support import wrong_finds
address = sys.argv[1]
alice = User.objects.filter(email=address).first()
if alice is None:
    alice = User.objects.create_user(address, sys.argv[2], name="Alice")
    EmailAddress.objects.create(user=alice, email=address, verified=True, primary=True)
    signup.found_account(alice)
account = members.account_of(alice)
def new_client():
    found = Client(HTTP_HOST="localhost")
    found.force_login(alice, "allauth.account.auth_backends.AuthenticationBackend")
    return found
client = new_client()
def answered(answer):
    return {
        "status": answer.status_code,
        "location": answer.headers.get("Location", ""),
        "body": answer.content.decode(errors="replace"),
    }
for line in sys.stdin:
    what, *words = json.loads(line)
    if what == "get":
        answer = answered(client.get(words[0], headers=words[1]))
    elif what == "post":
        answer = answered(client.post(words[0], words[1]))
    elif what == "anew":
        client = new_client()
        answer = {}
    elif what == "device":
        device = Device.objects.select_related("presence").get(pk=words[0])
        answer = {
            "applied": device.settings_version, "wanted": device.wanted_version,
            "cloned": device.cloned_at is not None, "removed": device.revoked_at is not None,
            "state": device.protection_state, "name": device.label,
            "member": str(device.member_id), "epoch": device.epoch,
            "thumbprint": device.thumbprint,
        }
    elif what == "devices":
        rows = Device.objects.filter(account=account, revoked_at=None).order_by("id")
        answer = [str(device.pk) for device in rows]
    elif what == "told":
        answer = policy.told(words[0])[1]
    elif what == "found":
        rows = Detection.objects.filter(account=account, device=words[0]).order_by("id")
        answer = [[str(each.uid), each.path, each.disposition] for each in rows]
    elif what == "command":
        rows = Command.objects.filter(device=words[0], kind=words[1]).order_by("-id")
        found = rows.first()
        answer = {} if found is None else {
            "uid": str(found.uid), "state": found.state, "code": found.code,
            "threats": found.threats, "files": found.files,
        }
    elif what == "ask":
        from doorward_protocol.messages import CommandArgs
        device = Device.objects.get(pk=words[0])
        args = CommandArgs(**{key: tuple(value) if isinstance(value, list) else value
                              for key, value in words[2].items()})
        answer = {"uid": str(commands.ask(device, words[1], args, actor=alice).uid)}
    elif what == "save":
        from doorward.protection.policy import Delta
        delta = Delta("account", None, {"values": words[0], "locked": []})
        version = policy.save(account, [delta], actor=alice, proven=True)
        answer = {"number": version.number}
    elif what == "seen":
        from doorward.devices.models import Presence
        ago = timezone.now() - dt.timedelta(minutes=words[1])
        Presence.objects.filter(device=words[0]).update(last_seen=ago)
        Command.objects.filter(device=words[0]).update(heard_at=ago)
        answer = {}
    elif what == "api":
        from doorward.accounts import tokens
        by_token, method, path, body = words
        headers = {}
        if by_token is True:
            scopes = [scope.value for scope in tokens.Scope]
            _row, text = tokens.create(alice, name="x", scopes=scopes, days=1)
            headers = {"Authorization": f"Bearer {text}"}
        elif by_token is False:
            headers = {"X-Session-Token": client.session.session_key}
        found = client.generic(
            method, path, json.dumps(body), content_type="application/json", headers=headers
        )
        told = json.loads(found.content) if found.content else {}
        answer = {"status": found.status_code, "code": told.get("code", ""), "body": told}
    elif what == "state":
        answer = Command.objects.get(uid=words[0]).state
    elif what == "let be for":
        find = said.find_of(Detection.objects.select_related("device").get(uid=words[0]))
        until = timezone.now() + dt.timedelta(seconds=words[1])
        standing = policy.state_of(account)
        entry = wrong_finds.exclusion_of(find, until, for_all=False)
        done = wrong_finds.put_right(
            account, find, [wrong_finds.delta(standing, find, entry, for_all=False)],
            until=until, base=standing.newest, words="", why="", actor=alice,
            origin=Origin("", ""),
        )
        answer = {"uid": str(done.command.uid)}
    print(json.dumps(answer), flush=True)
"""


@dataclass(frozen=True)
class Page:
    """What one of the portal's pages answered."""

    status: int
    location: str
    body: str

    @property
    def words(self) -> str:
        """What a person reads there."""
        return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", self.body))

    def hidden(self, name: str) -> str:
        """Return the value of a hidden field of its form."""
        found = re.search(rf'name="{name}" value="([^"]+)"', self.body)
        assert found, f"there is no {name} in the form of this page: {self.words[:500]}"
        return found[1]


class Alice(Somebody):
    """The owner of an account, at the portal."""

    def __init__(self, server: Server, address: str) -> None:
        super().__init__(server, PAGES, address, PASSWORD)

    def opens(self, path: str, **headers: str) -> Page:
        """Open a page."""
        return Page(**self("get", path, headers))

    def posts(self, path: str, **fields: Any) -> Page:
        """Send a form."""
        return Page(**self("post", path, fields))

    def proves(self) -> None:
        """Prove that it is her, as pages ask before what is dangerous."""
        assert self.posts("/reauthenticate/", password=PASSWORD).status == 302

    def code(self) -> str:
        """Have the page make a code that adds a device."""
        page = self.posts("/devices/add/")
        found = re.search(r"--code ([0-9A-Z-]{14})", page.body)
        assert found, page.words[:500]
        return found[1]
