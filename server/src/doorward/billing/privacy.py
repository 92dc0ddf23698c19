"""What the billing room keeps about an account, and how it ends with it."""

from __future__ import annotations

from collections.abc import Iterator

from doorward.accounts import privacy
from doorward.accounts.privacy import Room, Row, Table, Whose
from doorward.accounts.privacy_tables import moment
from doorward.billing.models import Subscription


def _subscriptions(whose: Whose) -> Iterator[Row]:
    theirs = Subscription.objects.filter(account__in=whose.accounts).select_related("plan")
    for each in theirs.order_by("started_at", "pk"):
        yield [
            str(each.account_id),
            each.plan.slug,
            each.state,
            each.seats,
            moment(each.started_at),
            moment(each.until),
        ]


def _foretell(whose: Whose) -> dict[str, int]:
    return {"subscriptions": sum(1 for _row in _subscriptions(whose))}


def _erase(whose: Whose, _most: int) -> dict[str, int]:
    # From here on nothing is due for the accounts, and nothing can be charged.
    gone = Subscription.objects.filter(account__in=whose.accounts).delete()[0]
    return {"subscriptions": gone} if gone else {}


def register() -> None:
    """Have this room take part."""
    table = Table(
        "subscription",
        "What the accounts you alone own have taken.",
        {
            "account": "the account's number",
            "plan": "the offer",
            "state": "active or suspended",
            "seats": "devices covered",
            "started_at": "since when",
            "until": "until when; empty for no end",
        },
        _subscriptions,
    )
    covers = {
        "billing.Plan": "offers tell of nobody",
        "billing.Subscription": "ends with the account",
    }
    privacy.register(
        Room("billing", tables=(table,), covers=covers, foretell=_foretell, erase=_erase)
    )
