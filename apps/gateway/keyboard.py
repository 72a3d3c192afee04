"""What is typed on one terminal: for the asset, for a command of ours, or for the lock.

Whatever is for Sluice never reaches the asset and is not in the recording as input: a
mark says that a command was given, and nothing says what a code was.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final, Protocol

from apps.gateway.escape import (
    COMMANDS,
    LETTER_SECONDS,
    EscapeParser,
    LineReader,
    escape_name,
)

CODE_LIMIT: Final = 32
ANSWER_LIMIT: Final = 300
TOLD: Final = 3.0
"""Seconds between two lines to somebody who types in vain."""


class TypedTerminal(Protocol):
    """The terminal that is typed on: a relay."""

    @property
    def full_screen(self) -> bool:
        """Say whether a program has the whole screen."""

    def tell(self, line: str) -> None:
        """Show one line now."""

    def show(self, data: bytes) -> None:
        """Put bytes on the screen and into the recording as ours."""

    def pass_typed(self, data: bytes) -> None:
        """Give what was typed to the asset."""

    def mark(self, label: str) -> None:
        """Put a mark into the recording."""


class Desk(Protocol):
    """What a session answers to the commands of its engineer."""

    def time_left(self) -> str:
        """Say how much time is left."""

    def watching(self) -> str:
        """Say who watches."""

    def end_by_engineer(self) -> None:
        """End the session because its engineer wants it."""

    def could_type(self) -> list[str]:
        """Return who watches at a keyboard."""

    async def hand_over(self, to: str) -> str:
        """Hand the typing over; return the answer in one line, empty when done."""

    def take_back(self) -> bool:
        """Type oneself again; False when nobody else does."""

    async def ask_extension(self, minutes: str, reason: str) -> str:
        """Ask for more time; return the answer in one line."""

    async def unlock(self, code: str) -> str:
        """Unlock all terminals with a one-time code; return the answer in one line."""

    def spawn(self, coroutine: Coroutine[Any, Any, None], name: str) -> None:
        """Run a task owned by the gateway."""


class Keyboard:
    """Sorts what one terminal types. `typed` returns what is for the asset."""

    def __init__(
        self, terminal: TypedTerminal, desk: Desk, *, escape: int | None
    ) -> None:
        self._terminal = terminal
        self._desk = desk
        self._escape = escape
        self._parser = EscapeParser(escape)
        self._loop = asyncio.get_running_loop()
        self._letter_timer: asyncio.TimerHandle | None = None
        self._reader: LineReader | None = None
        self._on_line: Callable[[str], None] | None = None
        self._answering = False
        self._locked = False
        self._typist = ""
        self._told_at = float("-inf")

    def typed(self, data: bytes) -> bytes:
        """Take one packet; return what of it goes to the asset."""
        if (
            self._reader is None
            and not self._answering
            and not self._typist
            and self._parser.passes(data)
        ):
            # Nearly every key; the person waits for its echo.
            return data
        if self._answering:
            # Somebody types while a code is checked: it is for nobody.
            return b""
        if self._reader is not None:
            self._read(self._reader, data)
            return b""
        self._stop_waiting()
        handed = bool(self._typist)
        typed = self._parser.feed(
            data,
            self._loop.time(),
            enabled=handed or not self._terminal.full_screen,
            anywhere=handed,
        )
        if typed.command is not None:
            self._run(typed.command)
        elif self._parser.waiting:
            self._letter_timer = self._loop.call_later(LETTER_SECONDS, self._give_up)
        if handed:
            self._say_who_types()
            return b""
        return typed.passed

    def _stop_waiting(self) -> None:
        if self._letter_timer is not None:
            self._letter_timer.cancel()
            self._letter_timer = None

    def _give_up(self) -> None:
        self._letter_timer = None
        if not self._locked and self._parser.waiting:
            passed = self._parser.give_up()
            if not self._typist:
                self._terminal.pass_typed(passed)

    def stop(self) -> None:
        """Wait for nothing more."""
        self._stop_waiting()

    # Somebody else types.

    def hand_over(self, name: str) -> None:
        """Pass nothing on from now on: somebody else types."""
        self._stop_waiting()
        self._parser.give_up()
        self._typist, self._told_at = name, self._loop.time()

    def take_back(self) -> None:
        """Pass on again what is typed here."""
        self._stop_waiting()
        self._parser.give_up()
        self._typist = ""

    def _say_who_types(self) -> None:
        """Say it to whoever types in vain, but not with each key."""
        now = self._loop.time()
        if self._typist and not self._parser.waiting and now - self._told_at > TOLD:
            self._told_at = now
            how = "in the portal"
            if self._escape is not None:
                how = f"with {escape_name(self._escape)} b"
            self._terminal.tell(
                f"Sluice: {self._typist} types, not you; take it back {how}"
            )

    # The lock.

    def lock(self, line: str) -> None:
        """Take everything typed as a code from now on."""
        self._stop_waiting()
        self._parser.give_up()
        self._locked = True
        self._terminal.tell(line)
        self._ask_code()

    def unlock(self) -> None:
        """Type to the asset again."""
        self._locked = self._answering = False
        self._reader = self._on_line = None
        self._terminal.tell("Sluice: unlocked")

    def _ask_code(self) -> None:
        self._reader = LineReader(limit=CODE_LIMIT, echoes=False)
        self._on_line = self._code_typed

    def _code_typed(self, code: str) -> None:
        if not code.strip():
            self._terminal.tell("Sluice: locked; type your one-time code and Enter")
            self._ask_code()
            return
        self._answering = True
        self._desk.spawn(self._try(code), "check a code")

    async def _try(self, code: str) -> None:
        try:
            answer = await self._desk.unlock(code)
        finally:
            self._answering = False
        if self._locked and answer:
            self._terminal.tell(answer)
            self._ask_code()

    # Commands.

    def _run(self, command: str) -> None:
        self._terminal.mark(f"command: {COMMANDS[command]}")
        if command == "?":
            self._help()
        elif command == "t":
            self._terminal.tell(self._desk.time_left())
        elif command == "w":
            self._terminal.tell(self._desk.watching())
        elif command == "e":
            self._ask("For how many more minutes? ", self._minutes_typed)
        elif command == "h":
            names = ", ".join(self._desk.could_type())
            if self._typist or not names:
                self._terminal.tell(
                    f"Sluice: {self._typist} types already"
                    if self._typist
                    else "Sluice: nobody watches who could type"
                )
            else:
                self._ask(f"Hand the typing to whom ({names})? ", self._name_typed)
        elif command == "b":
            if not self._desk.take_back():
                self._terminal.tell("Sluice: you type already")
        elif command == ".":
            self._desk.end_by_engineer()

    def _help(self) -> None:
        name = escape_name(self._escape or 0)
        self._terminal.tell(f"Sluice: {name} at the start of a line, then a letter")
        for letter, what in COMMANDS.items():
            self._terminal.tell(f"  {name} {letter}  {what}")
        self._terminal.tell(f"  {name} twice sends it once")

    def _ask(self, question: str, then: Callable[[str], None]) -> None:
        self._terminal.show(f"\r\n*** Sluice: {question}".encode())
        self._reader = LineReader(limit=ANSWER_LIMIT, echoes=True)
        self._on_line = then

    def _name_typed(self, name: str) -> None:
        if not name.strip():
            self._terminal.tell("Sluice: nothing was handed over")
            return
        self._answering = True
        self._desk.spawn(self._hand(name), "hand the typing over")

    async def _hand(self, name: str) -> None:
        answer = "Sluice: this cannot be handed over now"
        try:
            answer = await self._desk.hand_over(name)
        finally:
            if not self._locked:
                self._answering = False
                if answer:
                    self._terminal.tell(answer)

    def _minutes_typed(self, minutes: str) -> None:
        if not minutes.strip():
            self._terminal.tell("Sluice: nothing was asked")
            return
        self._ask("Why? ", lambda reason: self._reason_typed(minutes, reason))

    def _reason_typed(self, minutes: str, reason: str) -> None:
        self._terminal.mark(f"asked for {minutes} more minutes: {reason}"[:400])
        self._answering = True
        self._desk.spawn(self._extend(minutes, reason), "ask for more time")

    async def _extend(self, minutes: str, reason: str) -> None:
        answer = "Sluice: this cannot be asked now"
        try:
            answer = await self._desk.ask_extension(minutes, reason)
        finally:
            if not self._locked:
                self._answering = False
                self._terminal.tell(answer)

    def _read(self, reader: LineReader, data: bytes) -> None:
        shown, line = reader.feed(data)
        if shown:
            self._terminal.show(shown)
        if line is not None and self._on_line is not None:
            then, self._reader, self._on_line = self._on_line, None, None
            then(line)
        elif reader.cancelled:
            self._reader = self._on_line = None
            if self._locked:
                self._ask_code()
            else:
                self._terminal.tell("Sluice: nothing was asked")
