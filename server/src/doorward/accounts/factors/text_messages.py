"""Codes by text message: who carries them, and the number they go to.

Off unless the operator names a provider (DOORWARD_SMS_URL). A number can be taken over and a text
read on a locked screen, so NIST SP 800-63B-4, 3.2.9 calls this way restricted: it is offered only
beside an app or a passkey, never alone, and its pages say so.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Protocol

import httpx2
import msgspec
from django.conf import settings
from django.db import connection, transaction
from django.utils import timezone
from django.utils.translation import gettext as _
from uuid_utils.compat import uuid7

from doorward.accounts import two_factor_letters
from doorward.accounts.factors import sealed_text
from doorward.accounts.models import PhoneNumber, User
from doorward.audit import trail
from doorward.notices import letter as post_office

# E.164: a plus, the country, at most 15 digits.
_NUMBER: Final = re.compile(r"\+[1-9][0-9]{6,14}")
_WRITTEN: Final = str.maketrans("", "", " -./()\u00a0")
DIGITS: Final = 6
WITHIN_S: Final = 5.0
"""For all of it: looking the address up, connecting, and each byte of the answer's head."""


class NotANumber(ValueError):
    """This is no phone number with its country."""


class NotSent(Exception):
    """The provider did not take the message."""


class Provider(Protocol):
    """Carries a text message."""

    def send(self, number: str, words: str) -> None:
        """Hand the message over. Raises NotSent."""


class FileProvider:
    """Writes each message into a file of its own: for trials and tests."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def send(self, number: str, words: str) -> None:
        """Write the message."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._folder / f"{uuid7()}.txt"
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(f"{number}\n{words}\n")


class WebhookProvider:
    """Posts ``{"to", "text"}`` to an address of the operator's, signed with a secret of theirs.

    The header ``X-Signature`` is ``sha256=`` and the HMAC-SHA256 of the body in hex. Any answer of
    2xx means taken; redirects are not followed.
    """

    def __init__(
        self, url: str, secret: str, *, transport: httpx2.AsyncBaseTransport | None = None
    ) -> None:
        self._url = url
        self._secret = secret.encode()
        self._transport = transport

    def send(self, number: str, words: str) -> None:
        """Post the message. Raises NotSent, after WITHIN_S at the latest."""
        body = msgspec.json.encode({"to": number, "text": words})
        proof = hmac.new(self._secret, body, hashlib.sha256).hexdigest()
        headers = {"Content-Type": "application/json", "X-Signature": f"sha256={proof}"}
        # A client's own limits are for each read: who answers a byte at a time would hold a thread
        # of the portal for good.
        loop = asyncio.new_event_loop()
        try:
            status = loop.run_until_complete(asyncio.wait_for(self._post(body, headers), WITHIN_S))
        except (httpx2.HTTPError, httpx2.InvalidURL, TimeoutError, OSError) as error:
            raise NotSent(type(error).__name__) from None
        finally:
            loop.close()
        if not 200 <= status < 300:
            raise NotSent(str(status))

    async def _post(self, body: bytes, headers: Mapping[str, str]) -> int:
        async with (
            httpx2.AsyncClient(
                timeout=WITHIN_S, follow_redirects=False, transport=self._transport
            ) as client,
            client.stream("POST", self._url, content=body, headers=headers) as answer,
        ):
            # What else it says is not read.
            return answer.status_code


def is_on() -> bool:
    """Tell whether the operator has named a provider."""
    return bool(settings.SMS_URL)


def provider() -> Provider:
    """Return the provider the operator has named. Raises NotSent when there is none."""
    if settings.SMS_URL == "file:":
        return FileProvider(settings.DATA / "sms")
    if settings.SMS_URL:
        return WebhookProvider(settings.SMS_URL, settings.SMS_SECRET)
    raise NotSent("off")


def canonical(written: str) -> str:
    """Return the one spelling of a number: ``+4915112345678``. Raises NotANumber."""
    number = written.strip().translate(_WRITTEN)
    if not _NUMBER.fullmatch(number):
        raise NotANumber
    return number


def masked(number: str) -> str:
    """Return enough of a number for its owner to know which one is meant."""
    return f"{number[:3]} ••• {number[-2:]}"


def draw() -> str:
    """Return a new code."""
    return f"{secrets.randbelow(10**DIGITS):0{DIGITS}}"


def send_code(sealed: str, code: str) -> None:
    """Text the code to the sealed number. Raises NotSent, after WITHIN_S at the latest.

    Never within a transaction: somebody else's slow machine would hold the database's write lock.
    """
    if connection.in_atomic_block:
        raise RuntimeError("a code is texted after the commit")
    words = _("%(code)s is your code for %(name)s. It works for 10 minutes. Give it to nobody.")
    told = words % {"code": code, "name": settings.PRODUCT_NAME}
    provider().send(sealed_text.unseal(sealed), told)


def number_of(user: User) -> PhoneNumber | None:
    """Return the person's confirmed number, if this way is on and they have one."""
    return PhoneNumber.objects.filter(user=user).first() if is_on() else None


def masked_number_of(user: User) -> str:
    """Return the person's number as it may be shown, or ""."""
    kept = number_of(user)
    return masked(sealed_text.unseal(kept.sealed)) if kept is not None else ""


@transaction.atomic
def keep(user: User, sealed: str, *, ip: str = "", agent: str = "") -> None:
    """Keep a number that was just confirmed. The caller ends what was open, then tells."""
    PhoneNumber.objects.update_or_create(
        user=user, defaults={"sealed": sealed, "confirmed_at": timezone.now()}
    )
    _note(user, True, ip=ip, agent=agent)


@transaction.atomic
def forget(user: User, *, ip: str = "", agent: str = "") -> bool:
    """Forget the person's number; tells whether there was one.

    The caller ends what was open, then tells.
    """
    gone = bool(PhoneNumber.objects.filter(user=user).delete()[0])
    if gone:
        _note(user, False, ip=ip, agent=agent)
    return gone


def tell(user: User, there: bool, ended: str, *, ip: str, agent: str) -> None:
    """Mail that codes are texted from now on, or no more, and what ended by it, in words."""
    letter = two_factor_letters.text_messages(there, ended, ip=ip, agent=agent)
    post_office.post(letter, to=user.email)


def _note(user: User, there: bool, *, ip: str, agent: str) -> None:
    tag = "account.second_step.added" if there else "account.second_step.removed"
    trail.record(tag, actor=user, ip=ip, agent=agent, way="sms")
