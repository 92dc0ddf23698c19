"""The home page: is everything protected, what needs me, what happened lately."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from django.views.decorators.http import require_safe

from doorward.accounts.permissions import Act
from doorward.billing import entitlement
from doorward.billing.entitlement import Entitlement
from doorward.devices import queries, state
from doorward.devices.models import Device
from doorward.devices.state import Standing
from doorward.portal import live, telling, texts, visits
from doorward.portal.devices import start_command
from doorward.portal.visits import Visit
from doorward.reports import queries as reports
from doorward.reports.models import Detection
from doorward.reports.queries import Group

DEVICES_SHOWN: Final = 20
NEEDS_SHOWN: Final = 5
LATELY_SHOWN: Final = 8


@dataclass(frozen=True)
class Need:
    """One thing that waits for the person, and the one step to take."""

    tone: str
    headline: str
    words: str
    link: str
    step: str
    since: datetime | None = None
    command: str = ""
    """What to type on the device, where that is the way."""


@dataclass(frozen=True)
class House:
    """How everything is together: the door to draw, and two sentences."""

    door: str
    headline: str
    words: str


@require_safe
@visits.may(Act.LOOK)
def home(request: HttpRequest, visit: Visit) -> HttpResponse:
    """Show the three answers; at most twelve queries, however much there is."""
    now = timezone.now()
    account = visit.account
    standings = queries.standings(account, now)
    # Where not all are shown, those that somebody should look at come first.
    if sum(standings.values()) <= DEVICES_SHOWN:
        shown = queries.page(account, size=DEVICES_SHOWN)
    else:
        shown = queries.in_need_first(account, now, most=DEVICES_SHOWN)
    waiting = [
        device
        for device in shown
        if (how := state.of(device, now)).needs_somebody or how.standing is Standing.WAITING
    ]
    covered = entitlement.of(account)

    def context() -> dict[str, object]:
        needs = [*_threat_needs(visit), *_needs(waiting, covered, now)]
        return {
            "visit": visit,
            "house": _house(standings, needs, may_change=visit.may_change),
            "needs": needs[:NEEDS_SHOWN],
            "more_needs": max(0, len(needs) - NEEDS_SHOWN),
            "devices": [(device, state.of(device, now)) for device in shown[:DEVICES_SHOWN]],
            "total": sum(standings.values()),
            "lately": [
                (happening, telling.of_happening(happening))
                for happening in reports.lately(visit.sight, limit=LATELY_SHOWN)
            ],
        }

    seen = (
        reports.version(visit.account),
        covered.state,
        visit.role,
        sorted(standings.items()),
        [state.seen(device, now) for device in [*shown, *waiting]],
        now.date(),
    )
    return live.answer(
        request, "portal/home/page.html", "portal/home/live.html", seen=seen, context=context
    )


def _threat_needs(visit: Visit) -> list[Need]:
    """Return the threats that are still there, each device's as one."""
    return [
        _one_threat(group.newest) if group.count == 1 else _many_threats(group)
        for group in reports.open_by_device(visit.sight, limit=NEEDS_SHOWN)
    ]


def _one_threat(threat: Detection) -> Need:
    return Need(
        tone="danger",
        headline=telling.threat_headline(threat),
        words=_("On %(device)s. %(meaning)s")
        % {
            "device": texts.shortened(texts.visible(threat.device.label), 60),
            "meaning": telling.threat_meaning(threat),
        },
        link=f"/reports/threats/{threat.uid}/",
        step=_("See the threat"),
        since=threat.time,
    )


def _many_threats(group: Group[Detection]) -> Need:
    return Need(
        tone="danger",
        headline=ngettext(
            "%(count)s threat on %(device)s is still there",
            "%(count)s threats on %(device)s are still there",
            group.count,
        )
        % {
            "count": telling.number(group.count) + ("+" if group.more else ""),
            "device": texts.shortened(texts.visible(group.newest.device.label), 60),
        },
        words=_(
            "Don’t open these files; delete them on the device, or scan again with more rights."
        ),
        link=f"/reports/threats/?device={group.newest.device_id}&action=open",
        step=_("See the threats"),
        since=group.newest.time,
    )


def _needs(waiting: list[Device], covered: Entitlement, now: datetime) -> list[Need]:
    needs = [device_need(device, now) for device in waiting]
    if not covered.covers:
        needs.append(
            Need(
                tone="attention",
                headline=_("Your subscription has ended"),
                words=_("Devices keep the protection they have, but no more can join."),
                link="/subscription/",
                step=_("See your subscription"),
            )
        )
    return needs


def device_need(device: Device, now: datetime) -> Need:
    """Return what a device needs from a person."""
    how = state.of(device, now)
    name = {"name": texts.shortened(texts.visible(device.label), 60)}
    headline, words = {
        Standing.ATTENTION: (
            _("%(name)s needs attention") % name,
            _("It says that a part of its protection does not work."),
        ),
        Standing.OFF: (
            _("%(name)s is not protected") % name,
            _("Its protection is switched off or can’t start."),
        ),
        Standing.WAITING: (
            _("Start the protection of %(name)s") % name,
            _("It has joined, and waits for this command, in the folder of this program:"),
        ),
        Standing.COPIED: (
            _("%(name)s exists twice") % name,
            _("Two computers use its identity: a disk was copied. One of them must join anew."),
        ),
    }.get(
        how.standing,
        (
            _("%(name)s is silent") % name,
            _("Switch it on and let it connect, or remove it if it is no longer in use."),
        ),
    )
    return Need(
        tone=how.tone,
        headline=headline,
        words=words,
        link=f"/devices/{device.pk}/",
        step=_("Open the device"),
        since=how.last_seen,
        command=start_command(device) if how.standing is Standing.WAITING else "",
    )


def _house(standings: dict[Standing, int], needs: list[Need], *, may_change: bool) -> House:
    total = sum(standings.values())
    safe = standings.get(Standing.PROTECTED, 0)
    away = standings.get(Standing.AWAY, 0)
    unknown = standings.get(Standing.UNKNOWN, 0) + standings.get(Standing.WAITING, 0)
    if not total and not needs and may_change:
        return House(
            "open",
            _("Let’s protect your first device"),
            _("Two commands on the computer you want to look after. It takes two minutes."),
        )
    if not total and not needs:
        return House(
            "open",
            _("There is no device here yet"),
            _("An owner or a helper of this account adds one. You will see here how it is."),
        )
    words = _words(total, safe, away, unknown)
    if needs:
        headline = ngettext("One thing needs you", "%(count)d things need you", len(needs)) % {
            "count": len(needs)
        }
        return House("ajar", headline, words)
    if safe == total:
        return House("well", _("Everything is protected"), words)
    if unknown:
        return House("unknown", _("Nothing needs you, as far as we can know"), words)
    return House("well" if safe else "unknown", _("Nothing needs you"), words)


def _words(total: int, safe: int, away: int, unknown: int) -> str:
    if safe == total:
        return ngettext(
            "Your device was checked within the last %(minutes)d minutes.",
            "All %(total)d devices were checked within the last %(minutes)d minutes.",
            total,
        ) % {"total": total, "minutes": state.FRESH.total_seconds() // 60}
    if total == 1:
        return _words_for_one(away, unknown)
    parts = [
        ngettext(
            "%(safe)d of %(total)d device is protected now.",
            "%(safe)d of %(total)d devices are protected now.",
            total,
        )
        % {"safe": safe, "total": total}
    ]
    if away:
        parts.append(
            ngettext(
                "%(count)d is away: it was protected when we last heard from it.",
                "%(count)d are away: they were protected when we last heard from them.",
                away,
            )
            % {"count": away}
        )
    if unknown:
        parts.append(
            ngettext(
                "We can’t tell how %(count)d of them is.",
                "We can’t tell how %(count)d of them are.",
                unknown,
            )
            % {"count": unknown}
        )
    return " ".join(parts)


def _words_for_one(away: int, unknown: int) -> str:
    if away:
        return _("Your device is away: it was protected when we last heard from it.")
    if unknown:
        return _("We can’t tell how your device is.")
    return _("Your device is not protected now.")
