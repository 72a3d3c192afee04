"""What a session answers to its engineer, and the lock on its terminals.

One desk for each session. Whatever it answers is one line.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import uuid
from collections.abc import Callable, Coroutine
from typing import Any, Final, Protocol

from django.db import Error as DatabaseError
from django.utils import timezone

from apps.access import extensions
from apps.access.denials import Allowed, Denied
from apps.access.models import GrantExtension
from apps.access.permits import ConnectionPermit
from apps.accounts.models import User
from apps.gateway.blocking import Blocking
from apps.gateway.handover import Handover
from apps.gateway.keyboard import Keyboard
from apps.gateway.live_watch import LiveWatch
from apps.gateway.relay import Relay
from apps.sessions import handover, terminals
from apps.sessions.lifecycle import AskedBy, EndReason

UNLOCK_TRIES: Final = 5
"""Wrong codes on one lock; then the session ends."""


class DeskSession(Protocol):
    """The live session a desk belongs to."""

    permit: ConnectionPermit
    session_id: uuid.UUID
    relays: dict[int, Relay]
    watchers: dict[uuid.UUID, LiveWatch]
    handover: Handover

    @property
    def is_frozen(self) -> bool:
        """Say whether input is held."""

    @property
    def has_open_terminal(self) -> bool:
        """Say whether a line shown now would be seen."""

    @property
    def activity(self) -> int:
        """Return a number that grows with whatever counts as activity."""

    @property
    def seconds_left(self) -> float:
        """Return the seconds until the deadline."""

    def notify(self, line: str) -> None:
        """Show one line on every terminal."""

    def end(self, reason: EndReason, line: str, detail: str = "") -> None:
        """End the session now."""


class SessionDesk:
    """Also what `idle.IdleWatch` and `keyboard.Keyboard` know of the session."""

    def __init__(
        self,
        session: DeskSession,
        *,
        blocking: Blocking,
        spawn: Callable[[Coroutine[Any, Any, None], str], object],
        escape: int | None,
    ) -> None:
        self._session = session
        self._blocking = blocking
        self._spawn = spawn
        self._escape = escape
        self._keyboards: dict[int, Keyboard] = {}
        self._wrong_codes = 0
        # A lock is written down before any code for it is looked at.
        self._papers = asyncio.Lock()
        self.is_locked = False

    def spawn(self, coroutine: Coroutine[Any, Any, None], name: str) -> None:
        """Run a task owned by the gateway."""
        self._spawn(coroutine, name)

    def take(self, relay: Relay) -> None:
        """Sort what is typed on a terminal from now on."""
        keyboard = Keyboard(relay, self, escape=self._escape)
        relay.typist = self._keyboards[relay.number] = keyboard

    def keyboard_of(self, relay: Relay) -> Keyboard | None:
        """Return who sorts what is typed on a terminal."""
        return self._keyboards.get(relay.number)

    def drop(self, relay: Relay) -> None:
        """Forget a terminal that has closed."""
        self._keyboards.pop(relay.number, None)

    # Commands.

    def time_left(self) -> str:
        """Say how much time is left."""
        return f"Sluice: {spoken(self._session.seconds_left)} left of this session"

    def watching(self) -> str:
        """Say who watches."""
        watchers = self._session.watchers.values()
        names = sorted({watch.user.username for watch in watchers})
        return f"Sluice: {', '.join(names) or 'nobody'} watches just now"

    def could_type(self) -> list[str]:
        """Return who watches at a keyboard."""
        watchers = self._session.watchers.values()
        return sorted(
            {watch.user.username for watch in watchers if watch.keyboard is not None}
        )

    async def hand_over(self, to: str) -> str:
        """Hand the typing over; return the answer in one line.

        Empty when it is done: who types is told on every terminal.
        """
        try:
            verdict = await self._blocking.run(
                _hand_over,
                permit=self._session.permit,
                session_id=self._session.session_id,
                to=to,
                now=timezone.now(),
            )
        except DatabaseError:
            return "Sluice: nothing can be handed over now, try again"
        return f"Sluice: not handed over. {verdict.message}" if not verdict else ""

    def take_back(self) -> bool:
        """Type oneself again, at once."""
        return self._session.handover.give_back("taken back at the terminal")

    def end_by_engineer(self) -> None:
        """End the session because its engineer wants it."""
        self._session.end(
            EndReason.FINISHED, "you ended the session", "ended by the engineer"
        )

    async def ask_extension(self, minutes: str, reason: str) -> str:
        """Ask for more time; return the answer in one line."""
        minutes = minutes.strip()
        if not (minutes.isascii() and minutes.isdigit() and len(minutes) <= 4):
            return "Sluice: nothing was asked; minutes are a number"
        permit = self._session.permit
        try:
            answer = await self._blocking.run(
                _ask_extension,
                permit=permit,
                minutes=int(minutes),
                reason=reason,
                now=timezone.now(),
            )
        except DatabaseError:
            return "Sluice: nothing can be asked now, try again"
        if isinstance(answer, Denied):
            return f"Sluice: not asked. {answer.message}"
        return f"Sluice: asked for {minutes} more minutes; approvers decide"

    # The idle watch and the lock.

    @property
    def is_frozen(self) -> bool:
        """Say whether input is held."""
        return self._session.is_frozen

    @property
    def has_open_terminal(self) -> bool:
        """Say whether there is anything to lock."""
        return self._session.has_open_terminal

    @property
    def activity(self) -> int:
        """Return a number that grows with whatever counts as activity."""
        return self._session.activity

    def notify(self, line: str) -> None:
        """Show one line on every terminal."""
        self._session.notify(line)

    def end_idle(self) -> None:
        """End the session: nothing was done for too long."""
        minutes = self._session.permit.idle_end_minutes
        self._session.end(
            EndReason.IDLE,
            "nothing was done for too long",
            f"idle for {spoken(minutes * 60)}",
        )

    def lock(self) -> None:
        """Take whatever is typed as a one-time code from now on."""
        self._session.handover.give_back("nobody typed")
        self.is_locked, self._wrong_codes = True, 0
        idle = spoken(self._session.permit.idle_lock_minutes * 60)
        for relay in self._open_terminals():
            relay.mark("locked")
            self._keyboards[relay.number].lock(
                f"Sluice: locked after {idle} without typing; "
                "type your one-time code and Enter"
            )
        self.spawn(self._note_locked(), "note a lock")

    async def _note_locked(self) -> None:
        async with self._papers:
            await self._blocking.run(
                terminals.note_locked,
                session_id=self._session.session_id,
                now=timezone.now(),
            )

    def _open_terminals(self) -> list[Relay]:
        return [
            self._session.relays[number]
            for number in self._keyboards
            if number in self._session.relays
        ]

    async def unlock(self, code: str) -> str:
        """Unlock all terminals with a one-time code; return the answer in one line.

        Empty when it was right: each terminal is told by itself.
        """
        try:
            async with self._papers:
                verdict = await self._blocking.run(
                    terminals.unlock_session,
                    session_id=self._session.session_id,
                    code=code,
                    now=timezone.now(),
                )
        except DatabaseError:
            return "Sluice: still locked; codes cannot be checked now, try again"
        if verdict:
            self._open()
            return ""
        self._wrong_codes += 1
        if self._wrong_codes >= UNLOCK_TRIES:
            self._session.end(
                EndReason.IDLE,
                "the session was locked, and no code was right",
                f"locked, and {UNLOCK_TRIES} codes were wrong",
            )
            return ""
        wait = f" in {verdict.wait_seconds} s" if verdict.wait_seconds else ""
        return f"Sluice: still locked, that code is not right; try again{wait}"

    def _open(self) -> None:
        self.is_locked = False
        for relay in self._open_terminals():
            relay.mark("unlocked")
            self._keyboards[relay.number].unlock()
            if relay.full_screen:
                relay.redraw()


def _ask_extension(
    *, permit: ConnectionPermit, minutes: int, reason: str, now: dt.datetime
) -> GrantExtension | Denied:
    return extensions.ask_extension(
        grant_id=permit.grant_id,
        by=User.objects.get(pk=permit.user_id),
        minutes=minutes,
        reason=reason,
        source_address=permit.source_address,
        now=now,
    )


def _hand_over(
    *, permit: ConnectionPermit, session_id: uuid.UUID, to: str, now: dt.datetime
) -> Allowed | Denied:
    return handover.hand_over(
        session_id=session_id,
        by=User.objects.get(pk=permit.user_id),
        to=to,
        now=now,
        asked=AskedBy("terminal", permit.source_address),
    )


def spoken(seconds: float) -> str:
    """Return a length of time as people say it."""
    if seconds < 60:
        count = max(1, round(seconds))
        return f"{count} second{'s' if count > 1 else ''}"
    minutes = int(seconds // 60)
    hours, minutes = divmod(minutes, 60)
    parts = []
    if hours:
        parts.append(f"{hours} hour{'s' if hours > 1 else ''}")
    if minutes:
        parts.append(f"{minutes} minute{'s' if minutes > 1 else ''}")
    return " ".join(parts)
