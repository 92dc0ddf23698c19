"""The quarantine page: what was put away where, and putting it back or deleting it from here."""

from __future__ import annotations

from datetime import datetime
from typing import Final
from uuid import UUID

from django.contrib import messages
from django.core.exceptions import BadRequest
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from django.views.decorators.http import require_POST, require_safe

from doorward.accounts import asking_again
from doorward.accounts.adapter import origin_of
from doorward.accounts.models import Shares
from doorward.accounts.permissions import Act
from doorward.devices import commands
from doorward.devices import queries as devices
from doorward.devices.models import Command
from doorward.portal import asked, live, visits
from doorward.portal.visits import Visit
from doorward.reports import queries
from doorward.reports.models import Detection
from doorward_protocol.messages import CommandArgs

HERE: Final = "/reports/quarantine/"
PAGE: Final = 25
KINDS: Final = {"restore": "quarantine.restore", "delete": "quarantine.delete"}


@require_safe
@visits.may(Act.REPORTS_LOOK)
def overview(request: HttpRequest, visit: Visit) -> HttpResponse:
    """List what is in quarantine, newest first; with `choose`, to act on several at once."""
    now = timezone.now()
    cursor = request.GET.get("at", "")
    choosing = request.GET.get("choose") in {"1", "all"} and visit.may(Act.QUARANTINE_CHANGE)
    waiting = commands.open_about(visit.account, KINDS.values())

    def context() -> dict[str, object]:
        page = queries.quarantine(visit.sight, cursor=cursor, limit=PAGE)
        about = {command.args.get("quarantine_id"): command for command in waiting}
        return {
            "visit": visit,
            "tab": "quarantine",
            "choosing": choosing,
            "all_chosen": request.GET.get("choose") == "all",
            "may_act": visit.may(Act.QUARANTINE_CHANGE),
            "held": [_row(visit, row, about.get(str(row.quarantine_id)), now) for row in page.rows],
            "older": f"?at={page.older}" if page.older else "",
            "newer": f"?at={page.newer}" if page.newer else "",
        }

    seen = (
        queries.version(visit.account),
        devices.news(visit.account),
        visit.role,
        [asked.seen(command) for command in waiting],
        now.replace(second=0, microsecond=0) if waiting else now.date(),
    )
    try:
        if choosing:
            return render(request, "portal/quarantine/choose.html", context())
        return live.answer(
            request,
            "portal/quarantine/page.html",
            "portal/quarantine/live.html",
            seen=seen,
            context=context,
        )
    except queries.InvalidCursor:
        raise BadRequest("cursor") from None


@require_POST
@visits.may(Act.QUARANTINE_CHANGE)
def act(request: HttpRequest, visit: Visit) -> HttpResponse:
    """Say what it would mean; on `sure`, after a fresh proof, have the devices do it."""
    what = request.POST.get("what", "")
    if what not in KINDS:
        raise BadRequest("what")
    chosen = _chosen(request, visit)
    if not chosen:
        messages.error(request, _("Choose at least one file that is in quarantine."))
        return redirect(HERE)
    if request.POST.get("sure") != "1":
        late = what == "restore" and len(chosen) > commands.RESTORES_AT_ONCE
        context = {
            "visit": visit,
            "what": what,
            "chosen": chosen,
            "late": commands.RESTORE_DELAY.seconds // 60 if late else 0,
        }
        return render(request, "portal/quarantine/sure.html", context)
    asking_again.first(request, form_at=HERE)
    done, refused = 0, 0
    for row in chosen:
        try:
            commands.ask(
                row.device,
                KINDS[what],
                CommandArgs(quarantine_id=row.quarantine_id),
                actor=visit.user,
                origin=origin_of(request),
            )
            done += 1
        except commands.NotAsked:
            refused += 1
    _tell(request, what, done, refused)
    return redirect(HERE)


def _tell(request: HttpRequest, what: str, done: int, refused: int) -> None:
    if done and what == "restore":
        words = ngettext(
            "%(count)d file is on its way back.", "%(count)d files are on their way back.", done
        )
        messages.success(request, words % {"count": done})
    elif done:
        words = ngettext(
            "%(count)d file will be deleted.", "%(count)d files will be deleted.", done
        )
        messages.success(request, words % {"count": done})
    if refused:
        words = ngettext(
            "%(count)d device could not be asked.", "%(count)d could not be asked for.", refused
        )
        messages.error(request, words % {"count": refused})


def _row(visit: Visit, row: Detection, command: Command | None, now: datetime) -> dict[str, object]:
    whole = visit.sight.of(row.device) == Shares.PATHS
    return {
        "threat": row,
        "command": asked.of(command, row.device, visit.sight, now) if command else None,
        "can_restore": whole and commands.offers(row.device, "quarantine.restore"),
        "can_delete": whole and commands.offers(row.device, "quarantine.delete"),
        "is_shared": whole,
        "can_say": whole and bool(row.sha256) and visit.may(Act.PROTECTION_CHANGE),
    }


def can_act(visit: Visit, threat: Detection) -> bool:
    """Tell whether this person can have this file put back or deleted from here."""
    device = threat.device
    return (
        threat.quarantine_id is not None
        and device.revoked_at is None
        and visit.may(Act.QUARANTINE_CHANGE)
        and visit.sight.of(device) == Shares.PATHS
        and commands.offers(device, "quarantine.restore")
    )


def _chosen(request: HttpRequest, visit: Visit) -> list[Detection]:
    try:
        uids = [UUID(text) for text in request.POST.getlist("item")[: queries.MOST_HELD]]
    except ValueError:
        raise Http404 from None
    # What one may not see, one can't let out.
    return [
        row for row in queries.held(visit.sight, uids) if visit.sight.of(row.device) == Shares.PATHS
    ]
