"""Which passwords are refused, and the words that say why and what would be better.

No rule asks for digits or signs and nothing expires (NIST SP 800-63B-4, 3.1.1.2): what counts is
how many guesses a guesser would need. A long sentence of one's own passes; a walk over the keyboard
does not, however long.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import zxcvbn_rs_py
from django.conf import settings
from django.core.exceptions import ValidationError
from django.utils.translation import gettext as _

from doorward.accounts import breaches, known_passwords, passwords
from doorward.accounts.models import User

# NIST SP 800-63B-4: at least 15 characters where the password stands alone, 8 beside a second step.
LEAST_ALONE: Final = 15
LEAST_WITH_SECOND_STEP: Final = 8
# zxcvbn's bounds: 10^10 guesses withstand a slow hash that was stolen, 10^8 an attack on the page.
LEAST_GUESSES_ALONE: Final = 10.0
LEAST_GUESSES_WITH_SECOND_STEP: Final = 8.0
# A context word shorter than this is in too many sentences to be refused.
SHORTEST_CONTEXT_WORD: Final = 4
# Estimating takes time that grows with the length; a password's two ends tell enough.
ESTIMATED: Final = 64


class PasswordRules:
    """Django's and allauth's password validator: the one list of reasons to refuse."""

    def validate(self, password: str, user: User | None = None) -> None:
        """Raise ValidationError with every reason in words, none of them repeating the password."""
        alone = user is None or not has_second_step(user)
        reasons = list(reasons_against(password, user=user, alone=alone))
        # Asked last: a password that is refused anyway need not be hashed for anybody.
        if not reasons and breaches.knows(password):
            reasons.append(
                (
                    "password_leaked",
                    _("This is known from a leak elsewhere. Make up a sentence of your own."),
                )
            )
        if reasons:
            raise ValidationError([ValidationError(text, code=code) for code, text in reasons])

    def get_help_text(self) -> str:
        """Return the rule as it stands beside the field."""
        return _("At least %(least)d characters. A few words of your own are easiest to keep.") % {
            "least": LEAST_ALONE
        }


def has_second_step(user: User) -> bool:
    """Tell whether signing in asks this person for more than the password."""
    from allauth.mfa.models import Authenticator

    # Recovery codes alone are no second step: they stand in for one.
    lasting = Authenticator.Type.TOTP, Authenticator.Type.WEBAUTHN
    return bool(Authenticator.objects.filter(user_id=user.pk, type__in=lasting).exists())


def reasons_against(password: str, *, user: User | None, alone: bool) -> Iterator[tuple[str, str]]:
    """Yield (code, sentence) for everything that speaks against a password."""
    least = LEAST_ALONE if alone else LEAST_WITH_SECOND_STEP
    if len(passwords.as_bytes(password)) > passwords.MOST_BYTES:
        yield (
            "password_too_long",
            _("This is longer than we can take: at most %(most)d bytes.")
            % {"most": passwords.MOST_BYTES},
        )
        return
    if len(password) < least:
        yield (
            "password_too_short",
            _("This has %(has)d characters; it takes at least %(least)d. Add a word or two.")
            % {"has": len(password), "least": least},
        )
        return
    for word in context_words(user):
        if word in password.casefold():
            yield (
                "password_too_personal",
                _("This contains “%(word)s”, which a guesser would try first. Leave it out.")
                % {"word": word},
            )
            return
    if known_passwords.contains(password):
        yield (
            "password_too_common",
            _("This is on the lists guessers begin with. Make up a sentence of your own."),
        )
        return
    bound = LEAST_GUESSES_ALONE if alone else LEAST_GUESSES_WITH_SECOND_STEP
    if guesses(password, context=list(context_words(user))) < bound:
        yield (
            "password_too_easy",
            _(
                "This follows a pattern guessers know (words in a row, keyboard, dates, repeats). "
                "Make up a sentence of your own."
            ),
        )


def guesses(password: str, *, context: list[str]) -> float:
    """Return how many guesses the password withstands, as a power of ten."""
    # Unpaired surrogates can come in by JSON, and have no place in UTF-8.
    text = password.encode("utf-8", "replace").decode()
    ends = {text[:ESTIMATED], text[-ESTIMATED:]}
    return max(float(zxcvbn_rs_py.zxcvbn(end, context).guesses_log10) for end in ends)


def context_words(user: User | None) -> Iterator[str]:
    """Yield what a guesser who knows the person or the product tries first."""
    told = [settings.PRODUCT_NAME, "doorward"]
    if user is not None:
        local, _at, domain = user.email.partition("@")
        told += [local, domain, domain.rpartition(".")[0], user.name, *user.name.split()]
    seen = set()
    for word in (text.casefold().strip() for text in told):
        if len(word) >= SHORTEST_CONTEXT_WORD and word not in seen:
            seen.add(word)
            yield word
