"""Wake-ups: "something changed, look again". They are hints; the database is the truth.

In one process a wake-up calls the listeners after commit. On PostgreSQL a NOTIFY in the
same transaction reaches the other processes at commit. A lost wake-up costs latency
only, because every listener also looks by itself every few seconds.
"""

import logging
import threading
from collections.abc import Callable

from django.db import connection, transaction

logger = logging.getLogger(__name__)

CHANNEL = "sluice_wakeup"
# Another process changed something and did not say what.
UNKNOWN = "unknown"

_listeners: list[Callable[[str], None]] = []
_lock = threading.Lock()


def listen(callback: Callable[[str], None]) -> Callable[[], None]:
    """Call `callback(topic)` after commits of this process; returns how to stop that.

    It is called in the thread that committed: hand over to your own loop at once.
    """
    with _lock:
        _listeners.append(callback)

    def forget() -> None:
        with _lock:
            if callback in _listeners:
                _listeners.remove(callback)

    return forget


def announce(topic: str) -> None:
    """Wake this process's listeners after commit, and other processes' on PostgreSQL.

    Must be called inside the transaction that made the change.
    """
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_notify(%s, %s)", [CHANNEL, topic])
    transaction.on_commit(lambda: deliver(topic))


def deliver(topic: str) -> None:
    """Call every listener of this process with `topic`."""
    with _lock:
        listeners = list(_listeners)
    for callback in listeners:
        try:
            callback(topic)
        except Exception:
            # The change is committed already: one listener must not hide it from the
            # others, and each looks again by itself.
            logger.exception("A wake-up listener failed for %s", topic)
