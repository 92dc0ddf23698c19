"""The account page: what to call you, your time zone, how the pages look, how you sign in."""

from __future__ import annotations

from typing import Final

from django import forms
from django.conf import settings
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_http_methods, require_POST

from doorward.accounts import person
from doorward.accounts.permissions import Act
from doorward.portal import cookies, visits, zones
from doorward.portal.visits import Visit

THEMES: Final = {
    "": gettext_lazy("As this computer says"),
    "light": gettext_lazy("Light"),
    "dark": gettext_lazy("Dark"),
}


class YouForm(forms.Form):
    """What a person may change about themselves without being asked again who they are."""

    name = forms.CharField(
        label=gettext_lazy("What should we call you?"),
        max_length=120,
        required=False,
        widget=forms.TextInput(attrs={"autocomplete": "name"}),
    )
    zone = forms.ChoiceField(
        label=gettext_lazy("Time zone"),
        required=False,
        help_text=gettext_lazy("Every time on these pages is shown in it."),
    )

    def __init__(self, *args: object, browsers_zone: str = "", **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]  # passed on as they came
        automatic = (
            _("As this browser says (%(zone)s)") % {"zone": browsers_zone}
            if browsers_zone
            else _("As the browser says")
        )
        field = self.fields["zone"]
        if isinstance(field, forms.ChoiceField):
            field.choices = [("", automatic), *((name, name) for name in zones.names())]


@require_http_methods(["GET", "HEAD", "POST"])
@visits.may(Act.OWN)
def you(request: HttpRequest, visit: Visit) -> HttpResponse:
    """Show the account page; on POST store name and zone."""
    form = YouForm(
        request.POST or None,
        initial={"name": visit.user.name, "zone": visit.user.zone},
        browsers_zone=zones.browsers(request),
    )
    if request.method == "POST" and form.is_valid():
        person.describe(visit.user, name=form.cleaned_data["name"], zone=form.cleaned_data["zone"])
        messages.success(request, _("Saved."))
        return redirect("/account/")
    context = {
        "visit": visit,
        "form": form,
        "themes": THEMES.items(),
        "chosen_theme": theme(request),
    }
    return render(request, "portal/account/page.html", context, status=422 if form.errors else 200)


@require_POST
def choose_theme(request: HttpRequest) -> HttpResponse:
    """Keep light or dark in this browser; any other word means what the computer says."""
    response = redirect("/account/")
    wanted = request.POST.get("theme", "")
    if wanted in {"light", "dark"}:
        cookies.keep(response, settings.THEME_COOKIE_NAME, wanted, lasts=cookies.YEAR)
    else:
        response.delete_cookie(settings.THEME_COOKIE_NAME)
    return response


def theme(request: HttpRequest) -> str:
    """Return ``light`` or ``dark`` as this browser's person chose, or ""."""
    chosen = request.COOKIES.get(settings.THEME_COOKIE_NAME, "")
    return chosen if chosen in {"light", "dark"} else ""
