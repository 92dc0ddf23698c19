"""A laptop of Alice's, and what it may report."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import msgspec
import pytest
from django.utils import timezone
from uuid_utils.compat import uuid7

from doorward.accounts.models import Account
from doorward.devices.models import Device
from doorward.reports.intake import Submission, prepared
from doorward_protocol.messages import DetectionFinding, Event, FileRemediation, ScanActivity

_thumbprints = itertools.count()


def device_of(account: Account, name: str = "laptop") -> Device:
    """Store a device of this account."""
    now = timezone.now()
    return Device.objects.create(
        account=account,
        name=name,
        public_key="k" * 43,
        thumbprint=f"{next(_thumbprints):043d}",
        enrolled_at=now,
        changed_at=now,
    )


@pytest.fixture
def laptop(alices_account: Account) -> Device:
    return device_of(alices_account)


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def finding(uid: UUID | None = None, *, finding_uid: UUID | None = None, **changes: Any) -> Any:
    """A Detection Finding: by default EICAR, put into quarantine."""
    uid = uid or uuid7()
    message = {
        "class_uid": 2004,
        "metadata": {"uid": uid, "sequence": changes.pop("sequence", 0)},
        "time": now_ms(),
        "finding_info": {
            "uid": finding_uid or uid,
            "title": changes.pop("title", "EICAR test file"),
            "analytic": {"uid": changes.pop("rule", "doorward.eicar"), "name": "EICAR"},
        },
        "evidences": [
            {
                "file": {
                    "path": changes.pop("path", "/home/alice/eicar.com"),
                    "size": 68,
                    "hashes": [{"algorithm_id": 3, "value": "AB" * 32}],
                }
            }
        ],
        "disposition_id": changes.pop("disposition", 3),
        "severity_id": changes.pop("severity", 4),
        "unmapped": {"engine": "yara", "scan_uid": changes.pop("scan_uid", None)},
    }
    return msgspec.convert(message | changes, DetectionFinding, builtin_types=(UUID,))


def remediation(about: UUID, disposition: int, uid: UUID | None = None, **changes: Any) -> Any:
    """A File Remediation that succeeded: the finding's file is now as the disposition says."""
    message = {
        "class_uid": 7002,
        "metadata": {"uid": uid or uuid7(), "sequence": changes.pop("sequence", 0)},
        "time": now_ms(),
        "activity_id": {3: 1, 5: 2, 9: 3}.get(disposition, 1),
        "file": {"path": "/home/alice/eicar.com"},
        "disposition_id": disposition,
        "unmapped": {"finding_uid": about},
    }
    return msgspec.convert(message | changes, FileRemediation, builtin_types=(UUID,))


def scan_event(scan: UUID, activity: int, uid: UUID | None = None, **changes: Any) -> Any:
    """A Scan Activity: the scan began (1), ended (2), was cancelled (3)."""
    message = {
        "class_uid": 6007,
        "metadata": {"uid": uid or uuid7(), "sequence": changes.pop("sequence", 0)},
        "time": now_ms(),
        "activity_id": activity,
        "scan": {"uid": scan, "name": "Home", "type_id": 1},
    }
    return msgspec.convert(message | changes, ScanActivity, builtin_types=(UUID,))


def report(device: UUID, events: Sequence[Event]) -> Submission:
    """What the gateway hands in; whose the device is, only the database knows."""
    return prepared(device, UUID(int=0), events)
