"""Hearing of changes that other processes made, as wake-ups of this one.

SQLite: `PRAGMA data_version` changes when another connection has committed.
PostgreSQL: LISTEN on a connection of its own; a NOTIFY sent while that connection is
away is lost, so every (re)connect wakes everybody once.
"""

import asyncio
import logging
import sqlite3
from typing import Any

import psycopg
from django.conf import settings
from django.db import connection
from psycopg.conninfo import make_conninfo

from apps.audit import wakeup

logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.2


async def hear_other_processes() -> None:
    """Deliver wake-ups for other processes' commits until cancelled."""
    if connection.vendor == "postgresql":
        await _listen()
    else:
        await _poll_data_version()


async def _poll_data_version() -> None:
    database = sqlite3.connect(
        str(settings.DATABASES["default"]["NAME"]), check_same_thread=False
    )
    try:
        last = None
        while True:
            version = database.execute("PRAGMA data_version").fetchone()[0]
            if last is not None and version != last:
                wakeup.deliver(wakeup.UNKNOWN)
            last = version
            await asyncio.sleep(_POLL_SECONDS)
    finally:
        database.close()


def _connection_string() -> str:
    database: dict[str, Any] = settings.DATABASES["default"]
    named = {
        "dbname": database["NAME"],
        "user": database["USER"],
        "password": database["PASSWORD"],
        "host": database["HOST"],
        "port": database["PORT"],
    }
    options = {
        key: value for key, value in database["OPTIONS"].items() if key != "pool"
    }
    given = {key: value for key, value in {**named, **options}.items() if value}
    return make_conninfo("", **given)


async def _listen() -> None:
    listener = await psycopg.AsyncConnection.connect(
        _connection_string(), autocommit=True
    )
    async with listener:
        await listener.execute(f"LISTEN {wakeup.CHANNEL}")
        wakeup.deliver(wakeup.UNKNOWN)
        async for notice in listener.notifies():
            wakeup.deliver(notice.payload)
