"""“It was wrong”: exactly that file is let be for a time, comes back, and operators are told."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal
from uuid import UUID

from django import forms
from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_http_methods, require_POST

from doorward.accounts.adapter import origin_of
from doorward.accounts.models import Shares
from doorward.accounts.permissions import Act
from doorward.portal import before_saving, visits
from doorward.portal.templatetags.look import exact_words
from doorward.portal.visits import Visit
from doorward.protection import checking, merging, policy
from doorward.protection.merging import State
from doorward.reports import queries
from doorward.reports.models import Detection
from doorward.support import wrong_finds
from doorward.support.wrong_finds import Find

LASTS: Final = (
    ("7", gettext_lazy("for a week")),
    ("30", gettext_lazy("for 30 days")),
    ("90", gettext_lazy("for 90 days")),
    ("365", gettext_lazy("for a year")),
)
WHERE: Final = (
    ("device", gettext_lazy("This file in its place, on this device alone")),
    ("account", gettext_lazy("This content wherever it is, on all devices of the account")),
)


class WrongForm(forms.Form):
    """Where and how long a file is let be, and what operators should know."""

    where = forms.ChoiceField(
        label=gettext_lazy("What is let be?"),
        choices=WHERE,
        initial="device",
        widget=forms.RadioSelect,
    )
    lasts = forms.ChoiceField(label=gettext_lazy("How long?"), choices=LASTS, initial="30")
    words = forms.CharField(
        label=gettext_lazy("What is this file?"),
        required=False,
        max_length=wrong_finds.MOST_WORDS,
        widget=forms.Textarea(attrs={"rows": 3}),
        help_text=gettext_lazy(
            "The people who run the service read it: where it is from helps to mend the rule."
        ),
    )


@require_http_methods(["GET", "HEAD", "POST"])
@visits.may(Act.QUARANTINE_CHANGE)
def ask(request: HttpRequest, visit: Visit, uid: UUID) -> HttpResponse:
    """Ask where and how long the file is to be let be; on POST show what that would change."""
    threat = _find(visit, uid)
    form = WrongForm(request.POST or None)
    if request.method != "POST" or not form.is_valid():
        return _page(request, visit, threat, form)
    told = form.cleaned_data
    until = timezone.now() + timedelta(days=int(told["lasts"]))
    for_all = told["where"] == "account"
    find = find_of(threat)
    standing = policy.state_of(visit.account)
    entry = wrong_finds.exclusion_of(find, until, for_all=for_all)
    plan = policy.plan(visit.account, [wrong_finds.delta(standing, find, entry, for_all=for_all)])
    if plan.problems:
        for problem in plan.problems:
            words = problem.words
            if words is checking.LOCKED:
                words = _(
                    "Exclusions are locked further up, so this device alone can’t have one. An "
                    "owner or helper can unlock them, or let it be on all devices."
                )
            form.add_error("where", words)  # type: ignore[arg-type]  # a lazy text is one too
        return _page(request, visit, threat, form)
    return before_saving.look(
        request,
        visit,
        plan,
        back=request.path,
        after=_address(threat),
        beside=_beside(threat, told["words"], until),
    )


def _beside(threat: Detection, words: str, until: datetime) -> before_saving.Beside:
    lines = [
        _("From %(until)s on it is judged like any other file.") % {"until": exact_words(until)},
        _(
            "The people who run the service are told the rule, the file’s SHA-256 and size, the "
            "engine and your words; not its name or place."
        ),
    ]
    if threat.disposition in queries.IN_QUARANTINE:
        lines.insert(0, _("The file comes back to where it was, with the same content and rights."))
    return before_saving.Beside(
        save_at=f"{_address(threat)}wrong/save/",
        title=_("And with it"),
        lines=tuple(lines),
        button=_("Put it right"),
        carries={
            "threat": str(threat.uid),
            "words": words,
            "until": int(until.timestamp() * 1000),
        },
    )


@require_POST
@visits.may(Act.QUARANTINE_CHANGE)
def save(request: HttpRequest, visit: Visit, uid: UUID) -> HttpResponse:
    """Do what was looked at, once the person has proved that it is them."""
    threat = _find(visit, uid)
    change = before_saving.looked_at(request, visit)
    if change is None:
        return redirect(f"{_address(threat)}wrong/")
    carried = (change["beside"] or {}).get("carries", {})
    if carried.get("threat") != str(threat.uid):
        raise Http404
    before_saving.prove_first(request, change)
    try:
        done = wrong_finds.put_right(
            visit.account,
            find_of(threat),
            before_saving.deltas_of(change),
            until=datetime.fromtimestamp(carried["until"] / 1000, tz=timezone.now().tzinfo),
            base=change["base"],
            words=carried["words"],
            why=request.POST.get("why", "") or _("A find was wrong"),
            actor=visit.user,
            origin=origin_of(request),
        )
    except (policy.Outdated, policy.Invalid):
        messages.error(
            request,
            _(
                "Nothing was changed: somebody else changed the settings meanwhile. Look at how "
                "they are now, then try once more."
            ),
        )
        return redirect(f"{_address(threat)}wrong/")
    if done.command is not None:
        messages.success(request, _("The file is on its way back, and is let be from now on."))
    else:
        messages.success(request, _("The file is let be from now on."))
    if done.problem is not None:
        messages.error(
            request,
            _("The device can’t be asked to put it back. Its command on the device does it."),
        )
    return redirect(_address(threat))


@require_POST
@visits.may(Act.QUARANTINE_CHANGE)
def take_back(request: HttpRequest, visit: Visit, uid: UUID) -> HttpResponse:
    """Look at what judging the file again, like any other, would change."""
    threat = _find(visit, uid)
    find = find_of(threat)
    standing = policy.state_of(visit.account)
    deltas = [wrong_finds.delta(standing, find, None, for_all=for_all) for for_all in (False, True)]
    plan = policy.plan(visit.account, deltas)
    here = _address(threat)
    return before_saving.look(request, visit, plan, back=here, after=here)


@dataclass(frozen=True)
class Said:
    """What the page of a threat shows about this: may it be said, was it, and until when."""

    may: bool
    until: datetime | None
    how: Literal["device", "account", ""] = ""


def said(visit: Visit, threat: Detection) -> Said:
    """Return whether this person can say that the find was wrong, and whether somebody did."""
    standing = policy.state_of(visit.account)
    return Said(
        may=can_say(visit, threat),
        until=wrong_finds.standing_exclusion(standing, find_of(threat), timezone.now())
        if threat.device.revoked_at is None
        else None,
        how=_how(standing, threat),
    )


def can_say(visit: Visit, threat: Detection) -> bool:
    """Tell whether this person can say that the find was wrong."""
    return (
        bool(threat.sha256)
        and threat.device.revoked_at is None
        and visit.may(Act.QUARANTINE_CHANGE)
        and visit.may(Act.PROTECTION_CHANGE)
        and visit.sight.of(threat.device) == Shares.PATHS
    )


def _how(standing: State, threat: Detection) -> Literal["device", "account", ""]:
    at = merging.pointer_of("exclusions", str(threat.uid))
    if merging.holds(standing.own.get(threat.device_id, {}), at):
        return "device"
    return "account" if merging.holds(standing.account.values, at) else ""


def find_of(threat: Detection) -> Find:
    """Return the find in the support room's words."""
    held = threat.disposition in queries.IN_QUARANTINE
    return Find(
        uid=threat.uid,
        device=threat.device,
        sha256=threat.sha256,
        path=threat.path,
        size=threat.size,
        rule=threat.rule,
        title=threat.title,
        engine=threat.engine,
        definitions_version=threat.definitions_version,
        quarantine_id=threat.quarantine_id if held else None,
    )


def _page(request: HttpRequest, visit: Visit, threat: Detection, form: WrongForm) -> HttpResponse:
    context = {
        "visit": visit,
        "threat": threat,
        "form": form,
        "back": _address(threat),
        "is_held": threat.disposition in queries.IN_QUARANTINE,
    }
    status = 422 if form.errors else 200
    return render(request, "portal/quarantine/wrong.html", context, status=status)


def _find(visit: Visit, uid: UUID) -> Detection:
    try:
        threat = queries.threat(visit.sight, uid)
    except Detection.DoesNotExist:
        raise Http404 from None
    if not can_say(visit, threat):
        raise Http404
    return threat


def _address(threat: Detection) -> str:
    return f"/reports/threats/{threat.uid}/"
