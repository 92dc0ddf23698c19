"""What the accounts room keeps about people, as an export shows it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

from allauth.mfa.models import Authenticator
from allauth.usersessions.models import UserSession
from django.db.models import Q

from doorward.accounts import privacy
from doorward.accounts.models import (
    AddressChange,
    Approval,
    Invitation,
    KnownBrowser,
    Membership,
    PersonalToken,
    PhoneNumber,
    Recovery,
    RememberedBrowser,
    SecondStepChoice,
)
from doorward.accounts.privacy import Room, Row, Table, Whose
from doorward.accounts.privacy_rows import Export
from doorward.audit.models import Event
from doorward.notices.models import Mail


def moment(at: datetime | None) -> str | None:
    """Return the moment as exports write it: ISO 8601, UTC, to the second."""
    return None if at is None else at.astimezone(UTC).isoformat(timespec="seconds")


def _person(whose: Whose) -> Iterator[Row]:
    user = whose.user
    choice = SecondStepChoice.objects.filter(user=user).first()
    yield [
        str(user.pk),
        user.email,
        user.name,
        user.zone,
        moment(user.created_at),
        moment(user.last_login),
        bool(choice and choice.by_email),
        user.is_operator,
    ]


def _members(whose: Whose) -> Iterator[Row]:
    places = Membership.objects.filter(Q(account__in=whose.accounts) | Q(user=whose.user))
    for place in places.select_related("user", "account").order_by("created_at", "id"):
        yield [
            str(place.account_id),
            place.account.name,
            place.user.email,
            place.role,
            place.shares,
            moment(place.created_at),
        ]


def _invitations(whose: Whose) -> Iterator[Row]:
    to = Q(email=whose.user.email) | Q(account__in=whose.accounts)
    for each in Invitation.objects.filter(to).order_by("created_at", "pk"):
        yield [
            str(each.account_id),
            each.email,
            each.role,
            each.end or "waiting",
            moment(each.created_at),
            moment(each.expires_at),
            moment(each.ended_at),
        ]


def _ways(whose: Whose) -> Iterator[Row]:
    for each in Authenticator.objects.filter(user=whose.user).order_by("created_at", "pk"):
        name = str(each.data.get("name", "")) if isinstance(each.data, dict) else ""
        yield [each.type, name, moment(each.created_at), moment(each.last_used_at)]
    for number in PhoneNumber.objects.filter(user=whose.user):
        yield ["sms", "", moment(number.confirmed_at), moment(number.last_used_at)]


def _sessions(whose: Whose) -> Iterator[Row]:
    for each in UserSession.objects.filter(user=whose.user).order_by("created_at", "pk"):
        yield [each.user_agent, str(each.ip), moment(each.created_at), moment(each.last_seen_at)]


def _browsers(whose: Whose) -> Iterator[Row]:
    for known in KnownBrowser.objects.filter(user=whose.user).order_by("created_at", "pk"):
        yield [
            "known",
            known.agent,
            known.network,
            moment(known.created_at),
            moment(known.seen_at),
            moment(known.revoked_at),
        ]
    kept = RememberedBrowser.objects.filter(user=whose.user).order_by("created_at", "pk")
    for each in kept:
        yield [
            "remembered",
            each.agent,
            each.ip,
            moment(each.created_at),
            moment(each.last_used_at),
            moment(each.expires_at),
        ]


def _tokens(whose: Whose) -> Iterator[Row]:
    for each in PersonalToken.objects.filter(user=whose.user).order_by("created_at", "pk"):
        yield [
            each.name,
            each.scope_list,
            moment(each.created_at),
            moment(each.expires_at),
            moment(each.revoked_at),
            moment(each.last_used_at),
        ]


def _address_changes(whose: Whose) -> Iterator[Row]:
    for each in AddressChange.objects.filter(user=whose.user).order_by("changed_at", "pk"):
        yield [each.before, each.after, moment(each.changed_at), moment(each.undone_at)]


def _recoveries(whose: Whose) -> Iterator[Row]:
    for each in Recovery.objects.filter(user=whose.user).order_by("asked_at", "pk"):
        yield [
            each.kind,
            moment(each.asked_at),
            moment(each.ended_at),
            each.ending,
            each.agent,
            each.ip,
            each.reason,
        ]


def _approvals(whose: Whose) -> Iterator[Row]:
    for each in Approval.objects.filter(user=whose.user).order_by("asked_at", "pk"):
        yield [each.state, moment(each.asked_at), each.agent, each.ip]


def _activity(whose: Whose) -> Iterator[Row]:
    mine = Q(actor_id=whose.user.pk)
    mine |= Q(account_id__in=[account.pk for account in whose.accounts])
    for event in Event.objects.filter(mine).order_by("id").iterator(chunk_size=2000):
        by = "you" if event.actor_id == whose.user.pk else "another" if event.actor_id else ""
        yield [
            moment(event.at),
            event.tag,
            by,
            event.target,
            event.ip,
            event.agent,
            event.detail,
        ]


def _exports(whose: Whose) -> Iterator[Row]:
    for each in Export.objects.filter(user=whose.user).order_by("asked_at"):
        yield [moment(each.asked_at), each.state, moment(each.fetched_at)]


def _mails(whose: Whose) -> Iterator[Row]:
    for mail in Mail.objects.filter(to=whose.user.email).order_by("created_at").iterator():
        yield [moment(mail.created_at), mail.kind, mail.subject, moment(mail.sent_at)]


TABLES: Final = (
    Table(
        "person",
        "You.",
        {
            "id": "your number here",
            "email": "the address you sign in with",
            "name": "what to call you",
            "zone": "the time zone you chose",
            "created_at": "when you signed up",
            "last_login": "when you last signed in",
            "code_by_email": "whether a code is mailed when you sign in",
            "operator": "whether you operate this server",
        },
        _person,
    ),
    Table(
        "members",
        "Who belongs to the accounts you alone own, and your own place in others.",
        {
            "account": "the account's number",
            "account_name": "its name",
            "email": "the member's address",
            "role": "owner, billing, helper or viewer",
            "shares": "what the others see of this member's devices",
            "since": "when they joined",
        },
        _members,
    ),
    Table(
        "invitations",
        "Invitations into the accounts you alone own, and those to your address.",
        {
            "account": "the account's number",
            "email": "the invited address",
            "role": "the role offered",
            "state": "waiting, accepted, declined or withdrawn",
            "made_at": "when it was made",
            "expires_at": "until when it can be accepted",
            "ended_at": "when it was answered or withdrawn",
        },
        _invitations,
    ),
    Table(
        "ways_to_sign_in",
        "Your passkeys, authenticator app, recovery codes and number. No secret of any of them.",
        {
            "type": "totp, webauthn, recovery_codes or sms",
            "name": "the name you gave it",
            "added_at": "when it was added",
            "last_used_at": "when it was last used",
        },
        _ways,
    ),
    Table(
        "sessions",
        "Where you are signed in.",
        {
            "browser": "as the browser names itself",
            "ip": "the network address",
            "since": "when you signed in",
            "last_seen": "when it was last used",
        },
        _sessions,
    ),
    Table(
        "browsers",
        "Browsers that are known as yours, and those not asked for the second step.",
        {
            "kind": "known or remembered",
            "browser": "as the browser names itself",
            "ip": "the network address",
            "since": "when it became so",
            "last_seen": "when it was last used",
            "until": "when it ended or will end",
        },
        _browsers,
    ),
    Table(
        "tokens",
        "Your tokens for programs. Not the tokens themselves.",
        {
            "name": "what you called it",
            "scopes": "what it may do",
            "made_at": "when it was made",
            "expires_at": "until when it works",
            "revoked_at": "when it was revoked",
            "last_used_at": "when it was last used",
        },
        _tokens,
    ),
    Table(
        "address_changes",
        "Changes of your address.",
        {
            "before": "the address before",
            "after": "the address after",
            "changed_at": "when it was changed",
            "undone_at": "when it was taken back",
        },
        _address_changes,
    ),
    Table(
        "recoveries",
        "When a lost second step was to be set anew.",
        {
            "kind": "by your mailbox or by operators",
            "asked_at": "when it was asked for",
            "ended_at": "when it ended",
            "ending": "how it ended",
            "browser": "as the browser named itself",
            "ip": "the network address",
            "reason": "what operators gave as the reason",
        },
        _recoveries,
    ),
    Table(
        "approvals",
        "Sign-ins that asked to be approved in another session of yours.",
        {
            "state": "what you answered",
            "asked_at": "when it was asked",
            "browser": "as the browser named itself",
            "ip": "the network address",
        },
        _approvals,
    ),
    Table(
        "mails",
        "Mails we wrote to you. What they said is not kept.",
        {
            "made_at": "when it was written",
            "kind": "what it was about",
            "subject": "its subject",
            "sent_at": "when it was sent",
        },
        _mails,
    ),
    Table(
        "exports",
        "Copies like this one.",
        {
            "asked_at": "when you asked for it",
            "state": "how far it is",
            "fetched_at": "when you last downloaded it",
        },
        _exports,
    ),
    Table(
        "activity",
        "What happened: what you did, and in the accounts you alone own.",
        {
            "at": "when",
            "tag": "what, as docs/ name it",
            "by": "you, or another person of the account",
            "target": "what it was done to",
            "ip": "the network address",
            "browser": "as the browser named itself",
            "detail": "more, as JSON",
        },
        _activity,
    ),
)

_GOES: Final = "goes with the person"
_WITH_ACCOUNT: Final = "goes with the account"
_KEYED: Final = "holds keyed hashes only: nobody can be read from it, and it is forgotten in a day"
COVERS: Final = {
    "accounts.User": _GOES,
    "accounts.Account": _WITH_ACCOUNT,
    "accounts.Membership": _GOES,
    "accounts.Invitation": "those to the address and into the account go",
    "accounts.OwnershipTransfer": _GOES,
    "accounts.PersonalToken": _GOES,
    "accounts.SetupLink": _GOES,
    "accounts.KnownBrowser": _GOES,
    "accounts.UnlockLink": _GOES,
    "accounts.SecondStepChoice": _GOES,
    "accounts.TotpUse": _GOES,
    "accounts.RecoveryCode": _GOES,
    "accounts.RememberedBrowser": _GOES,
    "accounts.Approval": _GOES,
    "accounts.Recovery": _GOES,
    "accounts.AddressChange": _GOES,
    "accounts.PhoneNumber": _GOES,
    "accounts.Export": _GOES,
    "accounts.Deletion": "goes when its receipt is written",
    "accounts.DoomedAccount": "goes when the receipt is written",
    "accounts.Receipt": "tells of nobody",
    "accounts.Throttle": _KEYED,
    "accounts.SpreadMark": _KEYED,
    "accounts.SpentSignIn": "random words, forgotten in a day",
    "account.EmailAddress": _GOES,
    "account.EmailConfirmation": _GOES,
    "mfa.Authenticator": _GOES,
    "usersessions.UserSession": _GOES,
    "sessions.Session": "those that name the person go",
    "notices.Mail": "those to the person's addresses and of the account go",
    "audit.Event": "emptied (docs/adr/0010)",
    "audit.Head": "a count and two digests; nobody's",
    "auth.Group": "not used",
    "auth.Permission": "not used",
    "contenttypes.ContentType": "tells of nobody",
}


def _foretell(whose: Whose) -> dict[str, int]:
    others = Membership.objects.filter(account__in=whose.accounts).exclude(user=whose.user)
    return {"members": others.count()}


def _erase(whose: Whose, most: int) -> dict[str, int]:
    # To the address, also where no person stands behind it yet: those of other accounts.
    doomed = Invitation.objects.filter(email=whose.user.email).values_list("pk", flat=True)[:most]
    gone, _kinds = Invitation.objects.filter(pk__in=list(doomed)).delete()
    return {"invitations": gone} if gone else {}


def register() -> None:
    """Have this room take part."""
    privacy.register(
        Room("accounts", tables=TABLES, covers=COVERS, foretell=_foretell, erase=_erase)
    )
