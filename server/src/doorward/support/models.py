"""What people write to those who run the service."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from uuid_utils.compat import uuid7


class Ticket(models.Model):
    """One question to the people who run the service, from somebody signed in or not."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    # What the person reads out: short, and no count of how many there are.
    number = models.CharField(max_length=12, unique=True)
    # Empty for whoever was not signed in: an address alone proves nobody.
    user_id = models.UUIDField(null=True)
    reply_to = models.EmailField(max_length=254)
    about = models.CharField(max_length=20)
    words = models.TextField()
    created_at = models.DateTimeField()
    closed_at = models.DateTimeField(null=True)

    class Meta:
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["closed_at", "created_at"], name="tickets_open_first"),
        ]

    def __str__(self) -> str:
        return self.number
