"""Channels that are no sessions, on the fast path: one TCP connection each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from asyncssh.channel import SSHChannel, SSHTCPChannel

from apps.gateway.fastpath import ClientConnection, ServerConnection, _ChannelBase


class ForwardChannel(_ChannelBase, SSHTCPChannel[bytes]):
    """A direct-tcpip channel: opened by an engineer's client, or on an asset."""

    given_up = False
    """True when nobody waits for the asset's answer any more."""

    on_gone: Callable[[], None] | None = None
    """Called once, when the channel has ended in whatever way."""

    def _cleanup(self, exc: Exception | None = None) -> None:
        super()._cleanup(exc)
        on_gone, self.on_gone = self.on_gone, None
        if on_gone is not None:
            on_gone()

    async def _finish_open_request(self, result: Any) -> None:
        """Confirm the opening; the session says when reading begins.

        asyncssh would begin to read whatever the session had asked for.
        """
        await SSHChannel._finish_open_request(self, result)
        if self._session is not None:
            self._session.session_started()

    def process_open_confirmation(self, *args: Any) -> None:
        """Close at once what was opened too late."""
        super().process_open_confirmation(*args)
        if self.given_up:
            self.close()

    @property
    def gone(self) -> bool:
        """Say whether the channel, or its whole connection, has ended."""
        return self._conn is None


def new_forward_channel(
    connection: ServerConnection | ClientConnection, *, window: int, max_pktsize: int
) -> ForwardChannel:
    """Return an unopened channel of either side."""
    connection._update_recv_pktlen(max_pktsize)
    return ForwardChannel(
        connection, connection._loop, None, "strict", window, max_pktsize
    )
