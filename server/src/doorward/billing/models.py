"""What is offered, and what each account has taken."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.utils.translation import gettext_lazy as _
from uuid_utils.compat import uuid7

from doorward.accounts.models import Account


class Plan(models.Model):
    """An offer: how many devices it covers."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    slug = models.SlugField(unique=True, max_length=40)
    name = models.CharField(max_length=80)
    seats = models.PositiveIntegerField()
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return self.slug


class Subscription(models.Model):
    """A contract: an account's right to a plan until a day, or without an end."""

    class State(models.TextChoices):
        """What the contract says; whether it has run out is a question of the day."""

        ACTIVE = "active", _("Active")
        SUSPENDED = "suspended", _("Suspended")

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    account = models.OneToOneField(Account, on_delete=models.CASCADE, related_name="subscription")
    plan = models.ForeignKey(Plan, on_delete=models.PROTECT, related_name="+")
    state = models.CharField(max_length=10, choices=State.choices, default=State.ACTIVE)
    # Copied from the plan when it is taken: changing an offer does not change a contract.
    seats = models.PositiveIntegerField()
    started_at = models.DateTimeField()
    until = models.DateTimeField(null=True)

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.CheckConstraint(
                condition=models.Q(state__in=["active", "suspended"]),
                name="subscription_state_known",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.plan_id} until {self.until}"
