"""Mail that is to be sent, and mail that was."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from uuid_utils.compat import uuid7


class Mail(models.Model):
    """One mail to one person; a killed worker loses and doubles nothing by due time and lease."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    account_id = models.UUIDField(null=True, db_index=True)
    kind = models.CharField(max_length=64)
    to = models.EmailField(max_length=254)
    subject = models.CharField(max_length=200)
    # Text and HTML, sealed: a copy of the database must not hand out codes and links.
    # Emptied once sent or dropped.
    body = models.BinaryField(default=b"")
    created_at = models.DateTimeField()
    due_at = models.DateTimeField()
    not_after = models.DateTimeField(null=True)
    lease_until = models.DateTimeField(null=True)
    tries = models.PositiveSmallIntegerField(default=0)
    sent_at = models.DateTimeField(null=True)
    dropped_at = models.DateTimeField(null=True)
    last_error = models.CharField(max_length=200, blank=True)
    # Delete the row once the mail is sent or dropped: its address is nobody's here any more.
    forget = models.BooleanField(default=False)

    class Meta:
        indexes: ClassVar[list[models.Index]] = [
            models.Index(
                fields=["due_at"],
                name="mail_waiting",
                condition=models.Q(sent_at__isnull=True, dropped_at__isnull=True),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.id}"
