"""An event's personal part can be taken away without breaking the chain (ADR on erasing), and nothing else of it."""

from django.db import migrations, models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.state import StateApps

# What stays for ever; who and what may each go once, wholly, from an event that has its place.
FIXED = "id, at, tag, digest, who_mark, what_mark"
WHO = "account_id, actor_id, who_salt, who_erased_by"
WHAT = "target, ip, agent, detail, what_salt, what_erased_by"
WHO_GONE = """OLD.seq IS NOT NULL AND OLD.who_erased_by IS NULL AND NEW.who_salt = ''
    AND NEW.account_id IS NULL AND NEW.actor_id IS NULL AND NEW.who_erased_by IS NOT NULL"""
WHAT_GONE = """OLD.seq IS NOT NULL AND OLD.what_erased_by IS NULL AND NEW.what_salt = ''
    AND NEW.target = '' AND NEW.ip = '' AND NEW.agent = '' AND NEW.detail = '{}' AND NEW.what_erased_by IS NOT NULL"""
TRIGGERS = ("audit_event_content", "audit_event_who", "audit_event_what")
BEFORE = "at, tag, account_id, actor_id, target, ip, agent, detail, digest"


def sqlite(name: str, columns: str, allowed: str) -> str:
    when = f" WHEN NOT ({allowed})" if allowed else ""
    return f"""CREATE TRIGGER {name} BEFORE UPDATE OF {columns} ON audit_event{when}
    BEGIN SELECT RAISE(ABORT, 'an audit event can not be changed'); END"""


def postgresql(name: str, columns: str, allowed: str) -> str:
    when = f" WHEN (NOT ({allowed}))" if allowed else ""
    return f"""CREATE TRIGGER {name} BEFORE UPDATE OF {columns} ON audit_event
    FOR EACH ROW{when} EXECUTE FUNCTION audit_event_refuse()"""


def drop(editor: BaseDatabaseSchemaEditor, name: str) -> None:
    editor.execute(
        f"DROP TRIGGER {name}"
        if editor.connection.vendor == "sqlite"
        else f"DROP TRIGGER {name} ON audit_event"
    )


def guard(_apps: StateApps, editor: BaseDatabaseSchemaEditor) -> None:
    made = sqlite if editor.connection.vendor == "sqlite" else postgresql
    for statement in (
        made("audit_event_content", FIXED, ""),
        made("audit_event_who", WHO, WHO_GONE),
        made("audit_event_what", WHAT, WHAT_GONE),
    ):
        editor.execute(statement)


def unguard(_apps: StateApps, editor: BaseDatabaseSchemaEditor) -> None:
    for name in TRIGGERS:
        drop(editor, name)


def lift(_apps: StateApps, editor: BaseDatabaseSchemaEditor) -> None:
    # SQLite makes a table anew to add columns; a trigger on it would be lost or in the way.
    drop(editor, "audit_event_content")
    drop(editor, "audit_event_place")


def restore(_apps: StateApps, editor: BaseDatabaseSchemaEditor) -> None:
    made = sqlite if editor.connection.vendor == "sqlite" else postgresql
    editor.execute(made("audit_event_content", f"id, {BEFORE}", ""))
    place(_apps, editor)


def place(_apps: StateApps, editor: BaseDatabaseSchemaEditor) -> None:
    made = sqlite if editor.connection.vendor == "sqlite" else postgresql
    editor.execute(made("audit_event_place", "seq, chain", "OLD.seq IS NULL"))


def lift_place(_apps: StateApps, editor: BaseDatabaseSchemaEditor) -> None:
    drop(editor, "audit_event_place")


class Migration(migrations.Migration):
    dependencies = [("audit", "0002_written_once")]
    operations = [
        migrations.RunPython(lift, restore),
        migrations.AddField(
            "event", "who_salt", models.CharField(max_length=32, blank=True, default="")
        ),
        migrations.AddField(
            "event", "what_salt", models.CharField(max_length=32, blank=True, default="")
        ),
        migrations.AddField(
            "event", "who_mark", models.CharField(max_length=64, blank=True, default="")
        ),
        migrations.AddField(
            "event", "what_mark", models.CharField(max_length=64, blank=True, default="")
        ),
        migrations.AddField("event", "who_erased_by", models.UUIDField(null=True)),
        migrations.AddField("event", "what_erased_by", models.UUIDField(null=True)),
        migrations.RunPython(place, lift_place),
        migrations.RunPython(guard, unguard),
    ]
