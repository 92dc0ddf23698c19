"""Devices, how they are, and the codes by which they join."""

from __future__ import annotations

from typing import ClassVar, Final

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _
from uuid_utils.compat import uuid7

from doorward.accounts.models import Account, User
from doorward_protocol.messages import MAX_NAME, MAX_TEXT, MAX_WORD


class DeviceType(models.TextChoices):
    """What kind of computer a device says it is."""

    DESKTOP = "desktop", _("Desktop")
    LAPTOP = "laptop", _("Laptop")
    SERVER = "server", _("Server")
    PHONE = "phone", _("Phone")
    TABLET = "tablet", _("Tablet")
    OTHER = "other", _("Other")


class Protection(models.TextChoices):
    """What a device last said about its own protection."""

    UNKNOWN = "", _("Not known yet")
    PROTECTED = "protected", _("Protected")
    ATTENTION = "attention", _("Needs attention")
    OFF = "off", _("Not protected")


class Ended(models.TextChoices):
    """Why a key opens nothing any more, as its holder is told."""

    REMOVED = "removed", _("It was removed on the account’s pages.")
    LEFT = "left", _("It left by its own command.")
    MEMBER_LEFT = "member-left", _("Whose device it is has left the account.")
    ACCOUNT = "account", _("The account was deleted.")
    REPLACED = "replaced", _("Another computer has taken its place in the account.")
    COPIED = "copied", _("Two computers used this key, and the other one was kept.")
    REINSTALLED = "reinstalled", _("The agent was installed anew on this computer or a copy of it.")


class Device(models.Model):
    """A computer or phone of an account. While it is not revoked it holds one seat."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    account = models.ForeignKey(Account, on_delete=models.CASCADE, related_name="devices")
    # Whose it is: what the others see of it, this member decides. Nobody's is the account's.
    # Kept when the person is gone: nulled, all that they did not share would be everybody's.
    member = models.ForeignKey(
        User, on_delete=models.DO_NOTHING, null=True, related_name="+", db_constraint=False
    )
    # What it reported before was its former member's, who did not share all of it: nobody sees it.
    private_until = models.DateTimeField(null=True, blank=True)
    name = models.CharField(_("name"), max_length=MAX_NAME, blank=True)
    hostname = models.CharField(max_length=MAX_NAME, blank=True)
    os_name = models.CharField(max_length=MAX_WORD, blank=True)
    os_version = models.CharField(max_length=MAX_NAME, blank=True)
    type = models.CharField(max_length=10, choices=DeviceType.choices, default=DeviceType.OTHER)
    agent_version = models.CharField(max_length=MAX_WORD, blank=True)
    capabilities = models.JSONField(default=list, blank=True)

    public_key = models.CharField(max_length=43)
    thumbprint = models.CharField(max_length=43)
    # The key before this one, and until when it counts beside it (devices/key_change.py).
    former_public_key = models.CharField(max_length=43, blank=True)
    former_thumbprint = models.CharField(max_length=43, blank=True)
    former_key_until = models.DateTimeField(null=True, blank=True)
    # The computer and the agent's folder on it, as the agent says them: installed anew there, it is
    # the same device. A hash made for this server alone.
    machine = models.CharField(max_length=64, blank=True)
    # Raising the epoch ends every bearer token of the device.
    epoch = models.PositiveIntegerField(default=1)

    settings_version = models.PositiveIntegerField(default=0)
    settings_status = models.CharField(max_length=10, default="applied")
    settings_errors = models.JSONField(default=list, blank=True)
    # With the status "failed": the version that it could not apply.
    settings_failed_version = models.PositiveIntegerField(default=0)
    # The newest settings there are for it (protection/policy.py); 0 is none beyond its own.
    wanted_version = models.PositiveIntegerField(default=0)
    definitions_version = models.PositiveIntegerField(default=0)
    # Why the last try to get newer ones failed, and the set that it would not take.
    definitions_code = models.CharField(max_length=MAX_WORD, blank=True)
    definitions_refused = models.PositiveIntegerField(default=0)
    protection_state = models.CharField(
        max_length=10, choices=Protection.choices, default=Protection.UNKNOWN, blank=True
    )
    protection_reasons = models.JSONField(default=list, blank=True)
    queue_depth = models.PositiveBigIntegerField(default=0)
    queue_dropped = models.PositiveBigIntegerField(default=0)

    enrolled_at = models.DateTimeField()
    revoked_at = models.DateTimeField(null=True, blank=True)
    # One of Ended, once it is removed.
    removed_why = models.CharField(max_length=12, choices=Ended.choices, blank=True)
    # Which device has taken its place.
    replaced_by = models.ForeignKey("self", on_delete=models.SET_NULL, null=True, related_name="+")
    cloned_at = models.DateTimeField(null=True, blank=True)
    # A member chose which of two computers is kept: its key changes, and the other's ends with it.
    settling_since = models.DateTimeField(null=True, blank=True)
    # What the gateways read each second to learn of a removal or a change made elsewhere.
    changed_at = models.DateTimeField(db_index=True)
    # Until then each of its calls is kept as it came (devices/payloads.py): somebody looks.
    watched_until = models.DateTimeField(null=True, blank=True)
    # When a command was last given or taken back (devices/commands.py): `changed_at` moves too.
    commanded_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(
                fields=["thumbprint"],
                condition=Q(revoked_at__isnull=True),
                name="one_device_per_key",
            ),
        ]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["account", "revoked_at", "id"], name="devices_of_account"),
            models.Index(fields=["thumbprint"], name="devices_by_key"),
            models.Index(
                fields=["former_thumbprint"],
                condition=~Q(former_thumbprint=""),
                name="devices_by_former_key",
            ),
        ]

    def __str__(self) -> str:
        return self.label

    @property
    def label(self) -> str:
        """What people call this device: the name they gave it, else its host name."""
        return self.name or self.hostname or str(self.id)


class Presence(models.Model):
    """When a device was last heard of. The gateway writes it behind, each second, many at once."""

    device = models.OneToOneField(Device, on_delete=models.CASCADE, related_name="presence")
    last_seen = models.DateTimeField(null=True, db_index=True)
    boot_id = models.UUIDField(null=True)
    # A start that was current and is not any more: hearing it again means there are two of them.
    former_boot_id = models.UUIDField(null=True)
    seq = models.PositiveBigIntegerField(default=0)

    def __str__(self) -> str:
        return f"{self.device_id} {self.last_seen}"


class Payload(models.Model):
    """The last bytes a device sent of one kind, as they came over the wire."""

    device = models.ForeignKey(
        Device, on_delete=models.CASCADE, related_name="payloads", db_index=False
    )
    kind = models.CharField(max_length=12)
    body = models.BinaryField()
    # How long it was, also where it is too long to be kept here; then the body is empty.
    length = models.PositiveIntegerField()
    was_packed = models.BooleanField(default=False)
    at = models.DateTimeField()

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["device", "kind"], name="one_payload_of_a_kind"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} of {self.device_id}"


class Twin(models.Model):
    """The other computer that called as this device, while it is not settled which one stays."""

    device = models.OneToOneField(
        Device, on_delete=models.CASCADE, primary_key=True, related_name="twin"
    )
    # How it came to light: a count of calls that forked, or a key from before a new installation.
    by_former_key = models.BooleanField(default=False)
    boot_id = models.UUIDField(null=True)
    seq = models.PositiveBigIntegerField(default=0)
    hostname = models.CharField(max_length=MAX_NAME, blank=True)
    os_name = models.CharField(max_length=MAX_WORD, blank=True)
    address = models.CharField(max_length=45, blank=True)
    first_seen = models.DateTimeField()

    def __str__(self) -> str:
        return f"twin of {self.device_id}"


class CommandState(models.TextChoices):
    """How far a command is, as far as the server was told."""

    QUEUED = "queued", _("Waiting")
    DELIVERED = "delivered", _("Received")
    RUNNING = "running", _("Running")
    DONE = "done", _("Done")
    FAILED = "failed", _("Failed")
    REJECTED = "rejected", _("Refused by the device")
    INTERRUPTED = "interrupted", _("Interrupted")
    EXPIRED = "expired", _("Not done in time")
    CANCELED = "canceled", _("Canceled")


OPEN: Final = (CommandState.QUEUED, CommandState.DELIVERED, CommandState.RUNNING)
"""States that are not the last one."""


class Command(models.Model):
    """Something a member asked a device to do, and how far it is.

    `id` gives the order; `uid` is its name in the protocol, on pages and in the API. While it is
    queued and was never sent, the device cannot know of it. Times are the server's.
    """

    id = models.BigAutoField(primary_key=True)
    uid = models.UUIDField(unique=True, default=uuid7, editable=False)
    account = models.ForeignKey(
        Account, on_delete=models.CASCADE, related_name="+", db_index=False, db_constraint=False
    )
    device = models.ForeignKey(
        Device, on_delete=models.CASCADE, related_name="commands", db_index=False
    )
    asked_by = models.ForeignKey(User, on_delete=models.SET_NULL, null=True, related_name="+")
    kind = models.CharField(max_length=MAX_WORD)
    args = models.JSONField(default=dict)
    state = models.CharField(
        max_length=12, choices=CommandState.choices, default=CommandState.QUEUED
    )
    code = models.CharField(max_length=MAX_WORD, blank=True)
    detail = models.CharField(max_length=MAX_TEXT, blank=True)
    report = models.TextField(blank=True)
    created_at = models.DateTimeField()
    not_before = models.DateTimeField()
    not_after = models.DateTimeField()
    sent_at = models.DateTimeField(null=True)
    # When the device last told how far it is.
    heard_at = models.DateTimeField(null=True)
    started_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField(null=True)
    cancel_asked_at = models.DateTimeField(null=True)
    files = models.PositiveBigIntegerField(default=0)
    bytes = models.PositiveBigIntegerField(default=0)
    threats = models.PositiveBigIntegerField(default=0)

    class Meta:
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["device", "id"], name="commands_of_device"),
            models.Index(fields=["account", "id"], name="commands_of_account"),
            models.Index(
                fields=["device", "id"],
                condition=Q(state__in=["queued", "delivered", "running"]),
                name="commands_open",
            ),
            models.Index(
                fields=["not_after"],
                condition=Q(state__in=["queued", "delivered", "running"]),
                name="commands_due",
            ),
            models.Index(fields=["ended_at"], name="commands_ended"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.uid}"

    @property
    def is_open(self) -> bool:
        """Whether its last state is still to come."""
        return self.state in OPEN


class EnrollmentCode(models.Model):
    """A code shown once to a member; whoever types it on a computer adds that computer."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    account = models.ForeignKey(Account, on_delete=models.CASCADE, related_name="+")
    made_by = models.ForeignKey(User, on_delete=models.SET_NULL, null=True, related_name="+")
    # Whose device it will be; nobody's is the account's.
    member = models.ForeignKey(User, on_delete=models.SET_NULL, null=True, related_name="+")
    # The first four characters find the row, so that a try is counted before it is compared.
    selector = models.CharField(max_length=4, unique=True)
    # Keyed by a key that is not in the database: a stolen copy of it holds no usable code.
    secret_mac = models.CharField(max_length=64)
    tries = models.PositiveSmallIntegerField(default=0)
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField(db_index=True)
    used_at = models.DateTimeField(null=True)
    device = models.ForeignKey(Device, on_delete=models.SET_NULL, null=True, related_name="+")
    # The device whose place the new one takes, if it takes one.
    replaces = models.ForeignKey(Device, on_delete=models.SET_NULL, null=True, related_name="+")

    def __str__(self) -> str:
        return f"{self.selector}-…"


class EnrollmentThrottle(models.Model):
    """How many wrong codes came from one address since `since`."""

    address = models.CharField(max_length=45, primary_key=True)
    failures = models.PositiveIntegerField()
    since = models.DateTimeField(db_index=True)

    def __str__(self) -> str:
        return f"{self.address}: {self.failures}"


class GoneDevice(models.Model):
    """A key that opens nothing any more, and learns why: its device was deleted with its account,
    or has another key.

    Nothing here leads to a person, but ``device`` while that one is there.
    """

    id = models.UUIDField(primary_key=True, editable=False)
    public_key = models.CharField(max_length=43)
    thumbprint = models.CharField(max_length=43, db_index=True)
    epoch = models.PositiveIntegerField()
    gone_at = models.DateTimeField(db_index=True)
    why = models.CharField(max_length=12, choices=Ended.choices, default=Ended.ACCOUNT)
    device = models.ForeignKey(Device, on_delete=models.CASCADE, null=True, related_name="+")

    def __str__(self) -> str:
        return f"{self.id} gone {self.gone_at}"
