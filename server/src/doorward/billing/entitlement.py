"""What may this account use?"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from doorward.accounts.models import Account
from doorward.billing.models import Plan, Subscription

# After its last day a subscription goes on covering devices this long: a late payment must not
# open a door.
GRACE: Final = timedelta(days=14)
DEFAULT_PLAN: Final = "free"


@dataclass(frozen=True)
class Entitlement:
    """What an account may use now, and until when."""

    state: Literal["active", "grace", "expired", "suspended"]
    until: datetime | None
    seats: int
    plan: str

    @property
    def covers(self) -> bool:
        """Tell whether devices are covered now."""
        return self.state in {"active", "grace"}


NOTHING: Final = Entitlement(state="expired", until=None, seats=0, plan="")


def of(account: Account) -> Entitlement:
    """Return what the account may use now, by one query."""
    subscription = Subscription.objects.select_related("plan").filter(account=account).first()
    if subscription is None:
        return NOTHING
    return Entitlement(
        state=_state(subscription, timezone.now()),
        until=subscription.until,
        seats=subscription.seats,
        plan=subscription.plan.slug,
    )


def of_many(account_ids: Iterable[UUID]) -> dict[UUID, Entitlement]:
    """Return what each of these accounts may use now, by one query for all of them."""
    wanted = set(account_ids)
    now = timezone.now()
    found = {
        subscription.account_id: Entitlement(
            state=_state(subscription, now),
            until=subscription.until,
            seats=subscription.seats,
            plan=subscription.plan.slug,
        )
        for subscription in Subscription.objects.select_related("plan").filter(
            account_id__in=wanted
        )
    }
    return {account_id: found.get(account_id, NOTHING) for account_id in wanted}


@transaction.atomic
def start_default(account: Account) -> Subscription:
    """Give a new account the plan everybody starts with; one that has a subscription keeps it."""
    plan, _made = Plan.objects.get_or_create(
        slug=DEFAULT_PLAN, defaults={"name": "Free", "seats": settings.FREE_SEATS}
    )
    subscription, _started = Subscription.objects.get_or_create(
        account=account,
        defaults={"plan": plan, "seats": settings.FREE_SEATS, "started_at": timezone.now()},
    )
    return subscription


def _state(
    subscription: Subscription, now: datetime
) -> Literal["active", "grace", "expired", "suspended"]:
    if subscription.state == Subscription.State.SUSPENDED:
        return "suspended"
    if subscription.until is None or now <= subscription.until:
        return "active"
    return "grace" if now <= subscription.until + GRACE else "expired"
