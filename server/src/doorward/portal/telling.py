"""What happened, as a kind neighbor would tell it: what, what it means, what to do."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date
from typing import Final

from django.utils.formats import date_format, number_format
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from doorward.accounts import browser_names
from doorward.devices.models import Device
from doorward.portal import texts
from doorward.reports import queries
from doorward.reports.models import Detection, Disposition, Remediation, Scan, ScanState

# A backslash parts folders on Windows only; elsewhere it may stand in a name.
_LAST_PART: Final = re.compile(r"[^/]+(?=/*$)")
_LAST_PART_WINDOWS: Final = re.compile(r"[^\\/]+(?=[\\/]*$)")
ICONS: Final = {
    "laptop": "laptop",
    "desktop": "desktop",
    "server": "server",
    "phone": "phone",
    "tablet": "phone",
}

SYSTEM_NAMES: Final = {"linux": "Linux", "macos": "macOS", "windows": "Windows"}
PUT_AWAY: Final = frozenset({Disposition.QUARANTINED, Disposition.ISOLATED})
PUT_BACK: Final = frozenset({Disposition.RESTORED})
DELETED: Final = frozenset({Disposition.DELETED})
LET_BE: Final = frozenset({Disposition.ALLOWED, Disposition.APPROVED, Disposition.EXONERATED})

REASONS: Final[dict[str, Promise]] = {
    "no-definitions": gettext_lazy("it has no rules to scan by"),
    "quick-scan-failed": gettext_lazy("its last quick scan failed"),
    "full-scan-failed": gettext_lazy("its last full scan failed"),
    "custom-scan-failed": gettext_lazy("its last scan of chosen folders failed"),
    "real-time-off": gettext_lazy("its real-time protection does not work"),
    "real-time-partly": gettext_lazy("its real-time protection works only in part"),
}
"""Every reason of doorward_protocol.protection.REASONS, in the same words."""
ACTIONS: Final[dict[int, tuple[str, Promise]]] = {
    Disposition.QUARANTINED: ("safe", gettext_lazy("Put away")),
    Disposition.ISOLATED: ("safe", gettext_lazy("Put away")),
    Disposition.DELETED: ("safe", gettext_lazy("Deleted")),
    Disposition.BLOCKED: ("safe", gettext_lazy("Kept from running")),
    Disposition.DROPPED: ("safe", gettext_lazy("Kept from running")),
    Disposition.CORRECTED: ("safe", gettext_lazy("Cleaned")),
    Disposition.RESTORED: ("unknown", gettext_lazy("Put back")),
    Disposition.ALLOWED: ("unknown", gettext_lazy("Allowed")),
    Disposition.APPROVED: ("unknown", gettext_lazy("Allowed")),
    Disposition.EXONERATED: ("unknown", gettext_lazy("Allowed")),
    Disposition.UNCORRECTED: ("danger", gettext_lazy("Still there")),
    Disposition.DETECTED: ("danger", gettext_lazy("Still there")),
    Disposition.NO_ACTION: ("danger", gettext_lazy("Still there")),
}


@dataclass(frozen=True)
class Story:
    """One happening as a line of a list."""

    icon: str
    tone: str
    headline: str
    more: str
    link: str


def reason(word: str) -> str:
    """Return what a device says is missing from its protection, in a person's words."""
    known = REASONS.get(word)
    return str(known) if known else texts.visible(word)


def definitions(version: int) -> str:
    """Return the number of a set of definitions as a day: 2026112203 is 22 Nov 2026, set 3."""
    day, number = divmod(version, 100)
    try:
        when = date(day // 10_000, day // 100 % 100, day % 100)
    except ValueError:
        return str(version) if version else _("not told yet")
    words = {"day": date_format(when, "j M Y"), "number": number}
    return _("%(day)s, set %(number)d") % words


def system(device: Device) -> str:
    """Return the system of a device as people name it; the version often holds the name already."""
    name = SYSTEM_NAMES.get(device.os_name, device.os_name)
    version = device.os_version
    return version if version[:1].isalpha() else f"{name} {version}".strip()


def device_icon(device: Device) -> str:
    """Return which icon stands for this kind of device."""
    return ICONS.get(device.type, "devices")


def file_name(path: str) -> str:
    """Return the last part of a path of any system, fit to be shown."""
    found = (_LAST_PART if path.startswith("/") else _LAST_PART_WINDOWS).search(path)
    return texts.shortened(texts.visible(found[0] if found else path), 80)


def file_word(path: str) -> str:
    """Return what to call the file at a path; of one whose path is not shared, "a file"."""
    return file_name(path) or _("a file")


def action(disposition: int) -> tuple[str, str | Promise]:
    """Return how what was done looks (its tone) and what it is called."""
    return ACTIONS.get(disposition, ("attention", _("Look at it")))


def threat_headline(threat: Detection) -> str:
    """Return one sentence: what happened to the file, and what that means."""
    name = {"name": file_word(threat.path)}
    kind = threat.disposition
    if kind in PUT_AWAY:
        return _("We put %(name)s away. It can’t run.") % name
    if kind in DELETED:
        return _("We deleted %(name)s.") % name
    if kind in {Disposition.BLOCKED, Disposition.DROPPED}:
        return _("We kept %(name)s from running.") % name
    if kind in PUT_BACK:
        return _("%(name)s was put back to its place.") % name
    if kind in LET_BE:
        return _("%(name)s was allowed to stay.") % name
    if kind == Disposition.CORRECTED:
        return _("We cleaned %(name)s.") % name
    return _("%(name)s is still there.") % name


def threat_meaning(threat: Detection) -> str:
    """Return what the state of a threat means for the person, and what to do."""
    kind = threat.disposition
    if kind in PUT_AWAY:
        return _(
            "The file is in the device’s quarantine, where nothing can open it."
            " Nothing is left to do."
        )
    if kind in DELETED:
        return _("The file is gone from the device. Nothing is left to do.")
    if kind in PUT_BACK:
        return _(
            "Somebody took it out of quarantine; scans leave it there from now on."
            " If that was not you, delete the file."
        )
    if kind in LET_BE:
        return _("Somebody decided that this file may stay.")
    if kind in {Disposition.BLOCKED, Disposition.DROPPED, Disposition.CORRECTED}:
        return _("Nothing is left to do.")
    if kind == Disposition.UNCORRECTED:
        return _(
            "We tried to put it away and could not. Don’t open it; delete it on the device,"
            " or scan again with more rights."
        )
    return _("We found it and left it where it is. Don’t open it; delete it on the device.")


def of_threat(threat: Detection) -> Story:
    """Return a threat as a line of a list."""
    tone, _word = action(threat.disposition)
    return Story(
        icon="away" if tone == "safe" else "attention" if tone != "danger" else "danger",
        tone=tone,
        headline=threat_headline(threat),
        more=texts.shortened(texts.visible(threat.title or threat.rule_name or threat.rule), 80),
        link=f"/reports/threats/{threat.uid}/",
    )


def of_scan(scan: Scan) -> Story:
    """Return a scan as a line of a list."""
    return Story(
        icon="scan",
        tone="attention" if scan.state == ScanState.FAILED else "unknown",
        headline=scan_headline(scan),
        more=scan_figures(scan),
        link=f"/reports/scans/{scan.uid}/",
    )


def scan_headline(scan: Scan) -> str:
    """Return one sentence: how the scan went."""
    if scan.state == ScanState.RUNNING:
        if queries.is_unfinished(scan):
            return _("A scan never told its end")
        return _("A scan is running")
    if scan.state == ScanState.FAILED:
        return _("A scan failed")
    if scan.state in {ScanState.CANCELLED, ScanState.TOO_LONG, ScanState.PAUSED}:
        return _("A scan was stopped before its end")
    if scan.detections:
        return ngettext(
            "A scan found %(count)s threat", "A scan found %(count)s threats", scan.detections
        ) % {"count": number(scan.detections)}
    return _("A scan found nothing")


def scan_figures(scan: Scan) -> str:
    """Return what a scan looked at and how long it took, in a few words."""
    parts = [
        ngettext("%(count)s file", "%(count)s files", scan.files) % {"count": number(scan.files)}
    ]
    if scan.duration_ms:
        parts.append(duration(scan.duration_ms))
    return " · ".join(parts)


def of_remediation(remediation: Remediation) -> Story:
    """Return something done about a threat as a line of a list."""
    tone, _word = action(remediation.disposition)
    told = Detection(path=remediation.path or "?", disposition=remediation.disposition)
    return Story(
        icon="away",
        tone=tone,
        headline=threat_headline(told),
        more=texts.shortened(texts.visible(remediation.message), 80),
        link="/reports/threats/",
    )


def of_happening(happening: queries.Happening) -> Story:
    """Return whatever happened as a line of a list."""
    if happening.count > 1:
        return _of_many(happening)
    if happening.threat is not None:
        return of_threat(happening.threat)
    if happening.remediation is not None:
        return of_remediation(happening.remediation)
    if happening.scan is None:
        raise ValueError("something happened, but nothing is told")
    return of_scan(happening.scan)


def _of_many(happening: queries.Happening) -> Story:
    """Return many threats of one scan, or many of the same acts, as one line of a list."""
    count = number(happening.count) + ("+" if happening.more else "")
    words = {"count": count}
    if happening.remediation is not None:
        tone, word = action(happening.remediation.disposition)
        headline = ngettext("%(count)s file", "%(count)s files", happening.count) % words
        return Story("away", tone, headline, str(word), _threats_of(happening.device))
    dealt_with = happening.count - happening.still_there
    parts = []
    if dealt_with:
        parts.append(_("%(count)s dealt with") % {"count": number(dealt_with)})
    if happening.still_there:
        parts.append(_("%(count)s still there") % {"count": number(happening.still_there)})
    return Story(
        icon="danger" if happening.still_there else "away",
        tone="danger" if happening.still_there else "safe",
        headline=ngettext("%(count)s threat", "%(count)s threats", happening.count) % words,
        more=", ".join(parts),
        link=_threats_of(happening.device),
    )


def _threats_of(device: Device) -> str:
    return f"/reports/threats/?device={device.pk}"


def browser(agent: str) -> str:
    """Return what a person calls the browser that sent this User-Agent; it is only a claim."""
    return browser_names.name_of(agent)


def number(value: int) -> str:
    """Return a number as people write it: 48,211."""
    return str(number_format(value, force_grouping=True))


def duration(milliseconds: int) -> str:
    """Return a duration as people say it: ``0.4 s``, ``12 s``, ``2 min 11 s``, ``3 h 5 min``."""
    if milliseconds < 1000:
        return _("under 1 s")
    seconds = milliseconds // 1000
    if seconds < 60:
        return _("%(s)d s") % {"s": seconds}
    if seconds < 3600:
        return _("%(m)d min %(s)d s") % {"m": seconds // 60, "s": seconds % 60}
    return _("%(h)d h %(m)d min") % {"h": seconds // 3600, "m": seconds % 3600 // 60}
