"""The number that codes are texted to: given, confirmed by a code, and taken away again."""

from __future__ import annotations

import time
from typing import Any, Final, cast

from allauth.account.decorators import reauthentication_required
from django import forms
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.exceptions import ValidationError
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_http_methods, require_POST

from doorward.accounts import (
    asking_again,
    letting_in,
    lockout,
    second_step_tries,
    sent_codes,
    sessions,
    two_factor,
)
from doorward.accounts.adapter import origin_of
from doorward.accounts.factors import sealed_text, text_messages
from doorward.accounts.models import User
from doorward.accounts.two_factor_events import changed_elsewhere

PENDING: Final = "number_to_confirm"
LASTS_S: Final = 600
HERE: Final = "/account/security/number/"


class NumberForm(forms.Form):
    """A number codes shall be texted to."""

    number = forms.CharField(
        label=gettext_lazy("Mobile number"),
        max_length=40,
        help_text=gettext_lazy("With its country, such as +49 151 23456789."),
        widget=forms.TextInput(attrs={"autocomplete": "tel", "inputmode": "tel"}),
    )

    def clean_number(self) -> str:
        """Return the number in its one spelling."""
        try:
            return text_messages.canonical(self.cleaned_data["number"])
        except text_messages.NotANumber:
            raise ValidationError(
                _("Begin with + and the country, then the number without its first zero.")
            ) from None


class CodeForm(forms.Form):
    """The code that was texted to it."""

    code = forms.CharField(
        label=gettext_lazy("Code from the message"),
        max_length=20,
        widget=forms.TextInput(attrs={"autocomplete": "one-time-code", "inputmode": "numeric"}),
    )

    def __init__(self, *args: Any, expected: str = "", **more: Any) -> None:
        super().__init__(*args, **more)
        self._expected = expected

    def clean_code(self) -> str:
        """Return the code, if it is that."""
        code: str = self.cleaned_data["code"]
        if not sent_codes.is_right(actual=code, expected=self._expected):
            raise ValidationError(_("That is not the code. Look at the newest message."))
        return code


@require_http_methods(["GET", "HEAD", "POST"])
@login_required
@reauthentication_required  # type: ignore[untyped-decorator]  # allauth ships no types
def change(request: HttpRequest) -> HttpResponse:
    """Ask for a number and text a code to it."""
    user = _may(request)
    form = NumberForm(request.POST or None)
    if request.method != "POST" or not form.is_valid():
        return _page(request, {"form": form, "now": text_messages.masked_number_of(user)})
    browser = letting_in.known_browser(request, user.email)
    if not lockout.allow(*second_step_tries.sent(f"texted {user.pk}", browser=browser)):
        form.add_error(None, _("Many codes were texted already. Wait an hour."))
        return _page(request, {"form": form})
    sealed, code = sealed_text.seal(form.cleaned_data["number"]), text_messages.draw()
    pending: dict[str, Any] = {"sealed": sealed, "at": time.time()}
    pending["code"] = sent_codes.keep(pending, f"{sent_codes.SECOND_STEP}{user.pk}", code)
    try:
        text_messages.send_code(sealed, code)
    except text_messages.NotSent:
        form.add_error(None, _("The message could not be sent. Check the number, or try later."))
        return _page(request, {"form": form})
    request.session[PENDING] = pending
    return redirect("/account/security/number/confirm/")


@require_http_methods(["GET", "HEAD", "POST"])
@login_required
@reauthentication_required  # type: ignore[untyped-decorator]  # allauth ships no types
@sessions.while_in
def confirm(request: HttpRequest) -> HttpResponse:
    """Take the code; then the number counts."""
    user = _may(request)
    pending = request.session.get(PENDING)
    if not pending or time.time() - pending["at"] > LASTS_S:
        request.session.pop(PENDING, None)
        return redirect("/account/security/number/")
    form = CodeForm(request.POST or None, expected=pending["code"])
    if request.method != "POST" or not form.is_valid():
        to = text_messages.masked(sealed_text.unseal(pending["sealed"]))
        return _page(request, {"form": form, "to": to})
    request.session.pop(PENDING, None)
    origin = origin_of(request)
    text_messages.keep(user, pending["sealed"], ip=origin.ip, agent=origin.agent)
    ended = changed_elsewhere(request, user)
    text_messages.tell(user, True, ended.words, ip=origin.ip, agent=origin.agent)
    messages.success(request, _("The number is confirmed. Codes can be texted to it."))
    return redirect("/account/security/")


@require_POST
@login_required
@asking_again.required(HERE)
@sessions.while_in
def forget(request: HttpRequest) -> HttpResponse:
    """Forget the number."""
    user, origin = cast(User, request.user), origin_of(request)
    if text_messages.forget(user, ip=origin.ip, agent=origin.agent):
        ended = changed_elsewhere(request, user)
        text_messages.tell(user, False, ended.words, ip=origin.ip, agent=origin.agent)
        messages.success(request, _("The number is forgotten. No codes are texted any more."))
    return redirect("/account/security/")


def _may(request: HttpRequest) -> User:
    user = cast(User, request.user)
    if not text_messages.is_on() or not two_factor.standing(user).is_strong:
        raise Http404
    return user


def _page(request: HttpRequest, context: dict[str, Any]) -> HttpResponse:
    status = 422 if request.method == "POST" else 200
    return render(request, "portal/security/number.html", context, status=status)
