"""One direct-tcpip channel of an engineer as the transport of an SSH server in here."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncssh

from apps.gateway.fastpath_forward import ForwardChannel


class JumpTransport(asyncio.Transport):
    """What `asyncio` calls a transport, over a channel instead of a socket.

    Back-pressure goes through in both directions: a protocol that stops reading closes
    the channel's window, and a channel that is full pauses the protocol.
    """

    def __init__(self, channel: ForwardChannel, extra: dict[str, Any]) -> None:
        super().__init__(extra)
        self._channel = channel

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send `data`, copied: the writer may use its memory again at once."""
        if not self._channel.is_closing():
            self._channel.write(bytes(data))

    def get_write_buffer_size(self) -> int:
        """Return how many bytes wait for the client's window."""
        return self._channel.get_write_buffer_size()

    def set_write_buffer_limits(
        self, high: int | None = None, low: int | None = None
    ) -> None:
        """Set above how many waiting bytes the protocol is paused."""
        self._channel.set_write_buffer_limits(high, low)

    def pause_reading(self) -> None:
        """Deliver nothing more until `resume_reading`."""
        self._channel.pause_reading()

    def resume_reading(self) -> None:
        """Deliver again."""
        if not self._channel.gone:
            self._channel.resume_reading()

    def is_closing(self) -> bool:
        """Say whether nothing more can be written."""
        return self._channel.is_closing()

    def close(self) -> None:
        """Close after what was written."""
        if not self._channel.gone:
            self._channel.close()

    def abort(self) -> None:
        """Close now; what the client's window did not let through is dropped."""
        if not self._channel.gone:
            self._channel.abort()


class JumpSession(asyncssh.SSHTCPSession[bytes]):
    """Joins a channel and a protocol once the client knows that the channel is open."""

    def __init__(
        self, channel: ForwardChannel, protocol: asyncio.Protocol, extra: dict[str, Any]
    ) -> None:
        self._channel = channel
        self._protocol = protocol
        self._extra = extra

    def session_started(self) -> None:
        """Have the protocol begin."""
        self._protocol.connection_made(JumpTransport(self._channel, self._extra))
        self._channel.resume_reading()

    def data_received(self, data: bytes, datatype: int | None) -> None:  # noqa: ARG002
        self._protocol.data_received(data)

    def eof_received(self) -> bool:
        self._protocol.eof_received()
        return False

    def pause_writing(self) -> None:
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        self._protocol.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._protocol.connection_lost(exc)
