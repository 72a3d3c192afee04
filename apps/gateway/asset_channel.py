"""A session channel on an asset, started the way OpenSSH's client starts one.

All requests go out at once, which saves a round trip, and what odd devices answer is
taken as OpenSSH's client takes it: a refused terminal is no failure, output counts as a
yes to the request that is still to be answered, and answers that nobody asked for mean
nothing. asyncssh would end the session, or the whole connection, for each.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import asyncssh
from asyncssh.constants import (
    MSG_CHANNEL_FAILURE,
    MSG_CHANNEL_SUCCESS,
    OPEN_REQUEST_SESSION_FAILED,
)
from asyncssh.packet import Byte, SSHPacket, String, UInt32

from apps.gateway.fastpath import ClientChannel

ODD_ANSWER_SECONDS: Final = 0.5
"""Wait for another answer after a no that may belong to an environment variable."""

_TTY_OP_END: Final = 0
_TTY_OP_RESERVED: Final = 160
"""Opcodes from here on have no defined length (RFC 4254 8)."""


@dataclass(frozen=True, slots=True)
class Terminal:
    """A pty request (RFC 4254 6.2). Sizes as sent: 0 means unknown."""

    term: str
    columns: int
    rows: int
    width_pixels: int = 0
    height_pixels: int = 0
    modes: dict[int, int] = field(default_factory=dict)


class AssetChannel(ClientChannel):
    """A channel that starts with `start` and survives what devices answer."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._answers: list[bool] = []
        self._news = asyncio.Event()
        self._starting = False
        self._spoke = False
        super().__init__(*args, **kwargs)

    async def start(
        self,
        session_factory: Callable[[], asyncssh.SSHClientSession[bytes]],
        *,
        kind: str,
        argument: bytes = b"",
        environment: Mapping[bytes, bytes],
        terminal: Terminal | None,
    ) -> bool:
        """Open the channel as a `shell`, `exec` or `subsystem`, and read from then on.

        Returns False when a terminal was asked for and refused; the program runs
        without. Raises: asyncssh.ChannelOpenError.
        """
        packet = await self._open(b"session")
        packet.check_end()
        self._session = session_factory()
        self._session.connection_made(self)
        self._starting = True
        for name, value in environment.items():
            self._send_request(b"env", String(name), String(value))
        if terminal is not None:
            self._send_terminal(terminal)
        text = b"" if kind == "shell" else String(argument)
        self._send_request(kind.encode("ascii"), text, want_reply=True)
        expected = 1 if terminal is None else 2
        started = await self._started(expected, odd=len(environment))
        self._starting = False
        if not started:
            self.close()
            raise asyncssh.ChannelOpenError(
                OPEN_REQUEST_SESSION_FAILED, "it does not do that"
            )
        self._session.session_started()
        if self._conn is not None:
            self._conn.create_task(self._start_reading(), self.logger)
        return terminal is None or self._terminal_given()

    def _send_terminal(self, terminal: Terminal) -> None:
        modes = b"".join(
            Byte(code) + UInt32(value)
            for code, value in terminal.modes.items()
            if _TTY_OP_END < code < _TTY_OP_RESERVED
        )
        self._send_request(
            b"pty-req",
            String(terminal.term),
            UInt32(terminal.columns),
            UInt32(terminal.rows),
            UInt32(terminal.width_pixels),
            UInt32(terminal.height_pixels),
            String(modes + Byte(_TTY_OP_END)),
            want_reply=True,
        )

    async def _started(self, expected: int, *, odd: int) -> bool:
        """Say whether the program runs. `odd` answers may be to what needs none."""
        while len(self._answers) < expected and not self._has_begun():
            if self._conn is None or self._send_state == "closed":
                return False
            self._news.clear()
            await self._news.wait()
        if self._has_begun() or self._answers[-1]:
            return True
        if odd:
            seen = len(self._answers)
            try:
                async with asyncio.timeout(ODD_ANSWER_SECONDS):
                    while len(self._answers) == seen and not self._has_begun():
                        self._news.clear()
                        await self._news.wait()
            except TimeoutError:
                return False
        return self._has_begun() or self._answers[-1]

    def _has_begun(self) -> bool:
        ended = self._exit_status is not None or self._exit_signal is not None
        return self._spoke or ended

    def _terminal_given(self) -> bool:
        """Say whether the terminal was given, as far as it was answered at all."""
        return len(self._answers) < 2 or self._answers[-2]

    def _accept_data(self, data: bytes, datatype: int | None = None) -> None:
        """Note that the device speaks, whatever it is still to answer."""
        if self._starting and data:
            self._spoke = True
            self._news.set()
        super()._accept_data(data, datatype)

    def _cleanup(self, exc: Exception | None = None) -> None:
        super()._cleanup(exc)
        self._news.set()

    def _process_answer(self, pkttype: int, pktid: int, packet: SSHPacket) -> None:
        """Take an answer; what nobody waits for means nothing."""
        if self._starting:
            packet.check_end()
            self._answers.append(pkttype == MSG_CHANNEL_SUCCESS)
            self._news.set()
        elif self._request_waiters:
            self._process_response(pkttype, pktid, packet)

    def _process_exit_status_request(self, packet: SSHPacket) -> bool:
        """Take the first of several results."""
        if self._exit_status is not None or self._exit_signal is not None:
            return True
        taken = super()._process_exit_status_request(packet)
        self._news.set()
        return taken

    def _process_exit_signal_request(self, packet: SSHPacket) -> bool:
        """Take the first of several results."""
        if self._exit_status is not None or self._exit_signal is not None:
            return True
        taken = super()._process_exit_signal_request(packet)
        self._news.set()
        return taken

    _packet_handlers = {
        **ClientChannel._packet_handlers,
        MSG_CHANNEL_SUCCESS: _process_answer,
        MSG_CHANNEL_FAILURE: _process_answer,
    }
