"""What an operator does for a person from the command line; none of it shows or sets a password."""

from __future__ import annotations

from allauth.account.utils import user_pk_to_url_str
from allauth.usersessions.models import UserSession
from django.conf import settings
from django.contrib.sessions.models import Session
from django.db import transaction
from django.db.models import F

from doorward.accounts import letters, sessions
from doorward.accounts.link_tokens import LinkTokens
from doorward.accounts.models import User, canonical_email
from doorward.audit import trail
from doorward.notices import letter as post_office


class NoSuchPerson(LookupError):
    """Nobody who may sign in has this address."""


@transaction.atomic
def mail_reset(address: str) -> User:
    """Mail the ordinary link to choose a new password to the person; nobody else sees it.

    It works once, for one hour, ends the ones before it, and leaves the second step to be asked.
    Raises NoSuchPerson.
    """
    user = _person(address)
    token = LinkTokens().make_token(user)
    link = f"{settings.SITE_URL}/password/reset/key/{user_pk_to_url_str(user)}-{token}/"
    trail.record("account.reset.mailed", actor=user, target="operator")
    told = letters.of("account/email/password_reset_key", {"password_reset_url": link})
    post_office.post(told, to=user.email)
    return user


@transaction.atomic
def end_sessions(address: str) -> int:
    """Sign the person out everywhere, browsers and apps; returns how many sessions ended.

    Raises NoSuchPerson.
    """
    user = _person(address)
    trail.record("account.sessions.stopped", actor=user, target="operator")
    return sessions.end_others(user, keep=None)


@transaction.atomic
def end_all_sessions() -> int:
    """Sign everybody out everywhere; returns how many sessions ended.

    Three statements, however many people there are.
    """
    trail.record("operator.sessions.ended", target="everybody")
    # The epoch also ends a sign-in that is half done and in no list yet.
    User.objects.update(epoch=F("epoch") + 1)
    UserSession.objects.all().delete()
    ended, _ = Session.objects.all().delete()
    return ended


def _person(address: str) -> User:
    email = canonical_email(address)
    user = User.objects.select_for_update().filter(email=email, is_active=True).first()
    if user is None:
        raise NoSuchPerson(email)
    return user
