"""The one bridge from the gateway's event loop to synchronous domain code.

A thread pool of its own: asgiref's default runs everything in one shared thread, where
one slow query would hold up every session. Channels' variant also closes stale database
connections around each call.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, ParamSpec, TypeVar

from channels.db import DatabaseSyncToAsync
from django.db import connections

P = ParamSpec("P")
T = TypeVar("T")

WORKERS: Final = 8


class Blocking:
    """Runs synchronous functions in threads. One per gateway service."""

    def __init__(self, workers: int = WORKERS) -> None:
        self._workers = workers
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="sluice-gateway")

    async def run(
        self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Return what `function` returns, without holding up the loop.

        A cancelled call may still be carried out: operations must be safe to repeat.
        """
        call = DatabaseSyncToAsync(
            function, thread_sensitive=False, executor=self._pool
        )
        result: T = await call(*args, **kwargs)
        return result

    async def close(self) -> None:
        """Wait for what runs, close the threads' database connections, end them."""
        await asyncio.to_thread(self._close_threads)

    def _close_threads(self) -> None:
        # Each thread holds connections of its own, so each has to close them: the
        # barrier keeps one thread from taking two of these.
        started = len(self._pool._threads)
        if started:
            barrier = threading.Barrier(started, timeout=10)
            calls = [
                self._pool.submit(_close_connections, barrier) for _ in range(started)
            ]
            for call in calls:
                call.exception()
        self._pool.shutdown(wait=True)


def _close_connections(barrier: threading.Barrier) -> None:
    barrier.wait()
    connections.close_all()
