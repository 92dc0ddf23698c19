"""Have the database itself refuse to rewrite an event; a place in the chain can be given once.

SQLite keeps no DELETE trigger: Django's test runner empties tables by DELETE there, and whoever can run SQL on a SQLite
file can replace the file. A deleted event breaks the chain on both.
"""

from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.state import StateApps

CONTENT = "at, tag, account_id, actor_id, target, ip, agent, detail, digest"

SQLITE = [
    f"""CREATE TRIGGER audit_event_content BEFORE UPDATE OF id, {CONTENT} ON audit_event
    BEGIN SELECT RAISE(ABORT, 'an audit event can not be changed'); END""",
    """CREATE TRIGGER audit_event_place BEFORE UPDATE OF seq, chain ON audit_event WHEN OLD.seq IS NOT NULL
    BEGIN SELECT RAISE(ABORT, 'an audit event keeps its place'); END""",
]
POSTGRESQL = [
    """CREATE FUNCTION audit_event_refuse() RETURNS trigger LANGUAGE plpgsql AS
    $$BEGIN RAISE EXCEPTION 'an audit event can not be changed'; END$$""",
    f"""CREATE TRIGGER audit_event_content BEFORE UPDATE OF id, {CONTENT} ON audit_event
    FOR EACH ROW EXECUTE FUNCTION audit_event_refuse()""",
    """CREATE TRIGGER audit_event_place BEFORE UPDATE OF seq, chain ON audit_event
    FOR EACH ROW WHEN (OLD.seq IS NOT NULL) EXECUTE FUNCTION audit_event_refuse()""",
    """CREATE TRIGGER audit_event_delete BEFORE DELETE ON audit_event
    FOR EACH ROW EXECUTE FUNCTION audit_event_refuse()""",
]


def guard(_apps: StateApps, editor: BaseDatabaseSchemaEditor) -> None:
    for statement in SQLITE if editor.connection.vendor == "sqlite" else POSTGRESQL:
        editor.execute(statement)


def unguard(_apps: StateApps, editor: BaseDatabaseSchemaEditor) -> None:
    if editor.connection.vendor == "sqlite":
        for name in ("audit_event_content", "audit_event_place"):
            editor.execute(f"DROP TRIGGER {name}")
    else:
        editor.execute("DROP FUNCTION audit_event_refuse() CASCADE")


class Migration(migrations.Migration):
    dependencies = [("audit", "0001_initial")]
    operations = [migrations.RunPython(guard, unguard)]
