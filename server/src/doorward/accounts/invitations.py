"""How somebody joins an account: by a mailed link, once, within 72 hours, when they say yes.

An invitation is no place in the account: until it is accepted, the invited person has no right in
it. Only whoever has the invited address may accept. The inviter does not learn whether that address
signs in here already: every answer and every mail is the same.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from allauth.account.models import EmailAddress
from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db import IntegrityError, transaction
from django.db.models import Exists, F, OuterRef, QuerySet
from django.utils import timezone

from doorward.accounts import lockout, member_letters, members, person, sessions
from doorward.accounts.members import UNTOLD
from doorward.accounts.models import (
    Account,
    Invitation,
    InvitationEnd,
    Membership,
    Role,
    Shares,
    User,
    canonical_email,
)
from doorward.accounts.origin import Origin
from doorward.accounts.permissions import MAY, Act
from doorward.audit import trail
from doorward.notices import letter as post_office

LASTS: Final = timedelta(hours=72)
SECRET_BYTES: Final = 24  # 192 bits
KEPT: Final = timedelta(days=30)
# An owner is made of a member, by a fresh proof; not of an address.
ROLES: Final = (Role.HELPER, Role.VIEWER, Role.BILLING)


class NotAnAddress(ValueError):
    """This is no email address."""


class AlreadyThere(Exception):
    """This person belongs to the account already."""


class AlreadyInvited(Exception):
    """An invitation to this address waits; it can be sent again."""


class RoleRefused(ValueError):
    """Nobody is invited with this role."""


class Full(Exception):
    """The account has as many members and invitations as it may."""


class TooMany(Exception):
    """Too many invitations were mailed; ``wait`` until the next."""

    def __init__(self, wait: timedelta) -> None:
        super().__init__("too many invitations")
        self.wait = wait


class InvitationOver(Exception):
    """The invitation was used, withdrawn, declined, replaced by a newer mail, or is too old."""


class WrongPerson(Exception):
    """The invitation is for another address."""


@dataclass(frozen=True)
class Shown:
    """A good link, as whoever holds it is shown it and may come back to it."""

    invitation: Invitation
    digest: str

    @property
    def role(self) -> Role:
        """What they would be."""
        return Role(self.invitation.role)


# -- the inviting side ---------------------------------------------------------------------------


def waiting(account: Account) -> list[Invitation]:
    """Return the account's invitations without an answer, the newest first; ended ones are not."""
    return list(
        Invitation.objects.filter(account=account, end=InvitationEnd.WAITING).order_by(
            "-created_at", "-id"
        )
    )


@transaction.atomic
def invite(
    account: Account, *, email: str, role: str, actor: User, origin: Origin = UNTOLD
) -> Invitation:
    """Mail an invitation to this address.

    Raises NotAllowed, NotAnAddress, RoleRefused, AlreadyThere, AlreadyInvited, Full or TooMany.
    """
    address = canonical_email(email)
    try:
        validate_email(address)
    except ValidationError:
        raise NotAnAddress(email) from None
    if len(address) > 254 or not address.isascii():
        raise NotAnAddress(email)
    if role not in ROLES:
        raise RoleRefused(role)
    members.must_still(account, actor, Act.MEMBERS_CHANGE)
    there = Membership.objects.filter(account=account)
    if there.filter(user__email=address).exists():
        raise AlreadyThere
    open_ones = Invitation.objects.filter(account=account, end=InvitationEnd.WAITING)
    if open_ones.filter(email=address).exists():
        raise AlreadyInvited
    if there.count() + open_ones.count() >= members.MOST_MEMBERS:
        raise Full
    _count(account, address)
    secret, now = secrets.token_urlsafe(SECRET_BYTES), timezone.now()
    made = Invitation.objects.create(
        account=account,
        email=address,
        role=role,
        digest=digest_of(secret),
        made_by=actor,
        created_at=now,
        expires_at=now + LASTS,
    )
    _mail(made, secret, actor)
    _told("account.member.invited", made, actor, origin, role=role)
    return made


@transaction.atomic
def resend(account: Account, invitation: UUID, *, actor: User, origin: Origin = UNTOLD) -> None:
    """Mail a new link for another 72 hours; the link before ends.

    Raises NotAllowed, InvitationOver or TooMany.
    """
    found = _waiting_one(account, invitation, actor)
    _count(account, found.email)
    secret = secrets.token_urlsafe(SECRET_BYTES)
    found.digest, found.expires_at = digest_of(secret), timezone.now() + LASTS
    found.made_by = actor
    found.save(update_fields=["digest", "expires_at", "made_by"])
    _mail(found, secret, actor)
    _told("account.member.invited", found, actor, origin, role=found.role, again=True)


@transaction.atomic
def withdraw(account: Account, invitation: UUID, *, actor: User, origin: Origin = UNTOLD) -> None:
    """End the invitation: its link opens nothing any more. Raises NotAllowed or InvitationOver."""
    found = _waiting_one(account, invitation, actor)
    _end(Invitation.objects.filter(pk=found.pk), InvitationEnd.WITHDRAWN)
    _told("account.member.withdrawn", found, actor, origin)


# -- the invited side ----------------------------------------------------------------------------


def show(secret: str) -> Shown:
    """Return the invitation behind a link; looking does not use it up. Raises InvitationOver."""
    if not 20 <= len(secret) <= 100 or not secret.isascii():
        raise InvitationOver
    return _shown(Invitation.objects.filter(digest=digest_of(secret)))


def come_back(invitation: UUID, digest: str) -> Shown:
    """Return the invitation that was shown before, if its link is still the newest.

    Raises InvitationOver.
    """
    return _shown(Invitation.objects.filter(pk=invitation, digest=digest))


def is_newcomer(shown: Shown) -> bool:
    """Tell whether nobody has proved yet that the invited address is theirs.

    Somebody may have signed up with it and never confirmed it: that is not its owner.
    """
    proved = EmailAddress.objects.filter(email=shown.invitation.email, verified=True)
    return not proved.exists()


@transaction.atomic
def accept(shown: Shown, user: User, *, shares: Shares, origin: Origin = UNTOLD) -> Membership:
    """Give the person their place in the account. Of many at once, one does.

    Raises InvitationOver, WrongPerson, AlreadyThere or Full.
    """
    invitation = shown.invitation
    if not _is_theirs(user, invitation.email):
        raise WrongPerson
    members.lock(invitation.account)
    sessions.must_still_be_in(user)
    if Membership.objects.filter(account=invitation.account).count() >= members.MOST_MEMBERS:
        raise Full
    if members.find(invitation.account, user.pk) is not None:
        raise AlreadyThere
    # Under the lock, and on the very link that was shown: a newer mail may have replaced it.
    good = _good(Invitation.objects.filter(pk=invitation.pk, digest=shown.digest))
    if not _end(good, InvitationEnd.ACCEPTED):
        raise InvitationOver
    now = timezone.now()
    place = Membership.objects.create(
        account=invitation.account,
        user=user,
        role=invitation.role,
        shares=shares,
        chosen_at=now,
    )
    _told("account.member.joined", invitation, user, origin, role=invitation.role, shares=shares)
    told = member_letters.joined(invitation.account, user, Role(invitation.role))
    for owner in members.owners(invitation.account):
        post_office.post(told, to=owner.email, account=invitation.account_id)
    return place


@transaction.atomic
def accept_as_newcomer(
    shown: Shown,
    *,
    name: str,
    password: str,
    shares: Shares,
    origin: Origin = UNTOLD,
) -> User:
    """Make the invited person one who can sign in, with their place in the account.

    Whoever shows the link has got the mail: the address is confirmed by it. The password was
    checked by the caller. Raises InvitationOver, or AlreadyThere for an address that is somebody's.
    """
    address = shown.invitation.email
    members.lock(shown.invitation.account)
    if not is_newcomer(shown):
        raise AlreadyThere
    user = User.objects.select_for_update().filter(email=address).first()
    # By an invitation to another account, somebody may have become this person just now.
    if user is not None and not is_newcomer(shown):
        raise AlreadyThere
    if user is None:
        try:
            with transaction.atomic():
                user = User.objects.create_user(address, password)
        except IntegrityError:
            raise InvitationOver from None
    else:
        # Whoever signed up with it before never showed that it is theirs: their password is
        # replaced, and nothing they may have begun goes on.
        user.set_password(password)
        user.is_active = True
        User.objects.filter(pk=user.pk).update(epoch=F("epoch") + 1)
        user.epoch += 1
    user.name = person.plain_name(name)
    user.save()
    EmailAddress.objects.update_or_create(
        user=user, email=address, defaults={"verified": True, "primary": True}
    )
    trail.record(
        "account.signup",
        account=shown.invitation.account_id,
        actor=user,
        ip=origin.ip,
        agent=origin.agent,
        by="invitation",
    )
    accept(shown, user, shares=shares, origin=origin)
    return user


@transaction.atomic
def decline(shown: Shown, *, origin: Origin = UNTOLD) -> None:
    """End the invitation: who holds its link does not want it. Raises InvitationOver."""
    good = _good(Invitation.objects.filter(pk=shown.invitation.pk, digest=shown.digest))
    if not _end(good, InvitationEnd.DECLINED):
        raise InvitationOver
    _told("account.member.declined", shown.invitation, None, origin)


# -- clean-up ------------------------------------------------------------------------------------


def forget_old(now: datetime) -> int:
    """Delete invitations that ended or ran out a month ago; returns how many."""
    return Invitation.objects.filter(expires_at__lt=now - KEPT).delete()[0]


def digest_of(secret: str) -> str:
    """Return what is stored of a link: keyed by a key that is not in the database."""
    return hashlib.blake2b(
        secret.encode("utf-8", "surrogatepass"),
        key=settings.FIELD_KEY,
        person=b"doorward-invite",
        digest_size=32,
    ).hexdigest()


def _good(rows: QuerySet[Invitation]) -> QuerySet[Invitation]:
    # Whoever invited must still be one who may: a former owner lets nobody in. Who owns the account
    # now sees the invitation and may send it again, in their own name.
    may_invite = Membership.objects.filter(
        account=OuterRef("account"), user=OuterRef("made_by"), role__in=MAY[Act.MEMBERS_CHANGE]
    )
    return rows.filter(Exists(may_invite), end=InvitationEnd.WAITING, expires_at__gt=timezone.now())


def _shown(rows: QuerySet[Invitation]) -> Shown:
    found = _good(rows).select_related("account", "made_by").first()
    if found is None:
        raise InvitationOver
    return Shown(found, found.digest)


def _waiting_one(account: Account, invitation: UUID, actor: User) -> Invitation:
    members.must_still(account, actor, Act.MEMBERS_CHANGE)
    found = Invitation.objects.filter(
        pk=invitation, account=account, end=InvitationEnd.WAITING
    ).first()
    if found is None:
        raise InvitationOver
    return found


def _end(rows: QuerySet[Invitation], end: InvitationEnd) -> int:
    return rows.filter(end=InvitationEnd.WAITING).update(end=end, ended_at=timezone.now())


def _is_theirs(user: User, address: str) -> bool:
    return bool(EmailAddress.objects.filter(user=user, email=address, verified=True).exists())


def _count(account: Account, address: str) -> None:
    wait = lockout.full((lockout.INVITATIONS, str(account.pk)), (lockout.INVITATION_MAIL, address))
    if wait is not None:
        raise TooMany(wait)


def _mail(invitation: Invitation, secret: str, actor: User) -> None:
    told = member_letters.invited(
        by=actor,
        role=Role(invitation.role),
        link=f"{settings.SITE_URL}/invitation/{secret}/",
        lasts=LASTS,
    )
    post_office.post(told, to=invitation.email, account=invitation.account_id)


def _told(
    tag: str, invitation: Invitation, actor: User | None, origin: Origin, **detail: object
) -> None:
    trail.record(
        tag,
        account=invitation.account_id,
        actor=actor,
        target=str(invitation.pk),
        ip=origin.ip,
        agent=origin.agent,
        name=invitation.email,
        **detail,
    )
