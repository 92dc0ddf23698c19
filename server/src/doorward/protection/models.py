"""What devices are told to do: the account's settings, groups, each device's own, and history."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models import Q
from django.db.models.functions import Lower
from django.utils.translation import gettext_lazy as _
from uuid_utils.compat import uuid7

from doorward.accounts.models import Account, User
from doorward.devices.models import Device

LONGEST_GROUP: int = 60
LONGEST_SOURCE: int = 40
LONGEST_WHY: int = 200


class AccountSettings(models.Model):
    """What holds for all devices of an account, where it differs from the product's own."""

    account = models.OneToOneField(
        Account, on_delete=models.CASCADE, primary_key=True, related_name="+"
    )
    values = models.JSONField(default=dict)
    locked = models.JSONField(default=list)
    # The number of the last change; whoever changes something locks this row first.
    newest = models.PositiveIntegerField(default=0)

    def __str__(self) -> str:
        return f"settings {self.newest} of {self.account_id}"


class Group(models.Model):
    """Devices that are told something together; a device is in one group or in none."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    account = models.ForeignKey(Account, on_delete=models.CASCADE, related_name="+")
    name = models.CharField(max_length=LONGEST_GROUP)
    values = models.JSONField(default=dict)
    locked = models.JSONField(default=list)

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint("account", Lower("name"), name="one_group_of_a_name"),
        ]

    def __str__(self) -> str:
        return self.name


class DeviceSettings(models.Model):
    """What one device is told: its own values, its group, and all of it merged."""

    device = models.OneToOneField(
        Device, on_delete=models.CASCADE, primary_key=True, related_name="told"
    )
    account = models.ForeignKey(Account, on_delete=models.CASCADE, related_name="+")
    group = models.ForeignKey(Group, on_delete=models.SET_NULL, null=True, related_name="members")
    values = models.JSONField(default=dict)
    # Canonical JSON, as the device gets it: byte-equal whenever it is equal.
    merged = models.TextField()
    # Which product's defaults are in it (schema.FINGERPRINT).
    made_by = models.CharField(max_length=16, db_index=True)

    def __str__(self) -> str:
        return f"settings of {self.device_id}"


class SettingsVersion(models.Model):
    """One change of an account's settings: who, when, why, and what stood there before."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    account = models.ForeignKey(Account, on_delete=models.CASCADE, related_name="+")
    number = models.PositiveIntegerField()
    at = models.DateTimeField()
    by = models.ForeignKey(User, on_delete=models.SET_NULL, null=True, related_name="+")
    why = models.CharField(max_length=LONGEST_WHY, blank=True)
    undoes = models.PositiveIntegerField(null=True)
    # [{"kind", "subject", "name", "before", "after"}]; see policy.Delta.
    changes = models.JSONField()
    devices = models.PositiveIntegerField()

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["account", "number"], name="one_version_of_a_number"),
        ]

    def __str__(self) -> str:
        return f"{self.account_id} {self.number}"


class DefinitionSource(models.Model):
    """What was imported under one name; imported again under it, the new takes its place.

    The rules and hashes themselves lie in the data folder (definitions/sources.py).
    """

    name = models.CharField(max_length=LONGEST_SOURCE, primary_key=True)
    # Which files on disk: a new import writes beside the old and then moves this.
    content = models.UUIDField()
    imported_at = models.DateTimeField()
    imported_by = models.CharField(max_length=100, blank=True)
    origin = models.CharField(max_length=1000)
    suspicious = models.BooleanField(default=False)
    rules = models.PositiveIntegerField(default=0)
    hashes = models.PositiveIntegerField(default=0)
    refused = models.PositiveIntegerField(default=0)

    def __str__(self) -> str:
        return self.name


class SetState(models.TextChoices):
    """How far a set of definitions is on its way to devices."""

    PREPARING = "preparing", _("Being signed")
    EARLY = "early", _("With some devices first")
    ALL = "all", _("For every device")
    PAUSED = "paused", _("Held by an operator")
    STOPPED = "stopped", _("Stopped: devices refused it")
    WITHDRAWN = "withdrawn", _("Taken back")


class DefinitionSet(models.Model):
    """One signed set of definitions and the devices it is meant for."""

    # The day and a count, as devices compare it: 2026112203.
    number = models.PositiveIntegerField(primary_key=True)
    made_at = models.DateTimeField()
    made_by = models.CharField(max_length=100, blank=True)
    state = models.CharField(max_length=10, choices=SetState.choices, default=SetState.PREPARING)
    state_at = models.DateTimeField()
    # Devices whose place (definitions/rollout.py) is below this get it while it is early.
    below = models.PositiveBigIntegerField(default=0)
    rules = models.PositiveIntegerField(default=0)
    hashes = models.PositiveIntegerField(default=0)
    sources = models.JSONField(default=list)
    why = models.CharField(max_length=200, blank=True)
    # The earlier set whose content it brings back.
    like = models.PositiveIntegerField(null=True)

    class Meta:
        indexes: ClassVar[list[models.Index]] = [
            models.Index(
                fields=["state"],
                condition=Q(state__in=["early", "all"]),
                name="sets_for_devices",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.number} {self.state}"
