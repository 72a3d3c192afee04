"""Between one direct-tcpip channel of an engineer and one on the asset.

As `relay.Relay`, with its order (record first, forward second) and its flow control.
What differs: there is no terminal and no exit status, nothing of Sluice's own words may
be put into the stream, and a freeze holds both directions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, cast

import asyncssh

from apps.gateway.fastpath_forward import ForwardChannel, new_forward_channel
from apps.gateway.relay import ChannelRequest, Hold, Relay
from apps.gateway.upstream import MAX_PACKET
from apps.gateway.upstream_connection import UpstreamConnection
from apps.inventory.services import ForwardDestination
from apps.recordings.frames import EventKind, encode_open

FORWARD_LIMIT: Final = 32
"""Forwards at the same time on one session; a browser opens many."""

FORWARD_WINDOW: Final = 1 << 20
"""Half of a session channel's: there may be more of them, and all may be held."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardRequest(ChannelRequest):
    """A forward that was judged: to `destination`, at exactly `addresses`."""

    kind: str = "forward"
    destination: ForwardDestination
    addresses: tuple[str, ...] = ()
    origin: tuple[str, int]
    captured: bool = True
    """Whether its bytes are recorded, not only their number."""

    @property
    def service(self) -> str:
        """Return what a permit must hold for it."""
        return self.destination.service

    @property
    def service_text(self) -> str:
        """Return the service as a line for the engineer names it."""
        return f"a forward to {self.destination}"

    @property
    def command_text(self) -> str:
        """Return what the rows and the recording say of it."""
        return f"{self.destination} from {self.origin[0]} port {self.origin[1]}"


class ForwardRelay(Relay):
    """One forward, from its opening on the asset to its end."""

    input_kind = EventKind.FORWARD_INPUT
    output_kind = EventKind.FORWARD_OUTPUT
    request: ForwardRequest

    async def open_back(self, connection: UpstreamConnection) -> None:
        """Ask the asset for the first address that it can reach.

        Nothing is read from it until `front_opened`.
        Raises: asyncssh.ChannelOpenError when the asset refuses; RecordingFailedError.
        """
        request = self.request
        self._recorder.add(
            EventKind.OPEN,
            self.number,
            encode_open(request.kind, command=request.command_text),
        )
        problem = asyncssh.ChannelOpenError(asyncssh.OPEN_CONNECT_FAILED, "no address")
        for address in request.addresses:
            channel = new_forward_channel(
                connection, window=FORWARD_WINDOW, max_pktsize=MAX_PACKET
            )
            try:
                await channel.connect(
                    lambda: _BackForward(self),
                    address,
                    request.destination.port,
                    *request.origin,
                )
            except asyncssh.ChannelOpenError as error:
                problem = error
            except BaseException:
                channel.given_up = True
                raise
            else:
                return
        raise problem

    def back_made(self, channel: Any) -> None:
        """Know the channel on the asset; a server that speaks first waits."""
        self._hold_back(Hold.OPENING)
        channel.pause_reading()
        super().back_made(channel)

    def front_opened(self) -> None:
        """Let both directions flow: the engineer's client knows that it is open."""
        if not self._front_holds and self._front is not None:
            self._front.resume_reading()
        self._release_back(Hold.OPENING)

    def _record(self, kind: EventKind, data: bytes) -> bool:
        if not self.request.captured and kind in (self.input_kind, self.output_kind):
            return not self._over
        return super()._record(kind, data)

    def back_lost(self, *, torn: bool) -> None:  # noqa: ARG002
        """Close the engineer's side after what was delivered."""
        self._back = None
        front, self._front = self._front, None
        if front is not None and not self._over:
            front.close()
        self._end()

    def notify(self, text: str) -> None:
        """Say nothing: a stream belongs to the programs at its ends."""

    def say_last(self, text: str) -> None:
        """Say nothing: a stream belongs to the programs at its ends."""


class _BackForward(asyncssh.SSHTCPSession[bytes]):
    """Hands the callbacks of the asset's channel to the relay."""

    def __init__(self, relay: ForwardRelay) -> None:
        self._relay = relay
        self._channel: ForwardChannel | None = None

    def connection_made(self, chan: asyncssh.SSHTCPChannel[bytes]) -> None:
        self._channel = cast(ForwardChannel, chan)
        self._relay.back_made(chan)

    def data_received(self, data: bytes, datatype: int | None) -> None:
        self._relay.back_data(data, datatype)

    def eof_received(self) -> bool:
        self._relay.back_eof()
        return True

    def pause_writing(self) -> None:
        self._relay.back_full()

    def resume_writing(self) -> None:
        self._relay.back_drained()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._relay.back_lost(torn=self._channel is not None and self._channel.torn)
