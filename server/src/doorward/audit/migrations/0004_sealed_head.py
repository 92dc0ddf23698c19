"""A sealed count beside the chain: a cut end is noticed. SQLite refuses to delete or replace an event, as PostgreSQL does.

Remaking the table, as SQLite does to change a column, loses its triggers: such a migration makes them anew.
"""

from django.db import migrations, models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.state import StateApps

from doorward.audit import head

# "INSERT OR REPLACE" and "UPDATE OR REPLACE" delete without telling a DELETE trigger.
SQLITE = {
    "audit_event_delete": """BEFORE DELETE ON audit_event
    BEGIN SELECT RAISE(ABORT, 'an audit event can not be deleted'); END""",
    "audit_event_insert": """BEFORE INSERT ON audit_event
    WHEN NEW.seq IS NOT NULL OR EXISTS (SELECT 1 FROM audit_event WHERE id = NEW.id)
    BEGIN SELECT RAISE(ABORT, 'an audit event can not be replaced'); END""",
    "audit_event_taken": """BEFORE UPDATE OF seq ON audit_event
    WHEN EXISTS (SELECT 1 FROM audit_event WHERE seq = NEW.seq)
    BEGIN SELECT RAISE(ABORT, 'an audit event can not be replaced'); END""",
}


def guard(_apps: StateApps, editor: BaseDatabaseSchemaEditor) -> None:
    if editor.connection.vendor == "sqlite":
        for name, rule in SQLITE.items():
            editor.execute(f"CREATE TRIGGER {name} {rule}")


def unguard(_apps: StateApps, editor: BaseDatabaseSchemaEditor) -> None:
    if editor.connection.vendor == "sqlite":
        for name in SQLITE:
            editor.execute(f"DROP TRIGGER {name}")


def begin(apps: StateApps, _editor: BaseDatabaseSchemaEditor) -> None:
    """Seal what is there already: from here on it can't become less."""
    last = apps.get_model("audit", "Event").objects.filter(seq__isnull=False).order_by("-seq")
    seq, chain = last.values_list("seq", "chain").first() or (0, head.GENESIS)
    apps.get_model("audit", "Head").objects.create(
        id=1, events=seq, chain=chain, mark=head.mark_of(seq, chain)
    )


class Migration(migrations.Migration):
    dependencies = [("audit", "0003_erasable")]
    operations = [
        migrations.CreateModel(
            name="Head",
            fields=[
                ("id", models.PositiveSmallIntegerField(primary_key=True, serialize=False)),
                ("events", models.BigIntegerField()),
                ("chain", models.CharField(max_length=64)),
                ("mark", models.CharField(max_length=64)),
            ],
        ),
        migrations.RunPython(guard, unguard),
        migrations.RunPython(begin, migrations.RunPython.noop),
    ]
