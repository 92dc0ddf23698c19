"""Deleting a person, with the accounts they alone own: asked for, announced, then for good.

Seven days pass between asking and deleting. Then the worker closes what goes first (no session,
no token, no device works any more), lets each room forget a bounded number of rows in each
transaction, and deletes the person together with writing the receipt. What is gone is counted in
the transaction in which it goes, so a killed worker loses and doubles nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import structlog
from allauth.usersessions.models import UserSession
from django.conf import settings
from django.contrib.sessions.models import Session
from django.db import IntegrityError, transaction
from django.db.models import Exists, F, OuterRef, Q
from django.utils import timezone
from django.utils.translation import ngettext

from doorward.accounts import exports, members, privacy, sessions
from doorward.accounts import leaving_letters as letters
from doorward.accounts.member_letters import name_of
from doorward.accounts.models import Account, Membership, OwnershipTransfer, Role, User
from doorward.accounts.origin import Origin
from doorward.accounts.privacy import Whose
from doorward.accounts.privacy_rows import Deletion, DoomedAccount, Export, Receipt
from doorward.accounts.session_store import SessionStore
from doorward.audit import erasure, trail
from doorward.notices import forgetting
from doorward.notices import letter as post_office

log = structlog.get_logger(__name__)

GRACE: Final = timedelta(days=7)
LEASE: Final = timedelta(minutes=5)
SETTLE: Final = timedelta(seconds=10)
"""Between closing and deleting: requests under way end, gateways learn that devices are refused."""
ROWS_AT_ONCE: Final = 2000
STEPS_A_TURN: Final = 20
RECEIPT_MAIL_KEPT: Final = timedelta(days=7)
"""Where mail is files in a folder, the receipt's own lies there this long."""
RECEIPT_FORMAT: Final = "doorward-deletion-receipt/1"
SECRET_BYTES: Final = 24


class LastOperator(Exception):
    """The only operator can't be deleted: nobody could look after the server any more."""


class TooLate(Exception):
    """The deleting has begun."""


def pending(user: User) -> Deletion | None:
    """Return the deletion this person has asked for, if any; by one query."""
    return Deletion.objects.filter(user_id=user.pk).first()


def goes_at(account: Account) -> datetime | None:
    """Return when the account is deleted, if the only one who owns it asked for that; one query."""
    owners = Membership.objects.filter(account=account, role=Role.OWNER)
    return (
        Deletion.objects.filter(doomed__account_id=account.pk)
        # It stays with whoever owns it by now, whatever was asked for before.
        .filter(Exists(owners.filter(user_id=OuterRef("user_id"))))
        .exclude(Exists(owners.exclude(user_id=OuterRef("user_id"))))
        .values_list("due_at", flat=True)
        .first()
    )


def foretell(whose: Whose) -> dict[str, int]:
    """Return how many things of each kind would be deleted now, for the page that asks."""
    told: dict[str, int] = {}
    for room in reversed(privacy.rooms()):
        told |= room.foretell(whose)
    return told


@transaction.atomic
def ask(user: User, *, keep_session: str | None, origin: Origin) -> Deletion:
    """Have this person deleted in seven days, with every account that they alone own.

    Every session but this one ends, and who belongs to one of the accounts is told. Asked again,
    the first date stays. Raises LastOperator.
    """
    if user.is_operator and not others_operate(user):
        raise LastOperator
    sessions.must_still_be_in(user)
    found = pending(user)
    if found is not None:
        return found
    whose = privacy.whose(user)
    now = timezone.now()
    try:
        with transaction.atomic():
            _release(whose)
            deletion = Deletion.objects.create(user_id=user.pk, asked_at=now, due_at=now + GRACE)
            _doom(deletion, whose.accounts)
    except IntegrityError:
        # Asked in two tabs at once.
        return Deletion.objects.get(user_id=user.pk)
    sessions.end_others(user, keep=keep_session, ip=origin.ip, agent=origin.agent)
    # Every page asks until then whether to keep the account.
    later = Q(asked_until__isnull=True) | Q(asked_until__lt=deletion.due_at)
    User.objects.filter(later, pk=user.pk).update(asked_until=deletion.due_at)
    for account in whose.accounts or (None,):
        trail.record(
            "account.deletion.asked",
            account=account,
            actor=user,
            ip=origin.ip,
            agent=origin.agent,
            due=deletion.due_at,
        )
    post_office.post(letters.asked(deletion), to=user.email)
    _tell_members(deletion, whose)
    return deletion


@transaction.atomic
def cancel(user: User, *, origin: Origin) -> bool:
    """Keep everything as it is; tells whether a deletion was asked for. Raises TooLate."""
    sessions.must_still_be_in(user)
    found = Deletion.objects.select_for_update().filter(user_id=user.pk).first()
    if found is None:
        return False
    if found.closed_at is not None:
        raise TooLate
    kept = _going(found)
    found.delete()
    for account in kept or (None,):
        trail.record(
            "account.deletion.cancelled",
            account=account,
            actor=user,
            ip=origin.ip,
            agent=origin.agent,
        )
    post_office.post(letters.cancelled(), to=user.email)
    _tell_it_stays(Whose(user, kept))
    return True


def others_operate(user: User) -> bool:
    """Tell whether another person is an operator too."""
    return User.objects.filter(is_operator=True, is_active=True).exclude(pk=user.pk).exists()


def _others(whose: Whose) -> list[Membership]:
    places = Membership.objects.filter(account__in=whose.accounts).exclude(user=whose.user)
    return list(places.select_related("user", "account").order_by("account", "created_at", "id"))


def _tell_members(deletion: Deletion, whose: Whose) -> None:
    for place in _others(whose):
        said = letters.member(deletion, whose.user, place.account)
        # Of the account, so that the mail goes with it.
        post_office.post(said, to=place.user.email, account=place.account_id)


def _tell_it_stays(whose: Whose) -> None:
    for place in _others(whose):
        said = letters.member_cancelled(place.account, whose.user)
        post_office.post(said, to=place.user.email, account=place.account_id)


def _going(deletion: Deletion) -> tuple[Account, ...]:
    """Return the accounts that go with this person, oldest first; by one query."""
    doomed = deletion.doomed.values("account_id")
    return tuple(Account.objects.filter(pk__in=doomed).order_by("created_at", "id"))


def _doom(deletion: Deletion, accounts: Iterable[Account]) -> None:
    DoomedAccount.objects.bulk_create(
        [DoomedAccount(deletion=deletion, account_id=account.pk) for account in accounts]
    )


# -- the worker's part -----------------------------------------------------------------------------


def delete_due(now: datetime) -> int:
    """Take the deletion that is due longest some steps further; returns how many steps."""
    deletion = _claim(now)
    if deletion is None:
        return 0
    steps = 0
    while steps < STEPS_A_TURN:
        steps += 1
        try:
            if _step(deletion, now):
                return steps
        except erasure.NotSealed:
            break
    Deletion.objects.filter(pk=deletion.pk, lease_until=deletion.lease_until).update(
        lease_until=None
    )
    return steps


def forget_mail(now: datetime) -> int:
    """Delete the files of receipts' mails when their days are over; returns how many."""
    gone = 0
    for receipt in Receipt.objects.filter(made_at__lte=now - RECEIPT_MAIL_KEPT).exclude(mails=[]):
        gone += forgetting.delete_files(receipt.mails)
        Receipt.objects.filter(pk=receipt.pk).update(mails=[])
    return gone


@transaction.atomic
def _claim(now: datetime) -> Deletion | None:
    free = Q(lease_until__isnull=True) | Q(lease_until__lte=now)
    open_or_settled = Q(closed_at__isnull=True) | Q(closed_at__lte=now - SETTLE)
    due = Deletion.objects.filter(free & open_or_settled, due_at__lte=now).order_by("due_at")
    deletion = due.select_for_update(skip_locked=True).first()
    if deletion is None:
        return None
    deletion.lease_until = now + LEASE
    deletion.save(update_fields=["lease_until"])
    return deletion


@transaction.atomic
def _step(deletion: Deletion, now: datetime) -> bool:
    """Do one step in one transaction; tells whether this turn is over."""
    # Nobody cancels and no other worker deletes while this step is made.
    found = Deletion.objects.select_for_update().filter(pk=deletion.pk).first()
    if found is None or found.lease_until != deletion.lease_until:
        return True
    user = User.objects.filter(pk=found.user_id).first()
    if user is None:
        # Somebody deleted the person by other means: nothing is left to do.
        found.delete()
        return True
    if found.closed_at is None and not _still_goes(found, user, now):
        return True
    whose = Whose(user, _going(found))
    if found.closed_at is None:
        _close(whose)
        Deletion.objects.filter(pk=found.pk).update(closed_at=now, lease_until=None)
        return True
    for room in privacy.rooms():
        gone = room.erase(whose, ROWS_AT_ONCE)
        if gone:
            counts = Counter(found.counts)
            counts.update(gone)
            Deletion.objects.filter(pk=found.pk).update(counts=dict(counts))
            return False
    _finish(found, whose, now)
    return True


def _still_goes(deletion: Deletion, user: User, now: datetime) -> bool:
    """Look again at what is this person's alone: an account may have another owner by now.

    An account that has got one stays. One that has become theirs alone goes too, but nobody in it
    was told: they are, and the days of grace begin anew, which False tells.
    """
    for account in Account.objects.filter(memberships__user=user).order_by("id"):
        members.lock(account)
    whose = privacy.whose(user)
    foreseen = set(deletion.doomed.values_list("account_id", flat=True))
    fresh = Whose(user, tuple(each for each in whose.accounts if each.pk not in foreseen))
    going = {account.pk for account in whose.accounts}
    stays = tuple(account for account in _going(deletion) if account.pk not in going)
    _release(whose)
    deletion.doomed.exclude(account_id__in=going).delete()
    _doom(deletion, fresh.accounts)
    _tell_it_stays(Whose(user, stays))
    if not _others(fresh):
        return True
    deletion.due_at, deletion.lease_until = now + GRACE, None
    deletion.save(update_fields=["due_at", "lease_until"])
    post_office.post(letters.asked(deletion), to=user.email)
    # Those of the other accounts too: the day they were told has changed.
    _tell_members(deletion, whose)
    return False


def _release(whose: Whose) -> None:
    # Somebody who owned one before asked to be deleted with it, and no longer can be.
    theirs = [account.pk for account in whose.accounts]
    waiting = DoomedAccount.objects.filter(account_id__in=theirs, deletion__closed_at__isnull=True)
    waiting.exclude(deletion__user_id=whose.user.pk).delete()


def _close(whose: Whose) -> None:
    """Let nothing in any more: the person, their programs, and the devices that go."""
    User.objects.filter(pk=whose.user.pk).update(is_active=False, epoch=F("epoch") + 1)
    keys = list(UserSession.objects.filter(user=whose.user).values_list("session_key", flat=True))
    Session.objects.filter(session_key__in=keys).delete()
    # Nobody takes over what is being deleted.
    OwnershipTransfer.objects.filter(account__in=whose.accounts).delete()
    for room in privacy.rooms():
        room.close(whose)


def _finish(deletion: Deletion, whose: Whose, now: datetime) -> None:
    user = whose.user
    # Deleted objects have no id any more.
    person, theirs = user.pk, [account.pk for account in whose.accounts]
    to, others = user.email, [(each.user.email, name_of(each.account)) for each in _others(whose)]
    for export in Export.objects.filter(Q(user=user) | Q(accounts__in=theirs)).distinct():
        exports.forget(export)
    _forget_sessions(user)
    addresses = {user.email, *user.address_changes.values_list("before", flat=True)}
    counts = Counter(deletion.counts)
    counts["mails"] += forgetting.forget(addresses=addresses, accounts=theirs, names=[user.name])
    counts["members"] += Membership.objects.filter(account__in=theirs).count()
    counts["accounts"] += len(theirs)
    for account in whose.accounts:
        account.delete()
    user.delete()
    counts["persons"] += 1
    receipt_id = deletion.pk
    counts["events"] += erasure.erase(
        receipt_id,
        accounts=theirs,
        persons=[person],
        mentions=[*addresses, str(person)],
        receipt=str(receipt_id),
    )
    text = _receipt_text(deletion, now, counts)
    secret = secrets.token_urlsafe(SECRET_BYTES)
    checksum = hashlib.sha256(text.encode()).hexdigest()
    # The chain holds the receipt's checksum: nobody can make another one later.
    trail.record("account.deleted", receipt=str(receipt_id), sha256=checksum)
    receipt = Receipt.objects.create(
        id=receipt_id, digest=digest(secret), text=text, sha256=checksum, made_at=now
    )
    letter = letters.receipt(words_for(counts), checksum, secret)
    mails = [post_office.post(letter, to=to, forget=True)]
    mails += [post_office.post(letters.member_gone(name), to=member) for member, name in others]
    # They name what is gone: where mail lies in a folder, their files go with the receipt's.
    receipt.mails = [str(mail.pk) for mail in mails]
    receipt.save(update_fields=["mails"])
    deletion.delete()
    log.info("account.deleted", receipt=str(receipt_id))


def _forget_sessions(user: User) -> None:
    """Delete sign-ins that were begun and hold this person's id or address."""
    store = SessionStore()
    words = (str(user.pk), user.email)
    doomed = []
    for session in Session.objects.iterator(chunk_size=1000):
        held = json.dumps(store.decode(session.session_data), default=str)
        if any(word in held for word in words):
            doomed.append(session.session_key)
    Session.objects.filter(session_key__in=doomed).delete()


# -- the receipt -----------------------------------------------------------------------------------


def _receipt_text(deletion: Deletion, now: datetime, counts: dict[str, int]) -> str:
    content: dict[str, Any] = {
        "format": RECEIPT_FORMAT,
        "receipt": str(deletion.pk),
        "product": settings.PRODUCT_NAME,
        "site": settings.SITE_URL,
        "asked_at": deletion.asked_at.astimezone(UTC).isoformat(timespec="seconds"),
        "deleted_at": now.astimezone(UTC).isoformat(timespec="seconds"),
        "deleted": {name: count for name, count in sorted(counts.items()) if count},
    }
    return json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def receipt_of(secret: str) -> Receipt | None:
    """Return the receipt whose mailed link holds this secret."""
    wanted = digest(secret)
    found = Receipt.objects.filter(digest=wanted).first()
    if found is None or not hmac.compare_digest(found.digest, wanted):
        return None
    return found


def is_genuine(receipt: Receipt) -> bool:
    """Tell whether the receipt's text is what its checksum was made of."""
    return hmac.compare_digest(hashlib.sha256(receipt.text.encode()).hexdigest(), receipt.sha256)


def counts_of(receipt: Receipt) -> dict[str, int]:
    """Return how many things of each kind were deleted."""
    deleted: dict[str, int] = json.loads(receipt.text)["deleted"]
    return deleted


def said(receipt: Receipt, name: str) -> datetime:
    """Return one of the receipt's two moments: ``asked_at`` or ``deleted_at``."""
    return datetime.fromisoformat(json.loads(receipt.text)[name])


def digest(secret: str) -> str:
    """Return what is stored of the secret in a receipt's link."""
    return hashlib.blake2b(
        secret.encode("utf-8", "surrogatepass"),
        key=settings.FIELD_KEY,
        person=b"doorward-receipt",
        digest_size=32,
    ).hexdigest()


def words_for(counts: dict[str, int]) -> list[str]:
    """Return each count as people say it."""
    return [words(counts[name]) for name, words in WORDS.items() if counts.get(name)]


WORDS: Final[dict[str, Callable[[int], str]]] = {
    "persons": lambda n: ngettext("%(n)d person", "%(n)d people", n) % {"n": n},
    "accounts": lambda n: ngettext("%(n)d account", "%(n)d accounts", n) % {"n": n},
    "members": lambda n: ngettext("%(n)d membership", "%(n)d memberships", n) % {"n": n},
    "devices": lambda n: ngettext("%(n)d device", "%(n)d devices", n) % {"n": n},
    "scans": lambda n: ngettext("%(n)d scan", "%(n)d scans", n) % {"n": n},
    "threats": lambda n: ngettext("%(n)d threat", "%(n)d threats", n) % {"n": n},
    "remediations": lambda n: ngettext("%(n)d action taken", "%(n)d actions taken", n) % {"n": n},
    "subscriptions": lambda n: ngettext("%(n)d subscription", "%(n)d subscriptions", n) % {"n": n},
    "tickets": lambda n: (
        ngettext("%(n)d message to support", "%(n)d messages to support", n) % {"n": n}
    ),
    "invitations": lambda n: ngettext("%(n)d invitation", "%(n)d invitations", n) % {"n": n},
    "mails": lambda n: ngettext("%(n)d mail", "%(n)d mails", n) % {"n": n},
    "events": lambda n: ngettext("%(n)d line of activity", "%(n)d lines of activity", n) % {"n": n},
}
