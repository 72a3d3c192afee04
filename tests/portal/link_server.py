"""The gateway's end of a link, for tests of the portal's end; the frames are real."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from channels.db import database_sync_to_async

from apps.sessions.link_frames import Frame, FrameDecoder, FrameType, decode_json
from apps.sessions.tickets import RedeemedTicket, redeem_ticket
from tests.factories import clock


class LinkConnection:
    """One stream that the portal opened."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._reader = reader
        self.writer = writer
        self._frames = self._read()

    async def _read(self) -> AsyncIterator[Frame]:
        decoder = FrameDecoder()
        while data := await self._reader.read(65536):
            for frame in decoder.feed(data):
                yield frame

    async def next(self) -> Frame | None:
        """Return the portal's next frame, None when it closed the stream."""
        async with asyncio.timeout(10):
            return await anext(self._frames, None)

    async def redeem(self) -> tuple[dict[str, object], RedeemedTicket | None]:
        """Take the first frame's ticket and use it up, as a gateway does."""
        frame = await self.next()
        assert frame is not None
        assert frame.type is FrameType.TICKET
        hello = decode_json(frame.payload)
        token = str(hello.pop("ticket"))

        def use() -> RedeemedTicket | None:
            return redeem_ticket(token=token, now=clock())

        return hello, await database_sync_to_async(use)()


class LinkServer:
    """Listens where a gateway row says; hands out the streams in their order."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._opened: asyncio.Queue[LinkConnection] = asyncio.Queue()
        self._all: list[LinkConnection] = []

    async def take(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Keep a stream until a test asks for it."""
        connection = LinkConnection(reader, writer)
        self._all.append(connection)
        await self._opened.put(connection)

    async def close(self) -> None:
        """Close what is still open."""
        for connection in self._all:
            connection.writer.close()
            with suppress(ConnectionError):
                await connection.writer.wait_closed()

    async def connection(self) -> LinkConnection:
        """Return the next stream that was opened."""
        async with asyncio.timeout(10):
            return await self._opened.get()


@asynccontextmanager
async def link_server(folder: Path) -> AsyncIterator[LinkServer]:
    """Run a link server on a Unix socket in `folder`."""
    server = LinkServer(folder / "link.sock")
    listener = await asyncio.start_unix_server(server.take, server.path)
    try:
        yield server
    finally:
        await server.close()
        listener.close()
        await listener.wait_closed()
