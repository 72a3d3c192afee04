"""Keep what was sealed as it was sealed, in the database itself."""

from django.apps.registry import Apps as StateApps
from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

TABLE = "recordings_recording"
FROZEN = (
    "session_id",
    "store_key",
    "secret_id",
    "signed_with_id",
    "started_at",
    "sealed_at",
    "segments",
    "bytes_in",
    "bytes_out",
    "file_bytes",
    "duration_ms",
    "root_hash",
    "sealed_how",
)


def make_triggers(_apps: StateApps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    """Create the trigger of the database in use."""
    if schema_editor.connection.vendor == "postgresql":
        changed = " OR ".join(
            f"OLD.{name} IS DISTINCT FROM NEW.{name}" for name in FROZEN
        )
        schema_editor.execute(
            f"""CREATE FUNCTION sealed_recording_is_immutable() RETURNS trigger
            LANGUAGE plpgsql AS $$
            BEGIN
              IF OLD.root_hash <> '' AND ({changed}) THEN
                RAISE EXCEPTION 'sealed_recording_is_immutable';
              END IF;
              RETURN NEW;
            END $$"""
        )
        schema_editor.execute(
            f"""CREATE TRIGGER sealed_recording_is_immutable BEFORE UPDATE ON {TABLE}
            FOR EACH ROW EXECUTE FUNCTION sealed_recording_is_immutable()"""
        )
        return
    changed = " OR ".join(f"OLD.{name} IS NOT NEW.{name}" for name in FROZEN)
    schema_editor.execute(
        f"""CREATE TRIGGER sealed_recording_is_immutable BEFORE UPDATE ON {TABLE}
        WHEN OLD.root_hash <> '' AND ({changed})
        BEGIN SELECT RAISE(ABORT, 'sealed_recording_is_immutable'); END"""
    )


class Migration(migrations.Migration):
    """There is no way back: a seal that could be moved would prove nothing."""

    dependencies = [("recordings", "0001_initial")]

    operations = [migrations.RunPython(make_triggers, elidable=False)]
