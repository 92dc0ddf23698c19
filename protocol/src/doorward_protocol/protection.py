"""How well a device is protected, in words: the same on the device as on the pages.

"Protected" means that the protection works. Whether something was scanned already is a fact of its
own, said beside it: a device that has just joined is as well protected before its first scan.
"""

from __future__ import annotations

from typing import Final

STATES: Final = {
    "protected": "Protected",
    "attention": "Needs attention",
    "off": "Not protected",
}
"""Every state of messages.ProtectionState."""
REASONS: Final = {
    "no-definitions": "it has no rules to scan by",
    "quick-scan-failed": "its last quick scan failed",
    "full-scan-failed": "its last full scan failed",
    "custom-scan-failed": "its last scan of chosen folders failed",
    "real-time-off": "its real-time protection does not work",
    "real-time-partly": "its real-time protection works only in part",
}
"""Every reason that an agent gives; a page shows one that it does not know as it came."""
NOT_SCANNED: Final = "not scanned yet"
