"""Notices other gateways that have died, without Celery.

Every process that runs a gateway or a portal looks for itself; the first to find a
gateway silent closes its sessions, which ends their leases, and seals its recordings
from what was written. Any running gateway then withdraws the credentials. What an
observer cannot finish is found again by the next one, and by the worker.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from typing import Final

from django.db import Error as DatabaseError
from django.utils import timezone

from apps.gateway.blocking import Blocking
from apps.gateway.owned_tasks import OwnedTasks
from apps.quarantine import operations as quarantine
from apps.recordings import operations as recordings
from apps.sessions import gateways, queries
from apps.sessions.heartbeats import HeartbeatObserver

logger = logging.getLogger(__name__)

RECOVERY_SECONDS: Final = 1.5
"""Recordings count as left behind a second after their session has ended."""

_WORKERS: Final = 2
_AWAY_SECONDS: Final = 1.0


class LostGateways:
    """One process's observer. `own` is its own gateway, which others judge."""

    def __init__(self, lost_seconds: float, own: uuid.UUID | None = None) -> None:
        self._observer = HeartbeatObserver(lost_seconds)
        self._own = own
        # Threads of its own: a burst of log-ins must not keep it from looking.
        self._blocking = Blocking(_WORKERS)
        self._tasks = OwnedTasks("lost gateways")
        self._closing = False

    async def run(self) -> None:
        """Look until cancelled or closed."""
        try:
            while not self._closing:
                await self._look()
                await asyncio.sleep(self._observer.pause_seconds)
        finally:
            await self._tasks.cancel()

    async def close(self) -> None:
        """End the threads; no look begins any more."""
        self._closing = True
        await self._tasks.cancel()
        await self._blocking.close()

    async def _look(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            rows = await self._blocking.run(queries.heartbeats)
            if self._own is not None:
                rows.pop(self._own, None)
            for gateway_id, seen_at in self._observer.look(
                rows, at=loop.time()
            ).items():
                if self._closing:
                    return
                given_up = await self._blocking.run(
                    gateways.give_up_gateway,
                    gateway_id=gateway_id,
                    seen_at=seen_at,
                    now=timezone.now(),
                )
                if given_up:
                    logger.error(
                        "gateway %s is lost; its sessions are closed", gateway_id
                    )
                    self._tasks.spawn(self._recover(), "recover recordings")
        except DatabaseError:
            logger.exception("the gateways' heartbeats could not be read")
            await asyncio.sleep(_AWAY_SECONDS)

    async def _recover(self) -> None:
        await asyncio.sleep(RECOVERY_SECONDS)
        await self._blocking.run(recordings.recover_orphans, now=timezone.now())
        await self._blocking.run(quarantine.give_up_orphans, now=timezone.now())
