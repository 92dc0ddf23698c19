"""The page to write to the people who run the service, for whoever can't sign in too."""

from __future__ import annotations

from django import forms
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_http_methods

from doorward.accounts.adapter import origin_of
from doorward.accounts.models import User
from doorward.support import asking
from doorward.support.asking import About


class QuestionForm(forms.Form):
    """A question to the people who run the service."""

    reply_to = forms.EmailField(
        label=gettext_lazy("Where shall we answer?"),
        max_length=254,
        help_text=gettext_lazy("An email address that you can read now."),
        widget=forms.EmailInput(attrs={"autocomplete": "email"}),
    )
    about = forms.ChoiceField(
        label=gettext_lazy("What is it about?"),
        choices=[
            (About.SIGNING_IN.value, gettext_lazy("I can’t sign in")),
            (About.CODE.value, gettext_lazy("A code or mail does not come")),
            (About.ADDRESS.value, gettext_lazy("My address was changed, or I lost the mailbox")),
            (About.DEVICE.value, gettext_lazy("A device")),
            (About.OTHER.value, gettext_lazy("Something else")),
        ],
    )
    words = forms.CharField(
        label=gettext_lazy("What happened, and what did you see?"),
        max_length=asking.MOST_CHARACTERS,
        help_text=gettext_lazy("No password and no code: nobody here will ever ask for one."),
        widget=forms.Textarea(attrs={"rows": 6}),
    )


@require_http_methods(["GET", "HEAD", "POST"])
def ask(request: HttpRequest) -> HttpResponse:
    """Take a question and say by which number it is known."""
    user = request.user if isinstance(request.user, User) else None
    form = QuestionForm(
        request.POST or None,
        initial={
            "reply_to": user.email if user else "",
            # Whoever is in can sign in.
            "about": request.GET.get("about", (About.DEVICE if user else About.SIGNING_IN).value),
        },
    )
    if request.method != "POST" or not form.is_valid():
        return _page(request, {"form": form}, status=422 if request.method == "POST" else 200)
    origin = origin_of(request)
    told = form.cleaned_data
    try:
        ticket = asking.ask(
            reply_to=told["reply_to"],
            about=About(told["about"]),
            words=told["words"],
            user=user,
            ip=origin.ip,
            agent=origin.agent,
        )
    except asking.TooManyAltogether:
        return _page(request, {"form": form, "flooded": True}, status=429)
    except asking.TooMany:
        return _page(request, {"form": form, "too_many": True}, status=429)
    return _page(request, {"ticket": ticket})


def _page(request: HttpRequest, context: dict[str, object], *, status: int = 200) -> HttpResponse:
    inside = request.user.is_authenticated
    frame = f"portal/help/{'inside' if inside else 'outside'}.html"
    whole = {"frame": frame, "heading": gettext_lazy("Write to us"), "icon": "mail", **context}
    return render(request, "portal/help/ask.html", whole, status=status)
