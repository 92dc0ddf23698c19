"""Sign-ins by password take turns: as many at once as hashes may be made (ADR 14)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from django.core.exceptions import RequestDataTooBig
from django.db import connection
from django.http import HttpRequest, HttpResponse
from django.http.request import UnreadablePostError

from doorward.accounts import passwords

SIGN_INS: Final = frozenset({"/login/", "/_allauth/app/v1/auth/login"})


def sign_ins_take_turns(
    get_response: Callable[[HttpRequest], HttpResponse],
) -> Callable[[HttpRequest], HttpResponse]:
    """Answer each sign-in by password in one piece; every other page at any time."""

    def answer(request: HttpRequest) -> HttpResponse:
        if not _takes_a_turn(request):
            return get_response(request)
        with passwords.turn():
            return get_response(request)

    return answer


def _takes_a_turn(request: HttpRequest) -> bool:
    if request.method != "POST" or request.path_info not in SIGN_INS:
        return False
    # SQLite answers in this very process. A database server answers from elsewhere: to wait for it
    # in a turn would leave the core idle.
    if connection.vendor != "sqlite":
        return False
    try:
        # All of it has come before it takes a turn: who sends slowly keeps only themselves waiting.
        return len(request.body) >= 0
    except (UnreadablePostError, RequestDataTooBig):
        # Refused where everything is that can't be read.
        return False
