"""One session channel of an engineer's client: what it asks for goes to a relay."""

from __future__ import annotations

import asyncio
from typing import Any, Final, cast

import asyncssh

from apps.gateway.asset_channel import Terminal
from apps.gateway.channel_kinds import SUBSYSTEMS
from apps.gateway.engineer_connection import PREFIX, EngineerChannel
from apps.gateway.live import LiveSession
from apps.gateway.relay import ChannelRequest, Relay
from apps.gateway.session_context import ChannelRefusedError, EngineerSide
from apps.gateway.terminal_lines import plain

REFUSAL_SECONDS: Final = 0.05
"""Between a reason and the failure it explains: OpenSSH drops output that arrives
together with a failure."""

# asyncssh reads None as "will be answered later"; its types only say bool.
_ANSWERED_LATER: Final = cast(bool, None)


class FrontSession(asyncssh.SSHServerSession[bytes]):
    """One session channel of an engineer; its callbacks go to the relay.

    Requests to start are answered only when the asset has answered, so that no input
    arrives before there is somewhere to put it.
    """

    def __init__(self, engineer: EngineerSide, session: LiveSession) -> None:
        self._engineer = engineer
        self._session = session
        self._channel: EngineerChannel
        self._terminal: Terminal | None = None
        self._relay: Relay | None = None
        self._lost = False

    def connection_made(self, chan: asyncssh.SSHServerChannel[bytes]) -> None:
        self._channel = cast(EngineerChannel, chan)

    def pty_requested(
        self,
        term_type: str,
        term_size: tuple[int, int, int, int],
        term_modes: Any,
    ) -> bool:
        """Remember the terminal for the start."""
        if len(term_type) > 64 or not term_type.isprintable():
            return False
        columns, rows, width, height = term_size
        self._terminal = Terminal(
            term_type, columns, rows, width, height, dict(term_modes)
        )
        return True

    def shell_requested(self) -> bool:
        """Start a shell."""
        return self._start("shell", None)

    def exec_requested(self, command: str) -> bool:
        """Start a command; never judged by its text (R10, R32). Empty is a shell."""
        if not command:
            return self._start("shell", None)
        return self._start("exec", command.encode("utf-8", "surrogateescape"))

    def subsystem_requested(self, subsystem: str) -> bool:
        """Start SFTP; no other subsystem can be controlled."""
        if subsystem in SUBSYSTEMS:
            return self._start(subsystem, None)
        name = subsystem[:60] if subsystem.isprintable() else "unknown"
        self._engineer.spawn(
            self._refuse(f"subsystem {name}", f"{name} is not available here"),
            "refuse a subsystem",
        )
        return _ANSWERED_LATER

    def _start(self, kind: str, command: bytes | None) -> bool:
        request = ChannelRequest(
            kind=kind,
            command=command,
            terminal=self._terminal,
            environment=dict(self._channel.get_environment_bytes()),
        )
        self._engineer.spawn(self._open(request), f"open a {kind}")
        return _ANSWERED_LATER

    async def _open(self, request: ChannelRequest) -> None:
        try:
            relay = await self._session.open_channel(request, self._channel)
        except ChannelRefusedError as error:
            await self._refuse(request.kind, str(error))
            return
        except Exception:
            self._channel.abort()
            raise
        if self._lost:
            relay.front_lost()
            return
        self._relay = relay
        self._channel.answer_start(success=True, held=relay.holds_input)
        now = self._terminal
        if now is not None and now != request.terminal:
            # The window was changed while the asset was asked.
            relay.front_resized(
                now.columns, now.rows, now.width_pixels, now.height_pixels
            )
        if request.kind == "shell":
            # Only a terminal shows them: what else reads a shell may parse it.
            for line in self._engineer.first_lines(
                self._session.permit, self._session.deadline
            ):
                relay.tell(line)

    async def _refuse(self, kind: str, reason: str) -> None:
        """Show the reason, then fail the request and close the channel."""
        self._engineer.refused(kind, reason)
        if self._lost or self._channel.is_closing():
            return
        self._channel.write(f"{PREFIX}{plain(reason)}\r\n".encode(), 1)
        await asyncio.sleep(REFUSAL_SECONDS)
        if not self._lost:
            self._channel.answer_start(success=False)
            self._channel.close()

    def data_received(self, data: bytes, datatype: int | None) -> None:  # noqa: ARG002
        if self._relay is not None:
            self._relay.front_data(data)

    def eof_received(self) -> bool:
        if self._relay is not None:
            self._relay.front_eof()
        return True

    def terminal_size_changed(
        self, width: int, height: int, pixwidth: int, pixheight: int
    ) -> None:
        if self._relay is not None:
            self._relay.front_resized(width, height, pixwidth, pixheight)
        elif self._terminal is not None:
            self._terminal = Terminal(
                self._terminal.term,
                width,
                height,
                pixwidth,
                pixheight,
                self._terminal.modes,
            )

    def signal_received(self, signal: str) -> None:
        if self._relay is not None:
            self._relay.front_signal(signal)

    def break_received(self, msec: int) -> bool:
        return self._relay is not None and self._relay.front_break(msec)

    def pause_writing(self) -> None:
        if self._relay is not None:
            self._relay.front_full()

    def resume_writing(self) -> None:
        if self._relay is not None:
            self._relay.front_drained()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._lost = True
        if self._relay is not None:
            self._relay.front_lost()
