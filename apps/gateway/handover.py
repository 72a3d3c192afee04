"""Who types in one live session: the engineer, or one who watches.

The rows say what is wanted; `apply` carries it out, once, however often it is asked.
Going back to the engineer never waits for the database: it is done first and written
then. Whose keys pass is in the recording before the first of them: as a mark, and as a
line on the terminal.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import uuid
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final, Protocol

from django.utils import timezone

from apps.gateway.blocking import Blocking
from apps.gateway.keyboard import Keyboard
from apps.gateway.live_watch import LiveWatch
from apps.gateway.relay import Relay
from apps.sessions import handover
from apps.sessions.queries import SessionControl

SHELL: Final = "shell"


class HandedSession(Protocol):
    """The live session whose typing may be handed over."""

    session_id: uuid.UUID
    short_id: str
    relays: dict[int, Relay]
    watchers: dict[uuid.UUID, LiveWatch]

    @property
    def engineer_name(self) -> str:
        """Return the handle of the session's person."""

    @property
    def opens_terminal(self) -> bool:
        """Say whether a terminal is just being opened."""

    def takes_typing(self) -> bool:
        """Say whether input flows: active, and not locked."""

    def keyboard_of(self, relay: Relay) -> Keyboard | None:
        """Return who sorts what the engineer types there."""

    def notify(self, line: str) -> None:
        """Show one line on every terminal."""


@dataclass(frozen=True, slots=True)
class Guest:
    """Who types instead of the engineer: from which watch, and into which terminal."""

    number: int
    name: str
    watch: LiveWatch
    relay: Relay


class Handover:
    """The one place that says whose input passes. One for each session."""

    def __init__(
        self,
        session: HandedSession,
        *,
        blocking: Blocking,
        spawn: Callable[[Coroutine[Any, Any, Any], str], object],
    ) -> None:
        self._session = session
        self._blocking = blocking
        self._spawn = spawn
        self._number = 0
        self._timer: asyncio.TimerHandle | None = None
        self.guest: Guest | None = None

    def apply(self, control: SessionControl) -> None:
        """Do what is not done yet."""
        number, typist_id = control.typist_number, control.typist_id
        if number > self._number:
            self._number = number
            self._unseat("")
            if typist_id is not None:
                self._seat(number, typist_id, control.typist)
            else:
                self._note(number, self._session.engineer_name)
        elif number < self._number:
            # An answer that was on its way for long.
            return
        elif typist_id is not None and self.guest is None:
            # It was given back, but the database was away when it was to be written.
            self._write_end(number, "written down late")
        elif control.typist_noted < number:
            self._note(number, control.typist or self._session.engineer_name)
        self._arm(control.typist_until)

    def _arm(self, until: dt.datetime | None) -> None:
        """Give back when the typist's own access ends; needs no database then."""
        self._disarm()
        guest = self.guest
        if guest is not None and until is not None:
            seconds = max(0.0, (until - timezone.now()).total_seconds())
            self._timer = asyncio.get_running_loop().call_later(
                seconds, self.give_back, f"the access of {guest.name} has ended"
            )

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _seat(self, number: int, typist_id: uuid.UUID, name: str) -> None:
        relay, watch = self._terminal(), self._watch_of(typist_id)
        why = ""
        if relay is None or not self._session.takes_typing():
            why = "there is not one open terminal that takes input"
        elif watch is None or watch.keyboard is None:
            why = f"{name} does not watch at a keyboard any more"
        else:
            self.guest = Guest(number, name, watch, relay)
            relay.mark(f"typing: {name} ({typist_id})")
            keyboard = self._session.keyboard_of(relay)
            if keyboard is not None:
                keyboard.hand_over(name)
            relay.seat_guest(watch.keyboard)
            self._session.notify(f"Sluice: {name} types from now on, not you")
            watch.keyboard.may_type(allowed=True)
            self._note(number, name)
        if why:
            self._session.notify(f"Sluice: not handed over: {why}")
            self._write_end(number, why)

    def _terminal(self) -> Relay | None:
        """Return the one terminal there is, when it is a shell."""
        found = [relay for relay in self._session.relays.values() if relay.has_terminal]
        if len(found) != 1 or self._session.opens_terminal:
            return None
        [relay] = found
        return relay if relay.is_open and relay.request.kind == SHELL else None

    def _watch_of(self, person_id: uuid.UUID) -> LiveWatch | None:
        """Return the newest watch of a person that has a keyboard."""
        found = [
            watch
            for watch in self._session.watchers.values()
            if watch.user.pk == person_id and watch.keyboard is not None
        ]
        return found[-1] if found else None

    def typed(self, watch: LiveWatch, data: bytes) -> None:
        """Give what a watcher typed to the asset, when it is theirs to type."""
        guest = self.guest
        if guest is None or guest.watch is not watch or guest.relay.frozen:
            return
        if self._session.takes_typing():
            guest.relay.guest_data(data)

    def give_back(self, why: str) -> bool:
        """Let the engineer type again, now; `why` follows on their terminal."""
        guest = self.guest
        if guest is None:
            return False
        self._unseat(why)
        self._write_end(guest.number, why)
        return True

    def watch_ended(self, watch: LiveWatch) -> None:
        """Give back what went with a watch."""
        if self.guest is not None and self.guest.watch is watch:
            self.give_back(f"{self.guest.name} watches no more")

    def relay_ended(self, relay: Relay) -> None:
        """Give back what went with a terminal."""
        if self.guest is not None and self.guest.relay is relay:
            self.give_back("the terminal closed")

    def close(self) -> None:
        """Let nobody type: the session has ended."""
        self._disarm()
        guest, self.guest = self.guest, None
        if guest is not None:
            guest.relay.unseat_guest()

    def _unseat(self, why: str) -> None:
        self._disarm()
        guest, self.guest = self.guest, None
        if guest is None:
            return
        guest.relay.unseat_guest()
        engineer = self._session.engineer_name
        if guest.relay.is_open:
            guest.relay.mark(f"typing: {engineer}")
        keyboard = self._session.keyboard_of(guest.relay)
        if keyboard is not None:
            keyboard.take_back()
        if guest.watch.keyboard is not None:
            guest.watch.keyboard.may_type(allowed=False)
        because = f": {why}" if why else ""
        self._session.notify(f"Sluice: {engineer} types again{because}")

    def _note(self, number: int, typist: str) -> None:
        self._spawn(
            self._blocking.run(
                handover.note_typist,
                session_id=self._session.session_id,
                number=number,
                typist=typist,
                now=timezone.now(),
            ),
            f"note who types in {self._session.short_id}",
        )

    def _write_end(self, number: int, why: str) -> None:
        self._spawn(
            self._blocking.run(
                handover.end_hand_over,
                session_id=self._session.session_id,
                number=number,
                why=why,
                now=timezone.now(),
            ),
            f"note the end of a hand-over in {self._session.short_id}",
        )
