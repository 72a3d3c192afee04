"""Destinations for forwards, and a stock `ssh` that holds forwards open."""

import asyncio
import ipaddress
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from apps.access.models import Grant
from apps.inventory import operations as inventory
from apps.inventory.models import Conduit
from tests import factories
from tests.gateway.conftest import Client, Here
from tests.servers.process import free_port

HOST = "127.0.0.1"


@dataclass
class Destination:
    """A TCP server on loopback, and what it saw."""

    port: int = 0
    connections: int = 0
    received: bytearray = field(default_factory=bytearray)
    over: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a connection has ended."""

    @property
    def service(self) -> str:
        return f"forward:{HOST}:{self.port}"

    @property
    def text(self) -> str:
        return f"{HOST}:{self.port}"


Talk = Callable[
    [Destination, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]
]


@asynccontextmanager
async def destination(talk: Talk) -> AsyncIterator[Destination]:
    """Serve `talk` to each connection."""
    here = Destination()
    writers: set[asyncio.StreamWriter] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        here.connections += 1
        writers.add(writer)
        try:
            await talk(here, reader, writer)
        except OSError:
            pass
        finally:
            writer.close()
            writers.discard(writer)
            here.over.set()

    server = await asyncio.start_server(serve, HOST, 0)
    here.port = server.sockets[0].getsockname()[1]
    try:
        yield here
    finally:
        server.close()
        for writer in list(writers):
            writer.transport.abort()


async def echo(
    here: Destination, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Send back what comes, then the end of it."""
    while data := await reader.read(1 << 16):
        here.received += data
        writer.write(data)
        await writer.drain()
    writer.write_eof()


def carry(here: Here, *services: str) -> None:
    """Let the conduit of the plant carry these as well as what it does."""
    conduit = Conduit.objects.get(pk=here.plant.conduit.pk)
    inventory.change_conduit(
        conduit_id=conduit.pk,
        services={*conduit.services, *services},
        by=factories.SET_UP,
        now=factories.clock(),
    )


def grant_forwards(here: Here, *services: str, **options: Any) -> Grant:
    """Let the engineer use exactly these services from now on."""
    carry(here, *services)
    return here.grant(services=services, **options)


@dataclass
class Tunnel:
    """A running `ssh -N` whose local ports answer."""

    process: asyncio.subprocess.Process
    said: bytearray = field(default_factory=bytearray)
    _reading: asyncio.Task[None] | None = None

    async def read(self) -> None:
        assert self.process.stderr is not None
        while line := await self.process.stderr.readline():
            self.said += line

    async def has_said(self, text: bytes) -> None:
        async with asyncio.timeout(15):
            while text not in self.said:  # noqa: ASYNC110
                await asyncio.sleep(0.02)

    async def ended(self, seconds: float = 15) -> int:
        async with asyncio.timeout(seconds):
            return await self.process.wait()


@asynccontextmanager
async def tunnel(
    client: Client, *options: str, command: tuple[str, ...] = (), **more: Any
) -> AsyncIterator[Tunnel]:
    """Run the stock client with these options, until it has signed in."""
    line, environment = client.openssh(
        *command, options=["-v", "-oExitOnForwardFailure=yes", *options], **more
    )
    process = await asyncio.create_subprocess_exec(
        *line,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env=environment,
        start_new_session=True,
    )
    running = Tunnel(process)
    reading = asyncio.create_task(running.read())
    try:
        await running.has_said(b"Entering interactive session")
        yield running
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await reading


def local_port() -> int:
    """Return a port that nobody listens on."""
    return free_port()


@asynccontextmanager
async def connected(
    port: int,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection to a port of this machine; reset at the end."""
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
        with suppress(OSError):
            await writer.wait_closed()


async def talk_to(port: int, data: bytes, *, seconds: float = 15) -> bytes:
    """Send `data` and the end of it; return all that came back."""
    async with asyncio.timeout(seconds), connected(port) as (reader, writer):
        sending = asyncio.create_task(_send(writer, data))
        answer = await reader.read()
        await sending
        return answer


async def _send(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(data)
    await writer.drain()
    writer.write_eof()


@asynccontextmanager
async def through_socks(
    port: int, host: str, to_port: int
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection through a SOCKS 5 proxy (RFC 1928), whatever it answers."""
    try:
        where = b"\x01" + ipaddress.IPv4Address(host).packed
    except ValueError:
        where = b"\x03" + bytes([len(host)]) + host.encode()
    async with connected(port) as (reader, writer):
        writer.write(b"\x05\x01\x00")
        assert await reader.readexactly(2) == b"\x05\x00"
        writer.write(b"\x05\x01\x00" + where + struct.pack(">H", to_port))
        with suppress(asyncio.IncompleteReadError):
            # OpenSSH just closes when it was refused.
            assert (await reader.readexactly(10))[1] == 0
        yield reader, writer
