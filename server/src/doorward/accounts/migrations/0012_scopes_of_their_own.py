"""Asking devices to do things and changing settings have scopes of their own.

Until now ``devices:write`` meant all three: tokens that hold it keep what they could do.
"""

from typing import Any

from django.db import migrations

BEFORE = "devices:write"
NEW = ("commands:write", "settings:write")


def keep_what_they_could(apps: Any, _schema_editor: Any) -> None:
    """Give the new scopes to each token that could do as much."""
    for token in apps.get_model("accounts", "PersonalToken").objects.filter(
        scopes__contains=BEFORE
    ):
        held = token.scopes.split()
        if BEFORE in held:
            at = held.index(BEFORE) + 1
            held[at:at] = [scope for scope in NEW if scope not in held]
            token.scopes = " ".join(held)
            token.save(update_fields=["scopes"])


def forget_them(apps: Any, _schema_editor: Any) -> None:
    """Take the new scopes away: the code from before knows none of them."""
    for token in apps.get_model("accounts", "PersonalToken").objects.all():
        held = [scope for scope in token.scopes.split() if scope not in NEW]
        if " ".join(held) != token.scopes:
            token.scopes = " ".join(held)
            token.save(update_fields=["scopes"])


class Migration(migrations.Migration):
    dependencies = [("accounts", "0011_several_accounts")]
    operations = [migrations.RunPython(keep_what_they_could, forget_them)]
