"""Makes the decision on live sessions again, and says that this gateway lives.

Woken by whoever changed something, and by itself every second or so: a lost wake-up
costs latency only. One query answers for all sessions of the gateway. When the
database is away, live sessions go on to their deadlines, but not longer than a grace:
nobody could revoke them meanwhile.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from django.db import Error as DatabaseError
from django.utils import timezone

from apps.audit import wakeup
from apps.gateway.blocking import Blocking
from apps.gateway.live import CROWD, Core
from apps.gateway.live_watch import NO_LONGER_LINE
from apps.sessions import gateways, queries, watches
from apps.sessions import operations as sessions
from apps.sessions.lifecycle import EndReason
from apps.sessions.queries import SessionVerdict
from apps.sessions.watches import Looking

logger = logging.getLogger(__name__)

_WORKERS: Final = 2
_TOPICS: Final = (
    "access.grant.",
    "accounts.person.",
    "accounts.factor.",
    "inventory.",
    "sessions.message.sent",
    "sessions.session.freeze_asked",
    "sessions.session.handed_over",
    "sessions.session.taken_back",
    "sessions.session.resume_asked",
    "sessions.session.terminate_asked",
)


@dataclass(frozen=True, slots=True)
class WatchdogSettings:
    """Intervals in seconds."""

    check_seconds: float = 1.0
    heartbeat_seconds: float = 1.0
    blind_seconds: float = 900.0
    """How long sessions may run while the decision cannot be made again."""
    answer_seconds: float = 10.0
    """A database that is silent for so long is away: a look has failed then."""


class Watchdog:
    """The reconciler of one gateway. `on_given_up` is called once when another gateway
    has taken over this one's name."""

    def __init__(
        self,
        core: Core,
        settings: WatchdogSettings,
        on_given_up: Callable[[], None],
    ) -> None:
        self._core = core
        self._settings = settings
        self._on_given_up = on_given_up
        self._wake = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        # Threads of its own: log-ins that wait for the database hold up neither.
        self._blocking = Blocking(_WORKERS)
        self._lock = asyncio.Lock()
        self._checks_begun = 0
        self._checks_done = 0
        self._last_answer = self._loop.time()
        self.last_check_at: dt.datetime | None = None

    def _changed(self, topic: str) -> None:
        """Wake up; called in the thread that committed a change."""
        if topic == wakeup.UNKNOWN or topic.startswith(_TOPICS):
            self._core.changed_at = timezone.now()
            self._loop.call_soon_threadsafe(self._wake.set)

    async def run(self) -> None:
        """Check until cancelled."""
        forget = wakeup.listen(self._changed)
        # From here on nothing that changes in this process is missed.
        self._core.changed_at = timezone.now()
        try:
            while True:
                try:
                    async with asyncio.timeout(self._settings.check_seconds):
                        await self._wake.wait()
                except TimeoutError:
                    pass
                self._wake.clear()
                await self.check()
        finally:
            forget()

    async def run_heartbeat(self) -> None:
        """Say that the gateway lives until cancelled or given up for lost."""
        while True:
            try:
                async with asyncio.timeout(self._settings.answer_seconds):
                    known = await self._blocking.run(
                        gateways.heartbeat,
                        gateway_id=self._core.gateway_id,
                        now=timezone.now(),
                    )
            except (DatabaseError, TimeoutError):
                logger.exception("the gateway's heartbeat could not be written")
            else:
                if not known:
                    logger.error("this gateway was given up for lost; it stops")
                    self._on_given_up()
                    return
            await asyncio.sleep(self._settings.heartbeat_seconds)

    async def close(self) -> None:
        """End the threads."""
        await self._blocking.close()

    async def check(self) -> None:
        """Return after a check that began no earlier than this call.

        Callers that wait at the same time share one check.
        """
        wanted = self._checks_begun + 1
        async with self._lock:
            if self._checks_done >= wanted:
                return
            self._checks_begun += 1
            number = self._checks_begun
            await self._check()
            self._checks_done = number

    async def _check(self) -> None:
        if not self._core.live:
            self._last_answer = self._loop.time()
            return
        now = timezone.now()
        try:
            await self._end_withdrawn(now)
            async with asyncio.timeout(self._settings.answer_seconds):
                verdicts = await self._blocking.run(
                    queries.verdicts, gateway_id=self._core.gateway_id, now=now
                )
            # What ends does so before anything else is asked.
            self._apply(verdicts)
            async with asyncio.timeout(self._settings.answer_seconds):
                found = await self._blocking.run(
                    _ask,
                    gateway_id=self._core.gateway_id,
                    looking=self._looking(),
                    now=now,
                )
        except (DatabaseError, TimeoutError):
            logger.exception("the decision on live sessions could not be made again")
            self._end_the_unwatched()
            return
        controls, extended, denied, typing_denied = found
        self._last_answer = self._loop.time()
        self.last_check_at = now
        self._cut_watches(denied)
        for control in controls:
            session = self._core.live.get(control.session_id)
            if session is not None:
                session.control.apply(control)
                session.handover.apply(control)
        for session_id in typing_denied:
            session = self._core.live.get(session_id)
            if session is not None and session.handover.guest is not None:
                name = session.handover.guest.name
                session.handover.give_back(f"{name} may type no longer")
        for session_id in extended:
            await self._follow_extension(session_id)

    async def _end_withdrawn(self, now: dt.datetime) -> None:
        """End at once what has lost its grant: few questions, however many sessions."""
        by_grant: dict[uuid.UUID, list[uuid.UUID]] = {}
        for session_id, session in self._core.live.items():
            by_grant.setdefault(session.permit.grant_id, []).append(session_id)
        async with asyncio.timeout(self._settings.answer_seconds):
            verdicts = await self._blocking.run(queries.withdrawn, by_grant, now=now)
        self._apply(verdicts)

    def _apply(self, verdicts: Sequence[SessionVerdict]) -> None:
        crowd = len(verdicts) + self._core.settling > CROWD
        for verdict in verdicts:
            session = self._core.live.get(verdict.session_id)
            if session is not None:
                session.apply(verdict, crowd=crowd)

    def _looking(self) -> list[Looking]:
        return [
            watch.looking
            for session in self._core.live.values()
            for watch in session.watchers.values()
        ]

    def _cut_watches(self, denied: frozenset[uuid.UUID]) -> None:
        for session in self._core.live.values():
            for watch_id in denied & session.watchers.keys():
                session.watchers[watch_id].cut(NO_LONGER_LINE)

    async def _follow_extension(self, session_id: uuid.UUID) -> None:
        """Write the later deadline down, then let the session's timers follow."""
        session = self._core.live.get(session_id)
        if session is None or not session.takes_extension:
            return
        try:
            async with asyncio.timeout(self._settings.answer_seconds):
                deadline = await self._blocking.run(
                    sessions.follow_extension, session_id=session_id, now=timezone.now()
                )
        except (DatabaseError, TimeoutError):
            # The next look finds it again; until then the old deadline holds.
            logger.exception("a later deadline could not be written down")
            return
        if deadline is not None:
            session.move_deadline(deadline, now=timezone.now())

    def _end_the_unwatched(self) -> None:
        blind = self._loop.time() - self._last_answer
        if blind < self._settings.blind_seconds:
            return
        for session in list(self._core.live.values()):
            session.end(
                EndReason.TERMINATED,
                "the access can no longer be checked",
                f"no answer from the database for {blind:.0f} s",
            )


def _ask(
    *, gateway_id: uuid.UUID, looking: list[Looking], now: dt.datetime
) -> tuple[
    list[queries.SessionControl],
    list[uuid.UUID],
    frozenset[uuid.UUID],
    list[uuid.UUID],
]:
    return (
        queries.controls(gateway_id=gateway_id, now=now),
        queries.extended(gateway_id=gateway_id),
        watches.denied_now(looking) if looking else frozenset(),
        queries.typing_no_longer(gateway_id=gateway_id, now=now) if looking else [],
    )
