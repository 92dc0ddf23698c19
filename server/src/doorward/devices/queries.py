"""Reads about devices, for pages and for the API. A removed device is in none of them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from django.db.models import Case, CharField, Count, Max, Q, QuerySet, Value, When

from doorward.accounts.models import Account
from doorward.devices import state
from doorward.devices.models import Device, DeviceType, EnrollmentCode, Protection

PAGE: Final = 50


def of_account(account: Account) -> QuerySet[Device]:
    """Return the account's devices with their presence, in the order they joined."""
    return (
        Device.objects.filter(account=account, revoked_at__isnull=True)
        .select_related("presence")
        .order_by("id")
    )


def find(account: Account, device_id: UUID) -> Device | None:
    """Return this device, or nothing: also when it is another account's or was removed."""
    return of_account(account).filter(pk=device_id).first()


def number_of(account: Account, member: UUID) -> int:
    """Return how many devices of the account are this member's own."""
    return of_account(account).filter(member=member).count()


def page(account: Account, *, after: UUID | None = None, size: int = PAGE) -> list[Device]:
    """Return the devices after this one; one more than ``size`` says that there are more."""
    devices = of_account(account)
    if after is not None:
        devices = devices.filter(pk__gt=after)
    return list(devices[: size + 1])


def in_need_first(account: Account, now: datetime, *, most: int) -> list[Device]:
    """Return at most ``most`` devices: those that a person should look at, then the others."""
    needs = Case(When(standing__in=state.NEEDS_SOMEBODY, then=Value(0)), default=Value(1))
    return list(_with_standing(account, now).order_by(needs, "id")[:most])


def standings(account: Account, now: datetime) -> dict[state.Standing, int]:
    """Return how many of the account's devices stand how, by one query."""
    counted = (
        _with_standing(account, now).order_by().values("standing").annotate(number=Count("pk"))
    )
    return {state.Standing(row["standing"]): row["number"] for row in counted}


@dataclass(frozen=True)
class CodeState:
    """What became of an enrollment code, for the page that waits for it."""

    is_over: bool
    device: Device | None
    expires_at: datetime


def code_state(account: Account, code_id: UUID, now: datetime) -> CodeState | None:
    """Return what became of this account's code, or nothing when it has none such."""
    code = (
        EnrollmentCode.objects.select_related("device", "device__presence")
        .filter(account=account, pk=code_id)
        .first()
    )
    if code is None:
        return None
    device = code.device if code.device is not None and code.device.revoked_at is None else None
    return CodeState(
        is_over=code.used_at is not None or code.expires_at <= now,
        device=device,
        expires_at=code.expires_at,
    )


def news(account: Account) -> tuple[int, datetime | None]:
    """Return how many devices there are and when one last changed: other when a list has news."""
    found = Device.objects.filter(account=account).aggregate(
        number=Count("pk"), changed=Max("changed_at")
    )
    return found["number"], found["changed"]


def _with_standing(account: Account, now: datetime) -> QuerySet[Any]:
    # The same ladder as state.of, for the database to climb; a test holds the two together.
    seen = "presence__last_seen"
    quiet, silent, fresh = now - state.QUIET, now - state.SILENT, now - state.FRESH
    never = Q(**{f"{seen}__isnull": True})
    server = Q(type=DeviceType.SERVER)
    ladder = (
        (Q(cloned_at__isnull=False), state.Standing.COPIED),
        (never & Q(enrolled_at__gt=quiet), state.Standing.WAITING),
        (never, state.Standing.SILENT),
        (server & Q(**{f"{seen}__lt": quiet}), state.Standing.SILENT),
        (~server & Q(**{f"{seen}__lt": silent}), state.Standing.SILENT),
        (Q(protection_state=Protection.OFF), state.Standing.OFF),
        (Q(protection_state=Protection.ATTENTION), state.Standing.ATTENTION),
        (Q(**{f"{seen}__lt": quiet}), state.Standing.UNKNOWN),
        (~Q(protection_state=Protection.PROTECTED), state.Standing.UNKNOWN),
        (Q(**{f"{seen}__gte": fresh}), state.Standing.PROTECTED),
    )
    return of_account(account).annotate(
        standing=Case(
            *(When(condition, then=Value(standing.value)) for condition, standing in ladder),
            default=Value(state.Standing.AWAY.value),
            output_field=CharField(),
        )
    )
