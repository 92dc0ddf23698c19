"""Judges a password while it is typed, so that nobody learns only afterwards what is wrong with it.

It is asked over the same connection the password takes a moment later; nothing is kept or logged.
"""

from __future__ import annotations

import json
from typing import Final

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.debug import sensitive_variables
from django.views.decorators.http import require_POST

from doorward.accounts import password_rules
from doorward.accounts.models import User, canonical_email

MOST_BYTES: Final = 8 * 1024
# How many guesses (as a power of ten) each step of the meter stands for; ten is what is asked.
STEPS: Final = (6.0, 8.0, 10.0, 13.0)
WORDS: Final = (
    gettext_lazy("Guessed at once"),
    gettext_lazy("Weak"),
    gettext_lazy("Nearly"),
    gettext_lazy("Good"),
    gettext_lazy("Strong"),
)
LEAST_ACCEPTED: Final = 3


@require_POST
@sensitive_variables()
def judge(request: HttpRequest) -> HttpResponse:
    """Tell how a password would be judged: a level of 0 to 4, and in words what is wrong."""
    try:
        sent = json.loads(request.body) if len(request.body) <= MOST_BYTES else None
    except (ValueError, RecursionError):
        sent = None
    if not isinstance(sent, dict) or not isinstance(sent.get("password"), str):
        return JsonResponse({"words": _("That can't be judged.")}, status=422)
    user = _whose(request, sent.get("email"))
    alone = user is None or not password_rules.has_second_step(user)
    password = sent["password"]
    why = next((text for _code, text in _reasons(password, user, alone)), "")
    level = _level(password, user)
    # The words and the bars never say two things.
    level = min(level, LEAST_ACCEPTED - 1) if why else max(level, LEAST_ACCEPTED)
    return JsonResponse({"level": level, "word": str(WORDS[level]), "why": why})


def _reasons(password: str, user: User | None, alone: bool) -> list[tuple[str, str]]:
    return list(password_rules.reasons_against(password, user=user, alone=alone))


def _level(password: str, user: User | None) -> int:
    told = list(password_rules.context_words(user))
    found = password_rules.guesses(password, context=told)
    return sum(found >= step for step in STEPS)


def _whose(request: HttpRequest, email: object) -> User | None:
    if isinstance(request.user, User):
        return request.user
    # Somebody who signs up: only the address is known.
    return User(email=canonical_email(email[:254])) if isinstance(email, str) and email else None
