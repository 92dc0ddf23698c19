"""What sessions hold is sealed, and requests that were kept in them are gone.

Until now it was signed only, so that whoever had a copy of the table could read it: the key of a
reset link that was just being used, and whole requests, with passwords, from people who were asked
again who they were.
"""

from typing import Any

from django.db import migrations

KEPT_REQUEST = "account_reauthentication_state"
AT_ONCE = 100


def seal(apps: Any, _schema_editor: Any) -> None:
    """Seal each session; end those that can't be read, and those that held nothing else."""
    from doorward.accounts.session_store import SEALED, SessionStore

    rows = apps.get_model("sessions", "Session").objects
    store = SessionStore()
    while True:
        signed = rows.exclude(session_data__startswith=SEALED)[:AT_ONCE]
        found = list(signed.values_list("session_key", "session_data"))
        for key, data in found:
            held = store.decode(data)
            held.pop(KEPT_REQUEST, None)
            row = rows.filter(session_key=key, session_data=data)
            if held:
                row.update(session_data=store.encode(held))
            else:
                row.delete()
        if not found:
            return


def end(apps: Any, _schema_editor: Any) -> None:
    """End every session: the code from before reads none that is sealed."""
    apps.get_model("sessions", "Session").objects.all().delete()


class Migration(migrations.Migration):
    dependencies = [("accounts", "0012_scopes_of_their_own"), ("sessions", "0001_initial")]
    operations = [migrations.RunPython(seal, end)]
