"""Where allauth asks us: what it may decide, and what is ours to decide.

The one module of this room that knows requests. Everything here is called by allauth, for pages and
for apps (headless) alike.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlsplit

from allauth.account.adapter import DefaultAccountAdapter
from allauth.account.internal import flows
from allauth.account.models import EmailAddress
from allauth.core import context as allauth_context
from allauth.core.exceptions import ImmediateHttpResponse
from allauth.core.internal import ratelimit
from django.conf import settings
from django.contrib import messages
from django.contrib.auth.models import AnonymousUser
from django.contrib.sessions.backends.base import UpdateError
from django.core.exceptions import ValidationError
from django.core.handlers.exception import response_for_exception
from django.db import IntegrityError, transaction
from django.forms import BaseForm
from django.http import (
    Http404,
    HttpRequest,
    HttpResponse,
    HttpResponseBadRequest,
    HttpResponseNotFound,
    JsonResponse,
)
from django.shortcuts import redirect
from django.utils import timezone
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from doorward.accounts import (
    browsers,
    credentials,
    letters,
    letting_in,
    lockout,
    passwords,
    proving_again,
    second_step_tries,
    sessions,
    signup,
    staying_gone,
    two_factor_events,
    unlock,
)
from doorward.accounts.letting_in import BROWSER_HEADER
from doorward.accounts.letting_in import browser_proof as browser_proof
from doorward.accounts.models import User, canonical_email
from doorward.accounts.origin import Origin as Origin
from doorward.accounts.origin import origin_of as origin_of
from doorward.accounts.second_step_stages import SecondStepAnswers
from doorward.accounts.session_store import SessionStore
from doorward.audit import trail
from doorward.notices import letter as post_office

# Mails that somebody who isn't signed in can cause, and by what: counted, and silently dropped when
# there are too many.
STRANGERS_MAILS: Final = {
    "account/email/email_confirmation_signup": "signup",
    "account/email/email_confirmation": "signup",
    "account/email/account_already_exists": "signup",
    "account/email/unknown_account": "reset",
    "account/email/password_reset_key": "reset",
    "account/email/password_reset_code": "reset",
}
LOGIN_CODE_MAIL: Final = "account/email/login_code"
# email_change.py has told both addresses already, with the way to take it back.
ADDRESS_CHANGED_MAIL: Final = "account/email/email_changed"
SIGNED_IN: Final = "account/messages/logged_in.txt"
# allauth has these mails written before it says that the password is another one. They tell what
# ended by it, so it ends first.
WRITTEN_BEFORE_THE_END: Final = frozenset(
    {"account/email/password_changed", "account/email/password_set"}
)
LONGEST_ADDRESS: Final = 254
# Where a code is typed by somebody who isn't signed in yet.
CODE_VIEWS: Final = frozenset(
    {
        "account_email_verification_sent",
        "headless:app:account:verify_email",
        "account_confirm_login_code",
        "headless:app:account:confirm_login_code",
    }
)
# Where a sign-in by a passkey begins: asking for a challenge begins a session, too.
PASSKEY_VIEWS: Final = frozenset({"mfa_login_webauthn", "headless:app:mfa:login_webauthn"})
# allauth offers these though no phone number is ever asked for, and fails when they are called.
UNUSED_VIEWS: Final = frozenset(
    {
        "headless:app:account:manage_phone",
        "headless:app:account:verify_phone",
        "headless:app:account:resend_phone_verification_code",
    }
)

# Where a session keeps the name under which its wrong proofs are counted.
_COUNTED_AS: Final = "proofs_counted_as"


class AccountAdapter(SecondStepAnswers, DefaultAccountAdapter):  # type: ignore[misc]  # allauth ships no types
    """Doorward's answers to allauth's questions."""

    error_messages = {
        **DefaultAccountAdapter.error_messages,
        "email_password_mismatch": _("Invalid email or password."),
        "invalid_login": _("Invalid email or password."),
        "incorrect_password": _("That is not your password."),
        "enter_current_password": _("That is not your password."),
        "incorrect_code": _("That is not the code. Look at the newest one from us."),
        "too_many_login_attempts": _("Too many wrong tries. Begin again in a few minutes."),
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

    def clean_email(self, email: str) -> str:
        """Return the address, free again of a sign-up with a passkey that was never finished.

        Raises ValidationError for a longer one than is kept: a part of it is somebody else's.
        """
        if len(email) > LONGEST_ADDRESS:
            raise ValidationError(gettext("That is not an email address. One looks like a@b.org."))
        signup.make_room(email)
        return email

    # -- signing in ------------------------------------------------------------------------------

    def authenticate(self, request: HttpRequest, **given: Any) -> User | None:
        """Return the person these credentials belong to, or nobody; why is not told.

        Raises ValidationError (pages) or ImmediateHttpResponse (apps) while strangers' browsers
        have to wait.
        """
        email = canonical_email(given.get("email", ""))
        tried = self.try_password(request, email, given.get("password") or "")
        if tried.refusal is not None:
            raise tried.refusal
        return tried.found.user if tried.found is not None else None

    def try_password(self, request: HttpRequest, email: str, password: str) -> letting_in.Tried:
        """Count the try, then check it: once for each pair that a request brings."""
        underway = letting_in.underway(request)
        tried = underway.tried
        if tried is None or (tried.email, tried.password) != (email, password):
            tried = underway.tried = _try(request, email, password)
        return tried

    def reauthenticate(self, user: User, password: str) -> bool:
        """Tell whether this is the person's password; after too many tries end the session."""
        counted, was_right = self._count_proof(user)
        origin = origin_of(allauth_context.request)
        try:
            found = _checked(credentials.look_up(user.email, []), password)
        except Exception:
            # It was not checked, and so not wrong: it costs nobody their session.
            counted.not_looked_at()
            raise
        if found is None or found.user.pk != user.pk:
            trail.record(
                "account.reauthentication.failed", actor=user, ip=origin.ip, agent=origin.agent
            )
            return False
        was_right()
        return True

    def begin_proving_again(self, user: User) -> Callable[[], None]:
        """Count a proof of who this is, by any way; returns what to call when it was right.

        After too many in one session it ends; after too many in all of a person's, none ends.
        Raises ImmediateHttpResponse.
        """
        return self._count_proof(user)[1]

    def _count_proof(self, user: User) -> tuple[proving_again.Counted, Callable[[], None]]:
        request = allauth_context.request
        origin = origin_of(request)
        session = request.session
        # A right proof gives the session a new key; what failed before it stays counted.
        counted_as = session.get(_COUNTED_AS) or session.session_key or ""
        try:
            counted = proving_again.begin(user, counted_as, ip=origin.ip, agent=origin.agent)
        except proving_again.TooMany as many:
            if not many.here:
                # Wrong in other sessions of the person's: this one may be the owner's.
                answer = too_many(request, lockout.Locked(many.wait), _words_for_proofs())
                raise ImmediateHttpResponse(answer) from None
            self.logout(request)
            raise ImmediateHttpResponse(_signed_out(request, many.wait)) from None

        def right() -> None:
            counted.right()
            session[_COUNTED_AS] = counted_as

        return counted, right

    def set_password(self, user: User, password: str) -> None:
        """Store the password, unless it or a way to sign in was changed since ``user`` was read.

        Else a link used twice in one moment, or a request that was under way while its owner moved
        on, would have the last word. Raises ImmediateHttpResponse; and sessions.Overtaken to who
        is signed in.
        """
        request = allauth_context.request
        read = {"password": user.password, "epoch": user.epoch, "is_active": True}
        user.set_password(password)
        with transaction.atomic():
            # One statement, and no other column: what else was changed meanwhile stays changed.
            changed = User.objects.filter(pk=user.pk, **read).update(password=user.password)
            if request is not None and request.user.pk == user.pk:
                if not changed:
                    raise sessions.Overtaken
                sessions.must_last(user)
        if not changed:
            raise ImmediateHttpResponse(_changed_meanwhile(request))

    @transaction.atomic
    def confirm_email(self, request: HttpRequest, email_address: EmailAddress) -> bool:
        """Confirm the address, and have it count for whoever is still signed in."""
        if isinstance(request.user, User):
            sessions.must_still_be_in(request.user)
        return bool(super().confirm_email(request, email_address))

    @transaction.atomic(savepoint=False)
    def post_login(self, request: HttpRequest, user: User, **how: Any) -> HttpResponse:
        """Make the browser known, now that the person went all the way in; tell of a new one."""
        self.make_browser_known(request, user, signup=bool(how.get("signup")))
        response: HttpResponse = super().post_login(request, user, **how)
        return response

    def make_browser_known(self, request: HttpRequest, user: User, *, signup: bool = False) -> None:
        """Have the account know this browser from now on; tell of a new one, and after a lock."""
        origin, proof = origin_of(request), browser_proof(request)
        underway = letting_in.underway(request)
        browser = letting_in.known_browser(request, user.email)
        known = browser is not None
        if not known:
            # Its owner went all the way in by a browser it did not know: the ladder begins anew.
            underway.cleared.append(user.email)
        request.known_browser = (  # type: ignore[attr-defined]  # read by KnownBrowsers
            browsers.seen(browser, proof, ip=origin.ip, agent=origin.agent)
            if browser is not None
            else browsers.add(user, proof, ip=origin.ip, agent=origin.agent)
        )
        if signup:
            # What was tried before there was an account is nobody's to be told of.
            return
        told = self._tell_after_lock(request, user, known=known)
        if not known:
            trail.record(
                "account.browser.known", actor=user, ip=origin.ip, agent=origin.agent, by="login"
            )
            # One mail about one sign-in: the other says that the browser is new.
            if not told and lockout.allow((lockout.NEW_BROWSER_MAIL, str(user.pk))):
                self.send_notification_mail("account/email/new_browser", user)

    def _tell_after_lock(self, request: HttpRequest, user: User, *, known: bool) -> bool:
        # Asked with the person already where this request brought the password: an ordinary sign-in
        # takes no statement more. In a second step's request nobody has asked yet.
        expected = letting_in.underway(request).after_lock.get(user.email, True)
        if not expected or not lockout.tell_once(user.email):
            return False
        origin = origin_of(request)
        trail.record(
            "account.login.after_lock",
            actor=user,
            ip=origin.ip,
            agent=origin.agent,
            known_browser=known,
        )
        self.send_notification_mail("account/email/after_lock", user, {"known_browser": known})
        return True

    def add_message(self, request: HttpRequest, level: int, *given: Any, **more: Any) -> None:
        """Tell the person; that they are signed in, the page that opens says by itself."""
        if SIGNED_IN not in given and more.get("message_template") != SIGNED_IN:
            super().add_message(request, level, *given, **more)

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
        purpose = STRANGERS_MAILS.get(template_prefix)
        origin = origin_of(allauth_context.request)
        if template_prefix == LOGIN_CODE_MAIL and not _may_have_another_code(email):
            return
        if purpose is None or unlock.may_mail(purpose, email, ip=origin.ip):
            post_office.post(letters.of(template_prefix, rebased), to=email)

    def send_notification_mail(
        self,
        template_prefix: str,
        user: User,
        context: dict[str, Any] | None = None,
        email: str | None = None,
    ) -> None:
        """Tell the person what has just changed, when and from where."""
        if template_prefix == ADDRESS_CHANGED_MAIL:
            return
        request = allauth_context.request
        origin = origin_of(request)
        told = {"timestamp": timezone.now(), "ip": origin.ip, "user_agent": origin.agent}
        if template_prefix in WRITTEN_BEFORE_THE_END:
            two_factor_events.password_is_another(request, user)
        ended = two_factor_events.what_ended(request)
        if ended is not None:
            told["ended"] = ended.words
        self.send_mail(template_prefix, email or user.email, {**told, **(context or {})})


def _may_have_another_code(email: str) -> bool:
    # Only who typed the right password causes these. So they are told, where a stranger is not.
    address = canonical_email(email)
    browser = letting_in.known_browser(allauth_context.request, address)
    if lockout.allow(*second_step_tries.sent(f"mailed {address}", browser=browser)):
        return True
    messages.error(
        allauth_context.request,
        gettext("We mailed you many codes already. Wait an hour, or choose another way."),
    )
    return False


def count_signup(request: HttpRequest, email: str) -> None:
    """Count a sign-up before it is made. Raises ImmediateHttpResponse when there were too many."""
    network = lockout.network_of(origin_of(request).ip)
    wait = lockout.full(
        (lockout.SIGNUP_NETWORK, network), (lockout.SIGNUP_ADDRESS, canonical_email(email))
    )
    if wait is not None:
        raise ImmediateHttpResponse(too_many(request, lockout.Locked(wait, everybody=True)))


def site_link(url: str) -> str:
    """Return the same path and query at DOORWARD_SITE_URL, whatever host the request named."""
    parts = urlsplit(url)
    return f"{settings.SITE_URL}{parts.path}{'?' + parts.query if parts.query else ''}"


class KnownBrowsers:
    """Hands out the proof of a known browser, and counts codes before they are looked at."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Answer; where somebody has just gone all the way in, with the proof for next time."""
        response = self._get_response(request)
        letting_in.settle(request)
        proof = getattr(request, "known_browser", "")
        if response.status_code == HTTPStatus.TOO_MANY_REQUESTS:
            # allauth's own limits are by the minute (settings), and it does not say so.
            response.headers.setdefault("Retry-After", "60")
        if proof and is_headless_path(request):
            response.headers[BROWSER_HEADER] = proof
        elif proof:
            set_browser_cookie(response, proof)
        return response

    def process_view(
        self, request: HttpRequest, _view: object, _args: object, _kwargs: object
    ) -> HttpResponse | None:
        """Refuse a code, or a new session, when there were too many; counted before anything."""
        match = request.resolver_match
        if match is not None and match.view_name in UNUSED_VIEWS:
            return HttpResponseNotFound()
        if match is None or match.view_name not in CODE_VIEWS | PASSKEY_VIEWS:
            return None
        # On a page the header is the sender's own invention, a new one at each try (A12).
        token = request.headers.get("X-Session-Token") if is_headless_path(request) else None
        session = token or request.session.session_key or ""
        # A made-up one counts nothing: there is no code to be guessed in it.
        is_there = bool(session) and request.session.exists(session)
        wait = None
        if match.view_name in PASSKEY_VIEWS and not is_there:
            network = lockout.network_of(origin_of(request).ip)
            wait = lockout.full((lockout.PASSKEY_NETWORK, network))
        elif match.view_name in CODE_VIEWS and request.method == "POST" and is_there:
            wait = lockout.full(
                (lockout.CODE, session), (lockout.CODE_HOUR, session), (lockout.CODE_DAY, session)
            )
        return None if wait is None else too_many(request, lockout.Locked(wait, everybody=True))

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        """Answer what is no failure of ours: JSON nested too deep, or what is gone by now."""
        if isinstance(error, RecursionError) and is_headless_path(request):
            return HttpResponseBadRequest()
        if isinstance(error, staying_gone.Gone):
            return _not_found(request)
        if isinstance(error, sessions.Overtaken | UpdateError):
            return _over(request)
        return None


def set_browser_cookie(response: HttpResponse, proof: str) -> None:
    """Have the browser keep its proof."""
    response.set_cookie(
        settings.BROWSER_COOKIE_NAME,
        proof,
        max_age=int(browsers.COOKIE_LASTS.total_seconds()),
        secure=settings.SECURE,
        httponly=True,
        samesite="Lax",
    )


def is_headless_path(request: HttpRequest) -> bool:
    """Tell whether an app asks, by JSON."""
    return request.path.startswith("/_allauth/")


def too_many(request: HttpRequest, locked: lockout.Locked, words: str = "") -> HttpResponse:
    """Return the answer 429, as JSON for apps and as a page for people."""
    if is_headless_path(request):
        error = {"message": words or str(words_for(locked)), "code": "too_many_tries"}
        response: HttpResponse = JsonResponse({"status": 429, "errors": [error]}, status=429)
    else:
        response = ratelimit.respond_429(request)
    response.headers["Retry-After"] = str(locked.seconds)
    return response


def _not_found(request: HttpRequest) -> HttpResponse:
    if is_headless_path(request):
        return JsonResponse({"status": 404}, status=404)
    return response_for_exception(request, Http404())


def _over(request: HttpRequest) -> HttpResponse:
    if is_headless_path(request):
        # Nothing of it is kept, also where allauth left the app's session in the request.
        request.session = SessionStore()
        told = {"data": {"flows": [{"id": "login"}]}, "meta": {"is_authenticated": False}}
        return JsonResponse({"status": 401, **told}, status=401)
    request.session.flush()
    request.user = AnonymousUser()
    messages.error(request, gettext("Something changed meanwhile. Sign in again."))
    return redirect("account_login")


def _signed_out(request: HttpRequest, wait: timedelta) -> HttpResponse:
    words = _words_for_proofs()
    if is_headless_path(request):
        return too_many(request, lockout.Locked(wait), words)
    messages.error(request, words)
    return redirect(settings.LOGIN_URL)


def _words_for_proofs() -> str:
    return str(AccountAdapter.error_messages["too_many_login_attempts"])


def _changed_meanwhile(request: HttpRequest) -> HttpResponse:
    if is_headless_path(request):
        words = gettext("Something was changed in this very moment. Begin again.")
        error = {"message": words, "code": "changed_meanwhile"}
        return JsonResponse({"status": 409, "errors": [error]}, status=409)
    # The same page once more: it says what is true by now, that the link is over for one.
    return redirect(request.path)


def words_for(locked: lockout.Locked) -> str:
    """Return what a person is told, the same for every address."""
    minutes = {"minutes": locked.minutes}
    if locked.wait is None:
        return gettext(
            "Too many tries from new browsers. "
            "We can e-mail you a link to sign in from this browser."
        )
    if locked.everybody:
        return gettext("Too many tries from your network. Try again in %(minutes)d min.") % minutes
    return (
        gettext(
            "Too many tries for this address from new browsers. Try again in %(minutes)d min, "
            "or we can e-mail you a link to sign in from this browser."
        )
        % minutes
    )


def _refusal(request: HttpRequest, locked: lockout.Locked) -> Exception:
    if is_headless_path(request):
        refusal: Exception = ImmediateHttpResponse(too_many(request, locked))
        return refusal
    return ValidationError(words_for(locked), code="too_many_tries")


def _try(request: HttpRequest, email: str, password: str) -> letting_in.Tried:
    origin, underway = origin_of(request), letting_in.underway(request)
    looked = credentials.look_up(email, browsers.proofs_in(browser_proof(request)))
    underway.after_lock[email] = looked.is_after_lock
    try:
        attempt = lockout.begin(email, ip=origin.ip, browser=looked.browser)
    except lockout.Locked as locked:
        refusal = None if locked.quietly else _refusal(request, locked)
        return letting_in.Tried(email, password, refusal=refusal)
    underway.browsers[email] = attempt.browser
    try:
        found = _checked(looked, password)
    except Exception:
        # It was not checked, and so not wrong: it costs neither the owner's browser nor the ladder.
        lockout.right(attempt)
        raise
    if found is not None:
        # Given back with the session's beginning (letting_in), in one commit.
        underway.right.append(attempt)
        return letting_in.Tried(email, password, found=found)
    # In one commit, also where it locks: each is a wait for the disk, which can be measured (A08).
    with transaction.atomic():
        trail.record("account.login.failed", actor=looked.user, ip=origin.ip, agent=origin.agent)
        if attempt.failures > lockout.FREE_FAILURES:
            unlock.tell_of_lock(
                email, looked.user, failures=attempt.failures, ip=origin.ip, agent=origin.agent
            )
    return letting_in.Tried(email, password)


def _checked(looked: credentials.Looked, password: str) -> credentials.Found | None:
    if len(passwords.as_bytes(password)) > passwords.MOST_BYTES:
        return None
    return credentials.check(looked, password)
