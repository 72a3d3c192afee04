"""What people want of one live session, done once: freeze, resume, messages.

The database says what holds now, and is asked again and again; this remembers what was
done already. So a lost wake-up or a database that was away costs time only: a freeze
is not done twice, and of messages none is lost and none shown again.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from apps.sessions.queries import PendingMessage, SessionControl


class ControlledSession(Protocol):
    """The live session as far as people control it."""

    @property
    def is_frozen(self) -> bool:
        """Say whether input is held, for whatever reason."""

    @property
    def has_open_terminal(self) -> bool:
        """Say whether a line shown now would be seen."""

    def hold(self, line: str) -> None:
        """Hold input because a person wants it, and say so."""

    def release(self, line: str) -> None:
        """Let input through again, unless the end of the session holds it."""

    def notify(self, line: str) -> None:
        """Show one line on every terminal."""

    def note_state(self) -> None:
        """Write the session's state down as it is now."""

    def note_shown(self, numbers: Collection[int]) -> None:
        """Write down that these messages were shown."""


class LiveControl:
    """What was done of what people want. `apply` may be called any number of times."""

    def __init__(self, session: ControlledSession) -> None:
        self._session = session
        self._freeze_number = 0
        self._last_shown = 0

    def apply(self, control: SessionControl) -> None:
        """Do what is not done yet."""
        self._apply_freeze(control)
        self._show(control.messages)

    def _apply_freeze(self, control: SessionControl) -> None:
        if control.freeze_number > self._freeze_number:
            self._freeze_number = control.freeze_number
            if control.frozen:
                self._session.hold(
                    f"Sluice: {control.by} froze your input: {control.reason}"
                )
            else:
                self._session.release(f"Sluice: {control.by} let your input through")
        elif control.noted_frozen is not self._session.is_frozen:
            # It was done, but the database was away when it was to be written.
            self._session.note_state()

    def _show(self, messages: Collection[PendingMessage]) -> None:
        for message in messages:
            if message.number > self._last_shown and self._session.has_open_terminal:
                self._session.notify(f"Sluice: {message.sender} says: {message.text}")
                self._last_shown = message.number
        shown = [m.number for m in messages if m.number <= self._last_shown]
        if shown:
            self._session.note_shown(shown)
