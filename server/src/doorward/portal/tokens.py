"""Access for programs: personal tokens, made, shown once and revoked."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from allauth.account.decorators import reauthentication_required
from django import forms
from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_http_methods, require_POST

from doorward.accounts import tokens
from doorward.accounts.adapter import origin_of
from doorward.accounts.permissions import Act
from doorward.accounts.tokens import Scope
from doorward.portal import visits
from doorward.portal.visits import Visit

SCOPES: Final = {
    Scope.DEVICES_READ: gettext_lazy("See the devices"),
    Scope.DEVICES_WRITE: gettext_lazy("Add, rename and remove devices"),
    Scope.COMMANDS_WRITE: gettext_lazy(
        "Have devices scan, fetch definitions or say how they are; never let a file out"
    ),
    Scope.SETTINGS_WRITE: gettext_lazy(
        "Change what devices are told to do, but never so that they protect less"
    ),
    Scope.REPORTS_READ: gettext_lazy("See scans and threats"),
    Scope.MEMBERS_READ: gettext_lazy("See who belongs to the account"),
}
LIVES: Final = {
    7: gettext_lazy("A week"),
    30: gettext_lazy("30 days"),
    90: gettext_lazy("90 days"),
    365: gettext_lazy("A year"),
}


class TokenForm(forms.Form):
    """A token to be made."""

    name = forms.CharField(
        label=gettext_lazy("What is it for?"),
        max_length=80,
        help_text=gettext_lazy("So that you know later which one to revoke."),
        widget=forms.TextInput(attrs={"autocomplete": "off"}),
    )
    scopes = forms.MultipleChoiceField(
        label=gettext_lazy("What may it do?"),
        choices=[(scope.value, words) for scope, words in SCOPES.items()],
        widget=forms.CheckboxSelectMultiple,
        initial=[Scope.DEVICES_READ.value],
        error_messages={"required": gettext_lazy("Choose at least one.")},
    )
    days = forms.TypedChoiceField(
        label=gettext_lazy("How long should it work?"),
        choices=list(LIVES.items()),
        coerce=int,
        initial=30,
    )


@require_http_methods(["GET", "HEAD", "POST"])
@visits.may(Act.OWN)
def overview(request: HttpRequest, visit: Visit) -> HttpResponse:
    """List the person's tokens; on POST make one, after asking again who it is."""
    if request.method == "POST":
        answer: HttpResponse = _make(request)
        return answer
    return _page(request, visit, TokenForm())


@reauthentication_required  # type: ignore[untyped-decorator]  # allauth ships no types
@visits.may(Act.OWN)
def _make(request: HttpRequest, visit: Visit) -> HttpResponse:
    form = TokenForm(request.POST)
    if not form.is_valid():
        return _page(request, visit, form, status=422)
    origin = origin_of(request)
    wanted = form.cleaned_data
    try:
        _token, text = tokens.create(
            visit.user,
            account=visit.account,
            name=wanted["name"],
            scopes=wanted["scopes"],
            days=wanted["days"],
            ip=origin.ip,
            agent=origin.agent,
        )
    except tokens.TokenRefused as refusal:
        form.add_error(None, _("It was not made: %(why)s.") % {"why": refusal})
        return _page(request, visit, form, status=422)
    return _page(request, visit, TokenForm(), made=text)


@require_POST
@visits.may(Act.OWN)
def revoke(request: HttpRequest, visit: Visit, token_id: UUID) -> HttpResponse:
    """End one of the person's tokens."""
    found = next((token for token in tokens.of(visit.user) if token.pk == token_id), None)
    if found is None:
        raise Http404
    origin = origin_of(request)
    tokens.revoke(found, actor=visit.user, ip=origin.ip, agent=origin.agent)
    messages.success(request, _("%(name)s is revoked. It no longer works.") % {"name": found.name})
    return redirect("/account/tokens/")


def _page(
    request: HttpRequest, visit: Visit, form: TokenForm, *, made: str = "", status: int = 200
) -> HttpResponse:
    context = {
        "visit": visit,
        "form": form,
        "made": made,
        "tokens": [
            (token, [SCOPES[Scope(scope)] for scope in token.scope_list])
            for token in tokens.of(visit.user)
        ],
    }
    return render(request, "portal/account/tokens.html", context, status=status)
