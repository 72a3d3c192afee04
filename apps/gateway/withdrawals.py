"""Withdraws the credentials of ended sessions and has them proved dead.

It happens here, because in a plant often only the gateway can reach the asset, and
because a credential must die on time also without Celery. Rows are the queue: a lease
that a crash left behind is found again, and the worker's sweep is the net below.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import uuid
from typing import Final

from django.db import Error as DatabaseError
from django.utils import timezone

from apps.audit import wakeup
from apps.gateway.blocking import Blocking
from apps.gateway.owned_tasks import OwnedTasks
from apps.sessions import queries
from apps.vault.withdrawals import LeaseInUseError, withdraw_lease

logger = logging.getLogger(__name__)

WORKERS: Final = 4
_LOOK_SECONDS: Final = 5.0
_SHORTEST_PAUSE_SECONDS: Final = 0.05


class Withdrawals:
    """The withdrawer of one gateway; takes the leases of sessions that ran on it.

    `name` is the gateway's name: after a restart it goes on with what the process
    before it left behind.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        # Threads of its own: an asset that does not answer must not hold up log-ins.
        self._blocking = Blocking(WORKERS)
        self._tasks = OwnedTasks("withdrawals")
        self._running: set[uuid.UUID] = set()
        self._wake = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def _changed(self, topic: str) -> None:
        """Wake up; called in the thread that committed a change."""
        if topic == wakeup.UNKNOWN or topic.startswith("vault.lease."):
            self._loop.call_soon_threadsafe(self._wake.set)

    async def run(self) -> None:
        """Withdraw what is due, when it is due, until cancelled."""
        forget = wakeup.listen(self._changed)
        try:
            while True:
                self._wake.clear()
                pause = await self._start_due()
                try:
                    async with asyncio.timeout(pause):
                        await self._wake.wait()
                except TimeoutError:
                    pass
        finally:
            forget()
            await self._tasks.cancel()

    async def close(self) -> None:
        """End the threads; what was not finished is found again at the next start."""
        await self._blocking.close()

    async def _start_due(self) -> float:
        """Start what is due; return after how many seconds to look again."""
        now = timezone.now()
        try:
            due, next_at = await self._blocking.run(
                queries.leases_to_withdraw, gateway_name=self._name, now=now
            )
        except DatabaseError:
            logger.exception("what is to be withdrawn could not be read")
            return _LOOK_SECONDS
        for lease_id in due:
            if len(self._running) >= WORKERS:
                return _LOOK_SECONDS
            if lease_id not in self._running:
                self._running.add(lease_id)
                self._tasks.spawn(self._withdraw(lease_id), f"lease {lease_id}")
        if next_at is None:
            return _LOOK_SECONDS
        until = (next_at - now).total_seconds()
        return min(max(until, _SHORTEST_PAUSE_SECONDS), _LOOK_SECONDS)

    async def _withdraw(self, lease_id: uuid.UUID) -> None:
        try:
            await self._blocking.run(withdraw_lease, lease_id=lease_id, clock=_clock)
        except (LeaseInUseError, DatabaseError):
            logger.exception("lease %s could not be withdrawn yet", lease_id)
        finally:
            self._running.discard(lease_id)
            self._wake.set()


def _clock() -> dt.datetime:
    return timezone.now()
