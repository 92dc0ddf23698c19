"""Members over the API: the same acts as the pages, by the person's own session.

A token may list them (members:read). Whoever changes who belongs to the account, or hands it over,
does so signed in; what weighs most, after a fresh proof (reauthentication-required).
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final, Literal
from uuid import UUID

from django.http import HttpRequest
from ninja import Router, Schema, Status
from pydantic import StringConstraints

from doorward.accounts import invitations, members
from doorward.accounts.adapter import origin_of
from doorward.accounts.models import Invitation, Membership, OwnershipTransfer, Role, Shares
from doorward.accounts.permissions import Act
from doorward.api import callers, finding, shapes
from doorward.api.callers import Caller
from doorward.api.problems import Refused

router: Final = Router()

RoleWord = Literal["owner", "billing", "helper", "viewer"]
InvitedRole = Literal["billing", "helper", "viewer"]
SharesWord = Literal["state", "findings", "paths"]
DevicesWord = Literal["stay", "leave"]
Address = Annotated[str, StringConstraints(min_length=3, max_length=254)]
Secret = Annotated[str, StringConstraints(min_length=20, max_length=100)]
# By these somebody could take money or the whole account.
WEIGHTY: Final = frozenset({Role.OWNER, Role.BILLING})


class MemberOut(Schema):
    """A member, and what their own devices let the others see.

    `shares` is `state`, `findings` (also what was found) or `paths` (also the names and places of
    files).
    """

    id: UUID
    name: str
    email: str
    role: str
    shares: str
    since: datetime
    is_you: bool

    @classmethod
    def of(cls, place: Membership, caller: Caller) -> MemberOut:
        """Return the answer about this member."""
        return cls(
            id=place.user_id,
            name=place.user.name,
            email=place.user.email,
            role=place.role,
            shares=place.shares,
            since=place.created_at,
            is_you=place.user_id == caller.user.pk,
        )


class RoleChange(shapes.Strict):
    """Another role."""

    role: RoleWord


class SharingChange(shapes.Strict):
    """What your own devices let the account's other members see."""

    shares: SharesWord


class Leaving(shapes.Strict):
    """What becomes of your own devices: they stay in the account, or leave it with you."""

    devices: DevicesWord


class InvitationIn(shapes.Strict):
    """Whom to invite, as what."""

    email: Address
    role: InvitedRole


class InvitationOut(Schema):
    """An invitation without an answer. After `expires_at` its link opens nothing."""

    id: UUID
    email: str
    role: str
    created_at: datetime
    expires_at: datetime

    @classmethod
    def of(cls, invitation: Invitation) -> InvitationOut:
        """Return the answer about this invitation; its link was mailed and is in no answer."""
        return cls(
            id=invitation.pk,
            email=invitation.email,
            role=invitation.role,
            created_at=invitation.created_at,
            expires_at=invitation.expires_at,
        )


class Acceptance(shapes.Strict):
    """The last part of the mailed link, and what your devices will share."""

    secret: Secret
    shares: SharesWord = "state"


class Refusal(shapes.Strict):
    """The last part of the mailed link."""

    secret: Secret


class PlaceOut(Schema):
    """An account you belong to: its id goes into the header X-Account."""

    account: UUID
    name: str
    role: str


class OfferIn(shapes.Strict):
    """To whom to hand the account over, and what you will be afterwards."""

    member: UUID
    role_after: InvitedRole


class OfferOut(Schema):
    """An offer of the account that waits for the taker's answer."""

    giver: UUID
    taker: UUID
    role_after: str
    expires_at: datetime

    @classmethod
    def of(cls, offer: OwnershipTransfer) -> OfferOut:
        """Return the answer about this offer."""
        return cls(
            giver=offer.giver_id,
            taker=offer.taker_id,
            role_after=offer.role_after,
            expires_at=offer.expires_at,
        )


# -- you and your accounts -----------------------------------------------------------------------


@router.get(
    "/accounts",
    response={200: list[PlaceOut], **shapes.ERRORS},
    summary="The accounts you belong to",
)
def list_accounts(request: HttpRequest) -> list[PlaceOut]:
    """Return your accounts, the one you belong to longest first: it is meant without X-Account."""
    places = members.places_of(callers.of(request, Act.OWN).user)
    names = members.names_of(places)
    return [
        PlaceOut(account=place.account_id, name=names[place.account_id], role=place.role)
        for place in places
    ]


@router.put(
    "/me/sharing",
    response={200: MemberOut, **shapes.ERRORS, **shapes.WITH_BODY},
    summary="Say what your devices share",
)
def change_sharing(request: HttpRequest, change: SharingChange) -> MemberOut:
    """Keep what your own devices let the others see. It holds at once."""
    caller = callers.of(request, Act.OWN)
    place = finding.member(caller, caller.user.pk)
    members.share(place, Shares(change.shares), origin=origin_of(request))
    return MemberOut.of(place, caller)


@router.post(
    "/me/leave",
    response={204: None, **shapes.WITH_ID, **shapes.CONFLICT, **shapes.WITH_BODY},
    summary="Leave the account",
)
def leave(request: HttpRequest, leaving: Leaving) -> Status[None]:
    """Leave the account. Its only owner can't (409 `last-owner`)."""
    caller = callers.of(request, Act.OWN)
    stay = leaving.devices == "stay"
    try:
        members.leave(caller.account, caller.user, devices_stay=stay, origin=origin_of(request))
    except members.LastOwner:
        raise _conflict("last-owner", "Hand the account over before you leave.") from None
    except members.NotAMember:
        raise Refused("not-found") from None
    return Status(204, None)


# -- members -------------------------------------------------------------------------------------


@router.get(
    "/members", response={200: list[MemberOut], **shapes.ERRORS}, summary="The account's members"
)
def list_members(request: HttpRequest) -> list[MemberOut]:
    """Return the members, owners first. There are at most 250."""
    caller = callers.of(request, Act.MEMBERS_LOOK)
    return [MemberOut.of(place, caller) for place in members.people(caller.account)]


@router.patch(
    "/members/{uuid:person_id}",
    response={200: MemberOut, **shapes.WITH_ID, **shapes.CONFLICT, **shapes.WITH_BODY},
    summary="Change a member's role",
)
def change_role(request: HttpRequest, person_id: UUID, change: RoleChange) -> MemberOut:
    """Give a member another role; it holds from their next request on.

    To make an owner or somebody who may change what is paid, prove again who you are first.
    """
    caller = callers.of(request, Act.MEMBERS_CHANGE)
    role = Role(change.role)
    finding.member(caller, person_id)
    if role in WEIGHTY:
        caller.must_be_fresh()
    try:
        place = members.change_role(
            caller.account, person_id, role, actor=caller.user, origin=origin_of(request)
        )
    except members.LastOwner:
        raise _conflict("last-owner", "Make somebody else an owner first.") from None
    except members.OwnersStay:
        raise _conflict("owner", "An owner steps down by themselves.") from None
    except members.NotAllowed:
        raise _no_more() from None
    except members.NotAMember:
        raise Refused("not-found") from None
    return MemberOut.of(place, caller)


@router.delete(
    "/members/{uuid:person_id}",
    response={204: None, **shapes.WITH_ID, **shapes.CONFLICT},
    summary="Remove a member",
)
def remove_member(request: HttpRequest, person_id: UUID, devices: DevicesWord) -> Status[None]:
    """Take a member out of the account; prove again who you are first.

    `devices` says whether their own devices stay in the account or leave it.
    """
    caller = callers.of(request, Act.MEMBERS_CHANGE)
    finding.member(caller, person_id)
    caller.must_be_fresh()
    try:
        members.remove(
            caller.account,
            person_id,
            devices_stay=devices == "stay",
            actor=caller.user,
            origin=origin_of(request),
        )
    except members.OwnersStay:
        raise _conflict("owner", "An owner leaves by themselves.") from None
    except members.NotAllowed:
        raise _no_more() from None
    except members.NotAMember:
        raise Refused("not-found") from None
    return Status(204, None)


# -- invitations ---------------------------------------------------------------------------------


@router.get(
    "/invitations",
    response={200: list[InvitationOut], **shapes.ERRORS},
    summary="Invitations without an answer",
)
def list_invitations(request: HttpRequest) -> list[InvitationOut]:
    """Return the account's waiting invitations, the newest first."""
    caller = callers.of(request, Act.MEMBERS_CHANGE)
    return [InvitationOut.of(each) for each in invitations.waiting(caller.account)]


@router.post(
    "/invitations",
    response={
        201: InvitationOut,
        **shapes.ERRORS,
        **shapes.CONFLICT,
        **shapes.LIMITED,
        **shapes.WITH_BODY,
    },
    summary="Invite somebody",
)
def invite(request: HttpRequest, invitation: InvitationIn) -> Status[InvitationOut]:
    """Mail an invitation: a link that works once, within 72 hours, for whoever has the address."""
    caller = callers.of(request, Act.MEMBERS_CHANGE)
    try:
        made = invitations.invite(
            caller.account,
            email=invitation.email,
            role=invitation.role,
            actor=caller.user,
            origin=origin_of(request),
        )
    except (invitations.NotAnAddress, invitations.RoleRefused):
        fields = [{"at": ["body", "invitation", "email"], "problem": "not an address"}]
        raise Refused("invalid", fields=fields) from None
    except invitations.AlreadyThere:
        raise _conflict("already-member", "They belong to this account already.") from None
    except invitations.AlreadyInvited:
        raise _conflict("already-invited", "An invitation waits; it can be sent again.") from None
    except invitations.Full:
        raise _conflict("full", "The account has as many members as it may.") from None
    except invitations.TooMany as refused:
        raise _too_many(refused) from None
    except members.NotAllowed:
        raise _no_more() from None
    return Status(201, InvitationOut.of(made))


@router.post(
    "/invitations/accept",
    response={200: PlaceOut, **shapes.WITH_ID, **shapes.CONFLICT, **shapes.WITH_BODY},
    summary="Accept an invitation",
)
def accept(request: HttpRequest, acceptance: Acceptance) -> PlaceOut:
    """Join the account you were invited to. The invitation must be for your own address."""
    caller = callers.of(request, Act.OWN)
    try:
        place = invitations.accept(
            invitations.show(acceptance.secret),
            caller.user,
            shares=Shares(acceptance.shares),
            origin=origin_of(request),
        )
    except (invitations.InvitationOver, invitations.WrongPerson):
        raise Refused("not-found") from None
    except invitations.AlreadyThere:
        raise _conflict("already-member", "You belong to this account already.") from None
    except invitations.Full:
        raise _conflict("full", "The account has as many members as it may.") from None
    name = members.names_of([place])[place.account_id]
    return PlaceOut(account=place.account_id, name=name, role=place.role)


@router.post(
    "/invitations/decline",
    response={204: None, **shapes.WITH_ID, **shapes.WITH_BODY},
    summary="Decline an invitation",
)
def decline(request: HttpRequest, refusal: Refusal) -> Status[None]:
    """Say no: the link opens nothing any more."""
    callers.of(request, Act.OWN)
    try:
        invitations.decline(invitations.show(refusal.secret), origin=origin_of(request))
    except invitations.InvitationOver:
        raise Refused("not-found") from None
    return Status(204, None)


@router.post(
    "/invitations/{uuid:invitation_id}/resend",
    response={204: None, **shapes.WITH_ID, **shapes.LIMITED},
    summary="Send an invitation again",
)
def resend(request: HttpRequest, invitation_id: UUID) -> Status[None]:
    """Mail a new link for another 72 hours; the one before opens nothing any more."""
    caller = callers.of(request, Act.MEMBERS_CHANGE)
    try:
        invitations.resend(
            caller.account, invitation_id, actor=caller.user, origin=origin_of(request)
        )
    except invitations.InvitationOver:
        raise Refused("not-found") from None
    except invitations.TooMany as refused:
        raise _too_many(refused) from None
    except members.NotAllowed:
        raise _no_more() from None
    return Status(204, None)


@router.delete(
    "/invitations/{uuid:invitation_id}",
    response={204: None, **shapes.WITH_ID},
    summary="Withdraw an invitation",
)
def withdraw(request: HttpRequest, invitation_id: UUID) -> Status[None]:
    """End the invitation: its link opens nothing any more."""
    caller = callers.of(request, Act.MEMBERS_CHANGE)
    try:
        invitations.withdraw(
            caller.account, invitation_id, actor=caller.user, origin=origin_of(request)
        )
    except invitations.InvitationOver:
        raise Refused("not-found") from None
    except members.NotAllowed:
        raise _no_more() from None
    return Status(204, None)


# -- handing the account over --------------------------------------------------------------------


@router.get(
    "/ownership-offer", response={200: OfferOut, **shapes.WITH_ID}, summary="The waiting offer"
)
def show_offer(request: HttpRequest) -> OfferOut:
    """Return the offer of this account that waits for an answer, to who made it and who got it."""
    caller = callers.of(request, Act.OWN)
    offer = members.offer(caller.account)
    if offer is None or caller.user.pk not in {offer.giver_id, offer.taker_id}:
        raise Refused("not-found")
    return OfferOut.of(offer)


@router.post(
    "/ownership-offer",
    response={
        201: OfferOut,
        **shapes.WITH_ID,
        **shapes.CONFLICT,
        **shapes.LIMITED,
        **shapes.WITH_BODY,
    },
    summary="Offer the account to a member",
)
def make_offer(request: HttpRequest, offer: OfferIn) -> Status[OfferOut]:
    """Offer the account; nothing changes until the member agrees. Prove again who you are first."""
    caller = callers.of(request, Act.MEMBERS_CHANGE)
    finding.member(caller, offer.member)
    caller.must_be_fresh()
    try:
        made = members.offer_ownership(
            caller.account,
            offer.member,
            Role(offer.role_after),
            actor=caller.user,
            origin=origin_of(request),
        )
    except members.OwnersStay:
        raise _conflict("owner", "They own it already.") from None
    except members.TooManyOffers:
        raise Refused("too-many-requests", "Offered too often today.") from None
    except members.NotAllowed:
        raise _no_more() from None
    except members.NotAMember:
        raise Refused("not-found") from None
    return Status(201, OfferOut.of(made))


@router.post(
    "/ownership-offer/accept",
    response={200: MemberOut, **shapes.WITH_ID},
    summary="Become the owner",
)
def accept_offer(request: HttpRequest) -> MemberOut:
    """Agree to own the account that is offered to you. Prove again who you are first."""
    caller = callers.of(request, Act.OWN)
    offer = members.offer(caller.account)
    if offer is None or offer.taker_id != caller.user.pk:
        raise Refused("not-found")
    caller.must_be_fresh()
    try:
        place = members.take_ownership(caller.account, caller.user, origin=origin_of(request))
    except members.NoOffer:
        raise Refused("not-found") from None
    return MemberOut.of(place, caller)


@router.delete(
    "/ownership-offer",
    response={204: None, **shapes.WITH_ID},
    summary="Take back or decline the offer",
)
def end_offer(request: HttpRequest) -> Status[None]:
    """End the offer, as who made it or as who got it."""
    caller = callers.of(request, Act.OWN)
    try:
        members.end_offer(caller.account, caller.user, origin=origin_of(request))
    except members.NoOffer:
        raise Refused("not-found") from None
    return Status(204, None)


def _conflict(reason: str, detail: str) -> Refused:
    return Refused("conflict", detail, reason=reason)


def _no_more() -> Refused:
    return Refused("forbidden", "Your role in this account does not allow it any more.")


def _too_many(refused: invitations.TooMany) -> Refused:
    seconds = int(refused.wait.total_seconds()) + 1
    return Refused("too-many-requests", f"Try again in {seconds} s.")
