"""Where allauth asks us: what it may decide, and what is ours to decide.

The one module of this room that knows requests. Everything here is called by allauth, for pages and
for apps (headless) alike.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from allauth.account.adapter import DefaultAccountAdapter
from allauth.account.internal import flows
from allauth.core import context as allauth_context
from allauth.core.exceptions import ImmediateHttpResponse
from django.conf import settings
from django.contrib.auth import authenticate as check_credentials
from django.db import IntegrityError, transaction
from django.forms import BaseForm
from django.http import HttpRequest
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from doorward.accounts import letters, passwords, signup
from doorward.accounts.models import User, canonical_email
from doorward.audit import trail
from doorward.notices import letter as post_office

NOWHERE = "0.0.0.0"  # noqa: S104 - not an address to listen on: "no address is known"


@dataclass(frozen=True)
class Origin:
    """Where a request came from, as far as we may believe it."""

    ip: str
    agent: str


def origin_of(request: HttpRequest | None) -> Origin:
    """Return the address and browser behind a request.

    X-Forwarded-For counts only as far as our own proxies wrote it (DOORWARD_TRUSTED_PROXIES):
    whatever stands before that, the sender made up.
    """
    if request is None:
        return Origin(ip=NOWHERE, agent="")
    ip = request.META.get("REMOTE_ADDR", "")
    if settings.TRUSTED_PROXIES:
        hops = [hop.strip() for hop in request.META.get("HTTP_X_FORWARDED_FOR", "").split(",")]
        if len(hops) >= settings.TRUSTED_PROXIES:
            ip = hops[-settings.TRUSTED_PROXIES]
    try:
        ip = str(ipaddress.ip_address(ip))
    except ValueError:
        ip = NOWHERE
    return Origin(ip=ip, agent=request.META.get("HTTP_USER_AGENT", "")[:300])


class AccountAdapter(DefaultAccountAdapter):  # type: ignore[misc]  # allauth ships no types
    """Doorward's answers to allauth's questions."""

    error_messages = {
        **DefaultAccountAdapter.error_messages,
        "email_password_mismatch": _("Invalid email or password."),
        "invalid_login": _("Invalid email or password."),
        "incorrect_password": _("That is not your password."),
        "enter_current_password": _("That is not your password."),
        "incorrect_code": _("That is not the code. Look at the newest mail from us."),
    }

    # -- signing up ------------------------------------------------------------------------------

    def save_user(
        self, request: HttpRequest, user: User, form: BaseForm, commit: bool = True
    ) -> User:
        """Store the person together with their account, all or nothing."""
        email = form.cleaned_data["email"]
        origin = origin_of(request)
        try:
            with transaction.atomic():
                super().save_user(request, user, form, commit=commit)
                account = signup.found_account(user, ip=origin.ip, agent=origin.agent)
                trail.record(
                    "account.signup", account=account, actor=user, ip=origin.ip, agent=origin.agent
                )
        except IntegrityError:
            # Somebody signed up with this address since the form was checked: answer as for any
            # address that is taken.
            if not User.objects.filter(email=canonical_email(email)).exists():
                raise
            response = flows.signup.prevent_enumeration(request, email=email)
            raise ImmediateHttpResponse(response) from None
        return user

    # -- signing in ------------------------------------------------------------------------------

    def authenticate(self, request: HttpRequest, **credentials: Any) -> User | None:
        """Return the person these credentials belong to, or nobody; why is not told."""
        email = canonical_email(credentials.get("email", ""))
        password = credentials.get("password") or ""
        origin = origin_of(request)
        user = None
        if len(passwords.as_bytes(password)) <= passwords.MOST_BYTES:
            found = check_credentials(request, **{**credentials, "email": email})
            user = found if isinstance(found, User) else None
        if user is None:
            known = User.objects.filter(email=email).first()
            trail.record("account.login.failed", actor=known, ip=origin.ip, agent=origin.agent)
        return user

    # -- where from ------------------------------------------------------------------------------

    def get_client_ip(self, request: HttpRequest) -> str:
        """Return the address allauth's limits count by."""
        return origin_of(request).ip

    # -- mail ------------------------------------------------------------------------------------

    def send_mail(self, template_prefix: str, email: str, context: dict[str, Any]) -> None:
        """Put our words for this mail into the outbox; every link begins with DOORWARD_SITE_URL."""
        rebased = {
            key: site_link(value) if key.endswith("_url") and isinstance(value, str) else value
            for key, value in context.items()
        }
        post_office.post(letters.of(template_prefix, rebased), to=email)

    def send_notification_mail(
        self,
        template_prefix: str,
        user: User,
        context: dict[str, Any] | None = None,
        email: str | None = None,
    ) -> None:
        """Tell the person what has just changed, when and from where."""
        origin = origin_of(allauth_context.request)
        told = {"timestamp": timezone.now(), "ip": origin.ip, "user_agent": origin.agent}
        self.send_mail(template_prefix, email or user.email, {**told, **(context or {})})


def site_link(url: str) -> str:
    """Return the same path and query at DOORWARD_SITE_URL, whatever host the request named."""
    parts = urlsplit(url)
    return f"{settings.SITE_URL}{parts.path}{'?' + parts.query if parts.query else ''}"
