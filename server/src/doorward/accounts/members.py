"""Who belongs to which account, as what; and how that changes.

A person may belong to several accounts and looks at one at a time (ADR 11). Every change is made
under a lock on the account and looks again at what the actor may do: a role taken away counts from
the next request on, also when that request is already under way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Final
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from doorward.accounts import lockout, member_letters, permissions, sessions
from doorward.accounts.models import (
    Account,
    Membership,
    OwnershipTransfer,
    PersonalToken,
    Role,
    Shares,
    User,
)
from doorward.accounts.origin import Origin
from doorward.accounts.permissions import Act
from doorward.audit import trail
from doorward.notices import letter as post_office

OFFER_LASTS: Final = timedelta(hours=72)
MOST_MEMBERS: Final = 250
UNTOLD: Final = Origin("", "")

# What the upper rooms do when somebody leaves: (account, person, whether their devices stay).
Parting = Callable[[Membership, bool, User, Origin], object]
_at_parting: list[Parting] = []
_at_sharing: list[Callable[[Membership], object]] = []


class NoAccount(Exception):
    """The person belongs to no account (an operator without one)."""


class NotAMember(Exception):
    """This person does not belong to this account."""


class NotAllowed(Exception):
    """Who asks may not do this in this account (any more). Edges answer it as if asked later."""


class LastOwner(Exception):
    """An account has an owner at all times: they hand it over before they leave."""


class OwnersStay(Exception):
    """An owner is not pushed out by another: they step down or leave themselves."""


class NoOffer(Exception):
    """Nobody offers this account to this person (any more)."""


class TooManyOffers(Exception):
    """The account was offered too often today."""


def at_parting(act: Parting) -> None:
    """Have ``act`` run in the transaction in which somebody leaves an account or is removed.

    So their devices stay or go without accounts knowing of devices.
    """
    if act not in _at_parting:
        _at_parting.append(act)


def at_sharing(act: Callable[[Membership], object]) -> None:
    """Have ``act`` run in the transaction in which a member changes what their devices share."""
    if act not in _at_sharing:
        _at_sharing.append(act)


# -- where somebody belongs ----------------------------------------------------------------------


def places_of(user: User) -> list[Membership]:
    """Return this person's places in accounts, the one held longest first, by one query."""
    return list(
        Membership.objects.select_related("account")
        .filter(user=user)
        .order_by("created_at", "account_id")
    )


def place_of(user: User, account: UUID | None = None) -> Membership:
    """Return this person's place in ``account``; without one, where they have belonged longest.

    By one query. Raises NoAccount, also for an account that is not theirs.
    """
    for place in places_of(user):
        if account in {None, place.account_id}:
            return place
    raise NoAccount(str(user.pk))


def account_of(user: User) -> Account:
    """Return the account this person has belonged to longest. Raises NoAccount."""
    return place_of(user).account


def begin_at(places: list[Membership]) -> Membership:
    """Return the place a new session looks at: the one last chosen, else the one held longest.

    ``places`` are of places_of. Raises NoAccount when there is none.
    """
    if not places:
        raise NoAccount
    chosen = [place for place in places if place.chosen_at is not None]
    return max(chosen, key=lambda place: place.chosen_at or place.created_at, default=places[0])


def choose(user: User, account: UUID) -> Membership:
    """Remember that this person looks at this account from now on. Raises NoAccount."""
    place = place_of(user, account)
    place.chosen_at = timezone.now()
    Membership.objects.filter(pk=place.pk).update(chosen_at=place.chosen_at)
    return place


def names_of(places: Iterable[Membership]) -> dict[UUID, str]:
    """Return what to call each of these places' accounts: its name, else its owner's; one query."""
    wanted = {place.account_id: place for place in places}
    names = {account: place.account.name for account, place in wanted.items() if place.account.name}
    held = Membership.objects.select_related("user").filter(
        account__in=wanted.keys() - names.keys(), role=Role.OWNER
    )
    for owner in held.order_by("created_at", "id"):
        names.setdefault(owner.account_id, owner.user.get_full_name())
    return {account: names.get(account, str(account)) for account in wanted}


def people(account: Account) -> list[Membership]:
    """Return the account's members, owners first, then by when they joined; by one query."""
    found = Membership.objects.select_related("user").filter(account=account)
    return sorted(found.order_by("created_at", "id"), key=lambda place: place.role != Role.OWNER)


def find(account: Account, person: UUID) -> Membership | None:
    """Return this person's place in this account, or nothing."""
    return Membership.objects.select_related("user").filter(account=account, user=person).first()


def may_be_removed(place: Membership) -> bool:
    """Tell whether an owner may take this member out, or give them another role."""
    return place.role != Role.OWNER


# -- what one shares -----------------------------------------------------------------------------


@transaction.atomic
def share(place: Membership, shares: Shares, *, origin: Origin = UNTOLD) -> None:
    """Keep what this member's own devices let the others see. It holds from the next page on."""
    sessions.must_still_be_in(place.user)
    changed = Membership.objects.filter(pk=place.pk).exclude(shares=shares).update(shares=shares)
    place.shares = shares
    if changed:
        for act in _at_sharing:
            act(place)
        trail.record(
            "account.sharing.changed",
            account=place.account_id,
            actor=place.user_id,
            target=str(place.user_id),
            ip=origin.ip,
            agent=origin.agent,
            shares=shares.value,
        )


# -- roles ---------------------------------------------------------------------------------------


@transaction.atomic
def change_role(
    account: Account, person: UUID, role: Role, *, actor: User, origin: Origin = UNTOLD
) -> Membership:
    """Give a member another role; it holds from their next request on.

    An owner may step down while there is another one. Raises NotAllowed, NotAMember, OwnersStay or
    LastOwner.
    """
    place = _locked(account, person, actor)
    before = Role(place.role)
    if before == role:
        return place
    if before == Role.OWNER:
        if place.user_id != actor.pk:
            raise OwnersStay
        _must_leave_an_owner(account, place)
    place.role = role
    place.save(update_fields=["role"])
    _forget_offers(account, person)
    _told("account.member.role.changed", place, actor, origin, was=before.value, role=role.value)
    if place.user_id != actor.pk:
        _tell_themselves("account.member.role.got", place)
    told = member_letters.role_changed(account, place.user, role, by=actor, origin=origin)
    _post(told, account, place.user)
    if role == Role.OWNER:
        told = member_letters.another_owner(account, place.user, by=actor, origin=origin)
        _post(told, account, *(user for user in owners(account) if user.pk != place.user_id))
    return place


# -- leaving -------------------------------------------------------------------------------------


@transaction.atomic
def remove(
    account: Account,
    person: UUID,
    *,
    devices_stay: bool,
    actor: User,
    origin: Origin = UNTOLD,
) -> None:
    """Take a member out: their next request finds this account closed. They are told by mail.

    Raises NotAllowed, NotAMember or OwnersStay.
    """
    place = _locked(account, person, actor)
    if not may_be_removed(place):
        raise OwnersStay
    _part(place, devices_stay, actor, origin)
    _told("account.member.removed", place, actor, origin, devices_stay=devices_stay)
    _tell_themselves("account.member.place.lost", place)
    told = member_letters.removed(account, by=actor, origin=origin, devices_stay=devices_stay)
    _post(told, account, place.user)


@transaction.atomic
def leave(account: Account, user: User, *, devices_stay: bool, origin: Origin = UNTOLD) -> None:
    """Leave the account; its owners are told by mail. Raises NotAMember or LastOwner."""
    _lock_for(account, user)
    place = find(account, user.pk)
    if place is None:
        raise NotAMember
    if place.role == Role.OWNER:
        _must_leave_an_owner(account, place)
    _part(place, devices_stay, user, origin)
    _told("account.member.left", place, user, origin, devices_stay=devices_stay)
    told = member_letters.left(account, user, devices_stay=devices_stay)
    _post(told, account, *owners(account))


def _part(place: Membership, devices_stay: bool, actor: User, origin: Origin) -> None:
    for act in _at_parting:
        act(place, devices_stay, actor, origin)
    _forget_offers(place.account, place.user_id)
    PersonalToken.objects.filter(
        user=place.user_id, account=place.account_id, revoked_at__isnull=True
    ).update(revoked_at=timezone.now())
    Membership.objects.filter(pk=place.pk).delete()


# -- handing the account over --------------------------------------------------------------------


def offer(account: Account) -> OwnershipTransfer | None:
    """Return the offer of this account that waits for an answer, or nothing."""
    return (
        OwnershipTransfer.objects.select_related("giver", "taker")
        .filter(account=account, expires_at__gt=timezone.now())
        .first()
    )


@transaction.atomic
def offer_ownership(
    account: Account,
    person: UUID,
    role_after: Role,
    *,
    actor: User,
    origin: Origin = UNTOLD,
) -> OwnershipTransfer:
    """Offer the account to a member; nothing changes until they agree. Both are told by mail.

    A newer offer replaces the one before. Raises NotAllowed, NotAMember, OwnersStay (they own it
    already) or TooManyOffers.
    """
    place = _locked(account, person, actor)
    if place.role == Role.OWNER or role_after == Role.OWNER:
        raise OwnersStay
    if not lockout.allow((lockout.OFFERS, str(account.pk))):
        raise TooManyOffers
    now = timezone.now()
    made, _ = OwnershipTransfer.objects.update_or_create(
        account=account,
        defaults={
            "giver": actor,
            "taker": place.user,
            "role_after": role_after,
            "created_at": now,
            "expires_at": now + OFFER_LASTS,
        },
    )
    _told("account.ownership.offered", place, actor, origin)
    for reader in (actor, place.user):
        told = member_letters.offered(account, giver=actor, taker=place.user, to=reader)
        _post(told, account, reader)
    return made


@transaction.atomic
def take_ownership(account: Account, user: User, *, origin: Origin = UNTOLD) -> Membership:
    """Make the person whom the account was offered its owner, and the giver what they chose.

    Of two at once, one does. Raises NoOffer, also when the giver owns it no more.
    """
    _lock_for(account, user)
    waiting = offer(account)
    if waiting is None or waiting.taker_id != user.pk:
        raise NoOffer
    giver, taker = find(account, waiting.giver_id), find(account, user.pk)
    OwnershipTransfer.objects.filter(account=account).delete()
    if giver is None or giver.role != Role.OWNER or taker is None:
        raise NoOffer
    taker.role, giver.role = Role.OWNER, waiting.role_after
    taker.save(update_fields=["role"])
    giver.save(update_fields=["role"])
    # An account that was called after its owner is called after the new one.
    Account.objects.filter(pk=account.pk, name=giver.user.name).update(name="")
    _told("account.ownership.transferred", taker, user, origin, giver=str(giver.user_id))
    _tell_themselves("account.ownership.given", giver)
    for reader in (giver.user, taker.user):
        told = member_letters.transferred(
            account, giver=giver.user, taker=taker.user, role=Role(giver.role), to=reader
        )
        _post(told, account, reader)
    return taker


@transaction.atomic
def end_offer(account: Account, user: User, *, origin: Origin = UNTOLD) -> None:
    """Take the offer back, as who made it, or decline it, as who got it. Raises NoOffer."""
    _lock_for(account, user)
    waiting = offer(account)
    if waiting is None or user.pk not in {waiting.giver_id, waiting.taker_id}:
        raise NoOffer
    OwnershipTransfer.objects.filter(account=account).delete()
    taken_back = user.pk == waiting.giver_id
    trail.record(
        "account.ownership.withdrawn" if taken_back else "account.ownership.declined",
        account=account,
        actor=user,
        target=str(waiting.taker_id),
        ip=origin.ip,
        agent=origin.agent,
    )
    told = member_letters.offer_ended(account, by=user, taken_back=taken_back)
    _post(told, account, waiting.taker if taken_back else waiting.giver)


# -- under the lock ------------------------------------------------------------------------------


def lock(account: Account) -> None:
    """Let nobody else change who belongs to the account until this transaction ends."""
    # PostgreSQL locks the row, on SQLite the transaction holds the one write lock anyway. Not its
    # key: whoever only stores a row that refers to the account (a device's report) need not wait.
    Account.objects.select_for_update(no_key=True).values_list("pk").get(pk=account.pk)


def _lock_for(account: Account, actor: User) -> None:
    lock(account)
    sessions.must_still_be_in(actor)


def must_still(account: Account, actor: User, act: Act) -> None:
    """Lock the account and raise NotAllowed unless the actor may do this now.

    What an edge looked up when the request began may have been taken away since, and so may what
    the actor came in by (sessions.Overtaken). Until the caller's transaction ends, it can't be: who
    takes it away waits. First of all locks, so that nobody waits the other way round.
    """
    _lock_for(account, actor)
    place = find(account, actor.pk)
    if place is None or not place.user.is_active or not permissions.may(place.role, act):
        raise NotAllowed


def _locked(account: Account, person: UUID, actor: User) -> Membership:
    must_still(account, actor, Act.MEMBERS_CHANGE)
    place = find(account, person)
    if place is None:
        raise NotAMember
    return place


def _must_leave_an_owner(account: Account, place: Membership) -> None:
    others = Membership.objects.filter(account=account, role=Role.OWNER).exclude(pk=place.pk)
    if not others.exists():
        raise LastOwner


def _forget_offers(account: Account, person: UUID) -> None:
    waiting = OwnershipTransfer.objects.filter(account=account)
    (waiting.filter(giver=person) | waiting.filter(taker=person)).delete()


def owners(account: Account) -> list[User]:
    """Return the people who own the account."""
    places = Membership.objects.select_related("user").filter(account=account, role=Role.OWNER)
    return [place.user for place in places]


def _told(tag: str, place: Membership, actor: User, origin: Origin, **detail: object) -> None:
    trail.record(
        tag,
        account=place.account_id,
        actor=actor,
        target=str(place.user_id),
        ip=origin.ip,
        agent=origin.agent,
        name=place.user.get_full_name(),
        **detail,
    )


def _tell_themselves(tag: str, place: Membership) -> None:
    # An account's events are its owner's to read. What somebody else did to a member is the
    # member's, too; without names, which would outlast those who bear them.
    trail.record(tag, actor=place.user_id)


def _post(told: post_office.Letter, account: Account, *readers: User) -> None:
    for reader in readers:
        post_office.post(told, to=reader.email, account=account.pk)
