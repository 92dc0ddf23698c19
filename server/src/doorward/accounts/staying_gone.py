"""What was deleted while a request had it in its hands stays deleted.

Django writes a row that it finds no longer there anew: a passkey that its owner removed would be
back, and sign in, by a request that only meant to rename it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.db import DatabaseError, models, transaction


class Gone(Exception):
    """What was to be stored has been deleted meanwhile. Edges answer it as not found."""


def stays_gone(save: Callable[..., None]) -> Callable[..., None]:
    """Return this model's ``save``, which writes a row that was read only while it is there.

    One statement, so that there is no moment in between. It raises Gone.
    """

    @wraps(save)
    def saved(row: models.Model, **how: Any) -> None:
        if row._state.adding or how.get("force_insert"):  # noqa: SLF001 - Django documents _state
            save(row, **how)
            return
        try:
            save(row, **{**how, "force_update": True})
        except DatabaseError as error:
            # Django has no name for it. What the database itself refuses is a subclass.
            if type(error) is not DatabaseError:
                raise
            # No statement failed, there was nothing to change: whoever catches Gone may go on.
            if transaction.get_connection().in_atomic_block:
                transaction.set_rollback(False)
            raise Gone(f"{row._meta.label} {row.pk}") from None  # noqa: SLF001 - likewise

    return saved


def install() -> None:
    """Have it so for every row of this room, and for allauth's that open a door."""
    from allauth.account.models import EmailAddress
    from allauth.mfa.models import Authenticator
    from allauth.usersessions.models import UserSession
    from django.apps import apps

    own = apps.get_app_config("accounts").get_models()
    for model in (*own, EmailAddress, Authenticator, UserSession):
        if not hasattr(model.save, "__wrapped__"):
            model.save = stays_gone(model.save)
