"""People, accounts and who belongs to which."""

from __future__ import annotations

from typing import Any, ClassVar

from django.contrib.auth.base_user import AbstractBaseUser, BaseUserManager
from django.db import models
from django.utils.crypto import salted_hmac
from django.utils.translation import gettext_lazy as _
from uuid_utils.compat import uuid7


class UserManager(BaseUserManager["User"]):
    """Makes people with a canonical address."""

    def create_user(self, email: str, password: str | None = None, **fields: Any) -> User:
        """Store a person; without a password they can't sign in by one."""
        user = self.model(email=canonical_email(email), **fields)
        user.set_password(password)
        user.save(using=self._db)
        return user

    def get_by_natural_key(self, username: str | None) -> User:
        """Return the person with this address, whatever its case."""
        return self.get(email=canonical_email(username or ""))


def canonical_email(address: str) -> str:
    """Return the one spelling an address is stored and looked up by: stripped, lower-case."""
    return address.strip().lower()


class User(AbstractBaseUser):
    """A person who can sign in."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    email = models.EmailField(_("email address"), unique=True, max_length=254)
    name = models.CharField(_("name"), max_length=120, blank=True)
    zone = models.CharField(_("time zone"), max_length=64, blank=True)
    is_active = models.BooleanField(default=True)
    is_operator = models.BooleanField(default=False)
    created_at = models.DateTimeField(auto_now_add=True)
    # Raised by every change of a way to sign in: sessions from before it are over at once.
    epoch = models.PositiveIntegerField(default=0)
    # When the newest link to choose a password was made (seconds as in its text): older ones are
    # no good.
    newest_link = models.BigIntegerField(default=0)
    # Until when there may be something to ask this person on every page (a sign-in to approve, a
    # recovery that waits): pages look for it only then.
    asked_until = models.DateTimeField(null=True)

    objects: ClassVar[UserManager] = UserManager()
    USERNAME_FIELD = "email"
    EMAIL_FIELD = "email"
    REQUIRED_FIELDS: ClassVar[list[str]] = []

    def __str__(self) -> str:
        return self.email

    def get_full_name(self) -> str:
        """Return what to call this person."""
        return self.name or self.email

    def _get_session_auth_hash(self, secret: str | None = None) -> str:
        # What Django keeps in each session and compares at each request: a session whose password
        # or epoch is not today's is nobody's.
        return salted_hmac(
            "doorward.accounts.session",
            f"{self.epoch}|{self.password}",
            secret=secret,
            algorithm="sha256",
        ).hexdigest()


class Account(models.Model):
    """What is owned and paid for: devices, subscriptions and the people around them."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    name = models.CharField(max_length=120, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return self.name or str(self.id)


class Role(models.TextChoices):
    """What a member may do in an account."""

    OWNER = "owner", _("Owner")
    BILLING = "billing", _("Billing")
    HELPER = "helper", _("Helper")
    VIEWER = "viewer", _("Viewer")


class Shares(models.TextChoices):
    """What a member lets the account's other members know of their own devices."""

    STATE = "state", _("Name and state only")
    FINDINGS = "findings", _("Also what was found")
    PATHS = "paths", _("Also the names and places of files")


class Membership(models.Model):
    """A person's place in an account."""

    account = models.ForeignKey(Account, on_delete=models.CASCADE, related_name="memberships")
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="memberships")
    role = models.CharField(max_length=10, choices=Role.choices)
    shares = models.CharField(max_length=10, choices=Shares.choices, default=Shares.STATE)
    created_at = models.DateTimeField(auto_now_add=True)
    # When the person last chose to look at this account: where the next session begins.
    chosen_at = models.DateTimeField(null=True)

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["account", "user"], name="one_membership_per_person"),
            models.CheckConstraint(
                condition=models.Q(role__in=Role.values), name="membership_role_known"
            ),
            models.CheckConstraint(
                condition=models.Q(shares__in=Shares.values), name="membership_shares_known"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.user} ({self.role})"


class InvitationEnd(models.TextChoices):
    """What became of an invitation."""

    WAITING = "", _("Waiting")
    ACCEPTED = "accepted", _("Accepted")
    DECLINED = "declined", _("Declined")
    WITHDRAWN = "withdrawn", _("Withdrawn")


class Invitation(models.Model):
    """Somebody was asked by mail to join an account. Until they have, they have no rights in it."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    account = models.ForeignKey(Account, on_delete=models.CASCADE, related_name="invitations")
    email = models.EmailField(max_length=254)
    role = models.CharField(max_length=10, choices=Role.choices)
    digest = models.CharField(max_length=64, unique=True)
    made_by = models.ForeignKey(User, on_delete=models.SET_NULL, null=True, related_name="+")
    created_at = models.DateTimeField()
    expires_at = models.DateTimeField(db_index=True)
    end = models.CharField(max_length=10, choices=InvitationEnd.choices, blank=True)
    ended_at = models.DateTimeField(null=True)

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(
                fields=["account", "email"],
                condition=models.Q(end=""),
                name="one_waiting_invitation",
            ),
        ]

    def __str__(self) -> str:
        return f"invitation {self.pk}"


class OwnershipTransfer(models.Model):
    """An owner has offered their account to a member, who has not answered yet."""

    account = models.OneToOneField(
        Account, primary_key=True, on_delete=models.CASCADE, related_name="ownership_transfer"
    )
    giver = models.ForeignKey(User, on_delete=models.CASCADE, related_name="+")
    taker = models.ForeignKey(User, on_delete=models.CASCADE, related_name="+")
    # What the giver is afterwards.
    role_after = models.CharField(max_length=10, choices=Role.choices)
    created_at = models.DateTimeField()
    expires_at = models.DateTimeField()

    def __str__(self) -> str:
        return f"transfer of {self.account_id}"


class PersonalToken(models.Model):
    """A person's key for scripts: shown once, kept as a keyed hash, bound to its scopes."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="tokens")
    # The one account it opens; without one, the account the person belongs to longest.
    account = models.ForeignKey(Account, on_delete=models.CASCADE, null=True, related_name="+")
    name = models.CharField(max_length=80)
    digest = models.CharField(max_length=64, unique=True)
    scopes = models.CharField(max_length=200)
    created_at = models.DateTimeField()
    expires_at = models.DateTimeField()
    revoked_at = models.DateTimeField(null=True)
    last_used_at = models.DateTimeField(null=True)

    class Meta:
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["user", "-created_at"], name="tokens_of_user"),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def scope_list(self) -> list[str]:
        """What the token may do, in the order of tokens.Scope."""
        return self.scopes.split()


class SetupLink(models.Model):
    """A way in for somebody who was given an account and has no password yet: once, for 72 h."""

    user = models.OneToOneField(User, on_delete=models.CASCADE, related_name="setup_link")
    digest = models.CharField(max_length=64)
    expires_at = models.DateTimeField()

    def __str__(self) -> str:
        return f"setup of {self.user_id}"


class Throttle(models.Model):
    """One count of lockout.py. Times are milliseconds since 1970, to reckon with in SQL.

    A ladder's ``since`` is 0 once its owner was told of a sign-in during it.
    """

    key = models.CharField(primary_key=True, max_length=80)
    count = models.IntegerField()
    total = models.IntegerField(default=0)
    since = models.BigIntegerField()
    locked_until = models.BigIntegerField(default=0)
    updated = models.BigIntegerField(db_index=True)

    def __str__(self) -> str:
        return f"{self.key}: {self.count}"


class SpreadMark(models.Model):
    """One network has lately failed to sign in with one address (both as keyed hashes)."""

    network = models.CharField(max_length=45)
    login = models.CharField(max_length=40)
    at = models.DateTimeField(db_index=True)

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["network", "login"], name="one_mark_per_pair"),
        ]

    def __str__(self) -> str:
        return f"{self.network} {self.at}"


class KnownBrowser(models.Model):
    """A browser in which this person has signed in all the way; it proves itself by a cookie."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="known_browsers")
    digest = models.CharField(max_length=64, unique=True)
    agent = models.CharField(max_length=300, blank=True)
    network = models.CharField(max_length=45, blank=True)
    created_at = models.DateTimeField()
    seen_at = models.DateTimeField()
    revoked_at = models.DateTimeField(null=True)

    class Meta:
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["user", "-seen_at"], name="browsers_of_user"),
        ]

    def __str__(self) -> str:
        return f"{self.user_id} {self.agent}"


class UnlockLink(models.Model):
    """A mailed link that makes the browser it is opened in known: once, within 30 minutes."""

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="+")
    digest = models.CharField(max_length=64, unique=True)
    expires_at = models.DateTimeField(db_index=True)
    used_at = models.DateTimeField(null=True)

    def __str__(self) -> str:
        return f"{self.user_id} until {self.expires_at}"


class SecondStepChoice(models.Model):
    """What a person chose about being asked for more than their password."""

    user = models.OneToOneField(
        User, primary_key=True, on_delete=models.CASCADE, related_name="second_step_choice"
    )
    by_email = models.BooleanField(default=False)
    last_way = models.CharField(max_length=16, blank=True)
    warned_at = models.DateTimeField(null=True)

    def __str__(self) -> str:
        return f"second step of {self.user_id}"


class TotpUse(models.Model):
    """The 30-second step an authenticator app's newest accepted code was of."""

    authenticator = models.OneToOneField(
        "mfa.Authenticator", primary_key=True, on_delete=models.CASCADE, related_name="totp_use"
    )
    counter = models.BigIntegerField()

    def __str__(self) -> str:
        return f"step {self.counter}"


class RecoveryCode(models.Model):
    """One recovery code, as a keyed hash; it opens once."""

    authenticator = models.ForeignKey(
        "mfa.Authenticator", on_delete=models.CASCADE, related_name="recovery_codes"
    )
    digest = models.CharField(max_length=64, unique=True)
    used_at = models.DateTimeField(null=True)

    def __str__(self) -> str:
        return f"recovery code {self.pk}"


class RememberedBrowser(models.Model):
    """A browser in which a person is not asked for the second step again."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="remembered_browsers")
    digest = models.CharField(max_length=64, unique=True)
    agent = models.CharField(max_length=300)
    ip = models.CharField(max_length=45)
    created_at = models.DateTimeField()
    last_used_at = models.DateTimeField()
    expires_at = models.DateTimeField()

    class Meta:
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["user", "-created_at"], name="remembered_of_user"),
        ]

    def __str__(self) -> str:
        return f"remembered browser {self.pk}"


class SpentSignIn(models.Model):
    """A sign-in of several steps that was completed: its steps can't be completed again."""

    nonce = models.CharField(max_length=64, primary_key=True)
    at = models.DateTimeField(db_index=True)

    def __str__(self) -> str:
        return self.nonce


class Approval(models.Model):
    """A sign-in that asks to be approved in another session of the same person."""

    class State(models.TextChoices):
        """How it stands; only ``waiting`` and ``approved`` can still change."""

        WAITING = "waiting"
        APPROVED = "approved"
        DENIED = "denied"
        MISMATCHED = "mismatched"
        USED = "used"

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="approvals")
    number = models.PositiveSmallIntegerField()
    state = models.CharField(max_length=10, choices=State.choices, default=State.WAITING)
    asked_at = models.DateTimeField(db_index=True)
    expires_at = models.DateTimeField()
    agent = models.CharField(max_length=300, blank=True)
    ip = models.CharField(max_length=45, blank=True)

    class Meta:
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["user", "-asked_at"], name="approvals_of_user"),
        ]
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.CheckConstraint(
                condition=models.Q(number__gte=10, number__lte=99), name="approval_two_digits"
            ),
        ]

    def __str__(self) -> str:
        return f"approval {self.pk} {self.state}"


class Recovery(models.Model):
    """A person who lost their second step waits to set a new one (docs/security/recovery.md)."""

    class Kind(models.TextChoices):
        """Who vouches that it is them: their mailbox, or two operators."""

        MAILBOX = "mailbox"
        OPERATORS = "operators"

    class Ending(models.TextChoices):
        """How it ended; "" while it has not."""

        USED = "used"
        STOPPED = "stopped"
        CHANGED = "changed"
        UNNEEDED = "unneeded"
        LAPSED = "lapsed"
        REFUSED = "refused"

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="recoveries")
    kind = models.CharField(max_length=10, choices=Kind.choices)
    asked_at = models.DateTimeField()
    # Nothing while a second operator has not confirmed.
    starts_at = models.DateTimeField(null=True)
    ready_at = models.DateTimeField(null=True)
    ends_at = models.DateTimeField()
    # What the person's password, ways and address were when it began.
    as_of = models.CharField(max_length=64)
    # How many announcements were made (recovery.ANNOUNCEMENTS), and when the next one is due.
    announced = models.PositiveSmallIntegerField(default=0)
    due_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField(null=True)
    ending = models.CharField(max_length=10, choices=Ending.choices, blank=True)
    agent = models.CharField(max_length=300, blank=True)
    ip = models.CharField(max_length=45, blank=True)
    reason = models.CharField(max_length=500, blank=True)
    first_operator = models.ForeignKey(User, null=True, on_delete=models.SET_NULL, related_name="+")
    second_operator = models.ForeignKey(
        User, null=True, on_delete=models.SET_NULL, related_name="+"
    )

    class Meta:
        indexes: ClassVar[list[models.Index]] = [
            models.Index(
                fields=["due_at"],
                name="recoveries_due",
                condition=models.Q(ended_at__isnull=True),
            ),
        ]
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(
                fields=["user", "kind"],
                name="one_open_recovery_of_a_kind",
                condition=models.Q(ended_at__isnull=True),
            ),
            models.CheckConstraint(
                condition=~models.Q(second_operator=models.F("first_operator")),
                name="recovery_by_two_operators",
            ),
            models.CheckConstraint(
                condition=models.Q(starts_at__isnull=True, ready_at__isnull=True)
                | models.Q(ready_at__gt=models.F("starts_at"), ends_at__gt=models.F("ready_at")),
                name="recovery_in_order",
            ),
        ]

    def __str__(self) -> str:
        return f"recovery {self.pk} {self.ending or 'open'}"


class AddressChange(models.Model):
    """A change of the address somebody signs in with; the one before can take it back."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="address_changes")
    before = models.EmailField(max_length=254)
    after = models.EmailField(max_length=254)
    digest = models.CharField(max_length=64, unique=True)
    changed_at = models.DateTimeField()
    expires_at = models.DateTimeField(db_index=True)
    undone_at = models.DateTimeField(null=True)

    class Meta:
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["user", "-changed_at"], name="address_changes_of_user"),
        ]

    def __str__(self) -> str:
        return f"address of {self.user_id} at {self.changed_at}"


class PhoneNumber(models.Model):
    """The number a person's codes are texted to, sealed: a copy of the table tells none."""

    user = models.OneToOneField(
        User, primary_key=True, on_delete=models.CASCADE, related_name="phone_number"
    )
    sealed = models.CharField(max_length=400)
    confirmed_at = models.DateTimeField()
    last_used_at = models.DateTimeField(null=True)

    def __str__(self) -> str:
        return f"number of {self.user_id}"
