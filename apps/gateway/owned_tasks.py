"""Tasks that somebody owns: kept from garbage collection, awaited at the end, heard."""

from __future__ import annotations

import asyncio
import logging
from asyncio import current_task
from collections.abc import Coroutine
from functools import partial
from typing import Any

logger = logging.getLogger(__name__)


class OwnedTasks:
    """Short-lived tasks of one owner.

    Unlike a TaskGroup, one that fails does not take its siblings with it: it is logged.
    """

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self._tasks: set[asyncio.Task[Any]] = set()

    def spawn(
        self,
        coroutine: Coroutine[Any, Any, Any],
        name: str,
        *,
        expected: tuple[type[Exception], ...] = (),
    ) -> asyncio.Task[Any]:
        """Start a task; its failure is logged, unless it is an `expected` one that
        whoever started it looks at."""
        task = asyncio.create_task(coroutine, name=f"{self._owner}: {name}")
        self._tasks.add(task)
        task.add_done_callback(partial(self._reap, expected))
        return task

    def _reap(
        self, expected: tuple[type[Exception], ...], task: asyncio.Task[Any]
    ) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is not None and not isinstance(error, expected):
            logger.error("%s failed", task.get_name(), exc_info=error)

    def __len__(self) -> int:
        """Return how many run."""
        return len(self._tasks)

    async def wait(self, seconds: float) -> bool:
        """Wait for all of them, also those started meanwhile; False on timeout."""
        try:
            async with asyncio.timeout(seconds):
                while self._tasks:
                    await asyncio.wait(set(self._tasks))
        except TimeoutError:
            return False
        return True

    async def cancel(self) -> None:
        """Cancel what still runs, but not the caller, and wait until it is gone."""
        while tasks := {task for task in self._tasks if task is not current_task()}:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            self._tasks -= tasks
