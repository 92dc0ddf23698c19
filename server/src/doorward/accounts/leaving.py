"""Deleting a person, with the account they own: asked for, announced, cancellable, then for good.

Seven days pass between asking and deleting. Then the worker closes the account first (no session,
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
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import structlog
from allauth.usersessions.models import UserSession
from django.conf import settings
from django.contrib.sessions.models import Session
from django.db import IntegrityError, transaction
from django.db.models import F, Q
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from doorward.accounts import exports, members, privacy, sessions
from doorward.accounts.models import Account, Membership, OwnershipTransfer, User
from doorward.accounts.origin import Origin
from doorward.accounts.privacy import Whose
from doorward.accounts.privacy_rows import Deletion, Export, Receipt
from doorward.accounts.session_store import SessionStore
from doorward.audit import erasure, trail
from doorward.notices import forgetting
from doorward.notices import letter as post_office
from doorward.notices.letter import Letter

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


def foretell(whose: Whose) -> dict[str, int]:
    """Return how many things of each kind would be deleted now, for the page that asks."""
    told: dict[str, int] = {}
    for room in reversed(privacy.rooms()):
        told |= room.foretell(whose)
    return told


@transaction.atomic
def ask(user: User, *, keep_session: str | None, origin: Origin) -> Deletion:
    """Have this person deleted in seven days, and the account if they alone own it.

    Every session but this one ends, and who belongs to the account is told. Asked again, the first
    date stays. Raises LastOperator.
    """
    if user.is_operator and not others_operate(user):
        raise LastOperator
    found = pending(user)
    if found is not None:
        return found
    whose = privacy.whose(user)
    now = timezone.now()
    try:
        with transaction.atomic():
            _release(whose)
            deletion = Deletion.objects.create(
                user_id=user.pk,
                account_id=whose.account.pk if whose.account else None,
                asked_at=now,
                due_at=now + GRACE,
            )
    except IntegrityError:
        # Asked in two tabs at once.
        return Deletion.objects.get(user_id=user.pk)
    sessions.end_others(user, keep=keep_session, ip=origin.ip, agent=origin.agent)
    # Every page asks until then whether to keep the account.
    later = Q(asked_until__isnull=True) | Q(asked_until__lt=deletion.due_at)
    User.objects.filter(later, pk=user.pk).update(asked_until=deletion.due_at)
    trail.record(
        "account.deletion.asked",
        account=whose.account,
        actor=user,
        ip=origin.ip,
        agent=origin.agent,
        due=deletion.due_at,
    )
    post_office.post(_asked_letter(deletion), to=user.email)
    for member in _others(whose):
        post_office.post(_member_letter(deletion, user), to=member.email)
    return deletion


@transaction.atomic
def cancel(user: User, *, origin: Origin) -> bool:
    """Keep everything as it is; tells whether a deletion was asked for. Raises TooLate."""
    found = Deletion.objects.select_for_update().filter(user_id=user.pk).first()
    if found is None:
        return False
    if found.closed_at is not None:
        raise TooLate
    found.delete()
    trail.record(
        "account.deletion.cancelled",
        account=found.account_id,
        actor=user,
        ip=origin.ip,
        agent=origin.agent,
    )
    post_office.post(_cancelled_letter(), to=user.email)
    for member in _others(privacy.whose(user)):
        post_office.post(_member_cancelled_letter(), to=member.email)
    return True


def others_operate(user: User) -> bool:
    """Tell whether another person is an operator too."""
    return User.objects.filter(is_operator=True, is_active=True).exclude(pk=user.pk).exists()


def _others(whose: Whose) -> list[User]:
    if whose.account is None:
        return []
    places = Membership.objects.filter(account=whose.account).exclude(user=whose.user)
    return [place.user for place in places.select_related("user")]


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
    account = Account.objects.filter(pk=found.account_id).first() if found.account_id else None
    whose = Whose(user, account)
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
    """Look again at what is this person's alone: the account may have another owner by now.

    An account that has got one stays. One that has become theirs alone goes too, but nobody in it
    was told: they are, and the days of grace begin anew, which False tells.
    """
    for account in Account.objects.filter(memberships__user=user).order_by("id"):
        members.lock(account)
    whose = privacy.whose(user)
    goes = whose.account.pk if whose.account is not None else None
    if goes == deletion.account_id:
        return True
    stays = Account.objects.filter(pk=deletion.account_id).first() if deletion.account_id else None
    _release(whose)
    deletion.account_id = goes
    deletion.save(update_fields=["account_id"])
    if stays is not None:
        for member in _others(Whose(user, stays)):
            post_office.post(_member_cancelled_letter(), to=member.email)
    others = _others(whose)
    if not others:
        return True
    deletion.due_at, deletion.lease_until = now + GRACE, None
    deletion.save(update_fields=["due_at", "lease_until"])
    post_office.post(_asked_letter(deletion), to=user.email)
    for member in others:
        post_office.post(_member_letter(deletion, user), to=member.email)
    return False


def _release(whose: Whose) -> None:
    # Somebody who owned it before asked to be deleted with it, and no longer can be.
    if whose.account is not None:
        waiting = Deletion.objects.filter(account_id=whose.account.pk, closed_at__isnull=True)
        waiting.exclude(user_id=whose.user.pk).update(account_id=None)


def _close(whose: Whose) -> None:
    """Let nothing in any more: the person, their programs, and the devices that go."""
    User.objects.filter(pk=whose.user.pk).update(is_active=False, epoch=F("epoch") + 1)
    keys = list(UserSession.objects.filter(user=whose.user).values_list("session_key", flat=True))
    Session.objects.filter(session_key__in=keys).delete()
    # Nobody takes over what is being deleted.
    OwnershipTransfer.objects.filter(account=whose.account, account__isnull=False).delete()
    for room in privacy.rooms():
        room.close(whose)


def _finish(deletion: Deletion, whose: Whose, now: datetime) -> None:
    user, account = whose.user, whose.account
    # Deleted objects have no id any more.
    person, account_id = user.pk, account.pk if account else None
    to, others = user.email, [member.email for member in _others(whose)]
    for export in Export.objects.filter(Q(user=user) | Q(account=account, account__isnull=False)):
        exports.forget(export)
    _forget_sessions(user)
    addresses = {user.email, *user.address_changes.values_list("before", flat=True)}
    counts = Counter(deletion.counts)
    counts["mails"] += forgetting.forget(addresses=addresses, account=account_id, names=[user.name])
    if account is not None:
        counts["members"] += Membership.objects.filter(account=account).count()
        account.delete()
        counts["accounts"] += 1
    user.delete()
    counts["persons"] += 1
    receipt_id = deletion.pk
    counts["events"] += erasure.erase(
        receipt_id,
        accounts=[account_id] if account_id else [],
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
    letter = _receipt_letter(counts, checksum, secret)
    mails = [post_office.post(letter, to=to, forget=True)]
    mails += [post_office.post(_member_gone_letter(), to=member) for member in others]
    receipt.mails = [str(mails[0].pk)]
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


# -- mails -----------------------------------------------------------------------------------------


def _day(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def _asked_letter(deletion: Deletion) -> Letter:
    return Letter(
        kind="account.deletion_asked",
        subject=_("Your account will be deleted on %(day)s")
        % {"day": f"{deletion.due_at:%Y-%m-%d}"},
        lines=[
            _("You asked for it, or somebody signed in as you. Until %(when)s you can stop it.")
            % {"when": _day(deletion.due_at)},
            _("All other sessions were ended. Your devices stay protected until then."),
        ],
        link=f"{settings.SITE_URL}/account/privacy/",
        link_label=_("Sign in to keep the account"),
        closing=(
            _("If it wasn't you, keep the account and choose a new password at once."),
            _("Want a copy first? It is on the same page."),
        ),
    )


def _cancelled_letter() -> Letter:
    return Letter(
        kind="account.deletion_cancelled",
        subject=_("Your account stays"),
        lines=[_("The deletion was cancelled. Nothing was deleted.")],
        link=f"{settings.SITE_URL}/password/reset/",
        link_label=_("If it wasn't you, choose a new password at once"),
        closing=(_("If it was you, there is nothing to do."),),
    )


def _member_letter(deletion: Deletion, owner: User) -> Letter:
    return Letter(
        kind="account.deletion_member",
        subject=_("An account you belong to will be deleted"),
        lines=[
            _("%(owner)s asked to delete the account you belong to, on %(when)s.")
            % {"owner": owner.get_full_name(), "when": _day(deletion.due_at)},
            _("Its devices and reports go with it. How you sign in stays yours."),
        ],
        link=f"{settings.SITE_URL}/account/privacy/",
        link_label=_("Get a copy of what is yours"),
        closing=(_("Only an owner can stop it: ask them."),),
    )


def _member_cancelled_letter() -> Letter:
    return Letter(
        kind="account.deletion_member_cancelled",
        subject=_("An account you belong to stays"),
        lines=[_("The deletion that was announced to you was cancelled. Nothing was deleted.")],
        closing=(_("There is nothing to do."),),
    )


def _member_gone_letter() -> Letter:
    return Letter(
        kind="account.deletion_member_done",
        subject=_("An account you belonged to was deleted"),
        lines=[_("Its devices and reports are gone. How you sign in stays yours.")],
        link=f"{settings.SITE_URL}/",
        link_label=_("Sign in"),
        closing=(_("There is nothing to do."),),
    )


def _receipt_letter(counts: dict[str, int], checksum: str, secret: str) -> Letter:
    return Letter(
        kind="account.deleted",
        subject=_("Your account was deleted"),
        lines=[
            _("Deleted for good: %(what)s.") % {"what": ", ".join(words_for(counts))},
            _("The receipt's SHA-256 is %(sum)s.") % {"sum": checksum},
        ],
        link=receipt_link(secret),
        link_label=_("Download the receipt"),
        closing=(
            _("The receipt holds no personal data. Keep it as proof."),
            _("Agents on your computers go on protecting them; uninstall them when you like."),
            _("This mail is the last one, and your address is deleted with it."),
        ),
    )


def receipt_link(secret: str) -> str:
    """Return the mailed address of a receipt."""
    return f"{settings.SITE_URL}/deleted/{secret}/"
