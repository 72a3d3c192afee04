"""One session channel of a sign-in without an asset: `sluice` commands, nothing else.

The line is parsed, the sign-in is judged anew for each command, the operation is
called, and the channel ends with an exit status. On a terminal what changes a session
is asked for first; without one it takes `--yes`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import replace
from functools import partial
from typing import Any, Final, Protocol, TypeVar, cast

import asyncssh
from django.db import Error as DatabaseError
from django.utils import timezone

from apps.gateway.commands import answers
from apps.gateway.commands.answers import REFUSED, WRONG, Answer, Caller
from apps.gateway.commands.grammar import (
    Command,
    HelpAsked,
    UsageError,
    parse_line,
)
from apps.gateway.commands.watching import GIVES_BACK, WatchScreen, ends_watch
from apps.gateway.engineer_connection import EngineerChannel
from apps.gateway.escape import LineReader
from apps.gateway.jumps import NO_ASSET_LINE, SignedIn
from apps.gateway.live import Core, LiveSession
from apps.gateway.live_watch import LiveWatch, begin_live_watch
from apps.gateway.session_context import DATABASE_AWAY, OpeningRefusedError
from apps.gateway.terminal_lines import plain
from apps.sessions.lifecycle import AskedBy
from apps.sessions.models import Session

logger = logging.getLogger(__name__)

T = TypeVar("T")

REFUSAL_SECONDS: Final = 0.05
"""Between a reason and the failure it explains, as in `front_session`."""

ANSWER_SECONDS: Final = 60.0
"""How long a question waits for its answer."""

TYPED_LIMIT: Final = 64
"""Packets typed ahead of a question; more are dropped."""

REASON_LIMIT: Final = 300

_ANSWERED_LATER: Final = cast(bool, None)


class CommandSide(Protocol):
    """The engineer's connection as a command knows it."""

    source_address: str

    def spawn(self, coroutine: Coroutine[Any, Any, Any], name: str) -> None:
        """Run a task owned by the gateway."""

    def refused(self, kind: str, reason: str) -> None:
        """Write down that something was refused (R22)."""

    def command_began(self) -> bool:
        """Keep the connection: a command runs. False when there were too many."""

    def command_ended(self) -> None:
        """A command runs no more."""


class _Left(Exception):  # noqa: N818  # no error
    """The client went, or wants no more."""


class CommandSession(asyncssh.SSHServerSession[bytes]):
    """Callbacks of the channel; a task of its own carries the command out."""

    def __init__(
        self,
        side: CommandSide,
        core: Core,
        person: SignedIn,
        signed_in: asyncio.Task[None],
    ) -> None:
        self._side = side
        self._core = core
        self._person = person
        self._signed_in = signed_in
        self._channel: EngineerChannel
        self._has_terminal = False
        self._started = False
        self._typed: asyncio.Queue[bytes] = asyncio.Queue()
        self._on_typed: Callable[[bytes], None] = self._keep_typed
        self._shown: WatchScreen | None = None
        self._types = False
        self._gone = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    # asyncssh's callbacks

    def connection_made(self, chan: asyncssh.SSHServerChannel[bytes]) -> None:
        self._channel = cast(EngineerChannel, chan)

    def pty_requested(self, term_type: str, term_size: Any, term_modes: Any) -> bool:  # noqa: ARG002
        """Remember that somebody can be asked."""
        self._has_terminal = True
        return True

    def shell_requested(self) -> bool:
        """Refuse: a command has to be named."""
        return self._begin(self._refuse("shell", NO_ASSET_LINE))

    def exec_requested(self, command: str) -> bool:
        """Take one line, if its first word is `sluice`."""
        return self._begin(self._run(command))

    def subsystem_requested(self, subsystem: str) -> bool:
        """Refuse: there are no files here."""
        name = plain(subsystem[:60])
        return self._begin(self._refuse(f"subsystem {name}", NO_ASSET_LINE))

    def _begin(self, coroutine: Coroutine[Any, Any, None]) -> bool:
        if self._started:
            coroutine.close()
            return False
        self._started = True
        self._side.spawn(coroutine, "carry a command out")
        return _ANSWERED_LATER

    def data_received(self, data: bytes, datatype: int | None) -> None:  # noqa: ARG002
        self._on_typed(data)

    def _keep_typed(self, data: bytes) -> None:
        if self._typed.qsize() < TYPED_LIMIT:
            self._typed.put_nowait(data)

    def eof_received(self) -> bool:
        return True

    def signal_received(self, signal: str) -> None:
        if signal in {"INT", "TERM", "HUP"}:
            self._gone.set()

    def pause_writing(self) -> None:
        self._room.clear()

    def resume_writing(self) -> None:
        self._room.set()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._gone.set()
        self._room.set()

    # what is asked for

    async def _refuse(self, kind: str, reason: str) -> None:
        self._side.refused(kind, reason)
        self._write(f"Sluice: {reason}\r\n", 1)
        await asyncio.sleep(REFUSAL_SECONDS)
        if not self._channel.is_closing():
            self._channel.answer_start(success=False)
            self._channel.close()

    async def _run(self, line: str) -> None:
        try:
            command = parse_line(line)
        except HelpAsked as asked:
            self._finish(Answer(out=str(asked)), started=False)
            return
        except UsageError as error:
            self._finish(Answer(WRONG, error=str(error)), started=False)
            return
        if command is None:
            await self._refuse("exec", NO_ASSET_LINE)
            return
        self._channel.answer_start(success=True)
        in_time = self._side.command_began()
        answer = Answer(REFUSED, error="this is not possible now")
        try:
            answer = (
                await self._answer(command)
                if in_time
                else Answer(REFUSED, error="too many commands: wait a moment")
            )
        except DatabaseError:
            logger.exception("a command could not be carried out")
            answer = Answer(REFUSED, error=DATABASE_AWAY)
        except OpeningRefusedError as error:
            answer = Answer(REFUSED, error=str(error))
        except _Left:
            answer = Answer(REFUSED, error="nothing was done")
        finally:
            self._side.command_ended()
            self._finish(answer, started=True)
        if answer.denied:
            self._side.refused(f"sluice {command.name}", answer.error)

    async def _answer(self, command: Command) -> Answer:
        await asyncio.shield(self._signed_in)
        refusal = await self._ask(answers.refusal_of, self._caller())
        if refusal is not None:
            return refusal
        if command.name == "sessions":
            return await self._ask(answers.list_sessions, command, self._caller())
        session = await self._core.blocking.run(answers.find, command, self._caller())
        if session is None:
            return Answer(REFUSED, error=answers.NOT_FOUND_LINE, denied=True)
        if command.name == "watch":
            return await self._watch(command, session)
        if not (self._has_terminal or command.yes):
            return Answer(WRONG, error="there is no terminal to ask on: say --yes")
        command = await self._confirmed(command, session)
        if answers.needs_reason(command):
            return Answer(WRONG, error="say why: --reason TEXT")
        # A question may have stood for a while.
        refusal = await self._ask(answers.refusal_of, self._caller())
        if refusal is not None:
            return refusal
        return await self._ask(answers.carry_out, command, self._caller(), session.pk)

    async def _ask(self, function: Callable[..., T], /, *args: object) -> T:
        return await self._core.blocking.run(function, *args, now=timezone.now())

    def _caller(self) -> Caller:
        return Caller(
            user=self._person.owner.user,
            key_id=self._person.owner.key_id,
            signed_in_at=self._person.proved_at,
            age=self._person.age(),
            source_address=self._side.source_address,
        )

    # asking back

    async def _confirmed(self, command: Command, session: Session) -> Command:
        """Return the command with what was asked for. Raises: _Left."""
        if not self._has_terminal:
            return command
        if answers.needs_reason(command):
            reason = await self._line("Why? ")
            command = replace(command, reason=reason.strip()[:REASON_LIMIT])
        if not command.yes:
            answer = await self._line(f"{answers.question(command, session)} [y/N] ")
            if answer.strip().lower() not in {"y", "yes"}:
                raise _Left
        return command

    async def _line(self, question: str) -> str:
        """Return one line that is typed. Raises: _Left."""
        self._write(question)
        reader = LineReader(limit=REASON_LIMIT, echoes=True)
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                while True:
                    shown, line = reader.feed(await self._next_typed())
                    self._write(shown.decode())
                    if reader.cancelled:
                        self._write("\r\n")
                        raise _Left
                    if line is not None:
                        return line
        except TimeoutError:
            self._write("\r\n")
            raise _Left from None

    async def _next_typed(self) -> bytes:
        typed = asyncio.ensure_future(self._typed.get())
        gone = asyncio.ensure_future(self._gone.wait())
        try:
            await asyncio.wait({typed, gone}, return_when=asyncio.FIRST_COMPLETED)
            if typed.done():
                return typed.result()
            raise _Left
        finally:
            typed.cancel()
            gone.cancel()

    # watching

    async def _watch(self, command: Command, session: Session) -> Answer:
        live = self._core.live.get(session.pk)
        if live is None:
            return Answer(REFUSED, error=_elsewhere(session))
        watch = await begin_live_watch(
            self._core.blocking,
            live,
            user=self._person.owner.user,
            asked=AskedBy("ssh", self._side.source_address),
            keyboard=self if self._has_terminal else None,
            sign_in=self._person.facts,
        )
        screen = WatchScreen(
            self._channel,
            room=self._room,
            channel=command.channel,
            as_json=command.json,
            has_terminal=self._has_terminal,
        )
        screen.say(
            f"you watch {session.short_id}, {session.person.username} on "
            f"{session.asset.name}; Ctrl-C or Ctrl-] ends it"
        )
        self._shown = screen
        self._on_typed = partial(self._typed_while_watching, live, watch)
        session_over = await watch.run(
            self._core.blocking, screen.show, gone=self._gone
        )
        screen.leave()
        if session_over:
            screen.say("the session has ended")
            return Answer()
        if self._gone.is_set():
            return Answer()
        return Answer(REFUSED, error=watch.why)

    def _typed_while_watching(
        self, live: LiveSession, watch: LiveWatch, data: bytes
    ) -> None:
        if self._types:
            mine, escape, _ = data.partition(GIVES_BACK)
            if mine:
                live.handover.typed(watch, mine)
            if escape:
                live.handover.give_back("given back")
        elif ends_watch(data):
            self._gone.set()
            self._room.set()

    def may_type(self, *, allowed: bool) -> None:
        """Tell the watcher that what they type passes from now on, or no more."""
        self._types = allowed
        if self._shown is not None:
            self._shown.say(
                "you type from now on; Ctrl-] gives it back"
                if allowed
                else "you only watch again; Ctrl-C or Ctrl-] ends it"
            )

    def pause_reading(self) -> None:
        """Deliver no more of what is typed (`WatchKeyboard`)."""
        if not self._channel.is_closing():
            self._channel.pause_reading()

    def resume_reading(self) -> None:
        """Deliver it again (`WatchKeyboard`)."""
        if not self._channel.is_closing():
            self._channel.resume_reading()

    # the end

    def _finish(self, answer: Answer, *, started: bool) -> None:
        if self._channel.is_closing():
            return
        if not started:
            self._channel.answer_start(success=True)
        self._write(answer.out)
        if answer.error:
            self._write(f"Sluice: {plain(answer.error)}\n", 1)
        self._channel.exit(answer.status)

    def _write(self, text: str, datatype: int | None = None) -> None:
        if self._channel.is_closing() or not text:
            return
        if self._has_terminal:
            text = text.replace("\r\n", "\n").replace("\n", "\r\n")
        self._channel.write(text.encode("utf-8", "replace"), datatype)


def _elsewhere(session: Session) -> str:
    gateway = session.gateway
    if gateway.stopped_at is not None or not gateway.ssh_address:
        return "the session has ended"
    return f"that session runs on gateway {gateway.name}; watch it there"
