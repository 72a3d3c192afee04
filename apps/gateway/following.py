"""Something the gateway keeps in memory, read anew when the database says it changed.

Woken by a wake-up, and by itself every few seconds, as wake-ups may be lost.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from django.db import Error as DatabaseError

from apps.audit import wakeup
from apps.audit.kinds import Kind

logger = logging.getLogger(__name__)

LOOK_SECONDS: Final = 5.0


class Follower:
    """Calls `load` after each of `kinds`; a failure leaves what is known as it is."""

    def __init__(
        self, load: Callable[[], Awaitable[None]], kinds: frozenset[Kind], what: str
    ) -> None:
        self._load = load
        self._topics = {*kinds, wakeup.UNKNOWN}
        self._what = what
        self._wake = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def _changed(self, topic: str) -> None:
        """Wake up; called in the thread that committed a change."""
        if topic in self._topics:
            self._loop.call_soon_threadsafe(self._wake.set)

    async def run(self) -> None:
        """Follow changes until cancelled."""
        forget = wakeup.listen(self._changed)
        try:
            while True:
                try:
                    async with asyncio.timeout(LOOK_SECONDS):
                        await self._wake.wait()
                except TimeoutError:
                    pass
                self._wake.clear()
                try:
                    await self._load()
                except DatabaseError:
                    logger.exception("%s could not be read", self._what)
        finally:
            forget()
