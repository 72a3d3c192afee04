"""Make the ledger append-only in the database itself, on SQLite and PostgreSQL."""

from django.apps.registry import Apps as StateApps
from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

TABLE = "audit_auditevent"

SQLITE = [
    f"""CREATE TRIGGER ledger_is_never_changed BEFORE UPDATE ON {TABLE}
    BEGIN SELECT RAISE(ABORT, 'ledger_is_append_only'); END""",
    f"""CREATE TRIGGER ledger_is_never_deleted BEFORE DELETE ON {TABLE}
    BEGIN SELECT RAISE(ABORT, 'ledger_is_append_only'); END""",
]

POSTGRESQL = [
    """CREATE FUNCTION ledger_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN RAISE EXCEPTION 'ledger_is_append_only'; END $$""",
    f"""CREATE TRIGGER ledger_is_never_changed BEFORE UPDATE OR DELETE ON {TABLE}
    FOR EACH ROW EXECUTE FUNCTION ledger_is_append_only()""",
    f"""CREATE TRIGGER ledger_is_never_emptied BEFORE TRUNCATE ON {TABLE}
    FOR EACH STATEMENT EXECUTE FUNCTION ledger_is_append_only()""",
]


def make_triggers(_apps: StateApps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    """Create the triggers of the database in use."""
    statements = (
        POSTGRESQL if schema_editor.connection.vendor == "postgresql" else SQLITE
    )
    for statement in statements:
        schema_editor.execute(statement)


class Migration(migrations.Migration):
    """There is no way back: a ledger that could be altered would prove nothing."""

    dependencies = [("audit", "0001_initial")]

    operations = [migrations.RunPython(make_triggers, elidable=False)]
