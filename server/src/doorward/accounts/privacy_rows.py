"""Exports that were asked for, accounts that are to be deleted, and receipts of those that were.

Models of this room, kept beside models.py because nothing else needs them.
"""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.utils.translation import gettext_lazy as _
from uuid_utils.compat import uuid7

from doorward.accounts.models import Account, User


class Export(models.Model):
    """A person asked for a copy of everything; a worker packs it and it is kept for a day."""

    class State(models.TextChoices):
        """How far it is."""

        WAITING = "waiting", _("Waiting")
        PACKING = "packing", _("Being packed")
        READY = "ready", _("Ready")
        FAILED = "failed", _("Failed")

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="exports")
    # The whole of each account that is theirs alone; without any, what is the person's own.
    accounts = models.ManyToManyField(Account, related_name="+")
    state = models.CharField(max_length=10, choices=State.choices, default=State.WAITING)
    asked_at = models.DateTimeField()
    lease_until = models.DateTimeField(null=True)
    tries = models.PositiveSmallIntegerField(default=0)
    tables_done = models.PositiveSmallIntegerField(default=0)
    tables = models.PositiveSmallIntegerField(default=0)
    rows = models.BigIntegerField(default=0)
    size = models.BigIntegerField(default=0)
    sha256 = models.CharField(max_length=64, blank=True)
    ready_at = models.DateTimeField(null=True)
    # From then on its file is deleted, and this row with it.
    expires_at = models.DateTimeField(null=True, db_index=True)
    fetched_at = models.DateTimeField(null=True)

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(
                fields=["user"],
                condition=models.Q(state__in=["waiting", "packing"]),
                name="one_export_under_way",
            ),
        ]

    def __str__(self) -> str:
        return f"export {self.pk} {self.state}"


class Deletion(models.Model):
    """A person wants to be deleted when the grace is over, with the accounts they alone own."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    # Bare ids: a row here outlives what it deletes until its receipt is written.
    user_id = models.UUIDField(unique=True)
    asked_at = models.DateTimeField()
    due_at = models.DateTimeField(db_index=True)
    # Set when the deleting has begun: from then on nobody can cancel.
    closed_at = models.DateTimeField(null=True)
    lease_until = models.DateTimeField(null=True)
    # How many rows of each kind are gone so far, in the transactions in which they went.
    counts = models.JSONField(default=dict)

    def __str__(self) -> str:
        return f"deletion {self.pk} due {self.due_at}"


class DoomedAccount(models.Model):
    """An account that goes with a person who is to be deleted; it goes with one at most."""

    deletion = models.ForeignKey(Deletion, on_delete=models.CASCADE, related_name="doomed")
    account_id = models.UUIDField(unique=True)

    def __str__(self) -> str:
        return f"account {self.account_id} of {self.deletion_id}"


class Receipt(models.Model):
    """What was deleted, and when: nothing in it tells of whom."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    # A keyed hash of the secret in the mailed link.
    digest = models.CharField(max_length=64, unique=True)
    # Canonical JSON as text: what the checksum is over, byte for byte.
    text = models.TextField()
    sha256 = models.CharField(max_length=64)
    made_at = models.DateTimeField(db_index=True)
    # The mails about it, whose files are deleted when mail is kept in a folder.
    mails = models.JSONField(default=list)

    def __str__(self) -> str:
        return f"receipt {self.pk}"
