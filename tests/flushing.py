"""Emptying the tables between tests, which the ledger's own triggers would refuse.

Only tests do this, with the rights of the tables' owner: the triggers are put back as
they were in the same step.
"""

from collections.abc import Callable

import pytest
from django.db import connection
from django.db.backends.base.operations import BaseDatabaseOperations

_TABLES = ("audit_auditevent", "recordings_recording")


def allow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Django's flush through for as long as `monkeypatch` lives."""
    original = BaseDatabaseOperations.execute_sql_flush

    def flush(self: BaseDatabaseOperations, sql_list: list[str]) -> None:
        around = (
            _without_triggers_postgresql
            if self.connection.vendor == "postgresql"
            else _without_triggers_sqlite
        )
        around(lambda: original(self, sql_list))

    monkeypatch.setattr(BaseDatabaseOperations, "execute_sql_flush", flush)


def _without_triggers_sqlite(flush: Callable[[], None]) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'")
        triggers = cursor.fetchall()
        for name, _ in triggers:
            cursor.execute(f"DROP TRIGGER {name}")
        flush()
        for _, statement in triggers:
            cursor.execute(statement)


def _without_triggers_postgresql(flush: Callable[[], None]) -> None:
    with connection.cursor() as cursor:
        for table in _TABLES:
            cursor.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
        flush()
        for table in _TABLES:
            cursor.execute(f"ALTER TABLE {table} ENABLE TRIGGER USER")
