"""What the billing room keeps about an account, and how it ends with it."""

from __future__ import annotations

from collections.abc import Iterator

from doorward.accounts import privacy
from doorward.accounts.privacy import Room, Row, Table, Whose
from doorward.accounts.privacy_tables import moment
from doorward.billing.models import Subscription


def _subscriptions(whose: Whose) -> Iterator[Row]:
    if whose.account is None:
        return
    for each in Subscription.objects.filter(account=whose.account).select_related("plan"):
        yield [each.plan.slug, each.state, each.seats, moment(each.started_at), moment(each.until)]


def _foretell(whose: Whose) -> dict[str, int]:
    return {"subscriptions": sum(1 for _row in _subscriptions(whose))}


def _erase(whose: Whose, _most: int) -> dict[str, int]:
    # From here on nothing is due for the account, and nothing can be charged.
    gone = Subscription.objects.filter(account=whose.account).delete()[0] if whose.account else 0
    return {"subscriptions": gone} if gone else {}


def register() -> None:
    """Have this room take part."""
    table = Table(
        "subscription",
        "What your account has taken.",
        {
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
