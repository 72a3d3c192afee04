"""One direct-tcpip channel of an engineer's client: what arrives goes to a relay."""

from __future__ import annotations

import asyncio
import logging
from typing import cast

import asyncssh
from asyncssh.constants import (
    OPEN_ADMINISTRATIVELY_PROHIBITED,
    OPEN_CONNECT_FAILED,
)

from apps.gateway.engineer_connection import PREFIX
from apps.gateway.fastpath_forward import ForwardChannel
from apps.gateway.forward_relay import ForwardRelay, ForwardRequest
from apps.gateway.forwarding import AskedForward, destination_of
from apps.gateway.live import LiveSession
from apps.gateway.relay import FrontChannel
from apps.gateway.session_context import (
    AssetRefusedError,
    ChannelRefusedError,
    EngineerSide,
    OpeningRefusedError,
)

logger = logging.getLogger(__name__)


class FrontForward(asyncssh.SSHTCPSession[bytes]):
    """The engineer's end of a forward that is open on the asset."""

    def __init__(self, relay: ForwardRelay) -> None:
        self._relay = relay

    def session_started(self) -> None:
        """Let bytes flow: the client was told that the forward is open."""
        self._relay.front_opened()

    def data_received(self, data: bytes, datatype: int | None) -> None:  # noqa: ARG002
        self._relay.front_data(data)

    def eof_received(self) -> bool:
        self._relay.front_eof()
        return True

    def pause_writing(self) -> None:
        self._relay.front_full()

    def resume_writing(self) -> None:
        self._relay.front_drained()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._relay.front_lost()


async def open_forward(
    engineer: EngineerSide,
    opening: asyncio.Task[LiveSession] | None,
    asked: AskedForward,
    channel: ForwardChannel,
) -> FrontForward:
    """Open what a client asked for, when its session is active (R19, R27).

    Raises: asyncssh.ChannelOpenError with one line for the engineer. A refusal closes
    this channel only, and is written down.
    """
    code = OPEN_ADMINISTRATIVELY_PROHIBITED
    try:
        relay = await _open(opening, asked, channel)
    except AssetRefusedError as error:
        code, line = OPEN_CONNECT_FAILED, str(error)
    except (OpeningRefusedError, ChannelRefusedError) as error:
        line = str(error)
    except Exception:
        # asyncssh would end the whole connection for it.
        logger.exception("a forward could not be opened")
        line = "the forward cannot be opened now"
    else:
        if not channel.gone:
            return FrontForward(relay)
        relay.front_lost()
        line = "the client left"
    engineer.refused_forward(line)
    raise asyncssh.ChannelOpenError(code, f"{PREFIX}{line}")


async def _open(
    opening: asyncio.Task[LiveSession] | None,
    asked: AskedForward,
    channel: ForwardChannel,
) -> ForwardRelay:
    if opening is None:
        raise OpeningRefusedError("nobody has signed in")
    try:
        session = await asyncio.shield(opening)
    except asyncio.CancelledError:
        raise OpeningRefusedError("the session was cancelled") from None
    request = ForwardRequest(
        destination=destination_of(asked, allow_local=session.allows_local),
        origin=asked.origin,
        captured=not session.permit.omits_forward_bytes,
    )
    # A stream has no status to report, which the relay of a forward never does.
    front = cast(FrontChannel, channel)
    return cast(ForwardRelay, await session.open_channel(request, front))
