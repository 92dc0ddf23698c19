"""The events table: written once, never changed."""

from __future__ import annotations

from typing import Any, ClassVar, NoReturn

from django.db import models


class NeverChanged(Exception):
    """Somebody tried to change or delete an event."""


class EventQuerySet(models.QuerySet["Event"]):
    """Reads events and refuses everything that would rewrite the past."""

    def update(self, **_fields: Any) -> NoReturn:
        """Refuse: an event is never changed."""
        raise NeverChanged("an audit event can't be changed")

    def delete(self) -> NoReturn:
        """Refuse: an event is never deleted."""
        raise NeverChanged("an audit event can't be deleted")


class Event(models.Model):
    """One thing that happened. No foreign keys: it outlives the person and the account."""

    at = models.DateTimeField()
    tag = models.CharField(max_length=64)
    account_id = models.UUIDField(null=True)
    actor_id = models.UUIDField(null=True)
    target = models.CharField(max_length=200, blank=True)
    ip = models.CharField(max_length=45, blank=True)
    agent = models.CharField(max_length=300, blank=True)
    # Canonical JSON as text: what was hashed is byte for byte what is stored, on both databases.
    detail = models.TextField(default="{}")
    digest = models.CharField(max_length=64)
    # The digest is over these two marks, and each mark over a salt and one half of the content: who
    # (account, actor) and what (target, ip, agent, detail). With half and salt gone, the mark still
    # holds the chain together and tells nothing. No marks: an event from before there were any.
    who_salt = models.CharField(max_length=32, blank=True, default="")
    what_salt = models.CharField(max_length=32, blank=True, default="")
    who_mark = models.CharField(max_length=64, blank=True, default="")
    what_mark = models.CharField(max_length=64, blank=True, default="")
    # Which erasure took which half away; an event of its own tells of it (audit/erasure.py).
    who_erased_by = models.UUIDField(null=True)
    what_erased_by = models.UUIDField(null=True)
    # The place in the chain, given by trail.seal within a second of the event.
    seq = models.BigIntegerField(null=True, unique=True)
    chain = models.CharField(max_length=64, blank=True)

    objects: ClassVar[models.Manager[Event]] = models.Manager.from_queryset(EventQuerySet)()

    class Meta:
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["account_id", "-id"], name="audit_of_account"),
            models.Index(fields=["actor_id", "-id"], name="audit_of_actor"),
            models.Index(fields=["tag", "-id"], name="audit_of_tag"),
            models.Index(
                fields=["id"], name="audit_unsealed", condition=models.Q(seq__isnull=True)
            ),
        ]

    def __str__(self) -> str:
        return f"{self.at:%Y-%m-%d %H:%M:%S} {self.tag}"

    def delete(self, *_args: Any, **_kwargs: Any) -> NoReturn:
        """Refuse: an event is never deleted."""
        raise NeverChanged("an audit event can't be deleted")


class Head(models.Model):
    """One row: how far the chain goes, sealed with a key (audit/head.py)."""

    id = models.PositiveSmallIntegerField(primary_key=True)
    events = models.BigIntegerField()
    chain = models.CharField(max_length=64)
    mark = models.CharField(max_length=64)

    def __str__(self) -> str:
        return f"{self.events} events"
