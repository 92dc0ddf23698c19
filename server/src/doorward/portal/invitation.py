"""The invited person's side: what the mailed link opens, and saying yes or no there.

The link's page shows one button and uses nothing up: mail programs look at links before their
owners do. The button takes the secret out of the address and into the session; whoever is signed in
as the invited person answers there, whoever is new makes a password first.
"""

from __future__ import annotations

from typing import Final
from uuid import UUID

from allauth.account.internal.flows.signup import complete_signup
from django import forms
from django.contrib import messages
from django.contrib.auth.password_validation import validate_password
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST

from doorward.accounts import invitations, member_letters
from doorward.accounts.adapter import origin_of
from doorward.accounts.invitations import InvitationOver, Shown
from doorward.accounts.models import Shares, User
from doorward.portal import visits
from doorward.portal.members import ROLES, SHARES

PENDING: Final = "invitation"
"""Where a session keeps which invitation its holder has shown the link of."""
HERE: Final = "/invitation/"


class AnswerForm(forms.Form):
    """Yes, and what one's devices will share."""

    shares = forms.ChoiceField(
        choices=[(value.value, words[0]) for value, words in SHARES.items()],
        initial=Shares.STATE.value,
    )


class NewcomerForm(AnswerForm):
    """What somebody needs who was never here: a password, and a name if they like."""

    name = forms.CharField(
        label=gettext_lazy("What should we call you?"),
        max_length=120,
        required=False,
        widget=forms.TextInput(attrs={"autocomplete": "name"}),
    )
    password = forms.CharField(
        label=gettext_lazy("Choose a password"),
        strip=False,
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}),
        help_text=gettext_lazy("At least 15 characters. Several words are easy to remember."),
    )

    def __init__(self, *args: object, address: str, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]  # passed on as they came
        self._address = address

    def clean_password(self) -> str:
        """Refuse a password that is easy to guess, and say why."""
        password = str(self.cleaned_data["password"])
        validate_password(
            password, User(email=self._address, name=str(self.cleaned_data.get("name", "")))
        )
        return password


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def open_link(request: HttpRequest, secret: str) -> HttpResponse:
    """Say that somebody is invited; on POST go on to the answer, the secret kept in the session."""
    try:
        shown = invitations.show(secret)
    except InvitationOver:
        return _unkept(_over(request))
    if request.method != "POST":
        return _unkept(render(request, "portal/invitation/link.html", _about(shown)))
    request.session[PENDING] = [str(shown.invitation.pk), shown.digest]
    return _unkept(redirect(HERE))


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def answer(request: HttpRequest) -> HttpResponse:
    """Ask whoever has shown the link whether they join; on POST they do."""
    shown = _pending(request)
    if shown is None:
        return _over(request)
    if request.user.is_authenticated:
        return _answer_signed_in(request, shown, request.user)
    if invitations.is_newcomer(shown):
        return _answer_newcomer(request, shown)
    return render(request, "portal/invitation/sign_in.html", _about(shown))


@never_cache
@require_POST
def decline(request: HttpRequest) -> HttpResponse:
    """Say no: the link opens nothing any more."""
    shown = _pending(request)
    if shown is None:
        return _over(request)
    try:
        invitations.decline(shown, origin=origin_of(request))
    except InvitationOver:
        return _over(request)
    request.session.pop(PENDING, None)
    return render(request, "portal/invitation/declined.html", _about(shown))


def _answer_signed_in(request: HttpRequest, shown: Shown, user: User) -> HttpResponse:
    form = AnswerForm(request.POST or None)
    if request.method != "POST" or not form.is_valid():
        context = {**_about(shown), "form": form, "shares": _shares(form)}
        is_theirs = user.email == shown.invitation.email
        page = "accept" if is_theirs else "another"
        return render(request, f"portal/invitation/{page}.html", context)
    try:
        place = invitations.accept(
            shown, user, shares=Shares(form.cleaned_data["shares"]), origin=origin_of(request)
        )
    except invitations.WrongPerson:
        return render(request, "portal/invitation/another.html", _about(shown), status=403)
    except invitations.AlreadyThere:
        request.session.pop(PENDING, None)
        messages.success(request, _("You belong to that account already."))
        return redirect("/account/accounts/")
    except (InvitationOver, invitations.Full):
        return _over(request)
    request.session.pop(PENDING, None)
    visits.look_at(request, place.account_id)
    messages.success(request, _("You have joined. This is what you look after together."))
    return redirect("/")


def _answer_newcomer(request: HttpRequest, shown: Shown) -> HttpResponse:
    form = NewcomerForm(request.POST or None, address=shown.invitation.email)
    if request.method != "POST" or not form.is_valid():
        context = {**_about(shown), "form": form, "shares": _shares(form)}
        status = 422 if form.errors else 200
        return render(request, "portal/invitation/newcomer.html", context, status=status)
    given = form.cleaned_data
    try:
        user = invitations.accept_as_newcomer(
            shown,
            name=given["name"],
            password=given["password"],
            shares=Shares(given["shares"]),
            origin=origin_of(request),
        )
    except invitations.AlreadyThere:
        return redirect(HERE)
    except (InvitationOver, invitations.Full):
        return _over(request)
    request.session.pop(PENDING, None)
    # Every step of signing in is taken as after any sign-up; the address is confirmed already.
    signed_in: HttpResponse = complete_signup(request, user=user, redirect_url="/")
    return signed_in


def _pending(request: HttpRequest) -> Shown | None:
    kept = request.session.get(PENDING)
    try:
        invitation, digest = kept or ("", "")
        return invitations.come_back(UUID(invitation), digest)
    except (ValueError, InvitationOver):
        return None


def _about(shown: Shown) -> dict[str, object]:
    by = shown.invitation.made_by
    return {
        "email": shown.invitation.email,
        "by": member_letters.named(by) if by is not None else "",
        "role": shown.role.label,
        "may": ROLES[shown.role],
        "hours": invitations.LASTS.total_seconds() // 3600,
    }


def _shares(form: AnswerForm) -> list[tuple[str, str, str, bool]]:
    chosen = form["shares"].value() or Shares.STATE.value
    return [
        (value.value, str(words[0]), str(words[1]), value.value == chosen)
        for value, words in SHARES.items()
    ]


def _over(request: HttpRequest) -> HttpResponse:
    return render(request, "portal/invitation/over.html", status=410)


def _unkept(response: HttpResponse) -> HttpResponse:
    # The secret stands in the address: nobody else may read it there.
    response.headers["Referrer-Policy"] = "no-referrer"
    return response
