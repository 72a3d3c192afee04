"""Triggers that hold an invariant outlive every migration after them.

SQLite rebuilds a table to add a column that may not be null, or to change one, and its
triggers are silently gone. A migration that does so has to make them again.
"""

import inspect
import re
from typing import cast

import pytest
from django.apps import apps
from django.db import connection
from django.db.migrations import RunPython, RunSQL
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.state import StateApps

MADE = re.compile(r"CREATE TRIGGER (\w+).*? ON (\w+)", re.DOTALL)
DROPPED = re.compile(r"DROP TRIGGER (?:IF EXISTS )?(\w+)")

pytestmark = [pytest.mark.django_db, pytest.mark.both_databases]


def statements(operation: object) -> list[str]:
    """Return what a migration's operation says to this database about triggers."""
    if isinstance(operation, RunSQL):
        return [str(operation.sql)]
    if not isinstance(operation, RunPython):
        return []
    module = inspect.getmodule(operation.code)
    if module is None or "TRIGGER" not in inspect.getsource(module):
        return []
    editor = connection.schema_editor(collect_sql=True)
    operation.code(cast(StateApps, apps), editor)
    return editor.collected_sql


def promised() -> dict[str, str]:
    """Return the triggers that the migrations make, with their table."""
    loader = MigrationLoader(connection)
    found: dict[str, str] = {}
    for leaf in sorted(loader.graph.leaf_nodes()):
        for key in loader.graph.forwards_plan(leaf):
            for operation in loader.graph.nodes[key].operations:
                for statement in statements(operation):
                    for name in DROPPED.findall(statement):
                        found.pop(name, None)
                    found.update(MADE.findall(statement))
    return found


def present() -> dict[str, str]:
    """Return the triggers that are there, with their table."""
    if connection.vendor == "sqlite":
        asked = "SELECT name, tbl_name FROM sqlite_master WHERE type = 'trigger'"
    else:
        asked = (
            "SELECT tgname, tgrelid::regclass::text FROM pg_trigger "
            "WHERE NOT tgisinternal"
        )
    with connection.cursor() as cursor:
        cursor.execute(asked)
        return dict(cursor.fetchall())


def missing() -> set[str]:
    here = present()
    return {name for name, table in promised().items() if here.get(name) != table}


def test_every_trigger_of_the_migrations_is_there() -> None:
    assert {"audit_auditevent", "recordings_recording"} <= set(promised().values())
    assert missing() == set()


def test_one_that_was_lost_would_be_seen() -> None:
    on = "" if connection.vendor == "sqlite" else " ON audit_auditevent"
    with connection.cursor() as cursor:
        cursor.execute(f"DROP TRIGGER ledger_is_never_changed{on}")
    assert missing() == {"ledger_is_never_changed"}
