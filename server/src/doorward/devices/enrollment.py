"""How a device joins an account: by a code that a member made, once, proved by the device's key."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from django.conf import settings
from django.db import IntegrityError, connection, transaction
from django.db.models import F
from django.utils import timezone

from doorward.accounts import members, permissions
from doorward.accounts.models import Account, Membership, User
from doorward.accounts.origin import Origin
from doorward.accounts.permissions import Act
from doorward.audit import card_numbers, trail
from doorward.devices import commands, replacing, seats
from doorward.devices.models import (
    Device,
    EnrollmentCode,
    EnrollmentThrottle,
    Presence,
    Twin,
)
from doorward_protocol.messages import EnrollRequest

CODE_LIFE: Final = timedelta(minutes=10)
CODE_TRIES: Final = 5
ADDRESS_FAILURES: Final = 20
ADDRESS_WINDOW: Final = timedelta(hours=1)

# Crockford's base 32: no I, L, O or U, so that nothing is misread or spells a word.
ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
SELECTOR_LENGTH: Final = 4
SECRET_LENGTH: Final = 8
"""Eight characters of five bits: the 40 bits that a guesser has five tries at."""
_AS_TYPED = str.maketrans({"O": "0", "I": "1", "L": "1", "-": None, " ": None})


_at_joining: Final[list[Callable[[Device], object]]] = []


def at_joining(act: Callable[[Device], object]) -> None:
    """Have ``act`` run in the transaction in which a device joins.

    So it is told its account's settings without this room knowing of them.
    """
    if act not in _at_joining:
        _at_joining.append(act)


class CodeRefused(Exception):
    """No device joins by this code. Why is nobody's business: all causes look alike."""


class KeyInUse(Exception):
    """The device's key belongs to a device of another account."""


class TooManyTries(Exception):
    """Too many wrong codes came from this address; `retry_after` seconds must pass."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"Try again in {retry_after} s")
        self.retry_after = retry_after


@dataclass(frozen=True)
class Enrolled:
    """The device that joined; `is_new` is False when this key had joined before."""

    device: Device
    is_new: bool


def new_code(
    account: Account,
    user: User | None,
    *,
    member: User | None = None,
    for_all: bool = False,
    replaces: Device | None = None,
    ip: str = "",
    agent: str = "",
) -> tuple[EnrollmentCode, str]:
    """Make a code that adds one device within ten minutes; its text is shown once, never stored.

    With ``replaces``, the new device takes that one's place (devices/replacing.py).

    The device will be ``member``'s (who makes the code, if nobody is named), or the account's when
    it is ``for_all``. Whoever it belongs to decides what the others see of it. Raises
    members.NotAllowed.
    """
    secret = "".join(secrets.choice(ALPHABET) for _ in range(SECRET_LENGTH))
    while True:
        selector = "".join(secrets.choice(ALPHABET) for _ in range(SELECTOR_LENGTH))
        try:
            with transaction.atomic():
                if user is not None:
                    members.must_still(account, user, Act.DEVICES_CHANGE)
                code = EnrollmentCode.objects.create(
                    account=account,
                    made_by=user,
                    member=None if for_all else member or user,
                    replaces=replaces,
                    selector=selector,
                    secret_mac=_mac(selector, secret),
                    expires_at=timezone.now() + CODE_LIFE,
                )
                trail.record(
                    "device.code.made",
                    account=account,
                    actor=user,
                    target=str(code.pk),
                    ip=ip,
                    agent=agent,
                )
        except IntegrityError:
            continue  # One in a million: a code of today has the same selector.
        return code, f"{selector}-{secret[:4]}-{secret[4:]}"


def as_typed(text: str) -> str:
    """The code as it was made, however a person typed it: in any case, with O for 0 or I for 1."""
    return text.strip().upper().translate(_AS_TYPED)


def enroll(request: EnrollRequest, *, thumbprint: str, address: str) -> Enrolled:
    """Add the device whose key signed the request; the same key again is the same device and seat.

    `address` is where the request came from. Raises CodeRefused, TooManyTries, SeatsExhausted or
    KeyInUse; then nothing was added, and after SeatsExhausted the code still counts.
    """
    _count_attempt(address)
    try:
        code = _code_for(request.code, thumbprint)
        enrolled = _join(code, request, thumbprint, address)
    except CodeRefused:
        trail.record("device.enroll.refused", ip=address)
        raise
    except KeyInUse:
        _forgive(address)
        raise
    # Only wrong codes count against an address: a school adds many devices from one.
    _forgive(address)
    return enrolled


def _code_for(text: str, thumbprint: str) -> EnrollmentCode:
    typed = as_typed(text)
    selector, secret = typed[:SELECTOR_LENGTH], typed[SELECTOR_LENGTH:]
    if len(secret) != SECRET_LENGTH or not set(typed) <= set(ALPHABET):
        raise CodeRefused
    code = EnrollmentCode.objects.select_related("device").filter(selector=selector).first()
    if code is None:
        raise CodeRefused
    right = hmac.compare_digest(code.secret_mac, _mac(selector, secret))
    if right and _joined_by(code, thumbprint):
        return code  # The answer was lost on its way, and the device asks again.
    # Counted before anything is decided, so that tries at the same time are not free.
    counted = EnrollmentCode.objects.filter(pk=code.pk, tries__lt=CODE_TRIES).update(
        tries=F("tries") + 1
    )
    if not counted or not right or code.used_at is not None or code.expires_at <= timezone.now():
        raise CodeRefused
    return code


def _joined_by(code: EnrollmentCode, thumbprint: str) -> bool:
    device = code.device
    return device is not None and device.revoked_at is None and device.thumbprint == thumbprint


def _join(code: EnrollmentCode, request: EnrollRequest, thumbprint: str, address: str) -> Enrolled:
    try:
        return _join_whole(code, request, thumbprint, address)
    except IntegrityError:
        # Two accounts took in the same key at the same moment; the other was first.
        raise KeyInUse from None
    except seats.SeatsExhausted:
        # The code is good once a seat is free.
        EnrollmentCode.objects.filter(pk=code.pk, tries__gt=0).update(tries=F("tries") - 1)
        _forgive(address)
        raise


@transaction.atomic
def _join_whole(
    code: EnrollmentCode, request: EnrollRequest, thumbprint: str, address: str
) -> Enrolled:
    seats.lock(code.account)
    # Read again under the lock: the same code may just have been used.
    code = EnrollmentCode.objects.select_related("device", "account", "replaces").get(pk=code.pk)
    if code.used_at is not None:
        if code.device is not None and _joined_by(code, thumbprint):
            return Enrolled(device=code.device, is_new=False)
        raise CodeRefused
    roles = _roles(code)
    if code.made_by_id is not None and not permissions.may(
        roles.get(code.made_by_id, ""), Act.DEVICES_CHANGE
    ):
        raise CodeRefused  # Whoever made it may no longer add devices.
    now = timezone.now()
    known = Device.objects.filter(thumbprint=thumbprint, revoked_at__isnull=True).first()
    if known is not None and known.account_id != code.account_id:
        raise KeyInUse
    member = code.member_id if code.member_id in roles else None
    if known is None:
        known = _installed_anew(code, request, member, thumbprint, now)
    is_new = known is None
    old = _replaced(code, before=known)
    if known is None:
        if old is not None:
            replacing.leave(old, actor=code.made_by, origin=Origin(address, ""))
        seats.take(code.account)
        known = (
            Device.objects.filter(thumbprint=thumbprint, account=code.account)
            .order_by("-revoked_at")
            .first()
        )
    device = known or Device(account=code.account, thumbprint=thumbprint)
    if is_new:
        device.enrolled_at = now
    if known is not None:
        # The tokens of its life before end, and every gateway reads it anew.
        device.epoch += 1
        commands.lose(known, now)
    _give(device, member, now)
    _store(device, request, now)
    EnrollmentCode.objects.filter(pk=code.pk).update(used_at=now, device=device)
    for act in _at_joining:
        act(device)
    if old is not None and is_new:
        replacing.succeed(old, device, actor=code.made_by)
    trail.record(
        "device.enrolled",
        account=code.account,
        actor=code.made_by_id,
        target=str(device.pk),
        ip=address,
        name=device.label,
        again=not is_new,
    )
    return Enrolled(device=device, is_new=is_new)


def _installed_anew(
    code: EnrollmentCode,
    request: EnrollRequest,
    member: UUID | None,
    thumbprint: str,
    now: datetime,
) -> Device | None:
    found = replacing.same_computer(code.account, request.machine, member)
    if found is None:
        return None
    # Whoever calls by the key from before is another computer: a copy of this one's disk.
    replacing.install_anew(found, now)
    found.thumbprint = thumbprint
    return found


def _replaced(code: EnrollmentCode, *, before: Device | None) -> Device | None:
    old = code.replaces
    if old is None or old.revoked_at is not None or before is not None:
        return None
    return old


def _roles(code: EnrollmentCode) -> dict[UUID | None, str]:
    people = {code.made_by_id, code.member_id} - {None}
    places = Membership.objects.filter(account=code.account_id, user__in=people)
    return dict(places.values_list("user", "role"))


def _give(device: Device, member: UUID | None, now: datetime) -> None:
    before = device.member_id
    if before is not None and before != member:
        # What it reported while it was somebody else's, that one did not share with this one.
        device.private_until = now
    device.member_id = member


def _store(device: Device, request: EnrollRequest, now: datetime) -> None:
    facts = request.device
    device.name = card_numbers.hide(request.name.strip()) or device.name
    device.hostname = facts.hostname
    device.os_name, device.os_version = facts.os.name, facts.os.version
    device.type = facts.type
    device.agent_version = facts.agent_version
    device.capabilities = list(request.capabilities)
    device.public_key = request.jwk.x
    device.machine = request.machine
    device.removed_why, device.replaced_by = "", None
    device.cloned_at = device.settling_since = None
    device.former_thumbprint = device.former_public_key = ""
    device.former_key_until = None
    device.revoked_at = None
    device.changed_at = now
    device.save()
    # A new installation counts its calls from zero. The row is new too, since a gateway may be
    # about to write the old installation's count into the old one.
    Presence.objects.filter(device=device).delete()
    Presence.objects.create(device=device)
    Twin.objects.filter(device=device).delete()


def _mac(selector: str, secret: str) -> str:
    return hashlib.blake2b(
        (selector + secret).encode(),
        key=settings.FIELD_KEY,
        person=b"doorward-code",
        digest_size=32,
    ).hexdigest()


# ------------------------------------------------------------------------- one address's tries


def _count_attempt(address: str) -> None:
    stored = connection.ops.adapt_datetimefield_value
    now, start = stored(timezone.now()), stored(timezone.now() - ADDRESS_WINDOW)
    # One statement counts and answers: two tries at once cannot both be the twentieth.
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO devices_enrollmentthrottle (address, failures, since) VALUES (%s, 1, %s)"
            " ON CONFLICT (address) DO UPDATE SET"
            " failures = CASE WHEN devices_enrollmentthrottle.since <= %s THEN 1"
            " ELSE devices_enrollmentthrottle.failures + 1 END,"
            " since = CASE WHEN devices_enrollmentthrottle.since <= %s THEN excluded.since"
            " ELSE devices_enrollmentthrottle.since END"
            " RETURNING failures",
            [address, now, start, start],
        )
        failures = cursor.fetchone()[0]
    if failures > ADDRESS_FAILURES:
        _forgive(address)  # A try that is turned away unheard is not counted.
        since = EnrollmentThrottle.objects.values_list("since", flat=True).get(pk=address)
        left = (since + ADDRESS_WINDOW - timezone.now()).total_seconds()
        raise TooManyTries(max(1, round(left)))


def _forgive(address: str) -> None:
    EnrollmentThrottle.objects.filter(pk=address, failures__gt=0).update(failures=F("failures") - 1)


# ------------------------------------------------------------------------------------- clean-up


def forget_old(now: datetime) -> int:
    """Delete codes that ended a day ago and counts of addresses that are over; returns how many."""
    codes, _ = EnrollmentCode.objects.filter(expires_at__lt=now - timedelta(days=1)).delete()
    counts, _ = EnrollmentThrottle.objects.filter(since__lt=now - ADDRESS_WINDOW).delete()
    return codes + counts
