"""Devices, scans and threats as the portal's tests store them, some with hostile texts."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import count
from typing import Any
from uuid import uuid4

from django.utils import timezone

from doorward.accounts.models import Account
from doorward.devices.models import Device, Presence, Protection
from doorward.reports.models import Detection, Disposition, Scan, ScanKind, ScanState

HOSTILE = "<img src=x onerror=alert(1)>\u202egpj.exe\x1b[31m\x07{{7*7}}{% now 'Y' %}"
_numbers = count(1)


def device_of(
    account: Account, *, seen: datetime | None = None, said: str = Protection.PROTECTED, **more: Any
) -> Device:
    """Store a device that was last seen then (now without it) and said so of its protection."""
    now = timezone.now()
    device = Device.objects.create(
        account=account,
        hostname=more.pop("hostname", f"laptop-{next(_numbers)}"),
        os_name="linux",
        type=more.pop("type", "laptop"),
        public_key="k",
        thumbprint=uuid4().hex,
        enrolled_at=more.pop("enrolled_at", now - timedelta(days=30)),
        changed_at=now,
        protection_state=said,
        **more,
    )
    Presence.objects.create(device=device, last_seen=seen or now)
    return device


def scan_of(device: Device, **more: Any) -> Scan:
    """Store a finished scan of this device."""
    now = timezone.now()
    fields: dict[str, Any] = {
        "time": now,
        "state": ScanState.COMPLETED,
        "kind": ScanKind.MANUAL,
        "files": 48_211,
        "duration_ms": 131_000,
    }
    return Scan.objects.create(
        account=device.account,
        device=device,
        uid=uuid4(),
        device_time=0,
        received_at=now,
        **{**fields, **more},
    )


def threat_of(device: Device, **more: Any) -> Detection:
    """Store a threat on this device that was put away."""
    now = timezone.now()
    disposition = more.pop("disposition", Disposition.QUARANTINED)
    fields: dict[str, Any] = {
        "time": now,
        "severity": 4,
        "title": "EICAR test file",
        "rule": "eicar",
        "path": "/home/alice/invoice.com",
        "quarantine_id": uuid4(),
    }
    return Detection.objects.create(
        account=device.account,
        device=device,
        uid=uuid4(),
        finding_uid=uuid4(),
        device_time=0,
        received_at=now,
        disposition=disposition,
        reported_disposition=disposition,
        is_open=disposition == Disposition.DETECTED,
        **{**fields, **more},
    )
