"""What devices reported: scans, detections, and what was done about them afterwards.

These tables grow without end, so every list has an index that begins with the account or the
device: the newest twenty of one account cost the same beside 50,000,000 rows of others. Each row
carries its account, so that the tables can be split by account over several databases.
"""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.utils.translation import gettext_lazy as _

from doorward_protocol import messages


class Severity(models.IntegerChoices):
    """How bad a threat is, with OCSF's ids."""

    UNKNOWN = messages.SEVERITY_UNKNOWN, _("Unknown")
    INFORMATIONAL = messages.SEVERITY_INFORMATIONAL, _("Informational")
    LOW = messages.SEVERITY_LOW, _("Low")
    MEDIUM = messages.SEVERITY_MEDIUM, _("Medium")
    HIGH = messages.SEVERITY_HIGH, _("High")
    CRITICAL = messages.SEVERITY_CRITICAL, _("Critical")
    FATAL = 6, _("Fatal")
    OTHER = 99, _("Other")


class Disposition(models.IntegerChoices):
    """What was done about a detection, with OCSF's ids: those that an agent of ours uses."""

    UNKNOWN = 0, _("Unknown")
    ALLOWED = messages.DISPOSITION_ALLOWED, _("Allowed")
    BLOCKED = messages.DISPOSITION_BLOCKED, _("Blocked")
    QUARANTINED = messages.DISPOSITION_QUARANTINED, _("Quarantined")
    ISOLATED = 4, _("Isolated")
    DELETED = messages.DISPOSITION_DELETED, _("Deleted")
    DROPPED = 6, _("Dropped")
    APPROVED = 8, _("Approved")
    RESTORED = messages.DISPOSITION_RESTORED, _("Restored")
    EXONERATED = 10, _("Cleared")
    CORRECTED = 11, _("Corrected")
    UNCORRECTED = messages.DISPOSITION_UNCORRECTED, _("Action failed")
    DETECTED = messages.DISPOSITION_DETECTED, _("Found")
    NO_ACTION = messages.DISPOSITION_NO_ACTION, _("No action")
    OTHER = 99, _("Other")


SETTLED = frozenset(
    {
        Disposition.ALLOWED,
        Disposition.BLOCKED,
        Disposition.QUARANTINED,
        Disposition.ISOLATED,
        Disposition.DELETED,
        Disposition.DROPPED,
        Disposition.APPROVED,
        Disposition.RESTORED,
        Disposition.EXONERATED,
        Disposition.CORRECTED,
    }
)
"""Dispositions after which nothing is left to do. Any other leaves the detection open."""


class ScanState(models.IntegerChoices):
    """How far a scan is, as far as the server was told. The ids are OCSF's activities."""

    RUNNING = messages.SCAN_STARTED, _("Running")
    COMPLETED = messages.SCAN_COMPLETED, _("Completed")
    CANCELLED = messages.SCAN_CANCELLED, _("Cancelled")
    TOO_LONG = messages.SCAN_DURATION_VIOLATION, _("Stopped: took too long")
    PAUSED = 5, _("Paused")
    FAILED = messages.SCAN_ERROR, _("Failed")
    OTHER = 99, _("Other")


class ScanKind(models.IntegerChoices):
    """What started a scan, with OCSF's ids."""

    UNKNOWN = 0, _("Unknown")
    MANUAL = messages.SCAN_TYPE_MANUAL, _("By hand")
    SCHEDULED = messages.SCAN_TYPE_SCHEDULED, _("Scheduled")
    NEW_DEFINITIONS = messages.SCAN_TYPE_UPDATED_CONTENT, _("New definitions")
    QUICK = 4, _("Quick")
    OTHER = messages.SCAN_TYPE_OTHER, _("Other")


class Reported(models.Model):
    """What every reported row has.

    `time` is what people see and lists are sorted by: the device's clock where it can be believed,
    else when the server received it. `device_time` keeps what the device said, in milliseconds.
    """

    id = models.BigAutoField(primary_key=True)
    # The account is copied from the device, which holds the constraint; checking both would cost
    # every row twice. (PostgreSQL: 7 us a row without, 10 with one, 13.5 with two foreign keys.)
    account = models.ForeignKey(
        "accounts.Account",
        on_delete=models.CASCADE,
        related_name="+",
        db_index=False,
        db_constraint=False,
    )
    device = models.ForeignKey(
        "devices.Device", on_delete=models.CASCADE, related_name="+", db_index=False
    )
    uid = models.UUIDField(editable=False)
    time = models.DateTimeField()
    device_time = models.BigIntegerField()
    received_at = models.DateTimeField()

    class Meta:
        abstract = True


class Scan(Reported):
    """One run of the engine on a device, its start and its end merged, whichever comes first.

    `uid` is the scan's own id. `time` is when it started.
    """

    event_uids = models.JSONField(default=list)
    """The events that were merged: each counts once, however often it is sent."""
    state = models.SmallIntegerField(choices=ScanState.choices)
    kind = models.SmallIntegerField(choices=ScanKind.choices)
    name = models.CharField(max_length=messages.MAX_NAME, blank=True)
    ended_at = models.DateTimeField(null=True)
    started_rank = models.JSONField(null=True)
    ended_rank = models.JSONField(null=True)
    """Where the start and the end that count stand in the device's order: first start, last end."""
    duration_ms = models.BigIntegerField(default=0)
    files = models.BigIntegerField(default=0)
    bytes = models.BigIntegerField(default=0)
    cached = models.BigIntegerField(default=0)
    skipped = models.BigIntegerField(default=0)
    skipped_by_reason = models.JSONField(default=dict)
    detections = models.BigIntegerField(default=0)
    resolved = models.BigIntegerField(default=0)
    paths = models.JSONField(default=list)
    message = models.CharField(max_length=messages.MAX_TEXT, blank=True)
    definitions_version = models.IntegerField(default=0)
    command_uid = models.UUIDField(null=True)

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["uid", "device"], name="one_row_per_scan"),
        ]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["account", "time", "id"], name="scans_of_account"),
            models.Index(fields=["device", "time", "id"], name="scans_of_device"),
        ]

    def __str__(self) -> str:
        return f"scan {self.uid}"


class Detection(Reported):
    """A rule hit a file on a device.

    `uid` names the event that told it, `finding_uid` the finding that later events refer to.
    `disposition` is what holds now, `reported_disposition` what the device did when it found it.
    """

    finding_uid = models.UUIDField()
    scan_uid = models.UUIDField(null=True)
    severity = models.SmallIntegerField(choices=Severity.choices)
    confidence = models.SmallIntegerField(default=0)
    disposition = models.SmallIntegerField(choices=Disposition.choices)
    reported_disposition = models.SmallIntegerField(choices=Disposition.choices)
    is_open = models.BooleanField()
    """Whether it still needs somebody: true unless the disposition settles it."""
    title = models.CharField(max_length=messages.MAX_NAME)
    rule = models.CharField(max_length=messages.MAX_NAME)
    rule_name = models.CharField(max_length=messages.MAX_NAME, blank=True)
    description = models.CharField(max_length=messages.MAX_TEXT, blank=True)
    engine = models.CharField(max_length=messages.MAX_WORD, blank=True)
    definitions_version = models.IntegerField(default=0)
    path = models.CharField(max_length=messages.MAX_PATH)
    member = models.CharField(max_length=messages.MAX_PATH, blank=True)
    size = models.BigIntegerField(default=0)
    sha256 = models.CharField(max_length=64, blank=True)
    quarantine_id = models.UUIDField(null=True)
    more_paths = models.JSONField(null=True)
    """Further files that show the same finding, where there is more than one."""

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["uid", "device"], name="one_row_per_detection"),
        ]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["account", "time", "id"], name="detections_of_account"),
            models.Index(fields=["device", "time", "id"], name="detections_of_device"),
            models.Index(fields=["finding_uid", "device"], name="detections_by_finding"),
            models.Index(
                fields=["account", "time", "id"],
                name="detections_open",
                condition=models.Q(is_open=True),
            ),
            models.Index(
                fields=["device"],
                name="detections_open_of_device",
                condition=models.Q(is_open=True),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.rule} in {self.path}"


class Remediation(Reported):
    """Something was done, or tried, about an earlier detection: quarantined, restored, deleted.

    It may arrive before the detection it is about; then it waits (`is_waiting`) and takes effect
    with it.
    """

    finding_uid = models.UUIDField(null=True)
    quarantine_id = models.UUIDField(null=True)
    action = models.SmallIntegerField()
    status = models.SmallIntegerField()
    disposition = models.SmallIntegerField(choices=Disposition.choices)
    sequence = models.BigIntegerField(default=0)
    path = models.CharField(max_length=messages.MAX_PATH, blank=True)
    message = models.CharField(max_length=messages.MAX_TEXT, blank=True)
    command_uid = models.UUIDField(null=True)
    is_waiting = models.BooleanField(default=False)

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["uid", "device"], name="one_row_per_remediation"),
        ]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["account", "time", "id"], name="remediations_of_account"),
            models.Index(fields=["finding_uid", "device"], name="remediations_by_finding"),
            models.Index(
                fields=["device"],
                name="remediations_waiting",
                condition=models.Q(is_waiting=True),
            ),
        ]

    def __str__(self) -> str:
        return f"remediation {self.uid}"


class Tally(models.Model):
    """How many scans and detections an account had, and a number that rises with each change.

    Counting millions of rows for a page would cost more with every row; this row costs the same
    for ever.
    """

    account = models.OneToOneField(
        "accounts.Account", on_delete=models.CASCADE, primary_key=True, related_name="+"
    )
    version = models.BigIntegerField(default=0)
    scans = models.BigIntegerField(default=0)
    detections = models.BigIntegerField(default=0)

    def __str__(self) -> str:
        return f"tally of {self.account_id}"
