"""Signing up: what the page for the code says when it was wrong three times."""

from __future__ import annotations

from typing import Any

from allauth.account.views import ConfirmEmailVerificationCodeView
from django.contrib import messages
from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils.translation import gettext as _


class ConfirmAddress(ConfirmEmailVerificationCodeView):  # type: ignore[misc]  # no types
    """Takes the code that was mailed to a new address."""

    def _verify_form_invalid(self, form: Any) -> HttpResponse:
        if self._process.record_invalid_attempt():
            again: HttpResponse = super(ConfirmEmailVerificationCodeView, self).form_invalid(form)
            return again
        # The same for an address that is taken: there the code could never have been right.
        messages.error(
            self.request,
            _(
                "Three wrong codes, so that one has ended. "
                "Create your account again, and we mail you a new one."
            ),
        )
        return redirect("/signup/")


@login_not_required
def confirm_address(request: HttpRequest) -> HttpResponse:
    """Ask for the code that was mailed to a new address."""
    answer: HttpResponse = ConfirmAddress.as_view()(request)
    return answer
