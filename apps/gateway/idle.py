"""Nobody is there: lock the terminals, then end the session (IEC 62443-3-3, SR 2.5).

Idle means that nothing was typed on any terminal, and that no byte passed in either
direction on any other channel. The clock is monotonic and needs no database. A lock
stops hands, not eyes: output goes on, so that no program stops for it and the recording
has no gap. While a session is frozen it does not count as idle.
"""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

LONGEST_LOOK_SECONDS: Final = 5.0
SHORTEST_LOOK_SECONDS: Final = 0.05
LAST_MINUTE: Final = 60.0


class IdleClock:
    """How long a growing number has not grown. Pure; `now` are monotonic seconds."""

    def __init__(self, now: float) -> None:
        self._total = 0
        self._since = now

    def observe(self, total: int, now: float) -> float:
        """Return for how many seconds `total` has been the same."""
        if total != self._total:
            self._total, self._since = total, now
        return now - self._since

    def touch(self, now: float) -> None:
        """Count this moment as activity."""
        self._since = now


class IdleSession(Protocol):
    """A live session as its idle watch knows it."""

    @property
    def is_frozen(self) -> bool:
        """Say whether input is held."""

    @property
    def is_locked(self) -> bool:
        """Say whether it is locked already."""

    @property
    def has_open_terminal(self) -> bool:
        """Say whether there is anything to lock."""

    @property
    def activity(self) -> int:
        """Return a number that grows with whatever counts as activity."""

    def lock(self) -> None:
        """Lock the terminals."""

    def end_idle(self) -> None:
        """End the session: nothing was done for too long."""

    def notify(self, line: str) -> None:
        """Show one line on every terminal."""


class IdleWatch:
    """Looks every few seconds how long nothing was done. 0 turns a limit off."""

    def __init__(
        self, session: IdleSession, *, lock_seconds: float, end_seconds: float
    ) -> None:
        self._session = session
        self._lock_seconds = lock_seconds
        self._end_seconds = end_seconds
        self._loop = asyncio.get_running_loop()
        self._clock = IdleClock(self._loop.time())
        self._timer: asyncio.TimerHandle | None = None
        self._warned = False

    def start(self) -> None:
        """Look from now on, if there is anything to look for."""
        limits = [s for s in (self._lock_seconds, self._end_seconds) if s > 0]
        if limits:
            self._every = min(
                max(min(limits) / 60, SHORTEST_LOOK_SECONDS), LONGEST_LOOK_SECONDS
            )
            self._timer = self._loop.call_later(self._every, self._look)

    def stop(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = self._loop.call_later(self._every, self._look)
        session, now = self._session, self._loop.time()
        if session.is_frozen:
            self._clock.touch(now)
        idle = self._clock.observe(session.activity, now)
        if 0 < self._end_seconds <= idle:
            session.end_idle()
            return
        self._warn(idle)
        due = 0 < self._lock_seconds <= idle
        if due and session.has_open_terminal and not session.is_locked:
            session.lock()

    def _warn(self, idle: float) -> None:
        notice = min(LAST_MINUTE, self._end_seconds / 2)
        due = 0 < self._end_seconds - notice <= idle
        if due and not self._warned:
            self._session.notify(
                f"Sluice: idle; the session ends in {max(1, round(notice))} s "
                "unless you do something"
            )
        self._warned = due
