"""The portal's end of the stream to a gateway; the frames are `sessions.link_frames`.

One stream carries one terminal or one watch. Nothing is queued here: whoever reads
frames slowly lets the stream's own flow control slow the gateway down.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

from apps.sessions.link_frames import (
    Frame,
    FrameDecoder,
    FrameType,
    LinkError,
    decode_json,
    encode_frame,
    encode_json,
)

_READ_BYTES = 64 * 1024
_OPEN_SECONDS = 10
# A target is reached within SLUICE_TARGET_CONNECT_SECONDS; the gateway says so itself.
_READY_SECONDS = 330
_WRITE_SECONDS = 30
_UNIX = "unix:"


class LinkClosedError(Exception):
    """The gateway cannot be reached, or refused; the message is for the person."""


class GatewayLink:
    """An open stream to a gateway. Make one with `open_link`."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._frames = self._read()

    async def ready(self, ticket: str, *, columns: int, rows: int) -> dict[str, Any]:
        """Hand in the ticket and return what the gateway says about the session.

        Raises: LinkClosedError with the gateway's own line when it refuses.
        """
        hello = {
            "ticket": ticket,
            "columns": columns,
            "rows": rows,
            "term": "xterm-256color",
        }
        await self._write(encode_json(FrameType.TICKET, hello))
        try:
            async with asyncio.timeout(_READY_SECONDS):
                frame = await anext(self._frames, None)
        except (TimeoutError, OSError, LinkError) as error:
            raise LinkClosedError("The gateway did not answer.") from error
        if frame is not None and frame.type is FrameType.READY:
            return decode_json(frame.payload)
        if frame is not None and frame.type is FrameType.ERROR:
            raise LinkClosedError(frame.payload.decode("utf-8", "replace"))
        raise LinkClosedError("The gateway closed the line.")

    async def frames(self) -> AsyncIterator[Frame]:
        """Yield what the gateway sends after READY, until it closes the stream.

        Raises: LinkClosedError when the stream breaks or is no stream of frames.
        """
        try:
            async for frame in self._frames:
                yield frame
        except (OSError, LinkError) as error:
            raise LinkClosedError("The line to the gateway broke.") from error

    async def send(self, kind: FrameType, payload: bytes = b"") -> None:
        """Send one frame; waits while the gateway does not read.

        Raises: LinkClosedError when it does not for half a minute.
        """
        await self._write(encode_frame(kind, payload))

    async def close(self) -> None:
        """Close the stream; the gateway ends what it carried."""
        self._writer.close()
        try:
            async with asyncio.timeout(_OPEN_SECONDS):
                await self._writer.wait_closed()
        except (OSError, TimeoutError):
            self._writer.transport.abort()

    async def _write(self, data: bytes) -> None:
        try:
            self._writer.write(data)
            async with asyncio.timeout(_WRITE_SECONDS):
                await self._writer.drain()
        except (OSError, TimeoutError) as error:
            raise LinkClosedError("The gateway does not take input.") from error

    async def _read(self) -> AsyncIterator[Frame]:
        decoder = FrameDecoder()
        while data := await self._reader.read(_READ_BYTES):
            for frame in decoder.feed(data):
                yield frame


async def open_link(address: str) -> GatewayLink:
    """Connect to a gateway at `unix:/path`.

    Raises: LinkClosedError.
    """
    if not address.startswith(_UNIX):
        raise LinkClosedError("The gateway has no line for browsers.")
    try:
        async with asyncio.timeout(_OPEN_SECONDS):
            reader, writer = await asyncio.open_unix_connection(
                address.removeprefix(_UNIX)
            )
    except (OSError, TimeoutError) as error:
        raise LinkClosedError("The gateway cannot be reached.") from error
    return GatewayLink(reader, writer)


def terminal_facts(ready: Mapping[str, Any]) -> dict[str, object]:
    """Return what of READY a browser may know."""
    names = ("session_id", "session", "asset", "account", "deadline")
    return {name: ready[name] for name in names if name in ready}
