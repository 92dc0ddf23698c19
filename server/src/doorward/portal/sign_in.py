"""Signing in with address and password: straight, or by the steps that are asked for besides."""

from __future__ import annotations

from allauth.account.adapter import get_adapter
from allauth.account.utils import get_login_redirect_url
from allauth.account.views import login as step_by_step
from django.conf import settings
from django.contrib.auth import REDIRECT_FIELD_NAME
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.views.decorators.debug import sensitive_post_parameters

from doorward.accounts import straight_in
from doorward.accounts.forms import typed_address


@sensitive_post_parameters("password")
def sign_in(request: HttpRequest) -> HttpResponse:
    """Show the page; or begin a session, lead to the next step, or say what was wrong."""
    return _straight_in(request) or step_by_step(request)


def _straight_in(request: HttpRequest) -> HttpResponse | None:
    """Return the answer that begins a session; nothing, where more is to be said or asked."""
    typed, password = request.POST.get("login", ""), request.POST.get("password", "")
    if request.method != "POST" or not typed.strip() or not password:
        return None
    adapter = get_adapter()
    if adapter.is_ajax(request):
        return None
    found = adapter.try_password(request, typed_address(typed), password).found
    if found is None or not straight_in.leads(request, found, adapter):
        return None
    answer = HttpResponseRedirect("/")
    if not straight_in.begin(request, found, answer, adapter):
        return None
    answer.headers["Location"] = _where_to(request)
    return answer


def _where_to(request: HttpRequest) -> str:
    if REDIRECT_FIELD_NAME in request.POST or REDIRECT_FIELD_NAME in request.GET:
        return str(get_login_redirect_url(request))
    return settings.LOGIN_REDIRECT_URL
